//! What has passed the processors, on its way to the exporters.

use super::{Notice, Record};
use crate::model::WallClock;

/// Records and notices that leave together.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// The wall clock as it was read for them.
    pub clock: WallClock,
    /// What passed all processors.
    pub records: Vec<Record>,
    /// What the agent has to say of its own work.
    pub notices: Vec<Notice>,
}

impl Outgoing {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.notices.is_empty()
    }
}
