//! The effective configuration, with where each setting came from.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{
    Config,
    layers::Layer,
    reference::flow,
    tree::{self, Node},
};

/// What stands at a setting that nobody set.
const DEFAULT: &str = "default";

/// Where settings came from, by key; what is not there has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, String>);

/// A setting in effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Path of keys, e.g. `capture.strategy`.
    pub key: String,
    /// Its value; secrets are masked.
    pub value: Value,
    /// File and line, profile and line, `--set`, or `default`.
    pub origin: String,
}

impl Origins {
    /// Where each value in `root` stands.
    pub(super) fn of(root: &Node, layers: &[Layer]) -> Origins {
        let mut origins = BTreeMap::new();
        collect(root, String::new(), layers, &mut origins);
        Origins(origins)
    }

    /// Where the setting `key` came from, or that beneath which it lies: a value's own parts are not told apart.
    fn get(&self, key: &str) -> &str {
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return origin;
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return DEFAULT,
            }
        }
    }

    /// All settings of `config`, in the order of the reference.
    pub fn settings(&self, config: &Config) -> serde_json::Result<Vec<Setting>> {
        let mut settings = Vec::new();
        walk(&serde_json::to_value(config)?, String::new(), &mut |key, value| {
            settings.push(Setting { value: value.clone(), origin: self.get(&key).to_owned(), key });
        });
        Ok(settings)
    }

    /// `config` as YAML, with the origin of each setting as a comment behind it.
    pub fn yaml(&self, config: &Config) -> serde_json::Result<String> {
        let mut lines = Vec::new();
        if let Value::Object(sections) = serde_json::to_value(config)? {
            for (key, value) in &sections {
                self.print(key, value, key.clone(), 0, &mut lines);
            }
        }
        let width = lines.iter().filter(|(_, origin)| origin.is_some()).map(|(text, _)| text.chars().count()).max();
        // A single long value should not push all origins out of sight.
        let width = width.unwrap_or(0).min(60);
        let line = |(text, origin): (String, Option<String>)| match origin {
            Some(origin) => format!("{text:<width$}  # {origin}\n"),
            None => text + "\n",
        };
        Ok(lines.into_iter().map(line).collect())
    }

    fn print(&self, name: &str, value: &Value, key: String, depth: usize, lines: &mut Vec<(String, Option<String>)>) {
        let indent = "  ".repeat(depth);
        match section(value) {
            Some(entries) => {
                lines.push((format!("{indent}{name}:"), None));
                for (inner, value) in entries {
                    self.print(inner, value, format!("{key}.{inner}"), depth + 1, lines);
                }
            }
            None => lines.push((format!("{indent}{name}: {}", flow(value)), Some(self.get(&key).to_owned()))),
        }
    }
}

/// The entries of a section; `None` for a value. A list is one value, and so is a reference.
fn section(value: &Value) -> Option<&serde_json::Map<String, Value>> {
    let reference = |entries: &serde_json::Map<String, Value>| {
        entries.len() == 1 && entries.keys().all(|key| key == "env" || key == "file")
    };
    value.as_object().filter(|entries| !entries.is_empty() && !reference(entries))
}

fn walk(value: &Value, key: String, see: &mut impl FnMut(String, &Value)) {
    match section(value) {
        Some(entries) => entries.iter().for_each(|(inner, value)| {
            let key = if key.is_empty() { inner.clone() } else { format!("{key}.{inner}") };
            walk(value, key, see);
        }),
        None => see(key, value),
    }
}

fn collect(node: &Node, key: String, layers: &[Layer], origins: &mut BTreeMap<String, String>) {
    match &node.value {
        tree::Value::Map(entries) if node.reference().is_none() => {
            for entry in entries {
                let key = if key.is_empty() { entry.key.clone() } else { format!("{key}.{}", entry.key) };
                collect(&entry.node, key, layers, origins);
            }
        }
        _ => {
            let layer = layers.get(usize::from(node.at.source.0));
            let origin = match layer {
                Some(Layer::Argument) => Layer::Argument.to_string(),
                Some(layer) => format!("{layer}:{}", node.at.line),
                None => return,
            };
            origins.insert(key, origin);
        }
    }
}
