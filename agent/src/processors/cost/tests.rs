#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{model::StatementStats, processors::testing};

const HOUR: u64 = 3600 * 1_000_000_000;

/// Unix nanoseconds of a civil time in a zone, e.g. `2026-03-29T01:30:00[Europe/Berlin]`.
fn unix(time: &str) -> i64 {
    let zoned: jiff::Zoned = time.parse().unwrap();
    i64::try_from(zoned.timestamp().as_nanosecond()).unwrap()
}

fn moment(time: &str) -> Moment {
    Moment { now: Timestamp(0), clock: WallClock::at(Timestamp(0), unix(time)) }
}

fn control(zone: &str) -> CostControl {
    CostControl::new(Config {
        enabled: true,
        monthly_budget_usd: 10.0,
        price_per_gb: 1.0,
        free_gb: 0.0,
        time_zone: zone.into(),
        ..Config::default()
    })
}

fn send(control: &mut CostControl, time: &str, gigabytes: f64) {
    control.encoded(moment(time), Uuid::from_u128(1), Kind::Interval, (gigabytes * GIGABYTE) as u64);
}

#[test]
fn months_begin_in_the_accounts_time_zone() {
    // Zone, last moment of a month, first of the next: month ends, leap days, changes of clocks, a year's end.
    for (zone, last, first) in [
        ("UTC", "2026-01-31T23:59:59[UTC]", "2026-02-01T00:00:00[UTC]"),
        ("UTC", "2028-02-29T23:59:59[UTC]", "2028-03-01T00:00:00[UTC]"),
        ("UTC", "2100-02-28T23:59:59[UTC]", "2100-03-01T00:00:00[UTC]"),
        ("Europe/Berlin", "2026-03-31T23:59:59[Europe/Berlin]", "2026-03-31T22:00:00[UTC]"),
        ("America/Los_Angeles", "2026-11-01T06:59:59[UTC]", "2026-11-01T07:00:00[UTC]"),
        ("Pacific/Kiritimati", "2026-12-31T09:59:59[UTC]", "2026-12-31T10:00:00[UTC]"),
        ("Australia/Lord_Howe", "2026-10-31T12:59:59[UTC]", "2026-10-31T13:00:00[UTC]"),
    ] {
        let mut control = control(zone);
        send(&mut control, last, 3.0);
        assert_eq!(control.budget().spent_usd, 3.0, "{last}");
        send(&mut control, first, 1.0);
        assert_eq!(control.budget().spent_usd, 1.0, "{first} in {zone}");
    }
}

#[test]
fn a_clock_that_jumps_loses_no_account() {
    let mut control = control("UTC");
    send(&mut control, "2026-05-20T12:00:00[UTC]", 2.0);
    // Back by a month and by a year, and to 1970: what was counted stays counted.
    for time in ["2026-04-20T12:00:00[UTC]", "2025-05-20T12:00:00[UTC]", "1970-01-01T00:00:01[UTC]"] {
        send(&mut control, time, 1.0);
    }
    assert_eq!(control.budget().spent_usd, 5.0);
    send(&mut control, "2026-05-21T00:00:00[UTC]", 1.0);
    assert_eq!(control.budget().spent_usd, 6.0);
    send(&mut control, "2026-06-01T00:00:00[UTC]", 1.0);
    assert_eq!(control.budget().spent_usd, 1.0);
}

/// The budget after `days` whole days of a gigabyte each from 2026-03-01 on, at noon of the day after.
fn after(control: &mut CostControl, days: u32) -> Budget {
    for day in 1..=days {
        for hour in ["00:00:00", "12:00:00"] {
            send(control, &format!("2026-03-{day:02}T{hour}[Europe/Berlin]"), 0.5);
        }
    }
    let noon = moment(&format!("2026-03-{:02}T12:00:00[Europe/Berlin]", days + 1));
    (control.clock, control.now) = (noon.clock, noon.now);
    control.ledger.go_to(noon.keep(noon.now), &control.zone);
    control.budget()
}

