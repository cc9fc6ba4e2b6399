//! One circuit: closed, open, or half open.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, Failure};
use crate::{
    model::{Timestamp, signal},
    processors::state::Moment,
};

/// Why a question may not be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It failed, or the server did.
    Open(Failure),
    /// One question is being asked, to see whether all is well again.
    Probing,
    /// Somebody opened the circuit by hand.
    Manual,
    /// As many questions as may be are waiting for their answers.
    Busy,
    /// The agent itself uses too much memory or CPU.
    Pressure,
}

impl Refusal {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Open(failure) => failure.name(),
            Refusal::Probing => "probing",
            Refusal::Manual => "manual",
            Refusal::Busy => "busy",
            Refusal::Pressure => "pressure",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed {
        /// Failures in a row.
        failures: u32,
    },
    Open {
        since: Timestamp,
        until: Timestamp,
        failure: Failure,
    },
    HalfOpen {
        /// The failure that it was opened for.
        failure: Failure,
        /// When the canary was sent that has not come back.
        canary: Option<Timestamp>,
        /// Answers in a row.
        successes: u32,
    },
}

/// One circuit. Who asks first calls [`Circuit::check`], then [`Circuit::enter`], and [`Circuit::done`] when the answer is there.
#[derive(Clone, Debug)]
pub(super) struct Circuit {
    state: State,
    /// Opened by hand.
    forced: bool,
    /// How often it was opened since it last closed by itself.
    attempts: u32,
    /// How long an answer may take.
    timeout: Duration,
    /// When it was first opened since it was last closed.
    broken_since: Option<Timestamp>,
    pub(super) counts: Counts,
}

/// What happened to a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Times it was opened.
    pub(super) trips: u64,
    /// Canaries sent.
    pub(super) recovery_attempts: u64,
    /// Times it closed again.
    pub(super) recoveries: u64,
    /// Time from the first opening to closing, over all recoveries.
    pub(super) recovery_time: Duration,
}

/// The form that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The failure, and until when it is open in Unix nanoseconds; `None` if it is closed.
    open: Option<(Failure, i64)>,
    forced: bool,
    attempts: u32,
    timeout_nanos: u64,
}

