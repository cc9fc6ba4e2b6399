//! Joins what was seen on the wire with what the server and the kernel know, into one record a (instance, database, user, fingerprint).
//!
//! The join is by the fingerprint of one normaliser, within the same database and user as far as both sides know them: the wire knows neither of a connection
//! that is older than the agent, and MySQL's digests know no user. What fits several is told of none: a wrong sum is worse than none.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use crate::model::{
    Collected, Digest, Engine, Enrichment, InstanceSnapshot, Join, Joined, Question, StatementSnapshot, StatementStats,
};

/// Adds to each statement of `server` what `collected` knows of it, and a row for each that only the server knows. `None` if the server told of no
/// statement.
pub fn enrich(server: &mut InstanceSnapshot, collected: &Collected) -> Option<Joined> {
    if collected.statements.is_empty() && collected.seen.is_empty() {
        return None;
    }
    let standing = collected.standings.iter().find(|standing| standing.question == Question::Statements);
    let source = standing.map(|standing| standing.rung);
    let engine = server.instance.engine;
    let mut counters = Index::new(engine);
    for statement in collected.statements.iter().filter(|statement| statement.total.calls > 0) {
        let group = counters.at(&statement.database, &statement.user, &statement.digest);
        group.add_counters(&statement.total);
        group.add_id(&statement.id);
        group.source = source;
    }
    let mut seen = Index::new(engine);
    for statement in collected.seen.iter() {
        let waits = statement.waits.iter().map(|(class, time)| (Arc::clone(class), *time));
        let group = seen.at(&statement.database, &statement.user, &statement.digest);
        group.add_seen(waits, statement.kernel.as_ref());
    }
    counters.claim(&server.statements);
    seen.claim(&server.statements);

    let mut joined = Joined::default();
    for row in server.statements.iter_mut().filter(|row| row.digest.fingerprint != Digest::COMMAND) {
        let mut known = Enrichment::default();
        let (join, own) = counters.find(row);
        own.iter().for_each(|own| known.merge(own));
        let (_, own) = seen.find(row);
        own.iter().for_each(|own| known.merge(own));
        known.join = join;
        let executions = row.stats.executions();
        match join {
            Join::Matched => joined.matched += executions,
            Join::Ambiguous => joined.ambiguous += executions,
            Join::Unmatched => joined.unmatched += executions,
        }
        row.stats.known = Some(Box::new(known));
    }
    server.statements.extend(counters.unclaimed());
    Some(joined)
}

/// What is known of statements, by what the server tells apart, then by database and user.
struct Index {
    engine: Engine,
    groups: HashMap<u64, Vec<Group>>,
}

/// What the server tells apart. PostgreSQL has one query id for the spellings of a command on transactions, with the text of whichever came first.
fn identity(engine: Engine, digest: &Digest) -> u64 {
    // Beyond the fingerprints that stand for no text (Digest::COMMAND is the last).
    match (engine, &*digest.text) {
        (Engine::Postgresql, "begin" | "start transaction") => 3,
        (Engine::Postgresql, "commit" | "end") => 4,
        (Engine::Postgresql, "rollback" | "abort") => 5,
        _ => digest.fingerprint,
    }
}

/// What is known of one statement of one database and user.
struct Group {
    database: Option<Arc<str>>,
    user: Option<Arc<str>>,
    digest: Arc<Digest>,
    known: Enrichment,
    /// Rows on the wire that have the very same database and user.
    exact: u32,
    /// Rows on the wire that it fits.
    fitting: u32,
}

impl Index {
    fn new(engine: Engine) -> Index {
        Index { engine, groups: HashMap::new() }
    }

    fn at(&mut self, database: &Option<Arc<str>>, user: &Option<Arc<str>>, digest: &Arc<Digest>) -> &mut Enrichment {
        let groups = self.groups.entry(identity(self.engine, digest)).or_default();
        let place = groups.iter().position(|group| group.database == *database && group.user == *user);
        let place = place.unwrap_or_else(|| {
            groups.push(Group {
                database: database.clone(),
                user: user.clone(),
                digest: Arc::clone(digest),
                known: Enrichment::default(),
                exact: 0,
                fitting: 0,
            });
            groups.len() - 1
        });
        &mut groups[place].known
    }

    /// Counts how many rows want each group.
    fn claim(&mut self, rows: &[StatementSnapshot]) {
        for row in rows {
            for group in self.groups.get_mut(&identity(self.engine, &row.digest)).into_iter().flatten() {
                group.exact += u32::from(group.is(row));
                group.fitting += u32::from(group.fits(row));
            }
        }
    }

    /// What belongs to a row, and how sure that is.
    fn find(&self, row: &StatementSnapshot) -> (Join, Option<&Enrichment>) {
        let groups = self.groups.get(&identity(self.engine, &row.digest)).map(Vec::as_slice).unwrap_or_default();
        let mut fitting = groups.iter().filter(|group| group.fits(row));
        let (first, second) = (fitting.next(), fitting.next());
        match (groups.iter().find(|group| group.is(row)), first, second) {
            (Some(exact), _, _) if exact.exact == 1 => (Join::Matched, Some(&exact.known)),
            (None, Some(only), None) if only.exact == 0 && only.fitting == 1 => (Join::Matched, Some(&only.known)),
            (_, Some(_), _) => (Join::Ambiguous, None),
            (_, None, _) => (Join::Unmatched, None),
        }
    }

    /// Rows for what no row on the wire wants.
    fn unclaimed(self) -> impl Iterator<Item = StatementSnapshot> {
        self.groups.into_values().flatten().filter(|group| group.fitting == 0).map(|group| StatementSnapshot {
            database: group.database,
            user: group.user,
            digest: group.digest,
            stats: StatementStats { known: Some(Box::new(group.known)), ..StatementStats::default() },
        })
    }
}

impl Group {
    fn is(&self, row: &StatementSnapshot) -> bool {
        self.database.is_some() && self.user.is_some() && self.database == row.database && self.user == row.user
    }

    fn fits(&self, row: &StatementSnapshot) -> bool {
        let database = row.database.is_none() || self.database == row.database;
        let user = row.user.is_none() || self.user.is_none() || self.user == row.user;
        database && user
    }
}
