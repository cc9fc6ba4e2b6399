//! One session: which bytes are packets, and which phase they belong to.

use std::collections::VecDeque;

use super::{
    Foreign, Lost, command,
    compression::{PIECE, Unpacker},
    exchange::{Exchange, Expect},
    packet::{Chunk, Framer, Packet, Step},
    prepared::Prepared,
    protocol::{capability, header},
    response,
    startup::{self, Startup},
    transaction::Transactions,
};
use crate::{
    model::{SessionInfo, SessionState, Text, Timestamp},
    wire::{Anomaly, Direction, Event, latest::LatestText},
};

/// Why a session is opaque: TLS that is not captured at the server's own boundary.
pub(super) const TLS: &str = "tls";
/// Why a session is opaque: it carries a replication stream.
pub(super) const REPLICATION: &str = "replication";
/// Why a session is opaque: it speaks another protocol.
const X_PROTOCOL: &str = "x-protocol";

/// What the connection does.
#[derive(Debug, Default)]
pub(super) enum Phase {
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

/// The packets of both directions, and what they amount to.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) info: SessionInfo,
    pub(super) phase: Phase,
    /// Some packet of the server was understood, or a loss was reported: a refusal in place of a greeting is out of the question.
    pub(super) established: bool,
    /// A response has proved that the place in the stream is right.
    pub(super) confirmed: bool,
    /// A loss was reported and the boundary after it not yet found.
    pub(super) desynchronised: bool,
    pub(super) request: Framer,
    pub(super) response: Framer,
    /// What undoes protocol compression, by direction; `None` where the session has none.
    pub(super) compression: Option<Box<[Unpacker; 2]>>,
    /// What client and server agreed on; `None` if the connection is older than the agent.
    pub(super) capabilities: Option<u64>,
    /// Whether EOF packets follow column definitions; inferred where the capabilities are unknown.
    pub(super) classic_eof: Option<bool>,
    pub(super) transactions: Transactions,
    /// The server runs with `NO_BACKSLASH_ESCAPES`.
    pub(super) no_backslash_escapes: bool,
    /// The command being answered.
    pub(super) exchange: Option<Box<Exchange>>,
    /// Commands sent before the response to the one before was complete.
    pub(super) queue: VecDeque<Exchange>,
    pub(super) queued_bytes: usize,
    /// Text sent last.
    pub(super) latest: LatestText,
    /// End of the statement before: a pipelined command does not start earlier.
    pub(super) busy_until: Timestamp,
    pub(super) prepared: Option<Box<Prepared>>,
    /// Id and text of the statement prepared last.
    pub(super) last_prepared: Option<(u32, Text)>,
}

impl Session {
    /// Whether nothing proves that the bytes are read aright.
    pub(super) fn is_unproved(&self) -> bool {
        match self.phase {
            Phase::Hunting => true,
            Phase::Commands => !self.confirmed,
            Phase::Starting(_) | Phase::Opaque(_) => false,
        }
    }

    /// Whether the session may be compressed though it is read without compression, or the other way round: it was joined late, or what
    /// follows a loss is the greeting of another session.
    pub(super) fn may_have_rival(&self) -> bool {
        matches!(self.phase, Phase::Hunting) && (self.capabilities.is_none() || self.compression.is_some())
    }

    /// A session that reads the same bytes in the other way.
    pub(super) fn rival(&self) -> Session {
        Session {
            info: self.info.clone(),
            established: self.established,
            desynchronised: self.desynchronised,
            compression: if self.compression.is_some() { None } else { Some(Box::default()) },
            ..Session::default()
        }
    }

    /// The session after this one on the same connection, if there is such a thing; keeps what is known of the client.
    pub(super) fn successor(&mut self) -> Session {
        Session { info: std::mem::take(&mut self.info), ..Session::default() }
    }

    /// Bytes of one read or write. `continues`: they are not its first. Whether it was proved, at their end or before they made no sense
    /// any more, that they are read aright.
    pub(super) fn data(
        &mut self,
        direction: Direction,
        mut chunk: Chunk<'_>,
        continues: bool,
        out: &mut Vec<Event>,
    ) -> bool {
        let mut result = Ok(());
        if self.compression.is_none() {
            result = self.packets(direction, &mut chunk, continues, out);
        }
        // Compression may have begun within the chunk.
        if result.is_ok() && self.compression.is_some() {
            result = self.unpack(direction, &mut chunk, continues, out);
        }
        if result.is_err() { self.lost(out) } else { !self.is_unproved() }
    }

    /// An unknown number of bytes was lost.
    pub(super) fn gap(&mut self, out: &mut Vec<Event>) {
        self.established = true;
        self.lost(out);
    }

