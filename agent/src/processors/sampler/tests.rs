#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{
    model::{Code, WallClock, signal::Change},
    processors::testing,
};

const SECOND: u64 = 1_000_000_000;

/// Feeds executions in batches of a tenth of a second: `of(tick)` gives the fingerprint and duration in µs of each. Gives those kept, by tick.
fn run(
    sampler: &mut Sampler,
    ticks: std::ops::Range<u64>,
    mut of: impl FnMut(u64) -> Vec<(u64, u64)>,
) -> Vec<Vec<Record>> {
    let instance = testing::instance(1);
    ticks
        .map(|tick| {
            let now = Timestamp((tick + 1) * SECOND / 10);
            let mut batch = Batch::new(WallClock::default());
            let all = of(tick);
            for (at, (fingerprint, micros)) in all.iter().enumerate() {
                let at = Timestamp(tick * SECOND / 10 + at as u64 * (SECOND / 10) / all.len() as u64);
                batch.push(testing::execution(&instance, at, *fingerprint, Duration::from_micros(*micros)));
            }
            batch.enter("adaptive_sampler");
            sampler.process(now, &mut batch, &mut Effects::default());
            let (records, ledger) = batch.into_parts();
            assert_eq!(ledger.accepted, records.len() as u64 + ledger.discards());
            records
        })
        .collect()
}

fn weight(record: &Record) -> f64 {
    let Signal::Execution(execution) = &record.signal else { panic!("no execution") };
    execution.sampling.weight
}

fn rule(record: &Record) -> &str {
    let Signal::Execution(execution) = &record.signal else { panic!("no execution") };
    execution.sampling.rule.as_deref().unwrap()
}

#[test]
fn holds_its_target_through_a_tenfold_burst() {
    for statements in [1, 7, 400] {
        let mut sampler = Sampler::new(Config { default_sample_rate: 1.0, rules: Vec::new(), ..Config::default() }, 0);
        let mut next = 0;
        let kept = run(&mut sampler, 0..1200, |tick| {
            let count = if (400..800).contains(&tick) { 2000 } else { 200 };
            (0..count)
                .map(|_| {
                    next += 1;
                    (next % statements + 10, 100)
                })
                .collect()
        });
        // After the first seconds, those of the jumps too. In one second chance alone makes up some per cent of a hundred.
        for (seconds, allowed) in [(1, 0.25), (2, 0.1), (10, 0.02)] {
            for first in 5..120 - seconds {
                let kept: usize = kept[first * 10..(first + seconds) * 10].iter().map(Vec::len).sum();
                let error = kept as f64 / (100.0 * seconds as f64) - 1.0;
                assert!(error.abs() <= allowed, "{statements} statements, {seconds} s from second {first}: {kept}");
            }
        }
    }
}

#[test]
fn weights_give_back_what_was_left_out() {
    let mut sampler = Sampler::new(Config { default_sample_rate: 0.5, rules: Vec::new(), ..Config::default() }, 0);
    let mut truth = HashMap::<u64, u64>::new();
    let mut random = fastrand::Rng::with_seed(7);
    let kept = run(&mut sampler, 0..3000, |tick| {
        let count = if tick % 700 < 200 { 1500 } else { 150 };
        (0..count)
            .map(|_| {
                // Skewed: the first statements are the most.
                let fingerprint = 10 + (random.f64().powi(4) * 50.0) as u64;
                *truth.entry(fingerprint).or_default() += 1;
                (fingerprint, 100)
            })
            .collect()
    });
    let mut estimates = HashMap::<u64, f64>::new();
    for record in kept.iter().flatten() {
        *estimates.entry(testing::fingerprint(record)).or_default() += weight(record);
    }
    for (fingerprint, known) in sampler.statements.iter().map(|((_, fingerprint), known)| (fingerprint, known)) {
        *estimates.entry(*fingerprint).or_default() += known.carried;
    }
    let (total, estimate): (u64, f64) = (truth.values().sum(), estimates.values().sum());
    assert!((estimate / total as f64 - 1.0).abs() < 0.02, "{estimate} of {total}");
    let shown = kept.iter().flatten().count();
    assert!((28_000..=31_500).contains(&shown), "{shown} shown in 300 s");
    // By statement: with n shown, chance alone gives a relative error of 1 / sqrt(n).
    for (fingerprint, truth) in truth {
        let shown = kept.iter().flatten().filter(|record| testing::fingerprint(record) == fingerprint).count();
        let error = (estimates[&fingerprint] / truth as f64 - 1.0).abs();
        assert!(error < 4.0 / (shown as f64).sqrt(), "statement {fingerprint}: {error} with {shown} shown");
    }
}

