//! The statements of a replay, gathered by fingerprint.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hashbrown::HashMap;

use super::Execution;
use crate::model::{ByCode, Code, Digest, Engine, Histogram, Kind, Status, Text};

/// Bound on statements that are told apart; what is beyond it is gathered in `_other`.
const MAX_STATEMENTS: usize = 100_000;
/// Bound on the databases, users and hosts of one statement that are told apart.
const MAX_NAMES: usize = 100;
/// Bound on the bytes of a text kept as captured.
const MAX_SAMPLE: usize = 8 << 10;

/// Steps of the time distribution: below 10 µs, from 10 µs, from 100 µs, and so on.
pub const DECADES: [&str; 8] = ["1us", "10us", "100us", "1ms", "10ms", "100ms", "1s", "10s+"];

/// Times of executions.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// All of them, successful or not; not those whose end was not seen.
    pub histogram: Histogram,
    /// Sum of squares, in square seconds.
    squares: f64,
    /// How many lie in each of [`DECADES`].
    pub decades: [u64; DECADES.len()],
}

impl Times {
    fn record(&mut self, duration: Duration) {
        self.histogram.record(duration);
        self.squares += duration.as_secs_f64().powi(2);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let decade = micros.checked_ilog10().unwrap_or(0) as usize;
        self.decades[decade.min(DECADES.len() - 1)] += 1;
    }

    /// Square seconds.
    fn variance(&self) -> f64 {
        let mean = self.histogram.mean().as_secs_f64();
        match self.histogram.count() {
            0 => 0.0,
            count => (self.squares / count as f64 - mean * mean).max(0.0),
        }
    }

    /// Standard deviation.
    pub fn deviation(&self) -> Duration {
        Duration::try_from_secs_f64(self.variance().sqrt()).unwrap_or_default()
    }

    /// Variance-to-mean ratio, in seconds: how much the times scatter.
    pub fn variance_to_mean(&self) -> f64 {
        let mean = self.histogram.mean().as_secs_f64();
        if mean > 0.0 { self.variance() / mean } else { 0.0 }
    }
}

/// One statement, or all together.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Executions, successful or not.
    pub calls: u64,
    /// Executions and preparations that failed, by code.
    pub errors: ByCode<u64>,
    /// Failed ones that were cancelled or timed out.
    pub cancelled: u64,
    /// Executions whose end is not in the capture.
    pub incomplete: u64,
    /// Preparations.
    pub prepares: u64,
    /// How long they took.
    pub times: Times,
    /// How long it took to the first byte of the response.
    pub first_byte: Histogram,
    /// Rows sent.
    pub rows_sent: u64,
    /// Rows affected.
    pub rows_affected: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of responses.
    pub bytes_out: u64,
    /// Executions whose share of time is an estimate.
    pub estimated: u64,
}

impl Totals {
    /// Failures.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn add(&mut self, execution: &Execution<'_>) {
        let statement = execution.statement;
        let cancelled = statement.code.is_some_and(Code::is_cancellation);
        self.cancelled += u64::from(cancelled);
        if statement.status == Status::Error {
            *self.errors.at(statement.code) += 1;
        }
        if statement.kind == Kind::Prepare {
            self.prepares += 1;
            return;
        }
        self.calls += 1;
        match statement.status {
            Status::Incomplete => self.incomplete += 1,
            Status::Ok | Status::Error => self.times.record(statement.duration()),
        }
        if let Some(first) = statement.first_byte {
            self.first_byte.record(first.since(statement.start));
        }
        self.rows_sent += statement.rows_sent.unwrap_or(0);
        self.rows_affected += statement.rows_affected.unwrap_or(0);
        self.bytes_in += statement.bytes_in;
        self.bytes_out += statement.bytes_out;
        self.estimated += u64::from(statement.estimated);
    }
}

/// How often each name came; `None` is one that is not known.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The names, bounded.
    pub known: BTreeMap<Option<Box<str>>, u64>,
    /// Those beyond the bound.
    pub other: u64,
}

impl Names {
    fn add(&mut self, name: Option<&str>) {
        let name = name.map(Box::from);
        let full = self.known.len() >= MAX_NAMES;
        match self.known.get_mut(&name) {
            Some(count) => *count += 1,
            None if full => self.other += 1,
            None => {
                self.known.insert(name, 1);
            }
        }
    }
}

