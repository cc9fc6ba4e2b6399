//! Transaction blocks, as the status byte of `ReadyForQuery` and the tags before it tell.
//!
//! Only a block that is open at a `Z` is one: what a single text begins and ends leaves no trace there. A `COMMIT` that leaves a block open ended one and
//! began another (`COMMIT AND CHAIN`, or `COMMIT; BEGIN` in one text). `ROLLBACK AND CHAIN` has the same tag and status as `ROLLBACK TO SAVEPOINT`, so
//! after it the block counts as the same one.

use std::time::Duration;

use crate::model::{Outcome, SessionState, Timestamp, Transaction};

/// Follows the transaction blocks of a session.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Status byte of the latest `Z`.
    status: Option<Status>,
    open: Option<Open>,
    /// What the replies since the latest `Z` say about the block's end.
    fate: Option<Outcome>,
    ended: Option<Transaction>,
}

/// What a `Z` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// `I`: no block is open.
    Idle,
    /// `T`: in a block.
    Open,
    /// `E`: in a block that has failed.
    Failed,
}

#[derive(Debug)]
struct Open {
    start: Timestamp,
    idle: Duration,
    /// Since when the server waits for its client; absent while it has something to answer.
    waits: Option<Timestamp>,
    statements: u64,
}

impl Status {
    /// Reads the status byte.
    pub(super) fn of(byte: u8) -> Option<Status> {
        match byte {
            b'I' => Some(Status::Idle),
            b'T' => Some(Status::Open),
            b'E' => Some(Status::Failed),
            _ => None,
        }
    }

    /// What a session does that has nothing to answer.
    pub(super) fn session_state(status: Option<Status>) -> SessionState {
        match status {
            Some(Status::Idle) => SessionState::Idle,
            Some(Status::Open) => SessionState::IdleInTransaction,
            Some(Status::Failed) => SessionState::IdleInFailedTransaction,
            None => SessionState::Unknown,
        }
    }
}

impl Blocks {
    /// What the session does while it has nothing to answer.
    pub(super) fn session_state(&self) -> SessionState {
        Status::session_state(self.status)
    }

    /// The client asks again.
    pub(super) fn requested(&mut self, at: Timestamp) {
        if let Some(open) = &mut self.open
            && let Some(since) = open.waits.take()
        {
            open.idle += at.since(since);
        }
    }

    /// Everything is answered.
    pub(super) fn answered(&mut self, at: Timestamp) {
        if let Some(open) = &mut self.open {
            open.waits.get_or_insert(at);
        }
    }

    /// A statement ended.
    pub(super) fn count(&mut self) {
        if let Some(open) = &mut self.open
            && self.fate != Some(Outcome::Committed)
        {
            open.statements += 1;
        }
    }

    /// A command with this tag ended.
    pub(super) fn completed(&mut self, tag: &[u8]) {
        match tag {
            b"COMMIT" => self.fate = Some(Outcome::Committed),
            b"ROLLBACK" => self.failed(),
            _ => {}
        }
    }

    /// A command failed. If no block is open afterwards, it was the one that should have committed it.
    pub(super) fn failed(&mut self) {
        self.fate.get_or_insert(Outcome::RolledBack);
    }

    /// `Z`.
    pub(super) fn ready(&mut self, status: Status, at: Timestamp) {
        let before = self.status.replace(status);
        let fate = self.fate.take();
        let chained = fate == Some(Outcome::Committed);
        if status == Status::Idle || chained {
            let failed = before == Some(Status::Failed);
            self.end(fate.unwrap_or(if failed { Outcome::RolledBack } else { Outcome::Committed }), at);
        }
        // Where no `Z` came before, the block may have been open for long.
        if status != Status::Idle && self.open.is_none() && (chained || before == Some(Status::Idle)) {
            self.open = Some(Open { start: at, idle: Duration::ZERO, waits: None, statements: 0 });
        }
    }

    /// The connection ended.
    pub(super) fn closed(&mut self, at: Timestamp) {
        self.requested(at);
        self.end(Outcome::Abandoned, at);
    }

