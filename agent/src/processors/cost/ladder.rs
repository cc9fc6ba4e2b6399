//! Which rung of the ladder the month stands on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Parts of the budget from which on the rungs count.
const RUNGS: [f64; 4] = [0.60, 0.80, 0.95, 1.00];
/// A rung is left when the part has fallen so much below it, or the forecast so much below the budget.
const HYSTERESIS: f64 = 0.05;

/// What is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rung {
    /// Nothing.
    #[default]
    Full,
    /// Half of the examples that are there by chance: the sampler's target is half of what it was.
    FewerExamples,
    /// As many of those as the sampler can leave out, and the texts of plans.
    NoPlanTexts,
    /// Also attributes with many values: users, applications.
    FewerAttributes,
    /// All but exact totals, the most expensive statements, failures and findings.
    TotalsOnly,
}

impl Rung {
    const ALL: [Rung; 5] =
        [Rung::Full, Rung::FewerExamples, Rung::NoPlanTexts, Rung::FewerAttributes, Rung::TotalsOnly];

    /// Part of the examples that the sampler may keep.
    pub fn examples(self) -> f64 {
        match self {
            Rung::Full => 1.0,
            Rung::FewerExamples => 0.5,
            Rung::NoPlanTexts | Rung::FewerAttributes | Rung::TotalsOnly => 0.0,
        }
    }

    /// Part of the budget from which on it counts.
    pub fn threshold(self) -> f64 {
        match self {
            Rung::Full => 0.0,
            rung => RUNGS[rung as usize - 1],
        }
    }
}

/// The ladder.
#[derive(Debug)]
pub(super) struct Ladder {
    rung: Rung,
    since: Timestamp,
    hold: Duration,
}

impl Ladder {
    pub(super) fn new(hold: Duration) -> Ladder {
        Ladder { rung: Rung::Full, since: Timestamp::default(), hold }
    }

    pub(super) fn rung(&self) -> Rung {
        self.rung
    }

    /// As it was before a restart.
    pub(super) fn restore(&mut self, rung: Rung, now: Timestamp) {
        (self.rung, self.since) = (rung, now);
    }

    /// Back to the first rung: a month began.
    pub(super) fn reset(&mut self, now: Timestamp) {
        (self.rung, self.since) = (Rung::Full, now);
    }

    /// Takes up what part of the budget is spent, and what part it will come to; whether the rung changed. A rung counts if its part is spent and the month would cost
    /// more than the budget as it goes; a part that is spent late in a cheap month is no reason to leave anything out.
    pub(super) fn step(&mut self, now: Timestamp, spent: f64, forecast: Option<f64>) -> bool {
        let over = forecast.is_none_or(|forecast| forecast > 1.0);
        let at = |part: f64| RUNGS.iter().filter(|rung| part >= **rung).count();
        let low = if over || spent >= 1.0 { at(spent) } else { 0 };
        let well = forecast.is_some_and(|forecast| forecast <= 1.0 - HYSTERESIS) && spent < 1.0;
        let high = if well { 0 } else { at(spent + HYSTERESIS) };
        let mut next = (self.rung as usize).clamp(low, high.max(low));
        if next < self.rung as usize {
            // One at a time, and not soon: what is sent again may be what was too much.
            next = if now.since(self.since) >= self.hold { self.rung as usize - 1 } else { self.rung as usize };
        }
        let changed = next != self.rung as usize;
        if changed {
            (self.rung, self.since) = (Rung::ALL[next], now);
        }
        changed
    }
}
