//! Single records as lines of JSON in a file, for hosts that have a shipper of logs already.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{
    attributes::Value,
    record::{self, Event},
};
use crate::model::{
    Instance, Outgoing, Problem, Timestamp,
    names::{AGENT, attribute as a},
};

/// A file of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file. Absolute; only the agent's user can read it.
    pub path: PathBuf,
    /// Megabytes from which on a new file is begun; the one before it stays beside it as `PATH.1`.
    #[schemars(range(min = 1, max = MAX_MIB))]
    pub max_mib: u64,
    /// Bytes of a statement's text; 0 leaves it out.
    #[schemars(range(min = 0, max = MAX_TEXT_BYTES))]
    pub query_text_bytes: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { path: "/var/log/querylens/events.jsonl".into(), max_mib: 100, query_text_bytes: 4095 }
    }
}

/// A tebibyte.
const MAX_MIB: u64 = 1 << 20;
/// As for receivers.
const MAX_TEXT_BYTES: usize = 65_536;

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let path = (!self.path.is_absolute()).then(|| Problem::new("path", "must be an absolute path"));
        let size = Problem::out_of_range("max_mib", &self.max_mib, 1..=MAX_MIB);
        let text = Problem::out_of_range("query_text_bytes", &self.query_text_bytes, 0..=MAX_TEXT_BYTES);
        path.into_iter().chain(size).chain(text)
    }
}

/// Writes such a file. It is opened with the first record, and again after a failure.
#[derive(Debug)]
pub struct Exporter {
    config: Config,
    file: Option<(File, u64)>,
}

impl Exporter {
    /// For the file of `config`.
    pub fn new(config: &Config) -> Exporter {
        Exporter { config: config.clone(), file: None }
    }

    /// Writes one line for each record and notice.
    pub fn write(&mut self, outgoing: &Outgoing) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in &outgoing.records {
            if let Some(event) = record::event(record, self.config.query_text_bytes) {
                let server = Some(&*record.origin.instance);
                line(&mut lines, outgoing, record.at, server, event)?;
            }
        }
        for notice in &outgoing.notices {
            line(&mut lines, outgoing, notice.at, None, record::notice(notice))?;
        }
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.append(&lines);
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let (file, bytes) = match &mut self.file {
            Some(open) => open,
            none => none.insert(open(&self.config.path)?),
        };
        file.write_all(lines)?;
        *bytes += lines.len() as u64;
        if *bytes >= self.config.max_mib << 20 {
            let mut older = self.config.path.clone().into_os_string();
            older.push(".1");
            fs::rename(&self.config.path, older)?;
            self.file = None;
        }
        Ok(())
    }
}

fn open(path: &PathBuf) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

fn line(
    lines: &mut Vec<u8>,
    outgoing: &Outgoing,
    at: Timestamp,
    server: Option<&Instance>,
    event: Event<'_>,
) -> io::Result<()> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(outgoing.clock.unix_nanos(at))).unwrap_or_default();
    let mut object = Map::new();
    object.insert("time".into(), time.to_string().into());
    object.insert("event".into(), event.name.into());
    object.insert(a::SERVICE_NAME.into(), server.map_or(AGENT, Instance::product).into());
    let id = server.map(|server| server.service_instance_id.to_string());
    object.extend(id.map(|id| (a::SERVICE_INSTANCE_ID.to_owned(), id.into())));
    for (name, value) in event.attributes {
        let value = match value {
            Value::Text(text) => Json::from(text.into_owned()),
            Value::Number(number) => number.into(),
            Value::Float(number) => number.into(),
            Value::Flag(flag) => flag.into(),
        };
        object.insert(name.into(), value);
    }
    serde_json::to_writer(&mut *lines, &object)?;
    lines.push(b'\n');
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::{
        WallClock,
        signal::{Notice, NoticeKind},
    };

    fn outgoing() -> Outgoing {
        let notice = Notice {
            at: Timestamp(5),
            kind: NoticeKind::Alert,
            category: "budget",
            severity: "high",
            instance: None,
            subject: "budget",
            value: 1.5,
            limit: 1.0,
            remediation: "",
            suppressed: 0,
        };
        Outgoing {
            clock: WallClock::at(Timestamp(0), 1_700_000_000_000_000_000),
            records: Vec::new(),
            notices: vec![notice],
        }
    }

    #[test]
    fn each_notice_is_a_line_that_others_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { path: folder.path().join("new/events.jsonl"), ..Config::default() };
        let mut exporter = Exporter::new(&config);
        exporter.write(&outgoing()).unwrap();
        exporter.write(&outgoing()).unwrap();
        let text = fs::read_to_string(&config.path).unwrap();
        assert_eq!(text.lines().count(), 2);
        let line: Json = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&line["event"], &line["service.name"], &line["querylens.value"]),
            (&"querylens.alert".into(), &"querylens".into(), &1.5.into())
        );
        assert_eq!(line["time"], "2023-11-14T22:13:20.000000005Z");
        assert_eq!(fs::metadata(&config.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_file_is_bounded_and_comes_again_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut exporter = Exporter::new(&Config { path: path.clone(), max_mib: 1, ..Config::default() });
        let many = Outgoing { notices: vec![outgoing().notices[0].clone(); 2000], ..outgoing() };
        (0..20).for_each(|_| exporter.write(&many).unwrap());
        let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(size("events.jsonl.1") < 2 << 20 && size("events.jsonl") < 2 << 20);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        // The file that is still open takes what it can; then it cannot be opened again.
        assert!((0..20).any(|_| exporter.write(&many).is_err()));
        fs::remove_dir(&path).unwrap();
        exporter.write(&many).unwrap();
        assert!(size("events.jsonl") > 0);
    }
}
