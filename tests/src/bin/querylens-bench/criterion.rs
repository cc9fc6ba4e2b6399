//! `bench wire`, `bench sql` and `bench pipeline`: what criterion measured, as one line and a table.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    machine::Machine,
    result::{self, Outcome, Output},
    statistics::rounded,
};

/// Arguments: which benches, and where criterion left its figures.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    output: Output,
    /// `wire`, `sql` or `pipeline`.
    #[arg(value_enum)]
    benchmark: Benchmark,
    /// Criterion's directory.
    #[arg(long)]
    results: PathBuf,
}

/// Benches of the agent.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Benchmark {
    /// The protocol machines.
    Wire,
    /// The normaliser.
    Sql,
    /// The chain of processors.
    Pipeline,
}

/// One bench.
#[derive(Debug, PartialEq)]
struct Figure {
    /// `group/function/value`.
    name: String,
    /// Mean nanoseconds of an iteration, and the ends of criterion's interval.
    nanos: (f64, f64, f64),
    /// `Elements`, `Bytes` or `BytesDecimal` of an iteration.
    throughput: Option<(String, f64)>,
}

/// The benchmark.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut figures = Vec::new();
    collect(&options.results, &mut figures)?;
    ensure!(!figures.is_empty(), "criterion left nothing in {}", options.results.display());
    figures.sort_by(|a, b| a.name.cmp(&b.name));
    let benchmark = match options.benchmark {
        Benchmark::Wire => "wire",
        Benchmark::Sql => "sql",
        Benchmark::Pipeline => "pipeline",
    };
    let json: Vec<Value> = figures.iter().map(Figure::json).collect();
    let (summary, tables) = match options.benchmark {
        Benchmark::Wire | Benchmark::Sql => {
            let rows: Vec<Vec<String>> = figures.iter().map(Figure::cells).collect();
            let head = ["bench", "statements/s", "bytes/s", "µs an iteration (95 %)"];
            (json!({ "benchmark": benchmark, "figures": json }), result::table(&head, &rows))
        }
        Benchmark::Pipeline => shares(&figures)?,
    };
    Outcome {
        benchmark,
        method: format!("`cargo bench -p querylens --bench {benchmark}`, on one core"),
        summary,
        raw: json!(json),
        tables,
    }
    .publish(&Machine::read(), options.output)
}

/// Time for a signal in the whole chain, and in each processor alone.
fn shares(figures: &[Figure]) -> Result<(Value, String)> {
    let each = figures.iter().map(|figure| {
        let name = figure.name.strip_prefix("pipeline/").unwrap_or(&figure.name);
        let micros = figure.micros_each().with_context(|| format!("{name} has no number of signals"))?;
        Ok((name, micros, figure))
    });
    let each = each.collect::<Result<Vec<_>>>()?;
    let (_, whole, _) = *each.iter().find(|(name, ..)| *name == "chain").context("the whole chain was not measured")?;
    let alone: serde_json::Map<String, Value> = each
        .iter()
        .filter(|(name, ..)| *name != "chain")
        .map(|(name, micros, _)| ((*name).to_owned(), rounded(*micros, 4)))
        .collect();
    let rows: Vec<Vec<String>> = each
        .iter()
        .map(|(name, micros, figure)| {
            let rate = figure.rate("Elements").unwrap_or_default() / 1e6;
            vec![
                (*name).to_owned(),
                format!("{micros:.3}"),
                format!("{:.0} %", micros / whole * 100.0),
                format!("{rate:.2}"),
            ]
        })
        .collect();
    let head = ["processor", "µs a signal", "of the chain", "million signals/s"];
    Ok((json!({ "us_per_signal": rounded(whole, 4), "processors": alone }), result::table(&head, &rows)))
}

/// Reads every `new` directory: estimates.json has times, benchmark.json the identity.
fn collect(dir: &Path, figures: &mut Vec<Figure>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        if path.join("estimates.json").exists() && path.join("benchmark.json").exists() {
            if path.ends_with("new") {
                let read = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path.join(name))?)?) };
                let figure = figure(&read("benchmark.json")?, &read("estimates.json")?);
                figures.push(figure.with_context(|| format!("{} is not criterion's", path.display()))?);
            }
        } else {
            collect(&path, figures)?;
        }
    }
    Ok(())
}

