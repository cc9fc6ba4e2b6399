//! The rounds, and what they say: each variant beside nothing, and pg_querylens beside pg_stat_statements, round by round.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Variant, Workload};
use crate::{
    result,
    statistics::{Estimate, rounded},
};

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Transactions a second, which are statements.
    pub(super) tps: f64,
    /// CPU time in microseconds a statement.
    pub(super) cpu_us: f64,
}

/// Samples of each variant, by connections.
pub(super) type Round = BTreeMap<Variant, BTreeMap<u32, Sample>>;

/// For people, while it runs.
pub(super) fn line(round: &Round) -> String {
    let variant = |(variant, samples): (&Variant, &BTreeMap<u32, Sample>)| {
        let samples = samples.values().map(|sample| format!("{:.0}/s {:.2} µs", sample.tps, sample.cpu_us));
        format!("{} {}", variant.name(), samples.collect::<Vec<_>>().join(", "))
    };
    round.iter().map(variant).collect::<Vec<_>>().join("; ")
}

/// The rounds so far.
#[derive(Default)]
pub(super) struct Rounds(BTreeMap<Workload, Vec<Round>>);

/// A figure of a sample.
type Figure = fn(&Sample) -> f64;
const TPS: Figure = |sample| sample.tps;
const CPU: Figure = |sample| sample.cpu_us;

/// A figure of two variants in each round in which both ran.
fn pairs(rounds: &[Round], (own, other): (Variant, Variant), clients: u32, figure: Figure) -> Vec<(f64, f64)> {
    let of = |round: &Round, variant| round.get(&variant)?.get(&clients).map(figure);
    rounds.iter().filter_map(|round| Some((of(round, own)?, of(round, other)?))).collect()
}

/// Values of a figure.
fn values(rounds: &[Round], variant: Variant, clients: u32, figure: Figure) -> Vec<f64> {
    pairs(rounds, (variant, variant), clients, figure).iter().map(|(own, _)| *own).collect()
}

fn json(estimate: Option<Estimate>, decimals: i32) -> Value {
    let number = |value: Option<f64>| value.map(|value| rounded(value, decimals));
    let interval = |end: fn(&Estimate) -> Option<f64>| number(estimate.as_ref().and_then(end));
    json!({ "mean": number(estimate.map(|e| e.mean)), "low": interval(Estimate::low), "high": interval(Estimate::high) })
}

fn cell(estimate: Option<Estimate>, decimals: usize) -> String {
    let Some(Estimate { mean, interval }) = estimate else { return String::new() };
    let interval = interval.map(|(low, high)| format!(" ({low:.decimals$} to {high:.decimals$})"));
    format!("{mean:.decimals$}{}", interval.unwrap_or_default())
}

impl Rounds {
    /// One more.
    pub(super) fn add(&mut self, workload: Workload, round: Round) {
        self.0.entry(workload).or_default().push(round);
    }

    /// Variants and numbers of connections of a load.
    fn cells(rounds: &[Round]) -> Vec<(Variant, u32)> {
        let first = rounds.first().into_iter().flatten();
        first.flat_map(|(variant, samples)| samples.keys().map(move |clients| (*variant, *clients))).collect()
    }

    /// For machines: of each variant throughput and CPU a query by connections, and what the latter is more than that of nothing; `cpu_us` alone is
    /// that of the smallest number of connections, where no run waits for another. `beside_pg_stat_statements` is what pg_querylens is held against.
    pub(super) fn summary(&self) -> Vec<Value> {
        self.0.iter().map(|(workload, rounds)| Rounds::summary_of(*workload, rounds)).collect()
    }

    fn summary_of(workload: Workload, rounds: &[Round]) -> Value {
        let mut whole = Map::from_iter([("name".to_owned(), json!(workload.name()))]);
        let mut beside = Map::new();
        for (variant, clients) in Rounds::cells(rounds) {
            let entry = whole.entry(variant.name()).or_insert_with(|| json!({}));
            let cpu = json(Estimate::of(&values(rounds, variant, clients, CPU)), 3);
            if entry.get("cpu_us").is_none() {
                entry["cpu_us"] = cpu.clone();
            }
            entry[format!("tps_{clients}")] = json(Estimate::of(&values(rounds, variant, clients, TPS)), 0);
            entry[format!("cpu_us_{clients}")] = cpu;
            let with_nothing = (variant, Variant::Nothing);
            let added = Estimate::difference(&pairs(rounds, with_nothing, clients, CPU));
            entry[format!("added_cpu_us_{clients}")] = json(added, 3);
            if variant == Variant::Querylens {
                let both = (variant, Variant::PgStatStatements);
                let ratio = Estimate::ratio(&pairs(rounds, both, clients, TPS));
                let difference = Estimate::difference(&pairs(rounds, both, clients, CPU));
                beside.insert(format!("tps_ratio_{clients}"), json(ratio, 4));
                beside.insert(format!("cpu_us_difference_{clients}"), json(difference, 3));
            }
        }
        whole.insert("beside_pg_stat_statements".to_owned(), beside.into());
        whole.into()
    }

