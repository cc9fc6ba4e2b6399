//! The circuit breaker: protects servers from being asked. It has two faces with one state: the gate that every collector asks before each question
//! ([`Gate::admit`], [`Gate::done`]), and the processor that marks what comes from a server that is not asked now ([`Marker`]).
//!
//! There is a circuit for each question to each server, and one for each server as a whole. A question is asked if both are closed; a circuit that was open long
//! enough lets one question through, a canary. While a circuit is open, the server is still seen: on the wire, which costs it nothing.

mod circuit;
pub mod config;
mod failure;
mod marker;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use circuit::Refusal;
pub use config::Config;
pub use failure::Failure;
pub use marker::Marker;

use super::{
    Field, Io, Measures, Stage, StateError,
    bounded::Bounded,
    state::{self, Moment},
};
use crate::model::{
    Timestamp,
    names::{attribute as a, processor_metric as m},
    signal,
};
use circuit::{Circuit, Kept};
use failure::Scope;

/// What the marker reads and writes.
pub const IO: Io = Io { reads: &[Field::Admitted], writes: &[Field::Circuit] };

/// Servers whose circuits are kept; the one that was asked longest ago makes room.
const MAX_INSTANCES: usize = 1024;
/// Questions of a server that have a circuit of their own; further ones have the server's only.
const MAX_QUESTIONS: usize = 64;
/// The pressure is over when it has fallen below so much of the threshold.
const RELIEF: f64 = 0.9;

/// Whether a question may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may; the answer may take so long.
    Go {
        /// How long.
        timeout: Duration,
    },
    /// It may, and whether the circuit closes depends on its answer.
    Canary {
        /// How long.
        timeout: Duration,
    },
    /// It may not, and will not before `until`.
    Refused {
        /// When to ask again.
        until: Timestamp,
        /// Why.
        why: Refusal,
    },
}

impl Admission {
    /// Whether it may be asked.
    pub fn is_granted(&self) -> bool {
        !matches!(self, Admission::Refused { .. })
    }
}

/// How a question that was admitted ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Ok {
        /// How long it took.
        took: Duration,
    },
    /// Without a good one.
    Failed(Failure),
    /// It was not asked after all, or nobody waited for the answer.
    Abandoned,
}

/// A circuit as people see it.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitStatus {
    /// The server.
    pub instance: Uuid,
    /// The question; `None` for the server as a whole.
    pub question: Option<Arc<str>>,
    /// State.
    pub state: signal::Circuit,
    /// What it is open for, and until when.
    pub open: Option<(Failure, Timestamp)>,
    /// Failures in a row while closed.
    pub failures: u32,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// The circuits of one server.
#[derive(Debug)]
struct Server {
    whole: Circuit,
    questions: BTreeMap<Arc<str>, Circuit>,
    /// Questions that wait for their answers.
    in_flight: u32,
    /// Since when some do without one having come: if none comes in time, they are lost.
    waiting_since: Timestamp,
}

/// All circuits. Pure: the caller gives the time.
#[derive(Debug)]
pub struct Breaker {
    config: Config,
    servers: Bounded<Uuid, Server>,
    failures: [u64; Failure::ALL.len()],
    refusals: BTreeMap<&'static str, u64>,
    pressed: bool,
    hasher: foldhash::fast::FixedState,
}

/// What is remembered over a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    servers: BTreeMap<Uuid, KeptServer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptServer {
    whole: Kept,
    questions: BTreeMap<Arc<str>, Kept>,
}

impl Breaker {
    /// All circuits closed.
    pub fn new(config: Config) -> Breaker {
        Breaker {
            config,
            servers: Bounded::new(MAX_INSTANCES),
            failures: [0; Failure::ALL.len()],
            refusals: BTreeMap::new(),
            pressed: false,
            hasher: foldhash::fast::FixedState::default(),
        }
    }

    /// Whether `question` may be asked now. If it is granted, [`Breaker::done`] must follow.
    pub fn admit(&mut self, now: Timestamp, instance: Uuid, question: &str) -> Admission {
        let admission = self.judge(now, instance, question);
        if let Admission::Refused { why, .. } = admission {
            *self.refusals.entry(why.name()).or_default() += 1;
        }
        admission
    }

