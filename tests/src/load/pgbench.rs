//! pgbench.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Amount, Load, Report, number};
use crate::{
    layout,
    process::Launch,
    servers::{Pgbouncer, Postgres, Transport},
};

/// What a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// One SELECT; pgbench brings it along.
    SelectOnly,
    /// BEGIN, UPDATE three times, SELECT, INSERT, END; pgbench brings it along.
    TpcB,
    /// One SELECT under this many names, so that there are as many statements; in the simple protocol only, where pgbench puts its variables
    /// into the text. The clients share the names and go through them in turn.
    Distinct(u32),
    /// One SELECT in 10,000 forms, each a statement of its own to the server, too; of a table that [`Pgbench::create_wide_table`] makes. In the simple
    /// protocol only.
    Unique,
}

impl Script {
    /// pgbench's own name of it.
    fn builtin(self) -> Option<&'static str> {
        match self {
            Script::SelectOnly => Some("select-only"),
            Script::TpcB => Some("tpcb-like"),
            Script::Distinct(_) | Script::Unique => None,
        }
    }

    /// The file of one that pgbench does not bring along.
    fn file(self) -> PathBuf {
        let name = if self == Script::Unique { "unique.pgbench" } else { "distinct.pgbench" };
        layout::checkout().join("tests/src/load").join(name)
    }
}

/// How it sends statements; names as of its option `--protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Text with literals.
    Simple,
    /// Parse, Bind, Execute each time.
    Extended,
    /// Parse once, Bind and Execute each time.
    Prepared,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Simple, Protocol::Extended, Protocol::Prepared];

    fn name(self) -> &'static str {
        match self {
            Protocol::Simple => "simple",
            Protocol::Extended => "extended",
            Protocol::Prepared => "prepared",
        }
    }
}

/// A run of pgbench.
#[derive(Clone, Debug)]
pub struct Pgbench {
    /// Database.
    pub database: String,
    /// Transport.
    pub transport: Transport,
    /// Script.
    pub script: Script,
    /// Protocol.
    pub protocol: Protocol,
    /// Connections.
    pub clients: u32,
    /// How long.
    pub amount: Amount,
    /// Transactions a second, over all clients; as many as possible if not said.
    pub rate: Option<u32>,
}

impl Pgbench {
    /// Creates its tables in a database of its own: 100,000 accounts, one branch.
    pub fn initialise(server: &Postgres, database: &str) -> Result<()> {
        Pgbench::initialise_scaled(server, database, 1)
    }

    /// The same `scale` times as large: TPC-B's clients wait for each other where branches are fewer than they.
    pub fn initialise_scaled(server: &Postgres, database: &str, scale: u32) -> Result<()> {
        server.create_database(database)?;
        let launch = Launch::new(server.program("pgbench")).args(["--initialize", "--quiet", "--unlogged-tables"]);
        let launch = launch.arg(format!("--scale={scale}"));
        let launch = launch.arg("--host").arg(server.socket_dir()).arg(format!("--port={}", server.port()));
        launch.args(["--username=postgres", database]).run(Duration::from_secs(60)).map(drop)
    }

    /// Creates the table of [`Script::Unique`] in a database that is there: ten columns, 1,000 rows.
    pub fn create_wide_table(server: &Postgres, database: &str) -> Result<()> {
        let list = |column: fn(u32) -> String| (0..10).map(column).collect::<Vec<_>>().join(", ");
        let (columns, values) = (list(|n| format!("c{n} integer")), list(|n| format!("id + {n}")));
        let mut client = server.client(database)?;
        client.query(&format!("CREATE UNLOGGED TABLE wide (id integer PRIMARY KEY, {columns})"))?;
        client.query(&format!("INSERT INTO wide SELECT id, {values} FROM generate_series(1, 1000) id"))?;
        client.query("VACUUM ANALYZE wide").map(drop)
    }

    /// The statements of one transaction, from pgbench itself.
    pub fn statements(&self, server: &Postgres) -> Result<Vec<String>> {
        let Some(name) = self.script.builtin() else {
            let file = self.script.file();
            return Ok(statements_of(&fs::read_to_string(&file).with_context(|| file.display().to_string())?));
        };
        let dir = tempfile::tempdir()?;
        let log = dir.path().join("script");
        // It prints the script on standard error.
        let launch = Launch::new(server.program("pgbench")).arg(format!("--show-script={name}")).log(&log);
        launch.run(Duration::from_secs(10))?;
        let statements = statements_of(&fs::read_to_string(log)?);
        ensure!(!statements.is_empty(), "pgbench shows no statement of {name}");
        Ok(statements)
    }

    /// Starts it.
    pub fn start(&self, server: &Postgres) -> Result<Load> {
        self.start_at(server, server.socket_dir(), server.port())
    }

    /// Starts it on `pooler`, which stands in front of `server`.
    pub fn start_through(&self, pooler: &Pgbouncer, server: &Postgres) -> Result<Load> {
        self.start_at(server, pooler.socket_dir(), pooler.port())
    }

