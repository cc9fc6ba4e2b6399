//! A session whose place in the stream is known: requests queue up, replies come in the same order.
//!
//! Rules: PostgreSQL documentation, "Message Flow"; `PostgresMain` in backend/tcop/postgres.c. Names are resolved when the reply comes,
//! not when the request does, because an error in between makes the server skip what defined them.

use std::{collections::VecDeque, mem};

use smallvec::SmallVec;

use super::{
    backend::{self, Copy},
    framing::{Frame, Lost},
    frontend::{self, Name, Target},
    lexer,
    prepared::{Fetched, Portal, Prepared, text_len},
    request::{Query, Request, Step},
};
use crate::model::{Code, Kind, SessionInfo, SessionState, Statement, Status, Text, Timestamp};

/// Most requests without a reply. The server reads 8 KiB and answers all of it before it reads on, so a real pipeline stays far below.
const MAX_QUEUE: usize = 8192;

/// Most bytes of text that requests without a reply may hold; beyond it they are timed without text.
const MAX_QUEUED_TEXT: usize = 1024 * 1024;

/// Most statements that wait for a proof or for the end of their `Query`.
const MAX_DONE: usize = 1024;

/// How far an `Execute` looks back for the `Parse` that it uses.
const MAX_LOOK_BACK: usize = 64;

/// A queue or list that grew beyond this gives its memory back when it is empty.
const KEEP_CAPACITY: usize = 16;

/// What is known so far of the reply to the statement at the front.
#[derive(Debug, Default)]
struct Reply {
    first_byte: Option<Timestamp>,
    bytes_in: u64,
    bytes_out: u64,
    /// `DataRow` messages.
    rows: u64,
    copy: Option<Copy>,
    estimated: bool,
}

/// How a statement ended.
struct End {
    at: Timestamp,
    status: Status,
    code: Option<Code>,
    rows: backend::Rows,
}

impl End {
    fn ok(at: Timestamp) -> End {
        End { at, status: Status::Ok, code: None, rows: backend::Rows::default() }
    }

    fn error(at: Timestamp, code: Option<Code>) -> End {
        End { at, status: Status::Error, code, rows: backend::Rows::default() }
    }

    fn incomplete(at: Timestamp) -> End {
        End { at, status: Status::Incomplete, code: None, rows: backend::Rows::default() }
    }
}

/// Why a message does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The place in the stream is wrong.
    Lost,
    /// A bound was reached.
    Overflow,
    /// A replication stream begins.
    Replication,
}

impl From<Lost> for Fault {
    fn from(_: Lost) -> Fault {
        Fault::Lost
    }
}

/// Requests, replies and what they leave behind.
#[derive(Debug, Default)]
pub(super) struct Session {
    queue: VecDeque<Request>,
    queued_text: usize,
    reply: Reply,
    /// Statements that ended; `settled` of them cannot change any more.
    done: SmallVec<[Statement; 1]>,
    settled: usize,
    /// After an error the server skips requests until `Sync`.
    skipping: bool,
    /// The server reads COPY data, and ignores `Sync` and `Flush`.
    copy_in: bool,
    /// Status byte of the latest `Z`.
    transaction: Option<u8>,
    last_end: Option<Timestamp>,
    texts_dropped: usize,
    /// The place in the stream is beyond doubt; until then anything unusual means that it is wrong.
    pub(super) proven: bool,
    /// What names stand for.
    pub(super) prepared: Prepared,
}

impl Session {
    /// The session begins with a start-up packet.
    pub(super) fn start(&mut self, began: Timestamp, bytes_in: u64, bytes_out: u64) {
        self.reply.bytes_out = bytes_out;
        self.queue.push_back(Request { arrived: began, bytes: bytes_in, step: Step::Startup });
    }

