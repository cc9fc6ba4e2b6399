//! The phase from the greeting to the first command.

use super::{
    Lost,
    handshake::{Answer, Greeting, Login},
    packet::{HEADER, Packet},
    protocol::{header, status},
    response::{self, End},
    session::{Phase, Session, TLS},
};
use crate::{
    model::{Code, Kind, SessionInfo, Statement, Status, Text, Timestamp},
    wire::{Anomaly, Event},
};

/// First byte of a greeting: the version of the protocol.
pub(super) const GREETING: u8 = 10;
/// Bytes of a greeting that are needed: all.
pub(super) const GREETING_WANT: u32 = Greeting::MAX as u32;
/// Errors that a server sends in place of a greeting: too many connections, host blocked, host not allowed. No established session gets one.
const REFUSALS: [u16; 3] = [1040, 1129, 1130];

/// Whether a physical packet with this header can be a greeting.
pub(super) fn may_be_greeting([a, b, c, sequence]: [u8; HEADER]) -> bool {
    sequence == 0 && u64::from(u32::from_le_bytes([a, b, c, 0])) <= Greeting::MAX
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The client's answer to the greeting.
    Answer,
    /// The client's answer once more, after its request for TLS: in clear text if captured behind the encryption.
    AnswerInTls,
    /// Packets of an authentication method, either way, until OK or ERR.
    Authentication,
}

/// A connection attempt.
#[derive(Debug)]
pub(super) struct Startup {
    next: Next,
    /// Capabilities that the server offers, then those that were agreed.
    capabilities: u64,
    login: Login,
    start: Timestamp,
    bytes_in: u64,
    bytes_out: u64,
}

impl Startup {
    /// Bytes of the client's next packet that are needed. Authentication data is never looked at.
    pub(super) fn request_want(&self) -> u32 {
        if self.next == Next::Authentication { 0 } else { Answer::WANT }
    }

    /// Whether a physical packet with this header is a TLS record (content type 22 or 23, version 3.x) instead: the first three bytes
    /// would be a length that no answer has.
    pub(super) fn is_tls(&self, header: Option<[u8; HEADER]>) -> bool {
        self.next == Next::AnswerInTls && matches!(header, Some([0x16 | 0x17, 0x03, 0..=4, _]))
    }

    fn statement(&self, end: Timestamp, status: Status, code: Option<u16>) -> Statement {
        Statement {
            kind: Kind::Connect,
            text: Text::None,
            start: self.start,
            first_byte: Some(self.start),
            end,
            rows_sent: None,
            rows_affected: None,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            status,
            code: code.map(Code::Mysql),
            estimated: false,
        }
    }

    /// The attempt, if the connection ends now.
    pub(super) fn incomplete(&self, at: Timestamp) -> Statement {
        self.statement(at, Status::Incomplete, None)
    }
}

impl Session {
    /// The first packet that the server sends on a connection, or what may be that.
    pub(super) fn greeting(&mut self, packet: &Packet<'_>, at: Timestamp, out: &mut Vec<Event>) -> Result<(), Lost> {
        let fresh = !std::mem::replace(&mut self.established, true);
        if packet.first != 0 {
            return Err(Lost);
        }
        let mut startup = Startup {
            next: Next::Answer,
            capabilities: 0,
            login: Login::default(),
            start: packet.began,
            bytes_in: 0,
            bytes_out: packet.wire,
        };
        if packet.payload.first() == Some(&header::ERR) {
            return match response::err(packet) {
                Some(response::Err::Code(code)) if fresh && REFUSALS.contains(&code) => {
                    out.push(Event::Statement(startup.statement(at, Status::Error, Some(code))));
                    Ok(())
                }
                _ => Err(Lost),
            };
        }
        if packet.payload.len() as u64 != packet.length {
            return Err(Lost);
        }
        let greeting = Greeting::parse(packet.payload).ok_or(Lost)?;
        if self.desynchronised {
            out.push(Event::Anomaly(Anomaly::Resynchronised));
        }
        startup.capabilities = greeting.capabilities;
        // Nothing of an earlier session on the same socket number holds any more.
        *self = Session {
            info: SessionInfo {
                server_version: Some(greeting.version),
                started: Some(packet.began),
                ..SessionInfo::default()
            },
            phase: Phase::Starting(Box::new(startup)),
            established: true,
            ..Session::default()
        };
        Ok(())
    }

    /// A packet of the client before its session began.
    pub(super) fn startup_request(&mut self, packet: &Packet<'_>, out: &mut Vec<Event>) -> Result<(), Lost> {
        let Phase::Starting(startup) = &mut self.phase else { return Err(Lost) };
        startup.bytes_in += packet.wire;
        let expected = match startup.next {
            Next::Authentication => return Ok(()),
            Next::Answer => 1,
            Next::AnswerInTls => 2,
        };
        let [a, b, c, _] = (packet.length as u32).to_le_bytes();
        if startup.is_tls(Some([a, b, c, packet.first])) {
            self.opaque(TLS, Anomaly::Encrypted, out);
            return Ok(());
        }
        if packet.first != expected {
            return Err(Lost);
        }
        match Answer::parse(packet.payload, packet.length).ok_or(Lost)? {
            Answer::Tls if startup.next == Next::Answer => {
                startup.next = Next::AnswerInTls;
                self.info.encrypted = true;
            }
            Answer::Tls => return Err(Lost),
            Answer::Login { login, capabilities } => {
                startup.next = Next::Authentication;
                startup.capabilities &= capabilities;
                self.info.user.clone_from(&login.user);
                self.info.database.clone_from(&login.database);
                self.info.application.clone_from(&login.application);
                startup.login = login;
            }
        }
        Ok(())
    }

    /// A packet of the server between greeting and the end of authentication.
    pub(super) fn startup_response(
        &mut self,
        packet: &Packet<'_>,
        at: Timestamp,
        out: &mut Vec<Event>,
    ) -> Result<(), Lost> {
        let Phase::Starting(startup) = &mut self.phase else { return Err(Lost) };
        startup.bytes_out += packet.wire;
        match packet.payload.first() {
            Some(&header::ERR) => {
                let Some(response::Err::Code(code)) = response::err(packet) else { return Err(Lost) };
                out.push(Event::Statement(startup.statement(at, Status::Error, Some(code))));
                // The server closes the connection; nothing that follows means anything.
                self.phase = Phase::Hunting;
                self.request.reset();
                Ok(())
            }
            Some(&header::OK) if startup.next == Next::Authentication => {
                let Some(end @ End::Ok { status, .. }) = response::ok(packet) else { return Err(Lost) };
                out.push(Event::Statement(startup.statement(at, Status::Ok, None)));
                let capabilities = startup.capabilities;
                self.apply_status(&end);
                self.transactions.session_begins(status & status::IN_TRANS != 0);
                self.enter_command_phase(capabilities);
                Ok(())
            }
            Some(&(header::EOF | header::AUTH_MORE_DATA | header::AUTH_NEXT_FACTOR))
                if startup.next == Next::Authentication =>
            {
                Ok(())
            }
            _ => Err(Lost),
        }
    }
}
