//! Cost control: keeps the volume of a calendar month within a budget. It counts bytes as the exporter encoded them, takes the receiver's own word where
//! it can be had, looks ahead, and leaves out more and more as the budget is used up - examples, then texts of plans, then attributes with many values. Statistics are
//! added up again when attributes go, so that totals stay exact and no series is there twice.

pub mod config;
mod ladder;
mod ledger;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use config::Config;
pub use ladder::Rung;

use super::{
    Effects, Field, Io, Measures, Processor, Stage, StateError, merge,
    state::{self, Moment},
};
use crate::model::{
    Batch, Digest, Ending, Record, Signal, Timestamp, WallClock,
    names::{attribute as a, processor_metric as m},
    signal::{Kind, Reason, Severity, Sifted},
};
use ladder::Ladder;
use ledger::{GIGABYTE, Ledger};

/// What it reads and writes.
pub const IO: Io = Io { reads: &[Field::Admitted, Field::CleanText, Field::Weight], writes: &[Field::Budgeted] };

/// The processor.
#[derive(Debug)]
pub struct CostControl {
    config: Config,
    zone: TimeZone,
    ledger: Ledger,
    ladder: Ladder,
    clock: WallClock,
    now: Timestamp,
    other: Arc<Digest>,
}

/// A server and a database of it.
type Place = (Uuid, Option<Arc<str>>);

/// What is remembered over a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    ledger: Ledger,
    rung: Rung,
}

/// Where the month stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Bytes so far.
    pub bytes: f64,
    /// US dollars so far.
    pub spent_usd: f64,
    /// US dollars that the month will come to; `None` while nothing can be said.
    pub forecast_usd: Option<f64>,
    /// What is left out.
    pub rung: Rung,
}

impl CostControl {
    /// Nothing sent yet. A time zone that is not known was refused by [`Config::check`]; here it is UTC.
    pub fn new(config: Config) -> CostControl {
        CostControl {
            zone: TimeZone::get(&config.time_zone).unwrap_or(TimeZone::UTC),
            ledger: Ledger::default(),
            ladder: Ladder::new(*config.hold),
            clock: WallClock::default(),
            now: Timestamp::default(),
            other: Arc::new(Digest::other()),
            config,
        }
    }

    /// The exporter has encoded so many bytes of one kind for one server.
    pub fn encoded(&mut self, moment: Moment, instance: Uuid, kind: Kind, bytes: u64) {
        if self.ledger.go_to(moment.keep(moment.now), &self.zone) {
            self.ladder.reset(moment.now);
        }
        self.ledger.add(instance, kind, bytes);
    }

    /// The receiver says how many gigabytes it has stored in this month.
    pub fn usage(&mut self, gigabytes: f64) {
        self.ledger.stored(gigabytes * GIGABYTE);
    }

    /// Where the month stands.
    pub fn budget(&self) -> Budget {
        let bytes = self.ledger.bytes();
        let forecast = self.ledger.forecast(self.clock.unix_nanos(self.now), &self.zone);
        Budget {
            bytes,
            spent_usd: self.cost(bytes),
            forecast_usd: forecast.map(|bytes| self.cost(bytes)),
            rung: self.ladder.rung(),
        }
    }

    /// Part of the examples that the sampler may keep.
    pub fn examples(&self) -> f64 {
        self.ladder.rung().examples()
    }

    /// In US dollars. The bill counts whole gigabytes; in between it is counted exactly here, so that a rung does not wait for the last one.
    fn cost(&self, bytes: f64) -> f64 {
        (bytes / GIGABYTE - self.config.free_gb).max(0.0) * self.config.price_per_gb
    }

    fn step(&mut self, now: Timestamp, effects: &mut Effects) {
        let budget = self.budget();
        let limit = self.config.monthly_budget_usd;
        let before = self.ladder.rung();
        let changed = self.ladder.step(now, budget.spent_usd / limit, budget.forecast_usd.map(|usd| usd / limit));
        if changed && self.ladder.rung() > before {
            let severity = match self.ladder.rung() {
                Rung::Full | Rung::FewerExamples => Severity::Low,
                Rung::NoPlanTexts => Severity::Medium,
                Rung::FewerAttributes => Severity::High,
                Rung::TotalsOnly => Severity::Critical,
            };
            effects.alert("budget", severity, budget.spent_usd, limit);
        }
    }