    /// Takes a message of the client's.
    pub(super) fn request(&mut self, frame: &Frame<'_>, at: Timestamp) -> Result<(), Fault> {
        let step = match frame.kind {
            b'p' => {
                self.count_in(frame);
                return Ok(());
            }
            b'S' | b'H' if self.copy_in => {
                self.count_in(frame);
                return Ok(());
            }
            b'S' => {
                self.skipping = false;
                Step::Sync
            }
            // COPY data, also when the server has not yet asked for them or no longer wants them.
            b'd' | b'c' | b'f' => {
                if !self.proven && !self.copy_in {
                    return Err(Fault::Lost);
                }
                let wanted = frame.kind == b'd' || mem::take(&mut self.copy_in);
                if wanted || self.skipping || self.queue.is_empty() {
                    self.count_in(frame);
                    return Ok(());
                }
                Step::CopyEnd
            }
            b'X' => return Ok(()),
            _ if self.skipping => return Ok(()),
            b'H' if matches!(self.queue.back(), None | Some(Request { step: Step::Flush, .. })) => return Ok(()),
            b'H' => Step::Flush,
            b'Q' => {
                let text = frontend::query(frame);
                Step::Query(Box::new(Query::new(self.bounded(text))))
            }
            b'P' => match frontend::parse(frame) {
                Some((name, text)) => Step::Parse { name, text: self.bounded(text), used: false },
                None => return Err(Fault::Lost),
            },
            b'B' => {
                let (portal, statement) = frontend::bind(frame).ok_or(Fault::Lost)?;
                Step::Bind { portal, statement }
            }
            b'E' => {
                let portal = frontend::execute(frame).ok_or(Fault::Lost)?;
                self.mark_used(&portal);
                Step::Execute { portal }
            }
            b'D' | b'C' => {
                let (target, name) = frontend::target(frame).ok_or(Fault::Lost)?;
                if frame.kind == b'D' { Step::Describe { target, name } } else { Step::Close { target, name } }
            }
            b'F' => Step::Function { answered: false },
            _ => return Err(Fault::Lost),
        };
        if self.queue.len() >= MAX_QUEUE {
            return Err(Fault::Overflow);
        }
        self.queue.push_back(Request { arrived: at, bytes: frame.size(), step });
        Ok(())
    }

    /// A run of COPY data from the client.
    pub(super) fn copy_data(&mut self, bytes: u64) -> Result<(), Fault> {
        if !self.proven && !self.copy_in {
            return Err(Fault::Lost);
        }
        if !self.queue.is_empty() {
            self.reply.bytes_in += bytes;
        }
        Ok(())
    }

    fn count_in(&mut self, frame: &Frame<'_>) {
        if !self.queue.is_empty() {
            self.reply.bytes_in += frame.size();
        }
    }

    /// `text`, unless the queue holds too much already.
    fn bounded(&mut self, text: Text) -> Text {
        let len = text_len(&text);
        if self.queued_text + len > MAX_QUEUED_TEXT {
            self.texts_dropped += 1;
            return Text::Unknown;
        }
        self.queued_text += len;
        text
    }

    /// An `Execute` of `portal` follows: the `Parse` that its `Bind` names, in the same unit, is part of it.
    fn mark_used(&mut self, portal: &[u8]) {
        let mut wanted: Option<Name> = None;
        for request in self.queue.iter_mut().rev().take(MAX_LOOK_BACK) {
            match &mut request.step {
                Step::Sync | Step::Flush | Step::Query(_) => return,
                Step::Bind { portal: bound, statement } if wanted.is_none() && bound.as_slice() == portal => {
                    wanted = Some(statement.clone());
                }
                Step::Parse { name, used, .. } if wanted.as_ref() == Some(name) => {
                    *used = true;
                    return;
                }
                _ => {}
            }
        }
    }

    /// Whether the requests so far are complete units that the server will answer by itself.
    pub(super) fn ends_unit(&self) -> bool {
        self.queue.back().is_some_and(|request| {
            matches!(request.step, Step::Query(_) | Step::Sync | Step::Flush | Step::Function { .. })
        })
    }

