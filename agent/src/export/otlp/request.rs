//! From a snapshot to a request: one resource for each server and one for the agent.

use std::{
    borrow::Cow,
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        self as otlp, AggregationTemporality, ExponentialHistogramDataPoint, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, exponential_histogram_data_point::Buckets, number_data_point,
    },
    resource::v1::Resource,
};
use uuid::Uuid;

use crate::{
    export::{
        Host, OperationDurationName, Selection,
        attributes::{self, Attributes, Value, cut},
        enriched,
    },
    model::{
        self, Code, Collected, Histogram, Instance, InstanceSnapshot, ServerKey, Snapshot, StatementSnapshot,
        StatementStats, database_names,
        histogram::{OFFSET, SCALE},
        names::{AGENT, Instrument, Metric, RECEIVE, TRANSMIT, attribute as a, metric},
    },
};

use super::Config;

/// All sums and histograms are cumulative. Delta temporality is a matter of this place alone: it needs the previous snapshot subtracted
/// from the present one before points are made, and that snapshot's time as their start.
const TEMPORALITY: AggregationTemporality = AggregationTemporality::Cumulative;

/// Builds requests. Remembers which statements have series of their own, and since when each server's values count.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    duration: &'static Metric,
    host: Host,
    selection: Selection,
    /// Start of each server's cumulative values: a server that was restarted keeps its resource but counts from zero.
    starts: HashMap<ServerKey, SystemTime>,
    /// When the previous snapshot was taken.
    previous: Option<SystemTime>,
}

impl Builder {
    /// A builder for this host.
    pub fn new(config: &Config, duration: OperationDurationName, host: Host) -> Builder {
        Builder {
            config: config.clone(),
            duration: duration.metric(),
            host,
            selection: Selection::new(config.max_statements),
            starts: HashMap::new(),
            previous: None,
        }
    }

    /// Everything in `snapshot`, as one request of whatever size.
    pub fn request(&mut self, snapshot: &Snapshot) -> ExportMetricsServiceRequest {
        // What was not there in the previous snapshot has counted from zero since then.
        let since = self.previous.replace(snapshot.at).unwrap_or(snapshot.start);
        self.starts.retain(|key, _| snapshot.instances.iter().any(|server| server.instance.key == *key));
        let statements = self.selection.apply(snapshot);
        let mut resources = Vec::with_capacity(snapshot.instances.len() + 1);
        for (server, rows) in snapshot.instances.iter().zip(statements) {
            let start = *self.starts.entry(server.instance.key).or_insert(since);
            let span = Span { start: nanos(start), end: nanos(snapshot.at) };
            resources.push(self.server(server, &rows, snapshot.collected.get(&server.instance.key), span));
        }
        let span = Span { start: nanos(snapshot.start), end: nanos(snapshot.at) };
        resources.push(self.agent(snapshot, span));
        ExportMetricsServiceRequest { resource_metrics: resources }
    }