    fn judge(&self, rung: Rung, record: &mut Record) -> Sifted {
        let slow = *self.config.slow_threshold;
        let drop = match &mut record.signal {
            Signal::Execution(execution) => {
                let failed = !matches!(execution.ending, Ending::Ok);
                // What the sampler has kept has a weight that holds for the target it was given here; taking some of it away would make that wrong.
                let unsampled = execution.sampling.rule.is_none() && !failed && execution.duration < slow;
                (unsampled && rung >= Rung::NoPlanTexts) || (!failed && rung == Rung::TotalsOnly)
            }
            Signal::Plan(plan) => {
                if rung >= Rung::NoPlanTexts {
                    plan.masked = None;
                }
                rung == Rung::TotalsOnly
            }
            Signal::Activity(_) | Signal::Blocking(_) => rung == Rung::TotalsOnly,
            Signal::Interval(_) | Signal::Fact(_) | Signal::Finding(_) => false,
        };
        if drop {
            return Sifted::Discard(Reason::Budget);
        }
        if rung >= Rung::FewerAttributes {
            match &mut record.signal {
                Signal::Execution(execution) => execution.application = None,
                Signal::Activity(activity) => activity.application = None,
                _ => {}
            }
            record.origin.user = None;
        }
        Sifted::Keep
    }

    /// Gives the statements that took least the name that they share.
    fn rename_rest(&self, batch: &mut Batch) {
        let mut by_place: HashMap<Place, HashMap<u64, u128>> = HashMap::new();
        for record in batch.records() {
            if let Signal::Interval(interval) = &record.signal {
                let place = (record.origin.instance.service_instance_id, record.origin.database.clone());
                let own = by_place.entry(place).or_default().entry(interval.digest.fingerprint).or_default();
                *own += interval.stats.total().as_nanos();
            }
        }
        let top = |totals: HashMap<u64, u128>| {
            let mut totals: Vec<(u128, u64)> = totals.into_iter().map(|(print, total)| (total, print)).collect();
            totals.sort_unstable_by(|one, other| other.cmp(one));
            totals.into_iter().take(self.config.top_statements).map(|(_, print)| print).collect::<HashSet<u64>>()
        };
        let kept: HashMap<_, HashSet<u64>> = by_place.into_iter().map(|(place, totals)| (place, top(totals))).collect();
        for record in batch.records_mut() {
            let place = (record.origin.instance.service_instance_id, record.origin.database.clone());
            if let Signal::Interval(interval) = &mut record.signal
                && !kept.get(&place).is_some_and(|kept| kept.contains(&interval.digest.fingerprint))
            {
                interval.digest = self.other.clone();
                (interval.pace, interval.maintenance) = (None, false);
            }
        }
    }
}

impl Processor for CostControl {
    fn stage(&self) -> Stage {
        Stage::CostControl
    }

    fn process(&mut self, now: Timestamp, batch: &mut Batch, effects: &mut Effects) {
        (self.now, self.clock) = (now, batch.clock());
        if self.ledger.go_to(self.clock.unix_nanos(now), &self.zone) {
            self.ladder.reset(now);
        }
        if !self.config.enabled {
            return;
        }
        self.step(now, effects);
        let rung = self.ladder.rung();
        if rung == Rung::Full {
            return;
        }
        batch.sift(|record| self.judge(rung, record));
        if rung == Rung::TotalsOnly {
            self.rename_rest(batch);
        }
        if rung >= Rung::FewerAttributes {
            merge::equal_series(batch);
        }
    }

    fn measure(&self, measures: &mut Measures) {
        let budget = self.budget();
        measures.tell(&m::COST_BYTES, budget.bytes);
        measures.tell(&m::COST_SPENT, budget.spent_usd);
        measures.tell(&m::COST_BUDGET, self.config.monthly_budget_usd);
        if let Some(forecast) = budget.forecast_usd {
            measures.tell(&m::COST_FORECAST, forecast);
        }
        measures.tell(&m::COST_RUNG, budget.rung as u8 as f64);
        for (instance, bytes) in self.ledger.by_instance() {
            measures.tell_by(&m::COST_INSTANCE_BYTES, a::SERVICE_INSTANCE_ID, instance.to_string(), bytes as f64);
        }
        for (kind, bytes) in self.ledger.by_kind() {
            measures.tell_by(&m::COST_SIGNAL_BYTES, a::SIGNAL, kind.name(), bytes as f64);
        }
    }

    fn export_state(&self, _moment: Moment) -> Option<Result<Value, StateError>> {
        state::export(Stage::CostControl, &State { ledger: self.ledger.clone(), rung: self.ladder.rung() })
    }

    fn import_state(&mut self, moment: Moment, state: Value) -> Result<(), StateError> {
        let State { ledger, rung } = state::import(Stage::CostControl, state)?;
        self.ledger = ledger;
        self.ladder.restore(rung, moment.now);
        Ok(())
    }
}
