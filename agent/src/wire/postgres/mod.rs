//! The Postgres machine.

use super::{Direction, Event, Machine};
use crate::model::{SessionInfo, SessionState, Timestamp};

/// Follows one connection.
#[derive(Debug, Default)]
pub struct Postgres {
    info: SessionInfo,
    state: SessionState,
}

impl Machine for Postgres {
    fn data(&mut self, _direction: Direction, _at: Timestamp, _bytes: &[u8], _true_len: usize, _out: &mut Vec<Event>) {}
    fn gap(&mut self, _at: Timestamp, _out: &mut Vec<Event>) {}
    fn close(&mut self, _at: Timestamp, _out: &mut Vec<Event>) {}
    fn info(&self) -> &SessionInfo {
        &self.info
    }
    fn state(&self) -> SessionState {
        self.state
    }
}
