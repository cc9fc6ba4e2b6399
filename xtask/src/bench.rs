//! `cargo xtask bench`: sets up, builds, and hands over to the benchmarks (tests/src/bin/querylens-bench, or the agent's own with criterion).

use std::{ffi::OsString, os::unix::process::CommandExt};

use anyhow::{Result, bail};

use crate::{
    command::{cargo, is_root, run as execute},
    layout, querylens,
    setup::{self, Purpose},
};

/// Arguments of the verb.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which benchmark.
    #[arg(value_enum)]
    benchmark: Benchmark,
    /// Its options; `--help` tells them. All know `--json` and `--write-docs`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Benchmark {
    /// What a query costs more with the agent, beside nothing, pg_stat_statements, auto_explain and tcpdump.
    Overhead,
    /// Executed against counted at the highest rate, and durations beside the server's.
    Fidelity,
    /// CPU time and memory of the agent against what it has to watch.
    Scale,
    /// What a query costs more with the extension pg_querylens, beside nothing, pg_stat_statements and auto_explain.
    Querylens,
    /// What asking a database costs the database.
    Collect,
    /// The protocol machines on recorded traffic, on one core.
    Wire,
    /// The normaliser on statements of about 120 bytes, on one core.
    Sql,
    /// The chain of processors on signals made of recorded traffic, on one core.
    Pipeline,
}

/// The verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options.benchmark {
        Benchmark::Overhead => on_servers("overhead", &options.options),
        Benchmark::Fidelity => on_servers("fidelity", &options.options),
        Benchmark::Scale => on_servers("scale", &options.options),
        Benchmark::Querylens => of_extension(&options.options),
        Benchmark::Collect => on_servers("collect", &options.options),
        Benchmark::Wire => with_criterion("wire", &options.options),
        Benchmark::Sql => with_criterion("sql", &options.options),
        Benchmark::Pipeline => with_criterion("pipeline", &options.options),
    }
}

/// A benchmark of the running agent.
fn on_servers(name: &str, options: &[OsString]) -> Result<()> {
    if !is_root() {
        bail!("this benchmark needs root: it loads eBPF programs and starts servers as other users");
    }
    setup::ensure(&[Purpose::Build, Purpose::Test, Purpose::Bench], false)?;
    execute(cargo().args(["build", "--release", "--package=querylens", "--bin=querylens"]).args(BENCHMARKS))?;
    hand_over(&[name.into()], options)
}

/// The benchmark of the extension.
fn of_extension(options: &[OsString]) -> Result<()> {
    if !is_root() {
        bail!("this benchmark needs root: it starts servers as another user, in a control group");
    }
    setup::ensure(&[Purpose::Build, Purpose::Test, Purpose::Bench, Purpose::Extension], false)?;
    querylens::build(querylens::BENCHMARKED)?;
    execute(cargo().args(["build", "--release"]).args(BENCHMARKS))?;
    hand_over(&["querylens".into()], options)
}

/// A bench of the agent's library.
fn with_criterion(name: &str, options: &[OsString]) -> Result<()> {
    setup::ensure(&[Purpose::Build], false)?;
    execute(cargo().args(["build", "--release"]).args(BENCHMARKS))?;
    // A directory of its own: what other benches left is not mixed in.
    let results = layout::target().join("bench/criterion").join(name);
    let bench = ["bench", "--package=querylens", "--bench", name];
    execute(cargo().env("CRITERION_HOME", &results).args(bench))?;
    hand_over(&["criterion".into(), name.into(), "--results".into(), results.into()], options)
}

/// The program of the benchmarks.
const BENCHMARKS: [&str; 2] = ["--package=querylens-tests", "--bin=querylens-bench"];

/// Becomes the program of the benchmarks: signals and the exit code need nobody in between.
fn hand_over(arguments: &[OsString], options: &[OsString]) -> Result<()> {
    let program = layout::target().join("release/querylens-bench");
    let error = std::process::Command::new(program).args(arguments).args(options).exec();
    Err(anyhow::Error::new(error).context("cannot start the benchmarks"))
}