#[test]
fn the_kernels_weight_is_multiplied() {
    let mut sampler = Sampler::new(Config { rules: Vec::new(), ..Config::default() }, 1024);
    let instance = testing::instance(1);
    let mut sum = 0.0;
    for tick in 0..2000u64 {
        let mut batch = Batch::new(WallClock::default());
        for part in 0..5 {
            let at = Timestamp(tick * SECOND / 10 + part);
            let mut record = testing::execution(&instance, at, 10 + part % 3, Duration::from_micros(50));
            let Signal::Execution(execution) = &mut record.signal else { panic!("no execution") };
            execution.sampling.weight = 1024.0;
            batch.push(record);
        }
        sampler.process(Timestamp((tick + 1) * SECOND / 10), &mut batch, &mut Effects::default());
        sum += batch.records().iter().map(weight).sum::<f64>();
    }
    let truth = 2000.0 * 5.0 * 1024.0;
    assert!((sum / truth - 1.0).abs() < 0.05, "{sum} of {truth}");
}

#[test]
fn what_matters_is_always_kept_and_says_why() {
    let mut sampler = Sampler::new(Config { default_sample_rate: 0.0, rules: Vec::new(), ..Config::default() }, 0);
    let instance = testing::instance(1);
    let mut keep = |change: &dyn Fn(&mut Execution)| {
        let mut record = testing::execution(&instance, Timestamp(SECOND), 10, Duration::from_millis(1));
        let Signal::Execution(execution) = &mut record.signal else { panic!("no execution") };
        change(execution);
        let mut batch = Batch::new(WallClock::default());
        batch.push(record);
        sampler.process(Timestamp(SECOND), &mut batch, &mut Effects::default());
        batch.records().first().map(|record| rule(record).to_owned())
    };
    assert_eq!(keep(&|_| {}).as_deref(), Some("always.new_statement"));
    assert_eq!(keep(&|_| {}), None);
    let failed = Ending::Failed(Some(Code::Sqlstate(*b"42P01")));
    assert_eq!(keep(&|execution| execution.ending = failed).as_deref(), Some("always.error"));
    assert_eq!(keep(&|execution| execution.ending = Ending::Incomplete).as_deref(), Some("always.error"));
    assert_eq!(keep(&|execution| execution.seen.plan_change = true).as_deref(), Some("always.plan_change"));
    assert_eq!(keep(&|execution| execution.seen.regression = true).as_deref(), Some("always.regression"));
    assert_eq!(keep(&|execution| execution.seen.blocker = true).as_deref(), Some("always.blocker"));
    let mut batch = Batch::new(WallClock::default());
    batch.push(testing::interval(&instance, Timestamp(2 * SECOND), 10, 500));
    sampler.process(Timestamp(2 * SECOND), &mut batch, &mut Effects::default());
    let slow =
        sampler.statements.peek(&(instance.service_instance_id, 10)).unwrap().p99().unwrap() + Duration::from_nanos(1);
    let mut keep = |duration| {
        let mut batch = Batch::new(WallClock::default());
        batch.push(testing::execution(&instance, Timestamp(3 * SECOND), 10, duration));
        sampler.process(Timestamp(3 * SECOND), &mut batch, &mut Effects::default());
        batch.records().first().map(|record| rule(record).to_owned())
    };
    assert_eq!(keep(slow).as_deref(), Some("always.slow"));
    assert_eq!(keep(slow - Duration::from_nanos(1)), None);
}

#[test]
fn the_ceiling_holds_for_everything_and_carries_the_weights() {
    let config = Config { max_records_per_second: 200, rules: Vec::new(), ..Config::default() };
    let mut sampler = Sampler::new(config, 0);
    let instance = testing::instance(1);
    let (mut kept, mut sum) = (0, 0.0);
    for tick in 0..100u64 {
        let mut batch = Batch::new(WallClock::default());
        for _ in 0..1000 {
            let mut record = testing::execution(&instance, Timestamp(tick * SECOND / 10), 10, Duration::from_millis(1));
            let Signal::Execution(execution) = &mut record.signal else { panic!("no execution") };
            execution.ending = Ending::Failed(None);
            batch.push(record);
        }
        sampler.process(Timestamp((tick + 1) * SECOND / 10), &mut batch, &mut Effects::default());
        kept += batch.len();
        sum += batch.records().iter().map(weight).sum::<f64>();
    }
    assert!((2000..=2200).contains(&kept), "{kept} in 10 s");
    sum += sampler.statements.iter().map(|(_, known)| known.carried).sum::<f64>();
    assert_eq!(sum, 100_000.0);
}

