//! A tree becomes the configuration; what cannot be read is noted, left out and replaced by its default, until the rest reads.

use serde::de::DeserializeOwned;

use super::{
    Config, Diagnostics, Lookup,
    de::{Error, Kind, NodeDeserializer},
    diagnostic::Finding,
    reference, suggest,
    tree::{KeyPath, Node, NodeId},
};

/// Reads the tree, and has the parts check it.
pub(super) fn from_tree(mut root: Node, lookup: &dyn Lookup, findings: &mut Vec<Finding>) -> Option<Config> {
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
pub(super) fn read_rest<T: DeserializeOwned>(
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
