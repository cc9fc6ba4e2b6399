//! The privacy gate: finds private text and puts something else in its place. It is the second wall; the first is that literals end in `sql`. It fails closed:
//! what cannot be made clean is not shown at all.
//!
//! Detectors check what they find where there is something to check: card numbers by Luhn's algorithm, social security numbers by the areas that were
//! given out, addresses by parsing them. Digits within a word are part of a name and not looked at.

mod addresses;
pub mod config;
mod emails;
mod literals;
mod numbers;
mod secrets;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Range, sync::Arc};

use regex::Regex;
use ring::hmac;

pub use config::{Action, Config, Sensitivity};

use super::bounded::Bounded;
use crate::{
    model::{Digest, Engine, signal::TextField},
    sql::Normaliser,
};

/// Texts whose verdict is remembered, and as many statements; what was seen longest ago makes room.
const MAX_REMEMBERED: usize = 8192;
/// Texts that have a number of their own; further ones share one.
const MAX_TOKENS: usize = 65_536;
/// What takes the place of a text that cannot be made clean.
const WITHHELD: &str = "<redacted>";

/// What kind of private text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A literal in a statement.
    Literal,
    /// An e-mail address.
    Email,
    /// A payment card number.
    Card,
    /// A US social security number.
    Ssn,
    /// A phone number.
    Phone,
    /// An IP address.
    Ip,
    /// A key, token or password.
    Secret,
    /// A long number that may be anything.
    Number,
    /// What the configuration says.
    Custom,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 9] = [
        Class::Literal,
        Class::Email,
        Class::Card,
        Class::Ssn,
        Class::Phone,
        Class::Ip,
        Class::Secret,
        Class::Number,
        Class::Custom,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Literal => "literal",
            Class::Email => "email",
            Class::Card => "credit_card",
            Class::Ssn => "ssn",
            Class::Phone => "phone",
            Class::Ip => "ip",
            Class::Secret => "secret",
            Class::Number => "number",
            Class::Custom => "custom",
        }
    }
}

/// A piece of private text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Match {
    class: Class,
    range: Range<usize>,
    /// Index of the custom pattern.
    pattern: Option<usize>,
}

/// What becomes of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Nothing private in it.
    Clean,
    /// This takes its place.
    Replace(T),
    /// The record has to go.
    Drop,
}

/// What was found since the gate was made, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Texts with something of the class in them, each counted once while it is remembered.
    pub detected: [u64; Class::ALL.len()],
    /// Records that such a text was changed in.
    pub sanitized: u64,
}

/// The gate. Remembers its verdicts by the text's address, which it keeps alive, so that a text that comes again costs one look into a table.
pub struct Gate {
    config: Config,
    patterns: Vec<Regex>,
    key: hmac::Key,
    tokens: Bounded<(Class, Box<str>), u64>,
    next_token: u64,
    texts: Bounded<usize, (Arc<str>, Verdict<Arc<str>>)>,
    digests: Bounded<usize, (Arc<Digest>, Verdict<Arc<Digest>>)>,
    normaliser: Normaliser,
    matches: Vec<Match>,
    found: Found,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("found", &self.found).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate; `random` is the key of hashes where the configuration has none. Patterns that do not compile were refused by [`Config::check`]; here they are left
    /// out.
    pub fn new(config: Config, random: &[u8]) -> Gate {
        let key = config.hash_key.as_ref().and_then(|key| key.expose()).map_or(random, str::as_bytes);
        Gate {
            patterns: config.custom_patterns.iter().filter_map(|pattern| pattern.compile().ok()).collect(),
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            tokens: Bounded::new(MAX_TOKENS),
            next_token: 0,
            texts: Bounded::new(MAX_REMEMBERED),
            digests: Bounded::new(MAX_REMEMBERED),
            normaliser: Normaliser::default(),
            matches: Vec::new(),
            found: Found::default(),
            config,
        }
    }

