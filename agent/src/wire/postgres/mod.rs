//! The PostgreSQL frontend/backend protocol, version 3.
//!
//! - `handshake`: before messages have a type; `framing`: messages out of bytes; `frontend`, `backend`: what is in them
//! - `session`: a connection whose place in the stream is known; `queue`, `request`: what awaits a reply; `reply`, `ended`: what became of it;
//!   `transaction`: blocks; `prepared`: what names stand for; `lexer`: where the statements of a text end
//! - here: whether the place in the stream is known
//!
//! A statement starts when the read that delivered the last byte of its `Query` or `Execute` returned. `Sync` and `Flush` do not
//! start it: the server executes before it reads them. It ends at the write that carries the last byte of its completion.
//!
//! The place in the stream is lost by a gap, by bytes that cannot be messages, and by a reply that does not answer the request at the
//! front. It is sought at the beginning of a read, because the server reads only when it has answered everything that it can: a
//! read that begins with a request and ends with a complete unit, or one that follows a write ending in `ReadyForQuery`. What comes
//! of it counts only when the replies fit up to the next `ReadyForQuery`.

mod backend;
mod ended;
mod framing;
mod frontend;
mod handshake;
mod lexer;
mod prepared;
mod queue;
mod reply;
mod request;
mod session;
#[cfg(test)]
mod tests;
mod transaction;

use std::fmt;

use framing::{Frame, Framer, skip_run};
use handshake::{Handshake, Seen, Startup};
use queue::Fault;
use session::Session;
use transaction::Status;

use super::{Anomaly, Direction, Event, Machine};
use crate::model::{SessionInfo, SessionState, Timestamp};

/// The text of a `Query` or `Parse` at the beginning of `request`.
pub(super) fn request_text(request: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = request.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..(u32::from_be_bytes(*length) as usize).checked_sub(4)?)?;
    let until_zero = |bytes: &[u8]| memchr::memchr(0, bytes);
    let text = match kind {
        b'Q' => body,
        b'P' => &body[until_zero(body)? + 1..],
        _ => return None,
    };
    Some(&text[..until_zero(text)?])
}

/// Follows one connection.
#[derive(Debug, Default)]
pub struct Postgres {
    info: SessionInfo,
    mode: Mode,
    /// Direction and time of the latest bytes: what follows with the same ones is the same read or write.
    run: Option<(Direction, Timestamp)>,
    tail: Tail,
    requests: Framer,
    responses: Framer,
    session: Session,
    /// Desynchronised was reported, Resynchronised not yet.
    lost: bool,
    /// Encrypted was reported.
    encrypted: bool,
    /// Requests and responses began with TLS records, though not with a handshake.
    tls_data: (bool, bool),
}

#[derive(Debug)]
enum Mode {
    /// Before the start-up packet, or ciphertext.
    Handshake(Box<Handshake>),
    /// The place in the stream is known, if `session.proven`.
    Following {
        /// The requests must turn out to be complete units when the first reply comes.
        check: bool,
    },
    /// The place in the stream is not known.
    Seeking {
        /// The next read may begin with a request.
        may_start: bool,
        /// Only the replies are lost: requests are still cut into messages, and names still known.
        framed: bool,
    },
    /// Left alone for this reason.
    Opaque(&'static str),
}

impl Default for Mode {
    fn default() -> Mode {
        Mode::Handshake(Box::default())
    }
}

/// The last bytes of the latest write.
#[derive(Default)]
struct Tail {
    bytes: [u8; Tail::LEN],
    len: usize,
}

impl fmt::Debug for Tail {
    /// Not the bytes: they may be of a row.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("ready", &self.ready()).finish()
    }
}

impl Tail {
    const LEN: usize = 6;

    fn clear(&mut self) {
        self.len = 0;
    }

    fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(Tail::LEN)..];
        let keep = self.len.min(Tail::LEN - new.len());
        self.bytes.copy_within(self.len - keep..self.len, 0);
        self.bytes[keep..keep + new.len()].copy_from_slice(new);
        self.len = keep + new.len();
    }

    /// Transaction status, if the write ended with `ReadyForQuery`.
    fn ready(&self) -> Option<Status> {
        match &self.bytes[..self.len] {
            [b'Z', 0, 0, 0, 5, status] => Status::of(*status),
            _ => None,
        }
    }
}

