//! The plan attribute extractor: reads plans of PostgreSQL, MySQL and MariaDB from any source. It takes the literals out, gives each plan an identity by its
//! structure, remembers which plans a statement had and how fast it was, and tells when that changed and what could be better.
//!
//! Whether a statement has become slower is decided on its exact statistics, which are complete, and not on examples, which are the odd ones. Three causes are
//! told apart: it has another plan; it has the same plan and all executions are slower; it has the same plan and only some are.
//! Severity is one scale for all, see [`Severity`].

mod advice;
pub mod config;
mod facts;
mod history;
mod mask;
mod mysql;
mod postgres;
#[cfg(test)]
mod tests;
mod tree;
mod welch;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use config::Config;

use super::{
    Effects, Field, Io, Measures, Processor, Stage, StateError,
    bounded::Bounded,
    privacy::{Gate, Verdict},
    state::{self, Moment},
};
use crate::{
    model::{
        Batch, Engine, Record, Signal, Timestamp,
        names::{attribute as a, processor_metric as m},
        signal::{Finding, Interval, Origin, Plan, PlanText, Reason, Severity, Sifted, TextField, Topic},
    },
    sql::Normaliser,
};
use advice::Advice;
use history::{Kept, Shift, Statement};
use mask::Masker;
use tree::Node;

/// What it reads and writes.
pub const IO: Io =
    Io { reads: &[Field::Admitted, Field::CleanText], writes: &[Field::PlanIdentity, Field::Regression] };

/// Longest plan without literals that is sent; of a longer one the attributes are.
const MAX_MASKED: usize = 64 * 1024;

/// The processor.
pub struct PlanExtractor {
    config: Config,
    normaliser: Normaliser,
    /// The second wall for what is made here.
    gate: Gate,
    statements: Bounded<(Uuid, u64), Statement>,
    /// Findings that wait to be put into the batch.
    findings: Vec<Record>,
    counts: Counts,
}

impl fmt::Debug for PlanExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanExtractor").field("statements", &self.statements.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counts {
    read: u64,
    unreadable: u64,
    withheld: u64,
    changes: u64,
    findings: std::collections::BTreeMap<&'static str, u64>,
}

/// What is remembered over a restart: server, fingerprint and history of each statement, what was seen last first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    statements: Vec<(Uuid, u64, Kept)>,
}

impl PlanExtractor {
    /// `gate` looks at what is made here.
    pub fn new(config: Config, gate: Gate) -> PlanExtractor {
        PlanExtractor {
            normaliser: Normaliser::default(),
            gate,
            statements: Bounded::new(config.max_statements),
            findings: Vec::new(),
            counts: Counts::default(),
            config,
        }
    }

    fn judge(&mut self, now: Timestamp, record: &mut Record) -> Sifted {
        let instance = record.origin.instance.service_instance_id;
        match &mut record.signal {
            Signal::Interval(interval) => {
                self.learn(now, instance, &record.origin, interval);
                Sifted::Keep
            }
            Signal::Execution(execution) => {
                if let Some(statement) = self.statements.get_mut(&(instance, execution.digest.fingerprint)) {
                    execution.plan = execution.plan.or(statement.current());
                    (execution.seen.plan_change, execution.seen.regression) = statement.marks();
                }
                Sifted::Keep
            }
            Signal::Plan(plan) => self.read(now, &record.origin, plan),
            Signal::Activity(_) | Signal::Blocking(_) | Signal::Fact(_) | Signal::Finding(_) => Sifted::Keep,
        }
    }

    fn learn(&mut self, now: Timestamp, instance: Uuid, origin: &Origin, interval: &Interval) {
        let key = (instance, interval.digest.fingerprint);
        let statement = self.statements.at(key, Statement::default, drop);
        let Some(shift) = statement.learn(now, &interval.stats.ok, &self.config.regression_detection) else { return };
        let finding = finding_of(shift, interval);
        self.find(now, origin, finding);
    }

    fn read(&mut self, now: Timestamp, origin: &Origin, plan: &mut Plan) -> Sifted {
        let engine = origin.instance.engine;
        // Only here is the text read; what is left of the record has no literals.
        let text = std::mem::take(&mut plan.text);
        let Some((top, masked)) = self.parse(engine, &text) else {
            self.counts.unreadable += 1;
            return Sifted::Discard(Reason::Unreadable);
        };
        self.counts.read += 1;
        let id = facts::identity(&top);
        let mut facts = facts::facts(&top);
        facts.operation = self.clean(&facts.operation);
        plan.id = Some(id);
        plan.facts = Some(facts);
        plan.masked = masked;
        let key = (origin.instance.service_instance_id, plan.digest.fingerprint);
        let statement = self.statements.at(key, Statement::default, drop);
        plan.change = statement.saw(now, id, &self.config);
        self.counts.changes += u64::from(plan.change.is_some());
        let rules = &self.config.recommendations;
        if !rules.enabled {
            return Sifted::Keep;
        }
        let advice = advice::advise(&top, rules).into_iter();
        let new: Vec<Advice> =
            advice.filter(|advice| statement.may_advise(now, advice.topic, *rules.interval)).collect();
        for Advice { topic, severity, objects, evidence } in new {
            let objects = objects.iter().map(|object| self.clean(object)).collect();
            let digest = Some(plan.digest.clone());
            self.find(now, origin, Finding { topic, severity, digest, plan: Some(id), objects, evidence });
        }
        Sifted::Keep
    }

