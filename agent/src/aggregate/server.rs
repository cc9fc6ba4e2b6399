//! The statistics of one server.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;

use crate::{
    model::{
        ByCode, Digest, Instance, InstanceSnapshot, Kind, SessionCounts, SessionState, Statement, StatementSnapshot,
        StatementStats, Status, Text, WireState,
    },
    sql::Normaliser,
};

/// `AF_UNIX`, include/linux/socket.h.
const AF_UNIX: u16 = 1;

/// Whose a session is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Names {
    pub(super) database: Option<Arc<str>>,
    pub(super) user: Option<Arc<str>>,
}

/// Names, numbered, with the very strings that were asked about, so that a change is mostly seen by comparing two pointers.
#[derive(Clone, Debug)]
pub(super) struct Principal {
    number: u32,
    names: Names,
}

struct Row {
    principal: u32,
    digest: Arc<Digest>,
    stats: StatementStats,
}

pub(super) struct Server {
    pub(super) instance: Arc<Instance>,
    pub(super) wire: WireState,
    max_rows: usize,
    principals: Vec<Names>,
    principal_numbers: HashMap<Names, u32>,
    rows: Vec<Row>,
    index: HashMap<(u32, u64), u32>,
    unix: bool,
    tcp: bool,
    connects: u64,
    connect_failures: ByCode<u64>,
    losses: BTreeMap<&'static str, u64>,
    unknown: Arc<Digest>,
    command: Arc<Digest>,
    other: Arc<Digest>,
}

impl Server {
    pub(super) fn new(instance: Arc<Instance>, wire: WireState, max_rows: usize) -> Server {
        Server {
            instance,
            wire,
            max_rows,
            principals: Vec::new(),
            principal_numbers: HashMap::new(),
            rows: Vec::new(),
            index: HashMap::new(),
            unix: false,
            tcp: false,
            connects: 0,
            connect_failures: ByCode::default(),
            losses: BTreeMap::new(),
            unknown: Arc::new(Digest::unknown()),
            command: Arc::new(Digest::command()),
            other: Arc::new(Digest::other()),
        }
    }

    pub(super) fn saw(&mut self, family: u16) {
        match family {
            AF_UNIX => self.unix = true,
            _ => self.tcp = true,
        }
    }

    pub(super) fn lose(&mut self, cause: &'static str, count: u64) {
        *self.losses.entry(cause).or_default() += count;
    }

    /// The number of `names`. `known` is the connection's last answer.
    pub(super) fn principal(&mut self, names: &Names, known: &mut Option<Principal>) -> u32 {
        if let Some(principal) = known
            && same(&principal.names.database, &names.database)
            && same(&principal.names.user, &names.user)
        {
            return principal.number;
        }
        let number = match self.principal_numbers.get(names) {
            Some(number) => *number,
            // Numbers are as bounded as rows: a server with more users than rows ends in `_other` all the same.
            None if self.principals.len() >= self.max_rows => u32::MAX,
            None => {
                let number = self.principals.len() as u32;
                self.principals.push(names.clone());
                self.principal_numbers.insert(names.clone(), number);
                number
            }
        };
        *known = Some(Principal { number, names: names.clone() });
        number
    }

    pub(super) fn count(&mut self, principal: u32, statement: &Statement, normaliser: &mut Normaliser) {
        if statement.kind == Kind::Connect {
            match statement.status {
                Status::Ok => self.connects += 1,
                Status::Error | Status::Incomplete => *self.connect_failures.at(statement.code) += 1,
            }
            return;
        }
        let engine = self.instance.engine;
        let (digest, truncated) = match &statement.text {
            Text::Known(text) => {
                let digest = text.digest(|text| Arc::new(normaliser.digest(engine, text.raw(), text.truncated())));
                (Arc::clone(digest), text.truncated())
            }
            Text::Unknown => (Arc::clone(&self.unknown), false),
            Text::None => (Arc::clone(&self.command), false),
        };
        let stats = self.row(principal, digest);
        match (statement.kind, statement.status) {
            (Kind::Prepare, Status::Ok) => {
                stats.prepares += 1;
                return;
            }
            (Kind::Prepare, _) => {
                *stats.failed_prepares.at(statement.code) += 1;
                return;
            }
            (_, Status::Ok) => stats.ok.record(statement.duration()),
            (_, Status::Error | Status::Incomplete) => stats.failed.at(statement.code).record(statement.duration()),
        }
        if let Some(first) = statement.first_byte {
            stats.first_byte.record(first.since(statement.start));
        }
        stats.rows_sent += statement.rows_sent.unwrap_or(0);
        stats.rows_affected += statement.rows_affected.unwrap_or(0);
        stats.bytes_in += statement.bytes_in;
        stats.bytes_out += statement.bytes_out;
        stats.estimated += u64::from(statement.estimated);
        stats.truncated += u64::from(truncated);
    }

    fn row(&mut self, principal: u32, digest: Arc<Digest>) -> &mut StatementStats {
        let key = (principal, digest.fingerprint);
        let at = match self.index.get(&key) {
            Some(at) => *at,
            None if principal != u32::MAX && self.rows.len() < self.max_rows => self.add_row(key, digest),
            None => {
                // One row beyond the bound holds everything else.
                let key = (u32::MAX, Digest::OTHER);
                match self.index.get(&key) {
                    Some(at) => *at,
                    None => {
                        let other = Arc::clone(&self.other);
                        self.add_row(key, other)
                    }
                }
            }
        };
        &mut self.rows[at as usize].stats
    }

    fn add_row(&mut self, key: (u32, u64), digest: Arc<Digest>) -> u32 {
        let at = self.rows.len() as u32;
        self.rows.push(Row { principal: key.0, digest, stats: StatementStats::default() });
        self.index.insert(key, at);
        at
    }

    pub(super) fn snapshot(&self, sessions: impl Iterator<Item = SessionState>) -> InstanceSnapshot {
        let mut counts = SessionCounts::default();
        for state in sessions {
            *match state {
                SessionState::Unknown => &mut counts.unknown,
                SessionState::Starting => &mut counts.starting,
                SessionState::Idle => &mut counts.idle,
                SessionState::Active => &mut counts.active,
                SessionState::IdleInTransaction => &mut counts.idle_in_transaction,
                SessionState::IdleInFailedTransaction => &mut counts.idle_in_failed_transaction,
                SessionState::Opaque(_) => &mut counts.opaque,
            } += 1;
        }
        let statements = self.rows.iter().map(|row| {
            let Names { database, user } = self.principals.get(row.principal as usize).cloned().unwrap_or_default();
            StatementSnapshot { database, user, digest: Arc::clone(&row.digest), stats: row.stats.clone() }
        });
        InstanceSnapshot {
            instance: Arc::clone(&self.instance),
            wire: self.wire.clone(),
            transport: match (self.tcp, self.unix) {
                (true, true) => "tcp+unix",
                (true, false) => "tcp",
                (false, true) => "unix",
                (false, false) => "none",
            },
            sessions: counts,
            connects: self.connects,
            connect_failures: self.connect_failures.clone(),
            statements: statements.collect(),
            losses: self.losses.clone(),
        }
    }
}

fn same(a: &Option<Arc<str>>, b: &Option<Arc<str>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}
