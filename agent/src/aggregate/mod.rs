//! Chunks of wire and what the kernel counted in, statistics out: one protocol machine a connection, one row a (database, user, fingerprint) of each
//! server.
//!
//! Most executions are counted in the kernel, by a hash of their text that does not see literals, and reach this place as numbers. What is
//! recorded is either not counted there, or shows for the first time what text a hash stands for, or is a sample.
//!
//! Everything is bounded: sessions, rows, error codes a row. Pure: the caller gives time and bytes.

pub mod config;
mod examples;
mod server;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;

use hashbrown::{HashMap, HashSet, hash_map::Entry};

pub use config::Config;
use examples::Examples;
use server::{Names, Principal, Server};
use work::Work;

use crate::{
    model::{Counted, Engine, Instance, InstanceSnapshot, Policy, Record, SessionState, Timestamp, WireState},
    sql::Normaliser,
    wire::{self, Direction, Event, Machine},
};

/// The literal-blind hash of a text as the kernel computes it; `None` for a text that the kernel leaves alone.
pub type TextHash = fn(Engine, &[u8]) -> Option<u64>;

/// Bytes that a server read or wrote on one of its connections.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// Slot of the server, see [`Aggregator::add`].
    pub slot: u32,
    /// Connection: its socket's inode number.
    pub conn: u64,
    /// Process that read or wrote.
    pub process: u32,
    /// Address family as in the kernel (`AF_UNIX` 1, `AF_INET` 2, `AF_INET6` 10).
    pub family: u16,
    /// Request or response.
    pub direction: Direction,
    /// When.
    pub at: Timestamp,
    /// Number of the record on its connection.
    pub seq: u32,
    /// The kernel's place for the session.
    pub session: u32,
    /// Whose session it is, by the kernel's number.
    pub group: u64,
    /// The execution that these bytes complete was counted in the kernel.
    pub counted: bool,
    /// It was shown by chance alone, one in as many as [`Aggregator::keep_examples`] was told.
    pub sampled: bool,
    /// What the kernel says of the request that these bytes are.
    pub request: Option<Request>,
}

/// What the kernel says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It executes the text with this hash, which is counted in this row.
    Executes {
        /// Hash of the text.
        hash: u64,
        /// Row of the kernel.
        row: u32,
    },
    /// It prepares the text with this hash.
    Prepares {
        /// Hash of the text.
        hash: u64,
    },
    /// It executes a prepared statement whose text the kernel does not know.
    Nameless {
        /// What the kernel calls it.
        name: u64,
    },
}

/// What the caller should do.
#[derive(Clone, Debug)]
pub enum Advice {
    /// A session on this slot is encrypted: its text can only be seen at the server's own boundary.
    SeekBoundary(u32),
    /// The text of this hash is known: the kernel may do so with the executions that it counts in this row.
    Instruct {
        /// Row of the kernel.
        row: u32,
        /// Hash of the text.
        hash: u64,
        /// What to do.
        policy: Policy,
    },
    /// A prepared statement that the kernel does not know has this text, `None` if it cannot be known.
    Name {
        /// What the kernel calls it.
        name: u64,
        /// Hash of its text.
        hash: Option<u64>,
    },
    /// A session belongs to another group than the kernel thinks.
    Regroup {
        /// The kernel's place for the session.
        session: u32,
        /// Its connection.
        conn: u64,
        /// The right group.
        group: u64,
    },
}

struct Connection {
    slot: u32,
    process: u32,
    /// The kernel's place for it.
    session: u32,
    next_seq: u32,
    /// The latest execution whose response was recorded was counted in the kernel.
    counted: bool,
    /// It was shown by chance alone.
    sampled: bool,
    /// What the kernel said of the latest request, until the statement comes that it made.
    request: Option<Request>,
    machine: Box<dyn Machine>,
    /// Whose it is by other evidence than its start-up packet.
    serves: Option<Names>,
    /// Who the machine says it is, as numbered by the server, with the machine's strings it was found for.
    principal: Option<Principal>,
}

impl Connection {
    /// Whose it is, by the best evidence there is.
    fn names(&self) -> Names {
        let info = self.machine.info();
        match &self.serves {
            Some(names) if info.user.is_none() => names.clone(),
            _ => Names { database: info.database.clone(), user: info.user.clone() },
        }
    }
}

/// The statistics of all servers.
pub struct Aggregator {
    config: Config,
    servers: HashMap<u32, Server>,
    connections: HashMap<u64, Connection>,
    /// The connection of each server process that has only one (PostgreSQL's backends), for when it ends.
    by_process: HashMap<u32, u64>,
    /// Whose session each process serves, for connections that have not been seen yet.
    serves: HashMap<u32, Names>,
    normaliser: Normaliser,
    text_hash: TextHash,
    events: Vec<Event>,
    advice: Vec<Advice>,
    examples: Examples,
}

