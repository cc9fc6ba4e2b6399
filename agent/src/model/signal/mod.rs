//! The typed stream that the processors work on: everything the agent knows, as records of one type, in batches.
//!
//! What a record says is in typed fields. Text that came from outside stands in the fields that [`Record::texts`] gives and nowhere else, so that
//! who looks at all text looks at all text.

mod activity;
mod batch;
mod execution;
mod finding;
mod interval;
mod notice;
mod outgoing;
mod plan;
mod text;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use activity::{Activity, Blocking, Fact, Peer, Wait};
pub use batch::{Batch, Ledger, Reason, Sifted};
pub use execution::{Cause, Execution, Sampling, Seen, Situation};
pub use finding::{Finding, Severity, Topic};
pub use interval::{Interval, Pace};
pub use notice::{Notice, NoticeKind};
pub use outgoing::Outgoing;
pub use plan::{Change, Plan, PlanFacts, PlanId, PlanSource, PlanText};
pub use text::{TextField, TextMut};

use super::{Instance, Timestamp};

/// Whose signal it is.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The server.
    pub instance: Arc<Instance>,
    /// Database (PostgreSQL) or default schema (MySQL), where it is known.
    pub database: Option<Arc<str>>,
    /// Database user, where it is known.
    pub user: Option<Arc<str>>,
}

/// What the circuit breaker says of the server that a record comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Its questions are asked.
    #[default]
    Closed,
    /// One question is asked, to see whether the server is well again.
    HalfOpen,
    /// Nothing is asked: what is known comes from the wire alone.
    Open,
}

impl Circuit {
    /// Its name in attributes and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Circuit::Closed => "closed",
            Circuit::HalfOpen => "half_open",
            Circuit::Open => "open",
        }
    }
}

/// One thing that was observed.
#[derive(Clone, Debug)]
pub struct Record {
    /// When; of an interval, its end.
    pub at: Timestamp,
    /// Whose.
    pub origin: Origin,
    /// State of the server's circuit when the record passed the chain.
    pub circuit: Circuit,
    /// What.
    pub signal: Signal,
}

impl Record {
    /// A record as it enters the chain.
    pub fn new(at: Timestamp, origin: Origin, signal: Signal) -> Record {
        Record { at, origin, circuit: Circuit::default(), signal }
    }
}

/// What was observed. The contents are boxed, so that moving a record does not move them.
#[derive(Clone, Debug)]
pub enum Signal {
    /// Exact statistics of one statement over an interval: never sampled, never shed.
    Interval(Box<Interval>),
    /// A single execution, as an example.
    Execution(Box<Execution>),
    /// How a statement is or was executed.
    Plan(Box<Plan>),
    /// What a session does or waits for.
    Activity(Box<Activity>),
    /// A session that waits for another one.
    Blocking(Box<Blocking>),
    /// A number that a server tells of itself.
    Fact(Box<Fact>),
    /// What the agent concluded.
    Finding(Box<Finding>),
}

/// The kinds of [`Signal`], for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// See [`Signal::Interval`].
    Interval,
    /// See [`Signal::Execution`].
    Execution,
    /// See [`Signal::Plan`].
    Plan,
    /// See [`Signal::Activity`].
    Activity,
    /// See [`Signal::Blocking`].
    Blocking,
    /// See [`Signal::Fact`].
    Fact,
    /// See [`Signal::Finding`].
    Finding,
}

impl Kind {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Interval => "interval",
            Kind::Execution => "execution",
            Kind::Plan => "plan",
            Kind::Activity => "activity",
            Kind::Blocking => "blocking",
            Kind::Fact => "fact",
            Kind::Finding => "finding",
        }
    }
}

impl Signal {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Signal::Interval(_) => Kind::Interval,
            Signal::Execution(_) => Kind::Execution,
            Signal::Plan(_) => Kind::Plan,
            Signal::Activity(_) => Kind::Activity,
            Signal::Blocking(_) => Kind::Blocking,
            Signal::Fact(_) => Kind::Fact,
            Signal::Finding(_) => Kind::Finding,
        }
    }
}
