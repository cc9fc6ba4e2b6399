//! The collectors' gate: the circuit breaker, and what the agent and the host can bear.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use crate::{
    collect::{Gate, Held},
    config::Config,
    health::cost::Cost,
    model::{Asked, Instance, Question, Timestamp, signal::Circuit},
    processors::breaker::{self, Admission, Failure, Outcome, Refusal},
};

/// How often the agent's own cost and the host's pressure are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long nothing is asked at least because the host lacks memory: the time over which the kernel averages.
const PRESSURE_PAUSE: Duration = Duration::from_secs(10);

/// Protects servers, the agent and the host from questions.
#[derive(Clone)]
pub(super) struct Breaker {
    circuits: breaker::Gate,
    /// The circuits' clock begins here.
    start: Instant,
    /// The host is short of memory.
    pressed: Arc<AtomicBool>,
    /// `memory.full avg10` beyond which nothing is asked, in per cent.
    limit: f64,
    pressure_file: PathBuf,
}

impl Breaker {
    /// All circuits closed.
    pub(super) fn new(config: &Config) -> Breaker {
        Breaker {
            circuits: breaker::Gate::new(config.processors.circuit_breaker.clone()),
            start: Instant::now(),
            pressed: Arc::default(),
            limit: config.collect.max_memory_pressure,
            pressure_file: config.discovery.proc_root.join("pressure/memory"),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Servers whose circuits were forgotten for want of room.
    pub(super) fn forgotten(&self) -> u64 {
        self.circuits.lock().evicted()
    }

    /// Keeps an eye on the agent's own cost and the host's memory until it is dropped.
    pub(super) async fn watch(self) {
        let mut ticks = tokio::time::interval(LOOK);
        let mut before: Option<(Instant, Cost)> = None;
        loop {
            ticks.tick().await;
            let now = Instant::now();
            if let Ok(cost) = Cost::read() {
                if let Some((at, last)) = before {
                    let used = cost.cpu.saturating_sub(last.cpu).as_secs_f64();
                    let percent = 100.0 * used / (now - at).as_secs_f64().max(f64::EPSILON);
                    self.circuits.lock().pressure(cost.rss_bytes / 1_000_000, percent);
                }
                before = Some((now, cost));
            }
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
        let now = self.now();
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
        let (now, instance) = (self.now(), server.service_instance_id);
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

    #[test]
    fn what_ends_badly_three_times_is_held_and_others_are_not() {
        let gate = Breaker::new(&Config::default());
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
        let gate = Breaker::new(&Config::default());
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
