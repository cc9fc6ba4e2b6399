//! Two states of the agent in, what `top` shows out: totals of the later one, and rates from their difference.

use std::{collections::HashMap, time::Duration};

use crate::cli::format::{self, UNKNOWN};
use crate::{
    health::status::{Agent, Instance, Sessions, Statement, Status},
    model::{HumanDuration, printable},
};

/// Identity of an instance, kept over a restart of the server.
pub(super) type InstanceKey = String;

/// Identity of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StatementKey {
    pub(super) instance: InstanceKey,
    pub(super) fingerprint: String,
    pub(super) database: Option<String>,
    pub(super) user: Option<String>,
}

/// What the agent costs and loses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AgentRow {
    pub(super) uptime: HumanDuration,
    /// CPUs that the agent's process keeps busy.
    pub(super) cpu: Option<f64>,
    /// CPUs that the eBPF programs keep busy on behalf of the servers.
    pub(super) programs: Option<f64>,
    pub(super) rss_mib: f64,
    pub(super) records: Option<f64>,
    /// Cause, number since the start, rate.
    pub(super) losses: Vec<(String, u64, Option<f64>)>,
}

impl AgentRow {
    /// What it costs, in one line.
    pub(super) fn cost(&self) -> String {
        format!(
            "up {}  agent cpu {}  kernel cpu {}  memory {}  records {}/s",
            self.uptime.brief(),
            format::percent(self.cpu),
            format::percent(self.programs),
            format::mebibytes(self.rss_mib),
            format::rate(self.records),
        )
    }

    /// What it lost, in one line.
    pub(super) fn losses(&self) -> String {
        if self.losses.is_empty() {
            return "no losses".into();
        }
        let causes = self.losses.iter().map(|(cause, number, now)| match now {
            Some(now) if *now > 0.0 => format!("{cause} {} (+{}/s)", format::count(*number), format::rate(Some(*now))),
            _ => format!("{cause} {}", format::count(*number)),
        });
        format!("losses: {}", causes.collect::<Vec<_>>().join(", "))
    }
}

/// A line of the list of instances.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InstanceRow {
    pub(super) key: InstanceKey,
    pub(super) label: String,
    pub(super) version: String,
    /// The container it runs in, or that it runs on the host itself.
    pub(super) place: String,
    /// Attach strategy, or why nothing is seen.
    pub(super) wire: String,
    pub(super) hidden: bool,
    pub(super) sessions: u64,
    pub(super) active: u64,
    pub(super) rate: Option<f64>,
    pub(super) errors: Option<f64>,
    pub(super) p50: HumanDuration,
    pub(super) p99: HumanDuration,
}

/// A line of the table of statements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StatementRow {
    pub(super) key: StatementKey,
    pub(super) instance: String,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) text: String,
    pub(super) summary: String,
    pub(super) rate: Option<f64>,
    pub(super) total: HumanDuration,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) rows: u64,
    pub(super) mean: HumanDuration,
    pub(super) p50: HumanDuration,
    pub(super) p99: HumanDuration,
    /// Error code and number, the most frequent first.
    pub(super) codes: Vec<(String, u64)>,
}

impl StatementRow {
    /// Whether `needle`, in lower case, is within what is shown of the statement.
    pub(super) fn contains(&self, needle: &str) -> bool {
        [&self.text, &self.summary, &self.database, &self.user, &self.instance]
            .into_iter()
            .any(|text| text.to_lowercase().contains(needle))
    }
}

/// Everything `top` shows, at one moment. All texts are safe to print.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) agent: AgentRow,
    pub(super) instances: Vec<InstanceRow>,
    pub(super) statements: Vec<StatementRow>,
}

impl View {
    /// What `now` shows; rates are those since `before`.
    pub(super) fn new(before: Option<&Status>, now: &Status) -> View {
        let rates = before.and_then(|before| Rates::between(before, now));
        let rates = rates.as_ref();
        let mut instances: Vec<InstanceRow> =
            now.instances.iter().map(|instance| instance_row(instance, rates)).collect();
        tell_apart(&mut instances);
        let statements = now.instances.iter().zip(&instances).flat_map(|(instance, row)| {
            instance.statements.iter().map(|statement| statement_row(instance, &row.label, statement, rates))
        });
        View { agent: agent_row(now, rates), statements: statements.collect(), instances }
    }
}

/// Counters of the earlier state, and the time since.
struct Rates<'a> {
    secs: f64,
    agent: &'a Agent,
    instances: HashMap<&'a str, &'a Instance>,
    executions: HashMap<StatementKey, u64>,
}

