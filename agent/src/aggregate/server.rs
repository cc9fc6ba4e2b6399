//! The statistics of one server.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use hashbrown::HashMap;

use crate::{
    model::{
        ByCode, Counted, Digest, Ending, Instance, InstanceSnapshot, Kind, Outlier, Policy, SessionCounts,
        SessionState, Statement, StatementSnapshot, StatementStats, Status, Subject, Text, TransactionStats, WireState,
        signal::Peer,
    },
    sql::Normaliser,
};

use super::examples::{Examples, Outline, Seat};

/// Outliers kept; the oldest makes room.
const MAX_OUTLIERS: usize = 64;
/// Hashes remembered for each row that may exist: the same statement in several spellings, or with lists of several lengths.
const HASHES_PER_ROW: usize = 4;
/// How often [`Server::settle`] leaves a count alone whose text or session has not been seen.
const PATIENCE: u32 = 3;
/// Ranges of the kernel's groups (`agent_ebpf::session::group`): below the first are slots of servers, that is sessions of which nothing is known;
/// then a session's own number, until more is known; then those that are given here; then the kernel's hashes.
const PROVISIONAL: u64 = 1 << 61;
const GIVEN: u64 = 1 << 62;
const HASHED: u64 = 1 << 63;

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
    /// What the kernel's hashes stand for.
    texts: HashMap<u64, Arc<Digest>>,
    /// Whose sessions the kernel's groups are.
    groups: HashMap<u64, Names>,
    given: u64,
    /// What the kernel counted of texts or sessions that have not been seen yet, by group and hash, and for how many calls they were waited for.
    waiting: HashMap<(u64, u64), (u32, StatementStats)>,
    transactions: TransactionStats,
    outliers: VecDeque<Outlier>,
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
            texts: HashMap::new(),
            groups: HashMap::new(),
            given: GIVEN,
            waiting: HashMap::new(),
            transactions: TransactionStats::default(),
            outliers: VecDeque::new(),
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
        let number = self.number(names);
        *known = Some(Principal { number, names: names.clone() });
        number
    }

    fn number(&mut self, names: &Names) -> u32 {
        match self.principal_numbers.get(names) {
            Some(number) => *number,
            // Numbers are as bounded as rows: a server with more users than rows ends in `_other` all the same.
            None if self.principals.len() >= self.max_rows => u32::MAX,
            None => {
                let number = self.principals.len() as u32;
                self.principals.push(names.clone());
                self.principal_numbers.insert(names.clone(), number);
                number
            }
        }
    }

    /// Whether it is known what text `hash` stands for.
    pub(super) fn knows(&self, hash: u64) -> bool {
        self.texts.contains_key(&hash)
    }

    /// `hash` stands for this statement.
    pub(super) fn learn(&mut self, hash: u64, digest: Arc<Digest>) {
        if self.texts.len() >= self.max_rows * HASHES_PER_ROW && !self.texts.contains_key(&hash) {
            return self.lose("texts_full", 1);
        }
        self.texts.insert(hash, digest);
    }

    /// What the kernel should do with executions of the text of `hash` besides counting them.
    pub(super) fn policy(&self, hash: u64) -> Policy {
        /// Statements that change what is known of a session: its database, its user, its names.
        const SESSION: [&str; 5] = ["USE", "RESET", "DISCARD", "DEALLOCATE", "PREPARE"];
        let Some(digest) = self.texts.get(&hash) else { return Policy::Count };
        let operation = digest.operation.as_deref().unwrap_or_default();
        let is = |word: &str| operation.eq_ignore_ascii_case(word);
        let sets_identity = || {
            let text = digest.text.to_ascii_uppercase();
            ["AUTHORIZATION", "ROLE", "APPLICATION_NAME"].iter().any(|word| text.contains(word))
        };
        match SESSION.into_iter().any(is) || is("SET") && sets_identity() {
            true => Policy::Record,
            false => Policy::Count,
        }
    }

    /// Sessions of the kernel's `group` are those of `names`; the group that they should have if it is another one.
    pub(super) fn group(&mut self, group: u64, slot: u32, names: Names) -> Option<u64> {
        let provisional = (PROVISIONAL..GIVEN).contains(&group);
        match self.groups.get(&group) {
            Some(known) if same(&known.database, &names.database) && same(&known.user, &names.user) => return None,
            None if group >= PROVISIONAL && self.groups.len() < self.max_rows => {
                self.groups.insert(group, names.clone());
                if !provisional {
                    return None;
                }
            }
            _ => {}
        }
        if names == Names::default() {
            return provisional.then_some(u64::from(slot));
        }
        let given = self.groups.iter().find(|(group, known)| (GIVEN..HASHED).contains(*group) && **known == names);
        if let Some((group, _)) = given {
            return Some(*group);
        }
        if self.groups.len() >= self.max_rows {
            self.lose("groups_full", 1);
            return None;
        }
        self.given += 1;
        self.groups.insert(self.given, names);
        Some(self.given)
    }

    /// Takes up what the kernel counted.
    pub(super) fn counted(&mut self, counted: &Counted<'_>) {
        if let Subject::Transaction { rolled_back } = counted.subject {
            let stats = &mut self.transactions;
            let histogram = if rolled_back { &mut stats.rolled_back } else { &mut stats.committed };
            histogram.add(counted.buckets, counted.total, counted.range);
            stats.idle += counted.first_byte;
            return;
        }
        let hash = match counted.subject {
            Subject::Text(hash) => hash,
            Subject::Other => Digest::OTHER,
            Subject::UnknownText | Subject::Transaction { .. } => Digest::UNKNOWN,
        };
        let known = self.digest(hash).zip(self.names(counted.group));
        let stats = match known {
            Some((digest, names)) => {
                let principal = self.number(&names);
                self.row(principal, digest)
            }
            None if self.waiting.len() < self.max_rows => &mut self.waiting.entry((counted.group, hash)).or_default().1,
            None => {
                let unknown = Arc::clone(&self.unknown);
                self.row(u32::MAX, unknown)
            }
        };
        add(stats, counted);
    }

    /// What a hash of the kernel stands for, if that is known.
    fn digest(&self, hash: u64) -> Option<Arc<Digest>> {
        match hash {
            Digest::UNKNOWN => Some(Arc::clone(&self.unknown)),
            Digest::OTHER => Some(Arc::clone(&self.other)),
            hash => self.texts.get(&hash).map(Arc::clone),
        }
    }

    /// Whose sessions a group of the kernel's is, if that is known: a slot stands for sessions of which nothing is.
    fn names(&self, group: u64) -> Option<Names> {
        if group < PROVISIONAL { Some(Names::default()) } else { self.groups.get(&group).cloned() }
    }

    /// Assigns what has been waited for and is known by now; and what `give_up` says of the number of calls that it waited for.
    pub(super) fn resolve(&mut self, give_up: impl Fn(u32) -> bool) {
        let decided: Vec<(u64, u64)> = self
            .waiting
            .iter()
            .filter(|((group, hash), (waited, _))| {
                give_up(*waited) || self.digest(*hash).is_some() && self.names(*group).is_some()
            })
            .map(|(key, _)| *key)
            .collect();
        for key in decided {
            let Some((_, stats)) = self.waiting.remove(&key) else { continue };
            let digest = self.digest(key.1).unwrap_or_else(|| Arc::clone(&self.unknown));
            let principal = self.number(&self.names(key.0).unwrap_or_default());
            self.row(principal, digest).merge(&stats);
        }
    }

    /// As [`Server::resolve`], and gives up on what has waited long enough, or on everything if this is the `last` time.
    pub(super) fn settle(&mut self, last: bool) {
        self.waiting.values_mut().for_each(|(waited, _)| *waited += 1);
        self.resolve(|waited| last || waited > PATIENCE);
    }

    /// Keeps an execution that failed or was slow, and was not shown otherwise.
    pub(super) fn outlier(&mut self, raw: &super::RawOutlier, examples: &mut Examples) {
        let Names { database, user } = self.groups.get(&raw.group).cloned().unwrap_or_default();
        let digest = Arc::clone(self.texts.get(&raw.hash).unwrap_or(&self.unknown));
        if self.outliers.len() >= MAX_OUTLIERS {
            self.outliers.pop_front();
        }
        let duration = raw.end.since(raw.begin);
        let (ending, rows) = (raw.ending, raw.rows);
        if examples.kept() {
            let names = Names { database: database.clone(), user: user.clone() };
            let session = Peer { connection: raw.conn, process: raw.process };
            let seat = Seat { instance: &self.instance, names, session, application: None, trace: None };
            let outline = Outline { start: raw.begin, end: raw.end, ending, rows };
            if !examples.push(seat, Arc::clone(&digest), outline, false) {
                self.lose("examples_full", 1);
            }
        }
        self.outliers.push_back(Outlier { at: raw.end, duration, database, user, digest, ending, rows });
    }

    /// What is known of a statement's text.
    pub(super) fn digest_of(&self, statement: &Statement, normaliser: &mut Normaliser) -> Arc<Digest> {
        let engine = self.instance.engine;
        match &statement.text {
            Text::Known(text) => {
                let digest = text.digest(|text| Arc::new(normaliser.digest(engine, text.raw(), text.truncated())));
                Arc::clone(digest)
            }
            Text::Unknown => Arc::clone(&self.unknown),
            Text::None => Arc::clone(&self.command),
        }
    }

    pub(super) fn count(&mut self, principal: u32, statement: &Statement, normaliser: &mut Normaliser) {
        if statement.kind == Kind::Connect {
            match statement.status {
                Status::Ok => self.connects += 1,
                Status::Error | Status::Incomplete => *self.connect_failures.at(statement.code) += 1,
            }
            return;
        }
        let digest = self.digest_of(statement, normaliser);
        let truncated = matches!(&statement.text, Text::Known(text) if text.truncated());
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
            stats.first_byte.add(1, first.since(statement.start));
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
            transactions: self.transactions.clone(),
            outliers: self.outliers.iter().cloned().collect(),
            statements: statements.collect(),
            losses: self.losses.clone(),
        }
    }
}

/// Adds what the kernel counted.
fn add(stats: &mut StatementStats, counted: &Counted<'_>) {
    let histogram = match counted.ending {
        Ending::Ok => &mut stats.ok,
        Ending::Failed(code) => stats.failed.at(code),
        Ending::Incomplete => stats.failed.at(None),
    };
    histogram.add(counted.buckets, counted.total, counted.range);
    stats.first_byte.add(counted.count(), counted.first_byte);
    stats.rows_sent += counted.rows_sent;
    stats.rows_affected += counted.rows_affected;
    stats.bytes_in += counted.bytes_in;
    stats.bytes_out += counted.bytes_out;
}

fn same(a: &Option<Arc<str>>, b: &Option<Arc<str>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}
