//! What machines and the kernel have said becomes statistics, examples and advice.

use std::sync::Arc;

use super::{
    Advice, Chunk, Connection, Request, TextHash,
    examples::{Examples, Outline, Seat},
    server::{Names, Server},
};
use crate::{
    model::{Kind, Statement, StatementText, Text, signal::Peer},
    sql::{self, Normaliser},
    wire::{self, Anomaly, Event},
};

/// What it takes to make statistics out of events.
pub(super) struct Work<'a> {
    pub(super) server: &'a mut Server,
    pub(super) normaliser: &'a mut Normaliser,
    pub(super) advice: &'a mut Vec<Advice>,
    pub(super) examples: &'a mut Examples,
    pub(super) text_hash: TextHash,
}

impl Work<'_> {
    /// Learns what text a hash stands for, if the request tells. Whether more is to be learnt from the statement that it makes.
    pub(super) fn request(&mut self, request: Request, bytes: &[u8]) -> bool {
        let engine = self.server.instance.engine;
        let (hash, row) = match request {
            Request::Executes { hash, row } => (hash, Some(row)),
            Request::Prepares { hash } => (hash, None),
            Request::Nameless { .. } => return true,
        };
        if !self.server.knows(hash)
            && let Some(text) = wire::request_text(engine, bytes)
        {
            let digest = self.normaliser.digest(engine, text, false);
            self.server.learn(hash, Arc::new(digest));
        }
        match row {
            Some(row) if self.server.knows(hash) => self.instruct(hash, row),
            Some(_) => return true,
            None => {}
        }
        false
    }

    fn instruct(&mut self, hash: u64, row: u32) {
        let policy = self.server.policy(hash);
        self.advice.push(Advice::Instruct { row, hash, policy });
    }

    /// Counts what a machine had to say.
    pub(super) fn absorb(&mut self, events: &mut Vec<Event>, conn: u64, connection: &mut Connection) {
        for event in events.drain(..) {
            match event {
                Event::Statement(statement) => self.statement(&statement, conn, connection),
                // The kernel counts them.
                Event::Transaction(_) => {}
                Event::Anomaly(anomaly) => {
                    self.server.lose(anomaly.name(), 1);
                    if anomaly == Anomaly::Encrypted {
                        self.advice.push(Advice::SeekBoundary(connection.slot));
                    }
                }
            }
        }
    }

    fn statement(&mut self, statement: &Statement, conn: u64, connection: &mut Connection) {
        if let Some(request) = connection.request.take() {
            self.learn_from(statement, request);
        }
        if self.examples.kept() && !matches!(statement.kind, Kind::Connect | Kind::Prepare) {
            self.example(statement, conn, connection);
        }
        if connection.counted {
            return;
        }
        let names = connection.names();
        let principal = self.server.principal(&names, &mut connection.principal);
        self.server.count(principal, statement, self.normaliser);
    }

    /// Keeps an execution that was seen as a whole.
    fn example(&mut self, statement: &Statement, conn: u64, connection: &Connection) {
        let digest = self.server.digest_of(statement, self.normaliser);
        let trace = match &statement.text {
            Text::Known(text) => sql::traceparent(text.raw()),
            Text::Unknown | Text::None => None,
        };
        let seat = Seat {
            instance: &self.server.instance,
            names: connection.names(),
            session: Peer { connection: conn, process: connection.process },
            application: connection.machine.info().application.clone(),
            trace,
        };
        let sampled = connection.counted && connection.sampled;
        if !self.examples.push(seat, digest, Outline::of(statement), sampled) {
            self.server.lose("examples_full", 1);
        }
    }

    /// The request executed a prepared statement of whose text nothing is known but what the machine remembers.
    fn learn_from(&mut self, statement: &Statement, request: Request) {
        let engine = self.server.instance.engine;
        let text = match &statement.text {
            Text::Known(text) if !text.truncated() => Some(text),
            _ => None,
        };
        let hash = text.and_then(|text| (self.text_hash)(engine, text.raw()));
        match request {
            Request::Nameless { name } if hash.is_some() || text.is_none() => {
                if let (Some(text), Some(hash)) = (text, hash) {
                    self.learn(hash, text);
                }
                self.advice.push(Advice::Name { name, hash });
            }
            Request::Executes { hash: wanted, row } => {
                // What the machine remembers of a name may be out of date.
                if let Some(text) = text.filter(|_| hash == Some(wanted)) {
                    self.learn(wanted, text);
                }
                self.instruct(wanted, row);
            }
            _ => {}
        }
    }

    fn learn(&mut self, hash: u64, text: &StatementText) {
        let engine = self.server.instance.engine;
        let normaliser = &mut *self.normaliser;
        let digest = text.digest(|text| Arc::new(normaliser.digest(engine, text.raw(), text.truncated())));
        self.server.learn(hash, Arc::clone(digest));
    }

    /// Keeps the kernel's idea of whose session it is in step with what its start and its statements say.
    pub(super) fn group(&mut self, chunk: &Chunk, connection: &Connection) {
        let names = connection.names();
        // A session that starts has no names yet; one that executes and has none is older than the agent.
        if names == Names::default() && chunk.request.is_none() {
            return;
        }
        if let Some(group) = self.server.group(chunk.group, chunk.slot, names) {
            self.advice.push(Advice::Regroup { session: chunk.session, conn: chunk.conn, group });
        }
    }
}
