//! What is wrong with a configuration, as people and programs read it.

use std::fmt;

use serde::Serialize;

use super::{
    layers::Layer,
    tree::{KeyPath, Mark, Source},
};

/// Something wrong within a text.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) at: Mark,
    pub(super) path: KeyPath,
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(super) fn at(at: Mark, path: KeyPath, reason: String) -> Finding {
        Finding { at, path, reason, hint: None }
    }

    /// Something wrong with the text as a whole.
    pub(super) fn whole(source: Source, reason: impl Into<String>) -> Finding {
        Finding::at(Mark::whole(source), KeyPath::default(), reason.into())
    }
}

/// Something wrong in a configuration. Shows keys, never values: a value may be a secret, even at a wrong key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file, or `--set` for the command line.
    pub file: String,
    /// Line, counted from 1; absent where the file as a whole is meant.
    pub line: Option<usize>,
    /// Column in characters, counted from 1.
    pub column: Option<usize>,
    /// Path of keys, e.g. `export.otlp.endpoint`; empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do: the nearest known key, the allowed values.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Everything wrong in a configuration, the weaker sources first, each in its order. `Display` gives one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The most that is told at once.
    pub(super) const MAX: usize = 100;

    /// The findings in the texts of `layers`, in their order.
    pub(super) fn new(layers: &[Layer], mut findings: Vec<Finding>) -> Diagnostics {
        findings.sort_by_key(|finding| finding.at);
        let layer = |source: Source| layers.get(usize::from(source.0));
        let name = |source: Source| layer(source).map(Layer::to_string).unwrap_or_default();
        let more = findings.get(Diagnostics::MAX).map(|finding| finding.at.source);
        let mut all: Vec<Diagnostic> = findings
            .into_iter()
            .take(Diagnostics::MAX)
            .map(|finding| {
                let placed = finding.at.line > 0 && layer(finding.at.source) != Some(&Layer::Argument);
                Diagnostic {
                    file: name(finding.at.source),
                    line: placed.then_some(finding.at.line),
                    column: placed.then_some(finding.at.column),
                    key: finding.path.to_string(),
                    reason: finding.reason,
                    hint: finding.hint,
                }
            })
            .collect();
        if let Some(source) = more {
            let reason = format!("more than {} problems: mend these first", Diagnostics::MAX);
            let (file, key) = (name(source), String::new());
            all.push(Diagnostic { file, line: None, column: None, key, reason, hint: None });
        }
        Diagnostics(all)
    }
}
