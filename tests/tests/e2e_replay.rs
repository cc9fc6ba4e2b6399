//! Guarantee: of a capture that tcpdump makes of the loopback interface, with its large segments, `querylens replay` counts each statement exactly as
//! often as the load generator ran it, and follows everything.
//!
//! Not proven here: other link layers, losses, disorder; see tests/replay.rs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path, process::ExitCode, time::Duration};

use querylens::{
    cli::replay::{Args, Rank, run},
    model::Engine,
};
use querylens_tests::{
    load::{
        Amount, Pgbench, Report, Sysbench,
        pgbench::{Protocol, Script},
    },
    process::{Launch, Process, sleep, wait_for},
    servers::{MysqldOptions, Postgres, PostgresOptions, Transport, mariadb},
};
use tempfile::TempDir;

/// tcpdump at work on the loopback interface.
struct Capture {
    dir: TempDir,
    tcpdump: Process,
}

impl Capture {
    fn start(port: u16) -> Capture {
        let dir = tempfile::tempdir().unwrap();
        // It hands packets on as they come, so that the file's growth tells when all are there.
        let arguments = ["-i", "lo", "-s", "0", "-U", "--immediate-mode", "--buffer-size=262144", "-Z", "root", "-w"];
        let launch = Launch::new("tcpdump").args(arguments).arg(dir.path().join("capture")).args(["tcp", "port"]);
        let tcpdump = launch.arg(port.to_string()).log(&dir.path().join("log")).start().unwrap();
        let listening = || Ok(tcpdump.log().contains("listening on").then_some(()));
        wait_for("tcpdump to listen", Duration::from_secs(10), listening).unwrap();
        Capture { dir, tcpdump }
    }

    /// Ends it once it has written everything, and returns the lines of `querylens replay --json`.
    fn replayed(mut self) -> Vec<serde_json::Value> {
        let file = self.dir.path().join("capture");
        let mut length = 0;
        wait_for("the capture to be complete", Duration::from_secs(60), || {
            sleep(Duration::from_millis(500))?;
            let before = std::mem::replace(&mut length, fs::metadata(&file)?.len());
            Ok((before == length && length > 0).then_some(()))
        })
        .unwrap();
        self.tcpdump.end(libc::SIGINT, Duration::from_secs(10)).unwrap();
        let log = self.tcpdump.log();
        assert!(log.contains("\n0 packets dropped by kernel"), "{log}");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&arguments(&file), &mut out, &mut err).unwrap();
        assert_eq!(code, ExitCode::SUCCESS, "{}", String::from_utf8_lossy(&err));
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

fn arguments(file: &Path) -> Args {
    let (json, raw_text, limit, order) = (true, false, 0, Rank::Total);
    Args { file: file.to_owned(), json, raw_text, limit, order, engine: None, port: Vec::new() }
}

#[track_caller]
fn assert_counted(what: &str, engine: Engine, report: &Report, lines: &[serde_json::Value]) {
    let mut executed: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines {
        assert_eq!(line["engine"], engine.name(), "{what}: {line}");
        assert_eq!(line["status"], "ok", "{what}: {line}");
        if ["simple", "execute"].contains(&line["kind"].as_str().unwrap()) {
            *executed.entry(line["fingerprint"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    let comparison = report.compare(engine, &executed);
    assert!(comparison.differences.is_empty(), "{what}: {:#?}", comparison.differences);
    assert!(comparison.counted > 100, "{what}: {} statements are no test", comparison.counted);
}

#[test]
#[ignore = "needs root, tcpdump and database servers; run by cargo xtask test"]
fn pgbench_on_postgresql() {
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    for protocol in Protocol::ALL {
        let capture = Capture::start(server.port());
        let (database, amount, script) = ("bench".to_owned(), Amount::Transactions(300), Script::TpcB);
        let load = Pgbench { database, transport: Transport::Tcp, script, protocol, clients: 4, amount, rate: None };
        let report = load.run(&server).unwrap();
        assert_counted(&format!("{protocol:?}"), Engine::Postgresql, &report, &capture.replayed());
    }
}

#[test]
#[ignore = "needs root, tcpdump and database servers; run by cargo xtask test"]
fn sysbench_on_mariadb() {
    let server = mariadb::start(&MysqldOptions::default()).unwrap();
    Sysbench::initialise(&server).unwrap();
    for prepared in [true, false] {
        let capture = Capture::start(server.port().unwrap());
        let load =
            Sysbench { transport: Transport::Tcp, prepared, clients: 4, amount: Amount::Transactions(100), rate: None };
        let report = load.run(&server).unwrap();
        assert_counted(&format!("prepared {prepared}"), Engine::Mariadb, &report, &capture.replayed());
    }
}
