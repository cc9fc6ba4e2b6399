//! Statements that ended, until nothing about them can change any more: the commit may still fail, or the end of their text show what each of them was.

use smallvec::SmallVec;

use super::request::KEEP_CAPACITY;
use crate::model::{Code, Statement, Status, Timestamp};

/// Statements that ended, in order.
#[derive(Debug, Default)]
pub(super) struct Ended {
    statements: SmallVec<[Statement; 1]>,
    /// How many of them, from the front, cannot change any more.
    settled: usize,
}

impl Ended {
    /// One more.
    pub(super) fn push(&mut self, statement: Statement) {
        self.statements.push(statement);
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.statements.len()
    }

    /// Those that can still change.
    pub(super) fn open(&mut self) -> &mut [Statement] {
        &mut self.statements[self.settled..]
    }

    /// The latest, if it can still change.
    pub(super) fn last_open(&mut self) -> Option<&mut Statement> {
        self.open().last_mut()
    }

    /// The latest, just pushed.
    pub(super) fn last(&mut self) -> Option<&mut Statement> {
        self.statements.last_mut()
    }

    /// None of them can change any more.
    pub(super) fn settle(&mut self) {
        self.settled = self.statements.len();
    }

    /// An error of `size` bytes belongs to the latest statement, which seemed to have ended, if there is one that `fits`.
    pub(super) fn fail_last(
        &mut self,
        at: Timestamp,
        code: Option<Code>,
        size: u64,
        fits: impl FnOnce(&Statement) -> bool,
    ) -> bool {
        let Some(last) = self.last_open() else { return false };
        if last.status != Status::Ok || !fits(last) {
            return false;
        }
        (last.status, last.code, last.end) = (Status::Error, code, at);
        last.rows_affected = None;
        last.bytes_out += size;
        true
    }

    /// Whether there are some that cannot change any more.
    pub(super) fn has_settled(&self) -> bool {
        self.settled > 0
    }

    /// Hands over those that cannot change any more.
    pub(super) fn take_settled(&mut self, take: impl FnMut(Statement)) {
        self.statements.drain(..std::mem::take(&mut self.settled)).for_each(take);
        if self.statements.is_empty() && self.statements.capacity() > KEEP_CAPACITY {
            self.statements = SmallVec::new();
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.statements.clear();
        self.settled = 0;
    }
}
