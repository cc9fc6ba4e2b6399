//! What sessions do and wait for, and who waits for whom.

use std::{sync::Arc, time::Duration};

use super::Digest;

/// Sessions of one kind at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionGroup {
    /// Database.
    pub database: Option<Arc<str>>,
    /// State as the server names it: `active`, `idle in transaction`; for MySQL and MariaDB the command, e.g. `Query`, `Sleep`.
    pub state: Arc<str>,
    /// Class of what they wait for, e.g. `Lock`; `CPU` for those that wait for nothing.
    pub wait_class: Arc<str>,
    /// What they wait for, e.g. `transactionid`.
    pub wait_event: Arc<str>,
    /// How many.
    pub count: u64,
}

/// Time that sessions spent in one wait event, estimated from looks at a fixed interval.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitShare {
    /// Class of the wait, e.g. `IO`; `CPU` where a session waited for nothing.
    pub wait_class: Arc<str>,
    /// The event.
    pub wait_event: Arc<str>,
    /// The statement that ran; `None` where its text is not known.
    pub digest: Option<Arc<Digest>>,
    /// How many looks found a session there.
    pub samples: u64,
    /// Samples times the interval.
    pub time: Duration,
}

/// A session that waits for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Backend process, or connection id of MySQL.
    pub session: i64,
    /// Those that it waits for directly, sorted.
    pub by: Vec<i64>,
    /// How many sessions lie between it and the root, plus one.
    pub depth: u32,
    /// Lock that it wants, e.g. `ShareLock`.
    pub lock: Option<Arc<str>>,
    /// Table that the lock is on, where it is on one.
    pub relation: Option<Arc<str>>,
    /// How long it has been waiting, as far as the server tells.
    pub waited: Duration,
    /// Its database.
    pub database: Option<Arc<str>>,
    /// Its user.
    pub user: Option<Arc<str>>,
    /// What it executes; `None` where its text is not known.
    pub digest: Option<Arc<Digest>>,
}

/// All that wait, directly or not, for one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingChain {
    /// The session that waits for nobody; in a deadlock, the least of those that wait for each other.
    pub root: i64,
    /// They all wait for each other: the server will end one of them.
    pub deadlock: bool,
    /// State of the root, e.g. `idle in transaction`.
    pub root_state: Option<Arc<str>>,
    /// How long the root's transaction has been open.
    pub root_transaction: Option<Duration>,
    /// Those that wait, by depth, then by session.
    pub blocked: Vec<Blocked>,
}

impl BlockingChain {
    /// The longest way from the root to one that waits.
    pub fn depth(&self) -> u32 {
        self.blocked.iter().map(|blocked| blocked.depth).max().unwrap_or(0)
    }
}

/// The oldest of something that should not grow old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// Longest open transaction.
    pub transaction: Option<Duration>,
    /// Longest time that a session has been idle in a transaction.
    pub idle_in_transaction: Option<Duration>,
    /// Longest running statement.
    pub statement: Option<Duration>,
    /// Age of the oldest snapshot that holds back vacuum, in transactions (PostgreSQL).
    pub xmin: Option<u64>,
}

/// Sessions, waits and blocking at the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// Sessions by database, state and wait, without the agent's own.
    pub sessions: Vec<SessionGroup>,
    /// Who waits for whom.
    pub chains: Vec<BlockingChain>,
    /// The oldest.
    pub ages: Ages,
    /// Time in waits over the last hour, heaviest first.
    pub waits: Arc<[WaitShare]>,
}