impl Postgres {
    fn request(&mut self, at: Timestamp, mut input: &[u8], missing: usize, new_run: bool, out: &mut Vec<Event>) {
        if let Mode::Seeking { may_start: true, framed: false } = self.mode
            && new_run
            && input.first() == Some(&0)
        {
            self.mode = Mode::default();
        }
        if let Mode::Handshake(handshake) = &mut self.mode {
            match handshake.request(&mut input, at, new_run) {
                Seen::Startup(startup) => self.start(startup, out),
                Seen::NotAStart => self.mode = Mode::Seeking { may_start: true, framed: false },
                Seen::Malformed => {
                    self.mode = Mode::Seeking { may_start: false, framed: false };
                    return;
                }
                Seen::Nothing => {
                    self.info.started = handshake.began;
                    if missing > 0 && !handshake.ciphertext {
                        self.lose(false, out);
                    }
                    return;
                }
                // Reported with the reply: PostgreSQL 17 peeks at the first TLS record with the function that it reads clear text with.
                Seen::Ciphertext => {
                    self.info.encrypted = true;
                    self.info.started = handshake.began;
                    return;
                }
            }
        }
        if let Mode::Seeking { may_start, framed } = self.mode {
            if !new_run && !framed {
                return;
            }
            if new_run && may_start && (!framed || self.requests.at_boundary()) {
                if !framed {
                    self.requests = Framer::cautious();
                }
                self.responses = Framer::default();
                self.mode = Mode::Following { check: self.tail.ready().is_none() };
            } else if framed {
                if self.request_unanswered(at, input, missing).is_err() {
                    self.forget_names();
                    self.mode = Mode::Seeking { may_start: false, framed: false };
                }
                return;
            } else {
                self.mode = Mode::Seeking { may_start: false, framed: false };
                return;
            }
        }
        if let Mode::Following { .. } = self.mode
            && let Err(fault) = self.follow_requests(at, input, missing)
        {
            self.fail(fault, false, out);
        }
    }

    fn follow_requests(&mut self, at: Timestamp, mut input: &[u8], missing: usize) -> Result<(), Fault> {
        loop {
            if self.requests.at_boundary() {
                let (count, bytes) = skip_run(b'd', 0, &mut input);
                if count > 0 {
                    self.session.copy_data(bytes)?;
                }
            }
            if let Some(frame) = self.requests.next_whole(frontend::rules, &mut input, at)? {
                self.session.request(&frame, at)?;
            } else if let Some(frame) = self.requests.next_part(frontend::rules, &mut input, at)? {
                self.session.request(&frame, at)?;
            } else {
                break;
            }
        }
        if missing > 0
            && let Some(frame) = self.requests.skip(missing)?
        {
            self.session.request(&frame, at)?;
        }
        Ok(())
    }

    fn request_unanswered(&mut self, at: Timestamp, mut input: &[u8], missing: usize) -> Result<(), framing::Lost> {
        while let Some(frame) = self.requests.next(frontend::rules, &mut input, at)? {
            self.session.request_unanswered(&frame)?;
        }
        if missing > 0
            && let Some(frame) = self.requests.skip(missing)?
        {
            self.session.request_unanswered(&frame)?;
        }
        Ok(())
    }

    fn response(&mut self, at: Timestamp, mut input: &[u8], missing: usize, out: &mut Vec<Event>) {
        if let Mode::Handshake(handshake) = &mut self.mode {
            handshake.response(&mut input);
            self.info.encrypted |= handshake.encryption.is_some();
            if handshake.ciphertext {
                self.report_encrypted(out);
                return;
            }
            if input.is_empty() {
                return;
            }
            match handshake.began {
                // Not an answer of one byte: an error, e.g. from a server older than the question.
                Some(began) => {
                    self.session.proven = true;
                    self.session.start(began, handshake.bytes_in, handshake.bytes_out);
                    self.mode = Mode::Following { check: false };
                }
                None => self.mode = Mode::Seeking { may_start: false, framed: false },
            }
        }
        if let Mode::Following { check: check @ true } = &mut self.mode {
            *check = false;
            if !(self.requests.at_boundary() && self.session.ends_unit()) {
                self.fail(Fault::Lost, false, out);
            }
        }
        if let Mode::Following { .. } = self.mode {
            self.follow_responses(at, input, missing, out);
        }
        if let Mode::Seeking { may_start, .. } = &mut self.mode {
            *may_start = self.tail.ready().is_some();
        }
    }

