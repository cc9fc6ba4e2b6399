//! Sends what was observed through the processors, and carries out what they want done.
//!
//! Each second the executions that were seen since the last one, and who waits for whom, make a batch; every tenth brings the exact statistics too. What is left goes to the exits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{debug, error, info, warn};

use super::{Snapshots, chains::Chains, clock, exit::Orders, intervals::Intervals, keeping::Keeping};
use crate::{
    export::otlp,
    health::cost::{self, Cost},
    model::{
        Batch, Measured, Outgoing, Timestamp, WallClock,
        signal::{Kind, Notice, NoticeKind},
    },
    processors::{
        Alert, Chain, Config, Effect, Effects, ExportAction, Feedback, Level, Stage, breaker::Gate,
        chain::Surroundings, newrelic, state::Moment, verification::Health,
    },
};

/// Time between two batches.
const ROUND: Duration = Duration::from_secs(1);
/// Every so many rounds, the exact statistics go through the chain.
const STATISTICS: u32 = 10;
/// Batches that may wait for an exit; further ones are lost to it, and counted.
pub(super) const WAITING: usize = 16;
/// Words from the exits that may wait.
pub(super) const WORDS: usize = 1024;

/// What an exit tells the processors.
#[derive(Debug)]
pub(super) enum Word {
    /// A receiver answered.
    Answered {
        /// Which, by its place in the configuration.
        receiver: usize,
        /// What.
        answer: otlp::Answer,
    },
    /// Requests were encoded.
    Encoded(Vec<otlp::Encoded>),
}

/// How it stands with an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ExitState {
    /// How full its spool is, from 0 to 1.
    pub(super) fill: f64,
    /// Its receiver does not take anything.
    pub(super) down: bool,
}

/// What the processors tell of themselves, for whoever takes snapshots.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Mutex<Arc<Vec<Measured>>>>);

impl Board {
    pub(super) fn read(&self) -> Arc<Vec<Measured>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, measured: Vec<Measured>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(measured);
    }
}

/// The end of an exit that the processors hold.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) records: mpsc::Sender<Arc<Outgoing>>,
    /// The exit's state; `None` for one that has no receiver.
    pub(super) state: Option<watch::Receiver<ExitState>>,
    /// What the exit should do.
    pub(super) orders: Option<watch::Sender<Orders>>,
}

/// What runs the chain.
pub(super) struct Signals {
    chain: Chain,
    gate: Gate,
    snapshots: Snapshots,
    intervals: Intervals,
    chains: Chains,
    keeping: Keeping,
    outlets: Vec<Outlet>,
    words: mpsc::Receiver<Word>,
    effects: Effects,
    notices: Vec<Notice>,
    rounds: u32,
    /// CPU time at the last look, and when that was.
    cpu: Option<(Duration, Instant)>,
    memory_limit: u64,
}

/// State of the stages, by their name.
pub(super) type States = BTreeMap<Stage, Value>;

impl Signals {
    /// A chain with what it had learnt.
    pub(super) fn new(
        config: &Config,
        gate: Gate,
        one_in: u32,
        snapshots: Snapshots,
        keeping: Keeping,
        (outlets, words): (Vec<Outlet>, mpsc::Receiver<Word>),
        states: States,
    ) -> Signals {
        let random = std::array::from_fn(|_| fastrand::u8(..));
        let surroundings =
            Surroundings { gate: gate.clone(), random, kernel_one_in: one_in, stopwatch: Some(clock::now) };
        let mut chain = Chain::new(config, surroundings);
        let moment = Moment { now: clock::now(), clock: clock::wall() };
        chain.import_state(moment, states).iter().for_each(|error| warn!("{error}"));
        Signals {
            chain,
            gate,
            snapshots,
            intervals: Intervals::default(),
            chains: Chains::default(),
            keeping,
            outlets,
            words,
            effects: Effects::default(),
            notices: Vec::new(),
            rounds: 0,
            cpu: None,
            memory_limit: cost::memory_limit().unwrap_or(0),
        }
    }