#[test]
fn a_forecast_needs_a_whole_day_and_knows_the_rest_of_the_month() {
    // The first day was not seen from its beginning on: two days give one whole one.
    assert_eq!(after(&mut control("Europe/Berlin"), 1).forecast_usd, None);
    let budget = after(&mut control("Europe/Berlin"), 10);
    // Ten days are spent; half of the eleventh and twenty days are to come.
    assert!((budget.forecast_usd.unwrap() - 30.5).abs() < 1e-9, "{budget:?}");
    // On the day on which the clocks go forward, an hour is missing: at noon 11 of 23 hours have passed.
    let budget = after(&mut control("Europe/Berlin"), 28);
    assert!((budget.forecast_usd.unwrap() - (28.0 + 12.0 / 23.0 + 2.0)).abs() < 1e-9, "{budget:?}");
}

#[test]
fn weekends_are_forecast_as_weekends() {
    let mut control = control("UTC");
    // 2026-06-01 is a Monday; nothing is sent at weekends.
    for day in 1..=14 {
        let gigabytes = if matches!(day % 7, 6 | 0) { 0.0 } else { 1.0 };
        send(&mut control, &format!("2026-06-{day:02}T00:00:00[UTC]"), gigabytes);
    }
    let now = moment("2026-06-15T00:00:00[UTC]");
    (control.clock, control.now) = (now.clock, now.now);
    control.ledger.go_to(now.keep(now.now), &control.zone);
    // 10 spent; from the 15th on 12 working days.
    assert!((control.budget().forecast_usd.unwrap() - 22.0).abs() < 1e-9, "{:?}", control.budget());
}

#[test]
fn the_receivers_word_counts_and_what_was_sent_since() {
    let mut control = control("UTC");
    send(&mut control, "2026-05-20T12:00:00[UTC]", 2.0);
    control.usage(7.0);
    assert_eq!(control.budget().spent_usd, 7.0);
    send(&mut control, "2026-05-20T13:00:00[UTC]", 1.0);
    assert_eq!(control.budget().spent_usd, 8.0);
    send(&mut control, "2026-06-01T13:00:00[UTC]", 1.0);
    assert_eq!(control.budget().spent_usd, 1.0);
    control.usage(f64::NAN);
    assert_eq!(control.budget().spent_usd, 1.0);
}

#[test]
fn rungs_are_climbed_at_once_and_left_slowly() {
    let mut ladder = Ladder::new(Duration::from_secs(3600));
    let mut hours = 0;
    let mut step = |spent, forecast| {
        hours += 2;
        ladder.step(Timestamp(hours * HOUR), spent, forecast);
        ladder.rung()
    };
    assert_eq!(step(0.59, Some(2.0)), Rung::Full);
    assert_eq!(step(0.60, Some(2.0)), Rung::FewerExamples);
    // A cheap month needs no rung.
    assert_eq!(step(0.81, Some(0.9)), Rung::Full);
    assert_eq!(step(0.96, None), Rung::FewerAttributes);
    assert_eq!(step(1.01, Some(1.01)), Rung::TotalsOnly);
    // The receiver says that it was less; one rung at a time.
    assert_eq!(step(0.96, Some(1.2)), Rung::TotalsOnly);
    assert_eq!(step(0.94, Some(1.2)), Rung::FewerAttributes);
    assert_eq!(step(0.89, Some(1.2)), Rung::NoPlanTexts);
    assert_eq!(step(0.89, Some(0.97)), Rung::NoPlanTexts);
    assert_eq!(step(0.89, Some(0.94)), Rung::FewerExamples);
    assert_eq!(step(0.89, Some(0.94)), Rung::Full);
}

/// The sum of all statistics.
fn sum(batch: &Batch) -> StatementStats {
    let mut all = StatementStats::default();
    for record in batch.records() {
        if let Signal::Interval(interval) = &record.signal {
            all.merge(&interval.stats);
        }
    }
    all
}

