//! What arrives at real receivers, and what the exporter makes of their answers.

#![allow(clippy::unwrap_used)]

mod records;
mod tls;

use std::{
    collections::{BTreeMap, VecDeque},
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, response::IntoResponse, routing::post};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value},
    metrics::v1::{
        self as otlp, AggregationTemporality, ExponentialHistogramDataPoint, metric::Data, number_data_point,
    },
};
use prost::Message;
use tonic::{Code, codec::CompressionEncoding, transport::server::TcpIncoming};

use super::*;
use crate::model::{
    HumanDuration, Snapshot, StatementSnapshot,
    names::{Instrument, METRICS},
    testing::{self, HOSTILE},
};

/// What a receiver answers.
#[derive(Clone, Debug)]
enum Answer {
    Take,
    /// After 100 ms.
    TakeSlowly,
    Partly(i64, &'static str),
    /// HTTP status, `Retry-After`, body.
    Http(u16, Option<&'static str>, &'static str),
    /// gRPC code, message, details.
    Grpc(Code, &'static str, Vec<u8>),
    /// Longer than any time limit.
    Never,
}

/// What a receiver got, and what it is to answer; [`Answer::Take`] when nothing is left.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    answers: VecDeque<Answer>,
    requests: Vec<ExportMetricsServiceRequest>,
    /// Headers or metadata of each request.
    headers: Vec<BTreeMap<String, String>>,
    times: Vec<Instant>,
}

impl Receiver {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Receiver {
        let receiver = Receiver::default();
        receiver.0.lock().unwrap().answers.extend(answers);
        receiver
    }

    fn take(&self, request: ExportMetricsServiceRequest, headers: BTreeMap<String, String>) -> Answer {
        let mut received = self.0.lock().unwrap();
        received.requests.push(request);
        received.headers.push(headers);
        received.times.push(Instant::now());
        received.answers.pop_front().unwrap_or(Answer::Take)
    }

    fn requests(&self) -> Vec<ExportMetricsServiceRequest> {
        self.0.lock().unwrap().requests.clone()
    }

    fn headers(&self) -> Vec<BTreeMap<String, String>> {
        self.0.lock().unwrap().headers.clone()
    }

    /// Time between the first two requests.
    fn pause(&self) -> Duration {
        let received = self.0.lock().unwrap();
        received.times[1] - received.times[0]
    }

    async fn listen(self, protocol: Protocol) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match protocol {
            Protocol::Http => {
                let router = Router::new().route("/v1/metrics", post(http)).with_state(self);
                tokio::spawn(async move { axum::serve(listener, router).await });
            }
            Protocol::Grpc => {
                let service = MetricsServiceServer::new(self).accept_compressed(CompressionEncoding::Gzip);
                let server = tonic::transport::Server::builder().add_service(service);
                tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
            }
        }
        address
    }
}

fn response(answer: &Answer) -> ExportMetricsServiceResponse {
    let partial_success = match answer {
        Answer::Partly(rejected_data_points, error_message) => Some(ExportMetricsPartialSuccess {
            rejected_data_points: *rejected_data_points,
            error_message: (*error_message).to_owned(),
        }),
        _ => None,
    };
    ExportMetricsServiceResponse { partial_success }
}

async fn http(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> axum::response::Response {
    let mut plain = Vec::new();
    match headers.get("content-encoding").map(|value| value.to_str().unwrap()) {
        Some("gzip") => {
            flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
        }
        None => plain = body.to_vec(),
        other => panic!("{other:?}"),
    }
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let answer = receiver.take(ExportMetricsServiceRequest::decode(&*plain).unwrap(), headers);
    match answer {
        Answer::Http(status, retry_after, body) => {
            let retry_after = retry_after.map(|value| ("retry-after", value));
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            (status, axum::response::AppendHeaders(retry_after), body).into_response()
        }
        Answer::Never => std::future::pending().await,
        Answer::TakeSlowly => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            response(&answer).encode_to_vec().into_response()
        }
        answer => ([("content-type", "application/x-protobuf")], response(&answer).encode_to_vec()).into_response(),
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let headers = headers.collect();
        match self.take(request.into_inner(), headers) {
            Answer::Grpc(code, message, details) => Err(tonic::Status::with_details(code, message, details.into())),
            Answer::Never => std::future::pending().await,
            answer => Ok(tonic::Response::new(response(&answer))),
        }
    }
}

