//! Verification: nothing private passes, nothing that cannot be true passes, and what is odd about the data is told - at most once a minute and category, beside
//! the data and never through it.

mod cardinality;
pub mod config;
mod healing;
mod quality;
#[cfg(test)]
mod tests;
mod tuning;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use uuid::Uuid;

pub use config::{Config, Issue};
pub use tuning::{Entry, Fate, Parameter};

use super::{
    Category, Effects, Feedback, Field, Io, Level, Measures, Processor, Stage, StateError,
    bounded::Bounded,
    effects::FeedbackLimit,
    privacy::{self, Verdict},
    state::{self, Moment},
};
use crate::model::{
    Batch, Instance, Record, Signal, Timestamp,
    names::{attribute as a, processor_metric as m},
    signal::{Circuit, Reason, Sifted, TextMut},
};
use cardinality::Cardinality;
use healing::Healer;
use quality::Defect;
use tuning::Tuner;

/// What it reads and writes.
pub const IO: Io = Io { reads: &[Field::Admitted, Field::Circuit], writes: &[Field::CleanText] };

/// Servers whose latest record is remembered.
const MAX_INSTANCES: usize = 1024;
/// Records from which a share is taken.
const ENOUGH: u64 = 100;
/// From this part of a limit on, distinct values are worth a feedback.
const NEAR: f64 = 0.8;

/// How the agent itself is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Health {
    /// Of the memory that it may use.
    pub memory_percent: f64,
    /// Of one core.
    pub cpu_percent: f64,
    /// Of the disk of the spool.
    pub disk_percent: f64,
    /// The receiver refuses or does not answer.
    pub consumer_error: bool,
    /// Servers that cannot be reached.
    pub unreachable: u64,
}

/// The processor.
#[derive(Debug)]
pub struct Verification {
    config: Config,
    gate: privacy::Gate,
    cardinality: Cardinality,
    feedback: FeedbackLimit,
    tuner: Tuner,
    healer: Healer,
    health: Health,
    last_report: Option<Timestamp>,
    /// When the latest record of each server came, and whether its silence was told.
    seen: Bounded<Uuid, (Arc<Instance>, Timestamp, bool)>,
    window: Shares,
    failures: BTreeMap<&'static str, u64>,
    records: u64,
    score: f64,
}

/// What the shares are taken of, since the last report.
#[derive(Clone, Copy, Debug, Default)]
struct Shares {
    records: u64,
    /// Records whose database or user is known.
    correlated: u64,
    statements: u64,
    normalised: u64,
    /// Records without something that is required, and with something that cannot be.
    missing: u64,
    wrong: u64,
}

impl Verification {
    /// `random` is the key of hashes where the configuration has none.
    pub fn new(config: Config, random: &[u8]) -> Verification {
        Verification {
            gate: privacy::Gate::new(config.pii_detection.clone(), random),
            cardinality: Cardinality::default(),
            feedback: FeedbackLimit::new(*config.quality_rules.feedback_interval),
            tuner: Tuner::new(config.auto_tuning.clone()),
            healer: Healer::new(config.self_healing.clone()),
            health: Health::default(),
            last_report: None,
            seen: Bounded::new(MAX_INSTANCES),
            window: Shares::default(),
            failures: BTreeMap::new(),
            records: 0,
            score: 1.0,
            config,
        }
    }

    /// Takes up how the agent is.
    pub fn health(&mut self, health: Health) {
        self.health = health;
    }

    /// Says which parameter may be tuned.
    pub fn tunable(&mut self, parameter: Parameter) {
        self.tuner.register(parameter);
    }

    /// How much strain a parameter is under now: more than 1 is too much.
    pub fn strain(&mut self, parameter: &str, strain: f64) {
        self.tuner.observe(parameter, strain);
    }

    /// What was tuned, oldest first.
    pub fn journal(&self) -> impl Iterator<Item = &Entry> {
        self.tuner.journal()
    }