    fn server(
        &self,
        server: &InstanceSnapshot,
        rows: &[Cow<'_, StatementSnapshot>],
        collected: Option<&Collected>,
        span: Span,
    ) -> ResourceMetrics {
        let engine = server.instance.engine.name();

        let mut out = Metrics { span, system: Some(engine), metrics: Vec::new() };
        self.statements(rows, &mut out);
        let sessions = attributes::sessions(&server.sessions);
        out.number(
            &metric::SERVER_SESSIONS,
            sessions.map(|(state, count)| (vec![(a::SESSION_STATE, state.into())], count)),
        );
        out.number(&metric::SERVER_CONNECTS, [(Vec::new(), server.connects)]);
        let failures = server.connect_failures.iter();
        out.number(
            &metric::SERVER_CONNECT_FAILURES,
            failures.map(|(code, count)| (attributes::failure(*code), *count)),
        );
        let outcomes = server.transactions.outcomes().into_iter().filter(|(_, durations)| durations.count() > 0);
        out.histogram(
            &metric::SERVER_TRANSACTION_DURATION,
            outcomes.map(|(outcome, durations)| (vec![(a::TRANSACTION_OUTCOME, outcome.into())], durations)),
        );
        out.number(&metric::SERVER_TRANSACTION_IDLE, [(Vec::new(), server.transactions.idle.as_secs_f64())]);
        out.number(&metric::SERVER_LOSSES, by_cause(&server.losses));
        let visible = u64::from(server.wire.state == "visible");
        out.number(&metric::SERVER_VISIBLE, [(vec![(a::WIRE_STRATEGY, server.wire.strategy.into())], visible)]);
        let joined = collected.and_then(|collected| collected.joined);
        out.number(
            &metric::SERVER_JOINED,
            joined.iter().flat_map(|joined| joined.named()).map(|(join, count)| (vec![(a::JOIN, join.into())], count)),
        );
        let mut collected = collected.map(attributes::collected).unwrap_or_default();
        for metric in database_names::all() {
            out.number(metric, collected.remove(metric.name).unwrap_or_default());
        }
        resource_metrics(self.server_resource(&server.instance), out)
    }

    /// What is said of a server with everything that comes from it.
    pub(super) fn server_resource(&self, instance: &Instance) -> Resource {
        let mut attributes: Attributes<'_> = vec![
            (a::SERVICE_NAME, instance.product().into()),
            (a::SERVICE_INSTANCE_ID, instance.service_instance_id.to_string().into()),
            (a::DB_SYSTEM_NAME, instance.engine.name().into()),
        ];
        attributes.extend(attributes::endpoint(instance, &self.host));
        attributes.extend(attributes::facts(instance));
        self.resource(attributes)
    }

    /// Bytes of a statement's text that may be sent.
    pub(super) fn text_bytes(&self) -> usize {
        self.config.query_text_bytes
    }