/// One statement.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Engine that it is spelled for.
    pub engine: Engine,
    /// The statement.
    pub digest: Arc<Digest>,
    /// Its numbers.
    pub totals: Totals,
    /// Databases it ran in.
    pub databases: Names,
    /// Users that ran it.
    pub users: Names,
    /// Addresses of clients that sent it.
    pub hosts: Names,
    /// Text of the slowest execution as captured, its length bounded; only if the profile is to keep it.
    pub sample: Option<Box<[u8]>>,
}

/// By what statements are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Time of all executions.
    #[default]
    Total,
    /// Number of executions.
    Calls,
    /// Mean time.
    Mean,
    /// Longest time.
    Max,
    /// Number of failures.
    Errors,
}

/// All statements.
#[derive(Debug, Default)]
pub struct Profile {
    /// All together.
    pub totals: Totals,
    entries: Vec<Entry>,
    index: HashMap<(Engine, u64), usize>,
    samples: bool,
}

impl Profile {
    /// Nothing yet. `samples`: keep the text of the slowest execution of each statement as captured, with its literals.
    pub fn new(samples: bool) -> Profile {
        Profile { samples, ..Profile::default() }
    }

    /// Takes up an execution. Attempts to connect are none.
    pub fn add(&mut self, execution: &Execution<'_>) {
        if execution.statement.kind == Kind::Connect {
            return;
        }
        self.totals.add(execution);
        let samples = self.samples;
        let entry = self.entry(execution);
        if samples
            && execution.statement.duration() >= entry.totals.times.histogram.max()
            && let Text::Known(text) = &execution.statement.text
        {
            entry.sample = Some(text.raw()[..text.raw().len().min(MAX_SAMPLE)].into());
        }
        entry.totals.add(execution);
        entry.databases.add(execution.database);
        entry.users.add(execution.user);
        entry.hosts.add(Some(&execution.client.ip().to_string()));
    }

    fn entry(&mut self, execution: &Execution<'_>) -> &mut Entry {
        let mut digest = execution.digest;
        let other;
        let mut key = (execution.engine, digest.fingerprint);
        if self.entries.len() >= MAX_STATEMENTS && !self.index.contains_key(&key) {
            other = Arc::new(Digest::other());
            digest = &other;
            key.1 = digest.fingerprint;
        }
        let new = self.entries.len();
        let at = *self.index.entry(key).or_insert(new);
        if at == new {
            self.entries.push(Entry {
                engine: execution.engine,
                digest: Arc::clone(digest),
                totals: Totals::default(),
                databases: Names::default(),
                users: Names::default(),
                hosts: Names::default(),
                sample: None,
            });
        }
        &mut self.entries[at]
    }

    /// Number of different statements.
    pub fn unique(&self) -> usize {
        self.entries.len()
    }

    /// The statements, highest first; the order of equal ones is their fingerprints'.
    pub fn ranked(&self, order: Order) -> Vec<&Entry> {
        let weight = |entry: &Entry| {
            let totals = &entry.totals;
            match order {
                Order::Total => totals.times.histogram.sum().as_nanos(),
                Order::Calls => totals.calls.into(),
                Order::Mean => totals.times.histogram.mean().as_nanos(),
                Order::Max => totals.times.histogram.max().as_nanos(),
                Order::Errors => totals.failed().into(),
            }
        };
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| (std::cmp::Reverse(weight(entry)), entry.engine, entry.digest.fingerprint));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_and_decades_are_those_of_the_durations() {
        let mut times = Times::default();
        [0, 9, 10, 999, 2_000, 30_000_000].into_iter().for_each(|micros| times.record(Duration::from_micros(micros)));
        assert_eq!(times.decades, [2, 1, 1, 1, 0, 0, 0, 1]);
        let mut times = Times::default();
        [2, 4, 4, 4, 5, 5, 7, 9].into_iter().for_each(|millis| times.record(Duration::from_millis(millis)));
        assert_eq!(times.deviation().as_micros(), 2_000);
        assert!((times.variance_to_mean() - 0.0008).abs() < 1e-9);
        assert_eq!((Times::default().deviation(), Times::default().variance_to_mean()), (Duration::ZERO, 0.0));
    }
}
