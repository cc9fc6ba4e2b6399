//! The state of everything at one moment: what exporters, `top`, `discover` and the health endpoints render.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{
    ByCode, Collected, Digest, Ending, Enrichment, Histogram, Instance, ServerKey, Timestamp, Verdict, names::Metric,
};

/// A sum of durations of which only the mean is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mean {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

impl Mean {
    /// Adds `count` durations whose sum is `sum`.
    pub fn add(&mut self, count: u64, sum: Duration) {
        self.count += count;
        self.sum = self.sum.saturating_add(sum);
    }

    /// The mean; zero if there is none.
    pub fn get(&self) -> Duration {
        match self.count {
            0 => Duration::ZERO,
            count => Duration::from_nanos((self.sum.as_nanos() / u128::from(count)) as u64),
        }
    }
}

/// Transactions of one server that lasted longer than a statement.
#[derive(Clone, Debug, Default)]
pub struct TransactionStats {
    /// Those that were committed, by duration.
    pub committed: Histogram,
    /// Those that were rolled back.
    pub rolled_back: Histogram,
    /// Time within them that the server waited for its client.
    pub idle: Duration,
}

impl TransactionStats {
    /// Durations under the values of `querylens.transaction.outcome`.
    pub fn outcomes(&self) -> [(&'static str, &Histogram); 2] {
        [("committed", &self.committed), ("rolled_back", &self.rolled_back)]
    }
}

/// Statistics of one (instance, database, user, fingerprint), cumulative since the agent found it.
#[derive(Clone, Debug, Default)]
pub struct StatementStats {
    /// Durations of executions that succeeded. Its count is the number of them.
    pub ok: Histogram,
    /// Durations of executions that failed, by error code.
    pub failed: ByCode<Histogram>,
    /// Time to the first byte of the response, of executions that had one.
    pub first_byte: Mean,
    /// Rows sent to clients.
    pub rows_sent: u64,
    /// Rows inserted, updated or deleted.
    pub rows_affected: u64,
    /// Request bytes.
    pub bytes_in: u64,
    /// Response bytes.
    pub bytes_out: u64,
    /// Preparations of this text (`Parse`, `COM_STMT_PREPARE`) that were not part of an execution.
    pub prepares: u64,
    /// Preparations that failed, by error code: errors, but not executions.
    pub failed_prepares: ByCode<u64>,
    /// Executions whose duration is an estimate (replies that shared one write).
    pub estimated: u64,
    /// Executions whose text was cut by the capture limit.
    pub truncated: u64,
    /// What its server and the kernel know of it, where the server is asked.
    pub known: Option<Box<Enrichment>>,
}

impl StatementStats {
    /// Executions, successful or not.
    pub fn executions(&self) -> u64 {
        self.ok.count() + self.failed.values().map(Histogram::count).sum::<u64>()
    }

    /// Executions and preparations that failed.
    pub fn errors(&self) -> u64 {
        self.errors_by_code().values().sum()
    }

    /// Executions and preparations that failed, by error code.
    pub fn errors_by_code(&self) -> ByCode<u64> {
        let mut errors = self.failed_prepares.clone();
        self.failed.iter().for_each(|(code, histogram)| *errors.at(*code) += histogram.count());
        errors
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &StatementStats) {
        self.ok.merge(&other.ok);
        other.failed.iter().for_each(|(code, histogram)| self.failed.at(*code).merge(histogram));
        other.failed_prepares.iter().for_each(|(code, count)| *self.failed_prepares.at(*code) += count);
        self.first_byte.add(other.first_byte.count, other.first_byte.sum);
        self.rows_sent += other.rows_sent;
        self.rows_affected += other.rows_affected;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.prepares += other.prepares;
        self.estimated += other.estimated;
        self.truncated += other.truncated;
        if let Some(known) = &other.known {
            self.known.get_or_insert_default().merge(known);
        }
    }