    /// The connection ended.
    pub(super) fn close(&mut self, at: Timestamp, out: &mut Vec<Event>) {
        match std::mem::take(&mut self.phase) {
            Phase::Hunting | Phase::Opaque(_) => {}
            Phase::Starting(startup) => out.push(Event::Statement(startup.incomplete(at))),
            Phase::Commands if self.confirmed => {
                if let Some(exchange) = self.exchange.take_if(|exchange| exchange.perhaps_ended()) {
                    self.finish_perhaps(*exchange, out);
                }
                let idle = match &self.exchange {
                    Some(exchange) => {
                        self.transactions.resume(exchange.start);
                        false
                    }
                    None => true,
                };
                let waiting = self.exchange.take().map(|exchange| *exchange).into_iter();
                for exchange in waiting.chain(std::mem::take(&mut self.queue)) {
                    out.push(Event::Statement(exchange.incomplete(at)));
                }
                self.flush_cursors(out);
                out.extend(self.transactions.close(at, idle).map(Event::Transaction));
            }
            Phase::Commands => {}
        }
    }

    /// Whose session it is.
    pub(super) fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// What it does now.
    pub(super) fn state(&self) -> SessionState {
        match &self.phase {
            Phase::Hunting => SessionState::Unknown,
            Phase::Starting(_) => SessionState::Starting,
            Phase::Opaque(why) => SessionState::Opaque(why),
            Phase::Commands if !self.confirmed => SessionState::Unknown,
            Phase::Commands if self.exchange.is_some() => SessionState::Active,
            Phase::Commands if self.transactions.is_open() => SessionState::IdleInTransaction,
            Phase::Commands => SessionState::Idle,
        }
    }

    fn framer(&mut self, direction: Direction) -> &mut Framer {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// Undoes compression and takes what comes out as packets.
    fn unpack(
        &mut self,
        direction: Direction,
        chunk: &mut Chunk<'_>,
        continues: bool,
        out: &mut Vec<Event>,
    ) -> Result<(), Lost> {
        let Some(unpackers) = &mut self.compression else { return Ok(()) };
        if let Phase::Hunting = self.phase {
            // As in `packets`.
            unpackers[direction.other() as usize].reset();
        }
        let mut unpacker = std::mem::take(&mut unpackers[direction as usize]);
        if let Phase::Opaque(_) = self.phase {
            return Ok(());
        }
        if continues
            && matches!(self.phase, Phase::Hunting)
            && unpacker.at_boundary()
            && self.framer(direction).at_boundary()
        {
            // The rest of a read or write that was not understood.
            return Ok(());
        }
        let mut piece = [0; PIECE];
        while let Some(mut content) = unpacker.next(chunk, &mut piece)? {
            self.packets(direction, &mut content, false, out)?;
        }
        if let Some(unpackers) = &mut self.compression {
            unpackers[direction as usize] = unpacker;
        }
        Ok(())
    }

    /// Cuts a chunk into packets and takes them up.
    fn packets(
        &mut self,
        direction: Direction,
        chunk: &mut Chunk<'_>,
        continues: bool,
        out: &mut Vec<Event>,
    ) -> Result<(), Lost> {
        match (&self.phase, direction) {
            (Phase::Opaque(_), _) => return Ok(()),
            (Phase::Hunting, _) => {
                // No client sends in the middle of a greeting, and the server answers whole commands: a response ends a candidate that is not
                // complete.
                self.framer(direction.other()).reset();
                if continues && self.framer(direction).at_boundary() {
                    // The rest of a read or write whose start was not understood.
                    return Ok(());
                }
            }
            (Phase::Commands, Direction::Response) if !self.confirmed && !self.request.at_boundary() => {
                return Err(Lost);
            }
            (Phase::Commands | Phase::Starting(_), _) => {}
        }
        let mut framer = std::mem::take(self.framer(direction));
        let result = match direction {
            Direction::Request => self.requests(&mut framer, chunk, out),
            Direction::Response => self.responses(&mut framer, chunk, out),
        };
        framer.release();
        *self.framer(direction) = framer;
        result
    }

    fn requests(&mut self, framer: &mut Framer, chunk: &mut Chunk<'_>, out: &mut Vec<Event>) -> Result<(), Lost> {
        loop {
            let secret = match &self.phase {
                Phase::Opaque(_) => return Ok(()),
                Phase::Starting(startup) => Some(startup.request_want()),
                // A file or a packet of an authentication method.
                Phase::Commands if self.awaits_client() => Some(0),
                Phase::Commands | Phase::Hunting => None,
            };
            let packet = match framer.next(chunk, |first| secret.unwrap_or_else(|| command::want(first))) {
                Step::Packet(packet) => packet,
                Step::Lost => return Err(Lost),
                Step::More => {
                    if let Phase::Starting(startup) = &self.phase
                        && startup.is_tls(framer.current())
                    {
                        self.opaque(TLS, Anomaly::Encrypted, out);
                    }
                    return Ok(());
                }
            };
            match &self.phase {
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
                    self.command(&packet, chunk.at, out)?;
                }
                Phase::Commands => {
                    if !self.confirmed && !self.awaits_client() && !command::is_plausible(&packet) {
                        return Err(Lost);
                    }
                    self.command(&packet, chunk.at, out)?;
                }
            }
        }
    }

