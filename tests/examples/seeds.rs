//! Writes the inputs that fuzzing begins with: `cargo run -p querylens-tests --example seeds -- FOLDER` makes FOLDER/TARGET/NAME out of the
//! recorded streams and the tables of statements.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use querylens::{
    model::{Engine, Timestamp},
    wire::Direction,
};
use querylens_tests::{
    capture::{Connection, Format, Link},
    recorded::{Recorded, recorded},
    stream::Input,
};

/// Longest seed: a target takes no longer input.
const MAX_SEED: usize = 16 << 10;

fn main() -> Result<()> {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else { bail!("usage: seeds FOLDER") };
    for (number, recorded) in recorded().iter().enumerate() {
        let name = seed_name(recorded);
        let target = if recorded.engine == Engine::Postgresql { "wire_postgres" } else { "wire_mysql" };
        write(&folder, target, &name, &operations(&recorded.fixture.inputs))?;
        let (link, format) = (Link::ALL[number % Link::ALL.len()], Format::ALL[number % Format::ALL.len()]);
        write(&folder, "pcap", &name, &capture(recorded, link, number % 2 == 1, format))?;
    }
    statements(&folder)?;
    records(&folder)
}

fn seed_name(recorded: &Recorded) -> String {
    let name = recorded.path.file_stem().unwrap_or_default().to_string_lossy();
    format!("{}-{name}", recorded.engine)
}

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(folder.join(name), &bytes[..bytes.len().min(MAX_SEED)]).context("cannot write a seed")
}

/// As tests/fuzz/src/lib.rs reads them: kind, time step, length, missing, bytes.
fn operations(inputs: &[Input]) -> Vec<u8> {
    let mut seed = Vec::new();
    for input in inputs {
        match input {
            Input::Gap => seed.extend([6, 1, 0, 0, 0]),
            Input::Close => seed.extend([7, 1, 0, 0, 0]),
            Input::Data { direction, bytes, .. } => {
                let kind = if *direction == Direction::Request { 0 } else { 1 };
                for part in bytes.chunks(usize::from(u16::MAX)) {
                    let [low, high] = (part.len() as u16).to_le_bytes();
                    seed.extend([kind, 1, low, high, 0]);
                    seed.extend(part);
                }
            }
        }
    }
    seed
}

fn capture(recorded: &Recorded, link: Link, ipv6: bool, format: Format) -> Vec<u8> {
    let port = if recorded.engine == Engine::Postgresql { 5432 } else { 3306 };
    let mut connection = Connection::new(link, ipv6, port);
    connection.open(Timestamp(0));
    connection.stream(&recorded.fixture.inputs, &[1448]);
    format.file(link, &connection.frames)
}

/// Every cell of the tables below tests/sql, for each engine.
fn statements(folder: &Path) -> Result<()> {
    let tables = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    for entry in fs::read_dir(&tables).with_context(|| format!("{}", tables.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "tsv") {
            continue;
        }
        let table = fs::read_to_string(&path)?;
        let cells = table.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split('\t'));
        for (number, cell) in cells.filter(|cell| cell.len() > 12).enumerate() {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let engine = (number % 3) as u8;
            write(folder, "sql_normalise", &format!("{stem}-{number}"), &[&[engine], cell.as_bytes()].concat())?;
        }
    }
    Ok(())
}

/// A record with a few segments, in the byte order of this machine.
fn records(folder: &Path) -> Result<()> {
    let mut payload = Vec::new();
    for (bytes, true_len) in [(&b"Q\0\0\0\x0d"[..], 700u32), (b"D", 3000)] {
        payload.extend((true_len | (bytes.len() as u32) << agent_ebpf::SEGMENT_LENGTH_BITS).to_ne_bytes());
        payload.extend(bytes);
        payload.resize(payload.len().next_multiple_of(4), 0);
    }
    for kind in [agent_ebpf::kind::DATA, agent_ebpf::kind::ELIDED] {
        let mut record = vec![0; agent_ebpf::HEADER_LEN];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[36..40].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
        record[40..44].copy_from_slice(&3700u32.to_ne_bytes());
        record.extend(&payload);
        write(folder, "record", &format!("kind-{kind}"), &record)?;
    }
    Ok(())
}
