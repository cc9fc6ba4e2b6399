//! All processors in their order.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::Value;

use super::{
    Config, Effects, Measures, Processor, Stage, StateError,
    breaker::{Gate, Marker},
    correlator::Correlator,
    cost::CostControl,
    memory::MemoryGuard,
    newrelic::ErrorMonitor,
    plans::PlanExtractor,
    privacy,
    sampler::{Room, Sampler},
    state::Moment,
    verification::Verification,
};
use crate::model::{
    Batch, Timestamp,
    names::{attribute as a, processor_metric as m},
    signal::Ledger,
};

/// Reads the monotonic clock. Only for telling how long each stage took; no processor sees it.
pub type Stopwatch = fn() -> Timestamp;

/// What a stage did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageCounts {
    /// Batches.
    pub batches: u64,
    /// Records that came in.
    pub records: u64,
    /// Records that it made itself.
    pub made: u64,
    /// Time that it took.
    pub busy: Duration,
}

/// The chain. What the runtime has to tell a processor, it tells it by its field.
pub struct Chain {
    order: Vec<Stage>,
    /// Sheds when memory is short.
    pub memory: MemoryGuard,
    /// Marks what comes from servers whose circuit is open.
    pub marker: Marker,
    /// Privacy, quality, cardinality.
    pub verification: Verification,
    /// Reads plans.
    pub plans: PlanExtractor,
    /// Sessions, transactions, load.
    pub correlator: Correlator,
    /// Keeps the examples that matter.
    pub sampler: Sampler,
    /// Keeps the budget.
    pub cost: CostControl,
    /// Mends what New Relic would refuse.
    pub newrelic: ErrorMonitor,
    counts: BTreeMap<Stage, StageCounts>,
    total: Ledger,
    stopwatch: Option<Stopwatch>,
    room: Room,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("order", &self.order).field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// What the chain is given beside its configuration.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The breaker, as the collectors have it.
    pub gate: Gate,
    /// Key of hashes where the configuration has none; random for each start.
    pub random: [u8; 32],
    /// Of so many executions the kernel shows one; 0 for none.
    pub kernel_one_in: u32,
    /// Clock for telling how long each stage took.
    pub stopwatch: Option<Stopwatch>,
}

impl Chain {
    /// The chain of a configuration that [`Config::check`] found nothing wrong with.
    pub fn new(config: &Config, surroundings: Surroundings) -> Chain {
        let Surroundings { gate, random, kernel_one_in, stopwatch } = surroundings;
        let second_wall = privacy::Gate::new(config.verification.pii_detection.clone(), &random);
        Chain {
            order: config.order.clone(),
            memory: MemoryGuard::new(config.memory_guard.clone()),
            marker: Marker::new(gate),
            verification: Verification::new(config.verification.clone(), &random),
            plans: PlanExtractor::new(config.plan_attributes.clone(), second_wall),
            correlator: Correlator::new(config.query_correlator.clone()),
            sampler: Sampler::new(config.adaptive_sampler.clone(), kernel_one_in),
            cost: CostControl::new(config.cost_control.clone()),
            newrelic: ErrorMonitor::new(config.error_monitor.clone()),
            counts: BTreeMap::new(),
            total: Ledger::default(),
            stopwatch,
            room: Room::default(),
        }
    }

    /// How much can be sent, as the export sees it; what the budget leaves is known here.
    pub fn room(&mut self, queue: f64, receiver_down: bool) {
        self.room = Room { queue, receiver_down, ..self.room };
    }

    /// Sends a batch through all stages.
    pub fn process(&mut self, now: Timestamp, batch: &mut Batch, effects: &mut Effects) {
        self.room.budget = self.cost.examples();
        self.sampler.room(self.room);
        for at in 0..self.order.len() {
            let stage = self.order[at];
            let (records, accepted) = (batch.len() as u64, batch.ledger().accepted);
            batch.enter(stage.name());
            let begin = self.stopwatch.map(|read| read());
            self.processor_mut(stage).process(now, batch, effects);
            let busy = begin.zip(self.stopwatch).map_or(Duration::ZERO, |(begin, read)| read().since(begin));
            let counts = self.counts.entry(stage).or_default();
            counts.batches += 1;
            counts.records += records;
            counts.made += batch.ledger().accepted - accepted;
            counts.busy += busy;
        }
        batch.enter("");
        self.total.merge(batch.ledger());
    }