/// A configuration for a receiver at `address` that retries fast.
fn config(protocol: Protocol, address: SocketAddr) -> Config {
    Config {
        protocol,
        endpoint: Some(format!("http://{address}").parse().unwrap()),
        timeout: HumanDuration::from_secs(5),
        retry: Retry {
            initial: HumanDuration::from_millis(10),
            max: HumanDuration::from_millis(20),
            elapsed: HumanDuration::from_secs(5),
        },
        ..Config::default()
    }
}

fn host() -> Host {
    Host { name: Some("db7".into()), id: Some("0123456789abcdef".into()) }
}

/// Both ends, with nothing between them.
#[derive(Debug)]
struct Exporter(Encoder, Sender);

impl Exporter {
    async fn export(&mut self, snapshot: &Snapshot) -> Report {
        let (payloads, _) = self.0.metrics(snapshot);
        self.1.send(&payloads).await
    }

    fn stats(&self) -> Stats {
        self.1.stats()
    }
}

fn exporter(config: &Config) -> Exporter {
    let (encoder, sender) = receiver(config, OperationDurationName::Server, host()).unwrap();
    Exporter(encoder, sender)
}

/// Starts a receiver with `answers` and exports the busy snapshot once.
async fn export(protocol: Protocol, answers: impl IntoIterator<Item = Answer>) -> (Receiver, Report) {
    let receiver = Receiver::answering(answers);
    let address = receiver.clone().listen(protocol).await;
    let report = exporter(&config(protocol, address)).export(&testing::busy()).await;
    (receiver, report)
}

/// The request that `snapshot` becomes.
fn built(snapshot: &Snapshot) -> ExportMetricsServiceRequest {
    Builder::new(&Config::default(), OperationDurationName::Server, host()).request(snapshot)
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let mut map = BTreeMap::new();
    for attribute in attributes {
        let value = match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
            any_value::Value::StringValue(text) => text.clone(),
            any_value::Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(map.insert(attribute.key.as_str(), value).is_none(), "{} twice", attribute.key);
    }
    map
}

fn resource(request: &ExportMetricsServiceRequest, at: usize) -> BTreeMap<&str, String> {
    attributes(&request.resource_metrics[at].resource.as_ref().unwrap().attributes)
}

fn metrics(request: &ExportMetricsServiceRequest, at: usize) -> BTreeMap<&str, &otlp::Metric> {
    let [scope] = &request.resource_metrics[at].scope_metrics[..] else { panic!("one scope") };
    scope.metrics.iter().map(|metric| (metric.name.as_str(), metric)).collect()
}

/// (attributes, value) of a sum or gauge.
fn numbers(metric: &otlp::Metric) -> Vec<(BTreeMap<&str, String>, f64)> {
    let points = match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => &sum.data_points,
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    let value = |point: &otlp::NumberDataPoint| match point.value.unwrap() {
        number_data_point::Value::AsInt(number) => number as f64,
        number_data_point::Value::AsDouble(number) => number,
    };
    points.iter().map(|point| (attributes(&point.attributes), value(point))).collect()
}

fn histogram_points(metric: &otlp::Metric) -> &[ExponentialHistogramDataPoint] {
    match metric.data.as_ref().unwrap() {
        Data::ExponentialHistogram(data) => {
            assert_eq!(data.aggregation_temporality(), AggregationTemporality::Cumulative);
            &data.data_points
        }
        other => panic!("{other:?}"),
    }
}

const START: u64 = 1_700_000_000_000_000_000;
const AT: u64 = 1_700_000_060_500_000_000;

