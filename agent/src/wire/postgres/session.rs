//! A session whose place in the stream is known: requests queue up, replies come in the same order.
//!
//! Rules: PostgreSQL documentation, "Message Flow"; `PostgresMain` in backend/tcop/postgres.c. Names are resolved when the reply comes,
//! not when the request does, because an error in between makes the server skip what defined them.

use std::{collections::VecDeque, mem};

use super::{
    backend::{self, Copy, Rows},
    ended::Ended,
    framing::{Frame, Lost},
    frontend::Target,
    lexer,
    prepared::{self, Fetched, Portal, Prepared},
    queue::{Fault, Queue},
    reply::{End, Reply},
    request::{Request, Step},
    transaction::{self, Blocks},
};
use crate::model::{Kind, SessionInfo, SessionState, Statement, Status, Text, Timestamp, Transaction};

/// Most statements that wait for a proof or for the end of their `Query`.
const MAX_ENDED: usize = 1024;

/// Requests, replies and what they leave behind.
#[derive(Debug, Default)]
pub(super) struct Session {
    queue: Queue,
    reply: Reply,
    ended: Ended,
    blocks: Blocks,
    last_end: Option<Timestamp>,
    /// The place in the stream is beyond doubt; until then anything unusual means that it is wrong.
    pub(super) proven: bool,
    /// What names stand for.
    pub(super) prepared: Prepared,
}

impl Session {
    /// The session begins with a start-up packet.
    pub(super) fn start(&mut self, began: Timestamp, bytes_in: u64, bytes_out: u64) {
        self.reply.bytes_out = bytes_out;
        self.queue.start(began, bytes_in);
    }

    /// Takes a message of the client's.
    pub(super) fn request(&mut self, frame: &Frame<'_>, at: Timestamp) -> Result<(), Fault> {
        let waits = self.queue.is_empty();
        let bytes = self.queue.take(frame, at, self.proven)?;
        if self.queue.is_empty() {
            return Ok(());
        }
        self.reply.bytes_in += bytes;
        if waits {
            self.blocks.requested(at);
        }
        Ok(())
    }

    /// A run of COPY data from the client.
    pub(super) fn copy_data(&mut self, bytes: u64) -> Result<(), Fault> {
        self.queue.expect_copy_data(self.proven)?;
        if !self.queue.is_empty() {
            self.reply.bytes_in += bytes;
        }
        Ok(())
    }

    /// Whether the requests so far are complete units that the server will answer by itself.
    pub(super) fn ends_unit(&self) -> bool {
        self.queue.ends_unit()
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
        match self.queue.step() {
            Some(Step::Query(query)) => !query.failed,
            Some(Step::Execute { .. }) => true,
            _ => false,
        }
    }

