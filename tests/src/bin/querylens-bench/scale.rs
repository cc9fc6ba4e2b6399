//! `bench scale`: the agent's CPU time and memory against what it has to watch.

use std::time::{Duration, Instant};

use anyhow::Result;
use querylens_tests::{
    agent::{Agent, AgentOptions},
    bpf, cpu,
    load::{
        Amount, Load, Pgbench,
        pgbench::{Protocol, Script},
    },
    process::{sleep, wait_for},
    servers::{Postgres, PostgresOptions, Transport},
};
use serde_json::{Value, json};

use crate::{
    growth,
    machine::Machine,
    progress::say,
    result::{self, Outcome, Output},
    statistics::rounded,
    svg::{self, Panel},
    workload::{DATABASE, start_postgres},
};

/// Statements a second where something else than the rate is varied.
const TRICKLE: u32 = 1000;
/// Bound on statements with which all that are run are told apart, beside the default.
const RAISED_BOUND: u32 = 200_000;

/// Arguments of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    output: Output,
    /// Two or three points a curve, two seconds each.
    #[arg(long)]
    quick: bool,
    /// Only these curves.
    #[arg(long, value_enum, num_args = 1..)]
    only: Vec<Dimension>,
    /// Seconds of watching at each point.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Instead of the curves: how memory grows over this many minutes with 10,000 fingerprints and 1,000 connections.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=600))]
    minutes: Option<u32>,
}

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dimension {
    /// Queries a second.
    Rate,
    /// Connections, most of them idle.
    Connections,
    /// Statements that differ.
    Fingerprints,
    /// Servers.
    Servers,
}

impl Dimension {
    const ALL: [Dimension; 4] = [Dimension::Rate, Dimension::Connections, Dimension::Fingerprints, Dimension::Servers];

    fn name(self) -> &'static str {
        match self {
            Dimension::Rate => "rate",
            Dimension::Connections => "connections",
            Dimension::Fingerprints => "fingerprints",
            Dimension::Servers => "servers",
        }
    }

    /// Name of the axis.
    fn axis(self) -> &'static str {
        match self {
            Dimension::Rate => "queries a second",
            Dimension::Connections => "connections",
            Dimension::Fingerprints => "different statements",
            Dimension::Servers => "servers",
        }
    }

    /// The other things, which stay.
    fn fixed(self) -> &'static str {
        match self {
            Dimension::Rate => "pgbench -S prepared, 8 connections",
            Dimension::Connections => "pgbench -S prepared, 1,000 queries/s over all connections",
            Dimension::Fingerprints => {
                "pgbench in the simple protocol, 8 connections, 1,000 queries/s once all were run"
            }
            Dimension::Servers => "PostgreSQL with one connection each, 1,000 queries/s over all servers",
        }
    }

    /// Where to look; for the rate, `u32::MAX` is the maximum.
    fn places(self, quick: bool) -> &'static [u32] {
        match (self, quick) {
            (Dimension::Rate, false) => &[0, 1000, 5000, 10_000, 20_000, 40_000, u32::MAX],
            (Dimension::Rate, true) => &[0, 10_000, u32::MAX],
            (Dimension::Connections, false) => &[1, 100, 500, 1000, 2000],
            (Dimension::Connections, true) => &[1, 500],
            (Dimension::Fingerprints, false) => &[10, 1000, 10_000, 100_000],
            (Dimension::Fingerprints, true) => &[10, 10_000],
            (Dimension::Servers, false) => &[1, 5, 20, 50],
            (Dimension::Servers, true) => &[1, 5],
        }
    }
}

/// What the agent used at one place of a curve.
#[derive(Clone, Copy, Debug)]
struct Point {
    dimension: Dimension,
    x: f64,
    /// The bound on statements, where it is not the default.
    bound: Option<u32>,
    usage: Usage,
}

/// What the agent used over some seconds.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Per cent of one core.
    cpu_percent: f64,
    /// Resident memory of the process at the end.
    rss_mib: f64,
    /// Kernel memory of its eBPF maps.
    maps_mib: f64,
}

