//! Tables for people and JSON lines for programs, on standard output or wherever the caller writes.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::attributes;
use crate::model::{HumanDuration, InstanceSnapshot, Problem, Snapshot, StatementSnapshot, printable};

/// What is printed to standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `table` for people, `json` for one line of JSON each time (the shape of `/status`). Default: table.
    pub format: Format,
    /// How often. Default: 10s.
    pub interval: HumanDuration,
    /// Heaviest statements shown. Default: 20.
    pub top: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { format: Format::Table, interval: HumanDuration::from_secs(10), top: 20 }
    }
}

/// More often than this, people cannot read it; less often, nobody waits for it.
const INTERVALS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_millis(100)..=HumanDuration::from_secs(86_400);

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        Problem::out_of_range("interval", &self.interval, INTERVALS).into_iter()
    }
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// JSON lines.
    Json,
}

/// Writes one line of JSON.
pub fn json_line(status: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, status)?;
    out.write_all(b"\n")
}

/// Least width that the last column keeps on a narrow terminal.
const LEAST_LAST: usize = 16;

/// Writes the servers and their `top` heaviest statements, no line wider than `width` columns if that leaves the last one readable.
pub fn table(snapshot: &Snapshot, top: usize, width: usize, out: &mut impl Write) -> io::Result<()> {
    let mut servers = Table::new(&[
        ("SERVER", Align::Left),
        ("PID", Align::Right),
        ("SESSIONS", Align::Right),
        ("ACTIVE", Align::Right),
        ("CALLS", Align::Right),
        ("ERRORS", Align::Right),
        ("MEAN", Align::Right),
        ("P50", Align::Right),
        ("P99", Align::Right),
        ("LOSSES", Align::Right),
        ("WIRE", Align::Left),
    ]);
    for server in &snapshot.instances {
        servers.row(server_row(server));
    }
    servers.write(width, out)?;

    let rows = || snapshot.instances.iter().flat_map(|server| server.statements.iter().map(move |row| (server, row)));
    let all: Duration = rows().map(|(_, row)| row.stats.total()).fold(Duration::ZERO, Duration::saturating_add);
    let mut heaviest: Vec<_> = rows().map(|(server, row)| (row.stats.total(), server, row)).collect();
    heaviest.sort_by_key(|(total, _, row)| (std::cmp::Reverse(*total), row.digest.fingerprint));
    heaviest.truncate(top);
    if heaviest.is_empty() {
        return Ok(());
    }
    let mut statements = Table::new(&[
        ("SERVER", Align::Left),
        ("DATABASE", Align::Left),
        ("USER", Align::Left),
        ("CALLS", Align::Right),
        ("ERRORS", Align::Right),
        ("ROWS", Align::Right),
        ("MEAN", Align::Right),
        ("P50", Align::Right),
        ("P99", Align::Right),
        ("TOTAL", Align::Right),
        ("SHARE", Align::Right),
        ("STATEMENT", Align::Left),
    ]);
    for (total, server, row) in heaviest {
        let share = if all.is_zero() { 0.0 } else { total.as_secs_f64() / all.as_secs_f64() };
        statements.row(statement_row(server, row, total, share));
    }
    writeln!(out)?;
    statements.write(width, out)
}

fn server_row(server: &InstanceSnapshot) -> Vec<String> {
    let durations = server.durations();
    let sessions = &server.sessions;
    let open: u64 = attributes::sessions(sessions).iter().map(|(_, count)| count).sum();
    vec![
        server.instance.label(),
        server.instance.key.pid.to_string(),
        open.to_string(),
        sessions.active.to_string(),
        durations.count().to_string(),
        server.errors().to_string(),
        HumanDuration(durations.mean()).brief(),
        HumanDuration(durations.quantile(0.5)).brief(),
        HumanDuration(durations.quantile(0.99)).brief(),
        server.losses.values().sum::<u64>().to_string(),
        format!("{} ({}): {}", server.wire.state, server.wire.strategy, server.wire.reason),
    ]
}

