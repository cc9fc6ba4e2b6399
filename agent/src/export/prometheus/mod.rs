//! Metrics for Prometheus: text format 0.0.4 and OpenMetrics 1.0.
//!
//! Every series of a server carries `db_system_name`, `service_instance_id` and where it listens; what else is known about it is in
//! `querylens_server_info`, and the text of a statement in `querylens_statement_info`, to be joined where needed. The latency histogram
//! counts all executions, failed ones too; failures by code are in `querylens_statement_errors_total`. Counters of a
//! statement that are zero are left out.

mod buckets;
mod collected;
#[cfg(test)]
mod parse;
mod text;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{
    InstanceSnapshot, Problem, Snapshot, StatementSnapshot, StatementStats,
    names::{Metric, RECEIVE, TRANSMIT, attribute as a, metric},
};

use super::{
    Host, OperationDurationName, Selection,
    attributes::{self, cut},
    enriched,
};

pub use buckets::Buckets;
pub use text::Format;
use text::{Labels, Writer};

/// Metrics for Prometheus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Serve `/metrics`. Default: true.
    pub enabled: bool,
    /// Statements with series of their own, for each server; the rest is counted in `_other`. A statement has about 30 series with
    /// the default buckets. Default: 200.
    #[schemars(range(min = 0, max = MAX_STATEMENTS))]
    pub max_statements: usize,
    /// Bytes of a statement's text in `querylens_statement_info`; 0 leaves the metric out. Default: 1024.
    #[schemars(range(min = 0, max = MAX_TEXT_BYTES))]
    pub query_text_bytes: usize,
    /// Bounds of the latency histogram.
    pub buckets: Buckets,
}

impl Default for Config {
    fn default() -> Config {
        Config { enabled: true, max_statements: 200, query_text_bytes: 1024, buckets: Buckets::default() }
    }
}

/// With some thirty series each, more than a Prometheus server should hold for one host.
const MAX_STATEMENTS: usize = 100_000;
/// Longer labels than this are refused or cut by what reads them.
const MAX_TEXT_BYTES: usize = 65_536;

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let statements = Problem::out_of_range("max_statements", &self.max_statements, 0..=MAX_STATEMENTS);
        let text = Problem::out_of_range("query_text_bytes", &self.query_text_bytes, 0..=MAX_TEXT_BYTES);
        statements.into_iter().chain(text)
    }
}

/// Renders snapshots for Prometheus. Keeps which statements have series of their own.
#[derive(Debug)]
pub struct Exporter {
    config: Config,
    duration: &'static Metric,
    host: Host,
    selection: Selection,
}

impl Exporter {
    /// An exporter for this host.
    pub fn new(config: Config, duration: OperationDurationName, host: Host) -> Exporter {
        let selection = Selection::new(config.max_statements);
        Exporter { config, duration: duration.metric(), host, selection }
    }

    /// All metrics in `format`.
    pub fn render(&mut self, snapshot: &Snapshot, format: Format) -> String {
        let statements = self.selection.apply(snapshot);
        let mut servers: Vec<Server<'_>> = Vec::with_capacity(snapshot.instances.len());
        for (server, rows) in snapshot.instances.iter().zip(statements) {
            let labels = identity(server, &self.host, &servers);
            let statements = rows.into_iter().map(|row| (labels.with(&attributes::statement(&row)), row)).collect();
            servers.push(Server { server, labels, statements });
        }
        let mut out = Writer::new(format);
        self.write_statements(&servers, &mut out);
        self.write_transactions(&servers, &mut out);
        write_servers(&servers, &mut out);
        write_joined(&servers, snapshot, &mut out);
        collected::write(&servers, snapshot, &mut out);
        write_agent(snapshot, &mut out);
        out.finish()
    }