impl Usage {
    /// Watches the agent's process from outside, and asks it nothing meanwhile.
    fn over(agent: &Agent, seconds: u32) -> Result<Usage> {
        let (start, before) = (Instant::now(), cpu::process_time(agent.pid())?);
        sleep(Duration::from_secs(seconds.into()))?;
        let used = cpu::process_time(agent.pid())? - before;
        Ok(Usage {
            cpu_percent: used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0,
            rss_mib: mib(cpu::resident_bytes(agent.pid())?),
            maps_mib: mib(bpf::map_bytes(agent.pid())),
        })
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The benchmark.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(minutes) = options.minutes {
        return growth::run(minutes, options.output);
    }
    let machine = Machine::read();
    let seconds = if options.quick { 2 } else { options.seconds };
    let chosen = |dimension: &Dimension| options.only.is_empty() || options.only.contains(dimension);
    say("starting the first server");
    let mut points = Vec::new();
    for dimension in Dimension::ALL.into_iter().filter(chosen) {
        let new = match dimension {
            Dimension::Rate => rates(options.quick, seconds)?,
            Dimension::Connections => connections(options.quick, seconds)?,
            Dimension::Fingerprints => fingerprints(options.quick, seconds)?,
            Dimension::Servers => servers(options.quick, seconds)?,
        };
        points.extend(new);
    }
    let pictures: Vec<(String, String)> =
        Dimension::ALL.into_iter().filter(chosen).map(|of| (of.name().to_owned(), picture(of, &points))).collect();
    let drawn: Vec<String> = pictures.iter().map(|(name, _)| format!("![{name}](benchmarks/{name}.svg)")).collect();
    let method = format!(
        "PostgreSQL 17 over TCP on the same machine, a new agent for each point, watched for {seconds} s. CPU: of the agent's process; memory: \
         resident set of the process, and the kernel's figure for its eBPF maps"
    );
    let json: Vec<Value> = points.iter().map(Point::json).collect();
    let summary = json!({ "benchmark": "scale", "points": json, "quick": options.quick });
    let tables = format!("{}\n{}", drawn.join("\n"), table(&points));
    let outcome = Outcome { benchmark: "scale", method, summary, raw: json!(json), tables };
    outcome.publish(&machine, options.output)?;
    result::keep_pictures(&pictures, options.output)
}

fn rates(quick: bool, seconds: u32) -> Result<Vec<Point>> {
    let server = start_postgres(20, Vec::new())?;
    let mut points = Vec::new();
    for &rate in Dimension::Rate.places(quick) {
        let agent = watch(&[&server], None)?;
        let load = match rate {
            0 => None,
            rate => Some(select(8, seconds + 3, (rate < u32::MAX).then_some(rate)).start(&server)?),
        };
        sleep(Duration::from_secs(1))?;
        let usage = Usage::over(&agent, seconds)?;
        let reached = load.map(Load::finish).transpose()?.map_or(0.0, |report| report.rate);
        points.push(Point::new(Dimension::Rate, reached, None, usage));
    }
    Ok(points)
}

fn connections(quick: bool, seconds: u32) -> Result<Vec<Point>> {
    let places = Dimension::Connections.places(quick);
    let server = start_postgres(places.iter().copied().max().unwrap_or(0), Vec::new())?;
    let mut points = Vec::new();
    for &clients in places {
        let agent = watch(&[&server], None)?;
        let _load = connect(&server, select(clients, 600, Some(TRICKLE)))?;
        let usage = Usage::over(&agent, seconds)?;
        points.push(Point::new(Dimension::Connections, f64::from(clients), None, usage));
    }
    Ok(points)
}

fn fingerprints(quick: bool, seconds: u32) -> Result<Vec<Point>> {
    let server = start_postgres(20, Vec::new())?;
    let mut points = Vec::new();
    for bound in [None, Some(RAISED_BOUND)] {
        for &names in Dimension::Fingerprints.places(quick) {
            let agent = watch(&[&server], bound)?;
            // All of them once.
            distinct(8, names, Amount::Transactions(names.div_ceil(8)), None).run(&server)?;
            let amount = Amount::Seconds(seconds + 3);
            let load = distinct(8, names, amount, Some(TRICKLE)).start(&server)?;
            sleep(Duration::from_secs(1))?;
            let usage = Usage::over(&agent, seconds)?;
            load.finish()?;
            points.push(Point::new(Dimension::Fingerprints, f64::from(names), bound, usage));
        }
    }
    Ok(points)
}

fn servers(quick: bool, seconds: u32) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    let mut servers = Vec::new();
    for &count in Dimension::Servers.places(quick) {
        while servers.len() < count as usize {
            servers.push(small_server()?);
        }
        let agent = watch(&servers.iter().collect::<Vec<_>>(), None)?;
        let load = select(1, 600, Some((TRICKLE / count).max(1)));
        let _loads = servers.iter().map(|server| connect(server, load.clone())).collect::<Result<Vec<Load>>>()?;
        let usage = Usage::over(&agent, seconds)?;
        points.push(Point::new(Dimension::Servers, f64::from(count), None, usage));
    }
    Ok(points)
}

