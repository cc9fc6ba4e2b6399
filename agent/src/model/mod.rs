//! What flows through the agent. Plain data: imports nothing of ours but the kernel contract's histogram.

pub mod by_code;
pub mod counted;
pub mod digest;
pub mod duration;
pub mod histogram;
pub mod instance;
pub mod names;
pub mod printable;
pub mod problem;
pub mod secret;
pub mod session;
pub mod signal;
pub mod snapshot;
pub mod statement;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod trace;
pub mod transaction;
pub mod verdict;

pub use by_code::ByCode;
pub use counted::{Counted, Ending, Policy, Subject};
pub use digest::Digest;
pub use duration::HumanDuration;
pub use histogram::Histogram;
pub use instance::{Container, Engine, Instance, Listen, Pooler, ServerKey};
pub use printable::printable;
pub use problem::Problem;
pub use secret::Secret;
pub use session::{SessionInfo, SessionState};
pub use signal::{Batch, Outgoing, Record, Signal};
pub use snapshot::{
    AgentStats, InstanceSnapshot, Mean, Measured, Outlier, SessionCounts, Snapshot, StatementSnapshot, StatementStats,
    TransactionStats, WireState,
};
pub use statement::{Code, Kind, Statement, StatementText, Status, Text};
pub use time::{Timestamp, WallClock};
pub use trace::{SpanId, TraceId, TraceParent};
pub use transaction::{Outcome, Transaction};
pub use verdict::Verdict;