    fn follow_responses(&mut self, at: Timestamp, input: &[u8], missing: usize, out: &mut Vec<Event>) {
        if let Err(fault) = self.take_replies(at, input, out) {
            return self.fail(fault, false, out);
        }
        if missing == 0 {
            return;
        }
        match self.responses.skip(missing) {
            Err(lost) => self.fail(lost.into(), true, out),
            Ok(None) => {}
            Ok(Some(frame)) => {
                if let Err(fault) = self.take_reply(&frame, at, out) {
                    self.fail(fault, false, out);
                }
            }
        }
    }

    fn take_replies(&mut self, at: Timestamp, mut input: &[u8], out: &mut Vec<Event>) -> Result<(), Fault> {
        loop {
            if self.responses.at_boundary() {
                self.skip_bulk(&mut input, at)?;
            }
            if let Some(frame) = self.responses.next_whole(backend::rules, &mut input, at)? {
                self.take_reply(&frame, at, out)?;
            } else if let Some(frame) = self.responses.next_part(backend::rules, &mut input, at)? {
                self.take_reply(&frame, at, out)?;
            } else {
                return Ok(());
            }
        }
    }

    fn skip_bulk(&mut self, input: &mut &[u8], at: Timestamp) -> Result<(), Fault> {
        match input.first() {
            Some(b'D') => match skip_run(b'D', 2, input) {
                (0, _) => Ok(()),
                (count, bytes) => self.session.rows(count, bytes, at),
            },
            Some(b'd') => match skip_run(b'd', 0, input) {
                (0, _) => Ok(()),
                (_, bytes) => self.session.copy_out(bytes),
            },
            _ => Ok(()),
        }
    }

    fn take_reply(&mut self, frame: &Frame<'_>, at: Timestamp, out: &mut Vec<Event>) -> Result<(), Fault> {
        let fits = self.session.reply(frame, at, &mut self.info)?;
        if fits && !self.session.proven {
            self.session.proven = true;
            self.requests.trust();
            if std::mem::take(&mut self.lost) {
                out.push(Event::Anomaly(Anomaly::Resynchronised));
            }
        }
        // A `Z` may end a transaction.
        if fits || self.session.has_news() {
            self.emit(out);
        }
        Ok(())
    }

    /// Hands over what cannot change any more.
    fn emit(&mut self, out: &mut Vec<Event>) {
        if self.session.proven {
            self.session.take_settled(|statement| out.push(Event::Statement(statement)));
            out.extend(self.session.take_transaction().map(Event::Transaction));
            out.extend((0..self.session.take_evicted()).map(|_| Event::Anomaly(Anomaly::Evicted)));
        }
    }

    fn start(&mut self, startup: Startup, out: &mut Vec<Event>) {
        let Mode::Handshake(handshake) = &self.mode else { return };
        self.info.started = handshake.began;
        self.info.user = startup.user.map(Into::into);
        self.info.database = startup.database.map(Into::into);
        self.info.application = startup.application.map(Into::into);
        if startup.replication {
            self.make_opaque("replication", Anomaly::Replication, out);
            return;
        }
        self.session.start(handshake.began.unwrap_or_default(), handshake.bytes_in, handshake.bytes_out);
        self.session.proven = true;
        (self.requests, self.responses) = Default::default();
        self.mode = Mode::Following { check: false };
    }

