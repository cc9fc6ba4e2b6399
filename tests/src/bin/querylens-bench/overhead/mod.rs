//! `bench overhead`: what a query costs more with the agent, attributed to its parts and compared with running without it.

use std::time::Duration;

use anyhow::{Context, Result};
use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    cpu::Group,
};
use serde_json::{Value, json};

use crate::{
    calibration::Calibration,
    machine::Machine,
    progress::say,
    result::{Outcome, Output},
    workload::{Servers, Workload},
};

mod attributed;
mod comparison;
mod variant;

use comparison::{Block, Comparison};
use variant::Variant;

/// Statements a second of the measurements at a fixed rate.
const RATE: u32 = 10_000;
/// The workload whose figures are the headline.
const HEADLINE: Workload = Workload::SelectPrepared;

/// Arguments of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    output: Output,
    /// Rounds of the comparison; in each, every variant runs once, in random order.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Further rounds of the headline: throughput of select_prepared with nothing, querylens and pg_stat_statements alone.
    #[arg(long, default_value_t = 25)]
    headline_rounds: u32,
    /// Short runs and few rounds, in about four minutes: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_enum, num_args = 1..)]
    workload: Vec<Workload>,
    /// Compare only these variants with nothing.
    #[arg(long, value_enum, num_args = 1..)]
    variant: Vec<Variant>,
    /// Connections of each load.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Seconds of each run of the comparison.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
}

/// What the options come down to.
struct Plan {
    workloads: Vec<Workload>,
    clients: u32,
    attributed_seconds: u32,
    blocks: Vec<Block>,
}

impl Options {
    fn workloads(&self) -> Vec<Workload> {
        let chosen = |workload: &Workload| self.workload.is_empty() || self.workload.contains(workload);
        Workload::COSTLY.into_iter().filter(chosen).collect()
    }

    /// `resolved` is what `auto` chose: the same strategy chosen by name would be measured twice.
    fn plan(&self, resolved: &Resolved) -> Plan {
        let workloads = self.workloads();
        let seconds = if self.quick { 1 } else { self.seconds };
        let mut blocks = Vec::new();
        for &workload in &workloads {
            if self.quick && ![HEADLINE, Workload::SysbenchPrepared].contains(&workload) {
                continue;
            }
            let of_workload = |variant: &Variant| {
                let wanted = self.variant.is_empty() || self.variant.contains(variant) || *variant == Variant::Nothing;
                let twice = variant.strategy().is_some_and(|strategy| strategy == resolved.of(workload.engine()));
                let possible = variant.strategy().is_none_or(kernel_supports);
                wanted && possible && !twice && variant.exists_for(workload.engine())
            };
            let variants = Variant::ALL.into_iter().filter(of_workload).collect();
            let rounds = if self.quick { self.rounds.min(2) } else { self.rounds };
            blocks.push(Block { workload, variants, rounds, seconds, fixed_rate: Some(RATE) });
        }
        if workloads.contains(&HEADLINE) && !self.quick && self.headline_rounds > 0 {
            let headline = [Variant::Nothing, Variant::Querylens, Variant::PgStatStatements];
            let wanted = |variant: &Variant| {
                self.variant.is_empty() || self.variant.contains(variant) || *variant == Variant::Nothing
            };
            let variants = headline.into_iter().filter(wanted).collect();
            blocks.push(Block {
                workload: HEADLINE,
                variants,
                rounds: self.headline_rounds,
                seconds,
                fixed_rate: None,
            });
        }
        Plan { workloads, clients: self.clients, attributed_seconds: if self.quick { 2 } else { 5 }, blocks }
    }
}

/// The strategy that `auto` takes on this machine.
struct Resolved {
    postgres: String,
    mariadb: String,
}

impl Resolved {
    fn ask(servers: &mut Servers, workloads: &[Workload]) -> Result<Resolved> {
        let agent = Agent::start(AgentOptions::capture("auto"))?;
        let mut strategy = |engine| {
            if !workloads.iter().any(|workload| workload.engine() == engine) {
                return Ok(String::new());
            }
            let pid = servers.pid(engine)?;
            let status = agent.wait_visible(pid)?;
            Ok::<_, anyhow::Error>(status.instance(pid).context("the server is gone")?.wire.strategy.clone())
        };
        Ok(Resolved { postgres: strategy(Engine::Postgresql)?, mariadb: strategy(Engine::Mariadb)? })
    }

    fn of(&self, engine: Engine) -> &str {
        if engine == Engine::Postgresql { &self.postgres } else { &self.mariadb }
    }
}

/// The benchmark.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::read();
    say("calibrating the hooks");
    let calibration = Calibration::measure()?;
    say(&calibration.sentence());
    // Everything started from here on, and nothing else, is in the figures of CPU per query.
    let group = Group::enter()?;
    say("starting the servers");
    let mut servers = Servers::start(&options.workloads(), options.clients, Vec::new(), false)?;
    let resolved = Resolved::ask(&mut servers, &options.workloads())?;
    let plan = options.plan(&resolved);

    let cells = attributed::measure(&mut servers, &plan, &resolved, &calibration)?;
    let mut comparison = Comparison::default();
    for block in &plan.blocks {
        comparison.measure(&mut servers, block, plan.clients, &group)?;
    }

    let attributed: Vec<Value> = cells.iter().map(attributed::Cell::json).collect();
    let headline = cells.iter().find(|cell| cell.is_headline()).map(attributed::Cell::json).unwrap_or_default();
    let summary = json!({
        "benchmark": "overhead",
        // The sum, and its parts.
        "attributed_us_per_query": {
            "querylens": headline["total_us"],
            "programs": headline["program_us"],
            "hooks": headline["hook_us"],
            "agent": headline["agent_us"],
        },
        "attributed": attributed,
        "ab": comparison.summary(),
        "auto": { "postgresql": resolved.postgres, "mariadb": resolved.mariadb },
        "quick": options.quick,
    });
    let raw = json!({
        "calibration": calibration.json(),
        "attributed": cells.iter().map(attributed::Cell::raw).collect::<Vec<_>>(),
        "comparison": comparison.raw(),
        "servers": servers.versions(),
    });
    let method = format!(
        "{}; {} connections over TCP on the same machine; attributed: {} s a cell; comparison: {} rounds of {} s a run, {} more for the \
         throughput of {}. {}",
        servers.versions().join(", "),
        plan.clients,
        plan.attributed_seconds,
        plan.blocks.first().map_or(0, |block| block.rounds),
        plan.blocks.first().map_or(0, |block| block.seconds),
        plan.blocks.iter().filter(|block| block.fixed_rate.is_none()).map(|block| block.rounds).sum::<u32>(),
        HEADLINE.name(),
        calibration.sentence(),
    );
    let tables = format!("{}\n{}", attributed::table(&cells), comparison.table());
    drop(servers);
    drop(group);
    Outcome { benchmark: "overhead", method, summary, raw, tables }.publish(&machine, options.output)
}

/// Time for what is on its way when a load ends: the agent looks at its buffer at least so often.
const AFTERMATH: Duration = Duration::from_millis(100);
