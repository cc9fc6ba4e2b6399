//! The bound on series: which statements an exporter shows one by one.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::model::{Digest, InstanceSnapshot, ServerKey, Snapshot, StatementSnapshot, StatementStats};

/// What tells statements of a server apart in series: database, user and fingerprint. An empty name counts as none, since Prometheus
/// cannot tell the two apart.
type Key = (Option<Arc<str>>, Option<Arc<str>>, u64);

fn key(row: &StatementSnapshot) -> Key {
    let named = |name: &Option<Arc<str>>| name.clone().filter(|name| !name.is_empty());
    (named(&row.database), named(&row.user), row.digest.fingerprint)
}

/// Remembers which statements of each server are shown one by one; the rest is merged into `_other`, so that sums stay exact.
///
/// A statement stays where it was put first: were it to move between its own series and `_other`, one of the two cumulative series would
/// fall, and every reader of rates would take that for a restart and see a spike that never was.
/// Where more are new than have room, the heaviest get it.
#[derive(Debug)]
pub struct Selection {
    max: usize,
    servers: HashMap<ServerKey, HashMap<Key, Place>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Own,
    Other,
}

impl Selection {
    /// Shows at most `max` statements of each server.
    pub fn new(max: usize) -> Selection {
        Selection { max, servers: HashMap::new() }
    }

    /// The statements to show, for each server in the snapshot's order; those of a server are ordered by fingerprint, database and user,
    /// `_other` where its fingerprint puts it. Memory is bounded by what the snapshot holds.
    pub fn apply<'a>(&mut self, snapshot: &'a Snapshot) -> Vec<Vec<Cow<'a, StatementSnapshot>>> {
        let running: HashSet<ServerKey> = snapshot.instances.iter().map(|server| server.instance.key).collect();
        self.servers.retain(|key, _| running.contains(key));
        snapshot.instances.iter().map(|server| self.server(server)).collect()
    }

    fn server<'a>(&mut self, server: &'a InstanceSnapshot) -> Vec<Cow<'a, StatementSnapshot>> {
        let mut rows: HashMap<Key, Cow<'a, StatementSnapshot>> = HashMap::with_capacity(server.statements.len());
        for row in &server.statements {
            add(&mut rows, key(row), row);
        }
        let other: Key = (None, None, Digest::OTHER);
        let places = self.servers.entry(server.instance.key).or_default();
        places.retain(|key, _| rows.contains_key(key));

        let mut new: Vec<_> = rows.iter().filter(|(key, _)| !places.contains_key(*key) && **key != other).collect();
        new.sort_by_cached_key(|(key, row)| (Reverse(row.stats.total()), (*key).clone()));
        let room = self.max.saturating_sub(places.values().filter(|place| **place == Place::Own).count());
        let new: Vec<Key> = new.into_iter().map(|(key, _)| key.clone()).collect();
        for (at, key) in new.into_iter().enumerate() {
            places.insert(key, if at < room { Place::Own } else { Place::Other });
        }

        let mut shown = HashMap::with_capacity(rows.len().min(self.max + 1));
        for (key, row) in rows {
            match places.get(&key) {
                Some(Place::Own) => {
                    shown.insert(key, row);
                }
                Some(Place::Other) | None => {
                    let rest = shown.entry(other.clone()).or_insert_with(|| Cow::Owned(empty_other()));
                    rest.to_mut().stats.merge(&row.stats);
                }
            }
        }
        let mut shown: Vec<_> = shown.into_iter().collect();
        shown.sort_by(|((db1, user1, print1), _), ((db2, user2, print2), _)| {
            (print1, db1, user1).cmp(&(print2, db2, user2))
        });
        shown.into_iter().map(|(_, row)| row).collect()
    }
}

fn add<'a>(rows: &mut HashMap<Key, Cow<'a, StatementSnapshot>>, key: Key, row: &'a StatementSnapshot) {
    match rows.get_mut(&key) {
        Some(present) => present.to_mut().stats.merge(&row.stats),
        None => {
            rows.insert(key, Cow::Borrowed(row));
        }
    }
}

fn empty_other() -> StatementSnapshot {
    StatementSnapshot { database: None, user: None, digest: Digest::other().into(), stats: StatementStats::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::testing::{self, statement};

    /// Names of the statements shown, with their executions.
    fn shown(selection: &mut Selection, rows: &[StatementSnapshot]) -> Vec<(String, u64)> {
        let snapshot = testing::with_statements(rows.to_vec());
        let servers = selection.apply(&snapshot);
        assert_eq!(servers.len(), snapshot.instances.len());
        servers[0].iter().map(|row| (row.digest.text.to_string(), row.stats.executions())).collect()
    }

    fn row(fingerprint: u64, executions: u64, millis: u64) -> StatementSnapshot {
        let mut row = statement("bench", "app", fingerprint, &format!("SELECT {fingerprint}"));
        (0..executions).for_each(|_| row.stats.ok.record(Duration::from_millis(millis)));
        row
    }

    fn named(names: &[(&str, u64)]) -> Vec<(String, u64)> {
        names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn the_heaviest_are_shown_and_sums_stay_exact() {
        let rows = [row(10, 5, 1), row(11, 1, 100), row(12, 7, 1), row(13, 2, 50)];
        let shown = shown(&mut Selection::new(2), &rows);
        assert_eq!(shown, named(&[("_other", 12), ("SELECT 11", 1), ("SELECT 13", 2)]));
    }

    #[test]
    fn a_statement_stays_where_it_was_put() {
        let mut selection = Selection::new(2);
        shown(&mut selection, &[row(10, 1, 50), row(11, 1, 40), row(12, 1, 1)]);
        let later = shown(&mut selection, &[row(10, 1, 50), row(11, 1, 40), row(12, 900, 1), row(13, 800, 1)]);
        assert_eq!(later, named(&[("_other", 1700), ("SELECT 10", 1), ("SELECT 11", 1)]));
    }

    #[test]
    fn new_statements_take_free_room() {
        let mut selection = Selection::new(2);
        shown(&mut selection, &[row(10, 1, 50)]);
        let later = shown(&mut selection, &[row(10, 1, 50), row(11, 1, 1), row(12, 1, 2)]);
        assert_eq!(later, named(&[("_other", 1), ("SELECT 10", 1), ("SELECT 12", 1)]));
    }

    #[test]
    fn what_was_beyond_the_bound_before_is_in_the_same_other() {
        let mut before = statement("", "", Digest::OTHER, "_other");
        before.stats.ok.record(Duration::from_secs(9));
        let shown = shown(&mut Selection::new(1), &[before, row(10, 1, 5), row(11, 1, 4)]);
        assert_eq!(shown, named(&[("_other", 2), ("SELECT 10", 1)]));
    }

    #[test]
    fn rows_that_would_be_the_same_series_are_one() {
        let mut unknown = row(10, 1, 1);
        unknown.database = None;
        let mut empty = row(10, 2, 1);
        empty.database = Some("".into());
        assert_eq!(shown(&mut Selection::new(5), &[unknown, empty]), named(&[("SELECT 10", 3)]));
    }

    #[test]
    fn servers_that_are_gone_are_forgotten() {
        let mut selection = Selection::new(1);
        shown(&mut selection, &[row(10, 1, 1)]);
        let mut none = testing::with_statements(Vec::new());
        none.instances.clear();
        selection.apply(&none);
        assert!(selection.servers.is_empty());
    }
}
