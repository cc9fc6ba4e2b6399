//! A client's connection to a server.

use std::sync::Arc;

use super::Timestamp;

/// What a session does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Nothing provable seen yet (the connection is older than the agent, or lost its place in the stream).
    #[default]
    Unknown,
    /// Start-up and authentication.
    Starting,
    /// Waits for a command, outside a transaction.
    Idle,
    /// A command is being executed.
    Active,
    /// Waits for a command inside an open transaction.
    IdleInTransaction,
    /// Waits for a command inside a transaction that has failed.
    IdleInFailedTransaction,
    /// Cannot be followed, e.g. encrypted or compressed; the string says why.
    Opaque(&'static str),
}

/// Who a session belongs to. Everything that the start-up packets tell; `None` where the connection is older than the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// Database user.
    pub user: Option<Arc<str>>,
    /// Current database (PostgreSQL) or default schema (MySQL).
    pub database: Option<Arc<str>>,
    /// `application_name` (PostgreSQL) or `program_name` connection attribute (MySQL).
    pub application: Option<Arc<str>>,
    /// Version the server announced in its greeting or parameter status.
    pub server_version: Option<Arc<str>>,
    /// The session asked for TLS and the server agreed.
    pub encrypted: bool,
    /// When its first byte went over the wire; `None` where the connection is older than the agent.
    pub started: Option<Timestamp>,
}
