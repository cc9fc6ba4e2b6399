//! The query correlator: joins what belongs together. Each statement gets its share in its server's time; each execution its place in session and transaction; who is
//! waited for is marked; and patterns that cost are told: the same statement over and over, a retry, a transaction that waits for its client.

pub mod config;
mod sessions;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use uuid::Uuid;

pub use config::Config;

use super::{Effects, Field, Io, Measures, Processor, Stage, bounded::Bounded};
use crate::model::{
    Batch, Digest, Record, SessionState, Signal, Timestamp, TraceParent,
    names::{attribute as a, processor_metric as m},
    signal::{Activity, Blocking, Finding, Interval, Pace, Severity, Sifted, Topic},
};
use sessions::Session;

/// What it reads and writes.
pub const IO: Io =
    Io { reads: &[Field::Admitted, Field::CleanText, Field::PlanIdentity], writes: &[Field::Situation, Field::Load] };

/// How long a session that was waited for is one whose executions are worth showing.
const BLOCKER_TIME: Duration = Duration::from_secs(60);
/// Findings that are remembered, so that they are not made again soon.
const MAX_FINDINGS: usize = 10_000;
/// First words of statements that look after tables.
const MAINTENANCE: [&str; 7] = ["VACUUM", "ANALYZE", "REINDEX", "CLUSTER", "OPTIMIZE", "REPAIR", "CHECK"];

/// The processor.
#[derive(Debug)]
pub struct Correlator {
    config: Config,
    sessions: Bounded<(Uuid, u64), Session>,
    /// Until when a process is one that was waited for.
    blockers: Bounded<(Uuid, u32), Timestamp>,
    /// When a finding was last made: server, topic, and statement or process.
    told: Bounded<(Uuid, Topic, u64), Timestamp>,
    findings: Vec<Record>,
    counts: BTreeMap<&'static str, u64>,
    retries: u64,
}

impl Correlator {
    /// Nothing known yet.
    pub fn new(config: Config) -> Correlator {
        Correlator {
            sessions: Bounded::new(config.max_sessions),
            blockers: Bounded::new(config.max_sessions),
            told: Bounded::new(MAX_FINDINGS),
            findings: Vec::new(),
            counts: BTreeMap::new(),
            retries: 0,
            config,
        }
    }

    fn correlate(&mut self, now: Timestamp, record: &mut Record, totals: &[(Uuid, Duration)]) {
        let instance = record.origin.instance.service_instance_id;
        match &mut record.signal {
            Signal::Interval(interval) => {
                let total =
                    totals.iter().find(|(known, _)| *known == instance).map_or(Duration::ZERO, |(_, total)| *total);
                self.weigh(interval, total);
            }
            Signal::Execution(_) => self.place(now, instance, record),
            Signal::Activity(activity) if is_idle(activity.state) => {
                let lasting = activity.lasting;
                if lasting >= *self.config.idle_in_transaction {
                    let finding = idle(activity, *self.config.idle_in_transaction);
                    let process = u64::from(activity.session.process);
                    self.find(now, record, instance, process, finding);
                }
            }
            _ => {}
        }
    }

    fn weigh(&self, interval: &mut Interval, total: Duration) {
        let own = interval.stats.total();
        if !total.is_zero() {
            interval.load = Some(own.as_secs_f64() / total.as_secs_f64());
        }
        let executions = interval.stats.executions();
        if executions > 0 {
            let mean = own.div_f64(executions as f64);
            interval.pace = Some(match mean {
                mean if mean >= *self.config.slow => Pace::Slow,
                mean if mean >= *self.config.moderate => Pace::Moderate,
                _ => Pace::Fast,
            });
        }
        let operation = interval.digest.operation.as_deref();
        interval.maintenance = operation.is_some_and(|operation| MAINTENANCE.contains(&operation));
    }