    /// Runs until `stopped`; then once more, and gives what the chain has learnt.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<()>) -> States {
        let mut ticks = super::service::ticks(ROUND);
        loop {
            tokio::select! {
                biased;
                // Nothing is ever sent: the sender's end is the signal.
                _ = stopped.changed() => break,
                _ = ticks.tick() => self.round().await,
                Some(word) = self.words.recv() => self.heed(word),
            }
        }
        // What was counted since the last statistics goes with the last batch.
        self.rounds = 0;
        self.round().await;
        let states = self.states(clock::now(), clock::wall());
        self.keeping.save(&states);
        states
    }

    async fn round(&mut self) {
        self.look_at_self();
        let examples = match self.snapshots.examples().await {
            Ok(examples) => examples,
            Err(error) => return error!(%error, "no executions to process"),
        };
        let statistics = match self.rounds.is_multiple_of(STATISTICS) {
            true => self.snapshots.take().await.inspect_err(|error| error!(%error, "no statistics to process")).ok(),
            false => None,
        };
        self.rounds = self.rounds.wrapping_add(1);
        let (now, clock) = (clock::now(), clock::wall());
        let mut batch = Batch::new(clock);
        if let Some(snapshot) = statistics {
            self.intervals.records(now, &snapshot).into_iter().for_each(|record| batch.push(record));
        }
        let asked = self.snapshots.blocking();
        let asked = asked.iter().map(|(instance, activity)| (instance, activity.chains.as_slice()));
        self.chains.records(now, asked).into_iter().for_each(|record| batch.push(record));
        examples.into_iter().for_each(|record| batch.push(record));
        self.process(now, batch);
        if self.keeping.due() {
            let states = self.states(now, clock);
            self.keeping.save(&states);
        }
    }

    fn process(&mut self, now: Timestamp, mut batch: Batch) {
        let clock = batch.clock();
        let states: Vec<ExitState> =
            self.outlets.iter().filter_map(|outlet| Some(*outlet.state.as_ref()?.borrow())).collect();
        let fill = states.iter().map(|state| state.fill).fold(0.0, f64::max);
        self.chain.room(fill, states.iter().any(|state| state.down));
        self.chain.process(now, &mut batch, &mut self.effects);
        self.carry_out(now, None);
        let measured = self.chain.measure().into_measured();
        self.snapshots.board.write(measured);
        let (mut records, _) = batch.into_parts();
        // Exact statistics leave as metrics.
        records.retain(|record| !matches!(record.signal.kind(), Kind::Interval | Kind::Fact));
        let outgoing = Outgoing { clock, records, notices: std::mem::take(&mut self.notices) };
        if outgoing.is_empty() {
            return;
        }
        let outgoing = Arc::new(outgoing);
        for outlet in &self.outlets {
            if outlet.records.try_send(Arc::clone(&outgoing)).is_err() {
                let lost = (outgoing.records.len() + outgoing.notices.len()) as u64;
                self.snapshots.exported.add([("exit_full", lost)]);
            }
        }
    }

    /// What the agent itself uses.
    fn look_at_self(&mut self) {
        let cost = match Cost::read() {
            Ok(cost) => cost,
            Err(error) => return debug!(%error, "the agent's own cost could not be read"),
        };
        let now = Instant::now();
        let cpu_percent = self.cpu.replace((cost.cpu, now)).map_or(0.0, |(before, at)| {
            let passed = now.duration_since(at).as_secs_f64().max(1e-3);
            cost.cpu.saturating_sub(before).as_secs_f64() / passed * 100.0
        });
        self.chain.memory.used(cost.rss_bytes, self.memory_limit);
        self.gate.lock().pressure(cost.rss_bytes >> 20, cpu_percent);
        let share = |of: u64| if of == 0 { 0.0 } else { cost.rss_bytes as f64 / of as f64 * 100.0 };
        let states = self.outlets.iter().filter_map(|outlet| Some(*outlet.state.as_ref()?.borrow()));
        let (fill, down) = states.fold((0.0, false), |(fill, down), state| (state.fill.max(fill), state.down || down));
        self.chain.verification.health(Health {
            memory_percent: share(self.memory_limit),
            cpu_percent,
            disk_percent: fill * 100.0,
            consumer_error: down,
            unreachable: 0,
        });
    }

    /// Takes up what an exit tells.
    fn heed(&mut self, word: Word) {
        let now = clock::now();
        match word {
            Word::Answered { receiver, answer } if self.chain.order().contains(&Stage::ErrorMonitor) => {
                let otlp::Answer { status, retry_after, rejected, bytes } = answer;
                let answer = newrelic::Answer { status, retry_after, rejected, bytes };
                self.chain.newrelic.answer(now, answer, &mut self.effects);
                self.carry_out(now, Some(receiver));
            }
            Word::Answered { .. } => {}
            Word::Encoded(encoded) => {
                let moment = Moment { now, clock: clock::wall() };
                for part in encoded {
                    self.chain.cost.encoded(moment, part.instance, part.kind, part.bytes);
                }
            }
        }
    }

    /// Does what the processors want done; `receiver` is whom its answer was from, if one was the cause.
    fn carry_out(&mut self, now: Timestamp, receiver: Option<usize>) {
        let (effects, lost) = self.effects.take();
        if lost > 0 {
            self.snapshots.exported.add([("effects_full", lost)]);
        }
        for effect in effects {
            match effect {
                Effect::ShowOneIn(one_in) => self.snapshots.show_one_in(one_in),
                Effect::Tune(tuning) => {
                    info!(
                        parameter = tuning.parameter,
                        from = tuning.from,
                        to = tuning.to,
                        reason = tuning.reason,
                        "tuned"
                    );
                }
                Effect::Heal { issue, attempt } => warn!(issue, attempt, "the agent is in trouble"),
                Effect::Export(action) => self.order(now, receiver, action),
                Effect::Alert(alert) => self.tell_alert(now, &alert),
                Effect::Feedback(feedback) => self.notices.push(of_feedback(now, &feedback)),
            }
        }
    }

    fn tell_alert(&mut self, now: Timestamp, alert: &Alert) {
        error!(alert = alert.name, value = alert.value, limit = alert.limit, severity = alert.severity.name());
        self.notices.push(Notice {
            at: now,
            kind: NoticeKind::Alert,
            category: alert.name,
            severity: alert.severity.name(),
            instance: None,
            subject: alert.name,
            value: alert.value,
            limit: alert.limit,
            remediation: "",
            suppressed: 0,
        });
    }

    /// Passes on what the export should do: to the receiver whose answer was the cause, else to all.
    fn order(&self, now: Timestamp, receiver: Option<usize>, action: ExportAction) {
        let concerned = self.outlets.iter().enumerate().filter(|(at, _)| receiver.is_none_or(|only| only == *at));
        for orders in concerned.filter_map(|(_, outlet)| outlet.orders.as_ref()) {
            orders.send_modify(|orders| match action {
                ExportAction::PauseUntil(until) => orders.pause_until = Some(Instant::now() + until.since(now)),
                ExportAction::Stop => orders.stopped = true,
                ExportAction::LimitRequest(bytes) => orders.max_request_bytes = Some(bytes),
            });
        }
    }

    fn states(&self, now: Timestamp, clock: WallClock) -> States {
        let (states, errors) = self.chain.export_state(Moment { now, clock });
        errors.iter().for_each(|error| error!("{error}"));
        states
    }
}

fn of_feedback(now: Timestamp, feedback: &Feedback) -> Notice {
    Notice {
        at: now,
        kind: NoticeKind::Feedback,
        category: feedback.category.name(),
        severity: match feedback.level {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        },
        instance: feedback.instance.clone(),
        subject: feedback.subject,
        value: feedback.value,
        limit: feedback.limit,
        remediation: feedback.remediation,
        suppressed: feedback.suppressed,
    }
}
