//! The adaptive sampler: which executions and plans are shown as examples. Statistics never pass through a choice.
//!
//! Always kept are failures, executions of a statement that was never seen, that changed its plan or became slower, those that others waited for, and those
//! slower than 99 % of their statement's. Of the rest, rules say which share is kept, and a controller which part of all these shares meets the
//! target in each batch. What each that is kept stands for is its weight, one over the chance that it had. Where a rate limit leaves one out, its weight goes to the next
//! that is kept of the same statement. So the sum of weights estimates the number of executions without bias.

pub mod config;
mod controller;
mod rules;
mod statements;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use twox_hash::XxHash3_64;
use uuid::Uuid;

pub use config::{Config, Deduplication};
pub use controller::Room;
pub use rules::{Attribute, Condition, Operator, Rule, Value as RuleValue};

use super::{
    Effect, Effects, Field, Io, Measures, Processor, Stage, StateError,
    bounded::Bounded,
    bucket::TokenBucket,
    state::{self, Moment},
};
use crate::model::{
    Batch, Ending, Record, Signal, Timestamp,
    names::{attribute as a, processor_metric as m},
    signal::{Cause, Execution, Plan, PlanId, Reason, Sifted},
};
use controller::Controller;
use statements::Known;

/// What it reads and writes.
pub const IO: Io = Io {
    reads: &[Field::Admitted, Field::CleanText, Field::PlanIdentity, Field::Regression, Field::Situation],
    writes: &[Field::Weight],
};

/// A batch brings what came in at most so long a time.
const LONGEST_BATCH: Duration = Duration::from_secs(10);

/// A statement of a server.
type Key = (Uuid, u64);

/// The processor.
#[derive(Debug)]
pub struct Sampler {
    config: Config,
    /// By falling priority.
    rules: Vec<ActiveRule>,
    /// For what no rule speaks of.
    fallback: ActiveRule,
    statements: Bounded<Key, Known>,
    plans: Bounded<(Uuid, u64, PlanId), Shown>,
    controller: Controller,
    ceiling: TokenBucket,
    last: Timestamp,
    /// Names of the causes for which executions are always kept.
    causes: [Arc<str>; 7],
    counts: Counts,
    /// What is to be done with each record of the batch.
    classes: Vec<Class>,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug)]
enum Class {
    /// It is no execution, and this becomes of it.
    Settled(Sifted),
    /// It is kept whatever the rate.
    Always(Cause),
    /// It is there by chance; the index of the rule that fits, or none.
    Chance(Option<usize>),
}

#[derive(Debug)]
struct ActiveRule {
    rule: Rule,
    limit: Option<TokenBucket>,
    matches: u64,
}

/// A plan that was shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    at: Timestamp,
    /// Equal ones that were left out since then.
    suppressed: u64,
}

#[derive(Debug, Default)]
struct Counts {
    executions: u64,
    kept: u64,
    by_cause: [u64; 7],
    plan_hits: u64,
    plans: u64,
    weight_lost: f64,
}

/// What is remembered over a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Part of every share that was kept.
    scale: f64,
    /// Server, fingerprint and 99th percentile in nanoseconds of each statement, what was seen last first.
    statements: Vec<(Uuid, u64, Option<u64>)>,
    /// Server, fingerprint, plan and Unix time in nanoseconds of each plan that was shown, the last first.
    plans: Vec<(Uuid, u64, PlanId, i64)>,
}

