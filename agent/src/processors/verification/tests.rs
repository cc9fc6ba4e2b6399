#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::{
    config::{AutoTuning, SelfHealing},
    *,
};
use crate::{
    model::{WallClock, signal::TextField},
    processors::{Effect, privacy::Action, testing},
};

const SECOND: u64 = 1_000_000_000;

fn at(second: u64) -> Timestamp {
    Timestamp(second * SECOND)
}

fn verification(change: impl FnOnce(&mut Config)) -> Verification {
    let mut config = Config::default();
    change(&mut config);
    Verification::new(config, b"key")
}

fn run(verification: &mut Verification, second: u64, records: Vec<Record>) -> (Batch, Vec<Effect>) {
    let mut batch = Batch::new(WallClock::default());
    records.into_iter().for_each(|record| batch.push(record));
    let mut effects = Effects::default();
    verification.process(at(second), &mut batch, &mut effects);
    (batch, effects.take().0)
}

fn categories(effects: &[Effect]) -> Vec<&'static str> {
    let of = effects.iter().filter_map(|effect| match effect {
        Effect::Feedback(feedback) => Some(feedback.category.name()),
        _ => None,
    });
    of.collect()
}

#[test]
fn every_text_field_of_every_kind_is_looked_at() {
    let mut verification = verification(|_| {});
    let mut seen = std::collections::BTreeSet::new();
    let (mut records, mut sizes) = (testing::one_of_each(), 0);
    for record in &mut records {
        record.texts(&mut |field, text| {
            seen.insert(field);
            match text {
                TextMut::Text(text) => *text = format!("{text} ann@example.com").into(),
                TextMut::Digest(digest) => {
                    let digest = Arc::make_mut(digest);
                    digest.text = format!("{} /* ann@example.com", digest.text).into();
                    digest.summary = "SELECT ann@example.com".into();
                }
            }
            sizes += 1;
        });
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), TextField::ALL);
    let (mut batch, effects) = run(&mut verification, 1, records);
    assert_eq!(batch.len(), 7);
    let mut looked_at = 0;
    for record in batch.records_mut() {
        record.texts(&mut |field, text| {
            looked_at += 1;
            let text = match text {
                TextMut::Text(text) => text.to_string(),
                TextMut::Digest(digest) => format!("{digest:?}"),
            };
            assert!(!text.contains("ann@"), "{}: {text}", field.name());
        });
        // Nor anywhere else, but in the sealed text of a plan, whose Debug shows its length.
        assert!(!format!("{record:?}").contains("ann@"), "{record:?}");
    }
    assert_eq!(looked_at, sizes);
    assert_eq!(categories(&effects), ["pii_detection"]);
}

#[test]
fn drop_drops_examples_and_redacts_exact_statistics() {
    let mut verification = verification(|config| config.pii_detection.action = Action::Drop);
    let mut records = testing::one_of_each();
    records.iter_mut().for_each(|record| record.origin.user = Some("ann@example.com".into()));
    let (batch, _) = run(&mut verification, 1, records);
    assert_eq!(batch.len(), 1);
    let record = &batch.records()[0];
    assert!(matches!(record.signal, Signal::Interval(_)));
    assert_eq!(record.origin.user.as_deref(), Some("<redacted>"));
    assert_eq!(batch.ledger().discarded.keys().map(|(_, reason, _)| *reason).collect::<Vec<_>>(), [Reason::Private; 6]);
}

#[test]
fn what_cannot_be_goes_and_is_told_once_a_minute() {
    let mut verification = verification(|_| {});
    let instance = testing::instance(1);
    let mut told = Vec::new();
    for second in 1..=150 {
        let mut wrong = testing::execution(&instance, at(second), 10, Duration::from_millis(1));
        if let Signal::Execution(execution) = &mut wrong.signal {
            execution.start = at(second + 1);
        }
        let (batch, effects) =
            run(&mut verification, second, vec![wrong, testing::fact(&instance, at(second), f64::NAN)]);
        assert!(batch.is_empty());
        told.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Feedback(feedback) => Some((second, feedback.category, feedback.suppressed)),
            _ => None,
        }));
    }
    let quality = Category::QualityValidation;
    assert_eq!(told, [(1, quality, 0), (61, quality, 119), (121, quality, 119)]);
}

#[test]
fn old_examples_go_and_old_statistics_count() {
    let mut verification = verification(|_| {});
    let instance = testing::instance(1);
    let records = vec![
        testing::interval(&instance, at(1), 10, 5),
        testing::execution(&instance, at(1), 10, Duration::from_millis(1)),
        testing::execution(&instance, at(2000), 10, Duration::from_millis(1)),
        testing::execution(&instance, at(900), 10, Duration::from_millis(1)),
    ];
    let (batch, effects) = run(&mut verification, 1000, records);
    assert_eq!(batch.len(), 2);
    assert_eq!(categories(&effects), ["data_freshness"]);
}