    /// A run of `count` result rows.
    pub(super) fn rows(&mut self, count: u64, bytes: u64, at: Timestamp) -> Result<(), Fault> {
        if !self.expects_rows() {
            return Err(Fault::Lost);
        }
        self.begin(at);
        self.reply.rows += count;
        self.reply.bytes_out += bytes;
        Ok(())
    }

    /// A run of COPY data to the client.
    pub(super) fn copy_out(&mut self, bytes: u64) -> Result<(), Fault> {
        if self.reply.copy != Some(Copy::Out) {
            return Err(Fault::Lost);
        }
        self.reply.bytes_out += bytes;
        Ok(())
    }

    fn expects_rows(&self) -> bool {
        match self.front() {
            Some(Step::Query(query)) => !query.failed,
            Some(Step::Execute { .. }) => true,
            _ => false,
        }
    }

    fn front(&self) -> Option<&Step> {
        self.queue.front().map(|request| &request.step)
    }

    /// Takes a message of the server's. Returns whether it was a `Z` that fits: the proof that requests and replies are in step.
    pub(super) fn reply(&mut self, frame: &Frame<'_>, at: Timestamp, info: &mut SessionInfo) -> Result<bool, Fault> {
        match (frame.kind, self.front()) {
            (b'N' | b'A', _) => self.aside(frame),
            (b'S', _) => {
                self.aside(frame);
                parameter(&frame.body, info);
            }
            (b'R' | b'K' | b'v', Some(Step::Startup)) => self.main(frame),
            (b'Z', _) => return self.ready(frame, at).map(|()| true),
            (b'E', _) => self.error(frame, at)?,
            (b'1', Some(Step::Parse { .. })) => self.parsed(frame, at),
            (b'2', Some(Step::Bind { .. })) => {
                self.main(frame);
                let request = self.pop();
                if let Some(Request { bytes, step: Step::Bind { portal, statement }, .. }) = request {
                    self.reply.bytes_in += bytes;
                    let replaced = self.prepared.bind(portal, &statement);
                    self.close_portals(replaced);
                }
            }
            (b'3', Some(Step::Close { .. })) => {
                self.side(frame);
                let request = self.pop();
                if let Some(Request { bytes, step: Step::Close { target, name }, .. }) = request {
                    self.side_in(bytes);
                    match target {
                        Target::Statement => self.prepared.forget_statement(&name),
                        Target::Portal => {
                            let closed = self.prepared.take_portal(&name);
                            self.close_portals(closed);
                        }
                    }
                }
            }
            (b't', Some(Step::Describe { target: Target::Statement, .. })) => self.side(frame),
            (b'T' | b'n', Some(Step::Describe { .. })) => {
                self.side(frame);
                let bytes = self.pop().map_or(0, |request| request.bytes);
                self.side_in(bytes);
            }
            (b'T', Some(Step::Query(query))) if !query.failed => self.main(frame),
            (b'D', _) => self.rows(1, frame.size(), frame.began)?,
            (b'C' | b'I' | b's' | b'G' | b'H' | b'W', Some(Step::Query(_) | Step::Execute { .. })) => {
                if !self.expects_rows() {
                    return Err(Fault::Lost);
                }
                self.main(frame);
                match frame.kind {
                    b'C' => self.completed(&frame.body, at)?,
                    b'I' => self.completed(b"", at)?,
                    b's' => self.suspended(at)?,
                    b'G' => self.begin_copy_in()?,
                    b'H' => self.reply.copy = Some(Copy::Out),
                    _ => return Err(Fault::Replication),
                }
            }
            (b'd', _) => self.copy_out(frame.size())?,
            (b'c', _) if self.reply.copy == Some(Copy::Out) => self.reply.bytes_out += frame.size(),
            (b'V', Some(Step::Function { answered: false })) => {
                self.main(frame);
                self.function_ended(End::ok(at));
            }
            (b'W', None) => return Err(Fault::Replication),
            _ => return Err(Fault::Lost),
        }
        if self.done.len() > MAX_DONE.max(lexer::MAX_PIECES) {
            return Err(Fault::Overflow);
        }
        self.idle_if_empty();
        Ok(false)
    }

