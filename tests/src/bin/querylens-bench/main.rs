//! Benchmarks of the agent on real servers: `cargo xtask bench`.
#![allow(missing_docs, reason = "a binary has no public items")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use querylens_tests::process::end_on_signals;

mod calibration;
mod machine;
mod overhead;
mod progress;
mod result;
mod statistics;
mod workload;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// What a query costs more with the agent, beside nothing, pg_stat_statements, auto_explain and tcpdump; about 25 minutes.
    Overhead(overhead::Options),
}

#[allow(clippy::print_stderr, reason = "a command-line tool speaks to people")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end_on_signals();
    let outcome: Result<()> = match &arguments.benchmark {
        Benchmark::Overhead(options) => overhead::run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