#[test]
fn each_rung_leaves_out_more_and_never_a_total_or_a_finding() {
    let expected = [
        (1.0, "interval execution plan activity blocking fact finding", true, true),
        (6.5, "interval execution plan activity blocking fact finding", true, true),
        (8.5, "interval plan activity blocking fact finding", false, true),
        (9.6, "interval plan activity blocking fact finding", false, false),
        (12.0, "interval fact finding", false, false),
    ];
    for (gigabytes, kinds, texts, users) in expected {
        let mut control = control("UTC");
        send(&mut control, "2026-05-20T12:00:00[UTC]", gigabytes);
        let mut batch = Batch::new(moment("2026-05-20T12:00:00[UTC]").clock);
        testing::one_of_each().into_iter().for_each(|record| batch.push(record));
        let before = sum(&batch);
        control.process(Timestamp(0), &mut batch, &mut Effects::default());
        let left: Vec<&str> = batch.records().iter().map(|record| record.signal.kind().name()).collect();
        assert_eq!(left.join(" "), kinds, "{gigabytes} GB");
        assert_eq!(sum(&batch).executions(), before.executions());
        for record in batch.records() {
            assert_eq!(record.origin.user.is_some(), users, "{gigabytes} GB");
            if let Signal::Plan(plan) = &record.signal {
                assert_eq!(plan.masked.is_some(), texts, "{gigabytes} GB");
            }
        }
    }
}

#[test]
fn the_account_survives_a_restart() {
    let mut control = control("UTC");
    send(&mut control, "2026-05-20T12:00:00[UTC]", 9.6);
    let mut batch = Batch::new(moment("2026-05-20T12:00:00[UTC]").clock);
    control.process(Timestamp(0), &mut batch, &mut Effects::default());
    let kept = control.export_state(moment("2026-05-20T12:00:00[UTC]")).unwrap().unwrap();
    let mut again = self::control("UTC");
    again.import_state(moment("2026-05-20T13:00:00[UTC]"), kept).unwrap();
    assert_eq!((again.budget().spent_usd, again.budget().rung), (9.6, Rung::FewerAttributes));
}

proptest! {
    /// However many users and statements there are: on the last rungs no series is there twice, totals stay, and records add up.
    #[test]
    fn series_are_never_there_twice(
        rows in prop::collection::vec((1u64..4, 0u8..3, 0u8..5, 1u64..300, 1u64..20), 1..300),
        gigabytes in prop_oneof![Just(9.6), Just(20.0)],
    ) {
        let mut control = control("UTC");
        control.config.top_statements = 20;
        send(&mut control, "2026-05-20T12:00:00[UTC]", gigabytes);
        let mut batch = Batch::new(moment("2026-05-20T12:00:00[UTC]").clock);
        let mut seen = HashSet::new();
        for (instance, database, user, fingerprint, executions) in rows {
            // As the aggregation makes them: each series once.
            if seen.insert((instance, database, user, fingerprint)) {
                let mut record = testing::interval(&testing::instance(instance), Timestamp(1), fingerprint, executions);
                record.origin.database = Some(format!("d{database}").into());
                record.origin.user = Some(format!("u{user}").into());
                batch.push(record);
            }
        }
        let before = sum(&batch);
        control.process(Timestamp(0), &mut batch, &mut Effects::default());
        let after = sum(&batch);
        prop_assert_eq!(after.executions(), before.executions());
        prop_assert_eq!(after.total(), before.total());
        prop_assert_eq!(after.durations(), before.durations());
        prop_assert_eq!(batch.ledger().accepted, batch.len() as u64 + batch.ledger().discards());
        let mut series = HashSet::new();
        for record in batch.records() {
            let Signal::Interval(interval) = &record.signal else { panic!("no interval") };
            let id = record.origin.instance.service_instance_id;
            prop_assert!(record.origin.user.is_none());
            prop_assert!(series.insert((id, record.origin.database.clone(), interval.digest.fingerprint)));
        }
    }
}
