//! What is remembered of a statement's plans and speed, and when it counts as slower.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    config::{Config, Regression},
    welch::{Comparison, Moments},
};
use crate::{
    model::{
        Histogram, Timestamp,
        signal::{Change, PlanId, Topic},
    },
    processors::state::Moment,
};

/// A plan must have been the statement's for so long before going back to a known one is a change: some statements have two plans in turn.
const SETTLED: Duration = Duration::from_secs(600);
/// Executions that are marked after a change or a regression, so that examples of it are kept.
const MARKED: u8 = 3;
/// If the fast executions have moved by less than this part of what the mean has moved (both as logarithms), the statement is slower for some parameters only: a
/// slowdown of all executions moves both alike.
const UNMOVED: f64 = 0.5;
/// Where the fast executions end.
const FAST: f64 = 0.1;
/// How much a new quantile counts beside the one so far.
const WEIGHT: f64 = 0.3;

/// What one plan did.
#[derive(Clone, Debug, Default)]
struct PlanHistory {
    id: Option<PlanId>,
    last_seen: Timestamp,
    speed: Speed,
}

/// How fast a statement was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Speed {
    moments: Moments,
    /// Logarithm of the duration at which the fast executions end.
    fast: f64,
}

impl Speed {
    fn of(histogram: &Histogram) -> Speed {
        let (mean, squares) = histogram.log_moments().unwrap_or_default();
        let fast = histogram.quantile(FAST).as_secs_f64().max(1e-9).ln();
        Speed { moments: Moments { count: histogram.count() as f64, mean, squares }, fast }
    }

    fn merge(&mut self, other: Speed) {
        let weight = if self.moments.count == 0.0 { 1.0 } else { WEIGHT };
        self.fast += weight * (other.fast - self.fast);
        self.moments.merge(other.moments);
        self.moments.fade();
    }
}

/// A statement of a server.
#[derive(Debug, Default)]
pub(super) struct Statement {
    /// What was used last is last. Speed before any plan is known stands under none.
    plans: Vec<PlanHistory>,
    /// Since when the latest plan is the statement's.
    since: Timestamp,
    /// Executions since the latest comparison.
    window: Histogram,
    /// The window before, if it was suspicious.
    suspicious: Option<Histogram>,
    /// With what the windows after a change of plan are compared.
    before_change: Option<Speed>,
    mark_change: u8,
    mark_regression: u8,
    /// When each recommendation was last made.
    advised: Vec<(Topic, Timestamp)>,
}

/// A change of speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shift {
    pub(super) topic: Topic,
    /// Ratio to before, in the geometric mean.
    pub(super) ratio: f64,
    pub(super) confidence: f64,
    /// Executions on either side.
    pub(super) samples: (u64, u64),
    pub(super) plan: Option<PlanId>,
    pub(super) previous: Option<PlanId>,
}

/// The form that is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Identity, Unix time in nanoseconds when it was last seen, speed; the latest last.
    plans: Vec<(Option<PlanId>, i64, Speed)>,
}

impl Statement {
    /// A plan was seen; how it differs from the one before.
    pub(super) fn saw(&mut self, now: Timestamp, id: PlanId, config: &Config) -> Option<Change> {
        let retention = *config.plan_history;
        if self.current() == Some(id) {
            if let Some(current) = self.plans.last_mut() {
                current.last_seen = now;
            }
            return None;
        }
        let current = self.plans.last().map(|plan| (plan.id, plan.speed));
        let known = self.plans.iter().position(|plan| plan.id == Some(id) && now.since(plan.last_seen) <= retention);
        let settled = now.since(self.since) >= SETTLED;
        self.plans.retain(|plan| now.since(plan.last_seen) <= retention || Some(plan.id) == current.map(|(id, _)| id));
        match known.and_then(|_| self.plans.iter().position(|plan| plan.id == Some(id))) {
            Some(at) => {
                let mut plan = self.plans.remove(at);
                plan.last_seen = now;
                self.plans.push(plan);
            }
            None => {
                // The first plan that is known is the one that was there before any was known.
                match self.plans.last_mut().filter(|plan| plan.id.is_none()) {
                    Some(unknown) => (unknown.id, unknown.last_seen) = (Some(id), now),
                    None => self.plans.push(PlanHistory { id: Some(id), last_seen: now, speed: Speed::default() }),
                }
                if self.plans.len() > config.max_plans_per_query {
                    self.plans.remove(0);
                }
            }
        }
        self.since = now;
        let (previous, speed) = current.and_then(|(previous, speed)| Some((previous?, speed)))?;
        // What was executed from here on is the new plan's; the interval that the change fell into is mixed, which only makes the comparison harder.
        self.window = Histogram::default();
        self.suspicious = None;
        if known.is_some() && !settled {
            return None;
        }
        self.before_change = Some(speed);
        self.mark_change = MARKED;
        Some(Change { previous })
    }

