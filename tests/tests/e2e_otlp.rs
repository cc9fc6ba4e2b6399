//! Guarantee: an OpenTelemetry receiver gets every execution, over gRPC and compressed, and no literal.
//!
//! Not proven here: retries, splitting, TLS; those are unit tests of the exporter.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{AggregationTemporality, metric::Data},
};
use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions},
    load::{
        Amount, Pgbench,
        pgbench::{Protocol, Script},
    },
    process::wait_for,
    servers::{Postgres, PostgresOptions, Transport, free_port},
};
use tonic::{Request, Response, Status, codec::CompressionEncoding, transport::Server};

/// Keeps what it receives.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<ExportMetricsServiceRequest>>>);

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// Executions per fingerprint of one server: the last value of each cumulative series.
fn executions(requests: &[ExportMetricsServiceRequest], pid: u32) -> BTreeMap<String, u64> {
    let mut last: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for resource in requests.iter().flat_map(|request| &request.resource_metrics) {
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        if attribute(attributes, "process.pid") != Some(pid.to_string()) {
            continue;
        }
        let metrics = resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
        for metric in metrics.filter(|metric| metric.name == "db.server.operation.duration") {
            assert_eq!(metric.unit, "s");
            let Some(Data::ExponentialHistogram(data)) = &metric.data else { panic!("{metric:?}") };
            assert_eq!(data.aggregation_temporality(), AggregationTemporality::Cumulative);
            for point in &data.data_points {
                let fingerprint = attribute(&point.attributes, "querylens.query.fingerprint").unwrap_or_default();
                last.insert(format!("{:?}", point.attributes), (fingerprint, point.count));
            }
        }
    }
    let mut sums = BTreeMap::new();
    for (fingerprint, count) in last.into_values() {
        *sums.entry(fingerprint).or_default() += count;
    }
    sums
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn every_execution_arrives_at_a_receiver() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let receiver = Receiver::default();
    let port = free_port().unwrap();
    let service = MetricsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip);
    runtime.spawn(Server::builder().add_service(service).serve((Ipv4Addr::LOCALHOST, port).into()));

    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    let otlp = format!(
        "export:\n  otlp:\n    - protocol: grpc\n      endpoint: http://127.0.0.1:{port}\n      interval: 1s\n"
    );
    let agent = Agent::start(AgentOptions { configuration: Some(otlp), ..AgentOptions::default() }).unwrap();
    agent.wait_visible(server.pid()).unwrap();
    let (database, amount) = ("bench".to_owned(), Amount::Seconds(2));
    let (script, protocol) = (Script::TpcB, Protocol::Simple);
    let load = Pgbench { database, transport: Transport::Tcp, script, protocol, clients: 4, amount, rate: None };
    let report = load.run(&server).unwrap();
    // A literal that no normalised text may show.
    server.client("bench").unwrap().query("SELECT 'canary-7f3a' AS x, 8675309 AS y").unwrap();

    let received = || executions(&receiver.0.lock().unwrap(), server.pid());
    let differs = || report.compare(Engine::Postgresql, &received()).differences;
    let arrived =
        wait_for("every execution at the receiver", Duration::from_secs(15), || Ok(differs().is_empty().then_some(())));
    assert!(arrived.is_ok(), "{:#?}\n{}", differs(), agent.stderr());
    // What is sent at the end belongs to it.
    assert!(agent.stop().unwrap().success());
    assert_eq!(differs(), []);
    let everything = format!("{:?}", receiver.0.lock().unwrap()).to_lowercase();
    assert!(everything.contains("select abalance from pgbench_accounts where aid = "), "statement texts are missing");
    assert!(!everything.contains("canary-7f3a") && !everything.contains("8675309"), "a literal has left the host");
}