    /// The stages in their order.
    pub fn order(&self) -> &[Stage] {
        &self.order
    }

    /// What each stage did.
    pub fn counts(&self) -> &BTreeMap<Stage, StageCounts> {
        &self.counts
    }

    /// All records since the start, and what became of those that were discarded.
    pub fn total(&self) -> &Ledger {
        &self.total
    }

    /// The metrics of the chain and of all its stages.
    pub fn measure(&self) -> Measures {
        let mut measures = Measures::default();
        for (stage, counts) in &self.counts {
            let name = stage.name();
            measures.tell_by(&m::STAGE_RECORDS, a::PROCESSOR, name, counts.records as f64);
            measures.tell_by(&m::STAGE_MADE, a::PROCESSOR, name, counts.made as f64);
            measures.tell_by(&m::STAGE_TIME, a::PROCESSOR, name, counts.busy.as_secs_f64());
        }
        for ((stage, reason, kind), count) in &self.total.discarded {
            let labels = vec![
                (a::PROCESSOR, (*stage).into()),
                (a::REASON, reason.name().into()),
                (a::SIGNAL, kind.name().into()),
            ];
            measures.tell_with(&m::STAGE_DISCARDED, labels, *count as f64);
        }
        self.order.iter().for_each(|stage| self.processor(*stage).measure(&mut measures));
        measures
    }

    /// What has to survive a restart, by stage; states that cannot be written are told apart.
    pub fn export_state(&self, moment: Moment) -> (BTreeMap<Stage, Value>, Vec<StateError>) {
        let (mut states, mut errors) = (BTreeMap::new(), Vec::new());
        for stage in &self.order {
            match self.processor(*stage).export_state(moment) {
                Some(Ok(state)) => {
                    states.insert(*stage, state);
                }
                Some(Err(error)) => errors.push(error),
                None => {}
            }
        }
        (states, errors)
    }

    /// Takes up what was exported. A stage whose state cannot be read starts without it.
    pub fn import_state(&mut self, moment: Moment, states: BTreeMap<Stage, Value>) -> Vec<StateError> {
        let import = |(stage, state)| self.processor_mut(stage).import_state(moment, state).err();
        states.into_iter().filter_map(import).collect()
    }

    fn processor(&self, stage: Stage) -> &dyn Processor {
        match stage {
            Stage::MemoryGuard => &self.memory,
            Stage::CircuitBreaker => &self.marker,
            Stage::Verification => &self.verification,
            Stage::PlanAttributes => &self.plans,
            Stage::QueryCorrelator => &self.correlator,
            Stage::AdaptiveSampler => &self.sampler,
            Stage::CostControl => &self.cost,
            Stage::ErrorMonitor => &self.newrelic,
        }
    }

