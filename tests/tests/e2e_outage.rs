//! Guarantee: what the agent has put into its spool reaches the receiver, though that is away, and though the agent is killed meanwhile.
//!
//! Delivery is at least once: what the receiver took right before a kill may come again, as the very same record. Not proven here: a full disk and damage, which
//! are unit tests of the spool; a failure of the machine's power.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
    },
    logs::v1::LogRecord,
};
use querylens_tests::{
    agent::{Agent, AgentOptions},
    process::{sleep, wait_for},
    servers::{Postgres, PostgresOptions, free_port},
};
use tonic::{Request, Response, Status, codec::CompressionEncoding, transport::Server};

/// Statements that fail, in each life of the agent. A failure is always shown.
const FAILURES: usize = 200;
/// So long a time after a statement it is in the spool: a batch each second, and the way there.
const SETTLE: Duration = Duration::from_secs(4);

/// Keeps the log records of statements, and counts requests of metrics.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<(Vec<LogRecord>, usize)>>);

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let resources = request.into_inner().resource_logs;
        let logs = resources.into_iter().flat_map(|resource| resource.scope_logs).flat_map(|scope| scope.log_records);
        self.0.lock().unwrap().0.extend(logs.filter(|log| log.event_name == "db.server.query_sample"));
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.lock().unwrap().1 += 1;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Receiver {
    /// Distinct failures, and how many came in all.
    fn failures(&self) -> (usize, usize) {
        let received = self.0.lock().unwrap();
        let failed = |log: &&LogRecord| log.attributes.iter().any(|attribute| attribute.key == "error.type");
        let failed: Vec<&LogRecord> = received.0.iter().filter(failed).collect();
        let distinct: BTreeSet<(u64, String)> =
            failed.iter().map(|log| (log.time_unix_nano, format!("{:?}", log.attributes))).collect();
        (distinct.len(), failed.len())
    }
}

fn agent(port: u16, state: &Path) -> Agent {
    let otlp = format!(
        "export:\n  otlp:\n    - protocol: grpc\n      endpoint: http://127.0.0.1:{port}\n      interval: 1s\n      retry: {{ initial: 100ms, max: 500ms, elapsed: 1s }}\n"
    );
    let state = Some(state.to_owned());
    Agent::start(AgentOptions { configuration: Some(otlp), state, ..AgentOptions::default() }).unwrap()
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn an_outage_and_two_kills_lose_nothing_that_was_kept() {
    let port = free_port().unwrap();
    let state = tempfile::tempdir().unwrap();
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    for life in 0..3 {
        let agent = agent(port, state.path());
        agent.wait_visible(server.pid()).unwrap();
        let mut client = server.client("postgres").unwrap();
        for number in 0..FAILURES {
            client.query(&format!("SELECT {number} / 0")).unwrap_err();
        }
        sleep(SETTLE).unwrap();
        if life < 2 {
            agent.kill().unwrap();
            continue;
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let receiver = Receiver::default();
        let logs = LogsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip);
        let metrics = MetricsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip);
        let services = Server::builder().add_service(logs).add_service(metrics);
        runtime.spawn(services.serve((Ipv4Addr::LOCALHOST, port).into()));
        let arrived = wait_for("everything at the receiver", Duration::from_secs(30), || {
            Ok((receiver.failures().0 >= 3 * FAILURES).then_some(()))
        });
        assert!(arrived.is_ok(), "{:?} of {}\n{}", receiver.failures(), 3 * FAILURES, agent.stderr());
        assert!(agent.stop().unwrap().success());
        // No receiver was there before, so that nothing was taken twice.
        assert_eq!(receiver.failures(), (3 * FAILURES, 3 * FAILURES));
        assert!(receiver.0.lock().unwrap().1 > 3 * 3, "the metrics of all three lives");
    }
}
