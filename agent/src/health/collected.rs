//! What a database said of itself, as the agent tells it: a part of `/status`, and all of `querylens discover --explain`.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::status::{counts, millis};
use crate::model::{self, Activity, Attempt, Collected, ServerStatement, Tally, Verdict};

/// Waits of the last hour that are listed.
const WAITS: usize = 20;

/// What one server said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Collect {
    /// How the agent is logged in; `null` while it is not.
    pub login: Option<String>,
    /// Ways of logging in, in the order in which they were tried.
    pub attempts: Vec<Outcome>,
    /// Statements that an administrator can run to grant what is missing.
    pub remedy: Vec<String>,
    /// Where each question stands, and how asking it went.
    pub questions: Vec<Question>,
    /// Sessions by state and wait at the last look.
    pub sessions: Vec<Sessions>,
    /// Who waits for whom.
    pub blocking: Vec<Chain>,
    /// The oldest transaction, statement and snapshot.
    pub ages: Ages,
    /// What sessions waited for in the last hour, heaviest first.
    pub waits: Vec<Wait>,
    /// Statements by the server's own count since the agent's first look, heaviest first.
    pub statements: Vec<Statement>,
    /// Executions on the wire by how their statements were joined with the server's: `matched`, `ambiguous`, `unmatched`.
    pub joined: BTreeMap<String, u64>,
    /// Metrics that the server keeps, with how many points each has.
    pub metrics: BTreeMap<String, u64>,
    /// The latest changed settings.
    pub changes: Vec<Change>,
    /// What was left out, by cause.
    pub losses: BTreeMap<String, u64>,
}

/// Something that was tried, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What.
    pub what: String,
    /// `ok`, `unsupported`, `denied`, `broken` or `not applicable`.
    pub verdict: String,
    /// Why, empty for `ok`.
    pub reason: String,
}

impl Outcome {
    fn new(what: &str, verdict: &Verdict) -> Outcome {
        Outcome { what: what.to_owned(), verdict: verdict.word().to_owned(), reason: verdict.reason().to_owned() }
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Its name.
    pub name: String,
    /// The rung that it stands on.
    pub rung: String,
    /// The rungs above, best first, and why not they.
    pub above: Vec<Outcome>,
    /// How often it was asked.
    pub asked: u64,
    /// How often it was not asked, because its breaker was open.
    pub held: u64,
    /// How often there was no answer.
    pub failed: u64,
    /// Why it is not asked now; `null` where it is.
    pub why_held: Option<String>,
    /// How the last time ended.
    pub last: Option<String>,
    /// Mean time to the answer in milliseconds.
    pub mean_ms: f64,
    /// CPU time of the server's that it has cost, in milliseconds.
    pub cpu_ms: f64,
}

/// Sessions of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Database.
    pub database: Option<String>,
    /// State.
    pub state: String,
    /// Class of what they wait for; `CPU` for nothing.
    pub wait_class: String,
    /// What they wait for.
    pub wait_event: String,
    /// How many.
    pub count: u64,
}

/// All that wait, directly or not, for one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// The session that waits for nobody.
    pub root: i64,
    /// They all wait for each other.
    pub deadlock: bool,
    /// State of the root.
    pub root_state: Option<String>,
    /// How long the root's transaction has been open, in seconds.
    pub root_transaction_s: Option<f64>,
    /// The longest way from the root to one that waits.
    pub depth: u32,
    /// Those that wait, nearest first.
    pub blocked: Vec<Blocked>,
}

/// A session that waits for others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    /// Backend process, or connection id of MySQL.
    pub session: i64,
    /// Those that it waits for directly.
    pub by: Vec<i64>,
    /// How far from the root.
    pub depth: u32,
    /// Lock that it wants.
    pub lock: Option<String>,
    /// Table that the lock is on.
    pub relation: Option<String>,
    /// How long it has been waiting, in milliseconds.
    pub waited_ms: f64,
    /// Fingerprint of what it executes.
    pub fingerprint: Option<String>,
}

/// Ages in seconds; `xmin` in transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ages {
    /// Longest open transaction.
    pub transaction_s: Option<f64>,
    /// Longest time idle in a transaction.
    pub idle_in_transaction_s: Option<f64>,
    /// Longest running statement.
    pub statement_s: Option<f64>,
    /// Oldest snapshot.
    pub xmin: Option<u64>,
}

/// Time in one wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// Class.
    pub wait_class: String,
    /// Event.
    pub wait_event: String,
    /// The statement that waited, where it is known.
    pub fingerprint: Option<String>,
    /// Looks that found a session there.
    pub samples: u64,
    /// Estimated time in milliseconds.
    pub time_ms: f64,
}

/// A statement by the server's count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Database or default schema.
    pub database: Option<String>,
    /// User.
    pub user: Option<String>,
    /// The server's own identity.
    pub id: String,
    /// The same fingerprint as on the wire.
    pub fingerprint: String,
    /// Text without literals.
    pub text: String,
    /// Executions.
    pub calls: u64,
    /// Rows returned or changed.
    pub rows: u64,
    /// Time of execution in milliseconds.
    pub exec_ms: f64,
    /// Shared buffers found and read (PostgreSQL).
    pub shared_hit: u64,
    /// Shared buffers read (PostgreSQL).
    pub shared_read: u64,
}

