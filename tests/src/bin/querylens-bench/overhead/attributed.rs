//! The cost of a query from its parts: time in the agent's programs, the way into them, and the agent's own CPU time.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Result;
use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    bpf::{self, Program, RunStatistics},
    cpu,
    process::sleep,
};
use serde_json::{Value, json};

use super::{AFTERMATH, HEADLINE, Plan, RATE, Resolved};
use crate::{
    calibration::{Calibration, Hook},
    progress::say,
    result,
    statistics::rounded,
    workload::{Intensity, Servers, Workload},
};

/// What one load cost with one strategy.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    workload: Workload,
    strategy: String,
    /// It is the one that `auto` takes.
    auto: bool,
    rate: Option<u32>,
    queries: u64,
    seconds: f64,
    /// Microseconds in programs, net of the statistics; may be below zero by their noise where programs do next to nothing.
    program_us: f64,
    /// Microseconds on the way into programs.
    hook_us: f64,
    /// Microseconds of the agent's process.
    agent_us: f64,
    programs: Vec<Program>,
}

/// Everything that a strategy costs at one moment.
struct Reading {
    programs: BTreeMap<u32, Program>,
    agent_us: f64,
}

impl Reading {
    fn take(pid: u32) -> Result<Reading> {
        let programs = bpf::programs(pid)?.into_iter().map(|program| (program.id, program)).collect();
        Ok(Reading { programs, agent_us: cpu::process_time(pid)?.as_secs_f64() * 1e6 })
    }

    /// What the programs did since `before`.
    fn since(&self, before: &Reading) -> Vec<Program> {
        let difference = |(id, now): (&u32, &Program)| {
            let earlier = before.programs.get(id);
            let runs = now.runs - earlier.map_or(0, |program| program.runs);
            let time = now.time - earlier.map_or_else(Default::default, |program| program.time);
            Program { runs, time, ..now.clone() }
        };
        self.programs.iter().map(difference).filter(|program| program.runs > 0).collect()
    }
}

/// Runs every workload with every strategy at the fixed rate and at the maximum.
pub(super) fn measure(
    servers: &mut Servers,
    plan: &Plan,
    resolved: &Resolved,
    calibration: &Calibration,
) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for choice in ["auto", "socket", "boundary", "syscall"] {
        let wanted = |workload: &&Workload| choice == "auto" || choice != resolved.of(workload.engine());
        let workloads: Vec<Workload> = plan.workloads.iter().filter(wanted).copied().collect();
        if workloads.is_empty() || !kernel_supports(choice) {
            continue;
        }
        let agent = Agent::start(AgentOptions::capture(choice))?;
        for pid in servers.pids() {
            agent.wait_visible(pid)?;
        }
        agent.wait_steady()?;
        let _statistics = RunStatistics::enable()?;
        for workload in workloads {
            // What is paid once, such as a new statement's text, is not what a query costs.
            servers.run(workload, Intensity { clients: plan.clients, seconds: 1, rate: None })?;
            for rate in [Some(RATE), None] {
                let seconds = plan.attributed_seconds;
                let before = Reading::take(agent.pid())?;
                let start = Instant::now();
                let report = servers.run(workload, Intensity { clients: plan.clients, seconds, rate })?;
                sleep(AFTERMATH)?;
                let after = Reading::take(agent.pid())?;
                let elapsed = start.elapsed().as_secs_f64();
                let agent_us = after.agent_us - before.agent_us;
                let programs = after.since(&before);
                let (program_us, hook_us) = split(&programs, calibration);
                let cell = Cell {
                    workload,
                    strategy: if choice == "auto" { resolved.of(workload.engine()) } else { choice }.to_owned(),
                    auto: choice == "auto",
                    rate,
                    queries: report.total(),
                    seconds: elapsed,
                    program_us,
                    hook_us,
                    agent_us,
                    programs,
                };
                say(&cell.line());
                cells.push(cell);
            }
        }
        agent.stop()?;
    }
    Ok(cells)
}

