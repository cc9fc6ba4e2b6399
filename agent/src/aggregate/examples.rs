//! Single executions that were seen, for whoever shows some of them as examples.

use std::sync::Arc;

use crate::model::{
    Digest, Ending, Instance, Record, Signal, Statement, Status, Timestamp, TraceParent,
    signal::{Execution, Origin, Peer, Sampling, Seen},
};

use super::server::Names;

/// Most that are kept until they are taken, some ten megabytes; of further ones none is kept.
const MAX_EXAMPLES: usize = 16_384;

/// Executions since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Examples {
    /// Whether anybody takes them, and of how many executions the kernel shows one by chance; 0 if none.
    one_in: Option<u32>,
    records: Vec<Record>,
}

/// What is known of an execution beside its statement.
pub(super) struct Seat<'a> {
    pub(super) instance: &'a Arc<Instance>,
    pub(super) names: Names,
    pub(super) session: Peer,
    pub(super) application: Option<Arc<str>>,
    pub(super) trace: Option<TraceParent>,
}

/// An execution that the kernel counted and showed by its numbers alone, or that a machine saw.
pub(super) struct Outline {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) ending: Ending,
    pub(super) rows: u64,
}

impl Outline {
    /// Of a statement that a machine saw.
    pub(super) fn of(statement: &Statement) -> Outline {
        Outline {
            start: statement.start,
            end: statement.end,
            ending: match statement.status {
                Status::Ok => Ending::Ok,
                Status::Error => Ending::Failed(statement.code),
                Status::Incomplete => Ending::Incomplete,
            },
            rows: statement.rows_sent.unwrap_or(0) + statement.rows_affected.unwrap_or(0),
        }
    }
}

impl Examples {
    /// From now on executions are kept; the kernel shows one in so many by chance.
    pub(super) fn keep(&mut self, one_in: u32) {
        self.one_in = Some(one_in);
    }

    /// Whether executions are kept.
    pub(super) fn kept(&self) -> bool {
        self.one_in.is_some()
    }

    /// Takes those that were seen.
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Keeps one; `sampled`: it was shown by chance, and stands for those that were not. False if there is no room.
    pub(super) fn push(&mut self, seat: Seat<'_>, digest: Arc<Digest>, outline: Outline, sampled: bool) -> bool {
        let Some(one_in) = self.one_in else { return true };
        if self.records.len() >= MAX_EXAMPLES {
            return false;
        }
        let weight = if sampled { f64::from(one_in.max(1)) } else { 1.0 };
        let origin =
            Origin { instance: Arc::clone(seat.instance), database: seat.names.database, user: seat.names.user };
        let execution = Execution {
            digest,
            session: Some(seat.session),
            ordinal: None,
            start: outline.start,
            duration: outline.end.since(outline.start),
            ending: outline.ending,
            rows: outline.rows,
            application: seat.application,
            trace: seat.trace,
            plan: None,
            seen: Seen::default(),
            sampling: Sampling { weight, rule: None },
            situation: None,
        };
        self.records.push(Record::new(outline.end, origin, Signal::Execution(Box::new(execution))));
        true
    }
}
