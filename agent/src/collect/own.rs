//! The agent's own statements, so that no statistic counts them.

use std::{collections::HashSet, sync::Arc};

use crate::{model::Engine, sql::Normaliser};

/// Texts remembered. The agent has a few dozen; where one of them holds names of the server's and there are more, all are forgotten and begun anew,
/// while their fingerprints, which hold no literals, stay.
const MAX_TEXTS: usize = 256;
/// Length up to which a text is remembered; those that list many identities are each asked only once.
const MAX_TEXT_BYTES: usize = 4096;
/// Fingerprints remembered; what lies beyond is counted like anybody's.
const MAX_FINGERPRINTS: usize = 256;

/// Fingerprints of everything that the agent has asked.
#[derive(Debug)]
pub(super) struct OwnStatements {
    engine: Engine,
    normaliser: Normaliser,
    /// So that a text that is asked each second is not normalised each second.
    texts: HashSet<String>,
    fingerprints: Arc<HashSet<u64>>,
}

impl OwnStatements {
    /// Nothing asked yet.
    pub(super) fn new(engine: Engine) -> OwnStatements {
        OwnStatements { engine, normaliser: Normaliser::default(), texts: HashSet::new(), fingerprints: Arc::default() }
    }

    /// Notes a text that is about to be asked.
    pub(super) fn add(&mut self, sql: &str) {
        if self.texts.contains(sql) {
            return;
        }
        let fingerprint = self.normaliser.digest(self.engine, sql.as_bytes(), false).fingerprint;
        if self.texts.len() >= MAX_TEXTS {
            self.texts.clear();
        }
        if sql.len() <= MAX_TEXT_BYTES {
            self.texts.insert(sql.to_owned());
        }
        if self.fingerprints.len() < MAX_FINGERPRINTS && !self.fingerprints.contains(&fingerprint) {
            Arc::make_mut(&mut self.fingerprints).insert(fingerprint);
        }
    }

    /// All of them.
    pub(super) fn fingerprints(&self) -> &Arc<HashSet<u64>> {
        &self.fingerprints
    }

    /// Whether the agent has asked a statement of this fingerprint.
    pub(super) fn contains(&self, fingerprint: u64) -> bool {
        self.fingerprints.contains(&fingerprint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn own_statements_are_known_in_the_servers_spelling() {
        let mut own = OwnStatements::new(Engine::Postgresql);
        own.add("SELECT pid FROM pg_stat_activity WHERE pid <> 7");
        let digest = |text: &str| Normaliser::default().digest(Engine::Postgresql, text.as_bytes(), false).fingerprint;
        assert!(own.contains(digest("select pid from pg_stat_activity where pid <> $1")));
        assert!(!own.contains(digest("select pid from pg_stat_activity")));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut own = OwnStatements::new(Engine::Mysql);
        for number in 0..2000 {
            own.add(&format!("SELECT c{number} FROM t"));
        }
        assert!(own.texts.len() <= MAX_TEXTS && own.fingerprints.len() == MAX_FINGERPRINTS);
    }
}