    /// A message that belongs to the statement at the front.
    fn main(&mut self, frame: &Frame<'_>) {
        self.begin(frame.began);
        self.reply.bytes_out += frame.size();
    }

    /// A message that belongs to the statement before it, if there is one, else to the one that comes.
    fn side(&mut self, frame: &Frame<'_>) {
        match self.done[self.settled..].last_mut() {
            Some(last) => last.bytes_out += frame.size(),
            None => self.main(frame),
        }
    }

    fn side_in(&mut self, bytes: u64) {
        match self.done[self.settled..].last_mut() {
            Some(last) => last.bytes_in += bytes,
            None => self.reply.bytes_in += bytes,
        }
    }

    /// A message that may come any time.
    fn aside(&mut self, frame: &Frame<'_>) {
        if !self.queue.is_empty() {
            self.side(frame);
        }
    }

    /// The reply to the statement at the front begins, if it has not yet.
    fn begin(&mut self, began: Timestamp) {
        if self.reply.first_byte.is_some() {
            return;
        }
        self.reply.first_byte = Some(began);
        // In one write with the end of the one before: where that ended is not known.
        if self.last_end == Some(began) {
            self.reply.estimated = true;
            if let Some(last) = self.done[self.settled..].last_mut()
                && last.end == began
            {
                last.estimated = true;
            }
        }
        let undecided =
            matches!(self.front(), Some(Step::Query(query)) if query.pieces.is_some() && query.completions > 0);
        if !undecided {
            self.settled = self.done.len();
        }
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.queue.pop_front();
        match &request {
            Some(Request { step: Step::Parse { text, .. }, .. }) => self.queued_text -= text_len(text),
            Some(Request { step: Step::Query(query), .. }) => self.queued_text -= text_len(&query.text),
            _ => {}
        }
        while let Some(Step::Flush | Step::CopyEnd) = self.front() {
            let bytes = self.queue.pop_front().map_or(0, |request| request.bytes);
            self.side_in(bytes);
        }
        request
    }

    fn idle_if_empty(&mut self) {
        if self.queue.is_empty() {
            self.settled = self.done.len();
            self.reply = Reply::default();
            if self.queue.capacity() > KEEP_CAPACITY {
                self.queue = VecDeque::new();
            }
        }
    }

    /// The statement at the front ended. `bytes_in` are those of its last request.
    fn finish(&mut self, kind: Kind, text: Text, arrived: Timestamp, bytes_in: u64, end: End) {
        let statement = self.ended(kind, text, arrived, bytes_in, end);
        self.done.push(statement);
    }

    fn ended(&mut self, kind: Kind, text: Text, arrived: Timestamp, bytes_in: u64, end: End) -> Statement {
        let reply = mem::take(&mut self.reply);
        let start = self.last_end.map_or(arrived, |last| arrived.max(last));
        self.last_end = Some(end.at);
        self.copy_in = false;
        Statement {
            kind: if reply.copy.is_some() { Kind::Copy } else { kind },
            text,
            start,
            first_byte: reply.first_byte.map(|first| first.max(start)),
            end: end.at,
            rows_sent: end.rows.sent,
            rows_affected: end.rows.affected,
            bytes_in: reply.bytes_in + bytes_in,
            bytes_out: reply.bytes_out,
            status: end.status,
            code: end.code,
            estimated: reply.estimated,
        }
    }

    fn parsed(&mut self, frame: &Frame<'_>, at: Timestamp) {
        self.main(frame);
        let request = self.pop();
        let Some(Request { arrived, bytes, step: Step::Parse { name, text, used } }) = request else { return };
        self.prepared.define(name, text.clone());
        if used {
            self.reply.bytes_in += bytes;
        } else {
            self.finish(Kind::Prepare, text, arrived, bytes, End::ok(at));
        }
    }

