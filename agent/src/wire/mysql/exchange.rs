//! One command and its response, and how it becomes statements.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{handshake::Login, lexer, protocol::command};
use crate::model::{Code, Kind, Statement, StatementText, Status, Text, Timestamp};

/// Most results of one command that are told apart; with more the command is one statement.
const MAX_PARTS: usize = 256;

/// What the next packet of the server must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// First packet of a response, or of a further result.
    Head,
    /// So many column definitions.
    Columns(u32),
    /// EOF packet behind the column definitions; the first row or the end where there is none.
    EndOfColumns,
    /// Rows and the end.
    Rows,
    /// Column definitions of `COM_FIELD_LIST` and the end.
    Fields,
    /// One packet of any content (`COM_STATISTICS`).
    Text,
    /// The client's file, then the end.
    Upload,
    /// Packets of an authentication method, then the end.
    Login,
    /// So many definitions of parameters, then so many of columns (`COM_STMT_PREPARE`).
    Params { params: u32, columns: u32 },
    /// EOF packet behind the definitions of parameters, if the session has such, then so many definitions of columns.
    EndOfParams { columns: u32 },
    /// So many column definitions of `COM_STMT_PREPARE`.
    PreparedColumns(u32),
    /// So many EOF packets of `COM_STMT_PREPARE` whose definitions were left out.
    Eofs(u8),
    /// All is there but perhaps so many EOF packets: on a session of unknown capabilities the next packet or command tells.
    PerhapsEof { eofs: u8, ended: Timestamp },
}

/// What a command changes in the session if it succeeds.
#[derive(Debug, Default)]
pub(super) enum Effect {
    /// Nothing that is known before.
    #[default]
    None,
    /// Default schema.
    Schema(Option<Arc<str>>),
    /// Another user logged in; prepared statements are gone.
    Login(Box<Login>),
    /// Prepared statements are gone.
    Reset,
}

/// One result of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) first_byte: Timestamp,
    pub(super) end: Timestamp,
    pub(super) rows: Option<u64>,
    pub(super) affected: Option<u64>,
    pub(super) bytes_out: u64,
    /// A client's file was loaded.
    pub(super) copy: bool,
    pub(super) code: Option<u16>,
    /// Whether a transaction is open behind it, if the server says so.
    pub(super) in_transaction: Option<bool>,
}

/// A command that waits for its response, or for the rest of it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) command: u8,
    pub(super) text: Text,
    /// Id of the prepared statement that the command names; of the one made, once it is known.
    pub(super) statement: u32,
    /// `COM_STMT_EXECUTE` asked for a cursor.
    pub(super) wants_cursor: bool,
    pub(super) effect: Effect,
    pub(super) expect: Expect,
    /// Sequence id of the next packet, the server's as the client's.
    pub(super) sequence: u8,
    pub(super) start: Timestamp,
    /// It was sent before the response to the command before was complete, so that it starts with the end of that.
    pub(super) follows: bool,
    pub(super) bytes_in: u64,
    /// The result being received.
    pub(super) first_byte: Option<Timestamp>,
    pub(super) rows: Option<u64>,
    pub(super) copy: bool,
    pub(super) bytes_out: u64,
    /// The results that have ended; rarely more than one.
    pub(super) parts: SmallVec<[Part; 1]>,
    /// There were more than [`MAX_PARTS`]; the last one is the sum of the rest.
    pub(super) merged: bool,
}

impl Exchange {
    /// A command with its true bytes on the wire, whose last byte arrived at `start` with sequence id `last`.
    pub(super) fn new(code: u8, text: Text, start: Timestamp, bytes_in: u64, last: u8) -> Exchange {
        let expect = match code {
            command::STMT_FETCH => Expect::Rows,
            command::FIELD_LIST => Expect::Fields,
            command::STATISTICS => Expect::Text,
            command::CHANGE_USER => Expect::Login,
            _ => Expect::Head,
        };
        Exchange {
            command: code,
            text,
            statement: 0,
            wants_cursor: false,
            effect: Effect::None,
            expect,
            sequence: last.wrapping_add(1),
            start,
            follows: false,
            bytes_in,
            first_byte: None,
            rows: (code == command::STMT_FETCH).then_some(0),
            copy: false,
            bytes_out: 0,
            parts: SmallVec::new(),
            merged: false,
        }
    }

