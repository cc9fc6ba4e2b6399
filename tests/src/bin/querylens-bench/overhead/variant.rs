//! What is compared: ways to watch a server, and not watching it.

use std::{ffi::CString, os::unix::ffi::OsStrExt, time::Duration};

use anyhow::{Context, Result, ensure};
use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions},
    process::{Launch, Process, wait_for},
};
use tempfile::TempDir;

use crate::workload::{DATABASE, Servers, with_base};

/// A way to watch a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Variant {
    /// The server alone.
    Nothing,
    /// The same once more: what chance does.
    NothingAgain,
    /// The agent as installed.
    Querylens,
    /// The agent with this strategy.
    QuerylensSocket,
    /// The agent with this strategy.
    QuerylensBoundary,
    /// The agent with this strategy.
    QuerylensSyscall,
    /// The server's own statistics, as they are when loaded.
    PgStatStatements,
    /// auto_explain with log_analyze, writing plans of statements over 100 ms.
    AutoExplain,
    /// tcpdump; on MariaDB with pt-query-digest reading it, which does not know PostgreSQL's protocol.
    Tcpdump,
}

impl Variant {
    /// All of them.
    pub(super) const ALL: [Variant; 9] = [
        Variant::Nothing,
        Variant::NothingAgain,
        Variant::Querylens,
        Variant::QuerylensSocket,
        Variant::QuerylensBoundary,
        Variant::QuerylensSyscall,
        Variant::PgStatStatements,
        Variant::AutoExplain,
        Variant::Tcpdump,
    ];

    /// In results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Variant::Nothing => "nothing",
            Variant::NothingAgain => "nothing_again",
            Variant::Querylens => "querylens",
            Variant::QuerylensSocket => "querylens_socket",
            Variant::QuerylensBoundary => "querylens_boundary",
            Variant::QuerylensSyscall => "querylens_syscall",
            Variant::PgStatStatements => "pg_stat_statements",
            Variant::AutoExplain => "auto_explain",
            Variant::Tcpdump => "tcpdump",
        }
    }

    /// In tables, which also say what else runs on that engine.
    pub(super) fn label(self, engine: Engine) -> &'static str {
        match (self, engine) {
            (Variant::Tcpdump, Engine::Postgresql) => "tcpdump alone",
            (Variant::Tcpdump, _) => "tcpdump, pt-query-digest",
            _ => self.name(),
        }
    }

    /// The agent's strategy, where it is chosen by name.
    pub(super) fn strategy(self) -> Option<&'static str> {
        match self {
            Variant::QuerylensSocket => Some("socket"),
            Variant::QuerylensBoundary => Some("boundary"),
            Variant::QuerylensSyscall => Some("syscall"),
            _ => None,
        }
    }

    /// Whether it can watch servers of an engine.
    pub(super) fn exists_for(self, engine: Engine) -> bool {
        !matches!(self, Variant::PgStatStatements | Variant::AutoExplain) || engine == Engine::Postgresql
    }

    /// Settings of PostgreSQL.
    fn settings(self) -> Vec<(String, String)> {
        let settings: &[(&str, &str)] = match self {
            Variant::PgStatStatements => &[("shared_preload_libraries", "'pg_stat_statements'")],
            Variant::AutoExplain => &[
                ("shared_preload_libraries", "'auto_explain'"),
                ("auto_explain.log_analyze", "on"),
                ("auto_explain.log_min_duration", "'100ms'"),
            ],
            _ => &[],
        };
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Makes the server of `engine` run with it, and starts what watches from outside.
    ///
    /// One and the same PostgreSQL is restarted for each run of each variant, also where no setting changes: all have the same files, and none
    /// keeps the luck of one placement in memory through all rounds, as servers of their own would.
    pub(super) fn begin(self, servers: &mut Servers, engine: Engine, clients: u32) -> Result<Watcher> {
        if engine == Engine::Postgresql {
            let server = servers.postgres()?;
            server.restart(with_base(clients, self.settings()))?;
            let mut client = server.client(DATABASE)?;
            client.query("CREATE EXTENSION IF NOT EXISTS pg_prewarm")?;
            let tables = "relname ~ '^pgbench_' AND relkind IN ('r', 'i') AND pg_relation_size(oid) > 0";
            client.query(&format!("SELECT sum(pg_prewarm(oid)) FROM pg_class WHERE {tables}"))?;
        }
        match self {
            Variant::Nothing | Variant::NothingAgain | Variant::PgStatStatements | Variant::AutoExplain => {
                Ok(Watcher::Nobody)
            }
            Variant::Querylens | Variant::QuerylensSocket | Variant::QuerylensBoundary | Variant::QuerylensSyscall => {
                let agent = Agent::start(AgentOptions::capture(self.strategy().unwrap_or("auto")))?;
                agent.wait_visible(servers.pid(engine)?)?;
                Ok(Watcher::Agent(Box::new(agent)))
            }
            Variant::Tcpdump => {
                Capture::start(servers.port(engine)?, engine).map(|capture| Watcher::Capture(Box::new(capture)))
            }
        }
    }
}