    /// `C` or `I`: a statement of a `Query` or an `Execute` ended.
    fn completed(&mut self, tag: &[u8], at: Timestamp) -> Result<(), Fault> {
        let tag = backend::tag(tag);
        let rows = backend::rows(tag, self.reply.rows, self.reply.copy);
        self.forget_by_tag(tag);
        let end = End { rows, ..End::ok(at) };
        match self.front() {
            Some(Step::Query(query)) => {
                let expected = query.pieces.as_ref().map_or(1, |pieces| pieces.len());
                if !self.proven && query.completions == expected {
                    return Err(Fault::Lost);
                }
                self.query_ended(end);
            }
            _ => self.execute_ended(end),
        }
        Ok(())
    }

    /// Commands of SQL that change what names of prepared statements stand for.
    fn forget_by_tag(&mut self, tag: &[u8]) {
        if !matches!(tag, b"DEALLOCATE" | b"PREPARE" | b"DEALLOCATE ALL" | b"DISCARD ALL") {
            return;
        }
        let of_portal;
        let text = match self.queue.front().map(|request| &request.step) {
            Some(Step::Query(query)) => query.current(),
            Some(Step::Execute { portal }) => {
                of_portal = self.prepared.portal_text(portal);
                match &of_portal {
                    Text::Known(text) if !text.truncated() => Some(text.raw()),
                    _ => None,
                }
            }
            _ => None,
        };
        match text.filter(|_| !tag.ends_with(b"ALL")).and_then(lexer::prepared_name) {
            Some(name) => self.prepared.forget_statement(&name),
            None => self.prepared.forget_named(),
        }
    }

    fn query_ended(&mut self, end: End) {
        let Some(Request { arrived, bytes, step: Step::Query(query) }) = self.queue.front_mut() else { return };
        // The request's bytes count once; `hand_out` divides them.
        let bytes = if query.completions == 0 { *bytes } else { 0 };
        query.completions += 1;
        query.failed = end.status == Status::Error;
        let (text, arrived) = (query.text.clone(), *arrived);
        if query.pieces.as_ref().is_some_and(|pieces| query.completions > pieces.len()) {
            // The pieces are not what the server saw.
            query.pieces = None;
        }
        self.finish(Kind::Simple, text, arrived, bytes, end);
    }

    fn execute_ended(&mut self, end: End) {
        let request = self.pop();
        let Some(Request { arrived, bytes, step: Step::Execute { portal } }) = request else { return };
        let (text, fetched) = match self.prepared.portal(&portal) {
            Some(portal) => (portal.text.clone(), portal.fetched.take()),
            None => (Text::Unknown, None),
        };
        self.finish(Kind::Execute, text, arrived, bytes, end);
        if let (Some(fetched), Some(last)) = (fetched, self.done.last_mut()) {
            fetched.add_to(last);
        }
    }

    /// `s`: the portal has more rows; the client asks for them or not.
    fn suspended(&mut self, at: Timestamp) -> Result<(), Fault> {
        let request = self.pop();
        let Some(Request { arrived, bytes, step: Step::Execute { portal } }) = request else { return Err(Fault::Lost) };
        let rows = backend::Rows { sent: Some(self.reply.rows), affected: None };
        let mut statement = self.ended(Kind::Execute, Text::Unknown, arrived, bytes, End { rows, ..End::ok(at) });
        match self.prepared.portal(&portal) {
            Some(portal) => {
                if let Some(before) = portal.fetched.take() {
                    before.add_to(&mut statement);
                }
                portal.fetched = Some(Box::new(Fetched::of(&statement)));
            }
            // Bound before the agent came or forgotten at a bound: each fetch counts by itself.
            None => self.done.push(statement),
        }
        Ok(())
    }

    /// Portals that are gone: a suspended execution among them ended with its latest fetch.
    fn close_portals(&mut self, portals: impl IntoIterator<Item = Portal>) {
        for portal in portals {
            if let Some(fetched) = portal.fetched {
                self.done.push(fetched.statement(portal.text));
            }
        }
    }