fn figure(benchmark: &Value, estimates: &Value) -> Option<Figure> {
    let mean = &estimates["mean"];
    let bound = |name: &str| mean["confidence_interval"][name].as_f64();
    let nanos = (mean["point_estimate"].as_f64()?, bound("lower_bound")?, bound("upper_bound")?);
    let throughput = benchmark["throughput"].as_object().and_then(|throughput| {
        let (unit, amount) = throughput.iter().next()?;
        Some((unit.clone(), amount.as_f64()?))
    });
    Some(Figure { name: benchmark["full_id"].as_str()?.to_owned(), nanos, throughput })
}

impl Figure {
    /// Of the wanted units a second.
    fn rate(&self, wanted: &str) -> Option<f64> {
        self.throughput
            .as_ref()
            .filter(|(unit, _)| unit.starts_with(wanted))
            .map(|(_, amount)| amount * 1e9 / self.nanos.0)
    }

    /// Microseconds for each of the elements of an iteration.
    fn micros_each(&self) -> Option<f64> {
        self.rate("Elements").map(|rate| 1e6 / rate)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "statements_per_s": self.rate("Elements").map(|rate| rounded(rate, 0)),
            "bytes_per_s": self.rate("Bytes").map(|rate| rounded(rate, 0)),
            "mean_ns": rounded(self.nanos.0, 1),
            "low_ns": rounded(self.nanos.1, 1),
            "high_ns": rounded(self.nanos.2, 1),
        })
    }

    fn cells(&self) -> Vec<String> {
        let (mean, low, high) = self.nanos;
        let show = |rate: Option<f64>, unit: f64, name: &str| {
            rate.map(|rate| format!("{:.2} {name}", rate / unit)).unwrap_or_default()
        };
        vec![
            self.name.clone(),
            show(self.rate("Elements"), 1e6, "M"),
            show(self.rate("Bytes"), 1e9, "GB"),
            format!("{:.2} ({:.2} to {:.2})", mean / 1e3, low / 1e3, high / 1e3),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_become_rates() {
        let estimates = json!({ "mean": {
            "point_estimate": 3000.0, "confidence_interval": { "lower_bound": 2900.0, "upper_bound": 3100.0 },
        } });
        let of = |throughput: Value| {
            figure(&json!({ "full_id": "postgresql/digest", "throughput": throughput }), &estimates).unwrap()
        };
        let statements = of(json!({ "Elements": 6 }));
        assert_eq!(statements.json()["statements_per_s"], 2_000_000.0);
        assert_eq!(statements.json()["bytes_per_s"], Value::Null);
        assert_eq!(of(json!({ "Bytes": 6000 })).json()["bytes_per_s"], 2e9);
        assert_eq!(of(Value::Null).cells()[1..3], [String::new(), String::new()]);
        assert_eq!(figure(&json!({}), &estimates), None);
    }

    #[test]
    fn the_chain_is_told_with_its_parts() {
        let figure = |name: &str, nanos: f64| Figure {
            name: format!("pipeline/{name}"),
            nanos: (nanos, nanos, nanos),
            throughput: Some(("Elements".to_owned(), 1000.0)),
        };
        let figures = [figure("chain", 800_000.0), figure("verification", 200_000.0)];
        let (summary, table) = shares(&figures).unwrap();
        assert_eq!(summary, json!({ "us_per_signal": 0.8, "processors": { "verification": 0.2 } }));
        assert!(table.contains("| verification | 0.200 | 25 % | 5.00 |"), "{table}");
        assert!(shares(&figures[1..]).is_err());
    }

    #[test]
    fn only_the_newest_figures_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (name, nanos) in [("base", 1.0), ("new", 2.0)] {
            let place = dir.path().join("group/function").join(name);
            fs::create_dir_all(&place).unwrap();
            let bounds = json!({ "lower_bound": nanos, "upper_bound": nanos });
            let mean = json!({ "mean": { "point_estimate": nanos, "confidence_interval": bounds } });
            fs::write(place.join("estimates.json"), mean.to_string()).unwrap();
            fs::write(place.join("benchmark.json"), json!({ "full_id": "group/function" }).to_string()).unwrap();
        }
        let mut figures = Vec::new();
        collect(dir.path(), &mut figures).unwrap();
        assert_eq!(figures.len(), 1);
        assert_eq!(figures[0].nanos.0, 2.0);
    }
}