impl Sampler {
    /// `kernel_one_in`: of so many executions the kernel shows one as configured; 0 for none.
    pub fn new(config: Config, kernel_one_in: u32) -> Sampler {
        let active = |rule: &Rule| ActiveRule {
            limit: (rule.max_per_minute > 0).then(|| {
                let most = f64::from(rule.max_per_minute);
                TokenBucket::new(most / 60.0, most, Timestamp::default())
            }),
            rule: rule.clone(),
            matches: 0,
        };
        let mut rules: Vec<ActiveRule> = config.rules.iter().map(active).collect();
        rules.sort_by_key(|active| std::cmp::Reverse(active.rule.priority));
        let fallback = Rule {
            name: Cause::Chance.rule().into(),
            priority: i32::MIN,
            sample_rate: config.default_sample_rate,
            max_per_minute: 0,
            conditions: Vec::new(),
        };
        let target = f64::from(config.target_records_per_second);
        let most = f64::from(config.max_records_per_second);
        let causes = [
            Cause::Chance,
            Cause::Slow,
            Cause::New,
            Cause::Blocker,
            Cause::Regression,
            Cause::PlanChange,
            Cause::Error,
        ];
        Sampler {
            rules,
            fallback: active(&fallback),
            statements: Bounded::new(config.max_statements),
            plans: Bounded::new(config.deduplication.cache_size),
            controller: Controller::new(target, config.min_sample_rate, kernel_one_in),
            ceiling: TokenBucket::new(most, most, Timestamp::default()),
            last: Timestamp::default(),
            causes: causes.map(|cause| cause.rule().into()),
            counts: Counts::default(),
            classes: Vec::new(),
            config,
        }
    }

    /// How much can be sent, as the export and the budget see it.
    pub fn room(&mut self, room: Room) {
        self.controller.room(room);
    }

    /// Part of every rule's share that is kept now, from 0 to 1.
    pub fn scale(&self) -> f64 {
        self.controller.scale()
    }

    /// What is to be done with a record; takes up what it tells of its statement.
    fn classify(&mut self, now: Timestamp, record: &mut Record) -> Class {
        let instance = record.origin.instance.service_instance_id;
        match &mut record.signal {
            Signal::Interval(interval) => {
                self.statement((instance, interval.digest.fingerprint)).learn(interval);
                Class::Settled(Sifted::Keep)
            }
            Signal::Plan(plan) => Class::Settled(self.judge_plan(now, instance, plan)),
            Signal::Execution(_) => self.classify_execution(instance, record),
            Signal::Activity(_) | Signal::Blocking(_) | Signal::Fact(_) | Signal::Finding(_) => {
                Class::Settled(Sifted::Keep)
            }
        }
    }

    fn statement(&mut self, key: Key) -> &mut Known {
        let lost = &mut self.counts.weight_lost;
        self.statements.at(key, Known::default, |forgotten| *lost += forgotten.carried)
    }

    fn judge_plan(&mut self, now: Timestamp, instance: Uuid, plan: &mut Plan) -> Sifted {
        let fingerprint = plan.digest.fingerprint;
        if let Some(facts) = &plan.facts {
            self.statement((instance, fingerprint)).learn_plan(facts);
        }
        let Some(id) = plan.id.filter(|_| self.config.deduplication.enabled) else { return Sifted::Keep };
        self.counts.plans += 1;
        let window = *self.config.deduplication.window;
        let mut new = false;
        let make = || {
            new = true;
            Shown { at: now, suppressed: 0 }
        };
        let shown = self.plans.at((instance, fingerprint, id), make, drop);
        if !new && plan.change.is_none() && now.since(shown.at) < window {
            shown.suppressed += 1;
            self.counts.plan_hits += 1;
            return Sifted::Discard(Reason::Duplicate);
        }
        plan.sampling.weight += shown.suppressed as f64;
        *shown = Shown { at: now, suppressed: 0 };
        Sifted::Keep
    }

    fn classify_execution(&mut self, instance: Uuid, record: &Record) -> Class {
        self.counts.executions += 1;
        let Signal::Execution(execution) = &record.signal else { return Class::Settled(Sifted::Keep) };
        let lost = &mut self.counts.weight_lost;
        let key = (instance, execution.digest.fingerprint);
        let known = self.statements.at(key, Known::default, |forgotten| *lost += forgotten.carried);
        let cause = cause(execution, known);
        known.shown = true;
        self.counts.by_cause[cause as usize] += 1;
        if cause != Cause::Chance {
            return Class::Always(cause);
        }
        let rule = self.rules.iter().position(|active| active.rule.fits(record, execution, known));
        Class::Chance(rule)
    }

