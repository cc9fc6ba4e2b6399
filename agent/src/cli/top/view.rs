//! Two snapshots in, what `top` shows out: totals of the later one, and rates from their difference.

use std::{collections::HashMap, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::model::{InstanceSnapshot, SessionCounts, Snapshot, StatementSnapshot, printable};

/// Identity of an instance, kept over a restart of the server.
pub(super) type InstanceKey = Uuid;

/// Identity of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StatementKey {
    pub(super) instance: InstanceKey,
    pub(super) fingerprint: u64,
    pub(super) database: Option<Arc<str>>,
    pub(super) user: Option<Arc<str>>,
}

/// What the agent costs and loses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AgentRow {
    pub(super) uptime: Duration,
    /// CPUs that the agent's process keeps busy.
    pub(super) cpu: Option<f64>,
    /// CPUs that the eBPF programs keep busy on behalf of the servers.
    pub(super) programs: Option<f64>,
    pub(super) rss_bytes: u64,
    pub(super) records: Option<f64>,
    /// Cause, number since the start, rate.
    pub(super) losses: Vec<(String, u64, Option<f64>)>,
}

/// A line of the list of instances.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InstanceRow {
    pub(super) key: InstanceKey,
    pub(super) label: String,
    pub(super) version: String,
    /// Container runtime, or that it runs on the host itself.
    pub(super) place: String,
    /// Attach strategy, or why nothing is seen.
    pub(super) wire: String,
    pub(super) hidden: bool,
    pub(super) sessions: u64,
    pub(super) active: u64,
    pub(super) rate: Option<f64>,
    pub(super) errors: Option<f64>,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
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
    pub(super) total: Duration,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) rows: u64,
    pub(super) mean: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
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
    pub(super) fn new(before: Option<&Snapshot>, now: &Snapshot) -> View {
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

/// Counters of the earlier snapshot, and the time since.
struct Rates<'a> {
    secs: f64,
    agent: &'a Snapshot,
    instances: HashMap<InstanceKey, &'a InstanceSnapshot>,
    statements: HashMap<StatementKey, u64>,
}

impl<'a> Rates<'a> {
    /// `None` where the clock stood still or was set back.
    fn between(before: &'a Snapshot, now: &Snapshot) -> Option<Rates<'a>> {
        let secs = now.at.duration_since(before.at).ok().filter(|elapsed| !elapsed.is_zero())?.as_secs_f64();
        let instances = before.instances.iter().map(|row| (row.instance.service_instance_id, row)).collect();
        let statements = before
            .instances
            .iter()
            .flat_map(|instance| {
                instance.statements.iter().map(move |row| (key(instance, row), row.stats.executions()))
            })
            .collect();
        Some(Rates { secs, agent: before, instances, statements })
    }

    /// Events in a second. A counter that fell has begun anew, at zero.
    fn rate(&self, before: u64, now: u64) -> f64 {
        now.checked_sub(before).unwrap_or(now) as f64 / self.secs
    }

    /// Share of the time, likewise.
    fn share(&self, before: Duration, now: Duration) -> f64 {
        now.checked_sub(before).unwrap_or(now).as_secs_f64() / self.secs
    }
}

fn key(instance: &InstanceSnapshot, statement: &StatementSnapshot) -> StatementKey {
    StatementKey {
        instance: instance.instance.service_instance_id,
        fingerprint: statement.digest.fingerprint,
        database: statement.database.clone(),
        user: statement.user.clone(),
    }
}

fn agent_row(now: &Snapshot, rates: Option<&Rates<'_>>) -> AgentRow {
    let (agent, before) = (&now.agent, rates.map(|rates| (rates, &rates.agent.agent)));
    let losses = agent.losses.iter().map(|(cause, count)| {
        let rate = before.map(|(rates, before)| rates.rate(before.losses.get(cause).copied().unwrap_or(0), *count));
        (cause.to_string(), *count, rate)
    });
    AgentRow {
        uptime: now.at.duration_since(now.start).unwrap_or_default(),
        cpu: before.map(|(rates, before)| rates.share(before.cpu, agent.cpu)),
        programs: before.and_then(|(rates, before)| Some(rates.share(before.program_time?, agent.program_time?))),
        rss_bytes: agent.rss_bytes,
        records: before.map(|(rates, before)| rates.rate(before.records, agent.records)),
        losses: losses.filter(|(_, count, _)| *count > 0).collect(),
    }
}

fn instance_row(now: &InstanceSnapshot, rates: Option<&Rates<'_>>) -> InstanceRow {
    let instance = &now.instance;
    let before = rates.and_then(|rates| Some((rates, *rates.instances.get(&instance.service_instance_id)?)));
    let durations = now.durations();
    let hidden = now.wire.state == "hidden";
    let place = instance.container.as_ref().map_or_else(
        || "host".to_owned(),
        |container| match &container.id {
            // The first twelve digits are what the runtimes' own tools show.
            Some(id) => format!("{} {}", container.runtime, id.chars().take(12).collect::<String>()),
            None => container.runtime.clone(),
        },
    );
    InstanceRow {
        key: instance.service_instance_id,
        label: printable(&instance.label()).into_owned(),
        version: printable(instance.version.as_deref().unwrap_or(super::format::UNKNOWN)).into_owned(),
        place: printable(&place).into_owned(),
        wire: printable(if hidden { &now.wire.reason } else { now.wire.strategy }).into_owned(),
        hidden,
        sessions: all_sessions(&now.sessions),
        active: now.sessions.active,
        rate: before.map(|(rates, before)| rates.rate(before.executions(), now.executions())),
        errors: before.map(|(rates, before)| rates.rate(before.errors(), now.errors())),
        p50: durations.quantile(0.5),
        p99: durations.quantile(0.99),
    }
}

fn all_sessions(sessions: &SessionCounts) -> u64 {
    let SessionCounts { active, idle, idle_in_transaction, idle_in_failed_transaction, starting, unknown, opaque } =
        *sessions;
    active + idle + idle_in_transaction + idle_in_failed_transaction + starting + unknown + opaque
}

fn statement_row(
    instance: &InstanceSnapshot,
    label: &str,
    now: &StatementSnapshot,
    rates: Option<&Rates<'_>>,
) -> StatementRow {
    let key = key(instance, now);
    let stats = &now.stats;
    let durations = stats.durations();
    // A statement that was not there before has begun at zero, unless its whole instance is new.
    let before = rates
        .filter(|rates| rates.instances.contains_key(&key.instance))
        .map(|rates| (rates, rates.statements.get(&key).copied().unwrap_or(0)));
    let mut codes: Vec<(String, u64)> = stats
        .failed
        .iter()
        .map(|(code, durations)| (code.map_or("other".into(), |code| code.to_string()), durations.count()))
        .collect();
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let name = |name: &Option<Arc<str>>| printable(name.as_deref().unwrap_or(super::format::UNKNOWN)).into_owned();
    StatementRow {
        instance: label.to_owned(),
        database: name(&now.database),
        user: name(&now.user),
        text: printable(&now.digest.text).into_owned(),
        summary: printable(&now.digest.summary).into_owned(),
        rate: before.map(|(rates, before)| rates.rate(before, stats.executions())),
        total: durations.sum(),
        calls: stats.executions(),
        errors: stats.errors(),
        rows: stats.rows_sent + stats.rows_affected,
        mean: durations.mean(),
        p50: durations.quantile(0.5),
        p99: durations.quantile(0.99),
        codes,
        key,
    }
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
