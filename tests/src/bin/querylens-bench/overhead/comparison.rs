//! Throughput and CPU time a query beside a run without anybody watching, in rounds in which every variant runs once.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use querylens_tests::{cpu::Group, process::sleep};
use serde_json::{Value, json};

use super::{
    AFTERMATH,
    variant::{Variant, Watcher},
};
use crate::{
    progress::say,
    result,
    statistics::{Estimate, rounded},
    workload::{Intensity, Servers, Workload},
};

/// Rounds of one workload.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) workload: Workload,
    /// [`Variant::Nothing`] among them.
    pub(super) variants: Vec<Variant>,
    pub(super) rounds: u32,
    /// Of each run.
    pub(super) seconds: u32,
    /// Statements a second of the run whose CPU time is measured; only throughput is measured if not said.
    pub(super) fixed_rate: Option<u32>,
}

/// One variant in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Queries a second with as much load as possible.
    queries_per_s: f64,
    /// CPU time of server, load generator and watcher at the fixed rate, in microseconds a query.
    cpu_us: Option<f64>,
    /// Events or packets that the watcher missed.
    missed: Option<u64>,
}

/// The rounds so far.
#[derive(Default)]
pub(super) struct Comparison {
    rounds: Vec<(Workload, BTreeMap<Variant, Sample>)>,
}

impl Comparison {
    /// Runs the rounds of a block.
    pub(super) fn measure(&mut self, servers: &mut Servers, block: &Block, clients: u32, group: &Group) -> Result<()> {
        for round in 1..=block.rounds {
            let mut order = block.variants.clone();
            fastrand::shuffle(&mut order);
            let mut samples = BTreeMap::new();
            for variant in order {
                let sample = run(servers, block, variant, clients, group)
                    .with_context(|| format!("{} with {}", block.workload.name(), variant.name()))?;
                samples.insert(variant, sample);
            }
            let shown: Vec<String> = samples
                .iter()
                .map(|(variant, sample)| {
                    let cpu = sample.cpu_us.map(|micros| format!(" {micros:.2} µs")).unwrap_or_default();
                    format!("{} {:.0}/s{cpu}", variant.name(), sample.queries_per_s)
                })
                .collect();
            say(&format!("{} round {round} of {}: {}", block.workload.name(), block.rounds, shown.join(", ")));
            self.rounds.push((block.workload, samples));
        }
        Ok(())
    }

    /// Each workload with each variant beside nothing.
    fn rows(&self) -> Vec<Row> {
        let mut keys: Vec<(Workload, Variant)> = self
            .rounds
            .iter()
            .flat_map(|(workload, samples)| samples.keys().map(|variant| (*workload, *variant)))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().map(|(workload, variant)| self.row(workload, variant)).collect()
    }

    fn row(&self, workload: Workload, variant: Variant) -> Row {
        let rounds = self.rounds.iter().filter(|(of, _)| *of == workload);
        let pairs: Vec<(Sample, Sample)> = rounds
            .filter_map(|(_, samples)| Some((*samples.get(&variant)?, *samples.get(&Variant::Nothing)?)))
            .collect();
        let rates: Vec<_> = pairs.iter().map(|(own, nothing)| (own.queries_per_s, nothing.queries_per_s)).collect();
        let cpu: Vec<_> = pairs.iter().filter_map(|(own, nothing)| Some((own.cpu_us?, nothing.cpu_us?))).collect();
        let mean = |values: &[(f64, f64)]| Estimate::of(&values.iter().map(|(own, _)| *own).collect::<Vec<_>>());
        Row {
            workload,
            variant,
            rounds: pairs.len(),
            queries_per_s: mean(&rates).map_or(0.0, |estimate| estimate.mean),
            ratio: Estimate::ratio(&rates),
            cpu_us: mean(&cpu).map(|estimate| estimate.mean),
            added_us: Estimate::difference(&cpu),
            missed: pairs.iter().filter_map(|(own, _)| own.missed).reduce(|sum, missed| sum + missed),
        }
    }

    /// For machines: `cpu_us_per_query` is what the variant adds, `cpu_total_us` all that there was.
    pub(super) fn summary(&self) -> Vec<Value> {
        self.rows().iter().map(Row::json).collect()
    }

    /// As measured.
    pub(super) fn raw(&self) -> Value {
        let sample = |(variant, sample): (&Variant, &Sample)| {
            let Sample { queries_per_s, cpu_us, missed } = sample;
            json!({ "variant": variant.name(), "queries_per_s": queries_per_s, "cpu_us": cpu_us, "missed": missed })
        };
        let rounds = self.rounds.iter().map(|(workload, samples)| {
            json!({ "workload": workload.name(), "samples": samples.iter().map(sample).collect::<Vec<_>>() })
        });
        rounds.collect()
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self.rows().iter().map(Row::cells).collect();
        let head = [
            "workload",
            "variant",
            "queries/s",
            "throughput beside nothing (95 %)",
            "CPU a query, µs",
            "added CPU a query, µs (95 %)",
            "missed",
            "rounds",
        ];
        let table = result::table(&head, &rows);
        format!("Beside a server that nobody watches:\n\n{table}")
    }
}

