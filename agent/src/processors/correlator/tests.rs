#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    model::{
        WallClock,
        signal::{Execution, Peer},
    },
    processors::testing,
};

const MILLI: u64 = 1_000_000;

fn run(correlator: &mut Correlator, now: Timestamp, records: Vec<Record>) -> Vec<Record> {
    let mut batch = Batch::new(WallClock::default());
    records.into_iter().for_each(|record| batch.push(record));
    correlator.process(now, &mut batch, &mut Effects::default());
    batch.into_parts().0
}

/// Executions of one session, one a millisecond, by text.
fn session(texts: &[&str], first: u64) -> Vec<Record> {
    let instance = testing::instance(1);
    let of = |(at, text): (usize, &&str)| {
        let number = first + at as u64;
        let mut record = testing::execution(&instance, Timestamp(number * MILLI), 0, Duration::from_micros(100));
        change(&mut record, |execution| {
            let fingerprint = text.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte));
            execution.digest = testing::digest(fingerprint, text);
            execution.session = Some(Peer { connection: 77, process: 42 });
            execution.ordinal = Some(number);
        });
        record
    };
    texts.iter().enumerate().map(of).collect()
}

fn change(record: &mut Record, change: impl FnOnce(&mut Execution)) {
    let Signal::Execution(execution) = &mut record.signal else { panic!("no execution") };
    change(execution);
}

fn findings(records: &[Record]) -> Vec<&Finding> {
    let of = |record: &'_ Record| matches!(record.signal, Signal::Finding(_));
    let found = records.iter().filter(|record| of(record));
    found
        .map(|record| match &record.signal {
            Signal::Finding(finding) => finding.as_ref(),
            _ => panic!("no finding"),
        })
        .collect()
}

#[test]
fn shares_of_the_load_add_up_to_one() {
    let mut correlator = Correlator::new(Config::default());
    let (one, other) = (testing::instance(1), testing::instance(2));
    let records = (1..20).map(|number| testing::interval(&one, Timestamp(1), number, number));
    let records =
        run(&mut correlator, Timestamp(1), records.chain([testing::interval(&other, Timestamp(1), 1, 5)]).collect());
    let loads = records.iter().map(|record| match &record.signal {
        Signal::Interval(interval) => interval.load.unwrap(),
        _ => panic!("no interval"),
    });
    let loads: Vec<f64> = loads.collect();
    assert!((loads[..19].iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert!((loads[19] - 1.0).abs() < 1e-9);
    assert!(loads[18] > loads[0]);
}

#[test]
fn statements_have_their_place_in_the_transaction() {
    let mut correlator = Correlator::new(Config::default());
    let texts = ["select ?", "begin", "update t set a=?", "savepoint s", "commit", "select ?", "begin", "rollback"];
    let records = run(&mut correlator, Timestamp(1), session(&texts, 1));
    let places = records.iter().map(|record| match &record.signal {
        Signal::Execution(execution) => execution.situation.map(|place| (place.transaction, place.position)).unwrap(),
        _ => panic!("no execution"),
    });
    let expected =
        [(None, 1), (Some(1), 1), (Some(1), 2), (Some(1), 3), (Some(1), 4), (None, 1), (Some(2), 1), (Some(2), 2)];
    assert_eq!(places.collect::<Vec<_>>(), expected);
}

#[test]
fn the_same_statement_over_and_over_is_found_once_an_hour() {
    let mut correlator = Correlator::new(Config::default());
    let mut texts = vec!["select id from orders where customer=?"];
    texts.extend(["select * from items where order_id=?"; 30]);
    let records = run(&mut correlator, Timestamp(1), session(&texts, 1));
    let found = findings(&records);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].topic, found[0].evidence[0]), (Topic::NPlusOne, ("repeats", 10.0)));
    assert_eq!(&*found[0].digest.as_ref().unwrap().text, texts[1]);
    let parent = match &records[0].signal {
        Signal::Execution(execution) => execution.digest.hex(),
        _ => panic!("no execution"),
    };
    assert_eq!(&*found[0].objects[0], parent);
    let again = run(&mut correlator, Timestamp(1), session(&texts, 100));
    assert!(findings(&again).is_empty());
    let later = run(&mut correlator, Timestamp(3_700_000 * MILLI), session(&texts, 200));
    assert_eq!(findings(&later).len(), 1);
}

#[test]
fn executions_of_which_some_were_not_seen_prove_no_repetition() {
    let mut correlator = Correlator::new(Config::default());
    let mut records = session(&["select * from items where order_id=?"; 60], 1);
    let mut at = 0;
    records.retain(|_| {
        at += 1;
        at % 9 != 0
    });
    assert!(findings(&run(&mut correlator, Timestamp(1), records)).is_empty());
    let mut unnumbered = session(&["select * from items where order_id=?"; 60], 1);
    unnumbered.iter_mut().for_each(|record| change(record, |execution| execution.ordinal = None));
    assert!(findings(&run(&mut correlator, Timestamp(1), unnumbered)).is_empty());
}

#[test]
fn a_retry_is_the_same_statement_right_after_it_failed() {
    let mut correlator = Correlator::new(Config::default());
    let mut records = session(&["update t set a=?", "update t set a=?", "update t set a=?"], 1);
    change(&mut records[0], |execution| execution.ending = crate::model::Ending::Failed(None));
    let records = run(&mut correlator, Timestamp(1), records);
    let retries = records.iter().map(|record| match &record.signal {
        Signal::Execution(execution) => execution.situation.unwrap().retry,
        _ => panic!("no execution"),
    });
    assert_eq!(retries.collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn blockers_are_marked_and_idle_transactions_told() {
    let mut correlator = Correlator::new(Config::default());
    let instance = testing::instance(1);
    let mut idle = testing::activity(&instance, Timestamp(1));
    let Signal::Activity(activity) = &mut idle.signal else { panic!("no activity") };
    (activity.state, activity.lasting) = (SessionState::IdleInTransaction, Duration::from_secs(700));
    // The execution stands before the blocking in the batch and is marked all the same.
    let mut records = session(&["update t set a=?"], 1);
    records.push(testing::blocking(&instance, Timestamp(1), 42));
    records.push(idle);
    let records = run(&mut correlator, Timestamp(1), records);
    let Signal::Execution(execution) = &records[0].signal else { panic!("no execution") };
    assert!(execution.seen.blocker);
    let found = findings(&records);
    assert_eq!((found.len(), found[0].topic, found[0].severity), (1, Topic::IdleInTransaction, Severity::Critical));
}

#[test]
fn an_application_name_can_carry_the_trace() {
    let mut correlator = Correlator::new(Config::default());
    let mut records = session(&["select ?", "select ?"], 1);
    let header = format!("00-{}-{}-01", "4bf92f3577b34da6".repeat(2), "00f067aa0ba902b7");
    change(&mut records[0], |execution| execution.application = Some(header.as_str().into()));
    change(&mut records[1], |execution| execution.application = Some("psql".into()));
    let traces = run(&mut correlator, Timestamp(1), records);
    let traces = traces.iter().map(|record| match &record.signal {
        Signal::Execution(execution) => execution.trace.is_some(),
        _ => panic!("no execution"),
    });
    assert_eq!(traces.collect::<Vec<_>>(), [true, false]);
}
