//! The demo: real servers under load, watched by an agent with nothing configured, and at the end what was run beside what was counted.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to people")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use querylens_tests::{
    agent::{Agent, AgentOptions},
    process::{end_on_signals, sleep},
};

mod screen;
mod truth;
mod workload;

use screen::Screen;
use truth::Truth;
use workload::Workload;

#[derive(Parser)]
#[command(name = "cargo xtask demo", about)]
struct Arguments {
    /// How long the load runs.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// End with one line of JSON on standard output; everything else goes to standard error.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end_on_signals();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the agent counted exactly what was run.
fn run(arguments: &Arguments) -> Result<bool> {
    let mut screen = Screen::new(arguments.json);
    let workloads = workload::start_servers(&mut screen)?;

    screen.say("starting the agent: querylens run");
    let agent = Agent::start(AgentOptions::default())?;
    for workload in &workloads {
        // Whoever is not seen is in the table and at the end, with the agent's reason.
        if let Err(error) = agent.wait_visible(workload.pid()) {
            screen.say(&format!("{}: {:#}", workload.label(), error.root_cause()));
        }
    }

    screen.say(&format!("load for {} s", arguments.seconds));
    let mut loads = Vec::new();
    for workload in &workloads {
        loads.push(workload.load(arguments.seconds)?);
    }
    let started = Instant::now();
    let mut before = agent.status()?;
    loop {
        sleep(Duration::from_secs(1))?;
        let now = agent.status()?;
        screen.table(started.elapsed(), &workloads, &before, &now);
        before = now;
        let mut done = true;
        for load in &mut loads {
            done &= load.is_done()?;
        }
        if done {
            break;
        }
    }
    let mut reports = Vec::new();
    for (workload, load) in workloads.iter().zip(loads) {
        reports.push(load.finish().with_context(|| workload.label())?);
    }

    let status = agent.settled()?;
    let ended = agent.stop().context("the agent did not end as it should")?;
    let rows = workloads.iter().zip(&reports).map(|(workload, report)| Truth::compare(workload, report, &status));
    let rows: Vec<Truth> = rows.collect();
    screen.say(&truth::table(&rows, &status.agent));
    if !ended.success() {
        screen.say(&format!("the agent ended with {ended}"));
    }
    let exact = rows.iter().all(Truth::is_exact);
    let verdict = if exact { "every statement was counted exactly" } else { "NOT every statement was counted exactly" };
    screen.say(verdict);
    if arguments.json {
        println!("{}", truth::json(&rows, &status.agent));
    }
    drop::<Vec<Workload>>(workloads);
    Ok(exact && ended.success())
}
