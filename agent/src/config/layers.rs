//! Where settings come from: profiles, the file, drop-ins, the command line. Each is a tree; the trees become one, the stronger over the weaker, before
//! anything is read.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Config, Diagnostics, Lookup, Profile,
    de::NodeDeserializer,
    diagnostic::Finding,
    origins::Origins,
    read,
    tree::{self, KeyPath, Mark, Node, Source},
};
use crate::model::printable;

/// Where the configuration is looked for unless a file is named.
pub const DEFAULT_PATH: &str = "/etc/querylens/querylens.yaml";

/// The largest configuration file. The commented defaults take some ten kilobytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// Most files in a drop-in folder.
const MAX_DROP_INS: usize = 100;

/// A text that settings come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// A shipped profile.
    Profile(Profile),
    /// A file, or a folder of drop-ins that cannot be read.
    File(PathBuf),
    /// A `--set` of the command line.
    Argument,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layer::Profile(profile) => write!(f, "profile {}", profile.name()),
            Layer::File(path) => f.write_str(&printable(&path.to_string_lossy())),
            Layer::Argument => f.write_str("--set"),
        }
    }
}

/// What configuration is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The file; without one that at [`DEFAULT_PATH`], if there is one. Beside it, in a folder of the same name that ends in `.d`, lie drop-ins.
    pub file: Option<PathBuf>,
    /// Settings of the command line, `KEY=VALUE` each with a value in YAML.
    pub settings: Vec<String>,
}

/// A configuration and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file; `None` if none was named and [`DEFAULT_PATH`] does not exist.
    pub file: Option<PathBuf>,
    /// Where each setting came from.
    pub origins: Origins,
}

/// Loads what is `wanted`.
pub fn load(wanted: &Wanted, lookup: &dyn Lookup) -> Result<Loaded, Diagnostics> {
    let mut stack = Stack::default();
    let file = wanted.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
    let found = match read_file(file) {
        Err(error) if wanted.file.is_none() && error.kind() == io::ErrorKind::NotFound => None,
        bytes => {
            stack.file(file, bytes);
            Some(file.to_owned())
        }
    };
    stack.drop_ins(&drop_in_folder(file));
    wanted.settings.iter().for_each(|setting| stack.setting(setting));
    stack.finish(lookup).map(|(config, origins)| Loaded { config, file: found, origins })
}

/// The configuration that `bytes` hold; `file` is its name in errors.
pub fn parse(file: &Path, bytes: &[u8], lookup: &dyn Lookup) -> Result<Config, Diagnostics> {
    let mut stack = Stack::default();
    stack.file(file, Ok(bytes.to_owned()));
    stack.finish(lookup).map(|(config, _)| config)
}

/// `querylens.d` for `querylens.yaml`.
fn drop_in_folder(file: &Path) -> PathBuf {
    file.with_extension("d")
}

/// The drop-ins of a folder, in the order of their names.
fn drop_in_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

/// At most one byte more than [`MAX_BYTES`], so that the size can be judged without reading it all.
fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Tells whether the files of a configuration have changed: their identity, size and time of change. A change within the granularity of a
/// file system's clock that keeps the size is not seen; one in what a reference names is seen for files of the configuration only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<[i64; 5]>)>);

impl Stamp {
    /// The files of `wanted` as they are now.
    pub fn of(wanted: &Wanted) -> Stamp {
        let file = wanted.file.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        let drop_ins = drop_in_files(&drop_in_folder(&file)).unwrap_or_default();
        let state = |path: PathBuf| {
            let metadata = fs::metadata(&path).ok().map(|of| {
                [of.dev().cast_signed(), of.ino().cast_signed(), of.size().cast_signed(), of.mtime(), of.mtime_nsec()]
            });
            (path, metadata)
        };
        Stamp(std::iter::once(file).chain(drop_ins).map(state).collect())
    }
}

/// The layers so far, the weaker first, and what they come to.
#[derive(Default)]
struct Stack {
    layers: Vec<Layer>,
    trees: Vec<Node>,
    findings: Vec<Finding>,
}

impl Stack {
    fn layer(&mut self, layer: Layer) -> Source {
        self.layers.push(layer);
        // The number of layers is bounded by MAX_DROP_INS and the command line.
        Source(u16::try_from(self.layers.len() - 1).unwrap_or(u16::MAX))
    }

