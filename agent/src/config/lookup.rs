//! Values that stand elsewhere: `{ env: NAME }` and `{ file: PATH }` in place of a whole value.

use std::{fs::File, io::Read, path::Path};

/// The largest file that a `{ file: PATH }` may name: a key or a certificate, not data.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Where references are looked up. Errors say why, and never show a value.
pub trait Lookup {
    /// The environment variable `name`.
    fn env(&self, name: &str) -> Result<String, String>;
    /// The text of the file at `path`.
    fn file(&self, path: &Path) -> Result<String, String>;
}

/// This process's environment and this host's files.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Lookup for Host {
    fn env(&self, name: &str) -> Result<String, String> {
        match std::env::var(name) {
            Ok(value) => Ok(value),
            Err(std::env::VarError::NotPresent) => Err("is not set".into()),
            Err(std::env::VarError::NotUnicode(_)) => Err("is not UTF-8".into()),
        }
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
        }
        String::from_utf8(bytes).map_err(|_| "is not UTF-8".into())
    }
}

/// Which kind of place a reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Env,
    File,
}

impl Place {
    /// The place that `key` stands for.
    pub(super) fn named(key: &str) -> Option<Place> {
        match key {
            "env" => Some(Place::Env),
            "file" => Some(Place::File),
            _ => None,
        }
    }

    /// The value at `name`. A name that cannot be one is not shown: someone may have put the value itself there.
    pub(super) fn resolve(self, name: &str, lookup: &dyn Lookup) -> Result<String, String> {
        match self {
            Place::Env => {
                let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
                if !begins || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    return Err("`env` must be the name of an environment variable: letters, digits and `_`".into());
                }
                lookup.env(name).map_err(|why| format!("environment variable `{name}` {why}"))
            }
            Place::File => {
                if !name.starts_with('/') || name.contains(char::is_control) {
                    return Err("`file` must be an absolute path".into());
                }
                let text = lookup.file(Path::new(name)).map_err(|why| format!("file `{name}`: {why}"))?;
                // Editors and `echo` end a file with a line break that is no part of the value.
                let value = text.strip_suffix('\n').unwrap_or(&text);
                Ok(value.strip_suffix('\r').unwrap_or(value).into())
            }
        }
    }
}
