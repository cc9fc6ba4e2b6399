//! Auto-tuning: bounded, journalled, reversible.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::config::AutoTuning;
use crate::{
    model::Timestamp,
    processors::{Effect, Effects, Tuning},
};

/// Observations from which the next change is concluded.
const OBSERVATIONS: usize = 10;
/// Entries of the journal; the oldest makes room.
const MAX_JOURNAL: usize = 256;
/// Parameters that can be tuned.
const MAX_PARAMETERS: usize = 64;
/// Below this strain a parameter may go back to what was configured.
const RELAXED: f64 = 0.5;
/// A change has helped if the strain fell by this part at least.
const HELPED: f64 = 0.05;

/// A parameter that may be changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Path in the configuration.
    pub name: &'static str,
    /// Value as configured.
    pub configured: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Whether less of it is less strain (a rate) or more of it is (an interval).
    pub less_is_relief: bool,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It holds.
    Applied,
    /// It was only said, not done.
    Proposed,
    /// It did not help and was taken back.
    Reverted,
    /// It was not needed any more: one step back.
    Relaxed,
}

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub tuning: Tuning,
    /// And then.
    pub fate: Fate,
}

#[derive(Debug)]
struct Tuned {
    parameter: Parameter,
    value: f64,
    strains: VecDeque<f64>,
    /// Value and mean strain before the latest change, until it is known whether it helped.
    before: Option<(f64, f64)>,
    /// Not tried again before.
    banned_until: Option<Timestamp>,
}

/// Finds changes.
#[derive(Debug)]
pub(super) struct Tuner {
    config: AutoTuning,
    tuned: BTreeMap<&'static str, Tuned>,
    journal: VecDeque<Entry>,
    last: Option<Timestamp>,
}

impl Tuner {
    pub(super) fn new(config: AutoTuning) -> Tuner {
        Tuner { config, tuned: BTreeMap::new(), journal: VecDeque::new(), last: None }
    }

    /// Says what may be changed. What is beyond the bound is left alone.
    pub(super) fn register(&mut self, parameter: Parameter) {
        if self.tuned.len() < MAX_PARAMETERS || self.tuned.contains_key(parameter.name) {
            let value = parameter.configured;
            let tuned = Tuned { parameter, value, strains: VecDeque::new(), before: None, banned_until: None };
            self.tuned.insert(tuned.parameter.name, tuned);
        }
    }

    /// How much strain a parameter is under now: more than 1 is too much.
    pub(super) fn observe(&mut self, parameter: &str, strain: f64) {
        if let Some(tuned) = self.tuned.get_mut(parameter).filter(|_| strain.is_finite()) {
            if tuned.strains.len() == OBSERVATIONS {
                tuned.strains.pop_front();
            }
            tuned.strains.push_back(strain);
        }
    }

    /// The journal, oldest first.
    pub(super) fn journal(&self) -> impl Iterator<Item = &Entry> {
        self.journal.iter()
    }

    /// Looks whether it is time, and concludes.
    pub(super) fn tick(&mut self, now: Timestamp, effects: &mut Effects) {
        let last = *self.last.get_or_insert(now);
        if !self.config.enabled || now.since(last) < *self.config.interval {
            return;
        }
        self.last = Some(now);
        let retention: Duration = *self.config.history_retention;
        while self.journal.front().is_some_and(|entry| now.since(entry.at) > retention) {
            self.journal.pop_front();
        }
        for tuned in self.tuned.values_mut() {
            let Some((tuning, fate)) = tuned.conclude(now, &self.config) else { continue };
            if fate != Fate::Proposed {
                effects.push(Effect::Tune(tuning.clone()));
            }
            if self.journal.len() == MAX_JOURNAL {
                self.journal.pop_front();
            }
            self.journal.push_back(Entry { at: now, tuning, fate });
        }
    }
}

impl Tuned {
    fn conclude(&mut self, now: Timestamp, config: &AutoTuning) -> Option<(Tuning, Fate)> {
        if self.strains.len() < OBSERVATIONS {
            return None;
        }
        let strains: Vec<f64> = self.strains.drain(..).collect();
        let mean = strains.iter().sum::<f64>() / strains.len() as f64;
        let share = |test: &dyn Fn(f64) -> bool| {
            strains.iter().filter(|strain| test(**strain)).count() as f64 / strains.len() as f64
        };
        if let Some((value, strain)) = self.before.take()
            && mean > strain * (1.0 - HELPED)
        {
            self.banned_until = Some(now + *config.history_retention);
            return self.change(value, "the change before did not help", Fate::Reverted);
        }
        let parameter = &self.parameter;
        if share(&|strain| strain > 1.0) >= config.min_confidence_level {
            if self.banned_until.is_some_and(|until| now < until) {
                return None;
            }
            let down = parameter.less_is_relief;
            let factor = if down { 1.0 - config.max_parameter_change } else { 1.0 + config.max_parameter_change };
            let new = (self.value * factor).clamp(parameter.min, parameter.max);
            if !config.enable_auto_apply {
                let (name, from) = (parameter.name, self.value);
                let tuning = Tuning { parameter: name, from, to: new, reason: "too much strain" };
                return (new != from).then_some((tuning, Fate::Proposed));
            }
            let before = self.value;
            let changed = self.change(new, "too much strain", Fate::Applied);
            self.before = changed.is_some().then_some((before, mean));
            return changed;
        }
        if share(&|strain| strain < RELAXED) >= config.min_confidence_level {
            let step = self.value * config.max_parameter_change;
            let new = self.value + (parameter.configured - self.value).clamp(-step, step);
            return self.change(new, "the strain is over", Fate::Relaxed);
        }
        None
    }

    fn change(&mut self, to: f64, reason: &'static str, fate: Fate) -> Option<(Tuning, Fate)> {
        let from = std::mem::replace(&mut self.value, to);
        (from != to).then_some((Tuning { parameter: self.parameter.name, from, to, reason }, fate))
    }
}
