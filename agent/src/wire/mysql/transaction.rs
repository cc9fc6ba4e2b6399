//! Transactions, as the server status in OK and EOF packets tells them (`SERVER_STATUS_IN_TRANS`).
//!
//! A session that was joined late, or lost its place, is known to be outside a transaction only when the server says so; until then nothing is
//! reported.

use super::lexer;
use crate::model::{Code, Kind, Outcome, Statement, Text, Timestamp, Transaction};

/// `ER_LOCK_DEADLOCK`: the server has rolled back the whole transaction. After any other error the transaction goes on, or the status of the
/// next response tells that it does not.
const DEADLOCK: Code = Code::Mysql(1213);

/// Follows the transactions of one session.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// The server's last word.
    open: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// Nothing provable.
    #[default]
    Unknown,
    Outside,
    Inside(Open),
}

/// A transaction under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    start: Timestamp,
    /// When the server completed the last command.
    last: Timestamp,
    /// Nanoseconds between a completion and the command after it.
    idle: u64,
    statements: u64,
}

impl Open {
    fn begin(at: Timestamp) -> Open {
        Open { start: at, last: at, idle: 0, statements: 0 }
    }

    fn end(self, end: Timestamp, outcome: Outcome) -> Transaction {
        let idle = std::time::Duration::from_nanos(self.idle);
        Transaction { start: self.start, end, idle, statements: self.statements, outcome }
    }
}

/// What a completed command means for a transaction that is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// Begins one, which ends the one before.
    Begin,
    Commit,
    /// The whole transaction, not only to a savepoint.
    Rollback,
    /// Ends none by itself: if none is open behind it, an error before it has rolled it back.
    Within,
    /// Anything else; it may end one, as most statements that define data do.
    Other,
}

impl Verb {
    fn of(text: &Text) -> Verb {
        let Text::Known(text) = text else { return Verb::Other };
        let words = lexer::first_words::<3>(text.raw());
        let is = |at: usize, word: &str| words[at].eq_ignore_ascii_case(word.as_bytes());
        match () {
            () if is(0, "BEGIN") && (words[1].is_empty() || is(1, "WORK")) => Verb::Begin,
            () if is(0, "START") && is(1, "TRANSACTION") => Verb::Begin,
            () if is(0, "COMMIT") => Verb::Commit,
            () if is(0, "ROLLBACK") && (is(1, "TO") || is(1, "WORK") && is(2, "TO")) => Verb::Within,
            () if is(0, "ROLLBACK") => Verb::Rollback,
            () if ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "SAVEPOINT"].iter().any(|word| is(0, word)) => {
                Verb::Within
            }
            () => Verb::Other,
        }
    }
}

impl Transactions {
    /// Whether the server said last that a transaction is open.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The user is let in; `open` as the server says.
    pub(super) fn session_begins(&mut self, open: bool) {
        *self = Transactions { open, place: if open { Place::Unknown } else { Place::Outside } };
    }

    /// The place in the stream is lost, and with it what is open.
    pub(super) fn lose(&mut self) {
        *self = Transactions::default();
    }

    /// A command arrived at `at`: the server has waited for it.
    pub(super) fn resume(&mut self, at: Timestamp) {
        if let Place::Inside(open) = &mut self.place {
            open.idle += at.0.saturating_sub(open.last.0);
            open.last = open.last.max(at);
        }
    }

    /// A command completed. `open`: what the server says about the transaction, nothing with an error. `resets`: the command put
    /// the session back to its beginning.
    pub(super) fn complete(&mut self, statement: &Statement, open: Option<bool>, resets: bool) -> Option<Transaction> {
        let deadlock = statement.code == Some(DEADLOCK);
        if let Some(open) = open {
            self.open = open;
        } else if deadlock {
            self.open = false;
        }
        let begun = || Place::Inside(Open::begin(statement.end));
        let mut within = match (self.place, open) {
            (Place::Inside(within), _) => within,
            (_, Some(false)) => {
                self.place = Place::Outside;
                return None;
            }
            (Place::Outside, Some(true)) => {
                self.place = begun();
                return None;
            }
            (Place::Unknown, Some(true)) if Verb::of(&statement.text) == Verb::Begin => {
                self.place = begun();
                return None;
            }
            _ => return None,
        };
        within.last = within.last.max(statement.end);
        within.statements += u64::from(!matches!(statement.kind, Kind::Prepare | Kind::Utility));
        let verb = if resets { Verb::Rollback } else { Verb::of(&statement.text) };
        let outcome = match (open, verb) {
            (None, _) if deadlock => Some(Outcome::RolledBack),
            (None, _) | (Some(true), Verb::Within | Verb::Other) => None,
            (Some(true), Verb::Rollback) | (Some(false), Verb::Rollback | Verb::Within) => Some(Outcome::RolledBack),
            (Some(true), Verb::Begin | Verb::Commit) => Some(Outcome::Committed),
            (Some(false), Verb::Begin | Verb::Commit | Verb::Other) => Some(Outcome::Committed),
        };
        self.place = match (outcome, open) {
            (None, _) => Place::Inside(within),
            // COMMIT AND CHAIN, or one begun within another.
            (Some(_), Some(true)) => begun(),
            (Some(_), _) => Place::Outside,
        };
        outcome.map(|outcome| within.end(statement.end, outcome))
    }

    /// The connection ended at `at`, while the server waited for its client (`idle`) or worked.
    pub(super) fn close(&mut self, at: Timestamp, idle: bool) -> Option<Transaction> {
        if idle {
            self.resume(at);
        }
        match std::mem::take(self).place {
            Place::Inside(open) => Some(open.end(at, Outcome::Abandoned)),
            Place::Unknown | Place::Outside => None,
        }
    }
}
