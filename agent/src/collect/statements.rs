//! Statistics of statements from look to look: what grew, and the texts, each asked for once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    delta::{Counters, Deltas},
    own::OwnStatements,
};
use crate::{
    model::{Digest, Engine, ServerCounters, ServerStatement},
    sql::Normaliser,
};

/// Counters of one statement, as their engine writes them.
pub(super) const COUNTERS: usize = 17;

/// Places of counters; the order is that of [`ServerCounters`].
pub(super) mod at {
    pub(in crate::collect) const CALLS: usize = 0;
    pub(in crate::collect) const ROWS: usize = 1;
    pub(in crate::collect) const EXEC_TIME: usize = 2;
    pub(in crate::collect) const PLAN_TIME: usize = 3;
    pub(in crate::collect) const LOCK_TIME: usize = 4;
    pub(in crate::collect) const SHARED_HIT: usize = 5;
    pub(in crate::collect) const SHARED_READ: usize = 6;
    pub(in crate::collect) const SHARED_DIRTIED: usize = 7;
    pub(in crate::collect) const SHARED_WRITTEN: usize = 8;
    pub(in crate::collect) const TEMP_READ: usize = 9;
    pub(in crate::collect) const TEMP_WRITTEN: usize = 10;
    pub(in crate::collect) const IO_TIME: usize = 11;
    pub(in crate::collect) const WAL_BYTES: usize = 12;
    pub(in crate::collect) const ROWS_EXAMINED: usize = 13;
    pub(in crate::collect) const ERRORS: usize = 14;
    pub(in crate::collect) const NO_INDEX_USED: usize = 15;
    pub(in crate::collect) const TMP_DISK_TABLES: usize = 16;
}

/// The unit in which an engine keeps times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    /// PostgreSQL's milliseconds with a fraction, made nanoseconds.
    Nanoseconds,
    /// performance_schema. 64 bits of them wrap after 213 days.
    Picoseconds,
}

/// A statement, told apart as its server tells it apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) id: Arc<str>,
    pub(super) database: Option<Arc<str>>,
    pub(super) user: Option<Arc<str>>,
    /// Numbers of database and user, where there are some: several may have lost their names.
    pub(super) numbers: (u32, u32),
}

/// One entry of the server's table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// When it began, where the server tells.
    pub(super) since: Option<i64>,
    pub(super) values: Counters<COUNTERS>,
    pub(super) p95: Option<Duration>,
    pub(super) p99: Option<Duration>,
}

/// What is remembered between looks.
#[derive(Debug)]
pub(super) struct Statements {
    engine: Engine,
    unit: TimeUnit,
    bound: usize,
    deltas: Deltas<Key, COUNTERS>,
    quantiles: HashMap<Key, (Option<Duration>, Option<Duration>)>,
    texts: HashMap<Arc<str>, Arc<Digest>>,
    normaliser: Normaliser,
}

impl Statements {
    /// Remembers at most `bound` statements.
    pub(super) fn new(engine: Engine, bound: usize) -> Statements {
        let unit = match engine {
            Engine::Postgresql => TimeUnit::Nanoseconds,
            Engine::Mysql | Engine::Mariadb => TimeUnit::Picoseconds,
        };
        Statements {
            engine,
            unit,
            bound,
            deltas: Deltas::new(bound),
            quantiles: HashMap::new(),
            texts: HashMap::new(),
            normaliser: Normaliser::default(),
        }
    }

    /// How many entries to ask for.
    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    /// Takes one look at the server's table.
    pub(super) fn look(&mut self, entries: Vec<Entry>) {
        let whole = entries.len() < self.bound;
        self.quantiles = entries
            .iter()
            .filter(|entry| entry.p95.is_some() || entry.p99.is_some())
            .map(|entry| (entry.key.clone(), (entry.p95, entry.p99)))
            .collect();
        self.deltas.look(entries.into_iter().map(|entry| (entry.key, entry.since, entry.values)), whole);
    }

    /// Identities whose texts are to be asked for, at most `limit`.
    pub(super) fn unknown(&self, limit: usize) -> Vec<Arc<str>> {
        let mut ids: Vec<Arc<str>> = self
            .deltas
            .present()
            .filter(|(key, _)| !self.texts.contains_key(&key.id))
            .map(|(key, _)| Arc::clone(&key.id))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(limit);
        ids
    }

    /// Takes the text of an identity; nothing of it is kept but its digest.
    pub(super) fn learn(&mut self, id: &str, text: &str) {
        if self.texts.len() >= self.bound {
            let used: std::collections::HashSet<&str> = self.deltas.present().map(|(key, _)| &*key.id).collect();
            self.texts.retain(|id, _| used.contains(&**id));
        }
        if self.texts.len() < self.bound {
            // Digests of performance_schema end so where they were cut (max_digest_length).
            let truncated = self.engine != Engine::Postgresql && text.ends_with("...");
            let digest = self.normaliser.digest(self.engine, text.as_bytes(), truncated);
            self.texts.insert(id.into(), Arc::new(digest));
        }
    }

