//! The command phase: commands in, responses matched to them, statements out.

use super::{
    Lost,
    command::{self as request, MAX_TEXT},
    exchange::{Effect, Exchange, Expect, add_fetch},
    handshake, lexer,
    packet::Packet,
    prepared::Prepared,
    protocol::{CLASSIC_EOF, LAST_PREPARED, command, header, status},
    response::{self, End, Head, PrepareOk},
    session::{REPLICATION, Session},
    startup,
};
use crate::{
    model::{Kind, Statement, Status, Text, Timestamp},
    wire::{Anomaly, Event},
};

/// Most commands that may wait for their responses.
pub(super) const MAX_QUEUED: usize = 1024;
/// Most bytes of text that waiting commands may hold.
pub(super) const MAX_QUEUED_BYTES: usize = 1 << 20;
/// Cursor types among the flags of `COM_STMT_EXECUTE` (`enum_cursor_type`): read only, for update, scrollable.
const CURSOR_TYPES: u8 = 1 | 2 | 4;
/// Error of a command on a prepared statement that the server does not know (`ER_UNKNOWN_STMT_HANDLER`).
const UNKNOWN_STATEMENT: u16 = 1243;
/// First byte of a column definition: the length of its catalog's name, which is always "def".
const DEFINITION: u8 = 3;

fn text_bytes(text: &Text) -> usize {
    match text {
        Text::Known(text) => text.raw().len(),
        Text::Unknown | Text::None => 0,
    }
}

