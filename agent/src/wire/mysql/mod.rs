//! The machine for MySQL and MariaDB ("Client/Server Protocol" in the MySQL source documentation and in MariaDB's).
//!
//! A connection is seen either from its first byte, the greeting, or from somewhere within. In the second case, and after a loss, the
//! machine *hunts*: a request that looks like a command at the start of a read is followed, but counts only when its response was read to
//! the end without contradiction. A greeting at the start of a write begins a session anew. Bytes with the same direction and time are
//! one read or write, however they are cut.

mod command;
mod commands;
mod exchange;
mod handshake;
mod lexer;
mod packet;
mod prepared;
mod protocol;
mod reader;
mod response;
mod startup;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::{
    exchange::{Exchange, Expect},
    packet::{Chunk, Framer, Step},
    prepared::Prepared,
    protocol::{capability, header},
    startup::Startup,
};
use super::{Anomaly, Direction, Event, Machine};
use crate::model::{SessionInfo, SessionState, Text, Timestamp};

/// Most commands that may wait for their responses.
const MAX_QUEUED: usize = 1024;
/// Most bytes of text that waiting commands may hold.
const MAX_QUEUED_BYTES: usize = 1 << 20;

/// The place in the stream is lost.
#[derive(Debug)]
struct Lost;

/// What the connection does.
#[derive(Debug, Default)]
enum Phase {
    /// Looks for a provable boundary.
    #[default]
    Hunting,
    /// Greeting, TLS, authentication.
    Starting(Box<Startup>),
    /// Commands and responses.
    Commands,
    /// Cannot be followed.
    Opaque(&'static str),
}

/// The text of a `COM_QUERY` or `COM_STMT_PREPARE` at the beginning of `request`, with or without the packet's header.
pub(super) fn request_text(request: &[u8]) -> Option<&[u8]> {
    let payload = match request {
        [a, b, c, 0, payload @ ..] if u32::from_le_bytes([*a, *b, *c, 0]) as usize == payload.len() => payload,
        payload => payload,
    };
    match payload {
        // Query attributes, of which there are none.
        [protocol::command::QUERY, 0, 1, text @ ..] => Some(text),
        [protocol::command::QUERY, 0, ..] => None,
        [protocol::command::QUERY | protocol::command::STMT_PREPARE, text @ ..] => Some(text),
        _ => None,
    }
}

/// Follows one connection.
#[derive(Debug, Default)]
pub struct Mysql {
    info: SessionInfo,
    phase: Phase,
    /// Some packet of the server was understood, or a loss was reported: a refusal in place of a greeting is out of the question.
    established: bool,
    /// A response has proved that the place in the stream is right.
    confirmed: bool,
    /// A loss was reported and the boundary after it not yet found.
    desynchronised: bool,
    /// Requests and responses since the hunt began that start like TLS records.
    tls_records: [u8; 2],
    /// Direction and time of the bytes before.
    last: Option<(Direction, Timestamp)>,
    request: Framer,
    response: Framer,
    /// What client and server agreed on; `None` if the connection is older than the agent.
    capabilities: Option<u64>,
    /// Whether EOF packets follow column definitions; inferred where the capabilities are unknown.
    classic_eof: Option<bool>,
    in_transaction: bool,
    /// The server runs with `NO_BACKSLASH_ESCAPES`.
    no_backslash_escapes: bool,
    /// The command being answered.
    exchange: Option<Box<Exchange>>,
    /// Commands sent before the response to the one before was complete.
    queue: VecDeque<Exchange>,
    queued_bytes: usize,
    /// End of the statement before: a pipelined command does not start earlier.
    busy_until: Timestamp,
    prepared: Option<Box<Prepared>>,
    /// Id and text of the statement prepared last.
    last_prepared: Option<(u32, Text)>,
}

impl Machine for Mysql {
    fn data(&mut self, direction: Direction, at: Timestamp, bytes: &[u8], true_len: usize, out: &mut Vec<Event>) {
        let missing = true_len.saturating_sub(bytes.len());
        if bytes.is_empty() && missing == 0 {
            return;
        }
        let continues = self.last == Some((direction, at));
        self.last = Some((direction, at));
        if !continues && matches!(self.phase, Phase::Hunting) && self.is_encrypted(direction, bytes) {
            self.info.encrypted = true;
            return self.opaque(TLS, Anomaly::Encrypted, out);
        }
        let mut chunk = Chunk { bytes, missing, at };
        match direction {
            Direction::Request => self.request_bytes(&mut chunk, continues, out),
            Direction::Response => self.response_bytes(&mut chunk, continues, out),
        }
    }

    fn gap(&mut self, _at: Timestamp, out: &mut Vec<Event>) {
        self.established = true;
        self.last = None;
        self.lost(out);
    }