    fn rule(&mut self, at: Option<usize>) -> &mut ActiveRule {
        at.and_then(|at| self.rules.get_mut(at)).unwrap_or(&mut self.fallback)
    }

    /// Finds the part of all shares for the batch that was classified.
    fn begin(&mut self, passed: Duration) {
        let (mut always, mut chance, mut base) = (0, 0, 0.0);
        for class in &self.classes {
            match class {
                Class::Settled(_) => {}
                Class::Always(_) => always += 1,
                Class::Chance(rule) => {
                    let rule = rule.and_then(|at| self.rules.get(at)).unwrap_or(&self.fallback);
                    chance += 1;
                    base += rule.rule.sample_rate;
                }
            }
        }
        self.controller.begin(passed, always, chance, base);
    }

    /// Whether an execution is kept, and what it then stands for.
    fn judge(&mut self, now: Timestamp, record: &mut Record, class: Class) -> Sifted {
        let instance = record.origin.instance.service_instance_id;
        let at = record.at;
        let (Signal::Execution(execution), false) = (&mut record.signal, matches!(class, Class::Settled(_))) else {
            return if let Class::Settled(settled) = class { settled } else { Sifted::Keep };
        };
        let fingerprint = execution.digest.fingerprint;
        let key = (instance, fingerprint);
        let (kept, chance, rule) = match class {
            Class::Chance(rule) => {
                // A rule that wants all of them gets all that the target leaves room for, as any other.
                let scale = self.controller.scale();
                let window = at.0 / u64::try_from(self.config.window.as_nanos()).unwrap_or(u64::MAX).max(1);
                let draw = self.statement(key).draw(window, || hash(fingerprint, window));
                let rule = self.rule(rule);
                rule.matches += 1;
                let chance = (rule.rule.sample_rate * scale).min(1.0);
                if draw >= chance {
                    return Sifted::Discard(Reason::Sampled);
                }
                let within = rule.limit.as_mut().is_none_or(|limit| limit.take(now));
                let name = rule.rule.name.clone();
                (within && self.ceiling.take(now), chance, name)
            }
            Class::Always(cause) => (self.ceiling.take(now), 1.0, self.causes[cause as usize].clone()),
            Class::Settled(settled) => return settled,
        };
        let weight = execution.sampling.weight / chance;
        let known = self.statement(key);
        if !kept {
            known.carried += weight;
            return Sifted::Discard(Reason::RateLimited);
        }
        execution.sampling.weight = weight + std::mem::take(&mut known.carried);
        execution.sampling.rule = Some(rule);
        self.controller.kept();
        self.counts.kept += 1;
        Sifted::Keep
    }

    /// What has to survive a restart.
    pub fn export(&self, moment: Moment) -> State {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let statements = self.statements.iter();
        let plans = self.plans.iter();
        State {
            scale: self.controller.scale(),
            statements: statements.map(|((server, print), known)| (*server, *print, known.p99().map(nanos))).collect(),
            plans: plans.map(|((server, print, id), shown)| (*server, *print, *id, moment.keep(shown.at))).collect(),
        }
    }

    /// Takes up what was exported.
    pub fn import(&mut self, moment: Moment, state: State) {
        self.controller.restore(state.scale);
        for (server, print, p99) in state.statements.into_iter().take(self.config.max_statements).rev() {
            self.statements.at((server, print), || Known::restored(p99.map(Duration::from_nanos)), drop);
        }
        for (server, print, id, at) in state.plans.into_iter().take(self.config.deduplication.cache_size).rev() {
            // What a clock that was set back puts into the future was shown now.
            let at = moment.restore(at).min(moment.now);
            self.plans.at((server, print, id), || Shown { at, suppressed: 0 }, drop);
        }
    }
}