    fn report_encrypted(&mut self, out: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.encrypted, true) {
            out.push(Event::Anomaly(Anomaly::Encrypted));
        }
    }

    fn make_opaque(&mut self, why: &'static str, anomaly: Anomaly, out: &mut Vec<Event>) {
        self.mode = Mode::Opaque(why);
        self.session = Session::default();
        (self.requests, self.responses) = Default::default();
        out.push(Event::Anomaly(anomaly));
    }

    fn fail(&mut self, fault: Fault, only_replies: bool, out: &mut Vec<Event>) {
        match fault {
            Fault::Lost => self.lose(only_replies, out),
            Fault::Replication => self.make_opaque("replication", Anomaly::Replication, out),
            Fault::Overflow => {
                out.push(Event::Anomaly(Anomaly::Evicted));
                self.lose(false, out);
            }
        }
    }

    /// The place in the stream is lost. `only_replies`: the requests were never in doubt.
    fn lose(&mut self, only_replies: bool, out: &mut Vec<Event>) {
        let known = self.session.proven || matches!(self.mode, Mode::Handshake(_));
        let framed = only_replies && self.session.proven;
        if self.session.proven {
            self.session.lose();
            self.emit(out);
        } else {
            self.session.lose();
            self.session.drop_ended();
        }
        if known && !std::mem::replace(&mut self.lost, true) {
            out.push(Event::Anomaly(Anomaly::Desynchronised));
        }
        self.session.proven = false;
        self.responses = Framer::default();
        if !framed {
            self.requests = Framer::default();
            self.forget_names();
        }
        self.mode = Mode::Seeking { may_start: false, framed };
    }

    /// Looks whether the bytes at the beginning of a read or write are those of an encrypted session that is older than the agent.
    fn seek_tls(&mut self, direction: Direction, bytes: &[u8], out: &mut Vec<Event>) {
        if !handshake::is_tls_data(bytes) {
            return;
        }
        match direction {
            Direction::Request => self.tls_data.0 = true,
            Direction::Response => self.tls_data.1 = true,
        }
        if self.tls_data == (true, true) {
            self.info.encrypted = true;
            self.mode = Mode::Handshake(Box::new(Handshake::encrypted()));
            self.report_encrypted(out);
        }
    }

    fn forget_names(&mut self) {
        self.session.prepared = Default::default();
    }
}

impl Machine for Postgres {
    fn data(&mut self, direction: Direction, at: Timestamp, bytes: &[u8], true_len: usize, out: &mut Vec<Event>) {
        let missing = true_len.saturating_sub(bytes.len());
        let new_run = self.run.replace((direction, at)) != Some((direction, at));
        match direction {
            Direction::Request => self.request(at, bytes, missing, new_run, out),
            Direction::Response => {
                if new_run {
                    self.tail.clear();
                }
                self.tail.push(bytes);
                if missing > 0 {
                    self.tail.clear();
                }
                self.response(at, bytes, missing, out);
            }
        }
        if new_run && matches!(self.mode, Mode::Seeking { .. }) {
            self.seek_tls(direction, bytes, out);
        }
    }

    fn gap(&mut self, _at: Timestamp, out: &mut Vec<Event>) {
        self.run = None;
        self.tail.clear();
        match &self.mode {
            Mode::Opaque(_) => return,
            Mode::Handshake(handshake) if handshake.ciphertext => return,
            Mode::Handshake(handshake) if handshake.began.is_none() => {}
            Mode::Handshake(_) | Mode::Following { .. } => self.lose(false, out),
            Mode::Seeking { .. } => self.forget_names(),
        }
        self.mode = Mode::Seeking { may_start: true, framed: false };
    }

    fn close(&mut self, at: Timestamp, out: &mut Vec<Event>) {
        match &self.mode {
            Mode::Handshake(handshake) => {
                if let Some(began) = handshake.began
                    && !handshake.cancels
                    && !handshake.ciphertext
                {
                    self.session.start(began, handshake.bytes_in, handshake.bytes_out);
                    self.session.proven = true;
                    self.session.close(at);
                }
            }
            Mode::Following { .. } => self.session.close(at),
            Mode::Seeking { .. } | Mode::Opaque(_) => {}
        }
        self.emit(out);
        // Whose session it was remains readable.
        *self = Postgres { info: std::mem::take(&mut self.info), ..Postgres::default() };
    }

    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn state(&self) -> SessionState {
        match &self.mode {
            Mode::Handshake(handshake) if handshake.ciphertext => {
                SessionState::Opaque(handshake.encryption.unwrap_or("tls"))
            }
            Mode::Handshake(handshake) if handshake.began.is_some() => SessionState::Starting,
            Mode::Handshake(_) => SessionState::Unknown,
            Mode::Following { .. } => self.session.state(),
            Mode::Seeking { .. } => Status::session_state(self.tail.ready()),
            Mode::Opaque(why) => SessionState::Opaque(why),
        }
    }
}
