//! One session: its transactions, and its statements one after the other.

use std::time::Duration;

use crate::model::{
    Ending, Timestamp,
    signal::{Execution, Situation},
};

/// What a statement does to the transaction of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    /// It opens one.
    Begin,
    /// It ends it.
    End,
    /// Neither; savepoints are within.
    None,
}

/// What a normalised text does; keywords are in lower case there.
pub(super) fn boundary(text: &str) -> Boundary {
    let mut words = text.split([' ', ';', '(']).filter(|word| !word.is_empty());
    match (words.next(), words.next()) {
        (Some("begin"), _) | (Some("start"), Some("transaction")) | (Some("xa"), Some("start" | "begin")) => {
            Boundary::Begin
        }
        (Some("rollback"), Some("to" | "prepared")) | (Some("commit"), Some("prepared")) => Boundary::None,
        (Some("rollback"), Some("work" | "transaction")) if words.next() == Some("to") => Boundary::None,
        (Some("commit" | "end" | "rollback" | "abort"), _) | (Some("prepare"), Some("transaction")) => Boundary::End,
        (Some("xa"), Some("prepare" | "commit" | "rollback")) => Boundary::End,
        _ => Boundary::None,
    }
}

/// A run of the same statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) fingerprint: u64,
    pub(super) repeats: u32,
    pub(super) total: Duration,
    /// The statement before it.
    pub(super) after: Option<u64>,
}

/// A session.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) last: Timestamp,
    /// Number of the open transaction.
    transaction: Option<u64>,
    transactions: u64,
    position: u64,
    ordinal: Option<u64>,
    run: Option<Run>,
    failed: Option<u64>,
}

impl Session {
    /// Takes up an execution that ended at `end`. Gives where it stands, and the run it belongs to.
    pub(super) fn take(&mut self, end: Timestamp, execution: &Execution) -> (Situation, Option<Run>) {
        let fingerprint = execution.digest.fingerprint;
        // Executions that are not all seen say nothing of what came right before.
        let next = match (execution.ordinal, self.ordinal) {
            (Some(own), Some(last)) => own == last + 1,
            (Some(_), None) => self.position == 0,
            (None, _) => false,
        };
        self.ordinal = execution.ordinal;
        let idle = if self.last == Timestamp::default() { Duration::ZERO } else { execution.start.since(self.last) };
        self.last = self.last.max(end);
        let boundary = boundary(&execution.digest.text);
        if boundary == Boundary::Begin && self.transaction.is_none() {
            self.transactions += 1;
            self.transaction = Some(self.transactions);
            self.position = 0;
        }
        self.position += 1;
        let retry = next && self.failed == Some(fingerprint);
        self.failed = matches!(execution.ending, Ending::Failed(_)).then_some(fingerprint);
        let run = self.run.filter(|_| next);
        let run = match run {
            Some(run) if run.fingerprint == fingerprint => {
                Run { repeats: run.repeats + 1, total: run.total + execution.duration, ..run }
            }
            before => {
                let after = before.map(|run| run.fingerprint);
                Run { fingerprint, repeats: 0, total: execution.duration, after }
            }
        };
        self.run = execution.ordinal.map(|_| run);
        let transaction = self.transaction;
        let situation = Situation { transaction, position: self.position, idle, repeats: run.repeats, retry };
        if boundary == Boundary::End && self.transaction.take().is_some() {
            self.position = 0;
        }
        (situation, self.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_of_transactions() {
        for (text, expected) in [
            ("begin", Boundary::Begin),
            ("begin isolation level serializable", Boundary::Begin),
            ("start transaction read only", Boundary::Begin),
            ("start slave", Boundary::None),
            ("commit", Boundary::End),
            ("end", Boundary::End),
            ("rollback", Boundary::End),
            ("rollback to savepoint a", Boundary::None),
            ("rollback work to savepoint a", Boundary::None),
            ("rollback transaction", Boundary::End),
            ("prepare transaction ?", Boundary::End),
            ("commit prepared ?", Boundary::None),
            ("prepare p as select ?", Boundary::None),
            ("xa start ?", Boundary::Begin),
            ("savepoint a", Boundary::None),
            ("select ? from begin", Boundary::None),
            ("", Boundary::None),
        ] {
            assert_eq!(boundary(text), expected, "{text}");
        }
    }
}
