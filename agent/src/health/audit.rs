//! The audit log: one line of JSON for each act that matters to security, in a file of the state directory that only the agent's user can read.
//!
//! Never holds a value of a setting, a text of a statement or a credential: names, places and outcomes alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde::Serialize;

/// Name of the file, and of the one before it.
const FILE: &str = "audit.log";
const OLDER: &str = "audit.log.1";
/// From this size on a new file is begun, and the one before the last goes: the log is bounded, and an act that repeats without end cannot fill the disk.
const MAX_BYTES: u64 = 8 << 20;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// The agent has started.
    Started,
    /// The agent ends.
    Ended,
    /// A configuration was to be taken up anew.
    Reload,
    /// A circuit was opened by hand.
    BreakerOpened,
    /// A circuit was closed by hand.
    BreakerClosed,
    /// The effective configuration was shown.
    ConfigShown,
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    act: Act,
    outcome: &'a str,
    /// User who asked, where somebody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    about: &'a str,
}

/// Writes the audit log. Where the file cannot be written, the agent's own log has the lines.
#[derive(Debug)]
pub struct Audit {
    directory: PathBuf,
    file: Mutex<Option<File>>,
}

impl Audit {
    /// In `directory`, which is made if need be.
    pub fn open(directory: &Path) -> Audit {
        let file = fs::create_dir_all(directory).and_then(|()| open(directory));
        let file = file.inspect_err(|error| tracing::warn!(%error, "the audit log goes to the agent's own log")).ok();
        Audit { directory: directory.into(), file: Mutex::new(file) }
    }

    /// Notes an act: how it ended, who asked, and what it was about.
    pub fn note(&self, act: Act, outcome: &str, uid: Option<u32>, about: &str) {
        let at = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default().to_string();
        let line = Line { at, act, outcome, uid, about };
        let Ok(mut line) = serde_json::to_vec(&line) else { return };
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *file {
            Some(open) => open.write_all(&line).and_then(|()| self.rotate(open)),
            None => Err(io::Error::other("it is not open")),
        };
        if let Err(error) = written {
            let text = String::from_utf8_lossy(&line);
            tracing::warn!(%error, "audit: {}", text.trim_end());
        }
    }

    fn rotate(&self, file: &mut File) -> io::Result<()> {
        if file.metadata()?.len() < MAX_BYTES {
            return Ok(());
        }
        fs::rename(self.directory.join(FILE), self.directory.join(OLDER))?;
        *file = open(&self.directory)?;
        Ok(())
    }
}

fn open(directory: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(FILE))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn acts_are_lines_that_others_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path());
        audit.note(Act::Started, "done", None, "");
        audit.note(Act::BreakerOpened, "done", Some(1000), "server 1, question \"x\"");
        let path = folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["act"], &lines[1]["uid"]), (2, &"started".into(), &1000.into()));
        assert_eq!(lines[1]["about"], "server 1, question \"x\"");
        assert!(lines[0]["at"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn the_log_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path());
        let about = "x".repeat(1 << 20);
        (0..30).for_each(|_| audit.note(Act::Reload, "refused", None, &about));
        let sizes: Vec<u64> =
            fs::read_dir(folder.path()).unwrap().map(|of| of.unwrap().metadata().unwrap().len()).collect();
        assert!(sizes.len() == 2 && sizes.iter().all(|size| *size < MAX_BYTES + (2 << 20)), "{sizes:?}");
    }
}