impl Aggregator {
    /// Nothing known yet.
    pub fn new(config: Config, text_hash: TextHash) -> Aggregator {
        Aggregator {
            config,
            servers: HashMap::new(),
            connections: HashMap::new(),
            by_process: HashMap::new(),
            serves: HashMap::new(),
            normaliser: Normaliser::default(),
            text_hash,
            events: Vec::new(),
            advice: Vec::new(),
            examples: Examples::default(),
        }
    }

    /// From now on the executions that are seen are kept for [`Aggregator::take_examples`]; the kernel shows one in so many by chance, 0 for none.
    pub fn keep_examples(&mut self, one_in: u32) {
        self.examples.keep(one_in);
    }

    /// The executions that were seen since the last call, as records without a place in the sampler's or anybody's order.
    pub fn take_examples(&mut self) -> Vec<Record> {
        self.examples.take()
    }

    /// A server's chunks will come under `slot` from now on.
    pub fn add(&mut self, slot: u32, instance: Arc<Instance>, wire: WireState) {
        self.servers.insert(slot, Server::new(instance, wire, self.config.max_statements));
    }

    /// What is known of a server has changed.
    pub fn update(&mut self, slot: u32, instance: Arc<Instance>) {
        if let Some(server) = self.servers.get_mut(&slot) {
            server.instance = instance;
        }
    }

    /// The connection of `process` belongs to a session of `user` in `database`, in case that it is too old to have been seen starting.
    pub fn serves(&mut self, process: u32, user: Arc<str>, database: Arc<str>) {
        let names = Names { database: Some(database), user: Some(user) };
        let connection = self.by_process.get(&process).and_then(|conn| self.connections.get_mut(conn));
        match connection {
            Some(connection) => connection.serves = Some(names),
            None if self.serves.len() < self.config.max_sessions => {
                self.serves.insert(process, names);
            }
            None => {}
        }
    }

    /// Whether `slot` is known.
    pub fn knows(&self, slot: u32) -> bool {
        self.servers.contains_key(&slot)
    }

    /// Another strategy speaks for a server now: its sessions are taken up anew, each at its next provable boundary.
    pub fn rewire(&mut self, slot: u32, wire: WireState) {
        if let Some(server) = self.servers.get_mut(&slot) {
            server.wire = wire;
        }
        // Whose they are need not be found out again, where a process serves one session only.
        for (process, conn) in &self.by_process {
            if let Some(connection) = self.connections.get(conn).filter(|connection| connection.slot == slot) {
                self.serves.insert(*process, connection.names());
            }
        }
        self.forget_connections(slot);
    }

    /// A server is gone; what it left is returned for the last export.
    pub fn remove(&mut self, slot: u32) -> Option<InstanceSnapshot> {
        self.forget_connections(slot);
        self.servers.remove(&slot).map(|server| server.snapshot(std::iter::empty()))
    }

    fn forget_connections(&mut self, slot: u32) {
        self.connections.retain(|_, connection| connection.slot != slot);
        let connections = &self.connections;
        self.by_process.retain(|_, conn| connections.contains_key(conn));
    }