    fn judge(&mut self, now: Timestamp, record: &mut Record, effects: &mut Effects) -> Sifted {
        self.records += 1;
        self.window.records += 1;
        if let Some(defect) = quality::defect(record, now, *self.config.quality_rules.data_freshness_threshold) {
            self.defective(now, record, defect, effects);
            return Sifted::Discard(defect.reason());
        }
        self.window.correlated += u64::from(record.origin.database.is_some() || record.origin.user.is_some());
        if let Signal::Interval(interval) = &record.signal {
            self.window.statements += 1;
            self.window.normalised += u64::from(quality::is_normalised(&interval.digest));
        }
        self.saw(now, record);
        if record.circuit == Circuit::Open {
            self.tell(now, record, Category::CircuitBreaker, "circuit", 1.0, 0.0, effects);
        }
        if self.clean(now, record, effects) {
            self.cardinality.count(record);
            Sifted::Keep
        } else {
            Sifted::Discard(Reason::Private)
        }
    }

    fn saw(&mut self, now: Timestamp, record: &Record) {
        let instance = &record.origin.instance;
        let seen = self.seen.at(instance.service_instance_id, || (instance.clone(), now, false), drop);
        (seen.1, seen.2) = (now, false);
    }

    /// Makes all text of a record clean; whether the record may pass.
    fn clean(&mut self, now: Timestamp, record: &mut Record, effects: &mut Effects) -> bool {
        let (engine, exact) = (record.origin.instance.engine, matches!(record.signal, Signal::Interval(_)));
        let gate = &mut self.gate;
        let (mut passes, mut changed) = (true, None);
        record.texts(&mut |field, text| match text {
            TextMut::Text(text) => match gate.text(field, text) {
                Verdict::Clean => {}
                Verdict::Replace(clean) => {
                    *text = clean;
                    changed = Some(field);
                }
                Verdict::Drop => {
                    *text = "<redacted>".into();
                    changed = Some(field);
                    passes = exact;
                }
            },
            TextMut::Digest(digest) => match gate.digest(engine, digest) {
                Verdict::Clean => {}
                Verdict::Replace(clean) => {
                    *digest = clean;
                    changed = Some(field);
                }
                Verdict::Drop => {
                    *digest = Arc::new(privacy::withheld(digest));
                    changed = Some(field);
                    passes = exact;
                }
            },
        });
        if let Some(field) = changed {
            self.gate.count_sanitized();
            self.tell(now, record, Category::PiiDetection, field.name(), 1.0, 0.0, effects);
        }
        passes
    }

