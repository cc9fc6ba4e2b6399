//! The collectors' gate: the circuit breaker, which also knows what the agent itself uses, and what the host can bear.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tracing::{debug, warn};

use super::clock;
use crate::{
    collect::{Gate, Held},
    config::Config,
    model::{Asked, Instance, Question, signal::Circuit},
    processors::breaker::{self, Admission, Failure, Outcome, Refusal},
};

/// How often the host's pressure is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long nothing is asked at least because the host lacks memory: the time over which the kernel averages.
const PRESSURE_PAUSE: Duration = Duration::from_secs(10);

/// Protects servers and the host from questions.
#[derive(Clone)]
pub(super) struct Breaker {
    circuits: breaker::Gate,
    /// The host is short of memory.
    pressed: Arc<AtomicBool>,
    /// `memory.full avg10` beyond which nothing is asked, in per cent.
    limit: f64,
    pressure_file: PathBuf,
}

impl Breaker {
    /// The gate with these circuits.
    pub(super) fn new(config: &Config, circuits: breaker::Gate) -> Breaker {
        Breaker {
            circuits,
            pressed: Arc::default(),
            limit: config.collect.max_memory_pressure,
            pressure_file: config.discovery.proc_root.join("pressure/memory"),
        }
    }

    /// Servers whose circuits were forgotten for want of room.
    pub(super) fn forgotten(&self) -> u64 {
        self.circuits.lock().evicted()
    }

    /// Keeps an eye on the host's memory until it is dropped.
    pub(super) async fn watch(self) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            // Kernels without PSI have no such file.
            let stalled = fs::read_to_string(&self.pressure_file).ok().and_then(|text| full_avg10(&text));
            let pressed = self.limit > 0.0 && stalled.is_some_and(|percent| percent > self.limit);
            if !self.pressed.swap(pressed, Ordering::Relaxed) && pressed {
                warn!(percent = stalled, "the host is short of memory: no database is asked for the time being");
            }
        }
    }
}

impl Gate for Breaker {
    fn admit(&self, server: &Instance, question: Question) -> Result<(), Held> {
        if self.pressed.load(Ordering::Relaxed) {
            return Err(Held { pause: PRESSURE_PAUSE, why: "the host is short of memory".to_owned() });
        }
        let now = clock::now();
        match self.circuits.admit(now, server.service_instance_id, question.name()) {
            Admission::Go { .. } | Admission::Canary { .. } => Ok(()),
            Admission::Refused { until, why } => {
                let pause = until.since(now);
                Err(Held { pause, why: reason(why) })
            }
        }
    }

    fn done(&self, server: &Instance, question: Question, asked: Asked, took: Duration) {
        let outcome = match failure(question, asked) {
            None => Outcome::Ok { took },
            Some(failure) => Outcome::Failed(failure),
        };
        let (now, instance) = (clock::now(), server.service_instance_id);
        let before = self.circuits.lock().state(instance).0;
        self.circuits.done(now, instance, question.name(), outcome);
        let after = self.circuits.lock().state(instance).0;
        let (name, server) = (question.name(), server.label());
        match (before, after) {
            (_, Circuit::Open) if before != Circuit::Open => {
                warn!(%server, question = name, reason = asked.word(), "the database is not asked any more for the time being");
            }
            (Circuit::Open | Circuit::HalfOpen, Circuit::Closed) => debug!(%server, "the database is asked again"),
            _ => {}
        }
    }
}

/// Why a question is not asked, for people.
fn reason(why: Refusal) -> String {
    match why {
        Refusal::Open(failure) => format!("circuit open: {}", failure.name().replace('_', " ")),
        Refusal::Probing => "circuit half open: another question is being tried".to_owned(),
        Refusal::Manual => "circuit opened by hand".to_owned(),
        Refusal::Busy => "as many questions as may be are waiting for answers".to_owned(),
        Refusal::Pressure => "the agent itself uses too much memory or CPU".to_owned(),
    }
}

/// The kind of failure that opens a circuit; `None` for an answer.
fn failure(question: Question, asked: Asked) -> Option<Failure> {
    Some(match asked {
        Asked::Answered => return None,
        Asked::TimedOut => Failure::Timeout,
        Asked::LockTimedOut => Failure::Locks,
        // Facts are first asked by logging in.
        Asked::Denied if question == Question::Facts => Failure::Authentication,
        Asked::Denied => Failure::PermissionDenied,
        Asked::Missing => Failure::MissingObject,
        Asked::TooCostly => Failure::Cost,
        Asked::TooManyConnections => Failure::TooManyConnections,
        Asked::ShuttingDown | Asked::Disconnected => Failure::Connection,
        Asked::Failed => Failure::Other,
    })
}

/// `avg10` of the line `full` of a file in /proc/pressure (Documentation/accounting/psi.rst): the share of the last ten seconds in which all tasks that
/// had something to do waited, in per cent.
fn full_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    line.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::testing;

    fn gate() -> Breaker {
        let config = Config::default();
        Breaker::new(&config, breaker::Gate::new(config.processors.circuit_breaker.clone()))
    }

    #[test]
    fn what_ends_badly_three_times_is_held_and_others_are_not() {
        let gate = gate();
        let server = &testing::busy().instances[0].instance;
        for _ in 0..3 {
            gate.admit(server, Question::Tables).unwrap();
            gate.done(server, Question::Tables, Asked::LockTimedOut, Duration::from_millis(100));
        }
        let held = gate.admit(server, Question::Tables).unwrap_err();
        assert_eq!(held.why, "circuit open: locks");
        assert!((Duration::from_secs(23)..=Duration::from_secs(36)).contains(&held.pause), "{held:?}");
        gate.admit(server, Question::Activity).unwrap();
        gate.done(server, Question::Activity, Asked::TooManyConnections, Duration::ZERO);
        assert_eq!(gate.admit(server, Question::Statements).unwrap_err().why, "circuit open: too many connections");
    }

    #[test]
    fn the_host_comes_first() {
        let gate = gate();
        let server = &testing::busy().instances[0].instance;
        gate.pressed.store(true, Ordering::Relaxed);
        assert!(gate.admit(server, Question::Activity).is_err());
        gate.pressed.store(false, Ordering::Relaxed);
        assert!(gate.admit(server, Question::Activity).is_ok());
    }

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=12.30 avg60=1.00 avg300=0.10 total=25162810\nfull avg10=4.56 avg60=0.10 avg300=0.00 total=11290094\n";
        assert_eq!(full_avg10(text), Some(4.56));
        assert_eq!(full_avg10("some avg10=12.30 avg60=1.00 avg300=0.10 total=1\n"), None);
    }
}
