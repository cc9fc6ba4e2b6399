//! Metrics over OTLP, gRPC or HTTP with protobuf.
//!
//! `request` builds, `split` cuts to size, `transport` sends once, `retry` decides when to try again; the [`Exporter`] puts them together.

mod config;
mod grpc;
mod http;
mod request;
mod retry;
mod split;
#[cfg(test)]
mod tests;
mod transport;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use tokio::time::{Instant, sleep, timeout};

use crate::model::Snapshot;

use super::{Host, OperationDurationName};

pub use config::{Compression, Config, Endpoint, HeaderKey, Protocol, Resource, Retry, Tls};
pub use request::Builder;
use retry::Backoff;
pub use transport::SetupError;
use transport::{Accepted, Failure, Transport};

/// Longest that the agent waits for anything, whatever a receiver asks for or a configuration allows.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// So much time from now, at most [`LONGEST_WAIT`].
fn later(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST_WAIT)
}

/// What exporting has come to, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that the receiver took, wholly or in part.
    pub requests: u64,
    /// Attempts that had to be repeated.
    pub retries: u64,
    /// Points that the receiver took.
    pub points_accepted: u64,
    /// Points that the receiver took the request of but refused themselves (OTLP partial success).
    pub points_rejected: u64,
    /// Points of requests that failed for good, or that were not sent because the receiver asked to wait. Their counts are cumulative, so
    /// that the next request which arrives carries them too.
    pub points_failed: u64,
}

impl Stats {
    /// What was lost, by cause, to be counted with the agent's other losses.
    pub fn losses(&self) -> [(&'static str, u64); 2] {
        [("otlp_points_rejected", self.points_rejected), ("otlp_points_failed", self.points_failed)]
    }
}

/// How one export ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What this export added to [`Stats`].
    pub stats: Stats,
    /// What the receiver said about points that it refused, or warned of.
    pub warnings: Vec<String>,
    /// Why requests failed: what, where and what to do.
    pub errors: Vec<String>,
}

/// Sends snapshots to one receiver.
#[derive(Debug)]
pub struct Exporter {
    builder: Builder,
    transport: Transport,
    retry: Retry,
    timeout: Duration,
    max_request_bytes: usize,
    /// The receiver asked to be left alone until then.
    not_before: Option<Instant>,
    stats: Stats,
}

impl Exporter {
    /// Reads certificates and prepares the connection, which is made at the first export. Secrets must have been resolved. To be called
    /// inside the runtime.
    pub fn new(config: &Config, duration: OperationDurationName, host: Host) -> Result<Exporter, SetupError> {
        Ok(Exporter {
            builder: Builder::new(config, duration, host),
            transport: Transport::new(config)?,
            retry: config.retry.clone(),
            timeout: config.timeout.0,
            max_request_bytes: config.max_request_bytes.get(),
            not_before: None,
            stats: Stats::default(),
        })
    }

    /// What all exports so far have come to.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Sends `snapshot`, in as many requests as its size needs. Returns when all is sent or given up: after `retry.elapsed`, no request
    /// is begun or sent again.
    pub async fn export(&mut self, snapshot: &Snapshot) -> Report {
        let mut report = Report::default();
        let mut requests = split::split(self.builder.request(snapshot), self.max_request_bytes).into_iter();
        let deadline = later(self.retry.elapsed.0);
        if let Some(wait) = self.wait() {
            report.errors.push(format!("{} asked to wait for another {wait:.0?}: nothing was sent", self.transport));
            report.stats.points_failed += requests.map(|request| split::points(&request)).sum::<u64>();
        } else {
            while let Some(request) = requests.next() {
                let points = split::points(&request);
                if report.stats != Stats::default() && Instant::now() > deadline {
                    report.stats.points_failed += points + requests.map(|rest| split::points(&rest)).sum::<u64>();
                    report.errors.push(format!(
                        "{} is too slow: not everything was sent within {:?} (config key `export.otlp.retry.elapsed`)",
                        self.transport, self.retry.elapsed
                    ));
                    break;
                }
                match self.send(&request, deadline, &mut report.stats.retries).await {
                    Ok(Accepted { rejected, message }) => {
                        let rejected = rejected.min(points);
                        report.stats.requests += 1;
                        report.stats.points_rejected += rejected;
                        report.stats.points_accepted += points - rejected;
                        if rejected > 0 || !message.is_empty() {
                            report
                                .warnings
                                .push(format!("{} refused {rejected} of {points} points: {message}", self.transport));
                        }
                    }
                    Err(failure) => {
                        report.stats.points_failed += points;
                        report.errors.push(format!("{}: {}", self.transport, failure.message()));
                        if let Failure::Temporary { .. } = failure {
                            // The receiver is not there: the rest would only wait for the same.
                            report.stats.points_failed +=
                                requests.by_ref().map(|rest| split::points(&rest)).sum::<u64>();
                        }
                    }
                }
            }
        }
        self.stats.requests += report.stats.requests;
        self.stats.retries += report.stats.retries;
        self.stats.points_accepted += report.stats.points_accepted;
        self.stats.points_rejected += report.stats.points_rejected;
        self.stats.points_failed += report.stats.points_failed;
        report
    }

    /// How long the receiver still wants to be left alone.
    fn wait(&mut self) -> Option<Duration> {
        let wait = self.not_before?.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            self.not_before = None;
            return None;
        }
        Some(wait)
    }

    /// Sends one request, and again after temporary failures until `deadline`.
    async fn send(
        &mut self,
        request: &ExportMetricsServiceRequest,
        deadline: Instant,
        retries: &mut u64,
    ) -> Result<Accepted, Failure> {
        let mut backoff = Backoff::new(&self.retry);
        loop {
            let attempt = timeout(self.timeout, self.transport.send(request)).await;
            let failure = match attempt {
                Ok(Ok(accepted)) => return Ok(accepted),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::temporary(format!("no answer within {:?}; see `timeout`", self.timeout)),
            };
            let Failure::Temporary { after, .. } = &failure else {
                return Err(failure);
            };
            let wait = after.unwrap_or_else(|| backoff.next());
            if later(wait) > deadline {
                self.not_before = after.map(later);
                return Err(failure);
            }
            *retries += 1;
            sleep(wait).await;
        }
    }
}
