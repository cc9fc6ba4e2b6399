//! What sessions waited for in the last hour, from looks at a fixed interval: counts for each minute, wait and statement.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Minutes that are remembered.
const MINUTES: u64 = 60;
/// Combinations of wait and statement told apart in one minute; further ones are counted without their statement, then as `_other`.
const MAX_KEYS: usize = 2000;
/// What is counted beyond the bound.
const OTHER: &str = "_other";

/// A wait of a session that executes a statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wait {
    pub(super) class: Arc<str>,
    pub(super) event: Arc<str>,
    /// The server's identity of the statement.
    pub(super) statement: Option<Arc<str>>,
}

/// Counts of the last hour.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// By minute, oldest first.
    minutes: VecDeque<(u64, HashMap<Wait, u64>)>,
    /// Sessions counted under less than their own key.
    folded: u64,
}

impl History {
    /// Counts a session found in `wait`; `now` is the time since any fixed moment and never falls.
    pub(super) fn record(&mut self, now: Duration, wait: Wait) {
        let minute = now.as_secs() / 60;
        if self.minutes.back().is_none_or(|(last, _)| *last != minute) {
            self.minutes.push_back((minute, HashMap::new()));
        }
        self.forget(now);
        let Some((_, counts)) = self.minutes.back_mut() else { return };
        let fits = |key: &Wait| counts.len() < MAX_KEYS || counts.contains_key(key);
        let key = if fits(&wait) {
            wait
        } else {
            self.folded += 1;
            let without = Wait { statement: None, ..wait };
            let other = || Wait { class: OTHER.into(), event: OTHER.into(), statement: None };
            if counts.contains_key(&without) { without } else { other() }
        };
        *counts.entry(key).or_default() += 1;
    }

    /// Drops what is older than an hour.
    pub(super) fn forget(&mut self, now: Duration) {
        let minute = now.as_secs() / 60;
        while self.minutes.front().is_some_and(|(first, _)| first + MINUTES <= minute) {
            self.minutes.pop_front();
        }
    }

    /// Counts over the hour, heaviest first, at most `limit`.
    pub(super) fn heaviest(&self, limit: usize) -> Vec<(Wait, u64)> {
        let mut sums: HashMap<&Wait, u64> = HashMap::new();
        for (wait, count) in self.minutes.iter().flat_map(|(_, counts)| counts) {
            *sums.entry(wait).or_default() += count;
        }
        let mut sums: Vec<(Wait, u64)> = sums.into_iter().map(|(wait, count)| (wait.clone(), count)).collect();
        sums.sort_by(|(wait, count), (other, others)| {
            let place = |wait: &Wait| (Arc::clone(&wait.class), Arc::clone(&wait.event), wait.statement.clone());
            others.cmp(count).then_with(|| place(wait).cmp(&place(other)))
        });
        sums.truncate(limit);
        sums
    }

    /// Sessions counted under less than their own key.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(event: &str, statement: Option<&str>) -> Wait {
        Wait { class: "IO".into(), event: event.into(), statement: statement.map(Arc::from) }
    }

    #[test]
    fn an_hour_is_remembered_and_no_more() {
        let mut history = History::default();
        let at = Duration::from_secs;
        history.record(at(0), wait("old", None));
        for second in 30..3600 {
            history.record(at(second), wait("read", Some("7")));
        }
        assert_eq!(history.heaviest(9), [(wait("read", Some("7")), 3570), (wait("old", None), 1)]);
        history.forget(at(3600));
        assert_eq!(history.heaviest(9), [(wait("read", Some("7")), 3540)]);
        history.forget(at(9000));
        assert!(history.heaviest(9).is_empty());
    }

    #[test]
    fn beyond_the_bound_counts_stay_and_names_go() {
        let mut history = History::default();
        let many = MAX_KEYS as u64 * 2;
        for statement in 0..many {
            history.record(Duration::ZERO, wait("read", Some(&statement.to_string())));
        }
        let all = history.heaviest(usize::MAX);
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), many);
        assert_eq!((all.len(), &*all[0].0.class), (MAX_KEYS + 1, OTHER));
        assert_eq!(history.folded(), many - MAX_KEYS as u64);
    }
}