fn map<const N: usize>(entries: [(&'static str, &str); N]) -> BTreeMap<&'static str, String> {
    entries.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

/// Guarantees: each field of what a receiver gets is what the snapshot says, over both protocols.
#[tokio::test]
async fn everything_arrives() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let (receiver, report) = export(protocol, []).await;
        let [request] = &receiver.requests()[..] else { panic!("one request") };
        assert_eq!((report.warnings.len(), report.errors.len()), (0, 0), "{report:?}");
        assert_eq!((report.stats.requests, report.stats.points_accepted), (1, split::points(request)));
        assert_eq!(*request, built(&testing::busy()));

        assert_eq!(request.resource_metrics.len(), 3);
        assert_eq!(
            resource(request, 0),
            map([
                ("service.name", "postgresql"),
                ("service.version", "15.18"),
                ("service.instance.id", "00000000-0000-0000-0000-000000001234"),
                ("db.system.name", "postgresql"),
                ("server.address", "127.0.0.1"),
                ("server.port", "5432"),
                ("process.pid", "4711"),
                ("process.executable.name", "postgres"),
                ("process.executable.path", "/usr/lib/postgresql/15/bin/postgres"),
                ("querylens.server.data_directory", "/var/lib/postgresql/15/main"),
                ("os.type", "linux"),
                ("host.name", "db7"),
                ("host.id", "0123456789abcdef"),
            ])
        );
        let second = resource(request, 1);
        assert_eq!(
            ["db.system.name", "server.address", "container.id", "container.runtime", "k8s.pod.uid"]
                .map(|name| &*second[name]),
            ["mariadb", "/run/mysqld/mysqld.sock", "c0ffee", "docker", "pod-1"]
        );
        let agent = resource(request, 2);
        assert_eq!((&*agent["service.name"], &*agent["service.version"]), ("querylens", env!("CARGO_PKG_VERSION")));
        let scope = request.resource_metrics[0].scope_metrics[0].scope.as_ref().unwrap();
        assert_eq!((&*scope.name, &*scope.version), ("querylens", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn durations_are_exponential_histograms_by_outcome() {
    let request = built(&testing::busy());
    let metrics = metrics(&request, 0);
    let metric = metrics["db.server.operation.duration"];
    assert_eq!(metric.unit, "s");
    // The statement that was never executed has no point.
    let [ok, other, undefined_table] = histogram_points(metric) else { panic!("{metric:?}") };
    let statement = map([
        ("db.system.name", "postgresql"),
        ("db.namespace", "bench"),
        ("user.name", "app"),
        ("db.operation.name", "SELECT"),
        ("db.collection.name", "pgbench_accounts"),
        ("db.query.summary", "SELECT * FROM pgbench_accounts WHERE aid = ?"),
        ("db.query.text", "SELECT * FROM pgbench_accounts WHERE aid = ?"),
        ("querylens.query.fingerprint", "000000000000feed"),
    ]);
    let with =
        |more: BTreeMap<&'static str, String>| statement.clone().into_iter().chain(more).collect::<BTreeMap<_, _>>();
    assert_eq!(attributes(&ok.attributes), statement);
    assert_eq!(attributes(&other.attributes), with(map([("error.type", "_OTHER")])));
    let code = map([("error.type", "42P01"), ("db.response.status_code", "42P01")]);
    assert_eq!(attributes(&undefined_table.attributes), with(code));

    assert_eq!((ok.count, ok.scale, ok.zero_count), (3, 3, 0));
    assert_eq!((ok.start_time_unix_nano, ok.time_unix_nano), (START, AT));
    assert!((ok.sum.unwrap() - 0.043).abs() < 1e-12);
    assert_eq!((ok.min.unwrap(), ok.max.unwrap()), (0.001, 0.04));
    for (point, seconds) in [(ok, &[0.001, 0.002, 0.04][..]), (other, &[2.0]), (undefined_table, &[0.003, 0.005])] {
        let buckets = point.positive.as_ref().unwrap();
        assert!(point.negative.is_none());
        let mut expected: BTreeMap<i32, u64> = BTreeMap::new();
        for value in seconds {
            // Metrics data model, "Exponential Scale": value is in (base^index, base^(index + 1)], base = 2^(2^-scale).
            let index = (f64::log2(*value) * 8.0).ceil() as i32 - 1;
            *expected.entry(index).or_default() += 1;
        }
        let got = buckets.bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let got: BTreeMap<i32, u64> = got.map(|(at, count)| (buckets.offset + at as i32, *count)).collect();
        assert_eq!(got, expected, "{seconds:?}");
        assert_eq!(buckets.bucket_counts.iter().sum::<u64>(), point.count);
    }
}

#[test]
fn other_numbers_are_sums_and_gauges() {
    let request = built(&testing::busy());
    let first = metrics(&request, 0);
    let value = |metric: &str, attribute: (&str, &str)| {
        let points = numbers(first[metric]);
        let found =
            points.iter().find(|(attributes, _)| attributes.get(attribute.0).is_some_and(|is| is == attribute.1));
        found.unwrap_or_else(|| panic!("{metric} {attribute:?}: {points:?}")).1
    };
    let feed = ("querylens.query.fingerprint", "000000000000feed");
    assert_eq!(value("querylens.statement.errors", ("db.response.status_code", "42P01")), 2.0);
    assert_eq!(value("querylens.statement.errors", ("error.type", "_OTHER")), 1.0);
    assert_eq!(value("querylens.statement.returned_rows", feed), 300.0);
    assert_eq!(value("querylens.statement.affected_rows", feed), 7.0);
    assert_eq!(value("querylens.statement.prepares", feed), 4.0);
    assert_eq!(value("querylens.statement.estimated", feed), 2.0);
    assert_eq!(value("querylens.statement.truncated", feed), 1.0);
    assert_eq!(value("querylens.statement.io", ("network.io.direction", "receive")), 1_000.0);
    assert_eq!(value("querylens.statement.io", ("network.io.direction", "transmit")), 50_000.0);
    assert_eq!(value("querylens.server.sessions", ("querylens.session.state", "idle")), 5.0);
    assert_eq!(value("querylens.server.connects", ("db.system.name", "postgresql")), 12.0);
    assert_eq!(value("querylens.server.connect_failures", ("db.response.status_code", "28P01")), 2.0);
    assert_eq!(value("querylens.server.losses", ("querylens.loss.cause", "desynchronised")), 6.0);
    assert_eq!(value("querylens.server.visible", ("querylens.wire.strategy", "boundary")), 1.0);
    let agent = metrics(&request, 2);
    for (metric, expected) in [
        ("querylens.agent.cpu.time", 1.25),
        ("querylens.agent.program.time", 0.075),
        ("querylens.agent.memory.usage", f64::from(32 << 20)),
        ("querylens.agent.records", 1_000.0),
        ("querylens.agent.uptime", 60.5),
    ] {
        assert_eq!(numbers(agent[metric]), [(BTreeMap::new(), expected)], "{metric}");
    }
    assert_eq!(numbers(agent["querylens.agent.losses"]).len(), 2);
}

/// Guarantees: what is emitted is in the catalogue with its unit, instrument and attributes, and all of it that is meant for OTLP is emitted.
#[test]
fn the_catalogue_is_complete() {
    let request = built(&testing::busy());
    let mut missing: Vec<_> = METRICS.iter().filter(|metric| metric.instrument != Instrument::Info).collect();
    for metric in (0..3).flat_map(|at| metrics(&request, at).into_values().collect::<Vec<_>>()) {
        let known = METRICS.iter().find(|known| known.name == metric.name).unwrap();
        missing.retain(|missing| missing.name != known.name);
        assert_eq!((&*metric.unit, &*metric.description), (known.unit, known.description));
        let instrument = match metric.data.as_ref().unwrap() {
            Data::Sum(sum) if sum.is_monotonic => Instrument::Counter,
            Data::Sum(_) => Instrument::UpDownCounter,
            Data::Gauge(_) => Instrument::Gauge,
            _ => Instrument::Histogram,
        };
        assert_eq!(instrument, known.instrument, "{}", known.name);
        let points: Vec<_> = match instrument {
            Instrument::Histogram => {
                histogram_points(metric).iter().map(|point| attributes(&point.attributes)).collect()
            }
            _ => numbers(metric).into_iter().map(|(attributes, _)| attributes).collect(),
        };
        for name in points.iter().flat_map(BTreeMap::keys) {
            assert!(known.attributes.contains(name), "{}: {name}", known.name);
        }
    }
    assert_eq!(missing.iter().map(|metric| metric.name).collect::<Vec<_>>(), ["db.client.operation.duration"]);
}

#[test]
fn hostile_names_arrive_as_they_are() {
    let mut row = testing::statement(HOSTILE, HOSTILE, 7, HOSTILE);
    row.stats.ok.record(Duration::from_millis(1));
    let mut snapshot = testing::with_statements(vec![row]);
    let mut instance = (*snapshot.instances[0].instance).clone();
    let path: std::path::PathBuf =
        std::ffi::OsString::into(std::os::unix::ffi::OsStringExt::from_vec(b"/data/\xff\"x".to_vec()));
    (instance.executable, instance.data_dir) = (path.clone(), Some(path));
    snapshot.instances[0].instance = instance.into();
    let request = ExportMetricsServiceRequest::decode(&*built(&snapshot).encode_to_vec()).unwrap();
    let resource = resource(&request, 0);
    assert_eq!(resource["process.executable.path"], "/data/\u{fffd}\"x");
    let metrics = metrics(&request, 0);
    let point = attributes(&histogram_points(metrics["db.server.operation.duration"])[0].attributes);
    for name in ["db.namespace", "user.name", "db.query.summary", "db.query.text"] {
        assert_eq!(point[name], HOSTILE, "{name}");
    }
}

#[test]
fn configured_names_texts_and_attributes() {
    let config: Config = serde_json::from_str(
        r#"{"resource":{"deployment.environment.name":"test","service.name":"orders-db"},"query_text_bytes":8}"#,
    )
    .unwrap();
    let request = Builder::new(&config, OperationDurationName::Client, host()).request(&testing::busy());
    let resource = resource(&request, 0);
    assert_eq!((&*resource["deployment.environment.name"], &*resource["service.name"]), ("test", "orders-db"));
    let metrics = metrics(&request, 0);
    assert!(!metrics.contains_key("db.server.operation.duration"));
    let points = histogram_points(metrics["db.client.operation.duration"]);
    assert_eq!(attributes(&points[0].attributes)["db.query.text"], "SELECT *");

    let none = Config { query_text_bytes: 0, ..Config::default() };
    let request = Builder::new(&none, OperationDurationName::Server, host()).request(&testing::busy());
    let metrics = self::metrics(&request, 0);
    let points = histogram_points(metrics["db.server.operation.duration"]);
    assert!(!attributes(&points[0].attributes).contains_key("db.query.text"));
}

/// Scenario: a server restarts between two exports; its resource stays. Guarantees: its counts fall together with a new start time, so that
/// nobody takes the fall for a fault; the other server's start stays.
#[test]
fn a_restart_begins_a_new_span() {
    let mut builder = Builder::new(&Config::default(), OperationDurationName::Server, host());
    let first = testing::busy();
    builder.request(&first);
    let mut second = testing::busy();
    second.at += Duration::from_secs(10);
    let mut instance = (*second.instances[0].instance).clone();
    instance.key.pid += 100;
    second.instances[0].instance = instance.into();
    for at in [second.at, second.at + Duration::from_secs(10)] {
        second.at = at;
        let request = builder.request(&second);
        let start = |server| match metrics(&request, server)["querylens.server.connects"].data.as_ref().unwrap() {
            Data::Sum(sum) => sum.data_points[0].start_time_unix_nano,
            other => panic!("{other:?}"),
        };
        assert_eq!((start(0), start(1)), (AT, START));
    }
}

#[tokio::test]
async fn headers_and_compression() {
    for (protocol, compression) in [
        (Protocol::Http, Compression::Gzip),
        (Protocol::Http, Compression::None),
        (Protocol::Grpc, Compression::Gzip),
        (Protocol::Grpc, Compression::None),
    ] {
        let receiver = Receiver::default();
        let address = receiver.clone().listen(protocol).await;
        let headers = serde_json::from_str(r#"{"Api-Key":"hunter2"}"#).unwrap();
        let config = Config { headers, compression, ..config(protocol, address) };
        let mut exporter = exporter(&config);
        assert!(!format!("{exporter:?}").contains("hunter2"), "{exporter:?}");
        let report = exporter.export(&testing::busy()).await;
        assert_eq!(report.stats.requests, 1, "{report:?}");
        let headers = &receiver.headers()[0];
        assert_eq!(headers["api-key"], "hunter2");
        assert!(headers["user-agent"].starts_with(concat!("querylens/", env!("CARGO_PKG_VERSION"))), "{headers:?}");
        let (content, encoding) = match protocol {
            Protocol::Http => ("application/x-protobuf", "content-encoding"),
            Protocol::Grpc => ("application/grpc", "grpc-encoding"),
        };
        assert_eq!(headers["content-type"], content);
        assert_eq!(headers.get(encoding).is_some_and(|encoding| encoding == "gzip"), compression == Compression::Gzip);
    }
}

#[tokio::test]
async fn temporary_failures_are_sent_again() {
    let grpc = |code| Answer::Grpc(code, "busy", Vec::new());
    let cases: Vec<(Protocol, Vec<Answer>)> = vec![
        (Protocol::Http, [429, 502, 503, 504].map(|status| Answer::Http(status, None, "busy")).to_vec()),
        (Protocol::Grpc, [Code::Unavailable, Code::Aborted, Code::Cancelled, Code::DataLoss].map(grpc).to_vec()),
    ];
    for (protocol, answers) in cases {
        let (receiver, report) = export(protocol, answers).await;
        let requests = receiver.requests();
        assert_eq!(requests.len(), 5, "{report:?}");
        assert!(requests.windows(2).all(|pair| pair[0] == pair[1]), "the same each time");
        assert_eq!((report.stats.requests, report.stats.retries, report.stats.points_failed), (1, 4, 0));
        assert!(report.errors.is_empty(), "{report:?}");
    }
}

#[tokio::test]
async fn permanent_failures_are_not() {
    let cases = [
        (Protocol::Http, Answer::Http(400, None, "\u{1b}[31mbad\npoint"), "HTTP 400 Bad Request: [31mbad point"),
        (Protocol::Http, Answer::Http(403, None, "no"), "check the key in `export.otlp.headers`"),
        (Protocol::Http, Answer::Http(413, None, "big"), "max_request_bytes"),
        (Protocol::Http, Answer::Http(500, None, "oops"), "HTTP 500"),
        (Protocol::Http, Answer::Http(302, None, ""), "redirects are not followed"),
        (Protocol::Grpc, Answer::Grpc(Code::InvalidArgument, "bad\npoint", Vec::new()), "InvalidArgument: bad point"),
        (Protocol::Grpc, Answer::Grpc(Code::Unauthenticated, "", Vec::new()), "check the key in `export.otlp.headers`"),
        (Protocol::Grpc, Answer::Grpc(Code::Internal, "oops", Vec::new()), "Internal: oops"),
        (Protocol::Grpc, Answer::Grpc(Code::ResourceExhausted, "full", Vec::new()), "ResourceExhausted: full"),
    ];
    for (protocol, answer, reason) in cases {
        let (receiver, report) = export(protocol, [answer.clone()]).await;
        let [request] = &receiver.requests()[..] else { panic!("{answer:?} was sent again") };
        let [error] = &report.errors[..] else { panic!("{answer:?}: {report:?}") };
        assert!(error.contains(reason) && error.contains("OTLP receiver http://127.0.0.1"), "{error}");
        let expected = Stats { points_failed: split::points(request), ..Stats::default() };
        assert_eq!(report.stats, expected);
    }
}

/// `google.rpc.Status` with `RetryInfo` of so many milliseconds, written out byte by byte.
fn retry_info(millis: u32) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, bytes.len() as u8], bytes].concat();
    let mut nanos = vec![2 << 3];
    prost::encoding::encode_varint(u64::from(millis) * 1_000_000, &mut nanos);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &field(1, &nanos))].concat();
    [vec![1 << 3, Code::ResourceExhausted as u8], field(3, &any)].concat()
}

/// Guarantees: the receiver's pause goes before the exporter's own of 10 to 20 ms.
#[tokio::test]
async fn the_receiver_says_how_long_to_wait() {
    let (receiver, report) = export(Protocol::Http, [Answer::Http(429, Some("1"), "slow down")]).await;
    assert_eq!((report.stats.requests, report.stats.retries), (1, 1), "{report:?}");
    assert!(receiver.pause() >= Duration::from_secs(1), "{:?}", receiver.pause());

    let answer = Answer::Grpc(Code::ResourceExhausted, "slow down", retry_info(300));
    let (receiver, report) = export(Protocol::Grpc, [answer]).await;
    assert_eq!((report.stats.requests, report.stats.retries), (1, 1), "{report:?}");
    assert!(receiver.pause() >= Duration::from_millis(300), "{:?}", receiver.pause());
}

/// Scenario: the receiver asks for a longer pause than an export may take. Guarantees: the export ends at once, and so does the next one
/// without asking again; nothing is given up.
#[tokio::test]
async fn a_long_wait_holds_over_exports() {
    let receiver = Receiver::answering([Answer::Http(503, Some("18446744073709551615"), "maintenance")]);
    let address = receiver.clone().listen(Protocol::Http).await;
    let mut exporter = exporter(&config(Protocol::Http, address));
    let start = Instant::now();
    let first = exporter.export(&testing::busy()).await;
    let second = exporter.export(&testing::busy()).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(receiver.requests().len(), 1);
    assert!(first.errors[0].contains("HTTP 503 Service Unavailable: maintenance"), "{first:?}");
    assert!(second.errors[0].contains("asked to wait for another 8"), "{second:?}");
    assert_eq!((first.settled, first.away, second.settled, second.away), (0, true, 0, true));
    assert_eq!(exporter.stats(), Stats::default(), "what may be sent later is not lost");
}

#[tokio::test]
async fn retries_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let mut config = config(protocol, address);
        config.retry.elapsed = HumanDuration::from_millis(200);
        let start = Instant::now();
        let report = exporter(&config).export(&testing::busy()).await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert!(report.stats.retries > 2 && report.settled == 0 && report.away, "{report:?}");
        assert!(report.errors[0].to_lowercase().contains("connection refused"), "{report:?}");
    }
}

