//! `cargo xtask test`: every check there is, as stages that can also be run alone.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::{
    command::{cargo, command, host, is_root, output, run as execute, target_variable, which},
    querylens,
    setup::{self, Purpose},
    tidy,
};

/// Arguments of the verb.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Stages to run; all of them if none is named.
    #[arg(value_parser = PossibleValuesParser::new(STAGES.iter().map(|stage| stage.name)))]
    names: Vec<String>,
    /// Major versions of PostgreSQL on which the stage `querylens` tests the extension, instead of those that every run takes.
    #[arg(long = "pg", num_args = 1.., value_parser = querylens::major())]
    majors: Vec<u32>,
    /// The stage `querylens` also runs the extension under valgrind, which takes minutes.
    #[arg(long)]
    valgrind: bool,
}

struct Stage {
    name: &'static str,
    /// What it needs on the machine.
    needs: &'static [Purpose],
    run: fn(&Options) -> Result<()>,
}

/// Cheapest first, so that what is wrong is known early.
const STAGES: &[Stage] = &[
    Stage { name: "tidy", needs: &[], run: |_| tidy::run() },
    Stage { name: "fmt", needs: &[Purpose::Lint], run: |_| execute(cargo().args(["fmt", "--all", "--check"])) },
    Stage { name: "typos", needs: &[Purpose::Lint], run: |_| typos() },
    Stage { name: "deny", needs: &[Purpose::Lint], run: |_| deny() },
    Stage { name: "clippy", needs: &[Purpose::Build, Purpose::Lint], run: |_| clippy() },
    Stage { name: "docs", needs: &[Purpose::Build], run: |_| docs() },
    Stage { name: "unit", needs: &[Purpose::Build], run: |_| unit() },
    Stage {
        name: "querylens",
        needs: &[Purpose::Build, Purpose::Test, Purpose::Lint, Purpose::Extension],
        run: |options| querylens::test(&options.majors, options.valgrind),
    },
    Stage { name: "e2e", needs: &[Purpose::Build, Purpose::Test], run: |_| end_to_end() },
];

/// The verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen: Vec<&Stage> = STAGES
        .iter()
        .filter(|stage| options.names.is_empty() || options.names.iter().any(|n| n == stage.name))
        .collect();
    let mut needs: Vec<Purpose> = Vec::new();
    for need in chosen.iter().flat_map(|stage| stage.needs) {
        if !needs.contains(need) {
            needs.push(*need);
        }
    }
    let mut results = vec![measure("setup", || setup::ensure(&needs, false))];
    for stage in chosen {
        results.push(measure(stage.name, || (stage.run)(options)));
    }
    eprintln!("\n{:<8} {:>8}  result", "stage", "time");
    for (name, time, outcome) in &results {
        let result = match outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        eprintln!("{name:<8} {:>6.1} s  {result}", time.as_secs_f64());
    }
    let failed = results.iter().filter(|(_, _, outcome)| outcome.is_err()).count();
    if failed > 0 {
        bail!("{failed} of {} stages failed", results.len());
    }
    Ok(())
}

/// Runs one stage; later ones run even if it fails, so that one run shows everything that is wrong.
fn measure(name: &'static str, stage: impl FnOnce() -> Result<()>) -> (&'static str, Duration, Result<()>) {
    eprintln!("\n=== {name}");
    let start = Instant::now();
    let outcome = stage();
    (name, start.elapsed(), outcome)
}

fn typos() -> Result<()> {
    let typos = setup::typos().context("typos is not installed")?;
    execute(&mut command(typos))
}

fn deny() -> Result<()> {
    // The fuzz targets are compiled only when they run: their lock file would fall behind unseen.
    let fuzz = ["metadata", "--locked", "--format-version=1", "--manifest-path=tests/fuzz/Cargo.toml"];
    output(cargo().args(fuzz)).context("the lock file of tests/fuzz is not up to date")?;
    // Without advisories: they need the network, and change without a change of ours.
    execute(cargo().args(["deny", "--workspace", "check", "licenses", "bans", "sources"]))
}

fn clippy() -> Result<()> {
    execute(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn docs() -> Result<()> {
    execute(cargo().env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", "--locked"]))
}

fn unit() -> Result<()> {
    if which("cargo-nextest").is_none() {
        return execute(cargo().args(["test", "--workspace", "--locked"]));
    }
    execute(cargo().args(["nextest", "run", "--workspace", "--locked", "--no-tests=pass"]))?;
    // What nextest leaves out.
    execute(cargo().args(["test", "--workspace", "--locked", "--doc"]))
}

/// The tests that are ignored elsewhere, as root: eBPF programs, database servers.
fn end_to_end() -> Result<()> {
    let packages = ["--package=querylens", "--package=querylens-tests"];
    execute(cargo().args(["build", "--release", "--locked", "--bins"]).args(packages))?;
    // One at a time: they compare the work of whole servers and of the one agent of the host.
    let arguments = ["test", "--release", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests"];
    // Those of the extension are a stage of their own.
    let harness = ["--", "--ignored", "--test-threads=1", "--skip=pg_querylens"];
    execute(cargo_as_root()?.args(arguments).args(packages).args(harness))
}

/// The cargo that runs this, which starts tests as root.
pub(crate) fn cargo_as_root() -> Result<Command> {
    let mut test = cargo();
    if !is_root() {
        if output(command("sudo").args(["--non-interactive", "true"])).is_err() {
            bail!("needs root or sudo without a password");
        }
        // The program under which cargo starts tests.
        test.env(target_variable(&host()?, "RUNNER"), "sudo --non-interactive --preserve-env");
    }
    Ok(test)
}