    fn file(&mut self, file: &Path, bytes: io::Result<Vec<u8>>) {
        let source = self.layer(Layer::File(file.into()));
        match bytes {
            Ok(bytes) => match text(&bytes, source) {
                Ok(text) => self.trees.extend(tree::read(text, source, &mut self.findings)),
                Err(finding) => self.findings.push(finding),
            },
            Err(error) => self.findings.push(Finding::whole(source, format!("cannot be read: {error}"))),
        }
    }

    fn drop_ins(&mut self, folder: &Path) {
        let files = drop_in_files(folder).map_err(|error| format!("cannot be read: {error}")).and_then(|files| {
            let few = files.len() <= MAX_DROP_INS;
            few.then_some(files)
                .ok_or_else(|| format!("has more than {MAX_DROP_INS} drop-ins: put them into fewer files"))
        });
        match files {
            Ok(files) => files.iter().for_each(|file| self.file(file, read_file(file))),
            Err(reason) => {
                let source = self.layer(Layer::File(folder.into()));
                self.findings.push(Finding::whole(source, reason));
            }
        }
    }

    /// A `KEY=VALUE` of the command line.
    fn setting(&mut self, setting: &str) {
        let source = self.layer(Layer::Argument);
        let path = setting.split_once('=').map(|(key, value)| (KeyPath::parse(key), value));
        let Some((Some(keys), value)) = path.as_ref().map(|(path, value)| (path.keys(), value)) else {
            let reason = "expected KEY=VALUE, e.g. `log.level=debug`; a list is set as a whole";
            return self.findings.push(Finding::whole(source, reason));
        };
        if let Some(value) = tree::read(value, source, &mut self.findings) {
            self.trees.push(keys.iter().rev().fold(value, |node, key| node.wrap(key)));
        }
    }

    /// Puts the profiles that are named beneath all other layers and reads the result.
    fn finish(mut self, lookup: &dyn Lookup) -> Result<(Config, Origins), Diagnostics> {
        let profiles = self.profiles(lookup);
        let named: Vec<Node> = profiles
            .into_iter()
            .filter_map(|profile| {
                let source = self.layer(Layer::Profile(profile));
                tree::read(profile.text(), source, &mut self.findings)
            })
            .collect();
        let merged = named.into_iter().chain(std::mem::take(&mut self.trees)).reduce(|mut lower, upper| {
            lower.overlay(upper);
            lower
        });
        let Stack { layers, mut findings, .. } = self;
        let root = match merged {
            Some(root) => root,
            None if findings.is_empty() => return Ok((Config::default(), Origins::default())),
            None => return Err(Diagnostics::new(&layers, findings)),
        };
        let origins = Origins::of(&root, &layers);
        match read::from_tree(root, lookup, &mut findings) {
            Some(config) if findings.is_empty() => Ok((config, origins)),
            _ => Err(Diagnostics::new(&layers, findings)),
        }
    }

    /// The profiles that the strongest layer names. If they cannot be read, the whole configuration will say so.
    fn profiles(&self, lookup: &dyn Lookup) -> Vec<Profile> {
        let named = self.trees.iter().rev().find_map(|tree| tree.child("profiles"));
        named.and_then(|node| Vec::deserialize(NodeDeserializer::new(node, lookup)).ok()).unwrap_or_default()
    }
}

/// The text, if it can be a configuration at all.
fn text(bytes: &[u8], source: Source) -> Result<&str, Finding> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Finding::whole(source, format!("is larger than {MAX_BYTES} bytes: this is no configuration")));
    }
    let place = |offset: usize| {
        let before = String::from_utf8_lossy(&bytes[..offset]);
        let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
        Mark { source, line: before.matches('\n').count() + 1, column }
    };
    let binary = |offset, what| Finding::at(place(offset), KeyPath::default(), format!("{what}: this is no text file"));
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(binary(offset, "a zero byte"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| binary(error.valid_up_to(), "not UTF-8"))?;
    if text.trim().is_empty() {
        // A file with comments alone is fine; nothing at all is a write that failed.
        let hint = "remove the file, or write `{}` for the defaults".to_owned();
        return Err(Finding { hint: Some(hint), ..Finding::whole(source, "is empty") });
    }
    Ok(text)
}