#[tokio::test]
async fn an_attempt_has_a_time_limit() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let receiver = Receiver::answering([Answer::Never]);
        let address = receiver.clone().listen(protocol).await;
        let config = Config { timeout: HumanDuration::from_millis(300), ..config(protocol, address) };
        let report = exporter(&config).export(&testing::busy()).await;
        assert_eq!((report.stats.requests, report.stats.retries), (1, 1), "{report:?}");
        // Connecting and building take their part of the 300 ms before the first request arrives.
        assert!(receiver.pause() >= Duration::from_millis(200), "{:?}", receiver.pause());
    }
}

#[tokio::test]
async fn partial_success_is_read_and_counted() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let (receiver, report) = export(protocol, [Answer::Partly(3, "too old\n")]).await;
        let points = split::points(&receiver.requests()[0]);
        assert_eq!(receiver.requests().len(), 1, "a partial success is not sent again");
        let expected = Stats { requests: 1, points_rejected: 3, points_accepted: points - 3, ..Stats::default() };
        assert_eq!(report.stats, expected);
        assert!(report.warnings[0].ends_with(&format!("refused 3 of {points} points: too old")), "{report:?}");

        let (_, report) = export(protocol, [Answer::Partly(0, "use delta")]).await;
        assert_eq!((report.stats.points_rejected, report.warnings.len()), (0, 1));
    }
}

