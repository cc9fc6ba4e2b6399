//! `top` where there is no terminal: a table per interval, for files and pipes.

use std::io::{self, Write};

use super::{
    app::App,
    format::{bytes, count, duration, percent, rate},
};

/// Statements in a table: the first twenty make up nearly all of the time on most servers.
const STATEMENTS: usize = 20;

/// Writes what `app` shows.
pub(super) fn write(app: &App, out: &mut dyn Write) -> io::Result<()> {
    let view = app.view();
    let agent = &view.agent;
    write!(
        out,
        "querylens up {} cpu {} kernel {} memory {} records/s {}",
        duration(agent.uptime),
        percent(agent.cpu),
        percent(agent.programs),
        bytes(agent.rss_bytes),
        rate(agent.records)
    )?;
    for (cause, number, _) in &agent.losses {
        write!(out, " lost:{cause} {}", count(*number))?;
    }
    writeln!(
        out,
        "\n{:<28} {:<16} {:>9} {:>8} {:>8} {:>8} {:>8}  WIRE",
        "INSTANCE", "VERSION", "SESSIONS", "QUERY/S", "ERROR/S", "P50", "P99"
    )?;
    for row in &view.instances {
        writeln!(
            out,
            "{:<28} {:<16} {:>9} {:>8} {:>8} {:>8} {:>8}  {}",
            row.label,
            row.version,
            format!("{}/{}", row.active, row.sessions),
            rate(row.rate),
            rate(row.errors),
            duration(row.p50),
            duration(row.p99),
            row.wire
        )?;
    }
    let statements = app.statements();
    let total: f64 = statements.iter().map(|row| row.total.as_secs_f64()).sum();
    writeln!(
        out,
        "{:>8} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8}  STATEMENT",
        "CALL/S", "TIME", "CALLS", "ERRORS", "ROWS", "MEAN", "P50", "P99"
    )?;
    for row in statements.iter().take(STATEMENTS) {
        let share = (total > 0.0).then(|| row.total.as_secs_f64() / total);
        writeln!(
            out,
            "{:>8} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8}  {}",
            rate(row.rate),
            percent(share),
            count(row.calls),
            count(row.errors),
            count(row.rows),
            duration(row.mean),
            duration(row.p50),
            duration(row.p99),
            row.summary
        )?;
    }
    writeln!(out)?;
    out.flush()
}