    /// As measured.
    pub(super) fn raw(&self) -> Value {
        let sample = |(clients, sample): (&u32, &Sample)| json!({ "clients": clients, "tps": sample.tps, "cpu_us": sample.cpu_us });
        let round = |workload: Workload, round: &Round| {
            let variants = round
                .iter()
                .map(|(variant, samples)| (variant.name().to_owned(), samples.iter().map(sample).collect::<Value>()));
            json!({ "workload": workload.name(), "variants": variants.collect::<Map<String, Value>>() })
        };
        self.0.iter().flat_map(|(workload, rounds)| rounds.iter().map(move |one| round(*workload, one))).collect()
    }

    /// For people.
    pub(super) fn tables(&self) -> String {
        let head = [
            "load",
            "connections",
            "variant",
            "queries/s",
            "throughput beside nothing (95 %)",
            "CPU a query, µs",
            "added CPU a query, µs (95 %)",
            "rounds",
        ];
        let mut rows = Vec::new();
        for (workload, rounds) in &self.0 {
            let mut cells = Rounds::cells(rounds);
            cells.sort_by_key(|(variant, clients)| (*clients, *variant));
            rows.extend(cells.into_iter().map(|cell| Rounds::row(*workload, rounds, cell)));
        }
        let beside = self.0.iter().map(|(workload, rounds)| Rounds::sentence(*workload, rounds)).collect::<String>();
        format!("{}\npg_querylens beside pg_stat_statements (95 %):\n\n{beside}", result::table(&head, &rows))
    }

    fn row(workload: Workload, rounds: &[Round], (variant, clients): (Variant, u32)) -> Vec<String> {
        let mean =
            |figure| Estimate::of(&values(rounds, variant, clients, figure)).map_or(0.0, |estimate| estimate.mean);
        let with_nothing = |figure| match variant {
            Variant::Nothing => Vec::new(),
            _ => pairs(rounds, (variant, Variant::Nothing), clients, figure),
        };
        vec![
            workload.name().to_owned(),
            clients.to_string(),
            variant.name().to_owned(),
            format!("{:.0}", mean(TPS)),
            cell(Estimate::ratio(&with_nothing(TPS)), 3),
            format!("{:.2}", mean(CPU)),
            cell(Estimate::difference(&with_nothing(CPU)), 2),
            values(rounds, variant, clients, TPS).len().to_string(),
        ]
    }

    fn sentence(workload: Workload, rounds: &[Round]) -> String {
        let own = Rounds::cells(rounds).into_iter().filter(|(variant, _)| *variant == Variant::Querylens);
        let line = |(variant, clients): (Variant, u32)| {
            let both = (variant, Variant::PgStatStatements);
            format!(
                "- {}, {clients} connections: throughput {}, CPU a query {} µs\n",
                workload.name(),
                cell(Estimate::ratio(&pairs(rounds, both, clients, TPS)), 3),
                cell(Estimate::difference(&pairs(rounds, both, clients, CPU)), 2),
            )
        };
        own.map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds() -> Rounds {
        let mut rounds = Rounds::default();
        for speed in [1.0, 2.0, 3.0] {
            let run = |tps, cpu_us| BTreeMap::from([(1, Sample { tps: tps * speed, cpu_us })]);
            let variants = [
                (Variant::Nothing, run(100.0, 30.0)),
                (Variant::Querylens, run(99.0, 31.0)),
                (Variant::PgStatStatements, run(98.0, 31.5)),
            ];
            rounds.add(Workload::SelectPrepared, Round::from(variants));
        }
        rounds
    }

    #[test]
    fn variants_are_compared_round_by_round() {
        let summary = &rounds().summary()[0];
        assert_eq!(summary["name"], "select_prepared");
        assert_eq!(summary["querylens"]["tps_1"]["mean"], 198.0);
        assert_eq!(summary["querylens"]["added_cpu_us_1"], json!({ "mean": 1.0, "low": 1.0, "high": 1.0 }));
        let beside = &summary["beside_pg_stat_statements"];
        assert_eq!(beside["tps_ratio_1"]["low"], 1.0102);
        assert_eq!(beside["cpu_us_difference_1"]["high"], -0.5);
    }

    #[test]
    fn nothing_is_not_compared_with_itself() {
        let rounds = rounds();
        let rows = &rounds.0[&Workload::SelectPrepared];
        assert_eq!(Rounds::row(Workload::SelectPrepared, rows, (Variant::Nothing, 1))[4], "");
        assert_eq!(Rounds::row(Workload::SelectPrepared, rows, (Variant::Querylens, 1))[4], "0.990 (0.990 to 0.990)");
        assert!(rounds.tables().contains("throughput 1.010 (1.010 to 1.010), CPU a query -0.50 (-0.50 to -0.50) µs"));
    }
}
