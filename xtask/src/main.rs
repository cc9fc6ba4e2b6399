//! Everything one does with this checkout, one verb a file: `cargo xtask --help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to people")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod command;
mod demo;
mod fuzz;
#[allow(unreachable_pub, dead_code, reason = "shared with the harness, where it is public and all of it is used")]
#[path = "../../tests/src/layout.rs"]
mod layout;
mod package;
mod querylens;
mod setup;
mod test;
mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing for building and testing; say what, why and how.
    Setup(setup::Options),
    /// Watch real databases under load, and compare what was run with what the agent counted.
    Demo(demo::Options),
    /// Measure what the agent costs, how exact it is and how it scales; tables in docs/BENCHMARKS.md.
    Bench(bench::Options),
    /// Run every check, or the named stages.
    Test(test::Options),
    /// Make packages: deb, rpm and tar, under target/packages.
    Package(package::Options),
    /// Feed the parsers what fuzzing comes up with.
    Fuzz(fuzz::Options),
    /// Check what no compiler checks: who imports whom, what lies where, what must not be in the repository.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Setup(options) => setup::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Package(options) => package::run(&options),
        Verb::Fuzz(options) => fuzz::run(&options),
        Verb::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
