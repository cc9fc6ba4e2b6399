//! What processors want done. Data only: the runtime carries it out.

use std::{sync::Arc, time::Duration};

use crate::model::{Instance, Timestamp, signal::Severity};

/// Most effects that are kept until the runtime takes them; further ones are counted as lost.
const MAX_EFFECTS: usize = 1024;

/// Something to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The kernel should show one in so many executions that it counts.
    ShowOneIn(u32),
    /// A parameter should be changed within its bounds.
    Tune(Tuning),
    /// A named remedy should be tried: 1 is the first try.
    Heal {
        /// What is wrong, see `verification::healing`.
        issue: &'static str,
        /// Which try.
        attempt: u32,
    },
    /// The export should change.
    Export(ExportAction),
    /// Somebody should be told at once.
    Alert(Alert),
    /// Something about the data is worth knowing; goes out beside the data, never through the chain.
    Feedback(Feedback),
}

/// What the export should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportAction {
    /// Send nothing until then.
    PauseUntil(Timestamp),
    /// Send nothing until somebody has changed the configuration: it cannot work as it is.
    Stop,
    /// Send requests of at most so many bytes.
    LimitRequest(usize),
}

/// A change of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Path in the configuration.
    pub parameter: &'static str,
    /// Value so far.
    pub from: f64,
    /// New value.
    pub to: f64,
    /// Why.
    pub reason: &'static str,
}

/// Something to be told at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// What, in one word for rules: e.g. `budget`, `export_refused`.
    pub name: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What was measured.
    pub value: f64,
    /// What it was compared with.
    pub limit: f64,
}

/// What a feedback is about (`feedback.category`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Records whose server cannot be named.
    EntitySynthesis,
    /// Records that cannot be joined with others.
    EntityCorrelation,
    /// Distinct values near their limit.
    CardinalityManagement,
    /// Distinct values beyond their limit.
    CardinalityLimit,
    /// Data that is old, or stopped coming.
    DataFreshness,
    /// Servers that must not be asked.
    CircuitBreaker,
    /// Values that are missing or cannot be.
    QualityValidation,
    /// Values of a wrong type, or texts that cannot be normalised.
    SchemaValidation,
    /// Private text that was found, and what was done about it.
    PiiDetection,
    /// CPU, memory or disk of the agent.
    SystemHealth,
    /// Servers that cannot be reached.
    DatabaseConnectivity,
    /// Parameters that were changed.
    AutoTuning,
    /// Remedies that were tried.
    SelfHealing,
    /// The sum of it all, from time to time.
    HealthReport,
}

impl Category {
    /// All of them.
    pub const ALL: [Category; 14] = [
        Category::EntitySynthesis,
        Category::EntityCorrelation,
        Category::CardinalityManagement,
        Category::CardinalityLimit,
        Category::DataFreshness,
        Category::CircuitBreaker,
        Category::QualityValidation,
        Category::SchemaValidation,
        Category::PiiDetection,
        Category::SystemHealth,
        Category::DatabaseConnectivity,
        Category::AutoTuning,
        Category::SelfHealing,
        Category::HealthReport,
    ];

    /// Its name in `feedback.category`.
    pub fn name(self) -> &'static str {
        match self {
            Category::EntitySynthesis => "entity_synthesis",
            Category::EntityCorrelation => "entity_correlation",
            Category::CardinalityManagement => "cardinality_management",
            Category::CardinalityLimit => "cardinality_limit",
            Category::DataFreshness => "data_freshness",
            Category::CircuitBreaker => "circuit_breaker",
            Category::QualityValidation => "quality_validation",
            Category::SchemaValidation => "schema_validation",
            Category::PiiDetection => "pii_detection",
            Category::SystemHealth => "system_health",
            Category::DatabaseConnectivity => "database_connectivity",
            Category::AutoTuning => "auto_tuning",
            Category::SelfHealing => "self_healing",
            Category::HealthReport => "health_report",
        }
    }
}

/// How much a feedback matters (`feedback.level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Good to know.
    Info,
    /// Look at it.
    Warning,
    /// Something is wrong.
    Error,
}