impl Circuit {
    pub(super) fn new(config: &Config) -> Circuit {
        Circuit {
            state: State::Closed { failures: 0 },
            forced: false,
            attempts: 0,
            timeout: *config.base_timeout,
            broken_since: None,
            counts: Counts::default(),
        }
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether a question may be asked: `Ok(true)` as a canary.
    pub(super) fn check(&self, now: Timestamp, config: &Config) -> Result<bool, (Timestamp, Refusal)> {
        if self.forced {
            return Err((now + *config.max_backoff, Refusal::Manual));
        }
        match self.state {
            State::Closed { .. } => Ok(false),
            State::Open { until, failure, .. } if now < until => Err((until, Refusal::Open(failure))),
            State::Open { .. } | State::HalfOpen { canary: None, .. } => Ok(true),
            // A canary that never came back must not hold the circuit half open for ever.
            State::HalfOpen { canary: Some(sent), .. } => {
                let lost = sent + *config.max_timeout * 2;
                if now < lost { Err((lost, Refusal::Probing)) } else { Ok(true) }
            }
        }
    }

    /// A question that [`Circuit::check`] allowed is asked.
    pub(super) fn enter(&mut self, now: Timestamp) {
        self.state = match self.state {
            State::Closed { .. } => return,
            State::Open { failure, .. } => State::HalfOpen { failure, canary: Some(now), successes: 0 },
            State::HalfOpen { failure, successes, .. } => State::HalfOpen { failure, canary: Some(now), successes },
        };
        self.counts.recovery_attempts += 1;
    }

    /// The answer came.
    pub(super) fn succeed(&mut self, now: Timestamp, took: Duration, config: &Config) {
        match &mut self.state {
            State::Closed { failures } => *failures = 0,
            // It was asked before the circuit opened; that others failed since then counts more.
            State::Open { .. } => return,
            State::HalfOpen { canary, successes, .. } => {
                *canary = None;
                *successes += 1;
                if *successes >= config.success_threshold {
                    self.close(now);
                }
            }
        }
        if config.enable_adaptive_timeout && took < self.timeout / 2 {
            self.timeout = self.timeout.mul_f64(0.9).max(*config.base_timeout);
        }
    }

    /// No good answer came; `at_once`: that is enough to open. `jitter` is from 0 to 1. Says whether it opened.
    pub(super) fn fail(
        &mut self,
        now: Timestamp,
        failure: Failure,
        at_once: bool,
        jitter: f64,
        config: &Config,
    ) -> bool {
        if failure == Failure::Timeout && config.enable_adaptive_timeout {
            self.timeout = self.timeout.mul_f64(1.1).min(*config.max_timeout);
        }
        match &mut self.state {
            State::Open { .. } => return false,
            State::Closed { failures } => {
                *failures += 1;
                if !at_once && *failures < config.failure_threshold {
                    return false;
                }
            }
            State::HalfOpen { .. } => {}
        }
        self.open(now, failure, jitter, config);
        true
    }

    /// The question was not asked after all, or nobody waited for the answer: nothing is learnt from it.
    pub(super) fn abandon(&mut self) {
        if let State::HalfOpen { canary, .. } = &mut self.state {
            *canary = None;
        }
    }

    fn open(&mut self, now: Timestamp, failure: Failure, jitter: f64, config: &Config) {
        self.attempts = self.attempts.saturating_add(1);
        let response = failure.response();
        let first = response.backoff.unwrap_or(*config.open_state_timeout);
        let longest = response.longest.unwrap_or(*config.max_backoff).max(first);
        let doubled = first.saturating_mul(1 << (self.attempts - 1).min(20)).min(longest);
        // From 80 to 120 per cent: servers that failed together are not asked again together.
        let backoff = doubled.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        self.state = State::Open { since: now, until: now + backoff, failure };
        self.broken_since.get_or_insert(now);
        self.counts.trips += 1;
    }

    fn close(&mut self, now: Timestamp) {
        self.state = State::Closed { failures: 0 };
        self.attempts = 0;
        if let Some(since) = self.broken_since.take() {
            self.counts.recoveries += 1;
            self.counts.recovery_time += now.since(since);
        }
    }

    /// Opens or closes by hand. Closed by hand it forgets its failures.
    pub(super) fn force(&mut self, now: Timestamp, open: bool) {
        self.forced = open;
        if !open {
            self.close(now);
        }
    }

    /// Its state, and since when it is open.
    pub(super) fn state(&self) -> (signal::Circuit, Option<Timestamp>) {
        match self.state {
            _ if self.forced => (signal::Circuit::Open, Some(Timestamp(0))),
            State::Closed { .. } => (signal::Circuit::Closed, None),
            State::Open { since, .. } => (signal::Circuit::Open, Some(since)),
            State::HalfOpen { .. } => (signal::Circuit::HalfOpen, None),
        }
    }

    /// What it is open for, and until when.
    pub(super) fn open_for(&self) -> Option<(Failure, Timestamp)> {
        match self.state {
            State::Open { failure, until, .. } => Some((failure, until)),
            _ => None,
        }
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        match self.state {
            State::Closed { failures } => failures,
            _ => 0,
        }
    }

    pub(super) fn keep(&self, moment: Moment) -> Kept {
        let open = match self.state {
            State::Closed { .. } => None,
            State::Open { until, failure, .. } => Some((failure, moment.keep(until))),
            State::HalfOpen { failure, .. } => Some((failure, moment.keep(moment.now))),
        };
        let timeout_nanos = u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX);
        Kept { open, forced: self.forced, attempts: self.attempts, timeout_nanos }
    }

    pub(super) fn restore(kept: &Kept, moment: Moment, config: &Config) -> Circuit {
        let mut circuit = Circuit::new(config);
        circuit.forced = kept.forced;
        circuit.attempts = kept.attempts;
        circuit.timeout = Duration::from_nanos(kept.timeout_nanos).clamp(*config.base_timeout, *config.max_timeout);
        if let Some((failure, until)) = kept.open {
            let longest = failure.response().longest.unwrap_or(*config.max_backoff);
            let until = moment.restore_deadline(until, longest.mul_f64(1.2));
            circuit.state = State::Open { since: moment.now, until, failure };
            circuit.broken_since = Some(moment.now);
        }
        circuit
    }
}