fn many(count: u64) -> Snapshot {
    let row = |fingerprint| -> StatementSnapshot {
        let mut row =
            testing::statement("bench", "app", fingerprint, &format!("SELECT {fingerprint} {}", "x".repeat(600)));
        row.stats.ok.record(Duration::from_millis(fingerprint));
        row.stats.rows_sent = 1;
        row
    };
    testing::with_statements((10..10 + count).map(row).collect())
}

/// All points, each with the resource and metric it belongs to, as bytes.
fn flat(requests: &[ExportMetricsServiceRequest]) -> Vec<Vec<u8>> {
    let mut points = Vec::new();
    for resource in requests.iter().flat_map(|request| &request.resource_metrics) {
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let scope = resource.scope_metrics[0].scope.as_ref().unwrap();
            let mut add = |point: Vec<u8>| {
                let owner = (resource.resource.as_ref().unwrap().encode_to_vec(), scope.encode_to_vec());
                let head = format!("{} {} {}", metric.name, metric.unit, metric.description);
                points.push([owner.0, owner.1, head.into_bytes(), point].concat());
            };
            match metric.data.as_ref().unwrap() {
                Data::Sum(data) => data.data_points.iter().for_each(|point| {
                    add([point.encode_to_vec(), vec![data.is_monotonic.into(), data.aggregation_temporality as u8]]
                        .concat());
                }),
                Data::Gauge(data) => data.data_points.iter().for_each(|point| add(point.encode_to_vec())),
                Data::ExponentialHistogram(data) => data.data_points.iter().for_each(|point| {
                    add([point.encode_to_vec(), vec![data.aggregation_temporality as u8]].concat());
                }),
                other => panic!("{other:?}"),
            }
        }
    }
    points
}

