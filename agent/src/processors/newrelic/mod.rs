//! The New Relic error monitor: mends what New Relic would refuse, before it is sent, since it says so only afterwards and elsewhere. Each mend is counted by
//! rule and kind of signal. It learns from the answers: it waits, makes requests smaller, or stops, as the class of error demands.

mod answers;
pub mod config;
mod rules;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use twox_hash::XxHash3_64;

pub use answers::{Answer, IntegrationError};
pub use config::Config;
pub use rules::Rule;

use super::{
    Effects, Field, Io, Measures, Processor, Stage, StateError,
    hyperloglog::HyperLogLog,
    merge,
    state::{self, Moment},
};
use crate::model::{
    Batch, Digest, Record, Signal, Timestamp,
    names::{attribute as a, metric, processor_metric as m},
    signal::{Kind, Reason, Severity, Sifted},
};
use answers::{CLASSES, Receiver};

/// What it reads and writes.
pub const IO: Io = Io { reads: &[Field::Admitted, Field::CleanText, Field::Weight, Field::Budgeted], writes: &[] };

/// Nanoseconds of a UTC day.
const DAY: i64 = 86_400 * 1_000_000_000;
/// Metrics whose series are counted; of further ones nothing is sent.
const MAX_METRICS: usize = 2048;
/// From this part of the limit on, new series are counted together: the sketch has an error of 1.6 %.
const MARGIN: f64 = 0.95;
/// Series that are recognised when they come again. Beyond the bound and after a restart, one that is not counts as new, which is the safe side.
const MAX_KNOWN: usize = 262_144;

/// The processor.
#[derive(Debug)]
pub struct ErrorMonitor {
    config: Config,
    receiver: Receiver,
    series: Series,
    mends: BTreeMap<(Rule, Kind), u64>,
    /// Mends by rule since the last look, and when each was last told.
    recent: [u64; Rule::ALL.len()],
    told: [Option<Timestamp>; Rule::ALL.len()],
    looked: Option<Timestamp>,
    other: Arc<Digest>,
    /// For the identity of a series.
    buffer: Vec<u8>,
}

/// Series of a UTC day.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Series {
    /// Days since 1970.
    day: i64,
    by_metric: BTreeMap<String, HyperLogLog>,
    /// The receiver said that there are too many.
    exhausted: bool,
    /// Series that have been sent today.
    #[serde(skip)]
    known: HashSet<u64>,
}

impl ErrorMonitor {
    /// Nothing seen yet.
    pub fn new(config: Config) -> ErrorMonitor {
        ErrorMonitor {
            receiver: Receiver::new(config.max_request_bytes),
            series: Series::default(),
            mends: BTreeMap::new(),
            recent: [0; Rule::ALL.len()],
            told: [None; Rule::ALL.len()],
            looked: None,
            other: Arc::new(Digest::other()),
            buffer: Vec::new(),
            config,
        }
    }

    /// The receiver answered.
    pub fn answer(&mut self, now: Timestamp, answer: Answer, effects: &mut Effects) {
        self.receiver.answer(now, answer, effects);
    }

    /// The receiver found a fault afterwards.
    pub fn fault(&mut self, now: Timestamp, error: &IntegrationError, effects: &mut Effects) {
        let too_many = self.receiver.fault(now, error, effects);
        self.series.exhausted |= too_many;
    }

    fn broke(&mut self, rule: Rule, kind: Kind) {
        *self.mends.entry((rule, kind)).or_default() += 1;
        self.recent[rule as usize] += 1;
    }

    fn judge(&mut self, now: Timestamp, record: &mut Record, renamed: &mut bool) -> Sifted {
        let kind = record.signal.kind();
        let mut broken: smallvec::SmallVec<[Rule; 4]> = smallvec::SmallVec::new();
        let passes = rules::mend(record, now, &self.config, &mut |rule| broken.push(rule));
        broken.into_iter().for_each(|rule| self.broke(rule, kind));
        if !passes {
            return Sifted::Discard(Reason::Refused);
        }
        let Some((name, hash)) = series(record, &mut self.buffer) else { return Sifted::Keep };
        if self.series.admit(name, hash, self.config.max_series) {
            return Sifted::Keep;
        }
        self.broke(Rule::TooManySeries, kind);
        match &mut record.signal {
            Signal::Interval(interval) => {
                interval.digest = self.other.clone();
                (interval.pace, interval.maintenance) = (None, false);
                *renamed = true;
                Sifted::Keep
            }
            _ => Sifted::Discard(Reason::Refused),
        }
    }

