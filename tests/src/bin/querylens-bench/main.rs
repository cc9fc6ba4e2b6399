//! Benchmarks of the agent, and of the extension, on real servers: `cargo xtask bench`.
#![allow(missing_docs, reason = "a binary has no public items")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use querylens_tests::process::end_on_signals;

mod calibration;
mod collect;
mod criterion;
mod extension;
mod fidelity;
mod growth;
mod machine;
mod overhead;
mod progress;
mod result;
mod scale;
mod statistics;
mod svg;
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
    /// Executed against counted at the highest rate with 1 to 500 connections, durations beside the server's, losses; about 8 minutes.
    Fidelity(fidelity::Options),
    /// CPU time and memory of the agent against rate, connections, statements and servers; about 12 minutes.
    Scale(scale::Options),
    /// What a query costs more with the extension pg_querylens, beside nothing, pg_stat_statements and auto_explain; about 20 minutes.
    Querylens(extension::Options),
    /// What asking costs a database with 10,000 statements, 1,000 tables and 200 sessions; about 5 minutes.
    Collect(collect::Options),
    /// Tell what a bench of criterion has measured.
    Criterion(criterion::Options),
}

#[allow(clippy::print_stderr, reason = "a command-line tool speaks to people")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end_on_signals();
    allow_descriptors();
    let outcome: Result<()> = match &arguments.benchmark {
        Benchmark::Overhead(options) => overhead::run(options),
        Benchmark::Fidelity(options) => fidelity::run(options),
        Benchmark::Scale(options) => scale::run(options),
        Benchmark::Querylens(options) => extension::run(options),
        Benchmark::Collect(options) => collect::run(options),
        Benchmark::Criterion(options) => criterion::run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lets this process and what it starts open as many files as it may: a load generator needs one for each of its connections.
fn allow_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit lives until the calls return. Where they fail, the load generator says what it lacks.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}
