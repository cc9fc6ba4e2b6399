#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::{
    model::{
        StatementStats, WallClock,
        names::{Instrument, Metric},
    },
    processors::{Effect, ExportAction, testing},
};

const SECOND: u64 = 1_000_000_000;

fn at(second: u64) -> Timestamp {
    Timestamp(second * SECOND)
}

fn monitor(change: impl FnOnce(&mut Config)) -> ErrorMonitor {
    let mut config = Config { enabled: true, ..Config::default() };
    change(&mut config);
    ErrorMonitor::new(config)
}

fn run(monitor: &mut ErrorMonitor, second: u64, records: Vec<Record>) -> (Vec<Record>, Vec<Effect>) {
    let mut batch = Batch::new(WallClock::default());
    records.into_iter().for_each(|record| batch.push(record));
    let mut effects = Effects::default();
    monitor.process(at(second), &mut batch, &mut effects);
    (batch.into_parts().0, effects.take().0)
}

fn mends(monitor: &ErrorMonitor) -> Vec<(&'static str, &'static str, u64)> {
    monitor.mends.iter().map(|((rule, kind), count)| (rule.name(), kind.name(), *count)).collect()
}

#[test]
fn long_values_are_cut_at_a_character() {
    let mut monitor = monitor(|_| {});
    let instance = testing::instance(1);
    for (text, length) in
        [("é".repeat(4095), 4095), ("é".repeat(4096), 4095), ("x".repeat(10_000), 4095), ("ab".into(), 2)]
    {
        let mut record = testing::execution(&instance, at(1), 10, Duration::from_millis(1));
        record.origin.user = Some(text.as_str().into());
        if let Signal::Execution(execution) = &mut record.signal {
            execution.digest = testing::digest(1, &text);
        }
        let (records, _) = run(&mut monitor, 1, vec![record]);
        assert_eq!(records[0].origin.user.as_ref().unwrap().chars().count(), length);
        let Signal::Execution(execution) = &records[0].signal else { panic!("no execution") };
        assert_eq!(execution.digest.text.chars().count(), length);
    }
    assert_eq!(mends(&monitor), [("attribute_too_long", "execution", 4)]);
}

static LONG: Metric = Metric {
    name: concat!(
        "a.name.that.is.much.too.long.for.any.receiver.that.we.know.of.and.it.goes.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.",
        "and.so.it.has.more.than.two.hundred.and.fifty.five.characters.",
        "and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on.and.on."
    ),
    unit: "1",
    instrument: Instrument::Gauge,
    description: "",
    attributes: &[],
};

#[test]
fn facts_are_mended_or_go() {
    let mut monitor = monitor(|config| config.max_attributes = 3);
    let instance = testing::instance(1);
    let fact = |change: &dyn Fn(&mut crate::model::signal::Fact)| {
        let mut record = testing::fact(&instance, at(1), 1.0);
        if let Signal::Fact(fact) = &mut record.signal {
            change(fact);
        }
        record
    };
    let records = vec![
        fact(&|fact| fact.value = f64::INFINITY),
        fact(&|fact| fact.metric = &LONG),
        fact(&|fact| fact.attributes = vec![("entity.guid", "x".into()), ("querylens.server.connects", "y".into())]),
        fact(&|fact| {
            fact.attributes =
                vec![("a", "1".into()), ("b", "2".into()), ("c", "3".into()), ("db.system.name", "x".into())];
        }),
    ];
    let (records, _) = run(&mut monitor, 1, records);
    let names = records.iter().map(|record| match &record.signal {
        Signal::Fact(fact) => fact.attributes.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        _ => panic!("no fact"),
    });
    assert_eq!(names.collect::<Vec<_>>(), [vec![], vec!["db.system.name", "a", "b"]]);
    let expected = [
        ("metric_name_too_long", "fact", 1),
        ("reserved_name", "fact", 1),
        ("named_like_metric", "fact", 1),
        ("too_many_attributes", "fact", 1),
        ("not_finite", "fact", 1),
    ];
    assert_eq!(mends(&monitor), expected);
}

#[test]
fn old_statistics_count_as_of_now_and_old_examples_go() {
    let mut monitor = monitor(|_| {});
    let instance = testing::instance(1);
    let hours = |hours: u64| at(hours * 3600);
    let records = vec![
        testing::interval(&instance, hours(1), 10, 5),
        testing::fact(&instance, hours(1), 1.0),
        testing::fact(&instance, hours(3), 1.0),
        testing::fact(&instance, hours(80), 1.0),
    ];
    let (records, _) = run(&mut monitor, 50 * 3600, records);
    assert_eq!(records.iter().map(|record| record.at).collect::<Vec<_>>(), [hours(50), hours(3)]);
}

#[test]
fn series_beyond_the_days_budget_are_counted_together_and_nothing_is_lost() {
    let mut monitor = monitor(|config| config.max_series = 200);
    let instance = testing::instance(1);
    let mut sums = Vec::new();
    for day in [0u64, 1] {
        let mut distinct = std::collections::BTreeSet::new();
        let mut total = StatementStats::default();
        for minute in 0..30u64 {
            let records =
                (0..20).map(|number| testing::interval(&instance, at(1), 100 + minute * 10 + number, 3)).collect();
            let mut batch = Batch::new(WallClock::at(at(minute + 1), (day * 86_400 * SECOND) as i64));
            let list: Vec<Record> = records;
            list.into_iter().for_each(|record| batch.push(record));
            monitor.process(at(minute + 1), &mut batch, &mut Effects::default());
            let mut in_batch = std::collections::BTreeSet::new();
            for record in batch.records() {
                let Signal::Interval(interval) = &record.signal else { panic!("no interval") };
                distinct.insert(interval.digest.fingerprint);
                assert!(in_batch.insert(interval.digest.fingerprint), "a series twice");
                total.merge(&interval.stats);
            }
        }
        assert!(distinct.contains(&Digest::OTHER));
        assert!((185..=201).contains(&distinct.len()), "{} series", distinct.len());
        sums.push(total.executions());
    }
    assert_eq!(sums, [30 * 20 * 3; 2]);
}