    /// `G`: from now on the server reads COPY data. What was sent behind the command and before the data's end, it ignores.
    fn begin_copy_in(&mut self) -> Result<(), Fault> {
        self.reply.copy = Some(Copy::In);
        let behind = |request: &Request| matches!(request.step, Step::Sync | Step::Flush);
        let ignored = self.queue.iter().skip(1).take_while(|request| behind(request)).count();
        self.copy_in = true;
        let mut end = 1 + ignored;
        match self.queue.get(end).map(|request| &request.step) {
            None => {}
            Some(Step::CopyEnd) => (self.copy_in, end) = (false, end + 1),
            Some(_) => return Err(Fault::Lost),
        }
        let bytes: u64 = self.queue.drain(1..end).map(|request| request.bytes).sum();
        self.reply.bytes_in += bytes;
        Ok(())
    }

    fn function_ended(&mut self, end: End) {
        let Some(Request { arrived, bytes, step: Step::Function { answered } }) = self.queue.front_mut() else {
            return;
        };
        *answered = true;
        let (arrived, bytes) = (*arrived, *bytes);
        self.finish(Kind::Utility, Text::None, arrived, bytes, end);
    }

    /// `E`.
    fn error(&mut self, frame: &Frame<'_>, at: Timestamp) -> Result<(), Fault> {
        let code = backend::sqlstate(&frame.body);
        let end = End::error(at, code);
        let describes = matches!(self.front(), Some(Step::Describe { .. }));
        match self.front() {
            // Not the answer to anything: the server ends the connection.
            None => {}
            Some(Step::Startup) => {
                self.main(frame);
                let (arrived, bytes) = self.pop().map_or((at, 0), |request| (request.arrived, request.bytes));
                self.finish(Kind::Connect, Text::None, arrived, bytes, end);
                self.clear_queue();
            }
            Some(Step::Query(query)) if query.failed => return Err(Fault::Lost),
            Some(Step::Query(_)) => {
                self.main(frame);
                self.query_ended(end);
            }
            Some(Step::Function { answered: true }) => return Err(Fault::Lost),
            Some(Step::Function { answered: false }) => {
                self.main(frame);
                self.function_ended(end);
            }
            Some(Step::Sync) => self.commit_failed(frame, end),
            Some(_) => {
                // What was prepared may not be describable, e.g. because the transaction has failed.
                if !self.fail_last(frame, at, code, |last| describes && last.kind == Kind::Prepare) {
                    self.main(frame);
                    self.unit_ended(end);
                }
                self.skip_to_sync();
            }
        }
        Ok(())
    }

    /// `Sync` ends the implicit transaction: what failed is the commit, and with it what the unit did last.
    fn commit_failed(&mut self, frame: &Frame<'_>, end: End) {
        if !self.fail_last(frame, end.at, end.code, |_| true) {
            self.main(frame);
            let arrived = self.queue.front().map_or(end.at, |request| request.arrived);
            self.finish(Kind::Utility, Text::None, arrived, 0, end);
        }
    }

    /// The error belongs to the statement that seemed to have ended, if there is one that `fits`.
    fn fail_last(
        &mut self,
        frame: &Frame<'_>,
        at: Timestamp,
        code: Option<Code>,
        fits: impl FnOnce(&Statement) -> bool,
    ) -> bool {
        let Some(last) = self.done[self.settled..].last_mut() else { return false };
        if last.status != Status::Ok || !fits(last) {
            return false;
        }
        (last.status, last.code, last.end) = (Status::Error, code, at);
        last.rows_affected = None;
        last.bytes_out += frame.size();
        self.last_end = Some(at);
        true
    }

    /// The request at the front, one of a unit, ended the unit before its time: by an error, or with the connection.
    fn unit_ended(&mut self, end: End) {
        let unit = || self.queue.iter().take_while(|request| !matches!(request.step, Step::Sync | Step::Query(_)));
        let run = unit().position(|request| matches!(request.step, Step::Execute { .. }));
        let bytes = unit().take(run.unwrap_or(0) + 1).map(|request| request.bytes).sum();
        let Some(front) = self.queue.front() else { return };
        let (kind, text) = match &front.step {
            Step::Execute { .. } => return self.execute_ended(end),
            Step::Parse { text, used, .. } => (if *used { Kind::Execute } else { Kind::Prepare }, text.clone()),
            Step::Bind { statement, .. } => (Kind::Execute, self.prepared.statement(statement)),
            Step::Describe { target, name } | Step::Close { target, name } => {
                let kind = if run.is_some() { Kind::Execute } else { Kind::Utility };
                (kind, self.prepared.text(*target, name))
            }
            _ => return,
        };
        self.finish(kind, text, front.arrived, bytes, end);
    }