/// Something about the data that is worth knowing. Holds names of ours and numbers, no text from outside.
#[derive(Clone, Debug)]
pub struct Feedback {
    /// About what.
    pub category: Category,
    /// How much it matters.
    pub level: Level,
    /// The server, where it is about one.
    pub instance: Option<Arc<Instance>>,
    /// What was looked at: a field, a parameter, a rule.
    pub subject: &'static str,
    /// What was measured.
    pub value: f64,
    /// What it was compared with.
    pub limit: f64,
    /// What to do (`feedback.remediation`).
    pub remediation: &'static str,
    /// Feedbacks of this category that were held back since the one before.
    pub suppressed: u64,
}

/// Effects of a batch, in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
    lost: u64,
}

impl Effects {
    /// Asks for `effect`. Beyond the bound it is counted and forgotten: whoever asks for more than that in one batch asks for the same again.
    pub fn push(&mut self, effect: Effect) {
        if self.list.len() < MAX_EFFECTS {
            self.list.push(effect);
        } else {
            self.lost += 1;
        }
    }

    /// Asks to tell somebody at once.
    pub fn alert(&mut self, name: &'static str, severity: Severity, value: f64, limit: f64) {
        self.push(Effect::Alert(Alert { name, severity, value, limit }));
    }

    /// What was asked for so far.
    pub fn list(&self) -> &[Effect] {
        &self.list
    }

    /// Takes what was asked for, and how much of it was lost.
    pub fn take(&mut self) -> (Vec<Effect>, u64) {
        (std::mem::take(&mut self.list), std::mem::take(&mut self.lost))
    }
}

/// At most one feedback of a category in so long a time; the next one tells how many were held back.
#[derive(Debug)]
pub(super) struct FeedbackLimit {
    interval: Duration,
    last: [Option<Timestamp>; Category::ALL.len()],
    suppressed: [u64; Category::ALL.len()],
}

impl FeedbackLimit {
    /// At most one in `interval`.
    pub(super) fn new(interval: Duration) -> FeedbackLimit {
        FeedbackLimit { interval, last: [None; Category::ALL.len()], suppressed: [0; Category::ALL.len()] }
    }

    /// Asks for `feedback` if it is time.
    pub(super) fn give(&mut self, now: Timestamp, feedback: Feedback, effects: &mut Effects) {
        let at = feedback.category as usize;
        if self.last[at].is_some_and(|last| now.since(last) < self.interval) {
            self.suppressed[at] += 1;
            return;
        }
        self.last[at] = Some(now);
        let suppressed = std::mem::take(&mut self.suppressed[at]);
        effects.push(Effect::Feedback(Feedback { suppressed, ..feedback }));
    }

    /// Feedbacks that are held back now.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(category: Category) -> Feedback {
        Feedback {
            category,
            level: Level::Info,
            instance: None,
            subject: "x",
            value: 0.0,
            limit: 0.0,
            remediation: "",
            suppressed: 0,
        }
    }

    #[test]
    fn a_storm_of_feedback_becomes_one_with_a_number() {
        let mut limit = FeedbackLimit::new(Duration::from_secs(60));
        let mut effects = Effects::default();
        for second in 0..120 {
            for _ in 0..10 {
                limit.give(Timestamp(second * 1_000_000_000), feedback(Category::PiiDetection), &mut effects);
            }
        }
        let suppressed = effects.list().iter().map(|effect| match effect {
            Effect::Feedback(feedback) => feedback.suppressed,
            _ => 0,
        });
        assert_eq!(suppressed.collect::<Vec<_>>(), [0, 599]);
        assert_eq!(limit.suppressed(), 599);
    }

    #[test]
    fn effects_beyond_the_bound_are_counted() {
        let mut effects = Effects::default();
        (0..MAX_EFFECTS + 7).for_each(|_| effects.push(Effect::ShowOneIn(1)));
        let (list, lost) = effects.take();
        assert_eq!((list.len(), lost, effects.list().len()), (MAX_EFFECTS, 7, 0));
    }

    #[test]
    fn categories_are_at_their_own_place() {
        for (at, category) in Category::ALL.into_iter().enumerate() {
            assert_eq!(category as usize, at, "{}", category.name());
        }
    }
}