    /// The tree, and the text without literals where that is wanted and short enough.
    fn parse(&mut self, engine: Engine, text: &PlanText) -> Option<(Node, Option<Arc<str>>)> {
        let raw = text.raw();
        if raw.len() > self.config.max_plan_bytes {
            return None;
        }
        let value: Value = serde_json::from_str(raw).ok()?;
        let mut masker = Masker { engine, normaliser: &mut self.normaliser };
        let top = match engine {
            Engine::Postgresql => postgres::parse(&value, &mut masker),
            Engine::Mysql | Engine::Mariadb => mysql::parse(&value, &mut masker),
        }?;
        if !self.config.plan_text {
            return Some((top, None));
        }
        let masked = masker.plan(&value).map(|masked| masked.to_string()).filter(|masked| masked.len() <= MAX_MASKED);
        self.counts.withheld += u64::from(masked.is_none());
        let masked = masked.map(|masked| self.clean(&Arc::from(masked)));
        Some((top, masked))
    }

    /// A text that was made here, past the second wall.
    fn clean(&mut self, text: &Arc<str>) -> Arc<str> {
        match self.gate.text(TextField::Plan, text) {
            Verdict::Clean => text.clone(),
            Verdict::Replace(clean) => clean,
            Verdict::Drop => "<redacted>".into(),
        }
    }

    fn find(&mut self, now: Timestamp, origin: &Origin, finding: Finding) {
        *self.counts.findings.entry(finding.topic.name()).or_default() += 1;
        self.findings.push(Record::new(now, origin.clone(), Signal::Finding(Box::new(finding))));
    }

    /// What has to survive a restart.
    pub fn export(&self, moment: Moment) -> State {
        let keep = |((instance, fingerprint), statement): (&(Uuid, u64), &Statement)| {
            (*instance, *fingerprint, statement.keep(moment))
        };
        State { statements: self.statements.iter().map(keep).collect() }
    }

    /// Takes up what was exported.
    pub fn import(&mut self, moment: Moment, state: State) {
        let config = &self.config;
        for (instance, fingerprint, kept) in state.statements.into_iter().take(config.max_statements).rev() {
            let restore = || Statement::restore(kept, moment, config);
            self.statements.at((instance, fingerprint), restore, drop);
        }
    }
}

fn finding_of(shift: Shift, interval: &Interval) -> Finding {
    let slower = if shift.topic == Topic::Improvement { 1.0 } else { shift.ratio };
    Finding {
        topic: shift.topic,
        severity: Severity::of_ratio(slower),
        digest: Some(interval.digest.clone()),
        plan: shift.plan,
        objects: shift.previous.map(|previous| previous.to_string().into()).into_iter().collect(),
        evidence: vec![
            ("time_ratio", shift.ratio),
            ("confidence", shift.confidence),
            ("executions_before", shift.samples.0 as f64),
            ("executions_after", shift.samples.1 as f64),
        ],
    }
}

impl Processor for PlanExtractor {
    fn stage(&self) -> Stage {
        Stage::PlanAttributes
    }

    fn process(&mut self, now: Timestamp, batch: &mut Batch, _effects: &mut Effects) {
        batch.sift(|record| self.judge(now, record));
        self.findings.drain(..).for_each(|finding| batch.push(finding));
    }

    fn measure(&self, measures: &mut Measures) {
        let counts = &self.counts;
        measures.tell(&m::PLANS_READ, counts.read as f64);
        measures.tell(&m::PLANS_UNREADABLE, counts.unreadable as f64);
        measures.tell(&m::PLANS_WITHHELD, counts.withheld as f64);
        measures.tell(&m::PLAN_CHANGES, counts.changes as f64);
        measures.tell(&m::PLAN_STATEMENTS, self.statements.len() as f64);
        measures.tell(&m::PLAN_EVICTIONS, self.statements.evicted() as f64);
        for (topic, count) in &counts.findings {
            measures.tell_by(&m::FINDINGS, a::TOPIC, *topic, *count as f64);
        }
    }

    fn export_state(&self, moment: Moment) -> Option<Result<Value, StateError>> {
        state::export(Stage::PlanAttributes, &self.export(moment))
    }

    fn import_state(&mut self, moment: Moment, state: Value) -> Result<(), StateError> {
        let state = state::import(Stage::PlanAttributes, state)?;
        self.import(moment, state);
        Ok(())
    }
}
