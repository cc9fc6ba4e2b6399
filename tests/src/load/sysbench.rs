//! sysbench with its read-only OLTP script, on MariaDB and MySQL.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use querylens::model::Engine;

use super::{Amount, Load, Report, after, number};
use crate::{
    process::Launch,
    servers::{Mysqld, Transport, mysqld::DATABASE},
};

/// Statements of one transaction of oltp_read_only with its default options and one table (oltp_common.lua: `stmt_defs`; point_selects = 10,
/// every kind of range once).
const TRANSACTION: &[(&str, usize)] = &[
    ("BEGIN", 1),
    ("SELECT c FROM sbtest1 WHERE id=?", 10),
    ("SELECT c FROM sbtest1 WHERE id BETWEEN ? AND ?", 1),
    ("SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN ? AND ?", 1),
    ("SELECT c FROM sbtest1 WHERE id BETWEEN ? AND ? ORDER BY c", 1),
    ("SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN ? AND ? ORDER BY c", 1),
    ("COMMIT", 1),
];

/// A run of sysbench.
#[derive(Clone, Debug)]
pub struct Sysbench {
    /// Transport.
    pub transport: Transport,
    /// Server-side prepared statements; else text with literals (`--db-ps-mode=disable`).
    pub prepared: bool,
    /// Connections.
    pub clients: u32,
    /// How long.
    pub amount: Amount,
    /// Transactions a second, over all clients; as many as possible if not said.
    pub rate: Option<u32>,
}

impl Sysbench {
    /// Creates its table.
    pub fn initialise(server: &Mysqld) -> Result<()> {
        let launch = launch(server, Transport::Unix)?.arg("prepare");
        launch.run(Duration::from_secs(120)).map(drop)
    }

    /// Starts it.
    pub fn start(&self, server: &Mysqld) -> Result<Load> {
        let mode = if self.prepared { "auto" } else { "disable" };
        let (time, events) = match self.amount {
            Amount::Seconds(seconds) => (seconds, 0),
            Amount::Transactions(count) => (0, count * self.clients),
        };
        let launch = launch(server, self.transport)?.args([
            format!("--db-ps-mode={mode}"),
            format!("--threads={}", self.clients),
            format!("--time={time}"),
            format!("--events={events}"),
            // 0 is its word for no limit.
            format!("--rate={}", self.rate.unwrap_or(0)),
            "run".to_owned(),
        ]);
        let script = TRANSACTION.iter().flat_map(|(text, times)| std::iter::repeat_n((*text).to_owned(), *times));
        let mut load = Load::start(launch, self.amount, script.collect(), read)?;
        if self.prepared && server.engine() == Engine::Mysql {
            // MySQL prepares no BEGIN (ER_UNSUPPORTED_PS, 1295); sysbench tries on each connection, and from then on sends it as text.
            load.refused = self.clients.into();
        }
        Ok(load)
    }

    /// Runs it to its end.
    pub fn run(&self, server: &Mysqld) -> Result<Report> {
        self.start(server)?.finish()
    }
}

fn launch(server: &Mysqld, transport: Transport) -> Result<Launch> {
    let fixed = ["oltp_read_only", "--db-driver=mysql", "--tables=1", "--table-size=1000"];
    let launch = Launch::new("sysbench").args(fixed).arg(format!("--mysql-db={DATABASE}"));
    Ok(launch.args(server.client_arguments("--mysql-", transport)?))
}

fn read(output: &str, script: &[String]) -> Result<Report> {
    for label in ["ignored errors:", "reconnects:"] {
        let count: u64 = number(output, label)?;
        ensure!(count == 0, "{label} {count}");
    }
    let transactions = number(output, "transactions:")?;
    let millis: f64 = number(output, "avg:")?;
    let (_, rate) = after(output, "transactions:")?.split_once('(').context("no rate behind the transactions")?;
    let rate = rate.split(' ').next().unwrap_or_default().parse().context("rate of transactions")?;
    let report = Report::of(script, transactions, Duration::from_secs_f64(millis / 1e3), rate);
    // Its own total over all statements: the script above is then the one that it ran.
    let queries: u64 = number(output, "total:")?;
    ensure!(
        queries == report.total(),
        "sysbench counts {queries} queries, {transactions} times its script {}",
        report.total()
    );
    Ok(report)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
SQL statistics:
    queries performed:
        read:                            84000
        write:                           0
        other:                           12000
        total:                           96000
    transactions:                        6000   (2996.95 per sec.)
    queries:                             96000  (47951.22 per sec.)
    ignored errors:                      0      (0.00 per sec.)
    reconnects:                          0      (0.00 per sec.)

General statistics:
    total time:                          2.0010s
    total number of events:              6000

Latency (ms):
         min:                                    0.54
         avg:                                    0.67
         max:                                    4.29
";

    fn script() -> Vec<String> {
        TRANSACTION.iter().flat_map(|(text, times)| std::iter::repeat_n((*text).to_owned(), *times)).collect()
    }

    #[test]
    fn a_report_agrees_with_the_total_of_sysbench() {
        let report = read(OUTPUT, &script()).unwrap();
        assert_eq!((report.transactions, report.total()), (6000, 96_000));
        assert_eq!(report.executed["SELECT c FROM sbtest1 WHERE id=?"], 60_000);
        assert_eq!((report.transaction_mean, report.rate), (Duration::from_micros(670), 2996.95));
    }

    #[test]
    fn another_total_and_errors_are_refused() {
        assert!(read(&OUTPUT.replace("96000\n    trans", "96001\n    trans"), &script()).is_err());
        assert!(read(&OUTPUT.replace("errors:                      0", "errors:   3"), &script()).is_err());
    }
}
