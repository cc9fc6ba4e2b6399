//! mariadb-slap (mysqlslap): the vendor's own client library, and statements of one's choice.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Amount, Load, Report, number};
use crate::{
    process::Launch,
    servers::{Mysqld, Transport, mysqld::DATABASE},
};

/// What its sessions are wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// Nothing.
    None,
    /// TLS, whatever certificate the server has.
    Tls,
    /// Protocol compression (zlib).
    Compression,
}

/// A run of mysqlslap: one statement again and again, as text.
#[derive(Clone, Debug)]
pub struct Mysqlslap {
    /// Transport.
    pub transport: Transport,
    /// What its sessions are wrapped in.
    pub wrapping: Wrapping,
    /// The statement.
    pub statement: String,
    /// Connections.
    pub clients: u32,
    /// Executions on each of them.
    pub executions: u32,
}

impl Mysqlslap {
    /// Starts it.
    pub fn start(&self, server: &Mysqld) -> Result<Load> {
        // --no-drop and a schema that exists: otherwise it creates and drops one of its own.
        let launch = Launch::new("mariadb-slap").args(["--no-defaults", "--no-drop"]).args([
            format!("--create-schema={DATABASE}"),
            format!("--query={}", self.statement),
            format!("--concurrency={}", self.clients),
            format!("--number-of-queries={}", self.clients * self.executions),
        ]);
        let wrapping: &[&str] = match self.wrapping {
            Wrapping::None => &["--skip-ssl"],
            Wrapping::Tls => &["--ssl", "--disable-ssl-verify-server-cert"],
            Wrapping::Compression => &["--skip-ssl", "--compress"],
        };
        let launch = launch.args(wrapping).args(server.client_arguments("--", self.transport)?);
        Load::start(launch, Amount::Transactions(self.executions), vec![self.statement.clone()], read)
    }

    /// Runs it to its end.
    pub fn run(&self, server: &Mysqld) -> Result<Report> {
        self.start(server)?.finish()
    }
}

fn read(output: &str, script: &[String]) -> Result<Report> {
    let clients: u64 = number(output, "Number of clients running queries:")?;
    let each: u64 = number(output, "Average number of queries per client:")?;
    let seconds: f64 = number(output, "Average number of seconds to run all queries:")?;
    ensure!(each > 0, "no query was run");
    let transactions = clients * each;
    // Its clock is rough: a run may take no time at all.
    let rate = transactions as f64 / seconds.max(0.001);
    Ok(Report::of(script, transactions, Duration::from_secs_f64(seconds / each as f64), rate))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        let output = "Benchmark\n\tAverage number of seconds to run all queries: 0.500 seconds\n\
                      \tNumber of clients running queries: 4\n\tAverage number of queries per client: 250\n";
        let report = read(output, &["SELECT 1".to_owned()]).unwrap();
        assert_eq!((report.total(), report.transaction_mean), (1000, Duration::from_millis(2)));
        assert!(read("mariadb-slap: Cannot run query", &[]).is_err());
    }
}
