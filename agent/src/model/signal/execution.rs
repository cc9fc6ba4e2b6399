//! Single executions.

use std::{sync::Arc, time::Duration};

use super::{Peer, PlanId};
use crate::model::{Digest, Ending, Timestamp, TraceParent};

/// One execution of a statement, shown as an example of the many that are only counted.
#[derive(Clone, Debug)]
pub struct Execution {
    /// The statement.
    pub digest: Arc<Digest>,
    /// The session it ran in, where it is known.
    pub session: Option<Peer>,
    /// Its number in its session, where all executions of the session are seen.
    pub ordinal: Option<u64>,
    /// When it began; the record's time is its end.
    pub start: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// How it ended.
    pub ending: Ending,
    /// Rows sent and changed.
    pub rows: u64,
    /// What its client calls itself (`application_name`, `program_name`).
    pub application: Option<Arc<str>>,
    /// The span of the application that it was sent from.
    pub trace: Option<TraceParent>,
    /// The plan it ran with, where it is known.
    pub plan: Option<PlanId>,
    /// What makes it worth showing.
    pub seen: Seen,
    /// How many it stands for.
    pub sampling: Sampling,
    /// Where it stands in its session.
    pub situation: Option<Situation>,
}

/// What makes an execution worth showing beside chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Nothing: it is there by chance.
    #[default]
    Chance,
    /// It was slower than most executions of its statement.
    Slow,
    /// Its statement had not been seen before.
    New,
    /// Others waited for it.
    Blocker,
    /// Its statement has become slower.
    Regression,
    /// Its statement is executed in another way than before.
    PlanChange,
    /// It failed.
    Error,
}

impl Cause {
    /// The value of `sampling.rule` for executions that are always kept.
    pub fn rule(self) -> &'static str {
        match self {
            Cause::Chance => "default",
            Cause::Slow => "always.slow",
            Cause::New => "always.new_statement",
            Cause::Blocker => "always.blocker",
            Cause::Regression => "always.regression",
            Cause::PlanChange => "always.plan_change",
            Cause::Error => "always.error",
        }
    }
}

/// Flags that processors before the sampler set; [`Cause::Error`] needs none, since the ending tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The statement runs with another plan than before.
    pub plan_change: bool,
    /// The statement has become slower.
    pub regression: bool,
    /// Others waited for its session.
    pub blocker: bool,
}

/// How many executions a shown one stands for, and why it was shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// `sampling.weight`: the sum of the weights of all shown executions estimates the number of all. What picked it before the chain (the kernel
    /// shows one of N) has entered its N here.
    pub weight: f64,
    /// `sampling.rule`: the rule that decided.
    pub rule: Option<Arc<str>>,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { weight: 1.0, rule: None }
    }
}

/// Where an execution stands in its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// Number of the transaction in its session, from 1; `None` outside of an explicit one.
    pub transaction: Option<u64>,
    /// Number of the statement in the transaction, from 1; outside of one, in the session.
    pub position: u64,
    /// Time from the end of the statement before it in the session.
    pub idle: Duration,
    /// How often the same statement ran right before it, one after the other.
    pub repeats: u32,
    /// It repeats one that had failed.
    pub retry: bool,
}