impl Session {
    /// Whether the client's next packet is no command but part of the current exchange.
    pub(super) fn awaits_client(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.awaits_client())
    }

    /// A packet of the client.
    pub(super) fn command(&mut self, packet: &Packet<'_>, at: Timestamp, out: &mut Vec<Event>) -> Result<(), Lost> {
        if let Some(mut exchange) = self.exchange.take_if(|exchange| exchange.awaits_client()) {
            if !self.is_next(packet, &exchange) {
                return Err(Lost);
            }
            exchange.sequence = packet.last.wrapping_add(1);
            exchange.bytes_in += packet.wire;
            // An empty packet ends the file.
            if exchange.expect == Expect::Upload && packet.length == 0 {
                exchange.expect = Expect::Head;
            }
            self.exchange = Some(exchange);
            return Ok(());
        }
        if packet.first != 0 {
            return Err(Lost);
        }
        if let Some(exchange) = self.exchange.take_if(|exchange| exchange.perhaps_ended()) {
            self.finish_perhaps(*exchange, out);
        }
        let code = match packet.payload.first() {
            Some(code) => *code,
            // The server answers an empty command with an error.
            None if packet.length == 0 => 0,
            None => return Err(Lost),
        };
        if request::is_replication(code) {
            self.opaque(REPLICATION, Anomaly::Replication, out);
            return Ok(());
        }
        if request::is_silent(code) {
            if code == command::STMT_CLOSE
                && let Some((id, _)) = request::statement_id(packet.payload)
            {
                self.close_statement(id, out);
            }
            return Ok(());
        }
        let mut exchange = Exchange::new(code, Text::None, at, packet.wire, packet.last);
        self.describe(&mut exchange, packet);
        self.enqueue(exchange, out)
    }

    /// Fills in what the command's payload says.
    fn describe(&mut self, exchange: &mut Exchange, packet: &Packet<'_>) {
        let body = packet.payload.get(1..).unwrap_or_default();
        let whole = packet.payload.len() as u64 == packet.length;
        match exchange.command {
            command::QUERY => {
                exchange.text = match request::query_text(packet, self.capabilities) {
                    Some((captured, length)) => self.latest.text(captured, length),
                    None => Text::Unknown,
                };
            }
            command::STMT_PREPARE => {
                let length = usize::try_from(packet.length).unwrap_or(usize::MAX).saturating_sub(1);
                exchange.text = self.latest.text(&body[..body.len().min(MAX_TEXT)], length);
            }
            command::STMT_EXECUTE | command::STMT_BULK_EXECUTE | command::STMT_FETCH | command::STMT_RESET => {
                let named = request::statement_id(packet.payload);
                let (id, flags) = named.unwrap_or((0, 0));
                exchange.statement = id;
                exchange.wants_cursor = exchange.command == command::STMT_EXECUTE && flags & CURSOR_TYPES != 0;
                if exchange.command != command::STMT_RESET {
                    exchange.text = named.map_or(Text::Unknown, |(id, _)| self.prepared_text(id));
                }
            }
            command::INIT_DB => {
                exchange.effect = Effect::Schema(if whole { handshake::name(body) } else { None });
            }
            command::CHANGE_USER => {
                let login = handshake::change_user(packet.payload, self.capabilities);
                exchange.effect = Effect::Login(Box::new(login));
            }
            command::RESET_CONNECTION => exchange.effect = Effect::Reset,
            _ => {}
        }
    }

    /// Text of statement `id`, looked up when the command arrives, before a later one may close it.
    fn prepared_text(&mut self, id: u32) -> Text {
        if id != LAST_PREPARED {
            return self.prepared.as_mut().map_or(Text::Unknown, |prepared| prepared.text(id));
        }
        // The preparation may still be under way.
        let waiting = self.queue.iter().rev().chain(self.exchange.as_deref());
        let preparing = waiting.into_iter().find(|waiting| waiting.command == command::STMT_PREPARE);
        match (preparing, &self.last_prepared) {
            (Some(preparing), _) => preparing.text.clone(),
            (None, Some((_, text))) => text.clone(),
            (None, None) => Text::Unknown,
        }
    }

    fn enqueue(&mut self, mut exchange: Exchange, out: &mut Vec<Event>) -> Result<(), Lost> {
        if self.exchange.is_none() {
            exchange.start = exchange.start.max(self.busy_until);
            self.exchange = Some(Box::new(exchange));
            return Ok(());
        }
        if self.queue.len() >= MAX_QUEUED {
            return Err(Lost);
        }
        let bytes = text_bytes(&exchange.text);
        if self.queued_bytes + bytes > MAX_QUEUED_BYTES {
            exchange.text = Text::Unknown;
            out.push(Event::Anomaly(Anomaly::Evicted));
        } else {
            self.queued_bytes += bytes;
        }
        self.queue.push_back(exchange);
        Ok(())
    }

    /// A packet of the server.
    pub(super) fn answer(&mut self, packet: &Packet<'_>, at: Timestamp, out: &mut Vec<Event>) -> Result<(), Lost> {
        let Some(mut exchange) = self.exchange.take() else { return self.unsolicited(packet, at, out) };
        let is_next = self.is_next(packet, &exchange);
        if exchange.perhaps_ended() && !(is_eof(packet) && is_next) {
            self.finish_perhaps(*exchange, out);
            return self.unsolicited(packet, at, out);
        }
        if !is_next {
            return Err(Lost);
        }
        exchange.sequence = packet.last.wrapping_add(1);
        exchange.bytes_out += packet.wire;
        exchange.first_byte.get_or_insert(packet.began);
        match self.interpret(&mut exchange, packet, at)? {
            None => self.exchange = Some(exchange),
            Some(end) => self.end_result(exchange, end, at, out),
        }
        Ok(())
    }

    /// A packet that answers nothing.
    fn unsolicited(&mut self, packet: &Packet<'_>, at: Timestamp, out: &mut Vec<Event>) -> Result<(), Lost> {
        match packet.payload.first() {
            // Servers say goodbye so: shutdown, idle time over, session killed.
            Some(&header::ERR) => Ok(()),
            // The end of the session before was not seen.
            Some(&startup::GREETING) => self.greeting(packet, at, out),
            _ => Err(Lost),
        }
    }

    /// What a packet means for the exchange. Returns how the result ended, if it did.
    fn interpret<'a>(
        &mut self,
        exchange: &mut Exchange,
        packet: &Packet<'a>,
        at: Timestamp,
    ) -> Result<Option<End<'a>>, Lost> {
        let first = match packet.payload.first() {
            Some(first) => *first,
            None => return Err(Lost),
        };
        if first == header::ERR {
            return match response::err(packet).ok_or(Lost)? {
                response::Err::Progress => Ok(None),
                response::Err::Code(code) => Ok(Some(End::Err { code })),
            };
        }
        match exchange.expect {
            Expect::Head => self.head(exchange, packet, at),
            Expect::Columns(left) => {
                definition(first)?;
                exchange.expect = match (left - 1, self.classic_eof) {
                    (0, Some(false)) => Expect::Rows,
                    (0, _) => Expect::EndOfColumns,
                    (left, _) => Expect::Columns(left),
                };
                Ok(None)
            }
            Expect::EndOfColumns if is_eof(packet) => {
                self.classic_eof = Some(true);
                exchange.expect = Expect::Rows;
                let end = response::eof_or_ok(packet).ok_or(Lost)?;
                // An open cursor sends its rows when they are fetched.
                let open = end.status().is_some_and(|status| status & status::CURSOR_EXISTS != 0);
                Ok((exchange.wants_cursor && open).then_some(end))
            }
            Expect::EndOfColumns if self.classic_eof == Some(true) => Err(Lost),
            Expect::EndOfColumns => {
                self.classic_eof = Some(false);
                exchange.expect = Expect::Rows;
                row(exchange, packet, first)
            }
            Expect::Rows => row(exchange, packet, first),
            Expect::Fields if first == header::EOF => response::eof_or_ok(packet).ok_or(Lost).map(Some),
            Expect::Fields => definition(first).map(|()| None),
            Expect::Text => Ok(Some(End::Silent)),
            Expect::Upload => Err(Lost),
            Expect::Login => match first {
                header::OK => response::ok(packet).ok_or(Lost).map(Some),
                header::EOF | header::AUTH_MORE_DATA | header::AUTH_NEXT_FACTOR => Ok(None),
                _ => Err(Lost),
            },
            Expect::Params { params, columns } => {
                definition(first)?;
                match params - 1 {
                    0 => Ok(self.after_params(exchange, columns, at)),
                    params => {
                        exchange.expect = Expect::Params { params, columns };
                        Ok(None)
                    }
                }
            }
            Expect::EndOfParams { columns } if is_eof(packet) => {
                self.classic_eof = Some(true);
                let end = response::eof_or_ok(packet).ok_or(Lost)?;
                exchange.expect = Expect::PreparedColumns(columns);
                Ok((columns == 0).then_some(end))
            }
            Expect::EndOfParams { .. } if self.classic_eof == Some(true) => Err(Lost),
            Expect::EndOfParams { columns } => {
                self.classic_eof = Some(false);
                self.prepared_column(exchange, columns, first, at)
            }
            Expect::PreparedColumns(columns) => self.prepared_column(exchange, columns, first, at),
            Expect::Eofs(left) | Expect::PerhapsEof { eofs: left, .. } if is_eof(packet) => {
                self.classic_eof = Some(true);
                let end = response::eof_or_ok(packet).ok_or(Lost)?;
                exchange.expect = Expect::Eofs(left.saturating_sub(1));
                Ok((left <= 1).then_some(end))
            }
            Expect::Eofs(_) | Expect::PerhapsEof { .. } => Err(Lost),
        }
    }

    /// The first packet of a result.
    fn head<'a>(
        &mut self,
        exchange: &mut Exchange,
        packet: &Packet<'a>,
        at: Timestamp,
    ) -> Result<Option<End<'a>>, Lost> {
        if exchange.command == command::STMT_PREPARE {
            let prepared = PrepareOk::parse(packet).ok_or(Lost)?;
            exchange.statement = prepared.id;
            let PrepareOk { params, columns, .. } = prepared;
            let eofs = u8::from(params > 0) + u8::from(columns > 0);
            exchange.expect = match (prepared.defined, self.classic_eof) {
                _ if eofs == 0 => return Ok(Some(End::Silent)),
                (true, _) if params == 0 => Expect::PreparedColumns(columns),
                (true, _) => Expect::Params { params, columns },
                (false, Some(true)) => Expect::Eofs(eofs),
                (false, Some(false)) => return Ok(Some(End::Silent)),
                (false, None) => Expect::PerhapsEof { eofs, ended: at },
            };
            return Ok(None);
        }
        if !exchange.may_have_rows() || exchange.copy {
            return match packet.payload.first() {
                Some(&header::OK) => response::ok(packet).ok_or(Lost).map(Some),
                Some(&header::EOF) => response::eof_or_ok(packet).ok_or(Lost).map(Some),
                _ => Err(Lost),
            };
        }
        match response::head(packet).ok_or(Lost)? {
            Head::End(end) => Ok(Some(end)),
            Head::Progress => Ok(None),
            Head::LocalInfile if exchange.command == command::QUERY => {
                exchange.copy = true;
                exchange.expect = Expect::Upload;
                Ok(None)
            }
            Head::LocalInfile => Err(Lost),
            Head::Columns { count, defined } => {
                exchange.rows = Some(0);
                exchange.expect = match (defined, self.classic_eof) {
                    (true, _) => Expect::Columns(count),
                    (false, Some(false)) => Expect::Rows,
                    (false, _) => Expect::EndOfColumns,
                };
                Ok(None)
            }
        }
    }

    fn prepared_column<'a>(
        &mut self,
        exchange: &mut Exchange,
        columns: u32,
        first: u8,
        at: Timestamp,
    ) -> Result<Option<End<'a>>, Lost> {
        definition(first)?;
        match columns.saturating_sub(1) {
            0 => Ok(self.after_params(exchange, 0, at)),
            columns => {
                exchange.expect = Expect::PreparedColumns(columns);
                Ok(None)
            }
        }
    }

    /// What follows a list of definitions of `COM_STMT_PREPARE`, when `columns` are still to come.
    fn after_params<'a>(&mut self, exchange: &mut Exchange, columns: u32, at: Timestamp) -> Option<End<'a>> {
        exchange.expect = match (self.classic_eof, columns) {
            (Some(false), 0) => return Some(End::Silent),
            (Some(false), columns) => Expect::PreparedColumns(columns),
            (None, 0) => Expect::PerhapsEof { eofs: 1, ended: at },
            (Some(true) | None, columns) => Expect::EndOfParams { columns },
        };
        None
    }

    /// A result has ended; perhaps others follow.
    fn end_result(&mut self, mut exchange: Box<Exchange>, end: End<'_>, at: Timestamp, out: &mut Vec<Event>) {
        self.apply_status(&end);
        let affected = match end {
            End::Ok { affected, .. } if exchange.rows.is_none() && exchange.may_have_rows() => Some(affected),
            _ => None,
        };
        let code = if let End::Err { code } = end { Some(code) } else { None };
        let status = end.status();
        exchange.end_part(at, affected, code, status.map(|status| status & status::IN_TRANS != 0));
        let status = status.unwrap_or(0);
        if status & status::MORE_RESULTS_EXISTS != 0 && exchange.may_have_rows() {
            exchange.expect = Expect::Head;
            self.exchange = Some(exchange);
            return;
        }
        self.finish(*exchange, code.is_none(), status, out);
    }

    /// Ends an exchange that had only waited for an EOF packet that does not come.
    pub(super) fn finish_perhaps(&mut self, mut exchange: Exchange, out: &mut Vec<Event>) {
        if let Expect::PerhapsEof { ended, .. } = exchange.expect {
            self.classic_eof = Some(false);
            exchange.end_part(ended, None, None, None);
            self.finish(exchange, true, 0, out);
        }
    }

    /// The response is complete.
    fn finish(&mut self, mut exchange: Exchange, succeeded: bool, status: u16, out: &mut Vec<Event>) {
        if !self.confirmed {
            self.confirmed = true;
            if std::mem::take(&mut self.desynchronised) {
                out.push(Event::Anomaly(Anomaly::Resynchronised));
            }
        }
        if let Some(end) = exchange.parts.last().map(|part| part.end) {
            self.busy_until = end;
        }
        if succeeded {
            self.apply_effect(std::mem::take(&mut exchange.effect), out);
        }
        let id = match (exchange.statement, &self.last_prepared) {
            (LAST_PREPARED, Some((id, _))) => *id,
            (id, _) => id,
        };
        match exchange.command {
            command::STMT_PREPARE if succeeded => {
                let text = exchange.text.clone();
                self.last_prepared = Some((id, text.clone()));
                let prepared = self.prepared.get_or_insert_default();
                prepared.insert(id, text, |cursor| evicted(cursor, out));
            }
            command::STMT_EXECUTE | command::STMT_RESET => {
                // Either closes a cursor that is open.
                if let Some(execution) = self.prepared.as_mut().and_then(|prepared| prepared.take_cursor(id)) {
                    out.push(Event::Statement(execution));
                }
            }
            _ => {}
        }
        if exchange.parts.last().is_some_and(|part| part.code == Some(UNKNOWN_STATEMENT)) {
            // The statement was closed where it was not seen.
            self.prepared.as_mut().map(|prepared| prepared.remove(id));
            exchange.text = Text::Unknown;
        }
        let opens_cursor = exchange.wants_cursor && succeeded && status & status::CURSOR_EXISTS != 0;
        let (code, backslash) = (exchange.command, !self.no_backslash_escapes);
        let resets = succeeded && matches!(code, command::RESET_CONNECTION | command::CHANGE_USER);
        self.transactions.resume(exchange.start);
        exchange.statements(backslash, |statement, in_transaction| {
            let transaction = self.transactions.complete(&statement, in_transaction, resets);
            if opens_cursor {
                self.keep_cursor(id, statement, out);
            } else if code == command::STMT_FETCH {
                self.fetched(id, statement, status, out);
            } else {
                self.note_use(&statement);
                out.push(Event::Statement(statement));
            }
            out.extend(transaction.map(Event::Transaction));
        });
        self.exchange = self.queue.pop_front().map(|mut next| {
            self.queued_bytes = self.queued_bytes.saturating_sub(text_bytes(&next.text));
            next.follows = next.start < self.busy_until;
            next.start = next.start.max(self.busy_until);
            Box::new(next)
        });
    }

    fn apply_effect(&mut self, effect: Effect, out: &mut Vec<Event>) {
        match effect {
            Effect::None => {}
            Effect::Schema(schema) => self.info.database = schema,
            Effect::Login(login) => {
                self.reset_statements(out);
                self.info.user = login.user;
                self.info.database = login.database;
                if login.application.is_some() {
                    self.info.application = login.application;
                }
            }
            Effect::Reset => self.reset_statements(out),
        }
    }

    fn reset_statements(&mut self, out: &mut Vec<Event>) {
        self.flush_cursors(out);
        self.forget_statements();
    }

    /// Ends the executions whose cursors are open.
    pub(super) fn flush_cursors(&mut self, out: &mut Vec<Event>) {
        if let Some(prepared) = &mut self.prepared {
            out.extend(prepared.take_cursors().into_iter().map(Event::Statement));
        }
    }

    fn close_statement(&mut self, id: u32, out: &mut Vec<Event>) {
        if let Some(execution) = self.prepared.as_mut().and_then(|prepared| prepared.remove(id)) {
            out.push(Event::Statement(execution));
        }
    }

    fn keep_cursor(&mut self, id: u32, execution: Statement, out: &mut Vec<Event>) {
        let prepared: &mut Box<Prepared> = self.prepared.get_or_insert_default();
        prepared.keep_cursor(id, execution, |cursor| evicted(cursor, out));
    }

    /// Rows of a cursor: they belong to the execution that opened it, which ends with the last of them.
    fn fetched(&mut self, id: u32, fetch: Statement, status: u16, out: &mut Vec<Event>) {
        let open = self.prepared.as_mut().and_then(|prepared| prepared.take_cursor(id));
        let execution = match open {
            Some(mut execution) => {
                add_fetch(&mut execution, &fetch);
                execution
            }
            // Opened before the agent started.
            None => fetch,
        };
        let more = status & status::CURSOR_EXISTS != 0 && status & status::LAST_ROW_SENT == 0;
        if more {
            self.keep_cursor(id, execution, out);
        } else {
            out.push(Event::Statement(execution));
        }
    }

    /// Takes over what an end packet says about the session.
    pub(super) fn apply_status(&mut self, end: &End<'_>) {
        let Some(status) = end.status() else { return };
        self.no_backslash_escapes = status & status::NO_BACKSLASH_ESCAPES != 0;
        if let End::Ok { schema: Some(schema), .. } = end {
            self.info.database = handshake::name(schema);
        }
    }

    /// Follows `USE schema` sent as text; servers without session tracking do not confirm it otherwise.
    fn note_use(&mut self, statement: &Statement) {
        if let (Kind::Simple, Status::Ok, Text::Known(text)) = (statement.kind, statement.status, &statement.text)
            && let Some(schema) = lexer::use_schema(text.raw())
        {
            self.info.database = handshake::name(&schema);
        }
    }
}

fn evicted(cursor: Option<Statement>, out: &mut Vec<Event>) {
    out.push(Event::Anomaly(Anomaly::Evicted));
    out.extend(cursor.map(Event::Statement));
}

fn is_eof(packet: &Packet<'_>) -> bool {
    packet.length == CLASSIC_EOF && packet.payload.first() == Some(&header::EOF)
}

fn definition(first: u8) -> Result<(), Lost> {
    if first == DEFINITION { Ok(()) } else { Err(Lost) }
}

/// A row, or the end of the rows. A row may begin with the same byte only if its first value is so long that it needs several packets.
fn row<'a>(exchange: &mut Exchange, packet: &Packet<'a>, first: u8) -> Result<Option<End<'a>>, Lost> {
    if first == header::EOF && packet.first == packet.last {
        return response::eof_or_ok(packet).ok_or(Lost).map(Some);
    }
    *exchange.rows.get_or_insert(0) += 1;
    Ok(None)
}
