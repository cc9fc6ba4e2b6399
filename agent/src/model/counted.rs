//! What the kernel counted, as it is handed to the aggregation.

use std::time::Duration;

use super::Code;

/// How an execution ended that the kernel counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It succeeded.
    Ok,
    /// The server answered with an error, with its code if it could be read.
    Failed(Option<Code>),
    /// The connection ended first.
    Incomplete,
}

/// What a row of the kernel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Executions of the text with this literal-blind hash.
    Text(u64),
    /// Executions of statements whose text cannot be known.
    UnknownText,
    /// Executions for which the kernel had no row left.
    Other,
    /// Transactions: durations, with their idle time in place of the time to the first byte.
    Transaction {
        /// Whether they were rolled back.
        rolled_back: bool,
    },
}

/// Executions that the kernel counted since the last look, of one statement, by the sessions of one group, with one ending.
#[derive(Clone, Debug)]
pub struct Counted<'a> {
    /// Slot of the server.
    pub slot: u32,
    /// Whose sessions: the number that their records carry.
    pub group: u64,
    /// What was counted.
    pub subject: Subject,
    /// How the executions ended.
    pub ending: Ending,
    /// Executions by bucket of their duration, see [`super::Histogram`].
    pub buckets: &'a [(usize, u64)],
    /// Sum of durations.
    pub total: Duration,
    /// Shortest and longest duration since the row exists.
    pub range: (Duration, Duration),
    /// Sum of times to the first byte.
    pub first_byte: Duration,
    /// Rows sent.
    pub rows_sent: u64,
    /// Rows changed.
    pub rows_affected: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of responses.
    pub bytes_out: u64,
}

impl Counted<'_> {
    /// Number of executions.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// What the kernel should do with the executions of a statement besides counting them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    Count,
    /// Record each, since it changes what is known of the session.
    Record,
}
