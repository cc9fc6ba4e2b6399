//! Distinct values a day, by kind of signal and attribute.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::config::CardinalityLimits;
use crate::{
    model::{
        Record, Signal,
        signal::{Execution, Kind},
    },
    processors::hyperloglog::HyperLogLog,
};

/// Nanoseconds of a UTC day.
const DAY: i64 = 86_400 * 1_000_000_000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Dimension {
    QueryId,
    DatabaseName,
    UserName,
    TableName,
    ApplicationName,
}

impl Dimension {
    pub(super) fn name(self) -> &'static str {
        match self {
            Dimension::QueryId => "query_id",
            Dimension::DatabaseName => "database_name",
            Dimension::UserName => "user_name",
            Dimension::TableName => "table_name",
            Dimension::ApplicationName => "application_name",
        }
    }

    fn limit(self, limits: &CardinalityLimits) -> u64 {
        match self {
            Dimension::QueryId => limits.query_id,
            Dimension::DatabaseName => limits.database_name,
            Dimension::UserName => limits.user_name,
            Dimension::TableName => limits.table_name,
            Dimension::ApplicationName => limits.application_name,
        }
    }
}

/// Sketches of a day.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Cardinality {
    /// Days since 1970 in UTC.
    day: i64,
    sketches: BTreeMap<Kind, BTreeMap<Dimension, HyperLogLog>>,
    /// Names that the latest record had: mostly the next one has the same.
    #[serde(skip)]
    last: BTreeMap<Kind, [Option<Arc<str>>; 2]>,
}

impl Cardinality {
    /// Begins anew if it is another day.
    pub(super) fn day(&mut self, unix_nanos: i64) {
        let day = unix_nanos.div_euclid(DAY);
        if day != self.day {
            *self = Cardinality { day, ..Cardinality::default() };
        }
    }

    /// Counts what stands in a record.
    pub(super) fn count(&mut self, record: &Record) {
        let kind = record.signal.kind();
        let (digest, application) = match &record.signal {
            Signal::Interval(interval) => (Some(&interval.digest), None),
            Signal::Execution(execution) => {
                let Execution { digest, application, .. } = execution.as_ref();
                (Some(digest), application.as_ref())
            }
            Signal::Plan(plan) => (Some(&plan.digest), None),
            Signal::Activity(activity) => (activity.digest.as_ref(), activity.application.as_ref()),
            Signal::Blocking(_) | Signal::Fact(_) | Signal::Finding(_) => (None, None),
        };
        let sketches = self.sketches.entry(kind).or_default();
        let mut add = |dimension, hash| {
            sketches.entry(dimension).or_default().insert(hash);
        };
        if let Some(digest) = digest {
            // A fingerprint is a hash already.
            add(Dimension::QueryId, digest.fingerprint);
            if let Some(table) = &digest.collection {
                add(Dimension::TableName, hash(table));
            }
        }
        if let Some(application) = application {
            add(Dimension::ApplicationName, hash(application));
        }
        let last = self.last.entry(kind).or_default();
        let names = [(&record.origin.database, Dimension::DatabaseName), (&record.origin.user, Dimension::UserName)];
        for (last, (name, dimension)) in last.iter_mut().zip(names) {
            let Some(name) = name else { continue };
            if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, name)) {
                add(dimension, hash(name));
                *last = Some(name.clone());
            }
        }
    }

    /// Kind, dimension, number and limit of all that is counted.
    pub(super) fn numbers(&self, limits: &CardinalityLimits) -> impl Iterator<Item = (Kind, Dimension, u64, u64)> {
        let of = |(kind, sketches): (&Kind, &BTreeMap<Dimension, HyperLogLog>)| {
            let kind = *kind;
            let numbers = sketches.iter();
            numbers
                .map(|(dimension, sketch)| (kind, *dimension, sketch.count(), dimension.limit(limits)))
                .collect::<Vec<_>>()
        };
        self.sketches.iter().flat_map(of)
    }
}

fn hash(text: &str) -> u64 {
    XxHash3_64::oneshot(text.as_bytes())
}
