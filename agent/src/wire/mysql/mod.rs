//! The machine for MySQL and MariaDB ("Client/Server Protocol" in the MySQL source documentation and in MariaDB's).
//!
//! A connection is seen either from its first byte, the greeting, or from somewhere within. In the second case, and after a loss, a
//! session *hunts*: a request that looks like a command at the start of a read is followed, but counts only when its response was read to
//! the end without contradiction. A greeting at the start of a write begins a session anew. Bytes with the same direction and time are
//! one read or write, however they are cut.
//!
//! Whether a session joined late is compressed cannot be seen beforehand. Both are tried side by side, and the first that proves right stays.

mod command;
mod commands;
mod compression;
mod exchange;
mod handshake;
mod lexer;
mod packet;
mod prepared;
mod protocol;
mod reader;
mod recognition;
mod response;
mod session;
mod startup;
#[cfg(test)]
mod tests;
mod transaction;

use self::{
    packet::Chunk,
    recognition::{Evidence, Foreign},
    session::Session,
};
use super::{Direction, Event, Machine};
use crate::model::{SessionInfo, SessionState, Timestamp};

/// The place in the stream is lost.
#[derive(Debug)]
struct Lost;

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
    session: Session,
    /// The same bytes, while the session hunts, read with compression if the session is without and the other way round.
    rival: Option<Box<Session>>,
    /// What the session looks like while it is not understood.
    evidence: Evidence,
    /// Direction and time of the bytes before.
    last: Option<(Direction, Timestamp)>,
}

impl Machine for Mysql {
    fn data(&mut self, direction: Direction, at: Timestamp, bytes: &[u8], true_len: usize, out: &mut Vec<Event>) {
        let missing = true_len.saturating_sub(bytes.len());
        if bytes.is_empty() && missing == 0 {
            return;
        }
        let continues = self.last == Some((direction, at));
        self.last = Some((direction, at));
        if !continues {
            self.evidence.begin(self.session.is_unproved());
        }
        if let Some(foreign) = self.evidence.weigh(direction, bytes) {
            self.rival = None;
            return self.session.foreign(foreign, out);
        }
        let chunk = || Chunk { bytes, missing, at };
        if self.rival.is_none() && self.session.may_have_rival() {
            self.rival = Some(Box::new(self.session.rival()));
        }
        let proved = self.session.data(direction, chunk(), continues, out);
        if let Some(mut rival) = self.rival.take_if(|_| !proved) {
            let mut said = Vec::new();
            if rival.data(direction, chunk(), continues, &mut said) {
                out.append(&mut said);
                self.session = *rival;
            } else {
                self.rival = Some(rival);
            }
        } else {
            self.rival = None;
        }
    }

    fn gap(&mut self, _at: Timestamp, out: &mut Vec<Event>) {
        self.last = None;
        self.rival = None;
        self.session.gap(out);
    }

    fn close(&mut self, at: Timestamp, out: &mut Vec<Event>) {
        self.session.close(at, out);
        *self = Mysql { session: self.session.successor(), ..Mysql::default() };
    }

    fn info(&self) -> &SessionInfo {
        self.session.info()
    }

    fn state(&self) -> SessionState {
        self.session.state()
    }
}