/// What watches from outside; ended on drop.
pub(super) enum Watcher {
    /// Nothing outside the server.
    Nobody,
    /// The agent.
    Agent(Box<Agent>),
    /// tcpdump and what reads it.
    Capture(Box<Capture>),
}

impl Watcher {
    /// Ends it; returns what it says it missed, if it says.
    pub(super) fn end(self) -> Result<Option<u64>> {
        match self {
            Watcher::Nobody => Ok(None),
            Watcher::Agent(agent) => {
                let missed = agent.status()?.agent.events_lost;
                agent.stop()?;
                Ok(Some(missed))
            }
            Watcher::Capture(capture) => capture.end().map(Some),
        }
    }
}

/// tcpdump on the loopback interface, as pt-query-digest's manual asks for it.
pub(super) struct Capture {
    tcpdump: Process,
    reader: Option<Process>,
    _dir: TempDir,
}

impl Capture {
    fn start(port: u16, engine: Engine) -> Result<Capture> {
        let dir = tempfile::tempdir()?;
        let (pipe, log) = (dir.path().join("pipe"), dir.path().join("tcpdump"));
        let arguments = ["-i", "lo", "-s", "0", "-l", "-x", "-nn", "-q", "-tttt", "tcp", "and", "port"];
        let tcpdump = Launch::new("tcpdump").args(arguments).arg(port.to_string()).log(&log);
        let (reader, tcpdump) = if engine == Engine::Postgresql {
            (None, tcpdump.stdout("/dev/null".as_ref()))
        } else {
            let path = CString::new(pipe.as_os_str().as_bytes())?;
            // SAFETY: the path is a C string that lives until the call returns.
            ensure!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) } == 0, "cannot make {}", pipe.display());
            let server = format!("--watch-server=127.0.0.1:{port}");
            let digest = Launch::new("pt-query-digest").args(["--type", "tcpdump", "--no-version-check", &server]);
            let reader = digest.arg(&pipe).log(&dir.path().join("digest")).start()?;
            (Some(reader), tcpdump.stdout(&pipe))
        };
        let mut tcpdump = tcpdump.start()?;
        wait_for("tcpdump to listen", Duration::from_secs(10), || {
            tcpdump.check_running()?;
            Ok(tcpdump.log().contains("listening on").then_some(()))
        })?;
        Ok(Capture { tcpdump, reader, _dir: dir })
    }

    /// Packets that tcpdump did not keep up with.
    fn end(mut self) -> Result<u64> {
        // It says so when it is interrupted; a pipe whose reader is behind would keep it from ending.
        drop(self.reader.take());
        let _ended_by_the_closed_pipe_or_the_signal = self.tcpdump.end(libc::SIGINT, Duration::from_secs(5));
        let log = self.tcpdump.log();
        let line = log.lines().find_map(|line| line.trim().strip_suffix("packets dropped by kernel"));
        Ok(line.map(|count| count.trim().parse().context("tcpdump's count")).transpose()?.unwrap_or(0))
    }
}