    fn judge(&mut self, now: Timestamp, instance: Uuid, question: &str) -> Admission {
        let config = &self.config;
        if self.pressed {
            return Admission::Refused { until: now + *config.open_state_timeout, why: Refusal::Pressure };
        }
        let server = self.servers.at(instance, || Server::new(config), drop);
        // Answers that nobody told of must not keep the server busy for ever.
        if server.in_flight > 0 && now.since(server.waiting_since) > *config.max_timeout * 2 {
            server.in_flight = 0;
        }
        if server.in_flight >= config.max_concurrent_requests {
            return Admission::Refused { until: now + *config.base_timeout, why: Refusal::Busy };
        }
        // Ask both before either changes: a canary is sent only if neither refuses.
        let own = server.questions.get(question).map_or(Ok(false), |own| own.check(now, config));
        let (whole, own) = match (server.whole.check(now, config), own) {
            (Ok(whole), Ok(own)) => (whole, own),
            (Err((until, why)), _) | (_, Err((until, why))) => return Admission::Refused { until, why },
        };
        server.whole.enter(now);
        let timeout = match server.question(question, config) {
            Some(circuit) => {
                circuit.enter(now);
                circuit.timeout()
            }
            None => server.whole.timeout(),
        };
        if server.in_flight == 0 {
            server.waiting_since = now;
        }
        server.in_flight += 1;
        if whole || own { Admission::Canary { timeout } } else { Admission::Go { timeout } }
    }

    /// A question that was admitted has ended.
    pub fn done(&mut self, now: Timestamp, instance: Uuid, question: &str, outcome: Outcome) {
        let config = &self.config;
        let Some(server) = self.servers.get_mut(&instance) else { return };
        server.in_flight = server.in_flight.saturating_sub(1);
        server.waiting_since = now;
        match outcome {
            Outcome::Ok { took } => {
                server.whole.succeed(now, took, config);
                if let Some(circuit) = server.question(question, config) {
                    circuit.succeed(now, took, config);
                }
            }
            Outcome::Abandoned => {
                server.whole.abandon();
                if let Some(circuit) = server.question(question, config) {
                    circuit.abandon();
                }
            }
            Outcome::Failed(failure) => {
                self.failures[failure as usize] += 1;
                let jitter = |circuit: &Circuit| {
                    let hash = self.hasher.hash_one((instance, question, circuit.counts.trips));
                    hash as f64 / u64::MAX as f64
                };
                let scope = failure.response().scope;
                let at_once = matches!(scope, Scope::Feature | Scope::InstanceAtOnce);
                match scope {
                    Scope::Instance | Scope::InstanceAtOnce => {
                        let jitter = jitter(&server.whole);
                        server.whole.fail(now, failure, at_once, jitter, config);
                        // The question is not to blame.
                        if let Some(circuit) = server.question(question, config) {
                            circuit.abandon();
                        }
                    }
                    Scope::Question | Scope::Feature => {
                        // The server has answered, be it with an error; where it has not, the canary of the whole has failed too.
                        match failure {
                            Failure::Timeout if server.whole.state().0 == signal::Circuit::HalfOpen => {
                                let jitter = jitter(&server.whole);
                                server.whole.fail(now, failure, false, jitter, config);
                            }
                            Failure::Timeout => server.whole.abandon(),
                            _ => server.whole.succeed(now, Duration::ZERO, config),
                        }
                        if let Some(circuit) = server.question(question, config) {
                            let jitter = jitter(circuit);
                            circuit.fail(now, failure, at_once, jitter, config);
                        }
                    }
                }
            }
        }
    }

    /// What the agent itself uses: resident memory in megabytes, CPU in per cent of one core. Beyond the thresholds nothing is asked.
    pub fn pressure(&mut self, memory_mb: u64, cpu_percent: f64) {
        let factor = if self.pressed { RELIEF } else { 1.0 };
        let beyond = |value: f64, threshold: f64| threshold > 0.0 && value > threshold * factor;
        self.pressed = beyond(memory_mb as f64, self.config.memory_threshold_mb as f64)
            || beyond(cpu_percent, self.config.cpu_threshold_percent);
    }

    /// Opens or closes by hand: one question, or the server as a whole. Opened by hand it stays open until it is closed by hand.
    pub fn force(&mut self, now: Timestamp, instance: Uuid, question: Option<&str>, open: bool) {
        let config = &self.config;
        let server = self.servers.at(instance, || Server::new(config), drop);
        match question {
            None => server.whole.force(now, open),
            Some(question) => {
                if let Some(circuit) = server.question(question, config) {
                    circuit.force(now, open);
                }
            }
        }
    }

    /// The state of a server as a whole, and since when it is open.
    pub fn state(&self, instance: Uuid) -> (signal::Circuit, Option<Timestamp>) {
        self.servers.peek(&instance).map_or((signal::Circuit::Closed, None), |server| server.whole.state())
    }

    /// All circuits, for people.
    pub fn status(&self) -> Vec<CircuitStatus> {
        let mut all = Vec::new();
        self.each(|instance, question, circuit| {
            all.push(CircuitStatus {
                instance,
                question: question.cloned(),
                state: circuit.state().0,
                open: circuit.open_for(),
                failures: circuit.failures(),
                timeout: circuit.timeout(),
            });
        });
        all.sort_by(|a, b| (a.instance, &a.question).cmp(&(b.instance, &b.question)));
        all
    }

