//! What the agent has to say of its own work. Holds names of ours and numbers, no text from outside.

use std::sync::Arc;

use crate::model::{Instance, Timestamp};

/// Whether somebody should be told at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// Yes.
    Alert,
    /// It is good to know.
    Feedback,
}

/// Something about the agent's work.
#[derive(Clone, Debug)]
pub struct Notice {
    /// When.
    pub at: Timestamp,
    /// Whether somebody should be told at once.
    pub kind: NoticeKind,
    /// About what: `feedback.category`, or the alert's name.
    pub category: &'static str,
    /// How bad it is.
    pub severity: &'static str,
    /// The server, where it is about one.
    pub instance: Option<Arc<Instance>>,
    /// What was looked at: a field, a parameter, a rule.
    pub subject: &'static str,
    /// What was measured.
    pub value: f64,
    /// What it was compared with.
    pub limit: f64,
    /// What to do; empty where that is plain.
    pub remediation: &'static str,
    /// Notices of the same category that were held back since the one before.
    pub suppressed: u64,
}