/// One of many: little memory, few connections.
fn small_server() -> Result<Postgres> {
    let settings = [("shared_buffers", "2MB"), ("max_connections", "10"), ("max_wal_senders", "0")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = Postgres::start(PostgresOptions { settings, ..PostgresOptions::new(17) })?;
    Pgbench::initialise(&server, DATABASE)?;
    Ok(server)
}

/// An agent as installed but for the bound on statements, which sees these servers.
pub(crate) fn watch(servers: &[&Postgres], max_statements: Option<u32>) -> Result<Agent> {
    let mut options = AgentOptions::capture("auto");
    if let Some(bound) = max_statements {
        options.configuration = Some(format!("aggregate:\n  max_statements: {bound}\n"));
    }
    let agent = Agent::start(options)?;
    for server in servers {
        agent.wait_visible(server.pid())?;
    }
    agent.wait_steady()?;
    Ok(agent)
}

/// pgbench -S prepared.
fn select(clients: u32, seconds: u32, rate: Option<u32>) -> Pgbench {
    let (script, protocol) = (Script::SelectOnly, Protocol::Prepared);
    let database = DATABASE.to_owned();
    Pgbench { database, transport: Transport::Tcp, script, protocol, clients, amount: Amount::Seconds(seconds), rate }
}

/// Different statements.
pub(crate) fn distinct(clients: u32, names: u32, amount: Amount, rate: Option<u32>) -> Pgbench {
    Pgbench { script: Script::Distinct(names), protocol: Protocol::Simple, amount, ..select(clients, 0, rate) }
}

/// Starts a load and waits until all its connections are there and have been served for a second.
pub(crate) fn connect(server: &Postgres, load: Pgbench) -> Result<Load> {
    let mut running = load.start(server)?;
    let mut client = server.client("postgres")?;
    let question = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    wait_for("all connections of the load", Duration::from_secs(120), || {
        running.process().check_running()?;
        Ok((client.value(&question)?.parse::<u32>()? >= load.clients).then_some(()))
    })?;
    sleep(Duration::from_secs(1))?;
    Ok(running)
}

impl Point {
    fn new(dimension: Dimension, x: f64, bound: Option<u32>, usage: Usage) -> Point {
        let Usage { cpu_percent, rss_mib, maps_mib } = usage;
        let bounded = bound.map(|bound| format!(" (bound {bound})")).unwrap_or_default();
        say(&format!(
            "{x:.0} {}{bounded}: {cpu_percent:.2} % of a core, {rss_mib:.1} MiB resident, {maps_mib:.1} MiB of maps",
            dimension.axis()
        ));
        Point { dimension, x, bound, usage }
    }

    fn json(&self) -> Value {
        json!({
            "dimension": self.dimension.name(),
            "x": rounded(self.x, 0),
            "max_statements": self.bound,
            "cpu_percent": rounded(self.usage.cpu_percent, 3),
            "rss_mib": rounded(self.usage.rss_mib, 2),
            "maps_mib": rounded(self.usage.maps_mib, 2),
        })
    }
}

/// CPU time and memory side by side.
fn picture(dimension: Dimension, points: &[Point]) -> String {
    let curve = |name: &str, bound: Option<u32>, of: fn(&Usage) -> f64| {
        let mut curve: Vec<(f64, f64)> = points
            .iter()
            .filter(|point| point.dimension == dimension && point.bound == bound)
            .map(|point| (point.x, of(&point.usage)))
            .collect();
        curve.sort_by(|a, b| a.0.total_cmp(&b.0));
        (name.to_owned(), curve)
    };
    let (mut cpu, mut memory) = (
        vec![curve("default bound", None, |usage| usage.cpu_percent)],
        vec![curve("process", None, |usage| usage.rss_mib), curve("eBPF maps", None, |usage| usage.maps_mib)],
    );
    if dimension == Dimension::Fingerprints {
        cpu.push(curve("bound raised", Some(RAISED_BOUND), |usage| usage.cpu_percent));
        memory.push(curve("process, bound raised", Some(RAISED_BOUND), |usage| usage.rss_mib));
    }
    let panel = |title: &str, unit: &str, curves| Panel {
        title: title.to_owned(),
        x: dimension.axis().to_owned(),
        y: unit.to_owned(),
        logarithmic: dimension == Dimension::Fingerprints,
        curves,
    };
    svg::render(&[panel("CPU of the agent", "% of one core", cpu), panel("Memory of the agent", "MiB", memory)])
}

fn table(points: &[Point]) -> String {
    let of = |dimension: Dimension| {
        let rows: Vec<Vec<String>> = points
            .iter()
            .filter(|point| point.dimension == dimension)
            .map(|Point { x, bound, usage, .. }| {
                let bound = bound.map(|bound| format!(" (bound {bound})")).unwrap_or_default();
                vec![
                    format!("{x:.0}{bound}"),
                    format!("{:.2}", usage.cpu_percent),
                    format!("{:.1}", usage.rss_mib),
                    format!("{:.1}", usage.maps_mib),
                ]
            })
            .collect();
        let head = [dimension.axis(), "CPU, % of a core", "resident, MiB", "eBPF maps, MiB"];
        (!rows.is_empty()).then(|| format!("{}:\n\n{}", dimension.fixed(), result::table(&head, &rows)))
    };
    Dimension::ALL.into_iter().filter_map(of).collect::<Vec<_>>().join("\n")
}