#[test]
fn splitting_keeps_every_point_and_the_bound() {
    let whole = built(&many(300));
    let size = whole.encoded_len();
    for max in [size, size - 1, size / 2, size / 10, 4_000] {
        let parts = split::split(whole.clone(), max);
        assert!(parts.iter().all(|part| part.encoded_len() <= max), "{max}");
        assert!(parts.len() >= size.div_ceil(max) && parts.len() <= 1 + 4 * size / max, "{max}: {}", parts.len());
        assert_eq!(flat(&parts), flat(std::slice::from_ref(&whole)), "{max}");
    }
    // Nothing fits: every point goes alone, and it ends.
    let parts = split::split(whole.clone(), 1);
    assert_eq!(parts.len() as u64, split::points(&whole));
}

#[tokio::test]
async fn large_requests_arrive_in_parts() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let receiver = Receiver::answering([Answer::Take, Answer::Partly(1, "no"), Answer::Take]);
        let address = receiver.clone().listen(protocol).await;
        let config = Config { max_request_bytes: (64 << 10).try_into().unwrap(), ..config(protocol, address) };
        let mut exporter = exporter(&config);
        let report = exporter.export(&many(300)).await;
        let requests = receiver.requests();
        assert!(requests.len() > 3 && requests.iter().all(|request| request.encoded_len() <= 64 << 10));
        let points: u64 = requests.iter().map(split::points).sum();
        assert_eq!((report.stats.requests, report.stats.points_rejected), (requests.len() as u64, 1));
        assert_eq!(report.stats.points_accepted + 1, points);
        assert_eq!(flat(&requests), flat(&[built(&many(300))]));
        assert_eq!(exporter.stats(), report.stats);
    }
}