#[test]
fn shares_cardinality_and_silence_are_reported() {
    let mut verification = verification(|config| config.cardinality_limits.query_id = 150);
    let instance = testing::instance(1);
    let mut records = Vec::new();
    for number in 0..200 {
        let mut record = testing::interval(&instance, at(1), number, 1);
        (record.origin.database, record.origin.user) = (None, None);
        if let Signal::Interval(interval) = &mut record.signal {
            interval.digest = testing::digest(number, "<unknown>");
        }
        records.push(record);
    }
    run(&mut verification, 1, records);
    let (_, effects) = run(&mut verification, 400, Vec::new());
    let mut told = categories(&effects);
    told.sort_unstable();
    assert_eq!(told, ["cardinality_limit", "entity_correlation", "health_report", "schema_validation"]);
    let (_, effects) = run(&mut verification, 1000, Vec::new());
    assert!(categories(&effects).contains(&"data_freshness"));
    let (_, effects) = run(&mut verification, 1400, Vec::new());
    assert!(!categories(&effects).contains(&"data_freshness"), "silence is told once");
}

#[test]
fn cardinality_is_a_days_and_survives_a_restart() {
    let number = |verification: &Verification| {
        let mut measures = Measures::default();
        verification.measure(&mut measures);
        measures.value(&m::CARDINALITY, &[(a::SIGNAL, "interval"), (a::DIMENSION, "query_id")])
    };
    let day = |verification: &mut Verification, hour: i64, numbers: std::ops::Range<u64>| {
        let mut batch = Batch::new(WallClock::at(at(1), hour * 3_600_000_000_000));
        numbers.for_each(|number| batch.push(testing::interval(&testing::instance(1), at(1), number, 1)));
        verification.process(at(1), &mut batch, &mut Effects::default());
    };
    let mut one = verification(|_| {});
    day(&mut one, 10, 0..30);
    day(&mut one, 23, 20..50);
    assert_eq!(number(&one), Some(50.0));
    let kept = one.export_state(Moment::default()).unwrap().unwrap();
    let mut other = verification(|_| {});
    other.import_state(Moment::default(), kept).unwrap();
    day(&mut other, 23, 40..60);
    assert_eq!(number(&other), Some(60.0));
    day(&mut other, 24, 0..5);
    assert_eq!(number(&other), Some(5.0));
}

#[test]
fn remedies_are_tried_further_and_further_apart_and_then_somebody_is_told() {
    let mut verification = verification(|config| config.self_healing = SelfHealing::default());
    verification.health(Health { unreachable: 1, ..Health::default() });
    let mut tried = Vec::new();
    let mut alerts = Vec::new();
    for second in 0..2000 {
        let (_, effects) = run(&mut verification, second, Vec::new());
        for effect in effects {
            match effect {
                Effect::Heal { issue, attempt } => tried.push((second, issue, attempt)),
                Effect::Alert(alert) => alerts.push((second, alert.name)),
                _ => {}
            }
        }
    }
    let issue = "database_connectivity";
    assert_eq!(tried, [(0, issue, 1), (60, issue, 2), (180, issue, 3)]);
    assert_eq!(alerts, [(420, issue)]);
    // Well again, and ill again: from the beginning.
    verification.health(Health::default());
    run(&mut verification, 2000, Vec::new());
    verification.health(Health { unreachable: 2, ..Health::default() });
    let (_, effects) = run(&mut verification, 2001, Vec::new());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Heal { attempt: 1, .. })));
}

/// A parameter whose strain is a function of its value; gives the journal after so many looks.
fn tuned(apply: bool, steps: u64, strain: impl Fn(f64, u64) -> f64) -> (Vec<(f64, f64, Fate)>, f64) {
    let mut verification = verification(|config| {
        config.auto_tuning = AutoTuning { enable_auto_apply: apply, ..AutoTuning::default() };
    });
    let name = "adaptive_sampler.target_records_per_second";
    verification.tunable(Parameter { name, configured: 100.0, min: 40.0, max: 100.0, less_is_relief: true });
    let mut value = 100.0;
    for step in 0..steps {
        for observation in 0..10 {
            verification.strain(name, strain(value, step));
            run(&mut verification, step * 600 + observation * 60, Vec::new());
        }
        let (_, effects) = run(&mut verification, (step + 1) * 600, Vec::new());
        for effect in effects {
            if let Effect::Tune(tuning) = effect {
                assert_eq!(tuning.from, value);
                assert!((tuning.to / tuning.from - 1.0).abs() <= 0.2501, "{tuning:?}");
                value = tuning.to;
            }
        }
    }
    (verification.journal().map(|entry| (entry.tuning.from, entry.tuning.to, entry.fate)).collect(), value)
}

#[test]
fn tuning_follows_the_strain_within_bounds_and_goes_back() {
    let (journal, value) = tuned(true, 40, |value, step| if step < 10 { value / 50.0 } else { 0.1 });
    assert!(journal.iter().any(|(_, to, _)| (40.0..=51.2).contains(to)), "{journal:?}");
    assert!(journal.iter().all(|(_, to, _)| (40.0..=100.0).contains(to)));
    assert_eq!(value, 100.0, "{journal:?}");
}

#[test]
fn a_change_that_does_not_help_is_taken_back_and_not_tried_again() {
    let (journal, value) = tuned(true, 20, |_, _| 2.0);
    assert_eq!(journal, [(100.0, 80.0, Fate::Applied), (80.0, 100.0, Fate::Reverted)]);
    assert_eq!(value, 100.0);
}

#[test]
fn without_leave_nothing_is_changed_but_said() {
    let (journal, value) = tuned(false, 3, |_, _| 2.0);
    assert!(journal.iter().all(|entry| *entry == (100.0, 80.0, Fate::Proposed)) && !journal.is_empty(), "{journal:?}");
    assert_eq!(value, 100.0);
}