    fn close(&mut self, at: Timestamp, out: &mut Vec<Event>) {
        match std::mem::take(&mut self.phase) {
            Phase::Hunting | Phase::Opaque(_) => {}
            Phase::Starting(startup) => out.push(Event::Statement(startup.incomplete(at))),
            Phase::Commands if self.confirmed => {
                if let Some(exchange) = self.exchange.take() {
                    match exchange.expect {
                        Expect::PerhapsEof { .. } => self.finish_perhaps(exchange, out),
                        _ => out.push(Event::Statement(exchange.incomplete(at))),
                    }
                }
                for waiting in std::mem::take(&mut self.queue) {
                    out.push(Event::Statement(waiting.incomplete(at)));
                }
                self.flush_cursors(out);
            }
            Phase::Commands => {}
        }
        *self = Mysql { info: std::mem::take(&mut self.info), ..Mysql::default() };
    }

    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn state(&self) -> SessionState {
        match &self.phase {
            Phase::Hunting => SessionState::Unknown,
            Phase::Starting(_) => SessionState::Starting,
            Phase::Opaque(why) => SessionState::Opaque(why),
            Phase::Commands if !self.confirmed => SessionState::Unknown,
            Phase::Commands if self.exchange.is_some() => SessionState::Active,
            Phase::Commands if self.in_transaction => SessionState::IdleInTransaction,
            Phase::Commands => SessionState::Idle,
        }
    }
}

impl Mysql {
    fn request_bytes(&mut self, chunk: &mut Chunk<'_>, continues: bool, out: &mut Vec<Event>) {
        if let Phase::Opaque(_) = self.phase {
            return;
        }
        if let Phase::Hunting = self.phase {
            // No client sends in the middle of a greeting.
            self.response.reset();
            if continues && self.request.at_boundary() {
                // The rest of a read whose start was no command.
                return;
            }
        }
        let mut framer = std::mem::take(&mut self.request);
        let result = self.request_packets(&mut framer, chunk, out);
        framer.release();
        self.request = framer;
        if result.is_err() {
            self.lost(out);
        }
    }

    fn request_packets(
        &mut self,
        framer: &mut Framer,
        chunk: &mut Chunk<'_>,
        out: &mut Vec<Event>,
    ) -> Result<(), Lost> {
        loop {
            let secret = match &self.phase {
                Phase::Opaque(_) => return Ok(()),
                Phase::Starting(startup) => Some(startup.request_want()),
                // A file or a packet of an authentication method.
                Phase::Commands if self.awaits_client() => Some(0),
                Phase::Commands | Phase::Hunting => None,
            };
            let step = framer.next(chunk, |first| secret.unwrap_or_else(|| command::want(first)));
            match step {
                Step::Lost => return Err(Lost),
                Step::More => {
                    if let Phase::Starting(startup) = &self.phase
                        && startup.is_tls(framer.current())
                    {
                        self.opaque(TLS, Anomaly::Encrypted, out);
                    }
                    return Ok(());
                }
                Step::Packet(packet) => match &self.phase {
                    Phase::Opaque(_) => return Ok(()),
                    Phase::Starting(_) => self.startup_request(&packet, out)?,
                    Phase::Hunting => {
                        if packet.first != 0 || !command::is_plausible(&packet) {
                            return Err(Lost);
                        }
                        // Without a response nothing would confirm it.
                        let code = packet.payload.first().copied().unwrap_or(0);
                        if command::is_silent(code) {
                            return Err(Lost);
                        }
                        self.phase = Phase::Commands;
                        self.confirmed = false;
                        self.response.reset();
                        self.command(&packet, chunk.at, out)?;
                    }
                    Phase::Commands => {
                        if !self.confirmed && !self.awaits_client() && !command::is_plausible(&packet) {
                            return Err(Lost);
                        }
                        self.command(&packet, chunk.at, out)?;
                    }
                },
            }
        }
    }

    fn response_bytes(&mut self, chunk: &mut Chunk<'_>, continues: bool, out: &mut Vec<Event>) {
        match self.phase {
            Phase::Opaque(_) => return,
            Phase::Hunting => {
                // A response ends a candidate that is not complete: the server answers whole commands.
                self.request.reset();
                if continues && self.response.at_boundary() {
                    return;
                }
            }
            Phase::Commands if !self.confirmed && !self.request.at_boundary() => return self.lost(out),
            Phase::Commands | Phase::Starting(_) => {}
        }
        let mut framer = std::mem::take(&mut self.response);
        let result = self.response_packets(&mut framer, chunk, out);
        framer.release();
        self.response = framer;
        if result.is_err() {
            self.lost(out);
        }
    }