    fn end(&mut self, outcome: Outcome, at: Timestamp) {
        if let Some(Open { start, idle, statements, .. }) = self.open.take() {
            self.ended = Some(Transaction { start, end: at, idle, statements, outcome });
        }
    }

    /// The transaction that ended since the last call.
    pub(super) fn take_ended(&mut self) -> Option<Transaction> {
        self.ended.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `steps`, one 10 ns after the other: a tag, `!` for an error, or the status byte of a `Z`, after which the client asks again 5 ns later.
    fn outcomes(steps: &str) -> Vec<(u64, u64, u64, u64, Outcome)> {
        let mut blocks = Blocks::default();
        let mut now = 0;
        let mut ended = Vec::new();
        for step in steps.split(' ') {
            now += 10;
            match step {
                "!" => {
                    blocks.count();
                    blocks.failed();
                }
                "I" | "T" | "E" => {
                    blocks.ready(Status::of(step.as_bytes()[0]).expect("a status"), Timestamp(now));
                    blocks.answered(Timestamp(now));
                    blocks.requested(Timestamp(now + 5));
                }
                "end" => blocks.closed(Timestamp(now)),
                tag => {
                    blocks.count();
                    blocks.completed(tag.as_bytes());
                }
            }
            ended.extend(blocks.take_ended().map(|Transaction { start, end, idle, statements, outcome }| {
                (start.0, end.0, idle.as_nanos() as u64, statements, outcome)
            }));
        }
        ended
    }

    #[test]
    fn outcomes_are_what_the_server_did() {
        use Outcome::{Abandoned, Committed, RolledBack};
        for (steps, expected) in [
            ("I BEGIN T SELECT T COMMIT I", vec![(30, 70, 10, 2, Committed)]),
            ("I BEGIN T ROLLBACK I", vec![(30, 50, 5, 1, RolledBack)]),
            ("I BEGIN T ! E SELECT E ROLLBACK I", vec![(30, 90, 15, 3, RolledBack)]),
            ("I BEGIN ! E ROLLBACK I", vec![(40, 60, 5, 1, RolledBack)]),
            // A savepoint makes good what failed.
            ("I BEGIN T ! E ROLLBACK T COMMIT I", vec![(30, 90, 15, 3, Committed)]),
            ("I BEGIN T ROLLBACK COMMIT I", vec![(30, 60, 5, 2, Committed)]),
            // The commit itself fails.
            ("I BEGIN T ! I", vec![(30, 50, 5, 1, RolledBack)]),
            ("I BEGIN T COMMIT ! I", vec![(30, 60, 5, 1, Committed)]),
            ("I BEGIN T PREPARE I", vec![(30, 50, 5, 1, Committed)]),
            ("I BEGIN SELECT COMMIT I", vec![]),
            ("I ! I", vec![]),
            ("I BEGIN T COMMIT T SELECT T ROLLBACK I", vec![(30, 50, 5, 1, Committed), (50, 90, 10, 2, RolledBack)]),
            ("I BEGIN T COMMIT BEGIN SELECT T end", vec![(30, 70, 5, 1, Committed), (70, 80, 5, 0, Abandoned)]),
            ("I BEGIN T end", vec![(30, 40, 5, 0, Abandoned)]),
            // Nobody saw it begin.
            ("T SELECT T COMMIT I", vec![]),
            ("T COMMIT I BEGIN T COMMIT I", vec![(50, 70, 5, 1, Committed)]),
            ("T end", vec![]),
        ] {
            assert_eq!(outcomes(steps), expected, "{steps}");
        }
    }

    #[test]
    fn waiting_for_the_end_is_idle_time() {
        let mut blocks = Blocks::default();
        blocks.ready(Status::Idle, Timestamp(0));
        blocks.ready(Status::Open, Timestamp(10));
        blocks.answered(Timestamp(10));
        blocks.answered(Timestamp(20));
        blocks.closed(Timestamp(110));
        assert_eq!(blocks.take_ended().map(|ended| ended.idle), Some(Duration::from_nanos(100)));
    }
}
