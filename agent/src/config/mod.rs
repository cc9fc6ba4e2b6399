//! The configuration: one optional YAML file. [`Config`] composes each part's own; a part's defaults, checks and documentation stay with
//! the part.
//!
//! Everything wrong in a file is told at once, with its place. To that end the text becomes a tree of located nodes (`tree`), serde
//! reads the tree (`de`), and whatever it stumbles over is noted, left out and replaced by its default, until the rest reads.

pub mod diagnostic;
pub mod log;
pub mod lookup;
pub mod reference;

mod de;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{aggregate, capture, collect, discovery, export, health, model::Problem, processors};

pub use capture::Choice;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use lookup::{Host, Lookup};

use de::{Error, Kind, NodeDeserializer};
use diagnostic::Finding;
use tree::{KeyPath, Mark, Node, NodeId};

/// Where the configuration is looked for unless a file is named.
pub const DEFAULT_PATH: &str = "/etc/querylens/querylens.yaml";

/// The largest configuration file. The commented defaults take a few kilobytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Everything that can be set. All of it has a default: the agent needs no configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The agent's own log, written to standard error.
    pub log: log::Config,
    /// How servers are looked for.
    pub discovery: discovery::Config,
    /// How queries are seen on the wire.
    pub capture: capture::Config,
    /// How much is remembered about statements and sessions.
    pub aggregate: aggregate::Config,
    /// What databases are asked, and as whom.
    pub collect: collect::Config,
    /// What happens to what is known before it leaves, and what keeps databases from being asked.
    pub processors: processors::Config,
    /// What leaves the agent, and to where.
    pub export: export::Config,
    /// The agent's HTTP end points: `/metrics`, `/status`, `/health/live`, `/health/ready`.
    pub health: health::Config,
}

impl Config {
    /// What the parts cannot work with, though its type is right; keys from the root.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        beneath("discovery", self.discovery.check())
            .chain(beneath("capture", self.capture.check()))
            .chain(beneath("aggregate", self.aggregate.check()))
            .chain(beneath("collect", self.collect.check()))
            .chain(beneath("processors", self.processors.check()))
            .chain(beneath("export", self.export.check()))
    }
}

fn beneath(section: &str, problems: impl Iterator<Item = Problem>) -> impl Iterator<Item = Problem> {
    problems.map(move |problem| problem.beneath(section))
}

/// A configuration and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file; `None` if none was named and [`DEFAULT_PATH`] does not exist.
    pub file: Option<PathBuf>,
}

/// Loads the file `named`, or that at [`DEFAULT_PATH`] if there is one.
pub fn load(named: Option<&Path>, lookup: &dyn Lookup) -> Result<Loaded, Diagnostics> {
    let file = named.unwrap_or(Path::new(DEFAULT_PATH));
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
            return Ok(Loaded { config: Config::default(), file: None });
        }
        Err(error) => return Err(Diagnostics::new(file, vec![whole_file(format!("cannot be read: {error}"))])),
    };
    let config = parse(file, &bytes, lookup)?;
    Ok(Loaded { config, file: Some(file.into()) })
}

/// At most one byte more than [`MAX_BYTES`], so that the size can be judged without reading it all.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The configuration that `bytes` hold; `file` is its name in errors.
pub fn parse(file: &Path, bytes: &[u8], lookup: &dyn Lookup) -> Result<Config, Diagnostics> {
    let mut findings = Vec::new();
    let config = text(bytes)
        .map_err(|finding| findings.push(finding))
        .ok()
        .and_then(|text| tree::read(text, &mut findings))
        .and_then(|root| from_tree(root, lookup, &mut findings));
    match config {
        Some(config) if findings.is_empty() => Ok(config),
        _ => Err(Diagnostics::new(file, findings)),
    }
}

fn whole_file(reason: impl Into<String>) -> Finding {
    Finding { at: None, path: KeyPath::default(), reason: reason.into(), hint: None }
}