    /// The digest of an identity.
    pub(super) fn digest(&self, id: &str) -> Option<&Arc<Digest>> {
        self.texts.get(id)
    }

    /// All statements whose text is known, but the agent's own.
    pub(super) fn known(&self, own: &OwnStatements) -> Vec<ServerStatement> {
        let statement = |(key, total): (&Key, &[u128; COUNTERS])| {
            let digest = self.texts.get(&key.id).filter(|digest| !own.contains(digest.fingerprint))?;
            let (p95, p99) = self.quantiles.get(key).copied().unwrap_or_default();
            Some(ServerStatement {
                database: key.database.clone(),
                user: key.user.clone(),
                id: Arc::clone(&key.id),
                digest: Arc::clone(digest),
                total: counters(total, self.unit),
                p95,
                p99,
            })
        };
        self.deltas.totals().filter_map(statement).collect()
    }

    /// Entries left out at the bound, counted at each look.
    pub(super) fn omitted(&self) -> u64 {
        self.deltas.omitted()
    }
}

fn counters(total: &[u128; COUNTERS], unit: TimeUnit) -> ServerCounters {
    let count = |place: usize| u64::try_from(total[place]).unwrap_or(u64::MAX);
    let time = |place: usize| {
        let nanos = match unit {
            TimeUnit::Nanoseconds => total[place],
            TimeUnit::Picoseconds => total[place] / 1000,
        };
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    };
    ServerCounters {
        calls: count(at::CALLS),
        rows: count(at::ROWS),
        exec_time: time(at::EXEC_TIME),
        plan_time: time(at::PLAN_TIME),
        lock_time: time(at::LOCK_TIME),
        shared_hit: count(at::SHARED_HIT),
        shared_read: count(at::SHARED_READ),
        shared_dirtied: count(at::SHARED_DIRTIED),
        shared_written: count(at::SHARED_WRITTEN),
        temp_read: count(at::TEMP_READ),
        temp_written: count(at::TEMP_WRITTEN),
        io_time: time(at::IO_TIME),
        wal_bytes: count(at::WAL_BYTES),
        rows_examined: count(at::ROWS_EXAMINED),
        errors: count(at::ERRORS),
        no_index_used: count(at::NO_INDEX_USED),
        tmp_disk_tables: count(at::TMP_DISK_TABLES),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(id: &str, calls: u64, time: u64) -> Entry {
        let mut values = [0; COUNTERS];
        (values[at::CALLS], values[at::EXEC_TIME]) = (calls, time);
        let key = Key { id: id.into(), database: Some("bench".into()), user: None, numbers: (0, 0) };
        Entry { key, since: None, values, p95: None, p99: None }
    }

    #[test]
    fn texts_are_asked_for_once_and_lose_their_literals() {
        let mut statements = Statements::new(Engine::Mysql, 10);
        statements.look(vec![entry("7", 100, 0), entry("8", 1, 0)]);
        assert_eq!(statements.unknown(1), ["7".into()]);
        assert_eq!(statements.unknown(9).len(), 2);
        statements.learn("7", "SET PASSWORD = 'hunter2'");
        statements.learn("8", "SELECT 1");
        assert!(statements.unknown(9).is_empty());
        statements.look(vec![entry("7", 103, 5_000_000), entry("8", 2, 0)]);
        let mut own = OwnStatements::new(Engine::Mysql);
        own.add("SELECT 5");
        let known = statements.known(&own);
        assert_eq!(known.len(), 1, "the agent's own are left out");
        assert_eq!((known[0].total.calls, known[0].total.exec_time), (3, Duration::from_micros(5)));
        assert!(!known[0].digest.text.contains("hunter2"), "{:?}", known[0].digest);
    }

    #[test]
    fn texts_beyond_the_bound_make_room_only_for_what_is_still_there() {
        let mut statements = Statements::new(Engine::Postgresql, 3);
        statements.look(vec![entry("1", 1, 0), entry("2", 1, 0)]);
        ["1", "2", "9"].into_iter().for_each(|id| statements.learn(id, "SELECT a FROM t"));
        statements.look(vec![entry("2", 1, 0), entry("3", 1, 0)]);
        statements.learn("3", "SELECT b FROM t");
        assert!(statements.digest("2").is_some() && statements.digest("3").is_some());
        assert!(statements.digest("1").is_none() && statements.digest("9").is_none());
    }
}
