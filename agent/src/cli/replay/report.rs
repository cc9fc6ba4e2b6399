//! The ranked digest: everything together, the profile, then each statement by itself.

use std::{
    io::{self, Write},
    time::Duration,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cli::format::{UNKNOWN, bytes, count, percent, rate},
    model::{ByCode, Code, Histogram, HumanDuration, Timestamp, printable},
    replay::{
        Coverage,
        profile::{DECADES, Entry, Names, Order, Profile, Totals},
    },
};

/// Width of the bars of a time distribution.
const BAR: u64 = 60;
/// Names shown of each kind.
const NAMES: usize = 5;

/// Writes the digest of the `limit` first statements.
pub(super) fn write(
    file: &str,
    coverage: &Coverage,
    profile: &Profile,
    order: Order,
    limit: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let span = coverage.range.map_or(Duration::ZERO, |(first, last)| last.since(first));
    header(file, coverage, profile, span, out)?;
    let ranked = profile.ranked(order);
    let shown = &ranked[..ranked.len().min(limit)];
    if shown.is_empty() {
        return Ok(());
    }
    let all = profile.totals.times.histogram.sum();
    writeln!(out, "\n# Profile")?;
    ranking(shown, &ranked[shown.len()..], all, out)?;
    for (rank, entry) in shown.iter().enumerate() {
        block(rank + 1, entry, &profile.totals, span, out)?;
    }
    Ok(())
}

fn header(file: &str, coverage: &Coverage, profile: &Profile, span: Duration, out: &mut impl Write) -> io::Result<()> {
    let totals = &profile.totals;
    writeln!(out, "# File: {file}, {} packets, {}", count(coverage.packets), bytes(coverage.bytes))?;
    if let Some((first, last)) = coverage.range {
        writeln!(out, "# Time range: {} to {} ({})", date(first), date(last), brief(span))?;
    }
    let per_second = per(totals.calls as f64, span);
    let busy = per(totals.times.histogram.sum().as_secs_f64(), span);
    writeln!(
        out,
        "# Overall: {} statements, {} unique, {}/s, concurrency {}",
        count(totals.calls),
        count(profile.unique() as u64),
        rate(per_second),
        rate(busy),
    )?;
    write!(out, "# Connections: {} followed", count(coverage.connections))?;
    if coverage.joined_late > 0 {
        write!(out, " ({} of them since before the capture)", count(coverage.joined_late))?;
    }
    writeln!(out, ", {} logged in", count(coverage.accepted))?;
    let failed = coverage.failed.values().sum::<u64>();
    if failed > 0 {
        let tcp = coverage.refused + coverage.unanswered;
        let mut how = vec![(coverage.refused, "reset"), (coverage.unanswered, "no answer")];
        how.retain(|(count, _)| *count > 0);
        let mut how: Vec<String> = how.into_iter().map(|(count, how)| format!("{how} {count}")).collect();
        how.extend(coverage.failed.iter().filter_map(|(code, failed)| match code {
            Some(code) => Some(format!("{code} {failed}")),
            None => (*failed > tcp).then(|| format!("broken off {}", failed - tcp)),
        }));
        writeln!(out, "# Failed connection attempts: {} ({})", count(failed), how.join(", "))?;
    }
    for note in coverage.left_alone() {
        writeln!(out, "# Left alone: {note}")?;
    }
    for trouble in coverage.troubles() {
        writeln!(out, "# Not followed: {trouble}")?;
    }
    if totals.calls > 0 {
        attributes(totals, None, out)?;
    }
    Ok(())
}

/// The table of the profile, with a last line for the statements that are not shown.
fn ranking(shown: &[&Entry], rest: &[&Entry], all: Duration, out: &mut impl Write) -> io::Result<()> {
    let widths = [4, 16, 8, 6, 8, 8, 8, 8, 7];
    let heading = ["Rank", "Fingerprint", "Time", "%", "Calls", "Mean", "V/M", "P95", "Errors"];
    let line = |cells: [String; 9], last: &str, out: &mut dyn Write| {
        write!(out, "#")?;
        for (cell, width) in cells.iter().zip(widths) {
            write!(out, " {cell:>width$}")?;
        }
        writeln!(out, "  {last}")
    };
    line(heading.map(str::to_owned), "Statement", out)?;
    line(widths.map(|width| "=".repeat(width)), "=========", out)?;
    for (rank, entry) in shown.iter().enumerate() {
        let totals = &entry.totals;
        let times = &totals.times.histogram;
        let cells = [
            (rank + 1).to_string(),
            entry.digest.hex(),
            brief(times.sum()),
            percent(share(times.sum(), all)),
            count(totals.calls),
            brief(times.mean()),
            format!("{:.4}", totals.times.variance_to_mean()),
            brief(times.quantile(0.95)),
            count(totals.failed()),
        ];
        line(cells, &printable(&entry.digest.summary), out)?;
    }
    if !rest.is_empty() {
        let sum: Duration = rest.iter().map(|entry| entry.totals.times.histogram.sum()).sum();
        let calls = rest.iter().map(|entry| entry.totals.calls).sum();
        let failed = rest.iter().map(|entry| entry.totals.failed()).sum();
        let cells = [
            "more".to_owned(),
            String::new(),
            brief(sum),
            percent(share(sum, all)),
            count(calls),
            String::new(),
            String::new(),
            String::new(),
            count(failed),
        ];
        line(cells, &format!("<{} other statements>", rest.len()), out)?;
    }
    Ok(())
}

