//! What sessions do, and what servers tell of themselves.

use std::{net::IpAddr, sync::Arc, time::Duration};

use crate::model::{Digest, SessionState, names::Metric};

/// One session, seen from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its connection: the inode number of the server's socket; 0 where it is not known.
    pub connection: u64,
    /// Its process (PostgreSQL) or thread (MySQL).
    pub process: u32,
}

/// What a session waits for, in the server's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Class, e.g. `Lock`, `IO`, `wait/io/file`.
    pub class: Arc<str>,
    /// Event, e.g. `transactionid`, `DataFileRead`.
    pub event: Arc<str>,
}

/// A session at one moment.
#[derive(Clone, Debug)]
pub struct Activity {
    /// The session.
    pub session: Peer,
    /// What it does.
    pub state: SessionState,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// What it executes, or has executed last.
    pub digest: Option<Arc<Digest>>,
    /// Since when it is in this state.
    pub lasting: Duration,
    /// What its client calls itself.
    pub application: Option<Arc<str>>,
    /// Where its client is. Personal data in some laws, and no text that the privacy gate sees: an exporter must not show it unasked.
    pub client: Option<IpAddr>,
}

/// A session that waits for another one.
#[derive(Clone, Debug)]
pub struct Blocking {
    /// The one that waits.
    pub blocked: Peer,
    /// The one it waits for.
    pub blocker: Peer,
    /// What the one executes.
    pub blocked_digest: Option<Arc<Digest>>,
    /// What the other executes, or has executed last.
    pub blocker_digest: Option<Arc<Digest>>,
    /// Mode of the lock that is waited for.
    pub lock: Option<Arc<str>>,
    /// Table that is locked.
    pub relation: Option<Arc<str>>,
    /// For how long it has waited.
    pub waited: Duration,
    /// Length of the chain up to the session that waits for nobody; 1 if that is the blocker.
    pub depth: u32,
}

/// A number that a server tells of itself.
#[derive(Clone, Debug)]
pub struct Fact {
    /// What it is.
    pub metric: &'static Metric,
    /// Its value.
    pub value: f64,
    /// What it is a part of, by attribute name.
    pub attributes: Vec<(&'static str, Arc<str>)>,
}
