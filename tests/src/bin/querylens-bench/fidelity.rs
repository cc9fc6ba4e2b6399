//! `bench fidelity`: whether every statement is counted, and timed as the server times it, with as much load as the machine gives.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    load::{Report, fingerprint},
    oracle::{self, Counted},
    status::{InstanceStatus, Status},
};
use serde_json::{Value, json};

use crate::{
    machine::Machine,
    progress::say,
    result::{self, Outcome, Output},
    statistics::rounded,
    workload::{DATABASE, Intensity, Servers, Workload},
};

/// Connections of the loads.
const CLIENTS: [u32; 4] = [1, 8, 64, 500];
/// Those of the loads with the smallest ring, of one page.
const SMALL_RING_CLIENTS: u32 = 64;
const SMALL_RING_BYTES: u32 = 4096;

/// Arguments of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    output: Output,
    /// One second a load, with 8 and 500 connections only.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_enum, num_args = 1..)]
    workload: Vec<Workload>,
    /// Only these strategies.
    #[arg(long, num_args = 1.., default_values = ["socket", "boundary", "syscall"])]
    strategy: Vec<String>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
}

/// All workloads; the text form of sysbench for its durations, since MariaDB keeps no digest of what was prepared.
const WORKLOADS: [Workload; 6] = [
    Workload::SelectSimple,
    Workload::SelectExtended,
    Workload::SelectPrepared,
    Workload::TpcbPrepared,
    Workload::SysbenchPrepared,
    Workload::SysbenchText,
];

/// One load with one strategy.
struct Cell {
    workload: Workload,
    strategy: String,
    clients: u32,
    /// The ring, where it is not the default.
    ring_bytes: Option<u32>,
    executed: u64,
    counted: u64,
    /// Statements whose number is not exact.
    wrong: usize,
    queries_per_s: f64,
    /// Mean durations of the script's statements in microseconds: by the agent, by the server.
    mean_us: Option<(f64, f64)>,
    /// What the agent says it lost meanwhile, by cause.
    losses: BTreeMap<String, u64>,
}