    fn defective(&mut self, now: Timestamp, record: &Record, defect: Defect, effects: &mut Effects) {
        let limit = self.config.quality_rules.data_freshness_threshold.as_secs_f64();
        match defect {
            Defect::NoEntity => {
                self.window.missing += 1;
                self.tell(now, record, Category::EntitySynthesis, "service.instance.id", 0.0, 1.0, effects);
            }
            Defect::Value(subject) => {
                self.window.wrong += 1;
                self.tell(now, record, Category::QualityValidation, subject, 1.0, 0.0, effects);
            }
            Defect::Future => {
                self.window.wrong += 1;
                let ahead = record.at.since(now).as_secs_f64();
                self.tell(now, record, Category::DataFreshness, "timestamp", -ahead, limit, effects);
            }
            Defect::Old => {
                self.window.wrong += 1;
                let age = now.since(record.at).as_secs_f64();
                self.tell(now, record, Category::DataFreshness, "timestamp", age, limit, effects);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a feedback")]
    fn tell(
        &mut self,
        now: Timestamp,
        record: &Record,
        category: Category,
        subject: &'static str,
        value: f64,
        limit: f64,
        effects: &mut Effects,
    ) {
        let instance = Some(record.origin.instance.clone());
        self.give(now, category, Level::Warning, instance, (subject, value, limit), effects);
    }

    fn give(
        &mut self,
        now: Timestamp,
        category: Category,
        level: Level,
        instance: Option<Arc<Instance>>,
        (subject, value, limit): (&'static str, f64, f64),
        effects: &mut Effects,
    ) {
        *self.failures.entry(category.name()).or_default() += u64::from(level > Level::Info);
        let remediation = remediation(category);
        let feedback = Feedback { category, level, instance, subject, value, limit, remediation, suppressed: 0 };
        self.feedback.give(now, feedback, effects);
    }

    /// What is looked at from time to time.
    fn report(&mut self, now: Timestamp, effects: &mut Effects) {
        let last = *self.last_report.get_or_insert(now);
        if now.since(last) < *self.config.quality_rules.verification_interval {
            return;
        }
        self.last_report = Some(now);
        let window = std::mem::take(&mut self.window);
        let share = |part: u64, of: u64| (of >= ENOUGH).then(|| part as f64 / of as f64);
        let quality = self.config.quality_rules.clone();
        if let Some(share) = share(window.correlated, window.records)
            && share < quality.min_entity_correlation_rate
        {
            let what = ("entity_correlation_rate", share, quality.min_entity_correlation_rate);
            self.give(now, Category::EntityCorrelation, Level::Warning, None, what, effects);
        }
        if let Some(share) = share(window.normalised, window.statements)
            && share < quality.min_normalization_rate
        {
            let what = ("normalization_rate", share, quality.min_normalization_rate);
            self.give(now, Category::SchemaValidation, Level::Warning, None, what, effects);
        }
        if window.records > 0 {
            let part = |count: u64| count as f64 / window.records as f64;
            self.score = 1.0 - 0.3 * part(window.missing) - 0.2 * part(window.wrong);
        }
        self.report_cardinality(now, effects);
        self.report_silence(now, effects);
        self.report_health(now, effects);
        let what = ("quality_score", self.score, 1.0);
        self.give(now, Category::HealthReport, Level::Info, None, what, effects);
    }

    fn report_cardinality(&mut self, now: Timestamp, effects: &mut Effects) {
        let numbers: Vec<_> = self.cardinality.numbers(&self.config.cardinality_limits).collect();
        for (_, dimension, number, limit) in numbers {
            let (value, most) = (number as f64, limit as f64);
            let what = (dimension.name(), value, most);
            if number > limit {
                self.give(now, Category::CardinalityLimit, Level::Error, None, what, effects);
            } else if value > most * NEAR {
                self.give(now, Category::CardinalityManagement, Level::Warning, None, what, effects);
            }
        }
    }

    fn report_silence(&mut self, now: Timestamp, effects: &mut Effects) {
        let limit = *self.config.quality_rules.data_freshness_threshold;
        let silent: Vec<_> = self
            .seen
            .values_mut()
            .filter(|(_, last, told)| !told && now.since(*last) > limit)
            .map(|(instance, last, told)| {
                *told = true;
                (instance.clone(), now.since(*last).as_secs_f64())
            })
            .collect();
        for (instance, silence) in silent {
            let what = ("last_record", silence, limit.as_secs_f64());
            self.give(now, Category::DataFreshness, Level::Warning, Some(instance), what, effects);
        }
    }

    fn report_health(&mut self, now: Timestamp, effects: &mut Effects) {
        let (health, thresholds) = (self.health, self.config.health_thresholds.clone());
        for what in [
            ("memory_percent", health.memory_percent, thresholds.memory_percent),
            ("cpu_percent", health.cpu_percent, thresholds.cpu_percent),
            ("disk_percent", health.disk_percent, thresholds.disk_percent),
        ] {
            if what.1 > what.2 {
                self.give(now, Category::SystemHealth, Level::Error, None, what, effects);
            }
        }
        if health.unreachable > 0 {
            let what = ("unreachable_servers", health.unreachable as f64, 0.0);
            self.give(now, Category::DatabaseConnectivity, Level::Error, None, what, effects);
        }
    }

    fn heal(&mut self, now: Timestamp, effects: &mut Effects) {
        let health = self.health;
        let short = health.memory_percent > self.config.health_thresholds.memory_percent;
        let before = self.healer.counts[0];
        self.healer.report(now, Issue::ConsumerError, health.consumer_error, effects);
        self.healer.report(now, Issue::HighMemory, short, effects);
        self.healer.report(now, Issue::DatabaseConnectivity, health.unreachable > 0, effects);
        let tried = self.healer.counts[0] - before;
        if tried > 0 {
            let what = ("remedies", tried as f64, f64::from(self.config.self_healing.max_retries));
            self.give(now, Category::SelfHealing, Level::Info, None, what, effects);
        }
    }

    fn tune(&mut self, now: Timestamp, effects: &mut Effects) {
        let before = self.tuner.journal().last().map(|entry| entry.at);
        self.tuner.tick(now, effects);
        let new = self.tuner.journal().last().filter(|entry| Some(entry.at) != before);
        if let Some(tuning) = new.map(|entry| entry.tuning.clone()) {
            let what = (tuning.parameter, tuning.to, tuning.from);
            self.give(now, Category::AutoTuning, Level::Info, None, what, effects);
        }
    }
}

/// What to do about it.
fn remediation(category: Category) -> &'static str {
    match category {
        Category::EntitySynthesis => "report this: each server that is discovered has an identity",
        Category::EntityCorrelation => {
            "restart the agent before the applications, or let them reconnect: sessions older than it have no names"
        }
        Category::CardinalityManagement | Category::CardinalityLimit => {
            "lower aggregate.max_statements, or look which application makes statements of its data"
        }
        Category::DataFreshness => "look at the server's wire state in `querylens discover`, and at the host's clock",
        Category::CircuitBreaker => "see the open circuits in the status; the server is watched on the wire meanwhile",
        Category::QualityValidation => "report this with the subject: the agent made a record that cannot be",
        Category::SchemaValidation => {
            "many statements are unknown or no SQL: restart the agent before the applications, or see what they send"
        }
        Category::PiiDetection => "see which names hold personal data: it was taken out before it left",
        Category::SystemHealth => {
            "give the agent more, or lower what it keeps: aggregate.max_statements, capture.ring_bytes"
        }
        Category::DatabaseConnectivity => "see the verdicts of `querylens discover --explain`",
        Category::AutoTuning => "see the journal in the status; auto_tuning.enable_auto_apply says whether it is done",
        Category::SelfHealing => "see whether it comes again",
        Category::HealthReport => "nothing",
    }
}

impl Processor for Verification {
    fn stage(&self) -> Stage {
        Stage::Verification
    }

    fn process(&mut self, now: Timestamp, batch: &mut Batch, effects: &mut Effects) {
        self.cardinality.day(batch.clock().unix_nanos(now));
        batch.sift(|record| self.judge(now, record, effects));
        self.report(now, effects);
        self.heal(now, effects);
        self.tune(now, effects);
    }

    fn measure(&self, measures: &mut Measures) {
        measures.tell(&m::VERIFICATION_RECORDS, self.records as f64);
        measures.tell(&m::VERIFICATION_QUALITY, self.score);
        measures.tell(&m::VERIFICATION_FEEDBACK_HELD_BACK, self.feedback.suppressed() as f64);
        for (category, count) in &self.failures {
            measures.tell_by(&m::VERIFICATION_FAILURES, a::FEEDBACK_CATEGORY, *category, *count as f64);
        }
        let found = self.gate.found();
        measures.tell(&m::PII_ANONYMIZED, found.sanitized as f64);
        for class in privacy::Class::ALL {
            let count = found.detected[class as usize] as f64;
            measures.tell_by(&m::PII_DETECTED, a::PII_CLASS, class.name(), count);
        }
        for (kind, dimension, number, _) in self.cardinality.numbers(&self.config.cardinality_limits) {
            let labels = vec![(a::SIGNAL, kind.name().into()), (a::DIMENSION, dimension.name().into())];
            measures.tell_with(&m::CARDINALITY, labels, number as f64);
        }
        for (result, count) in ["tried", "healed", "given_up"].into_iter().zip(self.healer.counts) {
            measures.tell_by(&m::HEALING, a::REASON, result, count as f64);
        }
    }

    fn export_state(&self, _moment: Moment) -> Option<Result<Value, StateError>> {
        state::export(Stage::Verification, &self.cardinality)
    }

    fn import_state(&mut self, _moment: Moment, state: Value) -> Result<(), StateError> {
        self.cardinality = state::import(Stage::Verification, state)?;
        Ok(())
    }
}