    /// After an error the server skips everything until `Sync`.
    fn skip_to_sync(&mut self) {
        self.copy_in = false;
        self.skipping = true;
        while let Some(step) = self.front() {
            if matches!(step, Step::Sync) {
                self.skipping = false;
                return;
            }
            self.pop();
        }
    }

    /// `Z`: the server has answered everything up to here.
    fn ready(&mut self, frame: &Frame<'_>, at: Timestamp) -> Result<(), Fault> {
        let Some(status @ (b'I' | b'T' | b'E')) = frame.body.first() else { return Err(Fault::Lost) };
        self.aside(frame);
        match self.queue.front().map(|request| &request.step) {
            // It had not read the `Sync` behind a COPY that failed before it asked for data.
            None if self.skipping => self.skipping = false,
            Some(Step::Startup) => {
                let (arrived, bytes) = self.pop().map_or((at, 0), |request| (request.arrived, request.bytes));
                self.finish(Kind::Connect, Text::None, arrived, bytes, End::ok(at));
            }
            Some(Step::Query(query)) if query.completions > 0 => {
                query.hand_out(&mut self.done[self.settled..]);
                self.pop();
                // `exec_simple_query` drops the unnamed statement; the unnamed portal goes with its transaction or here.
                self.prepared.forget_statement(b"");
                let unnamed = self.prepared.take_portal(b"");
                self.close_portals(unnamed);
            }
            Some(Step::Function { answered: true }) => drop(self.pop()),
            Some(Step::Sync) => {
                let bytes = self.pop().map_or(0, |request| request.bytes);
                self.side_in(bytes);
            }
            _ => return Err(Fault::Lost),
        }
        self.transaction = Some(*status);
        if *status == b'I' {
            let portals = self.prepared.take_portals();
            self.close_portals(portals);
        }
        self.settled = self.done.len();
        self.reply = Reply::default();
        self.last_end = Some(at);
        self.idle_if_empty();
        Ok(())
    }

    /// The connection ended: what the server was doing remains incomplete. What waited behind it never began.
    pub(super) fn close(&mut self, at: Timestamp) {
        let end = End::incomplete(at);
        match self.front() {
            Some(Step::Startup) => {
                let (arrived, bytes) = self.pop().map_or((at, 0), |request| (request.arrived, request.bytes));
                self.finish(Kind::Connect, Text::None, arrived, bytes, end);
            }
            Some(Step::Query(query)) => {
                let runs = match &query.pieces {
                    Some(pieces) => query.completions < pieces.len(),
                    None => query.completions == 0,
                };
                if runs && !query.failed {
                    self.query_ended(end);
                }
                if let Some(Step::Query(query)) = self.queue.front_mut().map(|request| &mut request.step) {
                    query.failed = true;
                    query.hand_out(&mut self.done[self.settled..]);
                }
            }
            Some(Step::Function { answered: false }) => self.function_ended(end),
            Some(Step::Sync | Step::Function { .. }) | None => {}
            Some(_) => self.unit_ended(end),
        }
        self.clear_queue();
        let portals = self.prepared.take_portals();
        self.close_portals(portals);
        self.settled = self.done.len();
    }

    /// The place in the stream is lost: forgets what awaits a reply, keeps what is done.
    pub(super) fn lose(&mut self) {
        for request in mem::take(&mut self.queue) {
            self.prepared_uncertain(&request.step);
        }
        self.clear_queue();
        let portals: Vec<Portal> = self.prepared.take_portals().collect();
        if !portals.iter().all(|portal| keeps_names(&portal.text)) {
            self.prepared.forget_named();
        }
        self.close_portals(portals);
        self.settled = self.done.len();
        (self.transaction, self.last_end) = (None, None);
    }

