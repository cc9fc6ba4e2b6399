//! Chunks of wire in, statistics out: one protocol machine a connection, one row a (database, user, fingerprint) of each server.
//!
//! Everything is bounded: sessions, rows, error codes a row. Pure: the caller gives time and bytes.

pub mod config;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hashbrown::{HashMap, HashSet, hash_map::Entry};

pub use config::Config;
use server::{Names, Principal, Server};

use crate::{
    model::{Instance, InstanceSnapshot, Timestamp, WireState},
    sql::Normaliser,
    wire::{self, Anomaly, Direction, Event, Machine},
};

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
}

/// What the caller should do about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// A session on this slot is encrypted: its text can only be seen at the server's own boundary.
    SeekBoundary(u32),
}

struct Connection {
    slot: u32,
    process: u32,
    next_seq: u32,
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
    events: Vec<Event>,
}

impl Aggregator {
    /// Nothing known yet.
    pub fn new(config: Config) -> Aggregator {
        Aggregator {
            config,
            servers: HashMap::new(),
            connections: HashMap::new(),
            by_process: HashMap::new(),
            serves: HashMap::new(),
            normaliser: Normaliser::default(),
            events: Vec::new(),
        }
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
    pub fn data<'a>(&mut self, chunk: &Chunk, parts: impl IntoIterator<Item = (&'a [u8], usize)>) -> Option<Advice> {
        let server = self.servers.get_mut(&chunk.slot)?;
        server.saw(chunk.family);
        let full = self.connections.len() >= self.config.max_sessions;
        let connection = match self.connections.entry(chunk.conn) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => {
                server.lose("sessions_full", 1);
                return None;
            }
            Entry::Vacant(entry) => {
                if chunk.process != server.instance.key.pid {
                    self.by_process.insert(chunk.process, chunk.conn);
                }
                entry.insert(Connection {
                    slot: chunk.slot,
                    process: chunk.process,
                    next_seq: 0,
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
        }
        for (bytes, true_len) in parts {
            connection.machine.data(chunk.direction, chunk.at, bytes, true_len, &mut self.events);
        }
        let encrypted = absorb(&mut self.events, connection, server, &mut self.normaliser);
        encrypted.then_some(Advice::SeekBoundary(chunk.slot))
    }

    /// A connection ended.
    pub fn close(&mut self, conn: u64, at: Timestamp) {
        let Some(mut connection) = self.connections.remove(&conn) else { return };
        if let Entry::Occupied(entry) = self.by_process.entry(connection.process)
            && *entry.get() == conn
        {
            entry.remove();
        }
        let Some(server) = self.servers.get_mut(&connection.slot) else { return };
        connection.machine.close(at, &mut self.events);
        absorb(&mut self.events, &mut connection, server, &mut self.normaliser);
    }

    /// A process of a server ended, and with it its connection.
    pub fn exit(&mut self, process: u32, at: Timestamp) {
        self.serves.remove(&process);
        if let Some(conn) = self.by_process.remove(&process) {
            self.close(conn, at);
        }
    }

    /// Ends the connections of `slot` whose socket is not among `open`: the server closed them without a word.
    pub fn reconcile(&mut self, slot: u32, open: &HashSet<u64>, at: Timestamp) {
        let ended: Vec<u64> = self
            .connections
            .iter()
            .filter(|(conn, connection)| connection.slot == slot && !open.contains(*conn))
            .map(|(conn, _)| *conn)
            .collect();
        ended.into_iter().for_each(|conn| self.close(conn, at));
    }

    /// Servers at this moment, ordered by engine and pid.
    pub fn snapshot(&self) -> Vec<InstanceSnapshot> {
        let mut states: HashMap<u32, Vec<_>> = HashMap::new();
        for connection in self.connections.values() {
            states.entry(connection.slot).or_default().push(connection.machine.state());
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

/// Counts what a machine had to say; whether its session turned out to be encrypted.
fn absorb(
    events: &mut Vec<Event>,
    connection: &mut Connection,
    server: &mut Server,
    normaliser: &mut Normaliser,
) -> bool {
    let mut encrypted = false;
    for event in events.drain(..) {
        match event {
            Event::Statement(statement) => {
                let names = connection.names();
                let principal = server.principal(&names, &mut connection.principal);
                server.count(principal, &statement, normaliser);
            }
            Event::Transaction(_) => {}
            Event::Anomaly(anomaly) => {
                server.lose(anomaly.name(), 1);
                encrypted |= anomaly == Anomaly::Encrypted;
            }
        }
    }
    encrypted
}