impl<'a> Rates<'a> {
    /// `None` where the clock stood still or was set back.
    fn between(before: &'a Status, now: &Status) -> Option<Rates<'a>> {
        let secs = now.at - before.at;
        let instances = before.instances.iter().map(|row| (row.service_instance_id.as_str(), row)).collect();
        let executions = before
            .instances
            .iter()
            .flat_map(|instance| instance.statements.iter().map(move |row| (key(instance, row), row.executions)))
            .collect();
        (secs > 0.0).then_some(Rates { secs, agent: &before.agent, instances, executions })
    }

    /// Events in a second.
    fn rate(&self, before: u64, now: u64) -> f64 {
        self.rate_of(before as f64, now as f64)
    }

    /// Share of the time that was spent, of milliseconds.
    fn share(&self, before: f64, now: f64) -> f64 {
        self.rate_of(before, now) / 1e3
    }

    /// A counter that fell has begun anew, at zero.
    fn rate_of(&self, before: f64, now: f64) -> f64 {
        (if now < before { now } else { now - before }) / self.secs
    }
}

fn key(instance: &Instance, statement: &Statement) -> StatementKey {
    StatementKey {
        instance: instance.service_instance_id.clone(),
        fingerprint: statement.fingerprint.clone(),
        database: statement.database.clone(),
        user: statement.user.clone(),
    }
}

fn agent_row(now: &Status, rates: Option<&Rates<'_>>) -> AgentRow {
    let agent = &now.agent;
    let losses = agent.losses.iter().filter(|(_, count)| **count > 0).map(|(cause, count)| {
        let before = |rates: &Rates<'_>| rates.agent.losses.get(cause).copied().unwrap_or(0);
        (printable(cause).into_owned(), *count, rates.map(|rates| rates.rate(before(rates), *count)))
    });
    AgentRow {
        uptime: seconds(now.uptime_s),
        cpu: rates.map(|rates| rates.share(rates.agent.cpu_ms, agent.cpu_ms)),
        programs: rates.and_then(|rates| Some(rates.share(rates.agent.program_ms?, agent.program_ms?))),
        rss_mib: agent.rss_mib,
        records: rates.map(|rates| rates.rate(rates.agent.records, agent.records)),
        losses: losses.collect(),
    }
}

fn instance_row(now: &Instance, rates: Option<&Rates<'_>>) -> InstanceRow {
    let before = rates.and_then(|rates| Some((rates, *rates.instances.get(now.service_instance_id.as_str())?)));
    let hidden = now.wire.state == "hidden";
    let place = match &now.container {
        None => "host".to_owned(),
        Some(container) => match &container.id {
            // The first twelve digits are what the runtimes' own tools show.
            Some(id) => format!("{} {}", container.runtime, id.chars().take(12).collect::<String>()),
            None => container.runtime.clone(),
        },
    };
    InstanceRow {
        key: now.service_instance_id.clone(),
        label: printable(&label(now)).into_owned(),
        version: printable(now.version.as_deref().unwrap_or(UNKNOWN)).into_owned(),
        place: printable(&place).into_owned(),
        wire: printable(if hidden { &now.wire.reason } else { &now.wire.strategy }).into_owned(),
        hidden,
        sessions: all(&now.sessions),
        active: now.sessions.active,
        rate: before.map(|(rates, before)| rates.rate(before.executions, now.executions)),
        errors: before.map(|(rates, before)| rates.rate(before.errors, now.errors)),
        p50: micros(now.p50_us),
        p99: micros(now.p99_us),
    }
}

/// The engine or pooler and its port, or its socket where it has none.
fn label(instance: &Instance) -> String {
    let product = instance.pooler.as_ref().unwrap_or(&instance.engine);
    let tcp = instance.listen.iter().find_map(|listen| listen.strip_prefix("tcp:")?.rsplit(':').next());
    let unix = || instance.listen.iter().find_map(|listen| listen.strip_prefix("unix:"));
    match tcp.or_else(unix) {
        Some(place) => format!("{product}:{place}"),
        None => format!("{product}:pid{}", instance.pid),
    }
}

fn all(sessions: &Sessions) -> u64 {
    let Sessions { active, idle, idle_in_transaction, idle_in_failed_transaction, starting, unknown, opaque } =
        *sessions;
    active + idle + idle_in_transaction + idle_in_failed_transaction + starting + unknown + opaque
}

fn statement_row(instance: &Instance, label: &str, now: &Statement, rates: Option<&Rates<'_>>) -> StatementRow {
    let key = key(instance, now);
    // A statement that was not there before has begun at zero, unless its whole instance is new.
    let before = rates
        .filter(|rates| rates.instances.contains_key(key.instance.as_str()))
        .map(|rates| (rates, rates.executions.get(&key).copied().unwrap_or(0)));
    let mut codes: Vec<(String, u64)> =
        now.error_codes.iter().map(|(code, count)| (printable(code).into_owned(), *count)).collect();
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let name = |name: &Option<String>| printable(name.as_deref().unwrap_or(UNKNOWN)).into_owned();
    StatementRow {
        instance: label.to_owned(),
        database: name(&now.database),
        user: name(&now.user),
        text: printable(&now.text).into_owned(),
        summary: printable(&now.summary).into_owned(),
        rate: before.map(|(rates, before)| rates.rate(before, now.executions)),
        total: micros(now.total_ms * 1e3),
        calls: now.executions,
        errors: now.errors,
        rows: now.rows_sent + now.rows_affected,
        mean: micros(now.mean_us),
        p50: micros(now.p50_us),
        p99: micros(now.p99_us),
        codes,
        key,
    }
}

fn micros(micros: f64) -> HumanDuration {
    seconds(micros / 1e6)
}

/// Zero for what is no duration, as a number from another process may be.
fn seconds(seconds: f64) -> HumanDuration {
    HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Instances in different network namespaces may have the same label.
fn tell_apart(instances: &mut [InstanceRow]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for row in instances {
        let number = seen.entry(row.label.clone()).and_modify(|number| *number += 1).or_insert(1);
        if *number > 1 {
            row.label = format!("{}#{number}", row.label);
        }
    }
}