/// Scenario: the receiver takes its time for each of many requests. Guarantees: the export ends, and says what was not sent.
#[tokio::test]
async fn a_slow_receiver_does_not_hold_the_exporter() {
    let receiver = Receiver::answering((0..100).map(|_| Answer::TakeSlowly));
    let address = receiver.clone().listen(Protocol::Http).await;
    let mut config = Config { max_request_bytes: (64 << 10).try_into().unwrap(), ..config(Protocol::Http, address) };
    config.retry.elapsed = HumanDuration::from_millis(50);
    let report = exporter(&config).export(&many(300)).await;
    let sent = receiver.requests();
    assert_eq!((sent.len(), report.stats.requests), (1, 1), "{report:?}");
    assert_eq!((report.settled, report.away, report.stats.points_failed), (1, false, 0), "{report:?}");
}

/// Scenario: one of several requests is refused for good. Guarantees: the others arrive.
#[tokio::test]
async fn a_refused_part_does_not_hold_up_the_rest() {
    let receiver = Receiver::answering([Answer::Take, Answer::Http(400, None, "no"), Answer::Take]);
    let address = receiver.clone().listen(Protocol::Http).await;
    let config = Config { max_request_bytes: (64 << 10).try_into().unwrap(), ..config(Protocol::Http, address) };
    let report = exporter(&config).export(&many(300)).await;
    let requests = receiver.requests();
    assert!(requests.len() > 3);
    assert_eq!((report.stats.requests, report.errors.len()), (requests.len() as u64 - 1, 1));
    assert_eq!(report.stats.points_failed, split::points(&requests[1]));
}

