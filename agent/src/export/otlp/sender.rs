//! Sends payloads to one receiver, and again after temporary failures.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{
    Config, Payload, Retry, SetupError, later,
    retry::Backoff,
    transport::{Accepted, Failure, Transport},
};

/// What exporting has come to, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that the receiver took, wholly or in part.
    pub requests: u64,
    /// Attempts that had to be repeated.
    pub retries: u64,
    /// Points, log records and spans that the receiver took.
    pub points_accepted: u64,
    /// Those that the receiver took the request of but refused themselves (OTLP partial success).
    pub points_rejected: u64,
    /// Those of requests that failed for good.
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
    /// How many of the payloads, from the first one on, need not be sent again: they were taken, or will never be.
    pub settled: usize,
    /// The receiver did not take the first of the others, and should be left alone for a while.
    pub away: bool,
    /// The answers of the receiver that say more than that it took everything.
    pub answers: Vec<Answer>,
    /// What the receiver said about points that it refused, or warned of.
    pub warnings: Vec<String>,
    /// Why requests failed: what, where and what to do.
    pub errors: Vec<String>,
}

/// An answer to a request, as New Relic's rules know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status, or that which stands for the gRPC code; 0 without an answer.
    pub status: u16,
    /// Pause that was asked for.
    pub retry_after: Option<Duration>,
    /// Points that were refused.
    pub rejected: u64,
    /// Bytes of the request.
    pub bytes: usize,
}

/// Sends to one receiver.
#[derive(Debug)]
pub struct Sender {
    transport: Transport,
    retry: Retry,
    timeout: Duration,
    /// The receiver asked to be left alone until then.
    not_before: Option<Instant>,
    stats: Stats,
}

impl Sender {
    /// Reads certificates and prepares the connection, which is made at the first export. Secrets must have been resolved. To be called
    /// inside the runtime.
    pub(super) fn new(config: &Config) -> Result<Sender, SetupError> {
        Ok(Sender {
            transport: Transport::new(config)?,
            retry: config.retry.clone(),
            timeout: config.timeout.0,
            not_before: None,
            stats: Stats::default(),
        })
    }

    /// What all exports so far have come to.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Sends `payloads` in their order. Returns when all are sent or refused, after the first that could not be sent now, and after
    /// `retry.elapsed`, from when on no request is begun or sent again.
    pub async fn send(&mut self, payloads: &[Payload]) -> Report {
        let mut report = Report::default();
        if let Some(wait) = self.wait() {
            report.errors.push(format!("{} asked to wait for another {wait:.0?}: nothing was sent", self.transport));
            report.away = true;
            return report;
        }
        let deadline = later(self.retry.elapsed.0);
        for payload in payloads {
            if report.settled > 0 && Instant::now() > deadline {
                break;
            }
            let items = payload.items;
            match self.persist(payload, deadline, &mut report.stats.retries).await {
                Ok(Accepted { rejected, message }) => {
                    let rejected = rejected.min(items);
                    report.stats.requests += 1;
                    report.stats.points_rejected += rejected;
                    report.stats.points_accepted += items - rejected;
                    report.answers.push(Answer { status: 200, retry_after: None, rejected, bytes: payload.body.len() });
                    if rejected > 0 || !message.is_empty() {
                        let warning = format!("{} refused {rejected} of {items} points: {message}", self.transport);
                        report.warnings.push(warning);
                    }
                }
                Err(failure) => {
                    report.errors.push(format!("{}: {}", self.transport, failure.message()));
                    report.answers.push(failure.answer(payload.body.len()));
                    if let Failure::Temporary { .. } = failure {
                        // The receiver is not there: the rest would only wait for the same.
                        report.away = true;
                        break;
                    }
                    report.stats.points_failed += items;
                }
            }
            report.settled += 1;
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
    async fn persist(&mut self, payload: &Payload, deadline: Instant, retries: &mut u64) -> Result<Accepted, Failure> {
        let mut backoff = Backoff::new(&self.retry);
        loop {
            let attempt = timeout(self.timeout, self.transport.send(payload)).await;
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