    fn statements(&self, rows: &[Cow<'_, StatementSnapshot>], out: &mut Metrics) {
        let with = |row, more: Attributes<'static>| -> Attributes<'_> {
            attributes::statement(row).into_iter().chain(more).collect()
        };
        let durations = rows.iter().flat_map(|row| {
            let text = cut(&row.digest.text, self.config.query_text_bytes);
            let text = (!text.is_empty()).then(|| (a::DB_QUERY_TEXT, Value::from(text)));
            outcomes(&row.stats).map(move |(failure, histogram)| {
                (attributes::statement(row).into_iter().chain(text.clone()).chain(failure).collect(), histogram)
            })
        });
        out.histogram(self.duration, durations);

        let errors = rows.iter().flat_map(|row| {
            let errors: Vec<_> = row.stats.errors_by_code().iter().map(|(code, count)| (*code, *count)).collect();
            errors.into_iter().map(move |(code, count)| (with(row, attributes::failure(code)), count))
        });
        out.number(&metric::STATEMENT_ERRORS, errors);

        type Count = fn(&StatementStats) -> u64;
        let counters: [(&'static Metric, Count); 5] = [
            (&metric::STATEMENT_RETURNED_ROWS, |stats| stats.rows_sent),
            (&metric::STATEMENT_AFFECTED_ROWS, |stats| stats.rows_affected),
            (&metric::STATEMENT_PREPARES, |stats| stats.prepares),
            (&metric::STATEMENT_ESTIMATED, |stats| stats.estimated),
            (&metric::STATEMENT_TRUNCATED, |stats| stats.truncated),
        ];
        for (metric, count) in counters {
            let points = rows.iter().map(|row| (with(row, Vec::new()), count(&row.stats)));
            out.number(metric, points.filter(|(_, count)| *count > 0));
        }
        let io = rows.iter().flat_map(|row| {
            let directions = [(RECEIVE, row.stats.bytes_in), (TRANSMIT, row.stats.bytes_out)];
            let points =
                directions.map(|(name, bytes)| (with(row, vec![(a::NETWORK_IO_DIRECTION, name.into())]), bytes));
            points.into_iter().filter(|(_, bytes)| *bytes > 0)
        });
        out.number(&metric::STATEMENT_IO, io);

        let enriched: Vec<_> =
            rows.iter().filter_map(|row| Some((row, enriched::points(row.stats.known.as_deref()?)))).collect();
        for metric in enriched::METRICS {
            let points = enriched.iter().flat_map(|(row, points)| {
                let own = points.iter().filter(|(own, _, _)| own.name == metric.name);
                own.map(|(_, more, value)| {
                    (attributes::statement(row).into_iter().chain(more.clone()).collect::<Attributes<'_>>(), *value)
                })
            });
            out.number(metric, points);
        }
    }

    fn agent(&self, snapshot: &Snapshot, span: Span) -> ResourceMetrics {
        let agent = &snapshot.agent;
        let none = Vec::new;
        let mut out = Metrics { span, system: None, metrics: Vec::new() };
        out.number(&metric::AGENT_CPU_TIME, [(none(), agent.cpu.as_secs_f64())]);
        out.number(&metric::AGENT_PROGRAM_TIME, agent.program_time.map(|time| (none(), time.as_secs_f64())));
        out.number(&metric::AGENT_MEMORY_USAGE, [(none(), agent.rss_bytes)]);
        out.number(&metric::AGENT_RECORDS, [(none(), agent.records)]);
        out.number(&metric::AGENT_LOSSES, by_cause(&agent.losses));
        let uptime = snapshot.at.duration_since(snapshot.start).unwrap_or_default();
        out.number(&metric::AGENT_UPTIME, [(none(), uptime.as_secs_f64())]);
        for (metric, points) in attributes::families(&snapshot.measured) {
            out.number(metric, points);
        }
        resource_metrics(self.agent_resource(), out)
    }

    /// What is said of the agent with everything that it says of itself.
    pub(super) fn agent_resource(&self) -> Resource {
        let host = self.host.id.as_deref().or(self.host.name.as_deref()).unwrap_or_default();
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{AGENT} {host}").as_bytes());
        self.resource(vec![
            (a::SERVICE_NAME, AGENT.into()),
            (a::SERVICE_INSTANCE_ID, id.to_string().into()),
            (a::SERVICE_VERSION, env!("CARGO_PKG_VERSION").into()),
        ])
    }

    /// A resource with what holds for all of them: the host, and the configured attributes in place of the agent's own.
    fn resource<'a>(&'a self, mut attributes: Attributes<'a>) -> Resource {
        attributes.push((a::OS_TYPE, "linux".into()));
        attributes.extend(self.host.name.as_deref().map(|name| (a::HOST_NAME, name.into())));
        attributes.extend(self.host.id.as_deref().map(|id| (a::HOST_ID, id.into())));
        let configured = |name: &str| self.config.resource.iter().any(|(own, _)| own == name);
        attributes.retain(|(name, _)| !configured(name));
        let more = self.config.resource.iter().map(|(name, value)| key_value(name, value.into()));
        let attributes = attributes.into_iter().map(|(name, value)| key_value(name, value)).chain(more).collect();
        Resource { attributes, ..Resource::default() }
    }
}

fn resource_metrics(resource: Resource, metrics: Metrics) -> ResourceMetrics {
    ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics: metrics.metrics, schema_url: String::new() }],
        schema_url: String::new(),
    }
}

/// Who instruments.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: AGENT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// Histograms of a statement by outcome, with the attributes of each: successes first.
fn outcomes(stats: &StatementStats) -> impl Iterator<Item = (Attributes<'static>, &Histogram)> {
    let failed =
        stats.failed.iter().map(|(code, histogram): (&Option<Code>, _)| (attributes::failure(*code), histogram));
    std::iter::once((Vec::new(), &stats.ok)).chain(failed).filter(|(_, histogram)| histogram.count() > 0)
}

