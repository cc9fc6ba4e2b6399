//! `querylens replay`: the statements of a packet capture.

mod json;
mod report;

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::ValueEnum;

use super::{DEGRADED, FINE};
use crate::{
    model::{Engine, printable},
    replay::{
        Choice, Coverage, Error, Execution, Sink,
        profile::{Order, Profile},
        replay,
    },
};

/// Show the statements of a packet capture
///
/// Reads pcap and pcapng, also compressed by gzip, and prints the statements ranked by the time they took. Record with
/// `tcpdump -i any -s 0 -w FILE.pcap port 5432 or port 3306`. Exit code 1 means that something could not be followed; the output says what.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The capture; `-` is standard input
    pub file: PathBuf,
    /// Print one line of JSON for each statement, in the order in which they complete
    #[arg(long)]
    pub json: bool,
    /// Show texts as captured, with their literals: for eyes on this machine only
    #[arg(long)]
    pub raw_text: bool,
    /// Statements shown
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "json")]
    pub limit: usize,
    /// What statements are ranked by
    #[arg(long, value_enum, default_value_t = Rank::Total, conflicts_with = "json")]
    pub order: Rank,
    /// What the servers speak, instead of finding out: at the ports of --port, or else the only engine to look for
    #[arg(long, value_enum)]
    pub engine: Option<Speaks>,
    /// Port of a server; connections to other ports are left alone. May be given several times
    #[arg(long, value_name = "PORT")]
    pub port: Vec<u16>,
}

/// What statements are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rank {
    /// Time of all executions
    Total,
    /// Number of executions
    Calls,
    /// Mean time
    Mean,
    /// Longest time
    Max,
    /// Number of failures
    Errors,
}

impl From<Rank> for Order {
    fn from(rank: Rank) -> Order {
        match rank {
            Rank::Total => Order::Total,
            Rank::Calls => Order::Calls,
            Rank::Mean => Order::Mean,
            Rank::Max => Order::Max,
            Rank::Errors => Order::Errors,
        }
    }
}

/// An engine, as its option names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Speaks {
    /// PostgreSQL
    #[value(alias = "postgres")]
    Postgresql,
    /// MySQL
    Mysql,
    /// MariaDB
    Mariadb,
}

impl From<Speaks> for Engine {
    fn from(speaks: Speaks) -> Engine {
        match speaks {
            Speaks::Postgresql => Engine::Postgresql,
            Speaks::Mysql => Engine::Mysql,
            Speaks::Mariadb => Engine::Mariadb,
        }
    }
}

/// Exit code 0 if everything was followed, 1 if not; what was not is said in the report, or with `--json` on `err`. A file that
/// holds nothing readable is an error.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let name = printable(&args.file.to_string_lossy()).into_owned();
    let source: Box<dyn Read + Send> = match args.file.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(&args.file).with_context(|| format!("{name}: cannot be opened"))?),
    };
    let choice = Choice { engine: args.engine.map(Engine::from), ports: args.port.clone() };
    let mut out = BufWriter::new(out);
    let coverage = if args.json {
        let mut sink = |execution: &Execution<'_>| json::line(execution, args.raw_text, &mut out);
        let coverage = analyse(&name, source, &choice, &mut sink)?;
        for trouble in coverage.troubles() {
            writeln!(err, "querylens: {name}: {trouble}")?;
        }
        coverage
    } else {
        let mut profile = Profile::new(args.raw_text);
        let mut sink = |execution: &Execution<'_>| {
            profile.add(execution);
            Ok(())
        };
        let coverage = analyse(&name, source, &choice, &mut sink)?;
        report::write(&name, &coverage, &profile, args.order.into(), args.limit, &mut out)?;
        coverage
    };
    out.flush()?;
    Ok(ExitCode::from(if coverage.troubles().is_empty() { FINE } else { DEGRADED }))
}

fn analyse(name: &str, source: impl Read + Send, choice: &Choice, sink: &mut Sink<'_>) -> anyhow::Result<Coverage> {
    match replay(source, choice, sink) {
        Ok(coverage) => Ok(coverage),
        // As it is, so that a reader who has seen enough is recognised.
        Err(Error::Sink(error)) => Err(error.into()),
        Err(Error::Capture(error)) => Err(anyhow::Error::new(error).context(name.to_owned())),
    }
}
