//! Snapshots count from the start on; what was counted between two of them is an interval.

use std::{collections::HashMap, sync::Arc};

use crate::model::{
    Record, ServerKey, Signal, Snapshot, StatementStats, Timestamp,
    signal::{Interval, Origin},
};

/// A statement of a server: database, user, fingerprint.
type Key = (Option<Arc<str>>, Option<Arc<str>>, u64);

/// Remembers the last snapshot. As large as that one: the aggregation bounds it.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    servers: HashMap<ServerKey, HashMap<Key, StatementStats>>,
    last: Option<Timestamp>,
}

impl Intervals {
    /// What was counted since the last snapshot, or since the start: one record for each statement that was executed or prepared.
    pub(super) fn records(&mut self, now: Timestamp, snapshot: &Snapshot) -> Vec<Record> {
        let uptime = snapshot.at.duration_since(snapshot.start).unwrap_or_default();
        let length = self.last.replace(now).map_or(uptime, |last| now.since(last));
        self.servers.retain(|key, _| snapshot.instances.iter().any(|server| server.instance.key == *key));
        let mut records = Vec::new();
        for server in &snapshot.instances {
            let known = self.servers.entry(server.instance.key).or_default();
            for row in &server.statements {
                let before = known.entry((row.database.clone(), row.user.clone(), row.digest.fingerprint)).or_default();
                let stats = row.stats.since(before);
                if stats.executions() == 0 && stats.prepares == 0 && stats.errors() == 0 {
                    continue;
                }
                *before = row.stats.clone();
                let origin = Origin {
                    instance: Arc::clone(&server.instance),
                    database: row.database.clone(),
                    user: row.user.clone(),
                };
                let digest = Arc::clone(&row.digest);
                let interval = Interval { digest, length, stats, load: None, pace: None, maintenance: false };
                records.push(Record::new(now, origin, Signal::Interval(Box::new(interval))));
            }
        }
        records
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::testing;

    /// (fingerprint, executions, length) of each record.
    fn told(records: &[Record]) -> Vec<(u64, u64, Duration)> {
        let of = |record: &Record| {
            let Signal::Interval(interval) = &record.signal else { panic!("{record:?}") };
            (interval.digest.fingerprint, interval.stats.executions(), interval.length)
        };
        records.iter().map(of).collect()
    }

    #[test]
    fn the_sum_of_all_intervals_is_the_snapshot() {
        let mut intervals = Intervals::default();
        let mut snapshot = testing::busy();
        let at = |secs: u64| Timestamp(secs * 1_000_000_000);
        let first = told(&intervals.records(at(100), &snapshot));
        let busy = snapshot.instances[0].statements[0].stats.executions();
        assert!(first.contains(&(0xfeed, busy, Duration::from_millis(60_500))), "{first:?}");
        assert!(intervals.records(at(110), &snapshot).is_empty());
        snapshot.instances[0].statements[0].stats.ok.record(Duration::from_millis(3));
        assert_eq!(told(&intervals.records(at(125), &snapshot)), [(0xfeed, 1, Duration::from_secs(15))]);
        // A server that is gone is forgotten; one that comes again counts from zero.
        let gone = snapshot.instances.remove(0);
        assert!(intervals.records(at(130), &snapshot).is_empty());
        snapshot.instances.push(gone);
        assert!(told(&intervals.records(at(140), &snapshot)).contains(&(0xfeed, busy + 1, Duration::from_secs(10))));
    }
}