    /// Tells what happened often.
    fn look(&mut self, now: Timestamp, effects: &mut Effects) {
        let looked = *self.looked.get_or_insert(now);
        if now.since(looked) < *self.config.reporting_interval {
            return;
        }
        self.looked = Some(now);
        let recent = std::mem::take(&mut self.recent);
        for rule in Rule::ALL {
            let count = recent[rule as usize];
            let silent =
                self.told[rule as usize].is_none_or(|told| now.since(told) >= *self.config.error_suppression_duration);
            if count >= self.config.alert_threshold.max(1) && silent {
                self.told[rule as usize] = Some(now);
                effects.alert(rule.name(), Severity::Medium, count as f64, self.config.alert_threshold as f64);
            }
        }
        let most = self.series.by_metric.values().map(HyperLogLog::count).max().unwrap_or(0);
        let rule = Rule::TooManySeries as usize;
        let silent = self.told[rule].is_none_or(|told| now.since(told) >= *self.config.error_suppression_duration);
        if most >= self.config.cardinality_warning_threshold.max(1) && silent {
            self.told[rule] = Some(now);
            let threshold = self.config.cardinality_warning_threshold as f64;
            effects.alert("series", Severity::Medium, most as f64, threshold);
        }
    }
}

impl Series {
    fn day(&mut self, unix_nanos: i64) {
        let day = unix_nanos.div_euclid(DAY);
        if day != self.day {
            *self = Series { day, ..Series::default() };
        }
    }

    /// Counts a series; whether the metric has room for it today.
    fn admit(&mut self, metric: &str, hash: u64, limit: u64) -> bool {
        if self.known.contains(&hash) {
            return true;
        }
        if !self.by_metric.contains_key(metric) {
            if self.by_metric.len() >= MAX_METRICS {
                return false;
            }
            self.by_metric.insert(metric.to_owned(), HyperLogLog::default());
        }
        let Some(sketch) = self.by_metric.get_mut(metric) else { return false };
        if self.exhausted || sketch.count() as f64 >= limit as f64 * MARGIN {
            return false;
        }
        sketch.insert(hash);
        if self.known.len() < MAX_KNOWN {
            self.known.insert(hash);
        }
        true
    }
}

/// The metric and the identity of the series that a record is a point of.
fn series(record: &Record, buffer: &mut Vec<u8>) -> Option<(&'static str, u64)> {
    let origin = &record.origin;
    let metric = match &record.signal {
        Signal::Interval(_) => metric::SERVER_OPERATION_DURATION.name,
        Signal::Fact(fact) => fact.metric.name,
        _ => return None,
    };
    buffer.clear();
    buffer.extend_from_slice(origin.instance.service_instance_id.as_bytes());
    // No text holds this byte: they are UTF-8.
    let mut text = |text: &str| {
        buffer.extend_from_slice(text.as_bytes());
        buffer.push(0xff);
    };
    text(metric);
    match &record.signal {
        Signal::Interval(interval) => {
            text(origin.database.as_deref().unwrap_or_default());
            text(origin.user.as_deref().unwrap_or_default());
            buffer.extend_from_slice(&interval.digest.fingerprint.to_le_bytes());
        }
        Signal::Fact(fact) => fact.attributes.iter().for_each(|(name, value)| {
            text(name);
            text(value);
        }),
        _ => {}
    }
    Some((metric, XxHash3_64::oneshot(buffer)))
}

impl Processor for ErrorMonitor {
    fn stage(&self) -> Stage {
        Stage::ErrorMonitor
    }

    fn process(&mut self, now: Timestamp, batch: &mut Batch, effects: &mut Effects) {
        if !self.config.enabled {
            return;
        }
        self.series.day(batch.clock().unix_nanos(now));
        let mut renamed = false;
        batch.sift(|record| self.judge(now, record, &mut renamed));
        if renamed {
            merge::equal_series(batch);
        }
        self.look(now, effects);
    }

    fn measure(&self, measures: &mut Measures) {
        for ((rule, kind), count) in &self.mends {
            let labels = vec![(a::RULE, rule.name().into()), (a::SIGNAL, kind.name().into())];
            measures.tell_with(&m::NEWRELIC_MENDS, labels, *count as f64);
        }
        for (class, count) in CLASSES.into_iter().zip(self.receiver.counts) {
            measures.tell_by(&m::NEWRELIC_ANSWERS, a::REASON, class, count as f64);
        }
        measures.tell(&m::NEWRELIC_REJECTED, self.receiver.rejected as f64);
        measures.tell(&m::NEWRELIC_STOPPED, f64::from(u8::from(self.receiver.stopped)));
        for (metric, sketch) in &self.series.by_metric {
            measures.tell_by(&m::NEWRELIC_SERIES, a::METRIC, metric.clone(), sketch.count() as f64);
        }
    }

    fn export_state(&self, _moment: Moment) -> Option<Result<Value, StateError>> {
        state::export(Stage::ErrorMonitor, &self.series)
    }

    fn import_state(&mut self, _moment: Moment, state: Value) -> Result<(), StateError> {
        self.series = state::import(Stage::ErrorMonitor, state)?;
        Ok(())
    }
}