    /// What was counted since `earlier`, an older state of these statistics.
    pub fn since(&self, earlier: &StatementStats) -> StatementStats {
        let mut failed = ByCode::default();
        for (code, histogram) in self.failed.iter() {
            let new = earlier.failed.get(code).map_or_else(|| histogram.clone(), |before| histogram.since(before));
            if new.count() > 0 {
                *failed.at(*code) = new;
            }
        }
        let mut failed_prepares = ByCode::default();
        for (code, count) in self.failed_prepares.iter() {
            let new = count.saturating_sub(earlier.failed_prepares.get(code).copied().unwrap_or(0));
            if new > 0 {
                *failed_prepares.at(*code) = new;
            }
        }
        StatementStats {
            ok: self.ok.since(&earlier.ok),
            failed,
            first_byte: Mean {
                count: self.first_byte.count.saturating_sub(earlier.first_byte.count),
                sum: self.first_byte.sum.saturating_sub(earlier.first_byte.sum),
            },
            rows_sent: self.rows_sent.saturating_sub(earlier.rows_sent),
            rows_affected: self.rows_affected.saturating_sub(earlier.rows_affected),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
            prepares: self.prepares.saturating_sub(earlier.prepares),
            failed_prepares,
            estimated: self.estimated.saturating_sub(earlier.estimated),
            truncated: self.truncated.saturating_sub(earlier.truncated),
            // What the server says has times of its own.
            known: None,
        }
    }

    /// Time spent in all executions.
    pub fn total(&self) -> Duration {
        self.failed.values().map(Histogram::sum).fold(self.ok.sum(), Duration::saturating_add)
    }

    /// All durations, successful or not.
    pub fn durations(&self) -> Histogram {
        let mut all = self.ok.clone();
        self.failed.values().for_each(|histogram| all.merge(histogram));
        all
    }
}

/// One execution that was worth a look.
#[derive(Clone, Debug)]
pub struct Outlier {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// Whose session: database, user.
    pub database: Option<Arc<str>>,
    /// User.
    pub user: Option<Arc<str>>,
    /// The normalised statement.
    pub digest: Arc<Digest>,
    /// How it ended.
    pub ending: Ending,
    /// Rows sent and changed.
    pub rows: u64,
}

/// One row of statistics.
#[derive(Clone, Debug)]
pub struct StatementSnapshot {
    /// Database or schema; `None` where the connection is older than the agent.
    pub database: Option<Arc<str>>,
    /// Database user; `None` likewise.
    pub user: Option<Arc<str>>,
    /// The normalised statement.
    pub digest: Arc<Digest>,
    /// The numbers.
    pub stats: StatementStats,
}

/// Sessions by state, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionCounts {
    /// Executing a command.
    pub active: u64,
    /// Waiting for a command outside a transaction.
    pub idle: u64,
    /// Waiting for a command inside a transaction.
    pub idle_in_transaction: u64,
    /// Waiting for a command inside a failed transaction.
    pub idle_in_failed_transaction: u64,
    /// In start-up or authentication.
    pub starting: u64,
    /// Nothing provable seen yet.
    pub unknown: u64,
    /// Encrypted, compressed or otherwise not followed.
    pub opaque: u64,
}

/// Whether and how the agent sees a server's wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WireState {
    /// `visible` or `hidden`.
    pub state: &'static str,
    /// Attach strategy: `boundary`, `socket`, `syscall`, or `none`.
    pub strategy: &'static str,
    /// Why this strategy, or why nothing is visible.
    pub reason: String,
}

/// One server at one moment.
#[derive(Clone, Debug)]
pub struct InstanceSnapshot {
    /// Which server.
    pub instance: Arc<Instance>,
    /// How its wire is seen.
    pub wire: WireState,
    /// `unix`, `tcp`, `tcp+unix` or `none`: over what the sessions seen so far came.
    pub transport: &'static str,
    /// Sessions by state.
    pub sessions: SessionCounts,
    /// Connections accepted since the agent found the server.
    pub connects: u64,
    /// Connection attempts refused, by error code.
    pub connect_failures: ByCode<u64>,
    /// Transactions that have ended.
    pub transactions: TransactionStats,
    /// Executions that failed or were slow, the latest last.
    pub outliers: Vec<Outlier>,
    /// Statements, in no order.
    pub statements: Vec<StatementSnapshot>,
    /// Losses that hit this server's sessions, by cause: never silently dropped.
    pub losses: BTreeMap<&'static str, u64>,
}