    fn start_at(&self, server: &Postgres, socket_dir: &Path, port: u16) -> Result<Load> {
        // --no-vacuum: nothing but the script's statements, the question for the scale and the partitions.
        let mut launch = Launch::new(server.program("pgbench")).args(["--no-vacuum", "--username=postgres"]).args([
            format!("--protocol={}", self.protocol.name()),
            format!("--client={}", self.clients),
            format!("--port={port}"),
        ]);
        launch = match self.script {
            Script::SelectOnly | Script::TpcB => launch.args(self.script.builtin().map(|n| format!("--builtin={n}"))),
            Script::Distinct(names) => {
                let variables = [format!("names={names}"), format!("clients={}", self.clients), "n=-1".to_owned()];
                let defined = variables.iter().map(|variable| format!("--define={variable}"));
                launch.args(defined).arg("--file").arg(self.script.file())
            }
            Script::Unique => launch.arg("--file").arg(self.script.file()),
        };
        launch = match self.transport {
            Transport::Tcp => launch.arg("--host=127.0.0.1").network(server.network()),
            Transport::Unix => launch.arg("--host").arg(socket_dir),
        };
        launch = match self.amount {
            Amount::Seconds(seconds) => launch.arg(format!("--time={seconds}")),
            Amount::Transactions(count) => launch.arg(format!("--transactions={count}")),
        };
        if let Some(rate) = self.rate {
            launch = launch.arg(format!("--rate={rate}"));
        }
        Load::start(launch.arg(&self.database), self.amount, self.statements(server)?, read)
    }

    /// Runs it to its end.
    pub fn run(&self, server: &Postgres) -> Result<Report> {
        self.start(server)?.finish()
    }
}

/// Lines that are neither comment (`--`) nor command of pgbench (`\`); the built-in scripts have one statement a line.
fn statements_of(script: &str) -> Vec<String> {
    let lines = script.lines().map(str::trim);
    let statements = lines.filter(|line| !(line.is_empty() || line.starts_with("--") || line.starts_with('\\')));
    statements.map(|line| bind(line.trim_end_matches(';'))).collect()
}

/// Replaces variables by numbered parameters, as pgbench does itself in the extended protocol.
fn bind(statement: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut parts = statement.split(':');
    let mut bound = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        bound.push_str(&format!("${}{rest}", at + 1));
    }
    bound
}

fn read(output: &str, script: &[String]) -> Result<Report> {
    let transactions = number(output, "number of transactions actually processed:")?;
    // Since version 15; before, a failed transaction ended its client and with it the run.
    let failed: u64 = number(output, "number of failed transactions:").unwrap_or(0);
    ensure!(failed == 0, "{failed} transactions failed");
    let millis: f64 = number(output, "latency average =")?;
    let rate = number(output, "tps =")?;
    Ok(Report::of(script, transactions, Duration::from_secs_f64(millis / 1e3), rate))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
pgbench (17.11)
transaction type: <builtin: TPC-B (sort of)>
scaling factor: 1
query mode: prepared
number of clients: 2
number of threads: 1
maximum number of tries: 1
duration: 1 s
number of transactions actually processed: 3061
number of failed transactions: 0 (0.000%)
latency average = 0.653 ms
initial connection time = 2.500 ms
tps = 3063.226151 (without initial connection time)
";

    #[test]
    fn a_report_multiplies_transactions_by_the_statements_of_the_script() {
        let script = ["BEGIN", "SELECT 1", "SELECT 1", "END"].map(str::to_owned);
        let report = read(OUTPUT, &script).unwrap();
        assert_eq!(report.transactions, 3061);
        assert_eq!(report.executed["SELECT 1"], 2 * 3061);
        assert_eq!((report.executed["END"], report.total()), (3061, 4 * 3061));
        assert_eq!((report.transaction_mean, report.rate), (Duration::from_micros(653), 3063.226151));
    }

    #[test]
    fn a_fixed_number_of_transactions_is_reported_with_its_goal() {
        let output = OUTPUT.replace("processed: 3061", "processed: 3061/4000");
        assert_eq!(read(&output, &["SELECT 1".to_owned()]).unwrap().transactions, 3061);
    }

    #[test]
    fn the_script_of_many_names_is_one_statement() {
        let script = std::fs::read_to_string(Script::Distinct(1).file()).unwrap();
        assert_eq!(statements_of(&script), ["SELECT abalance AS c$1 FROM pgbench_accounts WHERE aid = $2"]);
    }

    #[test]
    fn failures_and_other_texts_are_errors() {
        assert!(read(&OUTPUT.replace("failed transactions: 0", "failed transactions: 1"), &[]).is_err());
        assert!(read("pgbench: error: connection failed", &[]).is_err());
    }

    #[test]
    fn scripts_become_statements_with_parameters() {
        let script = "-- tpcb-like: <builtin>\n\\set aid random(1, 100000 * :scale)\nBEGIN;\n\
                      UPDATE t SET a = a + :delta WHERE b = :aid AND c = :delta;\nEND;\n\n";
        assert_eq!(statements_of(script), ["BEGIN", "UPDATE t SET a = a + $1 WHERE b = $2 AND c = $1", "END"]);
    }
}