    /// Takes up a chunk: parts of the stream in their order, each what was captured of it and how long it was.
    pub fn data<'a>(&mut self, chunk: &Chunk, parts: impl IntoIterator<Item = (&'a [u8], usize)>) {
        let Some(server) = self.servers.get_mut(&chunk.slot) else { return };
        server.saw(chunk.family);
        let full = self.connections.len() >= self.config.max_sessions;
        let connection = match self.connections.entry(chunk.conn) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => return server.lose("sessions_full", 1),
            Entry::Vacant(entry) => {
                if chunk.process != server.instance.key.pid {
                    self.by_process.insert(chunk.process, chunk.conn);
                }
                entry.insert(Connection {
                    slot: chunk.slot,
                    process: chunk.process,
                    session: chunk.session,
                    next_seq: 0,
                    counted: false,
                    sampled: false,
                    request: None,
                    machine: wire::machine(server.instance.engine),
                    serves: self.serves.remove(&chunk.process),
                    principal: None,
                })
            }
        };
        let missing = chunk.seq.wrapping_sub(connection.next_seq);
        connection.next_seq = chunk.seq.wrapping_add(1);
        if missing != 0 {
            // Numbers that run backwards mean that the kernel forgot the connection and began again.
            let lost = if missing < u32::MAX / 2 { u64::from(missing) } else { 1 };
            server.lose("records_missing", lost);
            connection.machine.gap(chunk.at, &mut self.events);
            connection.request = None;
        }
        let mut work = Work {
            server,
            normaliser: &mut self.normaliser,
            advice: &mut self.advice,
            examples: &mut self.examples,
            text_hash: self.text_hash,
        };
        if chunk.direction == Direction::Response {
            connection.counted = chunk.counted;
            connection.sampled = chunk.sampled;
        }
        let mut parts = parts.into_iter().peekable();
        if let Some(request) = chunk.request {
            let bytes = parts.peek().map_or(&[][..], |(bytes, _)| bytes);
            connection.request = work.request(request, bytes).then_some(request);
        }
        for (bytes, true_len) in parts {
            connection.machine.data(chunk.direction, chunk.at, bytes, true_len, &mut self.events);
        }
        work.absorb(&mut self.events, chunk.conn, connection);
        work.group(chunk, connection);
    }

    /// What the kernel should be told, or the caller should do, since the last call.
    pub fn advice(&mut self) -> impl Iterator<Item = Advice> + '_ {
        self.advice.drain(..)
    }

    /// Takes up what the kernel counted.
    pub fn counted(&mut self, counted: &Counted<'_>) {
        if let Some(server) = self.servers.get_mut(&counted.slot) {
            server.counted(counted);
        }
    }

    /// Takes up an execution that the kernel counted and that failed or was slow.
    pub fn outlier(&mut self, slot: u32, outlier: &RawOutlier) {
        if let Some(server) = self.servers.get_mut(&slot) {
            server.outlier(outlier, &mut self.examples);
        }
    }

    /// Whether `slot` is a PostgreSQL server.
    pub fn is_postgresql(&self, slot: u32) -> bool {
        self.servers.get(&slot).is_some_and(|server| server.instance.engine == Engine::Postgresql)
    }

    /// Assigns what the kernel counted before its text or its session was known, as far as that is possible by now.
    pub fn resolve(&mut self) {
        self.servers.values_mut().for_each(|server| server.resolve(|_| false));
    }

    /// As [`Aggregator::resolve`], and gives up on what has waited for several calls, or on everything if this is the `last`: it counts as unknown.
    pub fn settle(&mut self, last: bool) {
        self.servers.values_mut().for_each(|server| server.settle(last));
    }

    /// A connection ended; `counted`: the kernel has counted what it was executing. Gives the kernel's place for it.
    pub fn close(&mut self, conn: u64, at: Timestamp, counted: bool) -> Option<u32> {
        let mut connection = self.connections.remove(&conn)?;
        connection.counted = counted;
        connection.sampled = false;
        if let Entry::Occupied(entry) = self.by_process.entry(connection.process)
            && *entry.get() == conn
        {
            entry.remove();
        }
        let server = self.servers.get_mut(&connection.slot)?;
        connection.machine.close(at, &mut self.events);
        let mut work = Work {
            server,
            normaliser: &mut self.normaliser,
            advice: &mut self.advice,
            examples: &mut self.examples,
            text_hash: self.text_hash,
        };
        work.absorb(&mut self.events, conn, &mut connection);
        Some(connection.session)
    }

    /// A process of a server ended, and with it its connection. Gives that and the kernel's place for it.
    pub fn exit(&mut self, process: u32, at: Timestamp) -> Option<(u64, u32)> {
        self.serves.remove(&process);
        let conn = self.by_process.remove(&process)?;
        self.close(conn, at, false).map(|session| (conn, session))
    }

    /// Ends the connections of `slot` whose socket is not among `open`: the server closed them without a word.
    pub fn reconcile(&mut self, slot: u32, open: &HashSet<u64>, at: Timestamp) {
        let ended: Vec<u64> = self
            .connections
            .iter()
            .filter(|(conn, connection)| connection.slot == slot && !open.contains(*conn))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in ended {
            self.close(conn, at, false);
        }
    }

    /// Servers at this moment, ordered by engine and pid. `followed` are the sessions that the kernel knows: slot, connection, and what they do
    /// where the kernel can tell.
    pub fn snapshot(&self, followed: &[(u32, u64, Option<SessionState>)]) -> Vec<InstanceSnapshot> {
        let mut states: HashMap<u32, Vec<_>> = HashMap::new();
        for (slot, conn, state) in followed {
            let state = state.unwrap_or_else(|| {
                self.connections.get(conn).map_or(SessionState::Unknown, |connection| connection.machine.state())
            });
            states.entry(*slot).or_default().push(state);
        }
        let mut snapshots: Vec<InstanceSnapshot> = self
            .servers
            .iter()
            .map(|(slot, server)| server.snapshot(states.remove(slot).unwrap_or_default().into_iter()))
            .collect();
        snapshots.sort_by_key(|snapshot| (snapshot.instance.engine, snapshot.instance.key.pid));
        snapshots
    }
}

/// An execution that the kernel counted and found worth a look.
#[derive(Clone, Copy, Debug)]
pub struct RawOutlier {
    /// Its connection.
    pub conn: u64,
    /// Process that served it.
    pub process: u32,
    /// Whose session.
    pub group: u64,
    /// Hash of its text.
    pub hash: u64,
    /// When its request was complete.
    pub begin: Timestamp,
    /// When its completion was written.
    pub end: Timestamp,
    /// How it ended.
    pub ending: crate::model::Ending,
    /// Rows sent and changed.
    pub rows: u64,
}