    /// Servers whose circuits were forgotten for want of room.
    pub fn evicted(&self) -> u64 {
        self.servers.evicted()
    }

    fn each(&self, mut see: impl FnMut(Uuid, Option<&Arc<str>>, &Circuit)) {
        for (instance, server) in self.servers.iter() {
            see(*instance, None, &server.whole);
            server.questions.iter().for_each(|(question, circuit)| see(*instance, Some(question), circuit));
        }
    }

    /// What has to survive a restart.
    pub fn export_state(&self, moment: Moment) -> State {
        let keep = |server: &Server| KeptServer {
            whole: server.whole.keep(moment),
            questions: server.questions.iter().map(|(name, circuit)| (name.clone(), circuit.keep(moment))).collect(),
        };
        State { servers: self.servers.iter().map(|(instance, server)| (*instance, keep(server))).collect() }
    }

    /// Takes up what was exported.
    pub fn import_state(&mut self, moment: Moment, state: State) {
        let config = &self.config;
        for (instance, kept) in state.servers.into_iter().take(MAX_INSTANCES) {
            let restore = |kept: &Kept| Circuit::restore(kept, moment, config);
            let server = self.servers.at(instance, || Server::new(config), drop);
            server.whole = restore(&kept.whole);
            let questions = kept.questions.iter().take(MAX_QUESTIONS);
            server.questions = questions.map(|(name, kept)| (name.clone(), restore(kept))).collect();
        }
    }

    fn measure(&self, measures: &mut Measures) {
        let (mut trips, mut attempts, mut recoveries, mut time) = (0, 0, 0, Duration::ZERO);
        self.each(|instance, question, circuit| {
            let value = f64::from(circuit.state().0 as u8);
            let question = question.map_or_else(|| "".into(), |question| question.to_string().into());
            let labels = vec![(a::SERVICE_INSTANCE_ID, instance.to_string().into()), (a::QUESTION, question)];
            measures.tell_with(&m::CIRCUIT_STATE, labels, value);
            trips += circuit.counts.trips;
            attempts += circuit.counts.recovery_attempts;
            recoveries += circuit.counts.recoveries;
            time += circuit.counts.recovery_time;
        });
        measures.tell(&m::CIRCUIT_TRIPS, trips as f64);
        measures.tell(&m::CIRCUIT_RECOVERY_ATTEMPTS, attempts as f64);
        measures.tell(&m::CIRCUIT_RECOVERIES, recoveries as f64);
        measures.tell(&m::CIRCUIT_RECOVERY_TIME, time.as_secs_f64());
        measures.tell(&m::CIRCUIT_EVICTIONS, self.evicted() as f64);
        for failure in Failure::ALL {
            measures.tell_by(
                &m::CIRCUIT_FAILURES,
                a::ERROR_TYPE,
                failure.name(),
                self.failures[failure as usize] as f64,
            );
        }
        for (why, count) in &self.refusals {
            measures.tell_by(&m::CIRCUIT_REFUSALS, a::REASON, *why, *count as f64);
        }
    }
}

impl Server {
    fn new(config: &Config) -> Server {
        Server {
            whole: Circuit::new(config),
            questions: BTreeMap::new(),
            in_flight: 0,
            waiting_since: Timestamp::default(),
        }
    }

    /// The circuit of a question; `None` beyond the bound.
    fn question(&mut self, question: &str, config: &Config) -> Option<&mut Circuit> {
        if !self.questions.contains_key(question) {
            if self.questions.len() >= MAX_QUESTIONS {
                return None;
            }
            self.questions.insert(question.into(), Circuit::new(config));
        }
        self.questions.get_mut(question)
    }
}

/// The breaker as collectors and processors share it. The lock is held for the time of a look into a table.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Mutex<Breaker>>);

impl Gate {
    /// A gate with all circuits closed.
    pub fn new(config: Config) -> Gate {
        Gate(Arc::new(Mutex::new(Breaker::new(config))))
    }

    /// The breaker. Its operations leave it consistent at every step, so that a panic elsewhere while it was locked does not matter.
    pub fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Breaker::admit`].
    pub fn admit(&self, now: Timestamp, instance: Uuid, question: &str) -> Admission {
        self.lock().admit(now, instance, question)
    }

    /// See [`Breaker::done`].
    pub fn done(&self, now: Timestamp, instance: Uuid, question: &str, outcome: Outcome) {
        self.lock().done(now, instance, question, outcome);
    }

    fn export(&self, moment: Moment) -> Option<Result<serde_json::Value, StateError>> {
        state::export(Stage::CircuitBreaker, &self.lock().export_state(moment))
    }
}