    fn processor_mut(&mut self, stage: Stage) -> &mut dyn Processor {
        match stage {
            Stage::MemoryGuard => &mut self.memory,
            Stage::CircuitBreaker => &mut self.marker,
            Stage::Verification => &mut self.verification,
            Stage::PlanAttributes => &mut self.plans,
            Stage::QueryCorrelator => &mut self.correlator,
            Stage::AdaptiveSampler => &mut self.sampler,
            Stage::CostControl => &mut self.cost,
            Stage::ErrorMonitor => &mut self.newrelic,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        model::{WallClock, names::PROCESSOR_METRICS},
        processors::testing,
    };

    /// A clock that goes forward by a microsecond each time it is read.
    fn clock() -> Timestamp {
        static READ: AtomicU64 = AtomicU64::new(0);
        Timestamp(READ.fetch_add(1, Ordering::Relaxed) * 1000)
    }

    fn chain(config: &Config) -> Chain {
        let gate = Gate::new(config.circuit_breaker.clone());
        Chain::new(config, Surroundings { gate, random: [7; 32], kernel_one_in: 1024, stopwatch: Some(clock) })
    }

    fn config() -> Config {
        let mut config = Config::default();
        config.cost_control.enabled = true;
        config.error_monitor.enabled = true;
        config
    }

    #[test]
    fn what_came_in_is_what_comes_out_and_what_was_discarded() {
        let mut chain = chain(&config());
        for second in 1..200u64 {
            let now = Timestamp(second * 1_000_000_000);
            let mut batch = Batch::new(WallClock::at(now, 1_800_000_000_000_000_000));
            for number in 0..50 {
                testing::one_of_each().into_iter().for_each(|mut record| {
                    record.at = now;
                    batch.push(record);
                });
                let instance = testing::instance(number % 3);
                batch.push(testing::execution(&instance, now, number % 7, Duration::from_micros(number * 100)));
            }
            chain.process(now, &mut batch, &mut Effects::default());
            let (records, ledger) = batch.into_parts();
            assert_eq!(ledger.accepted, records.len() as u64 + ledger.discards());
        }
        let first = chain.counts()[&Stage::MemoryGuard];
        let made: u64 = chain.counts().values().map(|counts| counts.made).sum();
        assert_eq!(chain.total().accepted, first.records + made);
        assert!(chain.total().discards() > 1000, "{:?}", chain.total());
        assert!(chain.total().discarded.keys().all(|(stage, ..)| !stage.is_empty()));
        for counts in chain.counts().values() {
            assert!(counts.busy >= Duration::from_micros(199), "{counts:?}");
        }
    }

    #[test]
    fn what_is_measured_is_what_the_catalogue_says() {
        let mut chain = chain(&config());
        for second in 1..400u64 {
            let now = Timestamp(second * 1_000_000_000);
            let mut batch = Batch::new(WallClock::at(now, 1_800_000_000_000_000_000));
            testing::one_of_each().into_iter().for_each(|mut record| {
                record.at = now;
                batch.push(record);
            });
            chain.process(now, &mut batch, &mut Effects::default());
        }
        let measures = chain.measure();
        for (metric, labels, value) in measures.iter() {
            let known = PROCESSOR_METRICS.iter().find(|known| known.name == metric.name);
            let known = known.unwrap_or_else(|| panic!("{} is not in the catalogue", metric.name));
            let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, known.attributes, "{}", metric.name);
            assert!(value.is_finite(), "{}", metric.name);
        }
        assert_eq!(measures.value(&m::STAGE_RECORDS, &[(a::PROCESSOR, "memory_guard")]), Some(399.0 * 7.0));
    }

    #[test]
    fn the_state_of_each_stage_survives_and_a_broken_one_does_no_harm() {
        let config = config();
        let mut one = chain(&config);
        let now = Timestamp(5_000_000_000);
        let mut batch = Batch::new(WallClock::at(now, 1_800_000_000_000_000_000));
        testing::one_of_each().into_iter().for_each(|record| batch.push(record));
        one.process(now, &mut batch, &mut Effects::default());
        let moment = Moment { now, clock: batch.clock() };
        let (states, errors) = one.export_state(moment);
        assert!(errors.is_empty());
        assert_eq!(states.len(), 6, "{:?}", states.keys());
        let mut other = chain(&config);
        assert!(other.import_state(moment, states.clone()).is_empty());
        assert_eq!(other.export_state(moment).0, states);
        let broken = states.keys().map(|stage| (*stage, Value::from("no state"))).collect();
        let errors = chain(&config).import_state(moment, broken);
        assert_eq!(errors.len(), 6);
        assert!(errors[0].to_string().contains("the processor starts without it"), "{}", errors[0]);
    }

    #[test]
    fn processors_can_be_left_out() {
        let config = Config { order: vec![Stage::Verification, Stage::AdaptiveSampler], ..config() };
        assert_eq!(config.check().count(), 0);
        let mut chain = chain(&config);
        let mut batch = Batch::new(WallClock::default());
        testing::one_of_each().into_iter().for_each(|record| batch.push(record));
        chain.process(Timestamp(2_000_000_000), &mut batch, &mut Effects::default());
        assert_eq!(chain.counts().keys().copied().collect::<Vec<_>>(), config.order);
    }
}
