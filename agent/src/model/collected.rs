//! What a database said of itself, at one moment.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Activity, Asked, Joined, Question, SeenStatement, ServerStatement, Verdict, names::Metric};

/// One way of logging in, tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How and as whom, e.g. `unix socket /run/postgresql/.s.PGSQL.5432 as postgres (peer or trust)`.
    pub way: String,
    /// How it ended.
    pub verdict: Verdict,
}

/// Which rung of its ladder a question stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The question.
    pub question: Question,
    /// The rung; `wire only` at the bottom, where the database is not asked at all.
    pub rung: &'static str,
    /// The rungs above it, best first, and why not they.
    pub above: Vec<(&'static str, Verdict)>,
}

/// How asking one question went so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often it was asked.
    pub asked: u64,
    /// How often the gate did not let it through.
    pub held: u64,
    /// How often there was no answer.
    pub failed: u64,
    /// How the last time ended.
    pub last: Option<Asked>,
    /// CPU time of the server's that it has cost, as far as that can be read.
    pub cpu: Duration,
    /// Why it is not asked now; `None` where it is.
    pub why_held: Option<Arc<str>>,
    /// Time waited for answers, all together.
    pub time: Duration,
}

/// A value of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
}

/// One point of a metric that the database keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Which metric.
    pub metric: &'static Metric,
    /// Attributes, in the order of the metric's catalogue entry.
    pub attributes: Vec<(&'static str, Arc<str>)>,
    /// Its value: cumulative since the server's own reset for counters, current for all others.
    pub value: Value,
}

/// A setting that is not what it was at the look before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// When the agent noticed.
    pub at: SystemTime,
    /// The setting.
    pub name: Arc<str>,
    /// Its value before; absent where it did not exist or its values are not shown.
    pub before: Option<Arc<str>>,
    /// Its value now; absent likewise.
    pub after: Option<Arc<str>>,
}

/// Everything one server said, the latest of each kind.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// How the agent is logged in; `None` while it is not.
    pub login: Option<Arc<str>>,
    /// The ways of logging in that were tried, in that order.
    pub attempts: Arc<[Attempt]>,
    /// Statements that would grant what is missing, to be run by an administrator.
    pub remedy: Arc<[String]>,
    /// Where each question stands.
    pub standings: Arc<[Standing]>,
    /// How asking went.
    pub tallies: BTreeMap<Question, Tally>,
    /// Statistics of statements, cumulative since the agent's first look.
    pub statements: Arc<[ServerStatement]>,
    /// Sessions, waits and blocking.
    pub activity: Arc<Activity>,
    /// What looks at the sessions saw of statements, cumulative since the agent's first look.
    pub seen: Arc<[SeenStatement]>,
    /// How the statements on the wire were joined with the server's; `None` where the server tells of none.
    pub joined: Option<Joined>,
    /// Points of metrics, by the question that they answer.
    pub points: BTreeMap<Question, Arc<[Point]>>,
    /// The latest changed settings, the newest last.
    pub changes: Arc<[SettingChange]>,
    /// What was left out or given up, by cause.
    pub losses: BTreeMap<&'static str, u64>,
    /// Fingerprints of what the agent itself asks: its own statements are in no statistic.
    pub own: Arc<HashSet<u64>>,
}