/// The text, if it can be a configuration at all.
fn text(bytes: &[u8]) -> Result<&str, Finding> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(whole_file(format!("is larger than {MAX_BYTES} bytes: this is no configuration")));
    }
    let place = |offset: usize| {
        let before = String::from_utf8_lossy(&bytes[..offset]);
        let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
        Mark { line: before.matches('\n').count() + 1, column }
    };
    let binary = |offset, what| Finding::at(place(offset), KeyPath::default(), format!("{what}: this is no text file"));
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(binary(offset, "a zero byte"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| binary(error.valid_up_to(), "not UTF-8"))?;
    if text.trim().is_empty() {
        // A file with comments alone is fine; nothing at all is a write that failed.
        let hint = "remove the file, or write `{}` for the defaults".to_owned();
        return Err(Finding { hint: Some(hint), ..whole_file("is empty") });
    }
    Ok(text)
}

/// Reads the tree, and has the parts check it.
fn from_tree(mut root: Node, lookup: &dyn Lookup, findings: &mut Vec<Finding>) -> Option<Config> {
    let mut left_out = Vec::new();
    let config: Config = read_rest(&mut root, lookup, findings, &mut left_out)?;
    for problem in config.check() {
        let path = KeyPath::parse(&problem.key);
        // What was left out has its default now, and was reported.
        if !left_out.iter().any(|out| path.starts_with(out)) {
            findings.push(Finding::at(root.nearest(&path), path, problem.reason));
        }
    }
    Some(config)
}

/// Reads as much of the tree as can be read; notes the rest, and leaves it out.
fn read_rest<T: DeserializeOwned>(
    root: &mut Node,
    lookup: &dyn Lookup,
    findings: &mut Vec<Finding>,
    left_out: &mut Vec<KeyPath>,
) -> Option<T> {
    loop {
        let error = match T::deserialize(NodeDeserializer::new(root, lookup)) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        let id = error.node.unwrap_or(root.id);
        left_out.extend(note(root, id, error, findings));
        if id == root.id || findings.len() > Diagnostics::MAX || !root.leave_out(id) {
            return None;
        }
    }
}

/// Notes `error` of the node `id` and gives the path that is to be left out.
fn note(root: &Node, id: NodeId, error: Error, findings: &mut Vec<Finding>) -> Option<KeyPath> {
    let located = root.locate(id)?;
    let (at, path) = (located.node.at, located.path);
    if follows(located.node, &error.kind) {
        return Some(path);
    }
    let finding = match error.kind {
        Kind::Value { reason, hint } => Finding { hint, ..Finding::at(at, path.clone(), reason) },
        Kind::Integer { found, min, max } => {
            let (min, max) = reference::range(&path.to_string()).unwrap_or((min, max));
            let reason = match found {
                Some(found) => format!("expected a whole number from {min} to {max}, found {found}"),
                None => format!("out of range: must be from {min} to {max}"),
            };
            Finding::at(at, path.clone(), reason)
        }
        Kind::Custom(reason) => Finding::at(at, path.clone(), reason),
        Kind::UnknownKey(known) => {
            let hint = unknown_key(path.last_key().unwrap_or_default(), known);
            Finding { hint: Some(hint), ..Finding::at(located.key_at, path.clone(), "unknown key".into()) }
        }
        Kind::MissingKey(key) => Finding::at(at, path.clone(), format!("lacks the key `{key}`")),
    };
    findings.push(finding);
    Some(path)
}

/// Whether an error of `node` only follows from what was left out of it, and was reported.
fn follows(node: &Node, error: &Kind) -> bool {
    match error {
        Kind::MissingKey(missing) => {
            node.left_out_keys().any(|key| suggest::nearest(key, std::iter::once(*missing)).is_some())
        }
        _ => node.is_incomplete(),
    }
}

/// What was meant by an unknown key: one of its neighbours, the same key elsewhere, or nothing that is near.
fn unknown_key(key: &str, known: &[&str]) -> String {
    if let Some(meant) = suggest::nearest(key, known.iter().copied()) {
        return format!("did you mean `{meant}`?");
    }
    let elsewhere = reference::keys().into_iter().find(|path| path.rsplit('.').next() == Some(key));
    match elsewhere {
        Some(path) => format!("did you mean `{path}`?"),
        None => format!("known keys: {}", known.join(", ")),
    }
}
