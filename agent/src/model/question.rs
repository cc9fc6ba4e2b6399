//! What the agent asks databases, and how asking can end.

use serde::Serialize;

/// A question that the agent asks a database again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What the server is and has: version, extensions, settings, privileges. The ladders of all others stand on it.
    Facts,
    /// What sessions do and wait for now, and who blocks whom.
    Activity,
    /// Statistics of statements.
    Statements,
    /// Counters of the whole server and of each database.
    Server,
    /// Counters and sizes of tables and indexes.
    Tables,
    /// Who receives this server's changes, and how far behind; or how far behind this server is.
    Replication,
    /// Settings, to tell which have changed.
    Settings,
}

impl Question {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Question; 7] = [
        Question::Facts,
        Question::Activity,
        Question::Statements,
        Question::Server,
        Question::Tables,
        Question::Replication,
        Question::Settings,
    ];

    /// Its name, as it is shown and configured.
    pub fn name(self) -> &'static str {
        match self {
            Question::Facts => "facts",
            Question::Activity => "activity",
            Question::Statements => "statements",
            Question::Server => "server",
            Question::Tables => "tables",
            Question::Replication => "replication",
            Question::Settings => "settings",
        }
    }
}

/// How a question ended. What opens a breaker tells these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// It was answered.
    Answered,
    /// The server or the agent gave up after the time that a question may take.
    TimedOut,
    /// It waited for somebody's lock and gave up.
    LockTimedOut,
    /// The agent may not ask this.
    Denied,
    /// What was asked for does not exist: a view, a column, an extension.
    Missing,
    /// It was answered, but this question has cost the server more CPU time than it may.
    TooCostly,
    /// The server accepts no further connection.
    TooManyConnections,
    /// The server starts or ends.
    ShuttingDown,
    /// The connection broke, or could not be made.
    Disconnected,
    /// Anything else.
    Failed,
}

impl Asked {
    /// Whether there is an answer.
    pub fn is_answered(self) -> bool {
        matches!(self, Asked::Answered | Asked::TooCostly)
    }

    /// One word for logs and tables.
    pub fn word(self) -> &'static str {
        match self {
            Asked::Answered => "answered",
            Asked::TimedOut => "timed out",
            Asked::LockTimedOut => "lock timed out",
            Asked::Denied => "denied",
            Asked::Missing => "missing",
            Asked::TooCostly => "too costly",
            Asked::TooManyConnections => "too many connections",
            Asked::ShuttingDown => "shutting down",
            Asked::Disconnected => "disconnected",
            Asked::Failed => "failed",
        }
    }
}