fn statement_row(server: &InstanceSnapshot, row: &StatementSnapshot, total: Duration, share: f64) -> Vec<String> {
    let durations = row.stats.durations();
    let name = |name: &Option<std::sync::Arc<str>>| name.as_deref().unwrap_or("-").to_owned();
    vec![
        server.instance.label(),
        name(&row.database),
        name(&row.user),
        durations.count().to_string(),
        row.stats.errors().to_string(),
        (row.stats.rows_sent + row.stats.rows_affected).to_string(),
        HumanDuration(durations.mean()).brief(),
        HumanDuration(durations.quantile(0.5)).brief(),
        HumanDuration(durations.quantile(0.99)).brief(),
        HumanDuration(total).brief(),
        format!("{:.1}%", share * 100.0),
        row.digest.text.to_string(),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Align {
    Left,
    Right,
}

/// Aligned columns; the last one takes what is left of a line.
struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Widest that any column but the last becomes: names of databases and paths of sockets have no bound worth a line.
const WIDEST: usize = 40;

impl Table {
    fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.into_iter().map(|cell| printable(&cell).into_owned()).collect());
    }

    fn write(&self, width: usize, out: &mut impl Write) -> io::Result<()> {
        let last = self.columns.len() - 1;
        let mut widths: Vec<usize> = self.columns.iter().map(|(title, _)| title.len()).collect();
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate() {
                widths[at] = widths[at].max(cell.width());
            }
        }
        widths[..last].iter_mut().for_each(|width| *width = (*width).min(WIDEST));
        let before: usize = widths[..last].iter().map(|width| width + 2).sum();
        widths[last] = widths[last].min(width.saturating_sub(before).max(LEAST_LAST));
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, (_, align)), width) in row.iter().zip(&self.columns).zip(&widths) {
                let cell = fit(cell, *width);
                let padding = width - cell.width();
                let (left, right) = match align {
                    Align::Left => (0, padding),
                    Align::Right => (padding, 0),
                };
                let written = write!(line, "{:left$}{cell}{:right$}  ", "", "");
                debug_assert!(written.is_ok());
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `text` in at most `width` columns, with an ellipsis where it was cut.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::testing::{self, HOSTILE};

    fn lines(snapshot: &Snapshot, top: usize, width: usize) -> Vec<String> {
        let mut out = Vec::new();
        table(snapshot, top, width, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn servers_then_the_heaviest_statements() {
        let lines = lines(&testing::busy(), 1, 200);
        let expected = [
            "SERVER                          PID  SESSIONS  ACTIVE  CALLS  ERRORS   MEAN     P50    P99  LOSSES  WIRE",
            "postgresql:5432                4711         9       3      6       3  342ms  3.01ms  1.99s       6  visible (boundary): symbols are there",
            "mariadb:/run/mysqld/mysqld.sock  4712         9       3      0       0      0       0      0       0  hidden (none): no symbol",
        ];
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines.iter().take(3).map(|line| words(line)).collect::<Vec<_>>(), expected.map(words));
        // Numbers end in one column, below their title.
        let end = |line: &str, word: &str| line.find(word).unwrap() + word.len();
        assert_eq!(end(&lines[0], "PID"), end(&lines[1], "4711"));
        assert_eq!(end(&lines[0], "PID"), end(&lines[2], "4712"));
        assert_eq!(lines[3], "");
        assert_eq!(
            words(&lines[4]).join(" "),
            "SERVER DATABASE USER CALLS ERRORS ROWS MEAN P50 P99 TOTAL SHARE STATEMENT"
        );
        assert_eq!(
            words(&lines[5]).join(" "),
            "postgresql:5432 bench app 6 3 307 342ms 3.01ms 1.99s 2.05s 100.0% SELECT * FROM pgbench_accounts WHERE aid = ?"
        );
        assert_eq!(lines.len(), 6, "top 1");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [140, 150, 200] {
            for line in lines(&testing::busy(), 5, width) {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
        let cut = lines(&testing::busy(), 5, 130);
        assert!(cut[5].ends_with('…'), "{}", cut[5]);
    }

    #[test]
    fn hostile_names_stay_on_their_line_and_in_their_column() {
        let mut row = testing::busy_statement();
        row.database = Some(HOSTILE.into());
        row.user = Some("数据库\u{202e}".into());
        let lines = lines(&testing::with_statements(vec![row]), 5, 250);
        assert_eq!(lines.len(), 6);
        assert!(lines[5].contains(r#"a"b\c d e f\u{0}g\u{1b}[31mh{}=,'é"#), "{}", lines[5]);
        assert!(lines[5].contains("数据库\\u{202e}"), "{}", lines[5]);
        let column = |line: &str, word: &str| line[..line.find(word).unwrap()].width();
        assert_eq!(column(&lines[4], "STATEMENT"), column(&lines[5], "SELECT * FROM"));
    }

    #[test]
    fn json_is_one_line() {
        let mut out = Vec::new();
        json_line(&serde_json::json!({ "text": HOSTILE }), &mut out).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["text"], HOSTILE);
    }
}
