//! What a statement's server and the kernel know of it, beside what was seen on the wire.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Digest, KernelUse, ServerCounters};

/// Identities of the server's that are told for one statement; further ones are left out.
const MAX_IDS: usize = 8;

/// How sure it is that what the server says belongs to what was seen on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Join {
    /// The server knows nothing of it, or not yet.
    #[default]
    Unmatched,
    /// It may belong to several, so that it is told of none.
    Ambiguous,
    /// Database, user and fingerprint are the same, as far as both know them, and nothing else fits.
    Matched,
}

/// What is known of one (instance, database, user, fingerprint) beside the wire's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enrichment {
    /// Whether the server's counters are among it, or why not.
    pub join: Join,
    /// The server's counters, since the agent's first look at them.
    pub server: Option<ServerCounters>,
    /// Where they are from: the rung of the question for statements.
    pub source: Option<&'static str>,
    /// The server's own identities of it (`queryid`, digest), sorted. Several, where the server tells apart what the fingerprint does not: the same text over
    /// tables of several schemas, lists of several lengths.
    pub ids: Vec<Arc<str>>,
    /// Time in waits by class, and under `CPU` the time without one, estimated from looks.
    pub waits: BTreeMap<Arc<str>, Duration>,
    /// What its executions used, estimated from looks.
    pub kernel: Option<KernelUse>,
}

impl Enrichment {
    /// Adds an identity of the server's.
    pub fn add_id(&mut self, id: &Arc<str>) {
        if let Err(place) = self.ids.binary_search(id)
            && self.ids.len() < MAX_IDS
        {
            self.ids.insert(place, Arc::clone(id));
        }
    }

    /// Adds the server's counters.
    pub fn add_counters(&mut self, counters: &ServerCounters) {
        self.server.get_or_insert_default().add(counters);
    }

    /// Adds what was seen at looks.
    pub fn add_seen(&mut self, waits: impl IntoIterator<Item = (Arc<str>, Duration)>, kernel: Option<&KernelUse>) {
        for (class, time) in waits {
            *self.waits.entry(class).or_default() += time;
        }
        if let Some(kernel) = kernel {
            self.kernel.get_or_insert_default().add(kernel);
        }
    }

    /// Adds all of `other`, as it is done where statements are told under one name.
    pub fn merge(&mut self, other: &Enrichment) {
        self.join = self.join.max(other.join);
        self.source = self.source.or(other.source);
        other.ids.iter().for_each(|id| self.add_id(id));
        other.server.iter().for_each(|counters| self.add_counters(counters));
        self.add_seen(other.waits.iter().map(|(class, time)| (Arc::clone(class), *time)), other.kernel.as_ref());
    }
}

/// Executions on the wire by how their statements were joined with the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// See [`Join::Matched`].
    pub matched: u64,
    /// See [`Join::Ambiguous`].
    pub ambiguous: u64,
    /// See [`Join::Unmatched`].
    pub unmatched: u64,
}

impl Joined {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, u64); 3] {
        [("matched", self.matched), ("ambiguous", self.ambiguous), ("unmatched", self.unmatched)]
    }
}

/// What looks at the sessions saw of one statement, cumulative.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenStatement {
    /// Database or default schema.
    pub database: Option<Arc<str>>,
    /// User.
    pub user: Option<Arc<str>>,
    /// The statement.
    pub digest: Arc<Digest>,
    /// Time in waits by class, and under `CPU` the time without one.
    pub waits: BTreeMap<Arc<str>, Duration>,
    /// What the kernel counted of its executions.
    pub kernel: Option<KernelUse>,
}
