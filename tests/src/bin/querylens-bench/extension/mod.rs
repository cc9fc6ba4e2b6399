//! What a query costs more with the extension pg_querylens.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use querylens_tests::{
    cpu::Group,
    extension::Extended,
    load::{
        Amount, Pgbench,
        pgbench::{Protocol, Script},
    },
    servers::Transport,
};
use serde_json::json;

mod rounds;
mod variant;

use self::{
    rounds::{Round, Rounds, Sample},
    variant::Variant,
};
use crate::{
    machine::Machine,
    progress::say,
    result::{Outcome, Output},
    workload::{DATABASE, SCALE, with_base},
};

/// Major version of PostgreSQL.
const MAJOR: u32 = 17;

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    output: Output,
    /// Rounds; in each, every variant runs once with every load.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// One round of runs of a second: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Numbers of connections.
    #[arg(long, num_args = 1.., default_values_t = [1, 8, 64])]
    clients: Vec<u32>,
    /// Only these loads.
    #[arg(long, value_enum, num_args = 1..)]
    workload: Vec<Workload>,
    /// Compare only these variants with nothing.
    #[arg(long, value_enum, num_args = 1..)]
    variant: Vec<Variant>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// pgbench -S, prepared once: one statement of all clients.
    SelectPrepared,
    /// 10,000 different statements in random order, as text: twice as many as pg_querylens and pg_stat_statements have room for when loaded.
    UniqueStatements,
}

impl Workload {
    const ALL: [Workload; 2] = [Workload::SelectPrepared, Workload::UniqueStatements];

    fn name(self) -> &'static str {
        match self {
            Workload::SelectPrepared => "select_prepared",
            Workload::UniqueStatements => "unique_statements",
        }
    }

    fn load(self, clients: u32, seconds: u32) -> Pgbench {
        let (script, protocol) = match self {
            Workload::SelectPrepared => (Script::SelectOnly, Protocol::Prepared),
            Workload::UniqueStatements => (Script::Unique, Protocol::Simple),
        };
        let (database, transport) = (DATABASE.to_owned(), Transport::Unix);
        Pgbench { database, transport, script, protocol, clients, amount: Amount::Seconds(seconds), rate: None }
    }
}

impl Options {
    fn workloads(&self) -> Vec<Workload> {
        let wanted = |workload: &Workload| self.workload.is_empty() || self.workload.contains(workload);
        Workload::ALL.into_iter().filter(wanted).collect()
    }

    fn variants(&self) -> Vec<Variant> {
        let wanted = |variant: &Variant| {
            self.variant.is_empty() || self.variant.contains(variant) || *variant == Variant::Nothing
        };
        Variant::ALL.into_iter().filter(wanted).collect()
    }
}

/// The benchmark.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::read();
    // Everything started from here on, and nothing else, is in the figures of CPU per query.
    let group = Group::enter()?;
    let most = options.clients.iter().copied().max().unwrap_or(1);
    say("starting the server");
    let mut server = start(most)?;
    let memory = server.info("memory_bytes")?;
    let (rounds, seconds) = if options.quick { (1, 1) } else { (options.rounds, options.seconds) };
    let mut measured = Rounds::default();
    for number in 1..=rounds {
        for workload in options.workloads() {
            let mut order = options.variants();
            fastrand::shuffle(&mut order);
            let mut round = Round::new();
            for variant in order {
                variant.begin(&mut server, most)?;
                let samples = options.clients.iter().map(|clients| {
                    let sample = sample(&server, &workload.load(*clients, seconds), &group);
                    Ok((*clients, sample.with_context(|| format!("{} with {}", workload.name(), variant.name()))?))
                });
                round.insert(variant, samples.collect::<Result<BTreeMap<u32, Sample>>>()?);
            }
            say(&format!("round {number} of {rounds}, {}: {}", workload.name(), rounds::line(&round)));
            measured.add(workload, round);
        }
    }
    let version = server.server.version().to_owned();
    drop(server);
    drop(group);
    let method = format!(
        "PostgreSQL {version}; connections over a Unix socket from the same machine; {rounds} rounds with runs of {seconds} s at the maximum. \
         pg_querylens has {:.1} MiB of memory for {most} connections",
        memory as f64 / f64::from(1 << 20),
    );
    let summary = json!({
        "benchmark": "querylens", "workloads": measured.summary(), "memory_bytes": memory, "quick": options.quick,
    });
    let raw = json!({ "rounds": measured.raw(), "postgresql": version });
    let outcome = Outcome { benchmark: "querylens", method, summary, raw, tables: measured.tables() };
    outcome.publish(&machine, options.output)
}

/// A server with the extension and the tables of all loads. Without autovacuum: it would hit some of the rounds and not others.
fn start(clients: u32) -> Result<Extended> {
    let settings = with_base(clients, Vec::new());
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let server = Extended::start(MAJOR, "'pg_querylens'", &settings)?;
    Pgbench::initialise_scaled(&server.server, DATABASE, SCALE)?;
    Pgbench::create_wide_table(&server.server, DATABASE)?;
    Ok(server)
}

/// One run. CPU time is that of server and load generator together, connecting included.
fn sample(server: &Extended, load: &Pgbench, group: &Group) -> Result<Sample> {
    let before = group.used()?;
    let report = load.run(&server.server)?;
    let cpu_us = (group.used()? - before).as_secs_f64() * 1e6 / report.total() as f64;
    Ok(Sample { tps: report.rate, cpu_us })
}