#[tokio::test]
async fn faults_of_the_set_up_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let not_pem = directory.path().join("ca.pem");
    std::fs::write(&not_pem, "hunter2").unwrap();
    let path = not_pem.to_str().unwrap();
    for protocol in ["http", "grpc"] {
        for (json, reason) in [
            (
                r#""tls":{"ca_file":"/nonexistent/ca.pem"}"#.to_owned(),
                "cannot read /nonexistent/ca.pem (config key `export.otlp.tls.ca_file`)",
            ),
            (format!(r#""tls":{{"cert_file":"{path}"}}"#), "both `cert_file` and `key_file`"),
            (
                r#""headers":{"api-key":{"env":"KEY"}}"#.to_owned(),
                "the header `api-key` of `export.otlp.headers` has a secret that was not read",
            ),
            (
                r#""headers":{"api-key":"hunter2\n"}"#.to_owned(),
                "the header `api-key` of `export.otlp.headers` has a value with characters",
            ),
        ] {
            let json = format!(r#"{{"protocol":"{protocol}","endpoint":"https://127.0.0.1:1",{json}}}"#);
            let config: Config = serde_json::from_str(&json).unwrap();
            let error = receiver(&config, OperationDurationName::Server, host()).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("hunter2"), "{json}: {error}");
        }
    }
}
