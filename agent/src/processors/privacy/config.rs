//! Settings of the privacy gate.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Problem, Secret, signal::TextField};

/// What counts as private, and what is done about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Look for private text. The normaliser has taken the literals out before; this is the second wall.
    pub enabled: bool,
    /// How much counts as private.
    pub sensitivity_level: Sensitivity,
    /// What is done about what was found.
    pub action: Action,
    /// Fields that are not looked at, because what stands there is known to be harmless: database, user, application, wait, object, attribute.
    pub exclude_fields: Vec<Field>,
    /// What else is private here.
    pub custom_patterns: Vec<Pattern>,
    /// Key for `hash`, so that the same text has the same hash everywhere. Without one, the hash of a text is another one after each start.
    pub hash_key: Option<Secret>,
}

/// How much counts as private.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    /// E-mail addresses, card numbers, US social security numbers, keys and tokens.
    Low,
    /// Also phone numbers and IP addresses.
    #[default]
    Medium,
    /// Also whatever may be such a number: nine or more digits in a row.
    High,
}

/// What is done about private text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Its place is taken by what it was: `[EMAIL]`.
    #[default]
    Redact,
    /// Also by a keyed hash, the same for the same text: `[EMAIL:9f86d081884c7d65]`.
    Hash,
    /// Also by a number, the same for the same text until the agent ends: `[EMAIL#3]`.
    Tokenize,
    /// The record goes. Exact statistics are redacted instead.
    Drop,
}

/// A field that need not be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// Names of databases and schemas.
    Database,
    /// Names of database users.
    User,
    /// What clients call themselves.
    Application,
    /// Wait classes and events.
    Wait,
    /// Tables, columns, lock modes, plan nodes.
    Object,
    /// Attributes of servers' own numbers.
    Attribute,
}

/// A pattern of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// What it is called where it was found, e.g. `employee_id`.
    #[schemars(example = &"employee_id")]
    pub name: Arc<str>,
    /// A regular expression (syntax of the Rust crate regex: no look-around, no back-references).
    #[schemars(example = &"E[0-9]{6}")]
    pub regex: String,
}

/// Custom patterns are tried on each new text.
const MAX_PATTERNS: usize = 64;
/// Compiled size of a pattern.
pub(super) const MAX_PATTERN_BYTES: usize = 1 << 20;

impl Default for Config {
    fn default() -> Config {
        Config {
            enabled: true,
            sensitivity_level: Sensitivity::default(),
            action: Action::default(),
            exclude_fields: Vec::new(),
            custom_patterns: Vec::new(),
            hash_key: None,
        }
    }
}

impl Field {
    /// Whether it is this one.
    pub(super) fn is(self, field: TextField) -> bool {
        match self {
            Field::Database => field == TextField::Database,
            Field::User => field == TextField::User,
            Field::Application => field == TextField::Application,
            Field::Wait => field == TextField::Wait,
            Field::Object => field == TextField::Object,
            Field::Attribute => field == TextField::Attribute,
        }
    }
}

impl Pattern {
    /// Compiled.
    pub(super) fn compile(&self) -> Result<regex::Regex, regex::Error> {
        regex::RegexBuilder::new(&self.regex).size_limit(MAX_PATTERN_BYTES).build()
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let count = self.custom_patterns.len();
        let many = (count > MAX_PATTERNS)
            .then(|| Problem::new("custom_patterns", format!("are {count}, at most {MAX_PATTERNS}")));
        let each = self.custom_patterns.iter().enumerate().filter_map(|(at, pattern)| {
            let reason = match pattern.compile() {
                Ok(regex) if regex.is_match("") => "fits the empty text: it would fit everywhere".to_owned(),
                Ok(_) => return None,
                Err(regex::Error::CompiledTooBig(limit)) => format!("is too large: more than {limit} bytes compiled"),
                // The error shows the pattern, over several lines; the last one says what is wrong.
                Err(error) => {
                    let text = error.to_string();
                    format!(
                        "is no regular expression: {}",
                        text.lines().last().unwrap_or_default().trim_start_matches("error: ")
                    )
                }
            };
            Some(Problem::new(format!("custom_patterns[{at}].regex"), reason))
        });
        let problems: Vec<Problem> = many.into_iter().chain(each).collect();
        problems.into_iter()
    }
}
