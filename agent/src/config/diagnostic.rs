//! What is wrong with a configuration file, as people and programs read it.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::model::printable;

use super::tree::{KeyPath, Mark};

/// Something wrong within the text, before it is known which file it is.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) at: Option<Mark>,
    pub(super) path: KeyPath,
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(super) fn at(at: Mark, path: KeyPath, reason: String) -> Finding {
        Finding { at: Some(at), path, reason, hint: None }
    }
}

/// Something wrong in a configuration file. Shows keys, never values: a value may be a secret, even at a wrong key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file.
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

/// Everything wrong in a configuration file, in its order. `Display` gives one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The most that is told about one file.
    pub(super) const MAX: usize = 100;

    /// The findings in `file`, in the order of the text.
    pub(super) fn new(file: &Path, mut findings: Vec<Finding>) -> Diagnostics {
        findings.sort_by_key(|finding| finding.at);
        let file = printable(&file.to_string_lossy()).into_owned();
        let more = findings.len().saturating_sub(Diagnostics::MAX);
        let mut all: Vec<Diagnostic> = findings
            .into_iter()
            .take(Diagnostics::MAX)
            .map(|finding| Diagnostic {
                file: file.clone(),
                line: finding.at.map(|at| at.line),
                column: finding.at.map(|at| at.column),
                key: finding.path.to_string(),
                reason: finding.reason,
                hint: finding.hint,
            })
            .collect();
        if more > 0 {
            let reason = format!("more than {} problems: mend these first", Diagnostics::MAX);
            all.push(Diagnostic { file, line: None, column: None, key: String::new(), reason, hint: None });
        }
        Diagnostics(all)
    }
}