/// A variant beside nothing.
struct Row {
    workload: Workload,
    variant: Variant,
    rounds: usize,
    queries_per_s: f64,
    ratio: Option<Estimate>,
    cpu_us: Option<f64>,
    added_us: Option<Estimate>,
    missed: Option<u64>,
}

impl Row {
    fn json(&self) -> Value {
        let number = |value: Option<f64>, decimals| value.map(|value| rounded(value, decimals));
        json!({
            "workload": self.workload.name(),
            "variant": self.variant.name(),
            "tps_ratio": number(self.ratio.map(|estimate| estimate.mean), 4),
            "low": number(self.ratio.and_then(|estimate| estimate.low()), 4),
            "high": number(self.ratio.and_then(|estimate| estimate.high()), 4),
            "cpu_us_per_query": number(self.added_us.map(|estimate| estimate.mean), 3),
            "cpu_low": number(self.added_us.and_then(|estimate| estimate.low()), 3),
            "cpu_high": number(self.added_us.and_then(|estimate| estimate.high()), 3),
            "cpu_total_us": number(self.cpu_us, 3),
            "queries_per_s": rounded(self.queries_per_s, 0),
            "missed": self.missed,
            "rounds": self.rounds,
        })
    }

    fn cells(&self) -> Vec<String> {
        let is_base = self.variant == Variant::Nothing;
        let interval = |estimate: &Estimate, decimals: usize| match estimate.interval {
            Some((low, high)) => format!(" ({low:.decimals$} to {high:.decimals$})"),
            None => String::new(),
        };
        let ratio = self.ratio.filter(|_| !is_base).map(|ratio| format!("{:.3}{}", ratio.mean, interval(&ratio, 3)));
        let added =
            self.added_us.filter(|_| !is_base).map(|added| format!("{:+.2}{}", added.mean, interval(&added, 2)));
        vec![
            self.workload.name().to_owned(),
            self.variant.label(self.workload.engine()).to_owned(),
            format!("{:.0}", self.queries_per_s),
            ratio.unwrap_or_default(),
            self.cpu_us.map(|micros| format!("{micros:.2}")).unwrap_or_default(),
            added.unwrap_or_default(),
            self.missed.map(|missed| missed.to_string()).unwrap_or_default(),
            self.rounds.to_string(),
        ]
    }
}

/// One variant: as much load as possible, then the fixed rate.
fn run(servers: &mut Servers, block: &Block, variant: Variant, clients: u32, group: &Group) -> Result<Sample> {
    let watcher: Watcher = variant.begin(servers, block.workload.engine(), clients)?;
    let saturated = Intensity { clients, seconds: block.seconds, rate: None };
    let report = servers.run(block.workload, saturated)?;
    let each = report.total() as f64 / report.transactions as f64;
    let queries_per_s = report.rate * each;
    let mut cpu_us = None;
    if block.fixed_rate.is_some() {
        let before = group.used()?;
        let report = servers.run(block.workload, Intensity { rate: block.fixed_rate, ..saturated })?;
        // What reads a buffer is done with it, or is so far behind that it will not count what it has not seen.
        sleep(AFTERMATH)?;
        cpu_us = Some((group.used()? - before).as_secs_f64() * 1e6 / report.total() as f64);
    }
    Ok(Sample { queries_per_s, cpu_us, missed: watcher.end()? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn round(nothing: f64, querylens: f64) -> (Workload, BTreeMap<Variant, Sample>) {
        let sample = |queries_per_s: f64, cpu| Sample { queries_per_s, cpu_us: Some(cpu), missed: Some(1) };
        let samples = [(Variant::Nothing, sample(nothing, 30.0)), (Variant::Querylens, sample(querylens, 31.0))];
        (Workload::SelectPrepared, BTreeMap::from(samples))
    }

    #[test]
    fn variants_are_compared_round_by_round() {
        let comparison = Comparison { rounds: vec![round(100.0, 98.0), round(200.0, 196.0)] };
        let row = comparison.row(Workload::SelectPrepared, Variant::Querylens).json();
        assert_eq!(row["tps_ratio"], 0.98);
        assert_eq!((&row["low"], &row["high"]), (&json!(0.98), &json!(0.98)));
        assert_eq!((&row["cpu_us_per_query"], &row["cpu_total_us"]), (&json!(1.0), &json!(31.0)));
        assert_eq!((&row["missed"], &row["rounds"]), (&json!(2), &json!(2)));
        assert_eq!(comparison.rows().len(), 2);
    }

    #[test]
    fn what_was_not_measured_is_not_in_the_table() {
        let mut only_throughput = round(100.0, 98.0);
        only_throughput.1.values_mut().for_each(|sample| sample.cpu_us = None);
        let comparison = Comparison { rounds: vec![only_throughput] };
        let row = comparison.row(Workload::SelectPrepared, Variant::Querylens);
        assert_eq!(row.json()["cpu_us_per_query"], Value::Null);
        assert_eq!(row.cells()[3..6], ["0.980".to_owned(), String::new(), String::new()]);
    }
}
