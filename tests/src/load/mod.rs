//! Load generators. What they say they ran is ground truth: it comes from the client's side, from programs that are not ours.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use querylens::{model::Engine, sql::Normaliser};
use tempfile::TempDir;

use crate::process::{Launch, Process};

pub mod mysqlslap;
pub mod pgbench;
pub mod sysbench;

pub use mysqlslap::Mysqlslap;
pub use pgbench::Pgbench;
pub use sysbench::Sysbench;

/// How long a load runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Until the time is over; a transaction that has begun is finished.
    Seconds(u32),
    /// This many transactions of each client.
    Transactions(u32),
}

/// What a load generator says when it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Executions per statement, spelled as the generator's script spells it.
    pub executed: BTreeMap<String, u64>,
    /// Mean duration of a transaction, seen by the client.
    pub transaction_mean: Duration,
    /// Transactions.
    pub transactions: u64,
    /// Transactions a second, without the time that connecting took.
    pub rate: f64,
    /// Statements that the server refused and the generator goes on without; it does not report them.
    pub refused: u64,
}

impl Report {
    /// `transactions` times the statements of a script, at `rate` of them a second.
    fn of(script: &[String], transactions: u64, transaction_mean: Duration, rate: f64) -> Report {
        let mut executed = BTreeMap::new();
        for statement in script {
            *executed.entry(statement.clone()).or_default() += transactions;
        }
        Report { executed, transaction_mean, transactions, rate, refused: 0 }
    }

    /// Executions over all statements.
    pub fn total(&self) -> u64 {
        self.executed.values().sum()
    }

    /// Compares with successful executions per fingerprint that the agent counted: what differs, and how much it counted of these statements in all.
    ///
    /// The same statements are meant: those of the generator's script, recognised by the fingerprint of their text. A dedicated database would
    /// not tell them apart from what the generator itself asks at its start (pgbench: the scale and the partitions; client libraries:
    /// settings), which no report of a generator counts. Each statement is compared by itself, so that two faults cannot cancel out.
    pub fn compare(&self, engine: Engine, by_fingerprint: &BTreeMap<String, u64>) -> Comparison {
        // Several spellings may be one statement to the agent.
        let mut statements: BTreeMap<String, Difference> = BTreeMap::new();
        for (text, executed) in &self.executed {
            let fingerprint = fingerprint(engine, text);
            let counted = by_fingerprint.get(&fingerprint).copied().unwrap_or(0);
            let new = || Difference { statement: text.clone(), executed: 0, counted };
            statements.entry(fingerprint).or_insert_with(new).executed += executed;
        }
        let counted = statements.values().map(|statement| statement.counted).sum();
        let differences =
            statements.into_values().filter(|statement| statement.executed != statement.counted).collect();
        Comparison { counted, differences }
    }
}

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Executions of the script's statements that the agent counted.
    pub counted: u64,
    /// Statements whose number differs; empty if all were counted exactly.
    pub differences: Vec<Difference>,
}

/// A statement that was not counted as often as it was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// As the script spells it.
    pub statement: String,
    /// By the load generator.
    pub executed: u64,
    /// By the agent.
    pub counted: u64,
}

/// Fingerprint of a statement as the agent's status writes it.
pub fn fingerprint(engine: Engine, text: &str) -> String {
    format!("{:016x}", Normaliser::default().digest(engine, text.as_bytes(), false).fingerprint)
}

/// A load generator at work; ended on drop.
#[derive(Debug)]
pub struct Load {
    process: Process,
    read: fn(&str, &[String]) -> Result<Report>,
    script: Vec<String>,
    refused: u64,
    patience: Duration,
    _dir: TempDir,
}

impl Load {
    /// Starts it; `read` turns what it prints at the end into a report, given the statements of one transaction.
    fn start(
        launch: Launch,
        amount: Amount,
        script: Vec<String>,
        read: fn(&str, &[String]) -> Result<Report>,
    ) -> Result<Load> {
        let dir = tempfile::tempdir()?;
        let process = launch.stdout(&dir.path().join("out")).log(&dir.path().join("err")).start()?;
        let patience = match amount {
            Amount::Seconds(seconds) => Duration::from_secs(u64::from(seconds) + 30),
            Amount::Transactions(_) => Duration::from_secs(180),
        };
        Ok(Load { process, read, script, refused: 0, patience, _dir: dir })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Whether it is done.
    pub fn is_done(&mut self) -> Result<bool> {
        Ok(self.process.status()?.is_some())
    }

    /// Waits until it is done, and fails if any statement failed.
    pub fn finish(self) -> Result<Report> {
        let name = self.process.name().to_owned();
        let output = self.process.finish(self.patience)?;
        let mut report = (self.read)(&output, &self.script).with_context(|| format!("report of {name}:\n{output}"))?;
        ensure!(report.transactions > 0, "{name} ran nothing:\n{output}");
        report.refused = self.refused;
        Ok(report)
    }
}

/// What follows `label` on the line that has it.
fn after<'a>(output: &'a str, label: &str) -> Result<&'a str> {
    let line = output.lines().find_map(|line| line.split_once(label));
    Ok(line.with_context(|| format!("there is no `{label}`"))?.1.trim())
}

/// The number that follows `label`; what comes behind it, a unit or a total, is ignored.
fn number<T: std::str::FromStr>(output: &str, label: &str) -> Result<T> {
    let rest = after(output, label)?;
    let digits = rest.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap_or_default();
    digits.parse().ok().with_context(|| format!("no number after `{label}`: {rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_cancel_out_in_the_sum_are_found() {
        let engine = Engine::Postgresql;
        let script = ["SELECT a FROM t", "DELETE FROM t"].map(str::to_owned);
        let report = Report::of(&script, 10, Duration::ZERO, 1.0);
        let counts =
            |a, b| BTreeMap::from([(fingerprint(engine, &script[0]), a), (fingerprint(engine, &script[1]), b)]);
        let exact = report.compare(engine, &counts(10, 10));
        assert_eq!((exact.counted, exact.differences), (20, Vec::new()));
        let wrong = report.compare(engine, &counts(11, 9));
        assert_eq!((wrong.counted, wrong.differences.len()), (20, 2));
        assert_eq!(report.compare(engine, &BTreeMap::new()).counted, 0);
    }
}
