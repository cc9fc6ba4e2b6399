//! What New Relic answers, at once and afterwards, and what follows from it.

use std::time::Duration;

use super::config::MIN_REQUEST;
use crate::{
    model::{Timestamp, signal::Severity},
    processors::{Effect, Effects, ExportAction},
};

/// Waits after failures without a word on how long: so long at first, then twice as long each time, at most.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// After so long a time without a refusal, requests may be larger again.
const GROW: Duration = Duration::from_secs(600);

/// An answer to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status, or what that of gRPC means in HTTP.
    pub status: u16,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Points that were rejected of a request that was otherwise accepted.
    pub rejected: u64,
    /// Bytes of the request.
    pub bytes: usize,
}

/// A fault that was found after the answer (event `NrIntegrationError`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrationError {
    /// `category`: `BadRequest`, `RateLimit`, `ApiLimit`.
    pub category: String,
    /// `rateLimitType`, where the category is one: `UniqueTimeseriesPerDay`, `RequestsPerMinute` ...
    pub limit: Option<String>,
}

/// What is to be thought of the receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    most: usize,
    limit: usize,
    limited: Timestamp,
    failures: u32,
    /// Answers by class: accepted, partly rejected, refused for good, too large, too many, failed.
    pub(super) counts: [u64; 6],
    pub(super) rejected: u64,
    pub(super) stopped: bool,
}

/// Names of [`Receiver::counts`].
pub(super) const CLASSES: [&str; 6] = ["accepted", "partly_rejected", "refused", "too_large", "rate_limited", "failed"];

impl Receiver {
    pub(super) fn new(most: usize) -> Receiver {
        Receiver {
            most,
            limit: most,
            limited: Timestamp::default(),
            failures: 0,
            counts: [0; 6],
            rejected: 0,
            stopped: false,
        }
    }

    /// Takes up an answer.
    pub(super) fn answer(&mut self, now: Timestamp, answer: Answer, effects: &mut Effects) {
        let class = match answer.status {
            200..=299 if answer.rejected > 0 => 1,
            200..=299 => 0,
            413 => 3,
            429 => 4,
            408 | 500..=599 => 5,
            _ => 2,
        };
        self.counts[class] += 1;
        self.rejected += answer.rejected;
        match class {
            0 | 1 => {
                self.failures = 0;
                self.stopped = false;
                self.grow(now, effects);
            }
            2 => {
                // No key, a wrong key, a wrong path: asking again changes nothing.
                let final_ = matches!(answer.status, 401 | 403 | 404);
                if final_ && !std::mem::replace(&mut self.stopped, true) {
                    effects.push(Effect::Export(ExportAction::Stop));
                    effects.alert("export_refused", Severity::Critical, f64::from(answer.status), 0.0);
                } else if !final_ {
                    effects.alert("export_refused", Severity::High, f64::from(answer.status), 0.0);
                }
            }
            3 => {
                let half = self.limit.min(answer.bytes.max(1)) / 2;
                self.limit = half.max(MIN_REQUEST);
                self.limited = now;
                effects.push(Effect::Export(ExportAction::LimitRequest(self.limit)));
            }
            _ => {
                let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
                self.failures += 1;
                // What the receiver says counts, but not for longer than a day.
                let wait = answer.retry_after.unwrap_or(doubled).min(Duration::from_secs(86_400));
                effects.push(Effect::Export(ExportAction::PauseUntil(now + wait)));
            }
        }
    }

    fn grow(&mut self, now: Timestamp, effects: &mut Effects) {
        if self.limit < self.most && now.since(self.limited) >= GROW {
            self.limit = self.limit.saturating_mul(2).min(self.most);
            self.limited = now;
            effects.push(Effect::Export(ExportAction::LimitRequest(self.limit)));
        }
    }

    /// Takes up a fault that was found afterwards; whether it means that a metric has too many series today.
    pub(super) fn fault(&mut self, now: Timestamp, error: &IntegrationError, effects: &mut Effects) -> bool {
        self.rejected += 1;
        match (error.category.as_str(), error.limit.as_deref()) {
            (_, Some("UniqueTimeseriesPerDay" | "UniquePrometheusTimeseries")) => true,
            (_, Some("RequestsPerMinute")) => {
                effects.push(Effect::Export(ExportAction::PauseUntil(now + Duration::from_secs(60))));
                false
            }
            _ => false,
        }
    }
}
