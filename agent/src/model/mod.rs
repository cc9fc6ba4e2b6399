//! What flows through the agent. Plain data: imports nothing of ours but the kernel contract's histogram.

pub mod activity;
pub mod by_code;
pub mod causes;
pub mod collected;
pub mod counted;
pub mod database_names;
pub mod digest;
pub mod duration;
pub mod enrichment;
pub mod histogram;
pub mod instance;
pub mod kernel_use;
pub mod names;
pub mod printable;
pub mod problem;
pub mod question;
pub mod secret;
pub mod server_statement;
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

pub use activity::{Activity, Ages, Blocked, BlockingChain, SessionGroup, WaitShare};
pub use by_code::ByCode;
pub use causes::with_causes;
pub use collected::{Attempt, Collected, Point, SettingChange, Standing, Tally, Value};
pub use counted::{Counted, Ending, Policy, Subject};
pub use digest::Digest;
pub use duration::HumanDuration;
pub use enrichment::{Enrichment, Join, Joined, SeenStatement};
pub use histogram::Histogram;
pub use instance::{Container, Engine, Instance, Listen, Pooler, ServerKey};
pub use kernel_use::KernelUse;
pub use printable::printable;
pub use problem::Problem;
pub use question::{Asked, Question};
pub use secret::Secret;
pub use server_statement::{ServerCounters, ServerStatement};
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