/// Why an execution is always kept.
fn cause(execution: &Execution, known: &Known) -> Cause {
    match execution.ending {
        Ending::Failed(_) | Ending::Incomplete => Cause::Error,
        Ending::Ok if execution.seen.plan_change => Cause::PlanChange,
        Ending::Ok if execution.seen.regression => Cause::Regression,
        Ending::Ok if execution.seen.blocker => Cause::Blocker,
        Ending::Ok if !known.shown => Cause::New,
        Ending::Ok if known.p99().is_some_and(|p99| execution.duration > p99) => Cause::Slow,
        Ending::Ok => Cause::Chance,
    }
}

/// Where the choices of a statement begin in a window: the same for every agent, so no key and no server in it.
fn hash(fingerprint: u64, window: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&fingerprint.to_le_bytes());
    bytes[8..].copy_from_slice(&window.to_le_bytes());
    XxHash3_64::oneshot(&bytes)
}

impl Processor for Sampler {
    fn stage(&self) -> Stage {
        Stage::AdaptiveSampler
    }

    fn process(&mut self, now: Timestamp, batch: &mut Batch, effects: &mut Effects) {
        if let Some(one_in) = self.controller.tick(now) {
            effects.push(Effect::ShowOneIn(one_in));
        }
        let passed = now.since(self.last).min(LONGEST_BATCH);
        self.last = now;
        let mut classes = std::mem::take(&mut self.classes);
        classes.clear();
        classes.extend(batch.records_mut().iter_mut().map(|record| self.classify(now, record)));
        self.classes = classes;
        self.begin(passed);
        let mut at = 0;
        batch.sift(|record| {
            let class = self.classes[at];
            at += 1;
            self.judge(now, record, class)
        });
        self.controller.end();
    }

    fn measure(&self, measures: &mut Measures) {
        let counts = &self.counts;
        measures.tell(&m::SAMPLER_EXECUTIONS, counts.executions as f64);
        measures.tell(&m::SAMPLER_KEPT, counts.kept as f64);
        measures.tell(&m::SAMPLER_TARGET, self.controller.target());
        measures.tell(&m::SAMPLER_WEIGHT_LOST, counts.weight_lost);
        measures.tell(&m::SAMPLER_KERNEL_ONE_IN, f64::from(self.controller.one_in()));
        let hits = if counts.plans == 0 { 0.0 } else { counts.plan_hits as f64 / counts.plans as f64 };
        measures.tell(&m::SAMPLER_CACHE_HIT_RATE, hits);
        for (cache, len, evicted) in [
            ("plans", self.plans.len(), self.plans.evicted()),
            ("statements", self.statements.len(), self.statements.evicted()),
        ] {
            measures.tell_by(&m::SAMPLER_CACHE_SIZE, a::CACHE, cache, len as f64);
            measures.tell_by(&m::SAMPLER_CACHE_EVICTIONS, a::CACHE, cache, evicted as f64);
        }
        for active in self.rules.iter().chain([&self.fallback]) {
            let name = active.rule.name.to_string();
            let rate = active.rule.sample_rate * self.controller.scale();
            measures.tell_by(&m::SAMPLER_RULE_MATCHES, a::SAMPLING_RULE, name.clone(), active.matches as f64);
            measures.tell_by(&m::SAMPLER_RATE, a::SAMPLING_RULE, name, rate);
        }
        for (cause, count) in self.causes.iter().zip(counts.by_cause).skip(1) {
            measures.tell_by(&m::SAMPLER_RULE_MATCHES, a::SAMPLING_RULE, cause.to_string(), count as f64);
        }
    }

    fn export_state(&self, moment: Moment) -> Option<Result<Value, StateError>> {
        state::export(Stage::AdaptiveSampler, &self.export(moment))
    }

    fn import_state(&mut self, moment: Moment, state: Value) -> Result<(), StateError> {
        let state = state::import(Stage::AdaptiveSampler, state)?;
        self.import(moment, state);
        Ok(())
    }
}
