//! One transaction of a session.

use std::time::Duration;

use super::Timestamp;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The server ended it without an error having been seen in it. A `ROLLBACK` that the client asked for is `RolledBack`.
    Committed,
    /// It was rolled back: by a `ROLLBACK`, or since it had failed.
    RolledBack,
    /// The connection ended inside it.
    Abandoned,
}

/// An explicit transaction, from the completion of the statement that opened it to the completion of the one that ended it. A statement outside of
/// any transaction block is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// When the server first said that a transaction is open.
    pub start: Timestamp,
    /// When it said that none is open any more, or the connection ended.
    pub end: Timestamp,
    /// Time within it that the server waited for its client.
    pub idle: Duration,
    /// Statements that completed within it, the one that ended it included; preparations are none.
    pub statements: u64,
    /// How it ended.
    pub outcome: Outcome,
}
