//! Whether a record can be true.

use std::time::Duration;

use crate::model::{Digest, Record, Signal, Timestamp, signal::Reason};

/// Clocks of processors disagree by less; what is further ahead has a wrong time.
const AHEAD: Duration = Duration::from_secs(60);

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// Its server has no identity.
    NoEntity,
    /// A number cannot be.
    Value(&'static str),
    /// It is from the future.
    Future,
    /// It is too old.
    Old,
}

impl Defect {
    /// Why the record goes.
    pub(super) fn reason(self) -> Reason {
        match self {
            Defect::Old | Defect::Future => Reason::Stale,
            Defect::NoEntity | Defect::Value(_) => Reason::Invalid,
        }
    }
}

/// The first thing that is wrong with a record. Exact statistics are never too old: they count whenever they come.
pub(super) fn defect(record: &Record, now: Timestamp, oldest: Duration) -> Option<Defect> {
    if record.origin.instance.service_instance_id.is_nil() {
        return Some(Defect::NoEntity);
    }
    let exact = matches!(record.signal, Signal::Interval(_));
    if !exact && record.at.since(now) > AHEAD {
        return Some(Defect::Future);
    }
    if !exact && now.since(record.at) > oldest {
        return Some(Defect::Old);
    }
    let wrong = match &record.signal {
        Signal::Interval(interval) => {
            let stats = &interval.stats;
            // Preparations are counted without an execution.
            let empty = stats.executions() == 0 && stats.prepares == 0 && stats.failed_prepares.is_empty();
            (empty && stats.bytes_in == 0 && stats.bytes_out == 0).then_some("executions")
        }
        Signal::Execution(execution) => {
            let weight = execution.sampling.weight;
            if execution.start > record.at {
                Some("duration_ms")
            } else {
                (!weight.is_finite() || weight < 1.0).then_some("sampling.weight")
            }
        }
        Signal::Plan(plan) => (plan.text.raw().is_empty() && plan.masked.is_none()).then_some("db.query.plan"),
        Signal::Blocking(blocking) => (blocking.blocked == blocking.blocker).then_some("blocking.session"),
        Signal::Fact(fact) => (!fact.value.is_finite()).then_some("value"),
        Signal::Finding(finding) => finding.evidence.iter().any(|(_, value)| !value.is_finite()).then_some("evidence"),
        Signal::Activity(_) => None,
    };
    wrong.map(Defect::Value)
}

/// Whether the text of a statement could be normalised.
pub(super) fn is_normalised(digest: &Digest) -> bool {
    !matches!(&*digest.text, "<unparsable>" | "<unknown>")
}