/// A setting that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The setting.
    pub name: String,
    /// Its value before, where it may be shown.
    pub before: Option<String>,
    /// Its value now, likewise.
    pub after: Option<String>,
}

impl Collect {
    /// Renders it, with at most the `top` heaviest statements.
    pub fn new(collected: &Collected, top: Option<usize>) -> Collect {
        let Activity { sessions, chains, ages, waits } = &*collected.activity;
        let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs_f64());
        let mut heaviest: Vec<&ServerStatement> = collected.statements.iter().collect();
        heaviest.sort_by_key(|row| (std::cmp::Reverse(row.total.exec_time), row.digest.fingerprint));
        heaviest.truncate(top.unwrap_or(usize::MAX));
        let mut metrics = BTreeMap::new();
        for point in collected.points.values().flat_map(|points| points.iter()) {
            *metrics.entry(point.metric.name.to_owned()).or_insert(0) += 1;
        }
        Collect {
            login: owned(&collected.login),
            attempts: collected.attempts.iter().map(|Attempt { way, verdict }| Outcome::new(way, verdict)).collect(),
            remedy: collected.remedy.to_vec(),
            questions: collected
                .standings
                .iter()
                .map(|standing| {
                    let tally = collected.tallies.get(&standing.question).cloned().unwrap_or_default();
                    question(standing, &tally)
                })
                .collect(),
            sessions: sessions
                .iter()
                .map(|group| Sessions {
                    database: owned(&group.database),
                    state: group.state.as_ref().to_owned(),
                    wait_class: group.wait_class.as_ref().to_owned(),
                    wait_event: group.wait_event.as_ref().to_owned(),
                    count: group.count,
                })
                .collect(),
            blocking: chains.iter().map(chain).collect(),
            ages: Ages {
                transaction_s: seconds(ages.transaction),
                idle_in_transaction_s: seconds(ages.idle_in_transaction),
                statement_s: seconds(ages.statement),
                xmin: ages.xmin,
            },
            waits: waits
                .iter()
                .take(WAITS)
                .map(|wait| Wait {
                    wait_class: wait.wait_class.as_ref().to_owned(),
                    wait_event: wait.wait_event.as_ref().to_owned(),
                    fingerprint: wait.digest.as_ref().map(|digest| digest.hex()),
                    samples: wait.samples,
                    time_ms: millis(wait.time),
                })
                .collect(),
            statements: heaviest.into_iter().map(statement).collect(),
            joined: collected
                .joined
                .iter()
                .flat_map(model::Joined::named)
                .map(|(join, count)| (join.to_owned(), count))
                .collect(),
            metrics,
            changes: collected
                .changes
                .iter()
                .map(|change| Change {
                    name: change.name.as_ref().to_owned(),
                    before: owned(&change.before),
                    after: owned(&change.after),
                })
                .collect(),
            losses: counts(&collected.losses),
        }
    }
}

fn chain(chain: &model::BlockingChain) -> Chain {
    let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    Chain {
        root: chain.root,
        deadlock: chain.deadlock,
        root_state: owned(&chain.root_state),
        root_transaction_s: chain.root_transaction.map(|open| open.as_secs_f64()),
        depth: chain.depth(),
        blocked: chain
            .blocked
            .iter()
            .map(|blocked| Blocked {
                session: blocked.session,
                by: blocked.by.clone(),
                depth: blocked.depth,
                lock: owned(&blocked.lock),
                relation: owned(&blocked.relation),
                waited_ms: millis(blocked.waited),
                fingerprint: blocked.digest.as_ref().map(|digest| digest.hex()),
            })
            .collect(),
    }
}

fn question(standing: &model::Standing, tally: &Tally) -> Question {
    Question {
        name: standing.question.name().to_owned(),
        rung: standing.rung.to_owned(),
        above: standing.above.iter().map(|(rung, verdict)| Outcome::new(rung, verdict)).collect(),
        asked: tally.asked,
        held: tally.held,
        failed: tally.failed,
        why_held: tally.why_held.as_deref().map(str::to_owned),
        last: tally.last.map(|asked| asked.word().to_owned()),
        mean_ms: if tally.asked == 0 { 0.0 } else { millis(tally.time) / tally.asked as f64 },
        cpu_ms: millis(tally.cpu),
    }
}

fn statement(row: &ServerStatement) -> Statement {
    Statement {
        database: row.database.as_deref().map(str::to_owned),
        user: row.user.as_deref().map(str::to_owned),
        id: row.id.as_ref().to_owned(),
        fingerprint: row.digest.hex(),
        text: row.digest.text.as_ref().to_owned(),
        calls: row.total.calls,
        rows: row.total.rows,
        exec_ms: millis(row.total.exec_time),
        shared_hit: row.total.shared_hit,
        shared_read: row.total.shared_read,
    }
}
