//! Settings of all processors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Stage, breaker, correlator, cost, memory, newrelic, plans, sampler, stage, verification};
use crate::model::Problem;

/// What happens to signals before they are exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which processors there are, in which order.
    pub order: Vec<Stage>,
    /// What the agent may use of its memory before it sheds.
    pub memory_guard: memory::Config,
    /// When servers and their questions are left alone.
    pub circuit_breaker: breaker::Config,
    /// Whether what is sent is fit to be sent.
    pub verification: verification::Config,
    /// What is read out of plans, and when a statement counts as slower than before.
    pub plan_attributes: plans::Config,
    /// How statements, sessions and servers hang together.
    pub query_correlator: correlator::Config,
    /// Which examples are kept.
    pub adaptive_sampler: sampler::Config,
    /// What a month may cost, and what is left out before it costs more.
    pub cost_control: cost::Config,
    /// What New Relic accepts.
    pub error_monitor: newrelic::Config,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            order: Stage::ORDER.to_vec(),
            memory_guard: memory::Config::default(),
            circuit_breaker: breaker::Config::default(),
            verification: verification::Config::default(),
            plan_attributes: plans::Config::default(),
            query_correlator: correlator::Config::default(),
            adaptive_sampler: sampler::Config::default(),
            cost_control: cost::Config::default(),
            error_monitor: newrelic::Config::default(),
        }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        fn beneath(section: &str, problems: impl Iterator<Item = Problem>) -> impl Iterator<Item = Problem> {
            problems.map(move |problem| problem.beneath(section))
        }
        stage::check_order("order", &self.order)
            .into_iter()
            .chain(beneath("memory_guard", self.memory_guard.check()))
            .chain(beneath("circuit_breaker", self.circuit_breaker.check()))
            .chain(beneath("verification", self.verification.check()))
            .chain(beneath("plan_attributes", self.plan_attributes.check()))
            .chain(beneath("query_correlator", self.query_correlator.check()))
            .chain(beneath("adaptive_sampler", self.adaptive_sampler.check()))
            .chain(beneath("cost_control", self.cost_control.check()))
            .chain(beneath("error_monitor", self.error_monitor.check()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_survive_being_written() {
        let config = Config::default();
        assert_eq!(config.check().collect::<Vec<_>>(), []);
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&written).unwrap(), config);
    }

    #[test]
    fn problems_have_their_whole_path() {
        let mut config = Config::default();
        config.verification.quality_rules.min_normalization_rate = 2.0;
        config.cost_control.time_zone = "Mars/Olympus".into();
        config.order.swap(2, 5);
        let keys: Vec<String> = config.check().map(|problem| problem.key).collect();
        assert!(keys.contains(&"verification.quality_rules.min_normalization_rate".to_owned()), "{keys:?}");
        assert!(keys.contains(&"cost_control.time_zone".to_owned()), "{keys:?}");
        assert!(keys.contains(&"order[2]".to_owned()), "{keys:?}");
    }
}