#[test]
fn a_plan_is_shown_once_in_a_window_unless_it_changed() {
    let mut sampler = Sampler::new(Config::default(), 0);
    let instance = testing::instance(1);
    let mut show = |second: u64, id: u64, change: bool| {
        let mut batch = Batch::new(WallClock::default());
        let mut record = testing::plan(&instance, Timestamp(second * SECOND), 10, "[]");
        let Signal::Plan(plan) = &mut record.signal else { panic!("no plan") };
        plan.id = Some(PlanId(id));
        plan.change = change.then_some(Change { previous: PlanId(0) });
        batch.push(record);
        sampler.process(Timestamp(second * SECOND), &mut batch, &mut Effects::default());
        batch.records().first().map(|record| match &record.signal {
            Signal::Plan(plan) => plan.sampling.weight,
            _ => f64::NAN,
        })
    };
    assert_eq!(show(1, 7, false), Some(1.0));
    assert_eq!(show(2, 7, false), None);
    assert_eq!(show(3, 8, false), Some(1.0));
    assert_eq!(show(300, 7, false), None);
    assert_eq!(show(302, 7, false), Some(3.0));
    assert_eq!(show(303, 7, true), Some(1.0));
}

#[test]
fn rules_by_priority_with_their_own_limits() {
    let mut sampler = Sampler::new(Config { default_sample_rate: 1.0, ..Config::default() }, 0);
    let instance = testing::instance(1);
    // More than a thousand executions in the latest interval: high_frequency, 1 % and ten a minute.
    let mut batch = Batch::new(WallClock::default());
    batch.push(testing::interval(&instance, Timestamp(1), 10, 5000));
    batch.push(testing::execution(&instance, Timestamp(1), 10, Duration::from_micros(1)));
    sampler.process(Timestamp(1), &mut batch, &mut Effects::default());
    let kept = run(&mut sampler, 1..301, |_| vec![(10, 1); 20]);
    let kept: Vec<&Record> = kept.iter().flatten().collect();
    assert!(kept.iter().all(|record| rule(record) == "high_frequency"));
    assert!((10..=16).contains(&kept.len()), "{} in 30 s", kept.len());
}

#[test]
fn two_agents_choose_alike() {
    let config = || Config { rules: Vec::new(), ..Config::default() };
    let mut agents = [Sampler::new(config(), 0), Sampler::new(config(), 0)];
    let [one, other] = agents.each_mut().map(|agent| {
        let kept = run(agent, 0..200, |tick| (0..5).map(|at| (10 + (tick + at) % 40, 100)).collect());
        kept.iter().map(|records| records.iter().map(testing::fingerprint).collect()).collect::<Vec<Vec<u64>>>()
    });
    assert!(one.iter().flatten().count() > 50);
    assert_eq!(one, other);
}

#[test]
fn what_was_shown_is_known_after_a_restart() {
    let mut sampler = Sampler::new(Config { default_sample_rate: 0.0, rules: Vec::new(), ..Config::default() }, 0);
    run(&mut sampler, 0..10, |_| vec![(10, 100), (11, 100)]);
    let moment = Moment { now: Timestamp(SECOND), clock: WallClock::at(Timestamp(SECOND), 1_000 * SECOND as i64) };
    let kept = sampler.export_state(moment).unwrap().unwrap();
    let mut again = Sampler::new(Config { default_sample_rate: 0.0, rules: Vec::new(), ..Config::default() }, 0);
    again.import_state(moment, kept).unwrap();
    let kept = run(&mut again, 10..20, |_| vec![(10, 100), (12, 100)]);
    let kept: Vec<u64> = kept.iter().flatten().map(testing::fingerprint).collect();
    assert_eq!(kept, [12]);
}

#[test]
fn wrong_rules_are_told_with_their_place() {
    let rule = |attribute, operator, value| Rule {
        name: "r".into(),
        priority: 0,
        sample_rate: 2.0,
        max_per_minute: 0,
        conditions: vec![Condition { attribute, operator, value }],
    };
    let rules = vec![
        rule(Attribute::Rows, Operator::Contains, Some(RuleValue::Number(1.0))),
        rule(Attribute::User, Operator::Eq, Some(RuleValue::Bool(true))),
        rule(Attribute::User, Operator::Eq, None),
        rule(Attribute::User, Operator::Exists, None),
    ];
    let problems: Vec<String> = Config { rules, ..Config::default() }
        .check()
        .filter(|problem| problem.key.contains("conditions"))
        .map(|problem| format!("{} {}", problem.key, problem.reason))
        .collect();
    assert_eq!(
        problems,
        [
            "rules[0].conditions[0].value cannot be compared so: a number has eq, ne, gt, gte, lt, lte or exists",
            "rules[1].conditions[0].value must be a text",
            "rules[2].conditions[0].value is missing: a text",
        ]
    );
    assert_eq!(Config::default().check().count(), 0);
}

proptest! {
    /// Of any sequence, as many are kept as the rate says, up to the sequence's own unevenness.
    #[test]
    fn choices_are_even(rate in 0.001f64..1.0, count in 1usize..5000, fingerprint: u64) {
        let mut known = Known::default();
        let kept = (0..count).filter(|_| known.draw(3, || hash(fingerprint, 3)) < rate).count() as f64;
        // Discrepancy of the golden ratio's multiples: O(log n).
        let allowed = 2.0 + (count as f64).ln();
        prop_assert!((kept - rate * count as f64).abs() <= allowed, "{kept} of {count} at {rate}");
    }
}