    /// Whether the command's first packet may head a result set.
    pub(super) fn may_have_rows(&self) -> bool {
        matches!(
            self.command,
            command::QUERY | command::STMT_EXECUTE | command::STMT_BULK_EXECUTE | command::PROCESS_INFO
        )
    }

    fn kind(&self) -> Kind {
        match self.command {
            command::QUERY if self.copy || self.parts.iter().any(|part| part.copy) => Kind::Copy,
            command::QUERY => Kind::Simple,
            command::STMT_PREPARE => Kind::Prepare,
            command::STMT_EXECUTE | command::STMT_BULK_EXECUTE | command::STMT_FETCH => Kind::Execute,
            _ => Kind::Utility,
        }
    }

    /// Whether the client's next packet is no command but part of this exchange.
    pub(super) fn awaits_client(&self) -> bool {
        matches!(self.expect, Expect::Upload | Expect::Login)
    }

    /// Whether the response is complete unless an EOF packet follows.
    pub(super) fn perhaps_ended(&self) -> bool {
        matches!(self.expect, Expect::PerhapsEof { .. })
    }

    /// Ends the result being received. `in_transaction`: a transaction is open behind it, if the server says so.
    pub(super) fn end_part(
        &mut self,
        end: Timestamp,
        affected: Option<u64>,
        code: Option<u16>,
        in_transaction: Option<bool>,
    ) {
        let part = Part {
            first_byte: self.first_byte.take().unwrap_or(end),
            end,
            rows: self.rows.take(),
            affected,
            bytes_out: std::mem::take(&mut self.bytes_out),
            copy: std::mem::take(&mut self.copy),
            code,
            in_transaction,
        };
        if self.parts.len() < MAX_PARTS {
            self.parts.push(part);
        } else if let Some(last) = self.parts.last_mut() {
            self.merged = true;
            *last = sum(&[*last, part]);
        }
    }

    /// The statements of a command whose last result has ended, each with what its last result says of the transaction. `backslash`: a
    /// backslash escapes within strings.
    pub(super) fn statements(mut self, backslash: bool, mut each: impl FnMut(Statement, Option<bool>)) {
        let parts = std::mem::take(&mut self.parts);
        match parts.as_slice() {
            [] => {}
            [part] => each(self.statement(part), part.in_transaction),
            several => match self.split(several, backslash) {
                Some(statements) => statements.into_iter().for_each(|(statement, open)| each(statement, open)),
                None => {
                    let part = sum(several);
                    each(self.statement(&part), part.in_transaction);
                }
            },
        }
    }

    fn statement(self, part: &Part) -> Statement {
        let kind = if part.copy { Kind::Copy } else { self.kind() };
        Statement {
            kind,
            text: self.text,
            start: self.start,
            first_byte: Some(part.first_byte),
            end: part.end,
            rows_sent: part.rows,
            rows_affected: part.affected,
            bytes_in: self.bytes_in,
            bytes_out: part.bytes_out,
            status: if part.code.is_some() { Status::Error } else { Status::Ok },
            code: part.code.map(Code::Mysql),
            // Responses in one write cannot be told apart in time.
            estimated: self.follows && part.first_byte == self.start,
        }
    }