    /// What was found so far.
    pub fn found(&self) -> Found {
        self.found
    }

    /// What becomes of `text`, which stands in `field`.
    pub fn text(&mut self, field: TextField, text: &Arc<str>) -> Verdict<Arc<str>> {
        if !self.config.enabled || self.config.exclude_fields.iter().any(|excluded| excluded.is(field)) {
            return Verdict::Clean;
        }
        let address = Arc::as_ptr(text).cast::<u8>() as usize;
        if let Some((_, verdict)) = self.texts.get_mut(&address) {
            return verdict.clone();
        }
        let verdict = match self.sanitise(text) {
            Verdict::Clean => Verdict::Clean,
            Verdict::Replace(text) => Verdict::Replace(Arc::from(text)),
            Verdict::Drop => Verdict::Drop,
        };
        self.texts.at(address, || (text.clone(), verdict.clone()), drop);
        verdict
    }

    /// What becomes of a statement: also that it has no literals.
    pub fn digest(&mut self, engine: Engine, digest: &Arc<Digest>) -> Verdict<Arc<Digest>> {
        if !self.config.enabled {
            return Verdict::Clean;
        }
        let address = Arc::as_ptr(digest) as usize;
        if let Some((_, verdict)) = self.digests.get_mut(&address) {
            return verdict.clone();
        }
        let verdict = self.judge(engine, digest);
        self.digests.at(address, || (digest.clone(), verdict.clone()), drop);
        verdict
    }

    fn judge(&mut self, engine: Engine, digest: &Arc<Digest>) -> Verdict<Arc<Digest>> {
        let mut clean = None;
        if literals::has_any(engine, &digest.text) {
            self.found.detected[Class::Literal as usize] += 1;
            // Whoever made the digest knew another dialect, or did not normalise at all.
            let mut again = self.normaliser.digest(engine, digest.text.as_bytes(), false);
            if literals::has_any(engine, &again.text) {
                again = withheld(digest);
            }
            // It is the same statement for whoever joins by it.
            again.fingerprint = digest.fingerprint;
            clean = Some(again);
        }
        let current = clean.as_ref().unwrap_or(digest);
        let texts =
            [Some(&current.text), Some(&current.summary), current.operation.as_ref(), current.collection.as_ref()];
        let verdicts = texts.map(|text| text.cloned()).map(|text| text.map(|text| self.sanitise(&text)));
        if verdicts.iter().flatten().any(|verdict| *verdict == Verdict::Drop) {
            return Verdict::Drop;
        }
        if verdicts.iter().flatten().any(|verdict| *verdict != Verdict::Clean) {
            let [text, summary, operation, collection] = verdicts.map(|verdict| match verdict {
                Some(Verdict::Replace(text)) => Some(Arc::from(text)),
                _ => None,
            });
            let mut changed = clean.unwrap_or_else(|| Digest::clone(digest));
            changed.text = text.unwrap_or(changed.text);
            changed.summary = summary.unwrap_or(changed.summary);
            changed.operation = operation.or(changed.operation);
            changed.collection = collection.or(changed.collection);
            clean = Some(changed);
        }
        clean.map_or(Verdict::Clean, |clean| Verdict::Replace(Arc::new(clean)))
    }

    /// A text without what is private in it.
    pub fn sanitise(&mut self, text: &str) -> Verdict<String> {
        let mut matches = std::mem::take(&mut self.matches);
        self.find(text, &mut matches);
        let verdict = self.replace(text, &matches);
        matches.clear();
        self.matches = matches;
        verdict
    }

