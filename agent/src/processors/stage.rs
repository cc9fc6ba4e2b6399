//! The links of the chain: what each reads and writes, and in which orders that works.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{breaker, correlator, cost, memory, newrelic, plans, sampler, verification};
use crate::model::Problem;

/// A link of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Sheds when memory is short.
    MemoryGuard,
    /// Marks what comes from servers whose circuit is open.
    CircuitBreaker,
    /// Privacy, quality, cardinality.
    Verification,
    /// Reads plans.
    PlanAttributes,
    /// Sessions, transactions, load.
    QueryCorrelator,
    /// Keeps the examples that matter.
    AdaptiveSampler,
    /// Keeps the budget.
    CostControl,
    /// Mends what New Relic would refuse.
    ErrorMonitor,
}

/// What stages hand on to each other in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Records for which there is memory.
    Admitted,
    /// State of the server's circuit.
    Circuit,
    /// Text that was looked at.
    CleanText,
    /// Identity of plans, and what was read out of them.
    PlanIdentity,
    /// Changes of plans and regressions.
    Regression,
    /// Place in session and transaction, blockers.
    Situation,
    /// Share in the server's time.
    Load,
    /// Weight and rule of the sampler.
    Weight,
    /// Series and texts that the budget allows.
    Budgeted,
}

impl Field {
    /// What it is, for people.
    pub fn what(self) -> &'static str {
        match self {
            Field::Admitted => "which records there is memory for",
            Field::Circuit => "the state of the server's circuit",
            Field::CleanText => "text without anything private",
            Field::PlanIdentity => "the identity of plans",
            Field::Regression => "changes of plans and regressions",
            Field::Situation => "the place in session and transaction",
            Field::Load => "the share in the server's time",
            Field::Weight => "how many executions an example stands for",
            Field::Budgeted => "what the budget allows",
        }
    }
}

/// What a stage reads and writes.
#[derive(Debug)]
pub struct Io {
    /// What it looks at.
    pub reads: &'static [Field],
    /// What it is the one to write.
    pub writes: &'static [Field],
}

impl Stage {
    /// All stages in the order in which each finds what it reads.
    pub const ORDER: [Stage; 8] = [
        Stage::MemoryGuard,
        Stage::CircuitBreaker,
        Stage::Verification,
        Stage::PlanAttributes,
        Stage::QueryCorrelator,
        Stage::AdaptiveSampler,
        Stage::CostControl,
        Stage::ErrorMonitor,
    ];

    /// What it reads and writes.
    pub fn io(self) -> &'static Io {
        match self {
            Stage::MemoryGuard => &memory::IO,
            Stage::CircuitBreaker => &breaker::IO,
            Stage::Verification => &verification::IO,
            Stage::PlanAttributes => &plans::IO,
            Stage::QueryCorrelator => &correlator::IO,
            Stage::AdaptiveSampler => &sampler::IO,
            Stage::CostControl => &cost::IO,
            Stage::ErrorMonitor => &newrelic::IO,
        }
    }

    /// Its name in configuration and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Stage::MemoryGuard => "memory_guard",
            Stage::CircuitBreaker => "circuit_breaker",
            Stage::Verification => "verification",
            Stage::PlanAttributes => "plan_attributes",
            Stage::QueryCorrelator => "query_correlator",
            Stage::AdaptiveSampler => "adaptive_sampler",
            Stage::CostControl => "cost_control",
            Stage::ErrorMonitor => "error_monitor",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with an order: a stage twice, before the one whose output it reads, or text that leaves unseen. `key` is where the order stands.
pub fn check_order(key: &str, order: &[Stage]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, stage) in order.iter().enumerate() {
        let place = format!("{key}[{at}]");
        if order[..at].contains(stage) {
            problems.push(Problem::new(place, format!("`{stage}` is there twice")));
            continue;
        }
        let later = &order[at + 1..];
        for field in stage.io().reads {
            // A writer that is absent leaves the field as it is; one that comes later writes too late.
            if let Some(writer) = later.iter().find(|later| later.io().writes.contains(field) && *later != stage) {
                let what = field.what();
                let reason =
                    format!("`{stage}` reads {what}, which `{writer}` writes: put `{writer}` before `{stage}`");
                problems.push(Problem::new(place.clone(), reason));
            }
        }
    }
    if !order.contains(&Stage::Verification) {
        let reason = "lacks `verification`: without it nothing looks for private text before it leaves".to_owned();
        problems.push(Problem::new(key, reason));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_stages_works_and_so_does_each_part_of_it() {
        assert_eq!(check_order("order", &Stage::ORDER), []);
        for left_out in Stage::ORDER.into_iter().filter(|stage| *stage != Stage::Verification) {
            let order: Vec<Stage> = Stage::ORDER.into_iter().filter(|stage| *stage != left_out).collect();
            assert_eq!(check_order("order", &order), [], "without {left_out}");
        }
    }

    #[test]
    fn each_swap_of_neighbours_that_hand_something_on_is_refused_with_the_reason() {
        let order = [Stage::Verification, Stage::AdaptiveSampler, Stage::PlanAttributes];
        let problems = check_order("order", &order);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(problems[0].key, "order[1]");
        assert_eq!(
            problems[0].reason,
            "`adaptive_sampler` reads the identity of plans, which `plan_attributes` writes: put `plan_attributes` before `adaptive_sampler`"
        );
        for at in 0..Stage::ORDER.len() {
            for behind in at + 1..Stage::ORDER.len() {
                let (first, second) = (Stage::ORDER[at], Stage::ORDER[behind]);
                let handed = second.io().reads.iter().any(|field| first.io().writes.contains(field));
                let mut order = Stage::ORDER.to_vec();
                order.swap(at, behind);
                assert!(!handed || !check_order("order", &order).is_empty(), "{second} before {first}");
            }
        }
    }

    #[test]
    fn twice_and_unverified_are_refused() {
        let problems = check_order("order", &[Stage::MemoryGuard, Stage::MemoryGuard]);
        assert!(problems.iter().any(|problem| problem.key == "order[1]" && problem.reason.contains("twice")));
        assert!(problems.iter().any(|problem| problem.key == "order" && problem.reason.contains("verification")));
    }

    #[test]
    fn each_field_has_one_writer() {
        let writers = Stage::ORDER.iter().flat_map(|stage| stage.io().writes).collect::<Vec<_>>();
        for (at, field) in writers.iter().enumerate() {
            assert!(!writers[..at].contains(field), "{field:?}");
        }
        for stage in Stage::ORDER {
            assert!(stage.io().reads.iter().all(|read| writers.contains(&read)), "{stage}");
        }
    }
}