    /// Takes a message of the server's. Returns whether it was a `Z` that fits: the proof that requests and replies are in step.
    pub(super) fn reply(&mut self, frame: &Frame<'_>, at: Timestamp, info: &mut SessionInfo) -> Result<bool, Fault> {
        match (frame.kind, self.queue.step()) {
            (b'N' | b'A', _) => self.aside(frame),
            (b'S', _) => {
                self.aside(frame);
                parameter(&frame.body, info);
            }
            (b'R' | b'K' | b'v', Some(Step::Startup)) => self.main(frame),
            (b'Z', _) => return self.ready(frame, at).map(|()| true),
            (b'E', _) => self.error(frame, at)?,
            (b'1', Some(Step::Parse { .. })) => self.parsed(frame, at),
            (b'2', Some(Step::Bind { .. })) => self.bound(frame),
            (b'3', Some(Step::Close { .. })) => self.closed(frame),
            (b't', Some(Step::Describe { target: Target::Statement, .. })) => self.side(frame),
            (b'T' | b'n', Some(Step::Describe { .. })) => {
                self.side(frame);
                let bytes = self.front_bytes();
                self.advance();
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
        if self.ended.len() > MAX_ENDED.max(lexer::MAX_PIECES) {
            return Err(Fault::Overflow);
        }
        self.idle_if_empty(at);
        Ok(false)
    }

    /// A message that belongs to the statement at the front.
    fn main(&mut self, frame: &Frame<'_>) {
        self.begin(frame.began);
        self.reply.bytes_out += frame.size();
    }

    /// A message that belongs to the statement before it, if there is one, else to the one that comes.
    fn side(&mut self, frame: &Frame<'_>) {
        match self.ended.last_open() {
            Some(last) => last.bytes_out += frame.size(),
            None => self.main(frame),
        }
    }

    fn side_in(&mut self, bytes: u64) {
        match self.ended.last_open() {
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
            if let Some(last) = self.ended.last_open()
                && last.end == began
            {
                last.estimated = true;
            }
        }
        let undecided =
            matches!(self.queue.step(), Some(Step::Query(query)) if query.pieces.is_some() && query.completions > 0);
        if !undecided {
            self.ended.settle();
        }
    }

    /// The request at the front has been answered.
    fn advance(&mut self) {
        let bytes_behind = self.queue.advance();
        if bytes_behind > 0 {
            self.side_in(bytes_behind);
        }
    }

    fn front_bytes(&self) -> u64 {
        self.queue.front().map_or(0, |request| request.bytes)
    }

    fn idle_if_empty(&mut self, at: Timestamp) {
        if self.queue.is_empty() {
            self.ended.settle();
            self.reply = Reply::default();
            self.blocks.answered(at);
            self.queue.shrink();
        }
    }

    /// The statement at the front ended. `bytes_in` are those of its last request.
    fn finish(&mut self, kind: Kind, text: Text, arrived: Timestamp, bytes_in: u64, end: End) {
        let statement = self.end_reply(kind, text, arrived, bytes_in, end);
        self.push(statement);
    }

    fn push(&mut self, statement: Statement) {
        if statement.kind != Kind::Prepare && statement.status != Status::Incomplete {
            self.blocks.count();
        }
        self.ended.push(statement);
    }

    fn end_reply(&mut self, kind: Kind, text: Text, arrived: Timestamp, bytes_in: u64, end: End) -> Statement {
        let start = self.last_end.map_or(arrived, |last| arrived.max(last));
        self.last_end = Some(end.at);
        self.queue.end_copy_in();
        mem::take(&mut self.reply).statement(kind, text, start, bytes_in, end)
    }

    /// The start-up ended.
    fn started(&mut self, end: End) {
        let (arrived, bytes) = self.queue.front().map_or((end.at, 0), |request| (request.arrived, request.bytes));
        self.advance();
        self.finish(Kind::Connect, Text::None, arrived, bytes, end);
    }

    fn parsed(&mut self, frame: &Frame<'_>, at: Timestamp) {
        self.main(frame);
        let Some(Request { arrived, bytes, step: Step::Parse { name, text, used } }) = self.queue.front_mut() else {
            return;
        };
        let (arrived, bytes, used, text) = (*arrived, *bytes, *used, text.clone());
        self.prepared.define(mem::take(name), text.clone());
        self.advance();
        if used {
            self.reply.bytes_in += bytes;
        } else {
            self.finish(Kind::Prepare, text, arrived, bytes, End::ok(at));
        }
    }

    fn bound(&mut self, frame: &Frame<'_>) {
        self.main(frame);
        let Some(Request { bytes, step: Step::Bind { portal, statement }, .. }) = self.queue.front_mut() else {
            return;
        };
        self.reply.bytes_in += *bytes;
        let replaced = self.prepared.bind(mem::take(portal), statement);
        self.advance();
        self.close_portals(replaced);
    }

    fn closed(&mut self, frame: &Frame<'_>) {
        self.side(frame);
        let Some(Request { bytes, step: Step::Close { target, name }, .. }) = self.queue.front() else { return };
        let bytes = *bytes;
        let portal = match target {
            Target::Statement => {
                self.prepared.forget_statement(name);
                None
            }
            Target::Portal => self.prepared.take_portal(name),
        };
        self.advance();
        self.side_in(bytes);
        self.close_portals(portal);
    }

    /// `C` or `I`: a statement of a `Query` or an `Execute` ended.
    fn completed(&mut self, tag: &[u8], at: Timestamp) -> Result<(), Fault> {
        let tag = backend::tag(tag);
        let end = End::with(backend::rows(tag, self.reply.rows, self.reply.copy), at);
        self.names_change(tag);
        match self.queue.step() {
            Some(Step::Query(query)) => {
                let expected = query.pieces.as_ref().map_or(1, |pieces| pieces.len());
                if !self.proven && query.completions == expected {
                    return Err(Fault::Lost);
                }
                self.query_ended(end);
            }
            _ => self.execute_ended(end),
        }
        self.blocks.completed(tag);
        Ok(())
    }

    /// Commands of SQL may change what names of prepared statements stand for.
    fn names_change(&mut self, tag: &[u8]) {
        if !prepared::changes_names(tag) {
            return;
        }
        match self.queue.step() {
            Some(Step::Query(query)) => self.prepared.command_ended(tag, query.current()),
            Some(Step::Execute { portal }) => match self.prepared.portal_text(portal) {
                Text::Known(text) if !text.truncated() => self.prepared.command_ended(tag, Some(text.raw())),
                _ => self.prepared.command_ended(tag, None),
            },
            _ => {}
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
        let Some(Request { arrived, bytes, step: Step::Execute { portal } }) = self.queue.front() else { return };
        let (arrived, bytes) = (*arrived, *bytes);
        let (text, fetched) = match self.prepared.portal(portal) {
            Some(portal) => (portal.text.clone(), portal.fetched.take()),
            None => (Text::Unknown, None),
        };
        self.advance();
        self.finish(Kind::Execute, text, arrived, bytes, end);
        if let (Some(fetched), Some(last)) = (fetched, self.ended.last()) {
            fetched.add_to(last);
        }
    }

    /// `s`: the portal has more rows; the client asks for them or not.
    fn suspended(&mut self, at: Timestamp) -> Result<(), Fault> {
        let Some(Request { arrived, bytes, step: Step::Execute { portal } }) = self.queue.front_mut() else {
            return Err(Fault::Lost);
        };
        let (arrived, bytes, portal) = (*arrived, *bytes, mem::take(portal));
        self.advance();
        let rows = Rows { sent: Some(self.reply.rows), affected: None };
        let mut statement = self.end_reply(Kind::Execute, Text::Unknown, arrived, bytes, End::with(rows, at));
        match self.prepared.portal(&portal) {
            Some(portal) => {
                if let Some(before) = portal.fetched.take() {
                    before.add_to(&mut statement);
                }
                portal.fetched = Some(Box::new(Fetched::of(&statement)));
            }
            // Bound before the agent came or forgotten at a bound: each fetch counts by itself.
            None => self.push(statement),
        }
        Ok(())
    }

    /// Portals that are gone: a suspended execution among them ended with its latest fetch.
    fn close_portals(&mut self, portals: impl IntoIterator<Item = Portal>) {
        for portal in portals {
            if let Some(fetched) = portal.fetched {
                self.push(fetched.statement(portal.text));
            }
        }
    }

    /// `G`: from now on the server reads COPY data.
    fn begin_copy_in(&mut self) -> Result<(), Fault> {
        self.reply.copy = Some(Copy::In);
        self.reply.bytes_in += self.queue.begin_copy_in()?;
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
        let end = End::error(at, backend::sqlstate(&frame.body));
        self.blocks.failed();
        let describes = matches!(self.queue.step(), Some(Step::Describe { .. }));
        match self.queue.step() {
            // Not the answer to anything: the server ends the connection.
            None => {}
            Some(Step::Startup) => {
                self.main(frame);
                self.started(end);
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
                if !self.fail_last(frame, &end, |last| describes && last.kind == Kind::Prepare) {
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
        if !self.fail_last(frame, &end, |_| true) {
            self.main(frame);
            let arrived = self.queue.front().map_or(end.at, |request| request.arrived);
            self.finish(Kind::Utility, Text::None, arrived, 0, end);
        }
    }

    /// The error belongs to the statement that seemed to have ended, if there is one that `fits`.
    fn fail_last(&mut self, frame: &Frame<'_>, end: &End, fits: impl FnOnce(&Statement) -> bool) -> bool {
        let failed = self.ended.fail_last(end.at, end.code, frame.size(), fits);
        if failed {
            self.last_end = Some(end.at);
        }
        failed
    }

    /// The request at the front, one of a unit, ended the unit before its time: by an error, or with the connection.
    fn unit_ended(&mut self, end: End) {
        let (bytes, runs) = self.queue.unit();
        let Some(front) = self.queue.front() else { return };
        let (kind, text) = match &front.step {
            Step::Execute { .. } => return self.execute_ended(end),
            Step::Parse { text, used, .. } => (if *used { Kind::Execute } else { Kind::Prepare }, text.clone()),
            Step::Bind { statement, .. } => (Kind::Execute, self.prepared.statement(statement)),
            Step::Describe { target, name } | Step::Close { target, name } => {
                (if runs { Kind::Execute } else { Kind::Utility }, self.prepared.text(*target, name))
            }
            _ => return,
        };
        let arrived = front.arrived;
        self.finish(kind, text, arrived, bytes, end);
    }

    /// After an error the server skips everything until `Sync`.
    fn skip_to_sync(&mut self) {
        self.queue.end_copy_in();
        self.queue.skip(true);
        while let Some(step) = self.queue.step() {
            if matches!(step, Step::Sync) {
                return self.queue.skip(false);
            }
            self.advance();
        }
    }

    /// `Z`: the server has answered everything up to here.
    fn ready(&mut self, frame: &Frame<'_>, at: Timestamp) -> Result<(), Fault> {
        let status = frame.body.first().and_then(|byte| transaction::Status::of(*byte)).ok_or(Fault::Lost)?;
        self.aside(frame);
        match self.queue.step() {
            // It had not read the `Sync` behind a COPY that failed before it asked for data.
            None if self.queue.skips() => self.queue.skip(false),
            Some(Step::Startup) => {
                self.started(End::ok(at));
            }
            Some(Step::Query(query)) if query.completions > 0 => {
                query.hand_out(self.ended.open());
                self.advance();
                // `exec_simple_query` drops the unnamed statement; the unnamed portal goes with its transaction or here.
                self.prepared.forget_statement(b"");
                let unnamed = self.prepared.take_portal(b"");
                self.close_portals(unnamed);
            }
            Some(Step::Function { answered: true }) => self.advance(),
            Some(Step::Sync) => {
                let bytes = self.front_bytes();
                self.advance();
                self.side_in(bytes);
            }
            _ => return Err(Fault::Lost),
        }
        if status == transaction::Status::Idle && self.prepared.has_portals() {
            let portals = self.prepared.take_portals();
            self.close_portals(portals);
        }
        self.blocks.ready(status, at);
        self.ended.settle();
        self.reply = Reply::default();
        self.last_end = Some(at);
        self.idle_if_empty(at);
        Ok(())
    }

    /// The connection ended: what the server was doing remains incomplete. What waited behind it never began.
    pub(super) fn close(&mut self, at: Timestamp) {
        let end = End::incomplete(at);
        match self.queue.step() {
            Some(Step::Startup) => {
                self.started(end);
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
                    query.hand_out(self.ended.open());
                }
            }
            Some(Step::Function { answered: false }) => self.function_ended(end),
            Some(Step::Sync | Step::Function { .. }) | None => {}
            Some(_) => self.unit_ended(end),
        }
        self.clear_queue();
        let portals = self.prepared.take_portals();
        self.close_portals(portals);
        self.blocks.closed(at);
        self.ended.settle();
    }

    /// The place in the stream is lost: forgets what awaits a reply, keeps what is done.
    pub(super) fn lose(&mut self) {
        for request in self.clear_queue() {
            self.prepared.unanswered(&request.step);
        }
        let portals = self.prepared.lose_portals();
        self.close_portals(portals);
        self.ended.settle();
        (self.blocks, self.last_end) = Default::default();
    }

    /// Follows a request while the replies are lost.
    pub(super) fn request_unanswered(&mut self, frame: &Frame<'_>) -> Result<(), Lost> {
        if matches!(frame.kind, b'Q' | b'P' | b'B' | b'C') {
            self.prepared.unanswered(&Step::of(frame)?);
        }
        Ok(())
    }

    /// Forgets statements that were never proven.
    pub(super) fn drop_ended(&mut self) {
        self.ended.clear();
    }

    fn clear_queue(&mut self) -> VecDeque<Request> {
        self.reply = Reply::default();
        self.queue.clear()
    }

    /// Whether there is something to hand over.
    pub(super) fn has_news(&self) -> bool {
        self.ended.has_settled() || self.queue.texts_dropped > 0 || self.prepared.evicted > 0
    }

    /// Hands over the statements that cannot change any more.
    pub(super) fn take_settled(&mut self, take: impl FnMut(Statement)) {
        self.ended.take_settled(take);
    }

    /// The transaction that ended with the latest `Z` or with the connection.
    pub(super) fn take_transaction(&mut self) -> Option<Transaction> {
        self.blocks.take_ended()
    }

    /// How many names and texts were forgotten at a bound since the last call.
    pub(super) fn take_evicted(&mut self) -> usize {
        mem::take(&mut self.queue.texts_dropped) + mem::take(&mut self.prepared.evicted)
    }

    /// What the session does.
    pub(super) fn state(&self) -> SessionState {
        match self.queue.step() {
            Some(Step::Startup) => SessionState::Starting,
            Some(_) => SessionState::Active,
            None => self.blocks.session_state(),
        }
    }
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