    fn place(&mut self, now: Timestamp, instance: Uuid, record: &mut Record) {
        let end = record.at;
        let Signal::Execution(execution) = &mut record.signal else { return };
        if execution.trace.is_none()
            && let Some(application) = &execution.application
        {
            execution.trace = TraceParent::parse(application.as_bytes());
        }
        let Some(session) = execution.session else { return };
        let blocked = self.blockers.peek(&(instance, session.process));
        execution.seen.blocker = blocked.is_some_and(|until| execution.start <= *until);
        if session.connection == 0 {
            return;
        }
        let known = self.sessions.at((instance, session.connection), Session::default, drop);
        let (situation, run) = known.take(end, execution);
        execution.situation = Some(situation);
        self.retries += u64::from(situation.retry);
        let Some(run) = run.filter(|run| run.repeats + 1 == self.config.n_plus_one_repeats) else { return };
        let repeats = f64::from(run.repeats + 1);
        let finding = Finding {
            topic: Topic::NPlusOne,
            severity: Severity::Medium,
            digest: Some(execution.digest.clone()),
            plan: None,
            // The statement that it may belong to, by its fingerprint.
            objects: run.after.map(|after| Arc::from(format!("{after:016x}"))).into_iter().collect(),
            evidence: vec![("repeats", repeats), ("seconds", run.total.as_secs_f64())],
        };
        self.find(now, record, instance, run.fingerprint, finding);
    }

    fn find(&mut self, now: Timestamp, record: &Record, instance: Uuid, subject: u64, finding: Finding) {
        let key = (instance, finding.topic, subject);
        let interval = *self.config.finding_interval;
        if self.told.get_mut(&key).is_some_and(|last| now.since(*last) < interval) {
            return;
        }
        *self.told.at(key, || now, drop) = now;
        *self.counts.entry(finding.topic.name()).or_default() += 1;
        self.findings.push(Record::new(now, record.origin.clone(), Signal::Finding(Box::new(finding))));
    }

    fn blocks(&mut self, instance: Uuid, at: Timestamp, blocking: &Blocking) {
        let until = at + BLOCKER_TIME;
        *self.blockers.at((instance, blocking.blocker.process), || until, drop) = until;
    }
}

fn is_idle(state: SessionState) -> bool {
    matches!(state, SessionState::IdleInTransaction | SessionState::IdleInFailedTransaction)
}

fn idle(activity: &Activity, limit: Duration) -> Finding {
    let lasting = activity.lasting.as_secs_f64();
    Finding {
        topic: Topic::IdleInTransaction,
        severity: Severity::of_ratio(lasting / limit.as_secs_f64().max(1e-3)),
        digest: activity.digest.clone().filter(|digest| digest.fingerprint != Digest::UNKNOWN),
        plan: None,
        objects: Vec::new(),
        evidence: vec![("seconds", lasting), ("process", f64::from(activity.session.process))],
    }
}

/// Time of all statements of each server in the batch.
fn totals(batch: &Batch) -> Vec<(Uuid, Duration)> {
    let mut totals: Vec<(Uuid, Duration)> = Vec::new();
    for record in batch.records() {
        let Signal::Interval(interval) = &record.signal else { continue };
        let instance = record.origin.instance.service_instance_id;
        let own = interval.stats.total();
        // Records of a server mostly stand together.
        match totals.iter_mut().rev().find(|(known, _)| *known == instance) {
            Some((_, total)) => *total = total.saturating_add(own),
            None => totals.push((instance, own)),
        }
    }
    totals
}

impl Processor for Correlator {
    fn stage(&self) -> Stage {
        Stage::QueryCorrelator
    }

    fn process(&mut self, now: Timestamp, batch: &mut Batch, _effects: &mut Effects) {
        let timeout = *self.config.session_timeout;
        self.sessions.expire(|session| now.since(session.last) > timeout);
        let totals = totals(batch);
        // Who is waited for is known before the executions of the same batch are looked at.
        for record in batch.records() {
            if let Signal::Blocking(blocking) = &record.signal {
                self.blocks(record.origin.instance.service_instance_id, record.at, blocking);
            }
        }
        batch.sift(|record| {
            self.correlate(now, record, &totals);
            Sifted::Keep
        });
        self.findings.drain(..).for_each(|finding| batch.push(finding));
    }

    fn measure(&self, measures: &mut Measures) {
        measures.tell(&m::CORRELATOR_SESSIONS, self.sessions.len() as f64);
        measures.tell(&m::CORRELATOR_EVICTIONS, self.sessions.evicted() as f64);
        measures.tell(&m::CORRELATOR_RETRIES, self.retries as f64);
        for (topic, count) in &self.counts {
            measures.tell_by(&m::FINDINGS, a::TOPIC, *topic, *count as f64);
        }
    }
}
