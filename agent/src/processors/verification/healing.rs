//! Self-healing: remedies for named troubles, a few times, further and further apart.

use std::{collections::BTreeMap, time::Duration};

use super::config::{Issue, SelfHealing};
use crate::{
    model::{Timestamp, signal::Severity},
    processors::{Effect, Effects},
};

#[derive(Debug)]
struct Trouble {
    attempts: u32,
    next: Timestamp,
    told: bool,
}

/// Acts on troubles.
#[derive(Debug)]
pub(super) struct Healer {
    config: SelfHealing,
    troubles: BTreeMap<Issue, Trouble>,
    /// Remedies tried, troubles that ended, troubles that were given up on.
    pub(super) counts: [u64; 3],
}

impl Healer {
    pub(super) fn new(config: SelfHealing) -> Healer {
        Healer { config, troubles: BTreeMap::new(), counts: [0; 3] }
    }

    /// Whether there is a trouble now.
    pub(super) fn report(&mut self, now: Timestamp, issue: Issue, present: bool, effects: &mut Effects) {
        if !self.config.enabled || !self.config.enabled_issue_types.contains(&issue) {
            return;
        }
        if !present {
            self.counts[1] += u64::from(self.troubles.remove(&issue).is_some());
            return;
        }
        let trouble = self.troubles.entry(issue).or_insert(Trouble { attempts: 0, next: now, told: false });
        if now < trouble.next {
            return;
        }
        if trouble.attempts < self.config.max_retries {
            trouble.attempts += 1;
            self.counts[0] += 1;
            let factor = self.config.backoff_multiplier.powi(trouble.attempts as i32 - 1);
            trouble.next =
                now + Duration::try_from_secs_f64(self.config.interval.as_secs_f64() * factor).unwrap_or(Duration::MAX);
            effects.push(Effect::Heal { issue: issue.name(), attempt: trouble.attempts });
        } else if !std::mem::replace(&mut trouble.told, true) {
            self.counts[2] += 1;
            let tries = f64::from(trouble.attempts);
            effects.alert(issue.name(), Severity::High, tries, f64::from(self.config.max_retries));
        }
    }
}