    /// A request whose reply will not be seen: what it may have changed is no longer known.
    fn prepared_uncertain(&mut self, step: &Step) {
        match step {
            Step::Parse { name, .. } | Step::Close { target: Target::Statement, name } => {
                self.prepared.forget_statement(name);
            }
            Step::Query(query) => {
                self.prepared.forget_statement(b"");
                if !keeps_names(&query.text) {
                    self.prepared.forget_named();
                }
            }
            // It may run a DEALLOCATE.
            Step::Bind { statement, .. } if !keeps_names(&self.prepared.statement(statement)) => {
                self.prepared.forget_named();
            }
            _ => {}
        }
    }

    /// Follows a request while the replies are lost.
    pub(super) fn request_unanswered(&mut self, frame: &Frame<'_>) -> Result<(), Lost> {
        let step = match frame.kind {
            b'Q' => Step::Query(Box::new(Query {
                text: frontend::query(frame),
                pieces: None,
                completions: 0,
                failed: false,
            })),
            b'P' => {
                let (name, text) = frontend::parse(frame).ok_or(Lost)?;
                Step::Parse { name, text, used: false }
            }
            b'B' => {
                let (portal, statement) = frontend::bind(frame).ok_or(Lost)?;
                Step::Bind { portal, statement }
            }
            b'C' => {
                let (target, name) = frontend::target(frame).ok_or(Lost)?;
                Step::Close { target, name }
            }
            _ => return Ok(()),
        };
        self.prepared_uncertain(&step);
        Ok(())
    }

    /// Forgets statements that were never proven.
    pub(super) fn drop_done(&mut self) {
        self.done.clear();
        self.settled = 0;
    }

    fn clear_queue(&mut self) {
        self.queue = VecDeque::new();
        self.queued_text = 0;
        self.reply = Reply::default();
        (self.skipping, self.copy_in) = (false, false);
    }

    /// Hands over the statements that cannot change any more.
    pub(super) fn settled(&mut self, take: impl FnMut(Statement)) {
        self.done.drain(..mem::take(&mut self.settled)).for_each(take);
        if self.done.is_empty() && self.done.capacity() > KEEP_CAPACITY {
            self.done = SmallVec::new();
        }
    }

    /// How many names and texts were forgotten at a bound since the last call.
    pub(super) fn evicted(&mut self) -> usize {
        mem::take(&mut self.texts_dropped) + mem::take(&mut self.prepared.evicted)
    }

    /// What the session does.
    pub(super) fn state(&self) -> SessionState {
        match self.front() {
            Some(Step::Startup) => SessionState::Starting,
            Some(_) => SessionState::Active,
            None => transaction_state(self.transaction),
        }
    }
}

/// What a session does that has nothing to answer, by the status byte of its latest `Z`.
pub(super) fn transaction_state(status: Option<u8>) -> SessionState {
    match status {
        Some(b'I') => SessionState::Idle,
        Some(b'T') => SessionState::IdleInTransaction,
        Some(b'E') => SessionState::IdleInFailedTransaction,
        _ => SessionState::Unknown,
    }
}

/// Whether `text` certainly leaves alone what names of prepared statements stand for.
fn keeps_names(text: &Text) -> bool {
    let Text::Known(text) = text else { return false };
    let holds = |word: &[u8]| text.raw().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
    !text.truncated() && !holds(b"DEALLOCATE") && !holds(b"DISCARD") && !holds(b"PREPARE")
}

fn parameter(body: &[u8], info: &mut SessionInfo) {
    let Some((name, value)) = backend::parameter(body) else { return };
    let place = match name {
        b"server_version" => &mut info.server_version,
        b"application_name" => &mut info.application,
        b"session_authorization" => &mut info.user,
        _ => return,
    };
    *place = Some(super::handshake::lossy(value).into());
}
