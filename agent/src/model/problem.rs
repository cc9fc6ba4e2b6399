//! What is wrong with a setting.

use std::fmt::Display;

/// A value that a part of the agent cannot work with. Each part's `Config::check` tells all of them at once; `config` adds file
/// and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of keys beneath the part's own section, e.g. `otlp.endpoint`.
    pub key: String,
    /// What is wrong and what is allowed. Never holds the value itself: it may be a secret at the wrong key.
    pub reason: String,
}

impl Problem {
    /// A problem of the value at `key`.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Problem {
        Problem { key: key.into(), reason: reason.into() }
    }

    /// The same, seen from the section `key` lies in.
    pub fn beneath(self, section: &str) -> Problem {
        Problem { key: format!("{section}.{}", self.key), ..self }
    }

    /// A problem, if `value` is not within `range`.
    pub fn out_of_range<T: PartialOrd + Display>(
        key: &str,
        value: &T,
        range: std::ops::RangeInclusive<T>,
    ) -> Option<Problem> {
        (!range.contains(value))
            .then(|| Problem::new(key, format!("out of range: must be from {} to {}", range.start(), range.end())))
    }
}