/// Microseconds in programs, net of the statistics, and on the way into them.
fn split(programs: &[Program], calibration: &Calibration) -> (f64, f64) {
    let mut sums = (0.0, 0.0);
    for program in programs {
        let runs = program.runs as f64;
        sums.0 += program.time.as_nanos() as f64 - runs * calibration.counting();
        sums.1 += runs * calibration.passing(Hook::of(program));
    }
    (sums.0 / 1e3, sums.1 / 1e3)
}

impl Cell {
    /// Whether its cost is the headline.
    pub(super) fn is_headline(&self) -> bool {
        self.auto && self.workload == HEADLINE && self.rate.is_none()
    }

    fn total_us(&self) -> f64 {
        self.program_us + self.hook_us + self.agent_us
    }

    fn each(&self, micros: f64) -> f64 {
        micros / self.queries as f64
    }

    fn runs(&self) -> u64 {
        self.programs.iter().map(|program| program.runs).sum()
    }

    /// The agent's CPU time in per cent of one core.
    fn agent_percent(&self) -> f64 {
        self.agent_us / self.seconds / 1e4
    }

    fn rate_name(&self) -> String {
        self.rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string())
    }

    fn line(&self) -> String {
        format!(
            "{} by {}, {}: {:.3} µs a query (programs {:.3}, hooks {:.3}, agent {:.3}), {:.0} queries/s, {:.1} runs a query",
            self.workload.name(),
            self.strategy,
            self.rate_name(),
            self.each(self.total_us()),
            self.each(self.program_us),
            self.each(self.hook_us),
            self.each(self.agent_us),
            self.queries as f64 / self.seconds,
            self.each(self.runs() as f64),
        )
    }

    /// Per query.
    pub(super) fn json(&self) -> Value {
        json!({
            "workload": self.workload.name(),
            "strategy": self.strategy,
            "auto": self.auto,
            "rate": self.rate_name(),
            "queries_per_s": rounded(self.queries as f64 / self.seconds, 0),
            "total_us": rounded(self.each(self.total_us()), 3),
            "program_us": rounded(self.each(self.program_us), 3),
            "hook_us": rounded(self.each(self.hook_us), 3),
            "agent_us": rounded(self.each(self.agent_us), 3),
            "agent_cpu_percent": rounded(self.agent_percent(), 2),
            "runs_per_query": rounded(self.each(self.runs() as f64), 2),
        })
    }

    /// As measured.
    pub(super) fn raw(&self) -> Value {
        let programs = self.programs.iter().map(|program| {
            json!({ "name": program.name, "runs": program.runs, "time_ns": u64::try_from(program.time.as_nanos()).ok() })
        });
        json!({
            "workload": self.workload.name(),
            "strategy": self.strategy,
            "rate": self.rate_name(),
            "queries": self.queries,
            "seconds": self.seconds,
            "agent_us": self.agent_us,
            "programs": programs.collect::<Vec<_>>(),
        })
    }
}

/// Microseconds a query.
pub(super) fn table(cells: &[Cell]) -> String {
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|cell| {
            let strategy = if cell.auto { format!("{} (auto)", cell.strategy) } else { cell.strategy.clone() };
            let mut row = vec![cell.workload.name().to_owned(), strategy, cell.rate_name()];
            row.push(format!("{:.0}", cell.queries as f64 / cell.seconds));
            row.extend(
                [cell.total_us(), cell.program_us, cell.hook_us, cell.agent_us]
                    .map(|micros| format!("{:.3}", cell.each(micros))),
            );
            row.push(format!("{:.2}", cell.each(cell.runs() as f64)));
            row.push(format!("{:.2}", cell.agent_percent()));
            row
        })
        .collect();
    let head = [
        "workload",
        "strategy",
        "rate",
        "queries/s",
        "total µs",
        "programs µs",
        "hooks µs",
        "agent µs",
        "runs a query",
        "agent % of a core",
    ];
    format!("Attributed cost of a query:\n\n{}", result::table(&head, &rows))
}