    fn response_packets(
        &mut self,
        framer: &mut Framer,
        chunk: &mut Chunk<'_>,
        out: &mut Vec<Event>,
    ) -> Result<(), Lost> {
        loop {
            let mut in_rows = false;
            if let Some(exchange) = &mut self.exchange
                && exchange.expect == Expect::Rows
            {
                in_rows = true;
                let (rows, wire) = framer.skip_rows(chunk, &mut exchange.sequence);
                if rows > 0 {
                    exchange.first_byte.get_or_insert(chunk.at);
                    *exchange.rows.get_or_insert(0) += rows;
                    exchange.bytes_out += wire;
                }
            }
            let greeting = matches!(self.phase, Phase::Hunting);
            let step = framer.next(chunk, |first| match first {
                header::EOF.. => response::WANT,
                _ if in_rows => 1,
                header::OK => response::WANT,
                startup::GREETING => startup::GREETING_WANT,
                _ => 32,
            });
            let packet = match step {
                Step::Lost => return Err(Lost),
                Step::More if greeting => {
                    // A greeting is short and has sequence id 0.
                    return match framer.current() {
                        Some(header) if !startup::may_be_greeting(header) => Err(Lost),
                        _ => Ok(()),
                    };
                }
                Step::More => return Ok(()),
                Step::Packet(packet) => packet,
            };
            match &self.phase {
                Phase::Opaque(_) => return Ok(()),
                Phase::Hunting => self.greeting(&packet, chunk.at, out)?,
                Phase::Starting(_) => self.startup_response(&packet, chunk.at, out)?,
                Phase::Commands => self.answer(&packet, chunk.at, out)?,
            }
        }
    }

    /// Whether a session joined late has shown by now that it is encrypted: reads and writes of application data (content type 23, version
    /// 3.x), several of them each way and no command in between.
    fn is_encrypted(&mut self, direction: Direction, bytes: &[u8]) -> bool {
        if let [0x17, 0x03, 1..=4, ..] = bytes {
            let seen = &mut self.tls_records[direction as usize];
            *seen = seen.saturating_add(1);
        }
        self.tls_records.iter().all(|seen| *seen >= TLS_PROOF)
    }

    /// The place in the stream is lost: forgets what was under way and hunts.
    fn lost(&mut self, out: &mut Vec<Event>) {
        let followed = match self.phase {
            Phase::Opaque(_) => return,
            Phase::Hunting => {
                self.request.reset();
                self.response.reset();
                return;
            }
            Phase::Starting(_) => true,
            Phase::Commands => self.confirmed,
        };
        if followed && !self.desynchronised {
            self.desynchronised = true;
            out.push(Event::Anomaly(Anomaly::Desynchronised));
        }
        self.phase = Phase::Hunting;
        self.tls_records = [0; 2];
        self.confirmed = false;
        self.exchange = None;
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
        self.request.reset();
        self.response.reset();
        self.in_transaction = false;
        // Texts stay: a server never gives an id twice on one connection, not even after a reset. Which statement was prepared last is lost.
        self.last_prepared = None;
        self.classic_eof = self.capabilities.map(|flags| flags & capability::DEPRECATE_EOF == 0);
        if let Some(prepared) = &mut self.prepared {
            // Fetches that nobody sees cannot be added to their executions.
            prepared.take_cursors();
        }
    }

    /// Gives up on the connection for a known reason.
    fn opaque(&mut self, why: &'static str, anomaly: Anomaly, out: &mut Vec<Event>) {
        out.push(Event::Anomaly(anomaly));
        self.forget_statements();
        self.exchange = None;
        self.queue = VecDeque::new();
        self.phase = Phase::Opaque(why);
    }

    fn forget_statements(&mut self) {
        self.prepared = None;
        self.last_prepared = None;
    }

    /// Capabilities are agreed and the user is let in: from here on commands. Compressed sessions would be unpacked here.
    fn enter_command_phase(&mut self, capabilities: u64, out: &mut Vec<Event>) {
        self.capabilities = Some(capabilities);
        self.classic_eof = Some(capabilities & capability::DEPRECATE_EOF == 0);
        if capabilities & (capability::COMPRESS | capability::ZSTD_COMPRESSION) != 0 {
            return self.opaque(COMPRESSED, Anomaly::Compressed, out);
        }
        self.phase = Phase::Commands;
        self.confirmed = true;
    }
}

/// So many TLS records each way, without a command that is answered, are no chance.
const TLS_PROOF: u8 = 3;
/// Why a session is opaque: TLS that is not captured at the server's own boundary.
const TLS: &str = "tls";
/// Why a session is opaque: protocol compression.
const COMPRESSED: &str = "compressed";
/// Why a session is opaque: it carries a replication stream.
const REPLICATION: &str = "replication";
