//! One execution of a statement, as a wire machine reports it.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{Digest, Timestamp, names::ERROR_TYPE_OTHER};

/// Text of a statement as the client sent it. Holds literals: it never leaves the process, and its `Debug` shows only lengths.
///
/// Shared between executions of one prepared statement, so that it is normalised once: the pipeline stores the result in `digest`.
pub struct StatementText {
    bytes: Box<[u8]>,
    true_len: usize,
    digest: OnceLock<Arc<Digest>>,
}

impl StatementText {
    /// `bytes` is what was captured of a text of `true_len` bytes.
    pub fn new(bytes: impl Into<Box<[u8]>>, true_len: usize) -> StatementText {
        StatementText { bytes: bytes.into(), true_len, digest: OnceLock::new() }
    }

    /// The captured bytes, with literals. Only `sql` and `replay --raw-text` may read them.
    pub fn raw(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is this text: `bytes` captured of `true_len`.
    pub fn is(&self, bytes: &[u8], true_len: usize) -> bool {
        self.true_len == true_len && *self.bytes == *bytes
    }

    /// Whether the end of the text was not captured.
    pub fn truncated(&self) -> bool {
        self.bytes.len() < self.true_len
    }

    /// The digest, computed by `normalise` the first time.
    pub fn digest(&self, normalise: impl FnOnce(&StatementText) -> Arc<Digest>) -> &Arc<Digest> {
        self.digest.get_or_init(|| normalise(self))
    }
}

impl fmt::Debug for StatementText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatementText({} of {} bytes)", self.bytes.len(), self.true_len)
    }
}

/// A statement's text, if it was seen.
#[derive(Clone, Debug)]
pub enum Text {
    /// Seen by the agent.
    Known(Arc<StatementText>),
    /// Prepared before the agent started, or lost.
    Unknown,
    /// The event has no text (a connection attempt, a ping).
    None,
}

/// What kind of exchange it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A text executed directly: PostgreSQL `Query`, MySQL `COM_QUERY`.
    Simple,
    /// Preparation alone: PostgreSQL `Parse` that no `Execute` of the same unit used, MySQL `COM_STMT_PREPARE`.
    Prepare,
    /// Execution of a prepared statement or portal. PostgreSQL `Parse`+`Bind`+`Execute` in one unit is one `Execute`.
    Execute,
    /// COPY or LOAD DATA LOCAL data transfer.
    Copy,
    /// Any other command that does database work (`COM_INIT_DB`, `FunctionCall`, ...).
    Utility,
    /// A connection attempt: from the first byte to "ready for query" or to the error that refused it.
    Connect,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Completed.
    Ok,
    /// The server answered with an error; see [`Statement::code`].
    Error,
    /// The connection ended before the completion message.
    Incomplete,
}

/// Error code of the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// SQLSTATE, five ASCII characters.
    Sqlstate([u8; 5]),
    /// MySQL error number.
    Mysql(u16),
}

impl Code {
    /// Whether the statement ended because somebody, or a time limit, asked for its end: `query_canceled` (errcodes.txt), which PostgreSQL also raises at
    /// `statement_timeout`; `ER_QUERY_INTERRUPTED`, `ER_QUERY_TIMEOUT` (MySQL) and `ER_STATEMENT_TIMEOUT` (MariaDB).
    pub fn is_cancellation(self) -> bool {
        matches!(self, Code::Sqlstate([b'5', b'7', b'0', b'1', b'4']) | Code::Mysql(1317 | 3024 | 1969))
    }

    /// The value of `error.type`: the code, or `_OTHER` for a failure without one.
    pub fn error_type(code: Option<Code>) -> Cow<'static, str> {
        code.map_or(Cow::Borrowed(ERROR_TYPE_OTHER), |code| Cow::Owned(code.to_string()))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Sqlstate(state) => state.iter().try_for_each(|byte| write!(f, "{}", char::from(*byte))),
            Code::Mysql(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One execution, timed.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Kind of exchange.
    pub kind: Kind,
    /// Its text.
    pub text: Text,
    /// When the read that delivered the last byte of the request returned, or the previous statement's end if that is later (pipelining).
    pub start: Timestamp,
    /// When the first byte of its response was written.
    pub first_byte: Option<Timestamp>,
    /// When the write that carries its completion message began.
    pub end: Timestamp,
    /// Rows sent to the client, where the protocol tells.
    pub rows_sent: Option<u64>,
    /// Rows inserted, updated or deleted, where the protocol tells.
    pub rows_affected: Option<u64>,
    /// Bytes of the request.
    pub bytes_in: u64,
    /// Bytes of the response.
    pub bytes_out: u64,
    /// How it ended.
    pub status: Status,
    /// Error code, with [`Status::Error`].
    pub code: Option<Code>,
    /// The split of time between this statement and its neighbours is an estimate (replies that share one write).
    pub estimated: bool,
}

impl Statement {
    /// From the last byte of the request to the completion message.
    pub fn duration(&self) -> Duration {
        self.end.since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancellations_are_told_from_other_failures() {
        for code in [Code::Sqlstate(*b"57014"), Code::Mysql(1317), Code::Mysql(3024), Code::Mysql(1969)] {
            assert!(code.is_cancellation(), "{code}");
        }
        for code in [Code::Sqlstate(*b"57P01"), Code::Sqlstate(*b"42P01"), Code::Mysql(1064), Code::Mysql(1205)] {
            assert!(!code.is_cancellation(), "{code}");
        }
    }
}
