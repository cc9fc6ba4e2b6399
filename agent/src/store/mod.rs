//! What the agent remembers over a restart: one file, written as a whole, off the way of the data.
//!
//! Values are bytes by name; who wrote them knows what they mean. A file that cannot be read, or that another version wrote, is set aside and never fatal.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Problem};

/// Name of the file in the state directory.
const FILE: &str = "state.redb";
/// Version of the file's layout; values have versions of their own.
const FORMAT: u64 = 1;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const STATES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("states");

/// What is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of what is kept over a restart: what processors have learnt, what waits for receivers, the audit log. Absolute; made if need be. Where it cannot be
    /// written, nothing is kept, and the log says so.
    pub directory: PathBuf,
    /// How often it is written, beside at the end.
    pub save_interval: HumanDuration,
}

impl Default for Config {
    fn default() -> Config {
        Config { directory: "/var/lib/querylens".into(), save_interval: HumanDuration::from_secs(60) }
    }
}

const INTERVALS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_secs(1)..=HumanDuration::from_secs(86_400);

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let relative = !self.directory.is_absolute();
        let directory = relative.then(|| Problem::new("directory", "must be an absolute path"));
        directory.into_iter().chain(Problem::out_of_range("save_interval", &self.save_interval, INTERVALS))
    }
}

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory.
    #[error("the state directory {path} cannot be used: {error}", path = path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The file.
    #[error("the state file: {0}")]
    File(Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for Error {
    fn from(error: E) -> Error {
        Error::File(Box::new(error.into()))
    }
}

/// The file.
#[derive(Debug)]
pub struct Store(Database);

impl Store {
    /// Opens the file in `directory`, both of which are made if need be. The text says what was set aside, and why.
    pub fn open(directory: &Path) -> Result<(Store, Option<String>), Error> {
        let in_directory = |error| Error::Directory { path: directory.into(), error };
        fs::create_dir_all(directory).map_err(in_directory)?;
        let path = directory.join(FILE);
        let why = match open(&path) {
            Ok(store) => return Ok((store, None)),
            Err(Broken::Else(error)) => return Err(error),
            Err(Broken::Content(why)) => why,
        };
        let aside = path.with_extension("broken");
        fs::rename(&path, &aside).map_err(in_directory)?;
        let note = format!("{} cannot be used ({why}) and was set aside as {}", path.display(), aside.display());
        match open(&path) {
            Ok(store) => Ok((store, Some(note))),
            Err(Broken::Else(error)) => Err(error),
            Err(Broken::Content(why)) => Err(in_directory(io::Error::other(why))),
        }
    }

    /// All that is kept, by name.
    pub fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let read = self.0.begin_read()?;
        let table = match read.open_table(STATES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        let mut states = BTreeMap::new();
        for entry in table.iter()? {
            let (name, value) = entry?;
            states.insert(name.value().to_owned(), value.value().to_owned());
        }
        Ok(states)
    }

    /// Keeps `states`, all or none of them; what is not among them stays as it was.
    pub fn save(&self, states: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(STATES)?;
            for (name, value) in states {
                table.insert(name.as_str(), value.as_slice())?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

/// Why a file could not be opened.
enum Broken {
    /// For what is in it.
    Content(String),
    /// For another reason: no permission, no room, in use.
    Else(Error),
}

impl From<redb::Error> for Broken {
    fn from(error: redb::Error) -> Broken {
        match error {
            // Shorter than it says, or not what it should be: that is the file, not the disk.
            redb::Error::Io(of) if matches!(of.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
                Broken::Content(of.to_string())
            }
            redb::Error::Io(_) | redb::Error::DatabaseAlreadyOpen => Broken::Else(error.into()),
            error => Broken::Content(error.to_string()),
        }
    }
}

fn open(path: &Path) -> Result<Store, Broken> {
    // Of a file whose pages are damaged the database may panic while it looks for what is whole.
    let opened = catch_unwind(AssertUnwindSafe(|| open_or_error(path)));
    opened.unwrap_or_else(|_| Err(Broken::Content("its pages are damaged".to_owned())))
}

fn open_or_error(path: &Path) -> Result<Store, Broken> {
    let database = Database::create(path).map_err(redb::Error::from)?;
    let write = database.begin_write().map_err(redb::Error::from)?;
    let found = {
        let mut meta = write.open_table(META).map_err(redb::Error::from)?;
        let found = meta.get("format").map_err(redb::Error::from)?.map(|format| format.value());
        if found.is_none() {
            meta.insert("format", FORMAT).map_err(redb::Error::from)?;
        }
        found
    };
    write.commit().map_err(redb::Error::from)?;
    match found {
        None | Some(FORMAT) => Ok(Store(database)),
        Some(other) => Err(Broken::Content(format!("its format is {other}, this version's is {FORMAT}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn states(entries: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
    }

    #[test]
    fn what_is_saved_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (store, note) = Store::open(folder.path()).unwrap();
        assert_eq!((store.load().unwrap().len(), note), (0, None));
        store.save(&states(&[("a", b"1"), ("b", b"2")])).unwrap();
        store.save(&states(&[("b", b"3")])).unwrap();
        drop(store);
        let (store, note) = Store::open(folder.path()).unwrap();
        assert_eq!((store.load().unwrap(), note), (states(&[("a", b"1"), ("b", b"3")]), None));
        let error = Store::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("open"), "a second process is told so: {error}");
    }

    /// Guarantees: whatever the file holds, the store opens or says why not, and what was there is kept beside it.
    #[test]
    fn a_broken_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let (store, _) = Store::open(folder.path()).unwrap();
        store.save(&states(&[("a", &[7; 10_000])])).unwrap();
        drop(store);
        let whole = fs::read(&path).unwrap();
        let cut = whole[..whole.len() / 3].to_vec();
        let mut wild = whole.clone();
        wild.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x5a);
        for broken in [b"no database".to_vec(), cut, wild] {
            fs::write(&path, &broken).unwrap();
            let (store, note) = Store::open(folder.path()).unwrap();
            assert!(note.unwrap().contains("set aside"));
            assert_eq!(fs::read(folder.path().join("state.broken")).unwrap().len(), broken.len());
            store.save(&states(&[("a", b"1")])).unwrap();
            assert_eq!(store.load().unwrap(), states(&[("a", b"1")]));
        }
    }

    #[test]
    fn a_file_of_another_version_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::create(folder.path().join(FILE)).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(META).unwrap().insert("format", 99).unwrap();
        write.commit().unwrap();
        drop(database);
        let (store, note) = Store::open(folder.path()).unwrap();
        assert!(note.unwrap().contains("format is 99"));
        assert!(store.load().unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = Store::open(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("state directory") && error.contains("file/state"), "{error}");
    }
}