    /// The plan that it runs with, as far as is known.
    pub(super) fn current(&self) -> Option<PlanId> {
        self.plans.last().and_then(|plan| plan.id)
    }

    /// Takes up exact statistics; whether it has become slower or faster.
    pub(super) fn learn(&mut self, now: Timestamp, durations: &Histogram, config: &Regression) -> Option<Shift> {
        if !config.enabled || durations.count() == 0 {
            return None;
        }
        if self.plans.is_empty() {
            self.plans.push(PlanHistory { id: None, last_seen: now, speed: Speed::default() });
            self.since = now;
        }
        self.window.merge(durations);
        if self.window.count() < config.min_samples {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        let new = Speed::of(&window);
        let plan = self.plans.last_mut()?;
        let own = plan.speed;
        let base = self.before_change.unwrap_or(own);
        if base.moments.count < config.min_samples as f64 {
            plan.speed.merge(new);
            return None;
        }
        let comparison = new.moments.against(&base.moments);
        let slower = comparison.ratio >= config.time_increase && comparison.confidence >= config.confidence;
        let faster = comparison.ratio * config.time_increase <= 1.0 && 1.0 - comparison.confidence >= config.confidence;
        if !slower && !faster {
            // Once may be chance; and after a change of plan, the new plan is no worse.
            if let Some(suspicious) = self.suspicious.take() {
                plan.speed.merge(Speed::of(&suspicious));
            }
            plan.speed.merge(new);
            self.before_change = None;
            return None;
        }
        let Some(mut first) = self.suspicious.take() else {
            self.suspicious = Some(window);
            return None;
        };
        // Twice in a row, and in the same direction.
        let before = Speed::of(&first).moments.against(&base.moments);
        if (before.ratio > 1.0) != slower {
            self.suspicious = Some(window);
            return None;
        }
        first.merge(&window);
        let new = Speed::of(&first);
        let previous = self.before_change.take();
        let changed = previous.is_some();
        let comparison = new.moments.against(&base.moments);
        // From now on this is how fast it is.
        plan.speed = new;
        let plan = plan.id;
        let topic = match (slower, changed) {
            (false, _) => Topic::Improvement,
            (true, true) => Topic::PlanRegression,
            (true, false) if new.fast - base.fast < UNMOVED * comparison.ratio.ln() => Topic::ParameterSkew,
            (true, false) => Topic::SamePlanSlower,
        };
        if topic.is_regression() {
            self.mark_regression = MARKED;
        }
        Some(self.shift(topic, comparison, base, new, plan, changed))
    }

    fn shift(
        &self,
        topic: Topic,
        comparison: Comparison,
        base: Speed,
        new: Speed,
        plan: Option<PlanId>,
        changed: bool,
    ) -> Shift {
        let before = self.plans.iter().rev().nth(1).and_then(|plan| plan.id);
        let confidence = if topic == Topic::Improvement { 1.0 - comparison.confidence } else { comparison.confidence };
        Shift {
            topic,
            ratio: comparison.ratio,
            confidence,
            samples: (base.moments.count as u64, new.moments.count as u64),
            plan,
            previous: before.filter(|_| changed),
        }
    }

    /// Whether an execution that is seen now is an example of a change, and of a regression.
    pub(super) fn marks(&mut self) -> (bool, bool) {
        let marks = (self.mark_change > 0, self.mark_regression > 0);
        self.mark_change = self.mark_change.saturating_sub(1);
        self.mark_regression = self.mark_regression.saturating_sub(1);
        marks
    }

    /// Whether a recommendation may be made now.
    pub(super) fn may_advise(&mut self, now: Timestamp, topic: Topic, interval: Duration) -> bool {
        match self.advised.iter_mut().find(|(known, _)| *known == topic) {
            Some((_, last)) if now.since(*last) < interval => return false,
            Some((_, last)) => *last = now,
            None => self.advised.push((topic, now)),
        }
        true
    }

    pub(super) fn keep(&self, moment: Moment) -> Kept {
        Kept { plans: self.plans.iter().map(|plan| (plan.id, moment.keep(plan.last_seen), plan.speed)).collect() }
    }

    pub(super) fn restore(kept: Kept, moment: Moment, config: &Config) -> Statement {
        let most = config.max_plans_per_query;
        let skipped = kept.plans.len().saturating_sub(most);
        let plans = kept.plans.into_iter().skip(skipped).map(|(id, last_seen, speed)| {
            let last_seen = moment.restore(last_seen).min(moment.now);
            PlanHistory { id, last_seen, speed }
        });
        Statement { plans: plans.collect(), since: moment.now, ..Statement::default() }
    }
}