/// The benchmark.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::read();
    let chosen = |workload: &Workload| options.workload.is_empty() || options.workload.contains(workload);
    let workloads: Vec<Workload> = WORKLOADS.into_iter().filter(chosen).collect();
    let clients: &[u32] = if options.quick { &[8, 500] } else { &CLIENTS };
    let seconds = if options.quick { 1 } else { options.seconds };
    say("starting the servers");
    let settings = [
        ("shared_preload_libraries", "'pg_stat_statements'"),
        // What the agent times includes planning.
        ("pg_stat_statements.track_planning", "on"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut servers = Servers::start(&workloads, 500, settings, true)?;
    let mut cells = Vec::new();
    for strategy in options.strategy.iter().filter(|strategy| kernel_supports(strategy)) {
        for ring_bytes in [None, Some(SMALL_RING_BYTES)] {
            let agent = start_agent(strategy, ring_bytes, &servers)?;
            let clients = if ring_bytes.is_some() { &[SMALL_RING_CLIENTS] } else { clients };
            for &workload in &workloads {
                for &clients in clients {
                    // pgbench's time runs while it connects.
                    let intensity = Intensity { clients, seconds: seconds + clients / 100, rate: None };
                    let cell = measure(&mut servers, &agent, workload, intensity)?;
                    let cell = Cell { strategy: strategy.clone(), ring_bytes, ..cell };
                    say(&cell.line());
                    cells.push(cell);
                }
            }
            agent.stop()?;
        }
    }
    let method = format!(
        "{}; pgbench and sysbench at the maximum, {seconds} s a load, over TCP on the same machine. Executed: by the load generator's report; \
         counted: by the agent, statement by statement. Durations: means over the script's statements, by the agent and by \
         pg_stat_statements (planning and execution) or performance_schema",
        servers.versions().join(", ")
    );
    drop(servers);
    let summary = json!({
        "benchmark": "fidelity",
        "ratio": ratios(&cells),
        "cells": cells.iter().map(Cell::json).collect::<Vec<_>>(),
        "quick": options.quick,
    });
    let raw = cells.iter().map(Cell::json).collect();
    Outcome { benchmark: "fidelity", method, summary, raw, tables: table(&cells) }.publish(&machine, options.output)
}

fn start_agent(strategy: &str, ring_bytes: Option<u32>, servers: &Servers) -> Result<Agent> {
    let mut options = AgentOptions::capture(strategy);
    if let Some(bytes) = ring_bytes {
        options.configuration = Some(format!("capture:\n  ring_bytes: {bytes}\n"));
    }
    let agent = Agent::start(options)?;
    for pid in servers.pids() {
        agent.wait_visible(pid)?;
    }
    Ok(agent)
}

/// Runs one load and compares.
fn measure(servers: &mut Servers, agent: &Agent, workload: Workload, intensity: Intensity) -> Result<Cell> {
    let engine = workload.engine();
    let pid = servers.pid(engine)?;
    forget(servers, engine)?;
    let before = agent.settled()?;
    let report = servers.run(workload, intensity)?;
    let after = agent.settled()?;
    let (earlier, now) = (instance(&before, pid)?, instance(&after, pid)?);
    let comparison = report.compare(engine, &now.since(earlier));
    Ok(Cell {
        workload,
        strategy: String::new(),
        clients: intensity.clients,
        ring_bytes: None,
        executed: report.total(),
        counted: comparison.counted,
        wrong: comparison.differences.len(),
        queries_per_s: report.rate * report.total() as f64 / report.transactions as f64,
        mean_us: own_mean(&report, engine, earlier, now).zip(server_mean(servers, &report, engine)?),
        losses: losses(&before, &after, earlier, now),
    })
}

fn instance(status: &Status, pid: u32) -> Result<&InstanceStatus> {
    status.instance(pid).context("the agent does not know the server any more")
}

/// Lets the server's statistics begin anew.
fn forget(servers: &mut Servers, engine: Engine) -> Result<()> {
    match engine {
        Engine::Postgresql => oracle::reset_pg_stat_statements(servers.postgres()?),
        Engine::Mariadb | Engine::Mysql => {
            let mut client = servers.mariadb()?.client()?;
            client.query("TRUNCATE performance_schema.events_statements_summary_by_digest").map(drop)
        }
    }
}

/// Mean duration in microseconds of the script's statements between two states, by the agent.
fn own_mean(report: &Report, engine: Engine, before: &InstanceStatus, now: &InstanceStatus) -> Option<f64> {
    let wanted: Vec<String> = timed(report).map(|text| fingerprint(engine, text)).collect();
    let sum = |status: &InstanceStatus| {
        let rows = status.statements.iter().filter(|row| wanted.contains(&row.fingerprint));
        rows.fold((0, 0.0), |(count, total), row| (count + row.executions, total + row.total_ms))
    };
    let ((count_before, total_before), (count, total)) = (sum(before), sum(now));
    (count > count_before).then(|| (total - total_before) * 1e3 / (count - count_before) as f64)
}

/// The same by the server; `None` where it keeps none, as MariaDB of prepared statements.
fn server_mean(servers: &mut Servers, report: &Report, engine: Engine) -> Result<Option<f64>> {
    let counted = match engine {
        Engine::Postgresql => oracle::pg_stat_statements(servers.postgres()?, DATABASE)?,
        Engine::Mariadb | Engine::Mysql => oracle::statement_digests(servers.mariadb()?)?,
    };
    let known: Option<Vec<&Counted>> = timed(report).map(|text| counted.get(&oracle::canonical(text))).collect();
    Ok(known.filter(|known| !known.is_empty()).and_then(|known| {
        let calls: u64 = known.iter().map(|row| row.calls).sum();
        let total: Duration = known.iter().map(|row| row.mean.mul_f64(row.calls as f64)).sum();
        (calls > 0).then(|| total.as_secs_f64() * 1e6 / calls as f64)
    }))
}

/// The statements whose durations are compared: pg_stat_statements does not count each BEGIN and END that is prepared.
fn timed(report: &Report) -> impl Iterator<Item = &String> {
    report.executed.keys().filter(|text| oracle::counts_executions(text, true))
}

/// What was lost between two states, by the whole agent and on this server's sessions.
fn losses(before: &Status, after: &Status, earlier: &InstanceStatus, now: &InstanceStatus) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (old, new) in [(&before.agent.losses, &after.agent.losses), (&earlier.losses, &now.losses)] {
        for (cause, count) in new {
            let lost = count - old.get(cause).copied().unwrap_or(0);
            if lost > 0 {
                sums.insert(cause.clone(), lost);
            }
        }
    }
    sums
}

impl Cell {
    fn ratio(&self) -> f64 {
        self.counted as f64 / self.executed as f64
    }