fn by_cause<'a>(
    losses: &'a std::collections::BTreeMap<&'static str, u64>,
) -> impl Iterator<Item = (Attributes<'static>, u64)> + 'a {
    losses.iter().map(|(cause, count)| (vec![(a::LOSS_CAUSE, (*cause).into())], *count))
}

/// Time that cumulative values cover, in Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    end: u64,
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A number as OTLP has it.
struct Number(number_data_point::Value);

impl From<u64> for Number {
    fn from(number: u64) -> Number {
        Number(number_data_point::Value::AsInt(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Number {
        Number(number_data_point::Value::AsDouble(number))
    }
}

impl From<model::Value> for Number {
    fn from(value: model::Value) -> Number {
        Number(match value {
            model::Value::Int(number) => number_data_point::Value::AsInt(number),
            model::Value::Double(number) => number_data_point::Value::AsDouble(number),
        })
    }
}

/// Metrics of one resource.
struct Metrics {
    span: Span,
    /// `db.system.name`, which points of servers carry like those of any database instrumentation.
    system: Option<&'static str>,
    metrics: Vec<otlp::Metric>,
}

impl Metrics {
    fn key_values(&self, attributes: Attributes<'_>) -> Vec<KeyValue> {
        let system = self.system.map(|system| key_value(a::DB_SYSTEM_NAME, system.into()));
        system.into_iter().chain(attributes.into_iter().map(|(name, value)| key_value(name, value))).collect()
    }

    fn push(&mut self, metric: &Metric, data: otlp::metric::Data) {
        self.metrics.push(otlp::Metric {
            name: metric.name.to_owned(),
            description: metric.description.to_owned(),
            unit: metric.unit.to_owned(),
            metadata: Vec::new(),
            data: Some(data),
        });
    }

    /// A sum or a gauge, by the metric's instrument; left out if it has no points.
    fn number<'a, N: Into<Number>>(&mut self, metric: &Metric, points: impl IntoIterator<Item = (Attributes<'a>, N)>) {
        let Span { start, end } = self.span;
        let points = points.into_iter().map(|(attributes, number)| NumberDataPoint {
            attributes: self.key_values(attributes),
            start_time_unix_nano: start,
            time_unix_nano: end,
            value: Some(number.into().0),
            ..NumberDataPoint::default()
        });
        let data_points: Vec<_> = points.collect();
        if data_points.is_empty() {
            return;
        }
        let sum = |is_monotonic, data_points| {
            otlp::metric::Data::Sum(otlp::Sum {
                data_points,
                aggregation_temporality: TEMPORALITY.into(),
                is_monotonic,
            })
        };
        let data = match metric.instrument {
            Instrument::Counter => sum(true, data_points),
            // Up-down counters are always cumulative (OTLP exporter specification, temporality preference).
            Instrument::UpDownCounter => sum(false, data_points),
            Instrument::Gauge | Instrument::Histogram | Instrument::Info => {
                otlp::metric::Data::Gauge(otlp::Gauge { data_points })
            }
        };
        self.push(metric, data);
    }

    /// An exponential histogram; left out if it has no points.
    fn histogram<'a, 'h>(&mut self, metric: &Metric, points: impl Iterator<Item = (Attributes<'a>, &'h Histogram)>) {
        let Span { start, end } = self.span;
        let points = points.map(|(attributes, histogram)| {
            let first = histogram.buckets().next().map_or(0, |(bucket, _)| bucket);
            let mut bucket_counts = Vec::new();
            for (bucket, count) in histogram.buckets() {
                bucket_counts.resize(bucket - first, 0);
                bucket_counts.push(count);
            }
            ExponentialHistogramDataPoint {
                attributes: self.key_values(attributes),
                start_time_unix_nano: start,
                time_unix_nano: end,
                count: histogram.count(),
                sum: Some(histogram.sum().as_secs_f64()),
                scale: SCALE,
                positive: Some(Buckets { offset: first as i32 + OFFSET, bucket_counts }),
                min: Some(histogram.min().as_secs_f64()),
                max: Some(histogram.max().as_secs_f64()),
                ..ExponentialHistogramDataPoint::default()
            }
        });
        let data_points: Vec<_> = points.collect();
        if !data_points.is_empty() {
            let data = otlp::ExponentialHistogram { data_points, aggregation_temporality: TEMPORALITY.into() };
            self.push(metric, otlp::metric::Data::ExponentialHistogram(data));
        }
    }
}

pub(super) fn key_value(name: &str, value: Value<'_>) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
        Value::Number(number) => any_value::Value::IntValue(number),
        Value::Float(number) => any_value::Value::DoubleValue(number),
        Value::Flag(flag) => any_value::Value::BoolValue(flag),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
