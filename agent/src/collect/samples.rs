//! What looks at the sessions saw of each statement: time in waits, and what the kernel counted of its executions.
//!
//! A session that is seen on a CPU is charged to what it executes with all that its process or thread has used since it was last charged. The chance to be seen
//! there grows with the CPU time of a statement, so the sums approach what each used, and their total is what was used, whatever ran between the looks.
//! Sessions that are idle, or wait for something but I/O, are not read at all.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::activity::{CPU, Seen};
use crate::model::{Digest, KernelUse, SeenStatement};

/// Class of waits for I/O (PostgreSQL documentation, wait event types); who waits so has used what the kernel counts of I/O.
const IO: &str = "IO";
/// Classes told apart for one statement: PostgreSQL 18 has nine.
const MAX_CLASSES: usize = 16;

/// A statement, told apart as its server tells it apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    database: Option<Arc<str>>,
    user: Option<Arc<str>>,
    statement: Arc<str>,
}

#[derive(Clone, Debug, Default)]
struct Sums {
    waits: BTreeMap<Arc<str>, Duration>,
    kernel: Option<KernelUse>,
}

/// Sums of all looks.
#[derive(Debug)]
pub(super) struct Samples {
    bound: usize,
    sums: HashMap<Key, Sums>,
    /// What each session's process or thread had used when it was last charged.
    charged: HashMap<i64, KernelUse>,
    omitted: u64,
}

impl Samples {
    /// Remembers at most `bound` statements.
    pub(super) fn new(bound: usize) -> Samples {
        Samples { bound, sums: HashMap::new(), charged: HashMap::new(), omitted: 0 }
    }

    /// Takes one look, which stands for `interval`; `used` reads what a process or thread has used so far.
    pub(super) fn look(&mut self, sessions: &[Seen], interval: Duration, used: impl Fn(i64) -> Option<KernelUse>) {
        for seen in sessions.iter().filter(|seen| seen.active) {
            let Some(statement) = seen.statement.clone() else { continue };
            let class = seen.wait.as_ref().map(|(class, _)| Arc::clone(class));
            let working = class.as_deref().is_none_or(|class| class == IO);
            let growth = seen.task.filter(|_| working).and_then(|task| {
                let now = used(task)?;
                let before = self.charged.insert(task, now)?;
                Some(now.since(&before))
            });
            let key = Key { database: seen.database.clone(), user: seen.user.clone(), statement };
            if self.sums.len() >= self.bound && !self.sums.contains_key(&key) {
                self.omitted += 1;
                continue;
            }
            let sums = self.sums.entry(key).or_default();
            let class = class.unwrap_or_else(|| CPU.into());
            if sums.waits.len() < MAX_CLASSES || sums.waits.contains_key(&class) {
                *sums.waits.entry(class).or_default() += interval;
            }
            if let Some(growth) = growth {
                sums.kernel.get_or_insert_default().add(&growth);
            }
        }
        // Sessions that have ended; their numbers may come again.
        if self.charged.len() > sessions.len() {
            let tasks: std::collections::HashSet<i64> = sessions.iter().filter_map(|seen| seen.task).collect();
            self.charged.retain(|task, _| tasks.contains(task));
        }
    }

    /// All statements whose text is known.
    pub(super) fn known(&self, digest: impl Fn(&str) -> Option<Arc<Digest>>) -> Arc<[SeenStatement]> {
        let statement = |(key, sums): (&Key, &Sums)| {
            Some(SeenStatement {
                database: key.database.clone(),
                user: key.user.clone(),
                digest: digest(&key.statement)?,
                waits: sums.waits.clone(),
                kernel: sums.kernel,
            })
        };
        self.sums.iter().filter_map(statement).collect()
    }

    /// Sessions left out at the bound, counted at each look.
    pub(super) fn omitted(&self) -> u64 {
        self.omitted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn session(task: i64, statement: &str, wait: Option<&str>) -> Seen {
        Seen {
            task: Some(task),
            active: true,
            statement: Some(statement.into()),
            wait: wait.map(|class| (class.into(), "event".into())),
            ..Seen::default()
        }
    }

    fn known(samples: &Samples, statement: &str) -> (BTreeMap<Arc<str>, Duration>, Option<Duration>) {
        let named = |id: &str| (id == statement).then(|| Arc::new(Digest::command()));
        let known = samples.known(named);
        (known[0].waits.clone(), known[0].kernel.map(|kernel| kernel.on_cpu))
    }

    #[test]
    fn who_is_seen_at_work_is_charged_with_all_since_the_last_time() {
        let mut samples = Samples::new(10);
        let now = Cell::new(0);
        let used = |_| Some(KernelUse { on_cpu: Duration::from_millis(now.get()), ..KernelUse::default() });
        for (time, sessions) in [
            (100, [session(1, "a", None)]),
            (150, [session(1, "b", Some("Lock"))]),
            (300, [session(1, "a", Some("IO"))]),
            (310, [session(1, "b", None)]),
        ] {
            now.set(time);
            samples.look(&sessions, SECOND, used);
        }
        // What it had used before it was first seen is nobody's.
        let waits = BTreeMap::from([("CPU".into(), SECOND), ("IO".into(), SECOND)]);
        assert_eq!(known(&samples, "a"), (waits, Some(Duration::from_millis(200))));
        let waits = BTreeMap::from([("CPU".into(), SECOND), ("Lock".into(), SECOND)]);
        assert_eq!(known(&samples, "b"), (waits, Some(Duration::from_millis(10))));
    }

    #[test]
    fn idle_sessions_and_waiting_ones_are_not_read() {
        let mut samples = Samples::new(10);
        let idle = Seen { active: false, ..session(1, "a", None) };
        samples.look(&[idle, session(2, "a", Some("Lock"))], SECOND, |task| panic!("{task} is read"));
        assert_eq!(known(&samples, "a").1, None);
    }

    #[test]
    fn a_new_session_under_an_old_number_begins_anew() {
        let mut samples = Samples::new(10);
        let used = |millis| move |_| Some(KernelUse { on_cpu: Duration::from_millis(millis), ..KernelUse::default() });
        samples.look(&[session(1, "a", None)], SECOND, used(5));
        samples.look(&[], SECOND, used(0));
        samples.look(&[session(1, "a", None)], SECOND, used(900));
        assert_eq!(known(&samples, "a").1, None);
    }

    #[test]
    fn statements_are_bounded() {
        let mut samples = Samples::new(2);
        for statement in ["a", "b", "c", "a", "c"] {
            samples.look(&[session(1, statement, None)], SECOND, |_| None);
        }
        assert_eq!((samples.sums.len(), samples.omitted()), (2, 2));
    }
}