    /// Microseconds by which the agent's mean is longer.
    fn error_us(&self) -> Option<f64> {
        self.mean_us.map(|(own, server)| own - server)
    }

    fn ring(&self) -> String {
        self.ring_bytes.map_or_else(|| "default".to_owned(), |bytes| format!("{bytes} bytes"))
    }

    fn line(&self) -> String {
        let error = self.error_us().map(|micros| format!(", mean {micros:+.1} µs")).unwrap_or_default();
        format!(
            "{} by {}, {} connections, ring {}: {} of {} counted ({:.6}) at {:.0}/s{error} {:?}",
            self.workload.name(),
            self.strategy,
            self.clients,
            self.ring(),
            self.counted,
            self.executed,
            self.ratio(),
            self.queries_per_s,
            self.losses
        )
    }

    fn json(&self) -> Value {
        json!({
            "workload": self.workload.name(),
            "strategy": self.strategy,
            "connections": self.clients,
            "ring_bytes": self.ring_bytes,
            "executed": self.executed,
            "counted": self.counted,
            "ratio": rounded(self.ratio(), 6),
            "statements_wrong": self.wrong,
            "queries_per_s": rounded(self.queries_per_s, 0),
            "mean_us": self.mean_us.map(|(own, _)| rounded(own, 2)),
            "server_mean_us": self.mean_us.map(|(_, server)| rounded(server, 2)),
            "error_us": self.error_us().map(|micros| rounded(micros, 2)),
            "losses": self.losses,
        })
    }
}

/// The ratio furthest from one of each workload and strategy; rings of one page by themselves.
fn ratios(cells: &[Cell]) -> Value {
    let mut worst: BTreeMap<&str, BTreeMap<String, f64>> = BTreeMap::new();
    for cell in cells {
        let ring = if cell.ring_bytes.is_some() { "_small_ring" } else { "" };
        let ratios = worst.entry(cell.workload.name()).or_default();
        let ratio = ratios.entry(format!("{}{ring}", cell.strategy)).or_insert(1.0);
        if (cell.ratio() - 1.0).abs() > (*ratio - 1.0).abs() {
            *ratio = cell.ratio();
        }
    }
    let rounded = worst.into_iter().map(|(workload, ratios)| {
        let ratios: serde_json::Map<_, _> =
            ratios.into_iter().map(|(strategy, ratio)| (strategy, rounded(ratio, 6))).collect();
        (workload.to_owned(), Value::Object(ratios))
    });
    Value::Object(rounded.collect())
}

fn table(cells: &[Cell]) -> String {
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|cell| {
            let losses: Vec<String> = cell.losses.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
            let micros = |micros: Option<f64>| micros.map(|micros| format!("{micros:.1}")).unwrap_or_default();
            vec![
                cell.workload.name().to_owned(),
                cell.strategy.clone(),
                cell.clients.to_string(),
                cell.ring(),
                format!("{:.0}", cell.queries_per_s),
                cell.executed.to_string(),
                cell.counted.to_string(),
                format!("{:.6}", cell.ratio()),
                micros(cell.mean_us.map(|(own, _)| own)),
                micros(cell.mean_us.map(|(_, server)| server)),
                losses.join(", "),
            ]
        })
        .collect();
    let head = [
        "workload",
        "strategy",
        "connections",
        "ring",
        "queries/s",
        "executed",
        "counted",
        "ratio",
        "mean µs, agent",
        "mean µs, server",
        "lost",
    ];
    format!("Executed and counted:\n\n{}", result::table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(counted: u64, ring_bytes: Option<u32>) -> Cell {
        Cell {
            workload: Workload::SelectSimple,
            strategy: "socket".to_owned(),
            clients: 8,
            ring_bytes,
            executed: 1_000_000,
            counted,
            wrong: 0,
            queries_per_s: 1.0,
            mean_us: Some((12.5, 10.0)),
            losses: BTreeMap::new(),
        }
    }

    #[test]
    fn the_worst_ratio_is_told_whether_too_few_or_too_many_were_counted() {
        let cells = [cell(1_000_000, None), cell(1_000_003, None), cell(999_999, None), cell(999_000, Some(4096))];
        let expected = json!({ "select_simple": { "socket": 1.000003, "socket_small_ring": 0.999 } });
        assert_eq!(ratios(&cells), expected);
        assert_eq!(cells[0].json()["error_us"], 2.5);
    }
}