    fn responses(&mut self, framer: &mut Framer, chunk: &mut Chunk<'_>, out: &mut Vec<Event>) -> Result<(), Lost> {
        let packed = self.compression.is_some();
        loop {
            let in_rows = self.skip_rows(framer, chunk);
            let step = framer.next(chunk, |first| match first {
                header::EOF.. => response::WANT,
                _ if in_rows => 1,
                header::OK => response::WANT,
                startup::GREETING => startup::GREETING_WANT,
                _ => 32,
            });
            let packet = match step {
                Step::Packet(packet) => packet,
                Step::Lost => return Err(Lost),
                Step::More => {
                    // A greeting is short and has sequence id 0.
                    let hunting = matches!(self.phase, Phase::Hunting);
                    let foreign = framer.current().is_some_and(|header| !startup::may_be_greeting(header));
                    return if hunting && foreign { Err(Lost) } else { Ok(()) };
                }
            };
            match &self.phase {
                Phase::Opaque(_) => return Ok(()),
                Phase::Hunting => self.greeting(&packet, chunk.at, out)?,
                Phase::Starting(_) => self.startup_response(&packet, chunk.at, out)?,
                Phase::Commands => self.answer(&packet, chunk.at, out)?,
            }
            if packed != self.compression.is_some() {
                // What follows is compressed.
                return Ok(());
            }
        }
    }

    /// Steps over rows that the chunk holds whole. Whether rows are what comes.
    #[inline]
    fn skip_rows(&mut self, framer: &mut Framer, chunk: &mut Chunk<'_>) -> bool {
        match &mut self.exchange {
            Some(exchange) if exchange.expect == Expect::Rows => {
                let (rows, wire) = framer.skip_rows(chunk, &mut exchange.sequence);
                if rows > 0 {
                    exchange.first_byte.get_or_insert(chunk.at);
                    *exchange.rows.get_or_insert(0) += rows;
                    exchange.bytes_out += wire;
                }
                true
            }
            _ => false,
        }
    }

    /// The place in the stream is lost: forgets what was under way and hunts. Whether the place was proved before.
    fn lost(&mut self, out: &mut Vec<Event>) -> bool {
        self.request.reset();
        self.response.reset();
        for unpacker in self.compression.iter_mut().flat_map(|unpackers| unpackers.iter_mut()) {
            unpacker.reset();
        }
        let followed = match self.phase {
            Phase::Hunting => return false,
            Phase::Opaque(_) => return true,
            Phase::Starting(_) => true,
            Phase::Commands => self.confirmed,
        };
        if followed && !self.desynchronised {
            self.desynchronised = true;
            out.push(Event::Anomaly(Anomaly::Desynchronised));
        }
        self.phase = Phase::Hunting;
        self.confirmed = false;
        self.exchange = None;
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
        self.transactions.lose();
        // Texts stay: a server never gives an id twice on one connection, not even after a reset. Which statement was prepared last is lost.
        self.last_prepared = None;
        self.classic_eof = self.capabilities.map(|flags| flags & capability::DEPRECATE_EOF == 0);
        if let Some(prepared) = &mut self.prepared {
            // Fetches that nobody sees cannot be added to their executions.
            prepared.take_cursors();
        }
        followed
    }

    /// The session is none that can be followed.
    pub(super) fn foreign(&mut self, foreign: Foreign, out: &mut Vec<Event>) {
        match foreign {
            Foreign::Tls => {
                self.info.encrypted = true;
                self.opaque(TLS, Anomaly::Encrypted, out);
            }
            Foreign::X => self.opaque(X_PROTOCOL, Anomaly::XProtocol, out),
        }
    }

    /// Gives up on the connection for a known reason.
    pub(super) fn opaque(&mut self, why: &'static str, anomaly: Anomaly, out: &mut Vec<Event>) {
        out.push(Event::Anomaly(anomaly));
        self.forget_statements();
        self.exchange = None;
        self.queue = VecDeque::new();
        self.transactions.lose();
        self.compression = None;
        self.phase = Phase::Opaque(why);
    }

    pub(super) fn forget_statements(&mut self) {
        self.prepared = None;
        self.last_prepared = None;
    }

    /// Capabilities are agreed and the user is let in: from here on commands, compressed if so agreed.
    pub(super) fn enter_command_phase(&mut self, capabilities: u64) {
        self.capabilities = Some(capabilities);
        self.classic_eof = Some(capabilities & capability::DEPRECATE_EOF == 0);
        if capabilities & (capability::COMPRESS | capability::ZSTD_COMPRESSION) != 0 {
            self.compression = Some(Box::default());
        }
        self.phase = Phase::Commands;
        self.confirmed = true;
    }

    /// Whether a packet is the one that the command being answered waits for. Inside compression the ids tell nothing (see `compression`).
    pub(super) fn is_next(&self, packet: &Packet<'_>, exchange: &Exchange) -> bool {
        packet.first == exchange.sequence || self.compression.is_some()
    }
}