impl InstanceSnapshot {
    /// Executions over all statements.
    pub fn executions(&self) -> u64 {
        self.statements.iter().map(|row| row.stats.executions()).sum()
    }

    /// Errors over all statements.
    pub fn errors(&self) -> u64 {
        self.statements.iter().map(|row| row.stats.errors()).sum()
    }

    /// Durations over all statements.
    pub fn durations(&self) -> Histogram {
        let mut all = Histogram::default();
        self.statements.iter().for_each(|row| all.merge(&row.stats.durations()));
        all
    }
}

/// What the agent itself costs and loses.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AgentStats {
    /// CPU time of the agent's process, user and system.
    pub cpu: Duration,
    /// Run time of the eBPF programs on behalf of observed processes; `None` where kernel.bpf_stats_enabled is 0.
    pub program_time: Option<Duration>,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Records read from the ring buffer.
    pub records: u64,
    /// Records lost, cut or refused, by cause, all servers together.
    pub losses: BTreeMap<&'static str, u64>,
}

impl AgentStats {
    /// Records that carried information and are gone (truncation keeps the record, so it is not one).
    pub fn events_lost(&self) -> u64 {
        self.losses.iter().filter(|(cause, _)| cause.starts_with("ring_full")).map(|(_, count)| count).sum()
    }
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub at: SystemTime,
    /// Since when cumulative values count.
    pub start: SystemTime,
    /// The servers that run now, ordered by engine and pid.
    pub instances: Vec<InstanceSnapshot>,
    /// What those servers said of themselves, that are asked.
    pub collected: HashMap<ServerKey, Collected>,
    /// The agent itself.
    pub agent: AgentStats,
    /// Kernel features and what else was probed at start, by name.
    pub features: Vec<(&'static str, Verdict)>,
    /// The processors' own numbers; none where no processors run.
    pub measured: Arc<Vec<Measured>>,
}

/// A number that a part of the agent tells of itself. Counters are cumulative since the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What it is.
    pub metric: &'static Metric,
    /// What it is a part of, by attribute name.
    pub attributes: Vec<(&'static str, Cow<'static, str>)>,
    /// Its value.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Code;

    #[test]
    fn since_and_merge_are_each_others_inverse() {
        let mut before = StatementStats { rows_sent: 3, bytes_in: 5, ..StatementStats::default() };
        before.ok.record(Duration::from_millis(3));
        before.failed.at(Some(Code::Mysql(1))).record(Duration::from_millis(1));
        *before.failed_prepares.at(Some(Code::Mysql(2))) += 2;
        let mut after = before.clone();
        let mut new = StatementStats { rows_sent: 1, bytes_out: 7, prepares: 1, ..StatementStats::default() };
        new.ok.record(Duration::from_millis(9));
        new.failed.at(Some(Code::Mysql(3))).record(Duration::from_millis(2));
        new.first_byte.add(2, Duration::from_millis(1));
        after.merge(&new);
        let since = after.since(&before);
        assert_eq!((since.executions(), since.errors(), since.total()), (2, 1, new.total()));
        assert_eq!((since.rows_sent, since.bytes_in, since.bytes_out, since.prepares), (1, 0, 7, 1));
        assert_eq!((since.first_byte, since.failed_prepares.len()), (new.first_byte, 0));
        assert_eq!(after.since(&after).executions(), 0);
    }

    #[test]
    fn merging_keeps_every_error_and_the_bound_on_codes() {
        let failing = |codes: std::ops::Range<u16>| {
            let mut stats = StatementStats::default();
            for code in codes {
                stats.failed.at(Some(Code::Mysql(code))).record(Duration::from_millis(1));
            }
            stats
        };
        let mut all = failing(0..10);
        all.merge(&failing(5..30));
        assert_eq!((all.executions(), all.errors(), all.total()), (35, 35, Duration::from_millis(35)));
        *all.failed_prepares.at(Some(Code::Mysql(7))) += 1;
        assert_eq!((all.executions(), all.errors()), (35, 36));
        assert_eq!(all.errors_by_code()[&Some(Code::Mysql(7))], 3);
        assert_eq!(all.failed[&Some(Code::Mysql(7))].count(), 2);
        assert_eq!(all.failed[&None].count(), 14);
    }
}
