//! `bench collect`: what asking a database costs the database.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use querylens_tests::{
    agent::{Agent, AgentOptions},
    client::PostgresClient,
    cpu,
    load::Amount,
    process::{sleep, wait_for},
    servers::Postgres,
};
use serde_json::{Value, json};

use crate::{
    machine::Machine,
    progress::say,
    result::{Outcome, Output, table},
    scale::distinct,
    statistics::rounded,
    workload::{DATABASE, start_postgres},
};

/// Statements in pg_stat_statements.
const STATEMENTS: u32 = 10_000;
/// Tables, each with an index.
const TABLES: u32 = 1000;
/// Sessions, all idle: what a look at them costs does not depend on what they do.
const SESSIONS: u32 = 200;
/// Time that the agent has for its first looks, with all texts and sizes that are asked once.
const FIRST_LOOKS: Duration = Duration::from_secs(30);
/// Per cent of one core that asking may cost.
const GOAL: f64 = 0.5;

/// Arguments of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    output: Output,
    /// Seconds of watching, with the agent and without it.
    #[arg(long, default_value_t = 120)]
    seconds: u32,
}

/// The benchmark.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::read();
    say("starting the server and filling it");
    let settings = vec![("pg_stat_statements.max".to_owned(), "20000".to_owned())];
    let server = start_postgres(SESSIONS + 20, settings)?;
    let mut client = server.client(DATABASE)?;
    client.query(&format!(
        "DO $$ BEGIN FOR n IN 1..{TABLES} LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', n); END LOOP; END $$"
    ))?;
    client.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")?;
    distinct(8, STATEMENTS, Amount::Transactions(STATEMENTS.div_ceil(8)), None).run(&server)?;
    let known: u32 = client.value("SELECT count(*) FROM pg_stat_statements")?.parse()?;
    anyhow::ensure!(known >= STATEMENTS, "pg_stat_statements holds {known} statements, not {STATEMENTS}");
    let sessions = (0..SESSIONS).map(|_| server.client(DATABASE)).collect::<Result<Vec<PostgresClient>>>()?;

    say("watching the server alone");
    let alone = percent(&server, options.seconds)?;
    // The defaults: what is measured is what is installed.
    let configuration = Some("collect:\n  enabled: true\n".to_owned());
    let agent = Agent::start(AgentOptions { configuration, ..AgentOptions::default() })?;
    agent.wait_visible(server.pid())?;
    say("waiting for the first looks");
    sleep(FIRST_LOOKS)?;
    let before = questions(&agent, server.pid())?;
    say("watching the server while it is asked");
    let asked = percent(&server, options.seconds)?;
    let after = questions(&agent, server.pid())?;
    drop(sessions);

    let cost = asked - alone;
    let seconds = f64::from(options.seconds);
    let rows: Vec<Vec<String>> = after
        .iter()
        .map(|(name, asked, cpu)| {
            let earlier = before.iter().find(|(own, _, _)| own == name);
            let (times, spent) = earlier.map_or((*asked, *cpu), |(_, was, spent)| (asked - was, cpu - spent));
            let each = if times > 0.0 { spent / times } else { 0.0 };
            vec![
                name.clone(),
                format!("{times:.0}"),
                format!("{each:.2} ms"),
                format!("{:.3} %", spent / seconds / 10.0),
            ]
        })
        .collect();
    let verdict = if cost <= GOAL { "met" } else { "missed" };
    let method = format!(
        "PostgreSQL 17 with {STATEMENTS} statements in pg_stat_statements, {TABLES} tables and {SESSIONS} idle sessions, default intervals; CPU time of all \
         processes of the server over {seconds} s, with the agent less without it; that of single questions as the agent itself reads it from /proc"
    );
    let tables = format!(
        "Asking costs {cost:.2} % of one core of the database's CPU ({asked:.2} % with the agent, {alone:.2} % without); the goal of {GOAL} % is {verdict}.\n\n{}",
        table(&["question", "times", "CPU time each", "share of one core"], &rows)
    );
    let summary = json!({
        "benchmark": "collect", "cost_percent": rounded(cost, 3), "with_percent": rounded(asked, 3), "without_percent": rounded(alone, 3),
        "goal_percent": GOAL,
    });
    let raw = json!({ "before": before, "after": after, "seconds": options.seconds });
    Outcome { benchmark: "collect", method, summary, raw, tables }.publish(&machine, options.output)
}

/// CPU time of the server over some seconds, in per cent of one core.
fn percent(server: &Postgres, seconds: u32) -> Result<f64> {
    let (start, before) = (Instant::now(), cpu::family_time(server.pid())?);
    sleep(Duration::from_secs(seconds.into()))?;
    let used = cpu::family_time(server.pid())?.saturating_sub(before);
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0)
}

/// Each question: name, how often it was asked, CPU time of the server's in milliseconds.
fn questions(agent: &Agent, pid: u32) -> Result<Vec<(String, f64, f64)>> {
    wait_for("what the agent asked", Duration::from_secs(10), || {
        let status = agent.status()?;
        let Some(instance) = status.instance(pid) else { return Ok(None) };
        let one = |question: &Value| {
            let number = |name: &str| question[name].as_f64().context("a question without its numbers");
            Ok((question["name"].as_str().unwrap_or_default().to_owned(), number("asked")?, number("cpu_ms")?))
        };
        let all = instance.collect["questions"].as_array().map(|all| all.iter().map(one).collect::<Result<Vec<_>>>());
        all.filter(|all| all.as_ref().is_ok_and(|all| !all.is_empty())).transpose()
    })
}