    /// All private pieces of a text, in order, none within another.
    fn find(&self, text: &str, matches: &mut Vec<Match>) {
        let level = self.config.sensitivity_level;
        let mut add = |class, range| matches.push(Match { class, range, pattern: None });
        emails::find(text, |range| add(Class::Email, range));
        secrets::find(text, |range| add(Class::Secret, range));
        numbers::find(text, level, &mut add);
        if level >= Sensitivity::Medium {
            addresses::find(text, |range| add(Class::Ip, range));
        }
        for (at, pattern) in self.patterns.iter().enumerate() {
            let found = pattern.find_iter(text).filter(|found| !found.is_empty());
            matches.extend(found.map(|found| Match { class: Class::Custom, range: found.range(), pattern: Some(at) }));
        }
        // The longest of those that begin first; what overlaps with it goes with it.
        matches.sort_by_key(|found| (found.range.start, std::cmp::Reverse(found.range.end)));
        let mut end = 0;
        matches.retain_mut(|found| {
            let inside = found.range.end <= end;
            found.range.start = found.range.start.max(end);
            end = end.max(found.range.end);
            !inside
        });
    }

    fn replace(&mut self, text: &str, matches: &[Match]) -> Verdict<String> {
        if matches.is_empty() {
            return Verdict::Clean;
        }
        let mut seen = [false; Class::ALL.len()];
        matches.iter().for_each(|found| seen[found.class as usize] = true);
        seen.iter().zip(&mut self.found.detected).for_each(|(seen, count)| *count += u64::from(*seen));
        if self.config.action == Action::Drop {
            return Verdict::Drop;
        }
        let mut clean = String::with_capacity(text.len());
        let mut done = 0;
        for found in matches {
            // Detectors work on bytes; their ranges begin and end at ASCII characters, patterns' at characters.
            let (Some(before), Some(private)) = (text.get(done..found.range.start), text.get(found.range.clone()))
            else {
                return Verdict::Replace(WITHHELD.to_owned());
            };
            clean.push_str(before);
            clean.push_str(&self.substitute(found, private));
            done = found.range.end;
        }
        clean.push_str(&text[done..]);
        // What is left must be clean by itself: pieces that come to stand together must not make a new one.
        let mut rest = Vec::new();
        self.find(&clean, &mut rest);
        rest.retain(|found| found.pattern.is_none());
        Verdict::Replace(if rest.is_empty() { clean } else { WITHHELD.to_owned() })
    }

    fn substitute(&mut self, found: &Match, private: &str) -> String {
        let custom = found.pattern.and_then(|at| self.config.custom_patterns.get(at));
        let name = custom.map_or(found.class.name(), |pattern| &pattern.name).to_uppercase();
        match self.config.action {
            Action::Redact | Action::Drop => format!("[{name}]"),
            Action::Hash => {
                let tag = hmac::sign(&self.key, private.as_bytes());
                let hex: String = tag.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                format!("[{name}:{hex}]")
            }
            Action::Tokenize => {
                let next = &mut self.next_token;
                let token = self.tokens.at(
                    (found.class, private.into()),
                    || {
                        *next += 1;
                        *next
                    },
                    drop,
                );
                format!("[{name}#{token}]")
            }
        }
    }

    /// Counts a record in which something was changed.
    pub(super) fn count_sanitized(&mut self) {
        self.found.sanitized += 1;
    }
}

/// A statement of which nothing can be shown.
pub(super) fn withheld(digest: &Digest) -> Digest {
    Digest {
        fingerprint: digest.fingerprint,
        text: WITHHELD.into(),
        summary: WITHHELD.into(),
        operation: None,
        collection: None,
    }
}

/// Whether a byte can be part of a name: a digit beside one is no number by itself.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether neither side of a range continues it as a word.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    let before = text.get(..range.start).and_then(|before| before.chars().next_back());
    let after = text.get(range.end..).and_then(|after| after.chars().next());
    !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
}

/// Whether one of `words`, in lower case, stands in the bytes shortly before `start`.
fn follows_word(text: &str, start: usize, words: &[&str]) -> bool {
    const REACH: usize = 24;
    let from = (start.saturating_sub(REACH)..=start).find(|at| text.is_char_boundary(*at)).unwrap_or(start);
    let before = text[from..start].to_ascii_lowercase();
    words.iter().any(|word| before.contains(word))
}
