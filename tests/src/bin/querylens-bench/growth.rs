//! `bench scale --minutes N`: whether the agent's memory grows with time alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use querylens_tests::{cpu, load::Amount, process::sleep};
use serde_json::{Value, json};

use crate::{
    machine::Machine,
    progress::say,
    result::{self, Outcome, Output},
    scale::{connect, distinct, mib, watch},
    statistics::{Estimate, rounded, slope},
    workload::start_postgres,
};

/// Statements that differ.
const FINGERPRINTS: u32 = 10_000;
/// Connections.
const CONNECTIONS: u32 = 1000;
/// Queries a second over all connections.
const RATE: u32 = 2000;
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// The benchmark.
pub(crate) fn run(minutes: u32, output: Output) -> Result<()> {
    let machine = Machine::read();
    say("starting the server");
    let server = start_postgres(CONNECTIONS, Vec::new())?;
    let agent = watch(&[&server], None)?;
    let amount = Amount::Seconds(minutes * 60 + 120);
    say(&format!("{CONNECTIONS} connections run {FINGERPRINTS} statements"));
    let _load = connect(&server, distinct(CONNECTIONS, FINGERPRINTS, amount, Some(RATE)))?;
    // Every statement was run four times: what is remembered of each is there.
    sleep(Duration::from_secs((4 * FINGERPRINTS / RATE).into()))?;

    let (start, before) = (Instant::now(), cpu::process_time(agent.pid())?);
    let mut samples = Vec::new();
    let end = Duration::from_secs(u64::from(minutes) * 60);
    loop {
        let rss = mib(cpu::resident_bytes(agent.pid())?);
        samples.push((start.elapsed().as_secs_f64(), rss));
        say(&format!("{rss:.2} MiB after {:.0} s", start.elapsed().as_secs_f64()));
        if start.elapsed() + INTERVAL > end + Duration::from_secs(1) {
            break;
        }
        sleep(INTERVAL)?;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let cpu_percent = (cpu::process_time(agent.pid())? - before).as_secs_f64() / elapsed * 100.0;
    let status = agent.status()?;
    let instance = status.instance(server.pid()).context("the agent does not know the server any more")?;
    let statements = instance.statements.len();
    agent.stop()?;

    let hourly: Vec<(f64, f64)> = samples.iter().map(|(seconds, rss)| (seconds / 3600.0, *rss)).collect();
    let growth = slope(&hourly);
    let highest = samples.iter().map(|sample| sample.1).fold(0.0, f64::max);
    let number = |of: fn(&Estimate) -> Option<f64>| growth.as_ref().and_then(of).map(|value| rounded(value, 3));
    let summary = json!({
        "benchmark": "growth",
        "minutes": minutes,
        "connections": CONNECTIONS,
        "statements": statements,
        "rss_mib": { "first": rounded(samples[0].1, 2), "highest": rounded(highest, 2) },
        "mib_per_hour": number(|growth| Some(growth.mean)),
        "low": number(Estimate::low),
        "high": number(Estimate::high),
        "cpu_percent": rounded(cpu_percent, 3),
    });
    let raw: Vec<Value> =
        samples.iter().map(|(seconds, rss)| json!([rounded(*seconds, 1), rounded(*rss, 3)])).collect();
    let interval = growth
        .and_then(|growth| growth.interval)
        .map_or_else(String::new, |(low, high)| format!(" ({low:+.2} to {high:+.2})"));
    let row = vec![
        minutes.to_string(),
        statements.to_string(),
        format!("{:.1}", samples[0].1),
        format!("{highest:.1}"),
        growth.map(|growth| format!("{:+.2}{interval}", growth.mean)).unwrap_or_default(),
        format!("{cpu_percent:.2}"),
    ];
    let head =
        ["minutes", "statements", "MiB at first", "MiB at most", "MiB an hour, slope (95 %)", "CPU, % of a core"];
    let method = format!(
        "{CONNECTIONS} connections of pgbench to PostgreSQL {} run {FINGERPRINTS} different statements in the simple protocol, {RATE} a second; \
         resident memory of the agent every {} s",
        server.version(),
        INTERVAL.as_secs()
    );
    let tables = result::table(&head, &[row]);
    Outcome { benchmark: "growth", method, summary, raw: json!(raw), tables }.publish(&machine, output)
}