fn block(rank: usize, entry: &Entry, all: &Totals, span: Duration, out: &mut impl Write) -> io::Result<()> {
    let totals = &entry.totals;
    let busy = per(totals.times.histogram.sum().as_secs_f64(), span);
    writeln!(
        out,
        "\n# Statement {rank}: {}, {}, {}/s, concurrency {}",
        entry.digest.hex(),
        entry.engine,
        rate(per(totals.calls as f64, span)),
        rate(busy),
    )?;
    attributes(totals, Some(all), out)?;
    for (what, names) in [("Databases", &entry.databases), ("Users", &entry.users), ("Hosts", &entry.hosts)] {
        writeln!(out, "# {what:<13} {}", list(names))?;
    }
    let largest = totals.times.decades.iter().max().copied().unwrap_or(0);
    if largest > 0 {
        writeln!(out, "# Time distribution")?;
        for (name, number) in DECADES.iter().zip(totals.times.decades) {
            let bar = (number * BAR).div_ceil(largest) as usize;
            writeln!(out, "{}", format!("# {name:>5}  {}", "#".repeat(bar)).trim_end())?;
        }
    }
    match &entry.sample {
        Some(sample) => writeln!(out, "{}", printable(&String::from_utf8_lossy(sample))),
        None => writeln!(out, "{}", printable(&entry.digest.text)),
    }
}

/// The numbers of one statement beside `all`, or of all.
fn attributes(totals: &Totals, all: Option<&Totals>, out: &mut impl Write) -> io::Result<()> {
    let part = |of: fn(&Totals) -> f64| match all {
        Some(all) if of(all) > 0.0 => percent(Some(of(totals) / of(all))),
        _ => String::new(),
    };
    let heading = ["pct", "total", "min", "max", "avg", "95%", "stddev", "median"];
    row("Attribute", heading.map(str::to_owned), out)?;
    let mut cells: [String; 8] = Default::default();
    cells[0] = part(|totals| totals.calls as f64);
    cells[1] = count(totals.calls);
    row("Calls", cells, out)?;
    let times = &totals.times;
    let deviation = brief(times.deviation());
    row(
        "Exec time",
        spread(part(|totals| totals.times.histogram.sum().as_secs_f64()), &times.histogram, deviation),
        out,
    )?;
    if totals.first_byte.count() > 0 {
        row("First byte", spread(String::new(), &totals.first_byte, String::new()), out)?;
    }
    let mut sum = |what: &str, of: fn(&Totals) -> f64, show: &dyn Fn(f64) -> String| {
        let mut cells: [String; 8] = Default::default();
        cells[0] = part(of);
        cells[1] = show(of(totals));
        cells[4] = show(of(totals) / totals.calls.max(1) as f64);
        row(what, cells, out)
    };
    let number = |value: f64| count(value.round() as u64);
    let size = |value: f64| bytes(value.round() as u64);
    sum("Rows sent", |totals| totals.rows_sent as f64, &number)?;
    sum("Rows affected", |totals| totals.rows_affected as f64, &number)?;
    sum("Bytes in", |totals| totals.bytes_in as f64, &size)?;
    sum("Bytes out", |totals| totals.bytes_out as f64, &size)?;
    if totals.failed() > 0 {
        writeln!(out, "# {:<13} {}", "Errors", errors(&totals.errors))?;
    }
    let rest = [
        (totals.cancelled, "cancelled"),
        (totals.incomplete, "without an end in the capture"),
        (totals.prepares, "preparations beside"),
        (totals.estimated, "with an estimated time"),
    ];
    let rest: Vec<String> = rest
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", count(*number)))
        .collect();
    if !rest.is_empty() {
        writeln!(out, "# {:<13} {}", "Of these", rest.join(", "))?;
    }
    Ok(())
}

fn row(name: &str, cells: [String; 8], out: &mut impl Write) -> io::Result<()> {
    let cells: String = cells.iter().map(|cell| format!(" {cell:>8}")).collect();
    writeln!(out, "{}", format!("# {name:<13}{cells}").trim_end())
}

fn spread(part: String, times: &Histogram, deviation: String) -> [String; 8] {
    [
        part,
        brief(times.sum()),
        brief(times.min()),
        brief(times.max()),
        brief(times.mean()),
        brief(times.quantile(0.95)),
        deviation,
        brief(times.quantile(0.5)),
    ]
}

/// The most frequent names with their counts.
fn list(names: &Names) -> String {
    let mut known: Vec<(&str, u64)> =
        names.known.iter().map(|(name, count)| (name.as_deref().unwrap_or(UNKNOWN), *count)).collect();
    known.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let rest: u64 = known.iter().skip(NAMES).map(|(_, count)| count).sum::<u64>() + names.other;
    let mut shown: Vec<String> =
        known.iter().take(NAMES).map(|(name, number)| format!("{} ({})", printable(name), count(*number))).collect();
    if rest > 0 {
        shown.push(format!("others ({})", count(rest)));
    }
    shown.join(", ")
}

fn errors(errors: &ByCode<u64>) -> String {
    let shown: Vec<String> =
        errors.iter().map(|(code, number)| format!("{} ({})", Code::error_type(*code), count(*number))).collect();
    shown.join(", ")
}

fn share(part: Duration, all: Duration) -> Option<f64> {
    (!all.is_zero()).then(|| part.as_secs_f64() / all.as_secs_f64())
}

/// `number` a second; unknown where no time passed.
fn per(number: f64, span: Duration) -> Option<f64> {
    (!span.is_zero()).then(|| number / span.as_secs_f64())
}

fn brief(duration: Duration) -> String {
    HumanDuration(duration).brief()
}

/// A point in time (UTC) to the microsecond, RFC 3339.
fn date(at: Timestamp) -> String {
    let micros = i128::from(at.0 / 1000 * 1000);
    let date = OffsetDateTime::from_unix_timestamp_nanos(micros).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| UNKNOWN.to_owned())
}
