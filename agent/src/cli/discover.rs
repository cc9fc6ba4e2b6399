//! `querylens discover`: what was found, where it listens, and what is visible or why not.

use std::{collections::HashMap, io::Write, process::ExitCode, sync::Arc};

use serde::Serialize;

use super::{Common, DEGRADED, FINE, UNUSABLE, table};
use crate::{
    health::Collect,
    model::{Container, Instance, Listen, Pooler, WireState, printable},
    runtime::survey::{Survey, explain, survey},
};

/// Find the database servers on this host and tell what is visible of them
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Log in to each server once, and tell which questions could be asked of it and why not better ones
    #[arg(long)]
    explain: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    engine: &'static str,
    pooler: Option<Pooler>,
    version: Option<&'a str>,
    pid: u32,
    executable: String,
    data_dir: Option<String>,
    listen: &'a [Listen],
    container: Option<&'a Container>,
    wire: &'a WireState,
    #[serde(skip_serializing_if = "Option::is_none")]
    collect: Option<Collect>,
}

impl<'a> Row<'a> {
    fn new(instance: &'a Instance, wire: &'a WireState, collect: Option<Collect>) -> Row<'a> {
        Row {
            engine: instance.engine.name(),
            pooler: instance.pooler,
            version: instance.version.as_deref(),
            pid: instance.key.pid,
            executable: instance.executable.display().to_string(),
            data_dir: instance.data_dir.as_ref().map(|path| path.display().to_string()),
            listen: &instance.listen,
            container: instance.container.as_ref(),
            wire,
            collect,
        }
    }
}

/// Exit code 0 if all that was found is visible, 1 if something is hidden or could not be looked at, 2 if nothing is visible.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let config = args.common.load()?;
    let survey = survey(&config);
    let explained = match args.explain && config.collect.enabled {
        true => explain(&config, survey.servers.iter().map(|(instance, _)| Arc::clone(instance)))?,
        false => HashMap::new(),
    };
    let rows: Vec<Row<'_>> = survey
        .servers
        .iter()
        .map(|server| {
            let collect = explained.get(&server.0.key).map(|collected| Collect::new(collected, None));
            Row::new(&server.0, &server.1, collect)
        })
        .collect();
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &rows)?;
        writeln!(out)?;
    } else {
        text(&survey, &rows, out)?;
    }
    let visible = rows.iter().filter(|row| row.wire.state == "visible").count();
    Ok(ExitCode::from(match visible {
        _ if visible == rows.len() && survey.unseen.is_empty() => FINE,
        0 if !rows.is_empty() => UNUSABLE,
        _ => DEGRADED,
    }))
}

fn text(survey: &Survey, rows: &[Row<'_>], out: &mut dyn Write) -> anyhow::Result<()> {
    if rows.is_empty() {
        writeln!(out, "no PostgreSQL, MySQL or MariaDB server accepts connections on this host")?;
    } else {
        let cells: Vec<[String; 6]> = rows
            .iter()
            .map(|row| {
                let listen: Vec<String> = row.listen.iter().map(Listen::to_string).collect();
                [
                    row.pooler.map_or(row.engine, Pooler::name).to_owned(),
                    row.version.unwrap_or("?").to_owned(),
                    row.pid.to_string(),
                    listen.join(" "),
                    row.container.map_or("-", |container| container.runtime.as_str()).to_owned(),
                    format!("{}: {}", row.wire.strategy, row.wire.reason),
                ]
            })
            .collect();
        table::write(out, ["ENGINE", "VERSION", "PID", "LISTEN", "CONTAINER", "WIRE"], &cells)?;
    }
    rows.iter()
        .filter_map(|row| Some((row, row.collect.as_ref()?)))
        .try_for_each(|(row, collect)| explanation(row, collect, out))?;
    for unseen in &survey.unseen {
        let pid = unseen.pid.map_or_else(|| "some processes".to_owned(), |pid| format!("process {pid}"));
        writeln!(out, "{pid} ({}) could not be looked at: {}", printable(&unseen.name), unseen.verdict.reason())?;
    }
    Ok(())
}

/// How the agent would log in to a server, and where each question would stand.
fn explanation(row: &Row<'_>, collect: &Collect, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = row.pooler.map_or(row.engine, Pooler::name);
    writeln!(
        out,
        "\n{name}, process {}: {}",
        row.pid,
        match &collect.login {
            Some(way) => format!("logs in through {way}"),
            None => "no login, so all is known from the wire only".to_owned(),
        }
    )?;
    for attempt in collect.attempts.iter().filter(|attempt| attempt.verdict != "ok") {
        let (what, reason) = (printable(&attempt.what), printable(&attempt.reason));
        writeln!(out, "  {what}: {}: {reason}", attempt.verdict)?;
    }
    let cells: Vec<[String; 3]> = collect
        .questions
        .iter()
        .map(|question| {
            let above: Vec<String> =
                question.above.iter().map(|above| format!("not {}: {}", above.what, above.reason)).collect();
            [format!("  {}", question.name), question.rung.clone(), above.join("; ")]
        })
        .collect();
    if !cells.is_empty() {
        table::write(out, ["  QUESTION", "RUNG", "WHY NOT BETTER"], &cells)?;
    }
    if !collect.remedy.is_empty() {
        writeln!(out, "  An administrator can grant what is missing:")?;
        collect.remedy.iter().try_for_each(|statement| writeln!(out, "    {};", printable(statement)))?;
    }
    Ok(())
}