#[test]
fn what_is_mended_often_is_told_and_not_again_soon() {
    let mut monitor = monitor(|_| {});
    let instance = testing::instance(1);
    let mut told = Vec::new();
    for second in 0..800 {
        let records = vec![testing::fact(&instance, at(second), f64::NAN); 10];
        let (_, effects) = run(&mut monitor, second, records);
        told.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Alert(alert) => Some((second, alert.name)),
            _ => None,
        }));
    }
    assert_eq!(told, [(60, "not_finite"), (360, "not_finite"), (660, "not_finite")]);
}

fn answer(monitor: &mut ErrorMonitor, second: u64, answer: Answer) -> Vec<ExportAction> {
    let mut effects = Effects::default();
    monitor.answer(at(second), answer, &mut effects);
    let actions = effects.take().0.into_iter().filter_map(|effect| match effect {
        Effect::Export(action) => Some(action),
        _ => None,
    });
    actions.collect()
}

#[test]
fn each_class_of_error_has_its_consequence() {
    let mut monitor = monitor(|_| {});
    let status = |status| Answer { status, ..Answer::default() };
    assert_eq!(answer(&mut monitor, 1, status(202)), []);
    for refused in [401, 403, 404] {
        let mut monitor = self::monitor(|_| {});
        assert_eq!(answer(&mut monitor, 1, status(refused)), [ExportAction::Stop]);
        assert_eq!(answer(&mut monitor, 2, status(refused)), [], "it is told once");
    }
    let wait = Some(Duration::from_secs(17));
    let limited = Answer { status: 429, retry_after: wait, ..Answer::default() };
    assert_eq!(answer(&mut monitor, 1, limited), [ExportAction::PauseUntil(at(18))]);
    // Without a word: 5 s doubled for each failure, at most 300 s.
    let waits: Vec<_> = (0..9).flat_map(|_| answer(&mut monitor, 100, status(503))).collect();
    let seconds = [10, 20, 40, 80, 160, 300, 300, 300, 300].map(|wait| ExportAction::PauseUntil(at(100 + wait)));
    assert_eq!(waits, seconds);
    answer(&mut monitor, 500, status(200));
    assert_eq!(answer(&mut monitor, 500, status(500)), [ExportAction::PauseUntil(at(505))]);
}

#[test]
fn requests_shrink_when_they_are_too_large_and_grow_again() {
    let mut monitor = monitor(|_| {});
    let large = |bytes| Answer { status: 413, bytes, ..Answer::default() };
    assert_eq!(answer(&mut monitor, 1, large(900_000)), [ExportAction::LimitRequest(450_000)]);
    assert_eq!(answer(&mut monitor, 2, large(400_000)), [ExportAction::LimitRequest(200_000)]);
    assert_eq!(answer(&mut monitor, 3, large(10)), [ExportAction::LimitRequest(65_536)]);
    let ok = Answer { status: 200, ..Answer::default() };
    assert_eq!(answer(&mut monitor, 600, ok), []);
    let mut limits = Vec::new();
    for round in 1..10 {
        limits.extend(answer(&mut monitor, 603 + round * 600, ok));
    }
    let expected = [131_072, 262_144, 524_288, 1_000_000].map(ExportAction::LimitRequest);
    assert_eq!(limits, expected);
}

#[test]
fn faults_that_come_later_count_too() {
    let mut monitor = monitor(|_| {});
    let instance = testing::instance(1);
    run(&mut monitor, 1, vec![testing::interval(&instance, at(1), 10, 1)]);
    let fault = |limit: &str| IntegrationError { category: "RateLimit".into(), limit: Some(limit.into()) };
    let mut effects = Effects::default();
    monitor.fault(at(2), &fault("RequestsPerMinute"), &mut effects);
    assert!(matches!(effects.list(), [Effect::Export(ExportAction::PauseUntil(until))] if *until == at(62)));
    monitor.fault(at(3), &fault("UniqueTimeseriesPerDay"), &mut effects);
    // Known series go on, new ones are counted together for the rest of the day.
    let records = [10, 11, 12].map(|number| testing::interval(&instance, at(4), number, 1)).to_vec();
    let (records, _) = run(&mut monitor, 4, records);
    assert_eq!(records.iter().map(testing::fingerprint).collect::<Vec<_>>(), [10, Digest::OTHER]);
}

#[test]
fn series_survive_a_restart() {
    let mut monitor = monitor(|_| {});
    let instance = testing::instance(1);
    run(&mut monitor, 1, (0..300).map(|number| testing::interval(&instance, at(1), number, 1)).collect());
    let kept = monitor.export_state(Moment::default()).unwrap().unwrap();
    let mut again = self::monitor(|_| {});
    again.import_state(Moment::default(), kept).unwrap();
    let count = again.series.by_metric["db.server.operation.duration"].count();
    assert!((285..=315).contains(&count), "{count}");
}
