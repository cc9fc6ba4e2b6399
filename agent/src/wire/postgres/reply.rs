//! The reply to the statement at the front, as far as it has come, and how it ended.

use super::backend::{Copy, Rows};
use crate::model::{Code, Kind, Statement, Status, Text, Timestamp};

/// What is known so far of the reply to the statement at the front.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) first_byte: Option<Timestamp>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// `DataRow` messages.
    pub(super) rows: u64,
    pub(super) copy: Option<Copy>,
    pub(super) estimated: bool,
}

impl Reply {
    /// The statement that it answers, which began at `start`. `bytes_in` are those of its last request.
    pub(super) fn statement(self, kind: Kind, text: Text, start: Timestamp, bytes_in: u64, end: End) -> Statement {
        Statement {
            kind: if self.copy.is_some() { Kind::Copy } else { kind },
            text,
            start,
            first_byte: self.first_byte.map(|first| first.max(start)),
            end: end.at,
            rows_sent: end.rows.sent,
            rows_affected: end.rows.affected,
            bytes_in: self.bytes_in + bytes_in,
            bytes_out: self.bytes_out,
            status: end.status,
            code: end.code,
            estimated: self.estimated,
        }
    }
}

/// How a statement ended.
pub(super) struct End {
    pub(super) at: Timestamp,
    pub(super) status: Status,
    pub(super) code: Option<Code>,
    pub(super) rows: Rows,
}

impl End {
    /// With this many rows.
    pub(super) fn with(rows: Rows, at: Timestamp) -> End {
        End { at, status: Status::Ok, code: None, rows }
    }

    /// Without rows.
    pub(super) fn ok(at: Timestamp) -> End {
        End::with(Rows::default(), at)
    }

    /// With an error.
    pub(super) fn error(at: Timestamp, code: Option<Code>) -> End {
        End { status: Status::Error, code, ..End::ok(at) }
    }

    /// Not before the connection ended.
    pub(super) fn incomplete(at: Timestamp) -> End {
        End { status: Status::Incomplete, ..End::ok(at) }
    }
}