    fn write_transactions(&self, servers: &[Server<'_>], out: &mut Writer) {
        let mut family = out.family(&metric::SERVER_TRANSACTION_DURATION);
        for Server { server, labels, .. } in servers {
            for (outcome, durations) in server.transactions.outcomes() {
                let labels = labels.with(&[(a::TRANSACTION_OUTCOME, outcome.into())]);
                let buckets = self.config.buckets.count(durations);
                family.histogram(&labels, &buckets, durations.count(), durations.sum());
            }
        }

        let mut family = out.family(&metric::SERVER_TRANSACTION_IDLE);
        for Server { server, labels, .. } in servers {
            family.sample(labels, server.transactions.idle.as_secs_f64());
        }
    }

    fn write_statements(&self, servers: &[Server<'_>], out: &mut Writer) {
        let mut family = out.family(self.duration);
        for (labels, row) in servers.iter().flat_map(|server| &server.statements) {
            let durations = row.stats.durations();
            family.histogram(labels, &self.config.buckets.count(&durations), durations.count(), durations.sum());
        }

        let mut family = out.family(&metric::STATEMENT_ERRORS);
        for (labels, row) in servers.iter().flat_map(|server| &server.statements) {
            for (code, count) in row.stats.errors_by_code().iter() {
                family.sample(&labels.with(&attributes::failure(*code)), *count);
            }
        }

        type Count = fn(&StatementStats) -> u64;
        let counters: [(&'static Metric, Count); 5] = [
            (&metric::STATEMENT_RETURNED_ROWS, |stats| stats.rows_sent),
            (&metric::STATEMENT_AFFECTED_ROWS, |stats| stats.rows_affected),
            (&metric::STATEMENT_PREPARES, |stats| stats.prepares),
            (&metric::STATEMENT_ESTIMATED, |stats| stats.estimated),
            (&metric::STATEMENT_TRUNCATED, |stats| stats.truncated),
        ];
        for (metric, count) in counters {
            let mut family = out.family(metric);
            for (labels, row) in servers.iter().flat_map(|server| &server.statements) {
                family.sample_unless_zero(labels, count(&row.stats));
            }
        }

        let mut family = out.family(&metric::STATEMENT_IO);
        for (labels, row) in servers.iter().flat_map(|server| &server.statements) {
            for (direction, bytes) in [(RECEIVE, row.stats.bytes_in), (TRANSMIT, row.stats.bytes_out)] {
                let labels = labels.with(&[(a::NETWORK_IO_DIRECTION, direction.into())]);
                family.sample_unless_zero(&labels, bytes);
            }
        }

        let statements = servers.iter().flat_map(|server| &server.statements);
        let enriched: Vec<_> = statements
            .filter_map(|(labels, row)| Some((labels, enriched::points(row.stats.known.as_deref()?))))
            .collect();
        for metric in enriched::METRICS {
            let mut family = out.family(metric);
            for (labels, points) in &enriched {
                for (_, more, value) in points.iter().filter(|(own, _, _)| own.name == metric.name) {
                    family.sample(&labels.with(more), *value);
                }
            }
        }

        if self.config.query_text_bytes > 0 {
            let mut family = out.family(&metric::STATEMENT_INFO);
            for server in servers {
                // Statements are ordered by fingerprint: those of several databases or users share one text.
                let mut last = None;
                for (_, row) in &server.statements {
                    if last.replace(row.digest.fingerprint) != Some(row.digest.fingerprint) {
                        let text = cut(&row.digest.text, self.config.query_text_bytes);
                        let info = [(a::QUERY_FINGERPRINT, row.digest.hex().into()), (a::DB_QUERY_TEXT, text.into())];
                        family.sample(&server.labels.with(&info), 1u64);
                    }
                }
            }
        }
    }
}

/// A server with the labels of its series, and its statements with theirs.
struct Server<'a> {
    server: &'a InstanceSnapshot,
    labels: Labels,
    statements: Vec<(Labels, Cow<'a, StatementSnapshot>)>,
}

/// Labels that tell a server from those `before` it. Two processes may share a service instance id for a moment, while one replaces the
/// other; the process id then keeps the series apart, since one duplicate makes Prometheus drop samples.
fn identity(server: &InstanceSnapshot, host: &Host, before: &[Server<'_>]) -> Labels {
    let instance = &server.instance;
    let name = [
        (a::DB_SYSTEM_NAME, instance.engine.name().into()),
        (a::SERVICE_INSTANCE_ID, instance.service_instance_id.to_string().into()),
    ];
    let labels = Labels::default().with(&name).with(&attributes::endpoint(instance, host));
    match before.iter().any(|other| other.labels == labels) {
        true => labels.with(&[(a::SERVER_PID, instance.key.pid.into())]),
        false => labels,
    }
}

fn write_servers(servers: &[Server<'_>], out: &mut Writer) {
    let mut family = out.family(&metric::SERVER_SESSIONS);
    for Server { server, labels, .. } in servers {
        for (state, count) in attributes::sessions(&server.sessions) {
            family.sample(&labels.with(&[(a::SESSION_STATE, state.into())]), count);
        }
    }

    let mut family = out.family(&metric::SERVER_CONNECTS);
    for Server { server, labels, .. } in servers {
        family.sample(labels, server.connects);
    }

    let mut family = out.family(&metric::SERVER_CONNECT_FAILURES);
    for Server { server, labels, .. } in servers {
        for (code, count) in server.connect_failures.iter() {
            family.sample(&labels.with(&attributes::failure(*code)), *count);
        }
    }

    let mut family = out.family(&metric::SERVER_LOSSES);
    for Server { server, labels, .. } in servers {
        for (cause, count) in &server.losses {
            family.sample(&labels.with(&[(a::LOSS_CAUSE, (*cause).into())]), *count);
        }
    }

    let mut family = out.family(&metric::SERVER_VISIBLE);
    for Server { server, labels, .. } in servers {
        let labels = labels.with(&[(a::WIRE_STRATEGY, server.wire.strategy.into())]);
        family.sample(&labels, u64::from(server.wire.state == "visible"));
    }

    let mut family = out.family(&metric::SERVER_INFO);
    for Server { server, labels, .. } in servers {
        let mut facts = attributes::facts(&server.instance);
        facts.push((a::WIRE_STRATEGY, server.wire.strategy.into()));
        facts.push((a::SESSION_TRANSPORT, server.transport.into()));
        family.sample(&labels.with(&facts), 1u64);
    }
}

fn write_joined(servers: &[Server<'_>], snapshot: &Snapshot, out: &mut Writer) {
    let mut family = out.family(&metric::SERVER_JOINED);
    for Server { server, labels, .. } in servers {
        let joined = snapshot.collected.get(&server.instance.key).and_then(|collected| collected.joined);
        for (join, executions) in joined.iter().flat_map(|joined| joined.named()) {
            family.sample(&labels.with(&[(a::JOIN, join.into())]), executions);
        }
    }
}

fn write_agent(snapshot: &Snapshot, out: &mut Writer) {
    let agent = &snapshot.agent;
    let none = Labels::default();
    out.family(&metric::AGENT_CPU_TIME).sample(&none, agent.cpu.as_secs_f64());
    if let Some(time) = agent.program_time {
        out.family(&metric::AGENT_PROGRAM_TIME).sample(&none, time.as_secs_f64());
    }
    out.family(&metric::AGENT_MEMORY_USAGE).sample(&none, agent.rss_bytes);
    out.family(&metric::AGENT_RECORDS).sample(&none, agent.records);
    let mut family = out.family(&metric::AGENT_LOSSES);
    for (cause, count) in &agent.losses {
        family.sample(&none.with(&[(a::LOSS_CAUSE, (*cause).into())]), *count);
    }
    let uptime = snapshot.at.duration_since(snapshot.start).unwrap_or_default();
    out.family(&metric::AGENT_UPTIME).sample(&none, uptime.as_secs_f64());
    for (metric, points) in attributes::families(&snapshot.measured) {
        let mut family = out.family(metric);
        points.iter().for_each(|(attributes, value)| family.sample(&none.with(attributes), *value));
    }
    let version = none.with(&[(a::SERVICE_VERSION, env!("CARGO_PKG_VERSION").into())]);
    out.family(&metric::AGENT_INFO).sample(&version, 1u64);
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::model::{
        Digest, Listen,
        names::METRICS,
        testing::{self, HOSTILE},
    };

    fn read(config: Config, snapshot: &Snapshot) -> parse::Exposition {
        let mut exporter = Exporter::new(config, OperationDurationName::Server, Host::default());
        let text = parse::parse(&exporter.render(snapshot, Format::Text), Format::Text);
        let openmetrics = parse::parse(&exporter.render(snapshot, Format::OpenMetrics), Format::OpenMetrics);
        let samples = |read: &parse::Exposition| {
            read.0.values().flat_map(|family| family.samples.clone()).collect::<std::collections::BTreeMap<_, _>>()
        };
        assert_eq!(samples(&text), samples(&openmetrics), "both formats tell the same");
        openmetrics
    }

    const STATEMENT: &[(&str, &str)] = &[
        ("db_system_name", "postgresql"),
        ("server_address", "127.0.0.1"),
        ("server_port", "5432"),
        ("service_instance_id", "00000000-0000-0000-0000-000000001234"),
        ("db_namespace", "bench"),
        ("user_name", "app"),
        ("db_operation_name", "SELECT"),
        ("db_collection_name", "pgbench_accounts"),
        ("db_query_summary", "SELECT * FROM pgbench_accounts WHERE aid = ?"),
        ("querylens_query_fingerprint", "000000000000feed"),
    ];

    #[test]
    fn all_numbers_of_a_statement_are_there() {
        let read = read(Config::default(), &testing::busy());
        let value = |name, more: &[(&str, &str)]| read.value(name, &[STATEMENT, more].concat());
        assert_eq!(value("db_server_operation_duration_seconds_count", &[]), 6.0);
        assert!((value("db_server_operation_duration_seconds_sum", &[]) - 2.051).abs() < 1e-9);
        // 1 ms | 2, 3 ms | 5 ms | 40 ms | 2 s
        for (le, count) in
            [("0.0009765625", 0.0), ("0.001953125", 1.0), ("0.00390625", 3.0), ("0.0625", 5.0), ("2.0", 6.0)]
        {
            assert_eq!(value("db_server_operation_duration_seconds_bucket", &[("le", le)]), count, "le={le}");
        }
        let errors = "querylens_statement_errors_total";
        assert_eq!(value(errors, &[("db_response_status_code", "42P01"), ("error_type", "42P01")]), 2.0);
        assert_eq!(value(errors, &[("error_type", "_OTHER")]), 1.0);
        assert_eq!(value("querylens_statement_returned_rows_total", &[]), 300.0);
        assert_eq!(value("querylens_statement_affected_rows_total", &[]), 7.0);
        assert_eq!(value("querylens_statement_io_bytes_total", &[("network_io_direction", "receive")]), 1_000.0);
        assert_eq!(value("querylens_statement_io_bytes_total", &[("network_io_direction", "transmit")]), 50_000.0);
        assert_eq!(value("querylens_statement_prepares_total", &[]), 4.0);
        assert_eq!(value("querylens_statement_estimated_total", &[]), 2.0);
        assert_eq!(value("querylens_statement_truncated_total", &[]), 1.0);
        let info = [("db_query_text", "SELECT * FROM pgbench_accounts WHERE aid = ?")];
        assert_eq!(read.value("querylens_statement_info", &info), 1.0);
    }

    #[test]
    fn servers_and_the_agent_are_there() {
        let read = read(Config::default(), &testing::busy());
        let first = ("service_instance_id", "00000000-0000-0000-0000-000000001234");
        let second = ("service_instance_id", "00000000-0000-0000-0000-000000005678");
        assert_eq!(read.value("querylens_server_sessions", &[first, ("querylens_session_state", "idle")]), 5.0);
        assert_eq!(read.values("querylens_server_sessions", &[first]).len(), 7);
        assert_eq!(read.value("querylens_server_connects_total", &[first]), 12.0);
        assert_eq!(read.value("querylens_server_connect_failures_total", &[("db_response_status_code", "28P01")]), 2.0);
        let transactions = |outcome| {
            let labels = [first, ("querylens_transaction_outcome", outcome)];
            read.value("querylens_server_transaction_duration_seconds_count", &labels)
        };
        assert_eq!((transactions("committed"), transactions("rolled_back")), (2.0, 1.0));
        assert_eq!(read.value("querylens_server_transaction_idle_seconds_total", &[first]), 1.5);
        assert_eq!(read.value("querylens_server_losses_total", &[("querylens_loss_cause", "desynchronised")]), 6.0);
        assert_eq!(read.value("querylens_server_visible", &[first, ("querylens_wire_strategy", "boundary")]), 1.0);
        assert_eq!(read.value("querylens_server_visible", &[second, ("querylens_wire_strategy", "none")]), 0.0);
        let facts = [
            second,
            ("server_address", "/run/mysqld/mysqld.sock"),
            ("container_id", "c0ffee"),
            ("k8s_pod_uid", "pod-1"),
        ];
        assert_eq!(read.value("querylens_server_info", &facts), 1.0);
        assert_eq!(read.value("querylens_agent_cpu_time_seconds_total", &[]), 1.25);
        assert_eq!(read.value("querylens_agent_program_time_seconds_total", &[]), 0.075);
        assert_eq!(read.value("querylens_agent_memory_usage_bytes", &[]), f64::from(32 << 20));
        assert_eq!(read.value("querylens_agent_records_total", &[]), 1_000.0);
        assert_eq!(read.value("querylens_agent_losses_total", &[("querylens_loss_cause", "truncated")]), 9.0);
        assert_eq!(read.value("querylens_agent_uptime_seconds", &[]), 60.5);
        assert_eq!(read.value("querylens_agent_info", &[("service_version", env!("CARGO_PKG_VERSION"))]), 1.0);
        let family = &read.0["querylens_agent_cpu_time_seconds"];
        assert_eq!((family.kind.as_str(), family.unit.as_deref()), ("counter", Some("seconds")));
        assert_eq!(family.help, "CPU time of the agent's process, user and system.");
    }

    /// Guarantees: what is emitted is in the catalogue with its attributes, and all of the catalogue is emitted (but for the other name).
    #[test]
    fn the_catalogue_is_complete() {
        let read = read(Config::default(), &testing::busy());
        let underscored = |name: &str| name.replace('.', "_");
        let mut missing: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        for (name, family) in &read.0 {
            let metric = METRICS
                .iter()
                .find(|metric| {
                    let unit = match metric.unit {
                        "s" => "_seconds",
                        "By" => "_bytes",
                        _ => "",
                    };
                    underscored(metric.name) + unit == *name
                })
                .expect(name);
            missing.retain(|name| *name != metric.name);
            let identity = ["service_instance_id", "server_address", "server_port", "db_system_name", "le"];
            for (_, labels) in family.samples.keys() {
                for label in labels.keys().filter(|label| !identity.contains(&label.as_str())) {
                    assert!(metric.attributes.iter().any(|known| underscored(known) == *label), "{name}: {label}");
                }
            }
        }
        assert_eq!(missing, ["db.client.operation.duration"]);
    }

    #[test]
    fn hostile_names_stay_in_their_labels() {
        let readable = "a\"b\\c\nd\u{fffd}e\tf\u{fffd}g\u{fffd}[31mh{}=,'é";
        let mut row = testing::statement(HOSTILE, HOSTILE, 7, HOSTILE);
        row.stats.ok.record(Duration::from_millis(1));
        let mut snapshot = testing::with_statements(vec![row]);
        let mut instance = (*snapshot.instances[0].instance).clone();
        instance.listen = vec![Listen::Unix(HOSTILE.into())];
        instance.version = Some(HOSTILE.into());
        let not_utf8 = std::os::unix::ffi::OsStringExt::from_vec(b"/data/\xff\"x".to_vec());
        instance.data_dir = Some(std::ffi::OsString::into(not_utf8));
        snapshot.instances[0].instance = Arc::new(instance);
        let read = read(Config::default(), &snapshot);
        let labels = [("db_namespace", readable), ("user_name", readable), ("db_query_summary", readable)];
        assert_eq!(read.value("db_server_operation_duration_seconds_count", &labels), 1.0);
        assert_eq!(read.value("querylens_statement_info", &[("db_query_text", readable)]), 1.0);
        let facts = [("server_address", readable), ("querylens_server_data_directory", "/data/\u{fffd}\"x")];
        assert_eq!(read.value("querylens_server_info", &facts), 1.0);
    }

    #[test]
    fn beyond_the_bound_everything_is_in_other_and_sums_are_exact() {
        let mut rows: Vec<_> = (10..40).map(|print| testing::statement("bench", "app", print, "SELECT 1")).collect();
        for (at, row) in rows.iter_mut().enumerate() {
            (0..=at).for_each(|_| row.stats.ok.record(Duration::from_millis(1)));
        }
        let all: usize = (1..=30).sum();
        let snapshot = testing::with_statements(rows);
        let read = read(Config { max_statements: 10, ..Config::default() }, &snapshot);
        let counts = read.values("db_server_operation_duration_seconds_count", &[]);
        assert_eq!(counts.len(), 11);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<f64>(), all as f64);
        let fingerprint = Digest::other().hex();
        let other = [("db_query_summary", "_other"), ("querylens_query_fingerprint", &*fingerprint)];
        assert_eq!(read.value("db_server_operation_duration_seconds_count", &other), f64::from((1..=20).sum::<u32>()));
    }

    #[test]
    fn texts_are_cut_at_a_character_and_can_be_left_out() {
        let row = testing::statement("bench", "app", 7, "SELECT 'ééé'");
        let snapshot = testing::with_statements(vec![row]);
        let cut = read(Config { query_text_bytes: 11, ..Config::default() }, &snapshot);
        assert_eq!(cut.value("querylens_statement_info", &[("db_query_text", "SELECT 'é")]), 1.0);
        let none = read(Config { query_text_bytes: 0, ..Config::default() }, &snapshot);
        assert!(none.values("querylens_statement_info", &[]).is_empty());
    }

    /// Scenario: one server replaces another; for a moment both run with one identity. Guarantees: no series appears twice (the reader
    /// refuses that).
    #[test]
    fn servers_with_one_identity_stay_apart() {
        let mut snapshot = testing::busy();
        let mut twin = snapshot.instances[0].clone();
        let mut instance = (*twin.instance).clone();
        instance.key.pid += 1;
        twin.instance = Arc::new(instance);
        snapshot.instances.push(twin);
        let read = read(Config::default(), &snapshot);
        assert_eq!(read.value("querylens_server_connects_total", &[("querylens_server_pid", "4712")]), 12.0);
    }

    #[test]
    fn a_wildcard_address_is_the_hosts_name() {
        let mut snapshot = testing::busy();
        let mut instance = (*snapshot.instances[0].instance).clone();
        instance.listen = vec![Listen::Tcp(([0, 0, 0, 0], 5432).into())];
        snapshot.instances[0].instance = Arc::new(instance);
        let host = Host { name: Some("db7".into()), id: None };
        let mut exporter = Exporter::new(Config::default(), OperationDurationName::Client, host);
        let read = parse::parse(&exporter.render(&snapshot, Format::Text), Format::Text);
        let at = [("server_address", "db7"), ("server_port", "5432")];
        assert_eq!(read.values("db_client_operation_duration_seconds_count", &at).len(), 2);
    }

    #[test]
    fn an_empty_snapshot_is_valid_too() {
        let mut snapshot = testing::with_statements(Vec::new());
        snapshot.instances.clear();
        let read = read(Config::default(), &snapshot);
        assert!(read.0.keys().all(|name| name.starts_with("querylens_agent")));
    }
}