    /// One statement for each part of the text, if the results can be assigned to them for certain.
    fn split(&self, parts: &[Part], backslash: bool) -> Option<Vec<(Statement, Option<bool>)>> {
        let Text::Known(text) = &self.text else { return None };
        if self.command != command::QUERY || self.merged || text.truncated() {
            return None;
        }
        let raw = text.raw();
        let pieces = lexer::split(raw, backslash);
        if pieces.len() < 2 || pieces.iter().any(|piece| lexer::may_be_compound(&raw[piece.clone()])) {
            return None;
        }
        let mut statements = Vec::with_capacity(pieces.len());
        let mut rest = parts;
        let mut start = self.start;
        let inside: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        // What belongs to no piece (header, command, attributes, semicolons) is counted with the first.
        let mut overhead = self.bytes_in.saturating_sub(inside);
        for piece in &pieces {
            let piece = &raw[piece.clone()];
            if rest.is_empty() {
                // Only an error may leave statements without result.
                statements.last().filter(|(last, _): &&(Statement, _)| last.status == Status::Error)?;
                break;
            }
            // A procedure may send result sets before its OK packet; everything else has one result.
            let count = match lexer::first_word(piece).eq_ignore_ascii_case(b"CALL") {
                true => 1 + rest.iter().position(|part| part.rows.is_none())?,
                false => 1,
            };
            let (mine, others) = rest.split_at(count);
            let part = sum(mine);
            let statement = Statement {
                kind: if part.copy { Kind::Copy } else { Kind::Simple },
                text: Text::Known(Arc::new(StatementText::new(piece, piece.len()))),
                start,
                first_byte: Some(part.first_byte),
                end: part.end,
                rows_sent: part.rows,
                rows_affected: part.affected,
                bytes_in: piece.len() as u64 + std::mem::take(&mut overhead),
                bytes_out: part.bytes_out,
                status: if part.code.is_some() { Status::Error } else { Status::Ok },
                code: part.code.map(Code::Mysql),
                // Results in one write cannot be told apart in time.
                estimated: others.first().is_some_and(|next| next.first_byte == part.end)
                    || start == part.end && !statements.is_empty(),
            };
            statements.push((statement, part.in_transaction));
            start = part.end;
            rest = others;
        }
        rest.is_empty().then_some(statements)
    }

    /// The statement of a command whose connection ended at `end`.
    pub(super) fn incomplete(mut self, end: Timestamp) -> Statement {
        self.end_part(end, None, None, None);
        let seen = self.parts.iter().any(|part| part.bytes_out > 0);
        let part = sum(&self.parts);
        let first_byte = seen.then_some(part.first_byte);
        Statement { status: Status::Incomplete, first_byte, ..self.statement(&part) }
    }
}

/// Several results as one.
fn sum(parts: &[Part]) -> Part {
    let mut all = parts[0];
    for part in &parts[1..] {
        let add = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        all.end = part.end;
        all.rows = add(all.rows, part.rows);
        all.affected = add(all.affected, part.affected);
        all.bytes_out += part.bytes_out;
        all.copy |= part.copy;
        all.code = part.code.or(all.code);
        all.in_transaction = part.in_transaction;
    }
    all
}

/// Adds what a fetch took and brought to the execution whose cursor it reads. The client's time between fetches is left out: the
/// execution ends with the last fetch and starts as long before as the server worked for it.
pub(super) fn add_fetch(execution: &mut Statement, fetch: &Statement) {
    let busy = execution.duration() + fetch.duration();
    let first_byte = execution.first_byte.map(|first| first.since(execution.start));
    execution.start = Timestamp(fetch.end.0.saturating_sub(busy.as_nanos() as u64));
    execution.first_byte = first_byte.map(|after| Timestamp(execution.start.0.saturating_add(after.as_nanos() as u64)));
    execution.end = fetch.end;
    execution.rows_sent = Some(execution.rows_sent.unwrap_or(0) + fetch.rows_sent.unwrap_or(0));
    execution.bytes_in += fetch.bytes_in;
    execution.bytes_out += fetch.bytes_out;
    execution.status = fetch.status;
    execution.code = fetch.code;
}
