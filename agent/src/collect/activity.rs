//! Sessions of either engine at one look, summed up: by state and wait, chains of waiting, ages, and the last hour.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    blocking::{Waiter, chains},
    history::{History, Wait},
};
use crate::model::{Activity, Ages, BlockingChain, Digest, SessionGroup, WaitShare};

/// Sessions looked at; of further ones nothing is known in that look. Servers seldom serve more at once.
pub(super) const MAX_SESSIONS: usize = 10_000;
/// Waits shown.
const MAX_WAITS: usize = 200;
/// Class and event of sessions that wait for nothing.
pub(super) const CPU: &str = "CPU";

/// A session at one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) session: i64,
    /// The process or thread that serves it, as the server numbers it.
    pub(super) task: Option<i64>,
    pub(super) user: Option<Arc<str>>,
    pub(super) database: Option<Arc<str>>,
    pub(super) state: Arc<str>,
    /// It executes a statement.
    pub(super) active: bool,
    /// Class and event of what it waits for; `None` for nothing.
    pub(super) wait: Option<(Arc<str>, Arc<str>)>,
    /// The server's identity of what it executes.
    pub(super) statement: Option<Arc<str>>,
    /// How long its transaction has been open.
    pub(super) transaction: Option<Duration>,
    /// How long it has been executing.
    pub(super) executing: Option<Duration>,
    /// How long it has been idle in a transaction.
    pub(super) idle_in_transaction: Option<Duration>,
    /// Age of its snapshot in transactions.
    pub(super) xmin: Option<u64>,
}

/// Counts what sessions wait for at one look; `now` is the time since any fixed moment.
pub(super) fn record(sessions: &[Seen], history: &mut History, now: Duration) {
    for seen in sessions.iter().filter(|seen| seen.active) {
        let (class, event) = wait(seen);
        history.record(now, Wait { class, event, statement: seen.statement.clone() });
    }
    history.forget(now);
}

/// The heaviest waits of the last hour; `interval` is the time between looks, and `digest` knows the statements' texts.
pub(super) fn shares(
    history: &History,
    interval: Duration,
    digest: impl Fn(&str) -> Option<Arc<Digest>>,
) -> Arc<[WaitShare]> {
    let share = |(wait, samples): (Wait, u64)| WaitShare {
        digest: wait.statement.as_deref().and_then(&digest),
        wait_class: wait.class,
        wait_event: wait.event,
        samples,
        time: interval.saturating_mul(u32::try_from(samples).unwrap_or(u32::MAX)),
    };
    history.heaviest(MAX_WAITS).into_iter().map(share).collect()
}

/// Sums up one look. The waits of the last hour are [`shares`].
pub(super) fn sum_up(
    sessions: &[Seen],
    waiters: Vec<Waiter>,
    waits: Arc<[WaitShare]>,
    digest: impl Fn(&str) -> Option<Arc<Digest>>,
) -> Activity {
    let mut groups = BTreeMap::new();
    for seen in sessions {
        let (class, event) = wait(seen);
        *groups.entry((seen.database.clone(), Arc::clone(&seen.state), class, event)).or_insert(0u64) += 1;
    }
    let group = |((database, state, wait_class, wait_event), count)| SessionGroup {
        database,
        state,
        wait_class,
        wait_event,
        count,
    };
    Activity {
        sessions: groups.into_iter().map(group).collect(),
        chains: with_sessions(chains(waiters), sessions, digest),
        ages: ages(sessions),
        waits,
    }
}

/// Class and event of what a session waits for.
fn wait(seen: &Seen) -> (Arc<str>, Arc<str>) {
    seen.wait.clone().unwrap_or_else(|| (CPU.into(), CPU.into()))
}

/// Chains with what is known of their sessions.
fn with_sessions(
    mut chains: Vec<BlockingChain>,
    sessions: &[Seen],
    digest: impl Fn(&str) -> Option<Arc<Digest>>,
) -> Vec<BlockingChain> {
    if chains.is_empty() {
        return chains;
    }
    let known: HashMap<i64, &Seen> = sessions.iter().map(|seen| (seen.session, seen)).collect();
    for chain in &mut chains {
        if let Some(root) = known.get(&chain.root) {
            chain.root_state = Some(Arc::clone(&root.state));
            chain.root_transaction = root.transaction;
        }
        for blocked in &mut chain.blocked {
            if let Some(seen) = known.get(&blocked.session) {
                blocked.database = seen.database.clone();
                blocked.user = seen.user.clone();
                blocked.digest = seen.statement.as_deref().and_then(&digest);
            }
        }
    }
    chains
}

fn ages(sessions: &[Seen]) -> Ages {
    let longest = |of: fn(&Seen) -> Option<Duration>| sessions.iter().filter_map(of).max();
    Ages {
        transaction: longest(|seen| seen.transaction),
        idle_in_transaction: longest(|seen| seen.idle_in_transaction),
        statement: longest(|seen| seen.executing.filter(|_| seen.active)),
        xmin: sessions.iter().filter_map(|seen| seen.xmin).max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_summed_up() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let lock = Some(("Lock".into(), "transactionid".into()));
        let active = Seen { state: "active".into(), active: true, executing: seconds(3), ..Seen::default() };
        let sessions = [
            Seen {
                session: 1,
                state: "idle in transaction".into(),
                transaction: seconds(60),
                idle_in_transaction: seconds(50),
                ..Seen::default()
            },
            Seen {
                session: 2,
                wait: lock.clone(),
                statement: Some("7".into()),
                transaction: seconds(9),
                ..active.clone()
            },
            Seen { session: 3, wait: lock, statement: Some("7".into()), xmin: Some(12), ..active.clone() },
            Seen { session: 4, ..active },
        ];
        let waiters = vec![
            Waiter { session: 2, by: vec![1], ..Waiter::default() },
            Waiter { session: 3, by: vec![2], ..Waiter::default() },
        ];
        let mut history = History::default();
        let second = Duration::from_secs(1);
        let digest = |id: &str| (id == "7").then(|| Arc::new(Digest::command()));
        record(&sessions, &mut history, second);
        record(&sessions, &mut history, second * 2);
        let activity = sum_up(&sessions, waiters, shares(&history, second, digest), digest);
        let counts: Vec<_> =
            activity.sessions.iter().map(|group| (&*group.state, &*group.wait_class, group.count)).collect();
        assert_eq!(counts, [("active", "CPU", 1), ("active", "Lock", 2), ("idle in transaction", "CPU", 1)]);
        let waits: Vec<_> =
            activity.waits.iter().map(|wait| (&*wait.wait_event, wait.samples, wait.digest.is_some())).collect();
        assert_eq!(waits, [("transactionid", 4, true), ("CPU", 2, false)]);
        assert_eq!(activity.waits[0].time, second * 4);
        let chain = &activity.chains[0];
        assert_eq!((chain.root, chain.depth(), chain.root_transaction), (1, 2, seconds(60)));
        assert_eq!(chain.root_state.as_deref(), Some("idle in transaction"));
        let ages =
            Ages { transaction: seconds(60), idle_in_transaction: seconds(50), statement: seconds(3), xmin: Some(12) };
        assert_eq!(activity.ages, ages);
    }
}
