//! What a benchmark leaves: raw figures under target/bench, a table in docs/BENCHMARKS.md, one line of JSON.

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use querylens_tests::layout;
use serde_json::{Value, json};

use crate::machine::Machine;

/// How results are told.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Output {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Write the tables into docs/BENCHMARKS.md, and curves into docs/benchmarks.
    #[arg(long)]
    pub(crate) write_docs: bool,
}

/// The outcome of one benchmark.
pub(crate) struct Outcome {
    /// Its name on the command line.
    pub(crate) benchmark: &'static str,
    /// How it was measured, with the values of its options.
    pub(crate) method: String,
    /// Headline figures.
    pub(crate) summary: Value,
    /// Everything that was measured.
    pub(crate) raw: Value,
    /// Markdown, without the line about the machine.
    pub(crate) tables: String,
}

impl Outcome {
    /// Keeps the raw figures, shows the tables on standard error, and does what the options ask for.
    #[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to people")]
    pub(crate) fn publish(self, machine: &Machine, output: Output) -> Result<()> {
        let date = date(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
        let dir = layout::target().join("bench");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let file = dir.join(format!("{}-{date}.json", self.benchmark));
        let whole = json!({
            "benchmark": self.benchmark, "date": date, "machine": machine.json(), "method": self.method,
            "summary": self.summary, "raw": self.raw,
        });
        fs::write(&file, format!("{whole:#}\n")).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("\n{}\n\nraw figures: {}", self.tables.trim_end(), file.display());
        if output.write_docs {
            let day = date.split('T').next().unwrap_or_default();
            let method = self.method.trim_end_matches('.');
            let text = format!("Measured on {day}: {}.\n{method}.\n\n{}", machine.sentence(), self.tables.trim());
            document(self.benchmark, &text)?;
        }
        if output.json {
            println!("{}", self.summary);
        }
        Ok(())
    }
}

/// Keeps pictures by their names beside the raw figures, and beside the page where the options ask for it.
pub(crate) fn keep_pictures(pictures: &[(String, String)], output: Output) -> Result<()> {
    let page = page().with_file_name("benchmarks");
    for dir in [Some(layout::target().join("bench")), output.write_docs.then_some(page)].into_iter().flatten() {
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        for (name, picture) in pictures {
            let file = dir.join(format!("{name}.svg"));
            fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}

/// The page with all tables.
fn page() -> PathBuf {
    layout::checkout().join("docs/BENCHMARKS.md")
}

fn document(benchmark: &str, text: &str) -> Result<()> {
    let page = page();
    let old = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let new = between(&old, benchmark, text)
        .with_context(|| format!("{} has no place for `{benchmark}`: its two marks are missing", page.display()))?;
    fs::write(&page, new).with_context(|| format!("cannot write {}", page.display()))
}

/// `page` with `text` between the two marks of a benchmark.
fn between(page: &str, benchmark: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {benchmark}: generated -->"), format!("<!-- {benchmark}: end -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{text}\n\n{end}{after}"))
}

/// A table in Markdown; columns of numbers stand to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let numeric = |column: usize| {
        let digit = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-');
        rows.iter().filter_map(|row| row.get(column)).any(digit)
    };
    let rule = (0..head.len()).map(|column| if numeric(column) { "---:" } else { "---" });
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.to_vec()) + &line(rule.collect());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// A Unix time as `2026-01-31T12-00-00` (UTC), which is a name of a file everywhere.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02}T{:02}-{:02}-{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Day of the Gregorian calendar, counted from 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01T00-00-00");
        assert_eq!(date(951_782_400), "2000-02-29T00-00-00");
        assert_eq!(date(1_767_225_599), "2025-12-31T23-59-59");
    }

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let page = "# A\n<!-- scale: generated -->\nold\n<!-- scale: end -->\ntext\n<!-- sql: generated --><!-- sql: end -->\n";
        let new = between(page, "scale", "new").unwrap();
        assert!(new.contains("generated -->\n\nnew\n\n<!-- scale: end -->\ntext\n<!-- sql: generated --><!-- sql"));
        assert!(!new.contains("old"));
        assert_eq!(between(&new, "scale", "new").unwrap(), new);
        assert_eq!(between(page, "wire", "new"), None);
    }

    #[test]
    fn every_benchmark_has_its_place_in_the_page() {
        let text = fs::read_to_string(page()).unwrap();
        for benchmark in ["overhead", "fidelity", "scale", "growth", "wire", "sql", "querylens", "pipeline"] {
            assert!(between(&text, benchmark, "").is_some(), "{benchmark}");
        }
    }

    #[test]
    fn tables_are_markdown() {
        let rows = [vec!["a".to_owned(), "1.5".to_owned()], vec!["b".to_owned(), "n/a".to_owned()]];
        assert_eq!(table(&["what", "µs"], &rows), "| what | µs |\n| --- | ---: |\n| a | 1.5 |\n| b | n/a |\n");
    }
}
