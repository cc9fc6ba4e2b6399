#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    model::{Batch, WallClock, signal::Circuit as CircuitState},
    processors::{Effects, Processor, testing},
};

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);
const OK: Outcome = Outcome::Ok { took: Duration::from_millis(5) };

fn at(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1e9) as u64)
}

/// Asks and ends at once.
fn ask(breaker: &mut Breaker, now: Timestamp, instance: Uuid, question: &str, outcome: Outcome) -> Admission {
    let admission = breaker.admit(now, instance, question);
    if admission.is_granted() {
        breaker.done(now, instance, question, outcome);
    }
    admission
}

#[test]
fn opens_after_three_failures_in_a_row_and_closes_after_three_canaries() {
    let mut breaker = Breaker::new(Config::default());
    let failed = Outcome::Failed(Failure::Other);
    for _ in 0..2 {
        assert!(matches!(ask(&mut breaker, at(0.0), A, "activity", failed), Admission::Go { .. }));
    }
    ask(&mut breaker, at(0.0), A, "activity", OK);
    for _ in 0..3 {
        assert!(ask(&mut breaker, at(0.0), A, "activity", failed).is_granted());
    }
    let Admission::Refused { until, why } = breaker.admit(at(1.0), A, "activity") else { panic!("not open") };
    assert_eq!(why, Refusal::Open(Failure::Other));
    assert!((at(24.0)..=at(36.0)).contains(&until), "{until:?}");
    // Other questions and other servers are asked as before.
    assert!(ask(&mut breaker, at(1.0), A, "statements", OK).is_granted());
    assert!(ask(&mut breaker, at(1.0), B, "activity", OK).is_granted());
    for answer in 0..3 {
        assert!(matches!(breaker.admit(until, A, "activity"), Admission::Canary { .. }), "answer {answer}");
        // Only one at a time.
        let refused = breaker.admit(until, A, "activity");
        assert!(matches!(refused, Admission::Refused { why: Refusal::Probing, .. }), "{refused:?}");
        breaker.done(until, A, "activity", OK);
    }
    assert!(matches!(breaker.admit(until, A, "activity"), Admission::Go { .. }));
}

#[test]
fn a_failed_canary_doubles_the_wait_up_to_the_longest() {
    let mut breaker = Breaker::new(Config::default());
    let failed = Outcome::Failed(Failure::Locks);
    (0..3).for_each(|_| {
        ask(&mut breaker, at(0.0), A, "q", failed);
    });
    let mut now = at(0.0);
    for expected in [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0, 900.0] {
        let Admission::Refused { until, .. } = breaker.admit(now, A, "q") else { panic!("not open") };
        let waited = until.since(now).as_secs_f64();
        assert!((expected * 0.8..=expected * 1.2).contains(&waited), "{waited} s instead of {expected} s");
        now = until;
        assert!(matches!(ask(&mut breaker, now, A, "q", failed), Admission::Canary { .. }));
    }
}

#[test]
fn what_is_missing_is_not_asked_again_for_long_and_the_server_stays_well() {
    let mut breaker = Breaker::new(Config::default());
    for (question, failure, minutes) in [
        ("statements", Failure::MissingObject, 30.0),
        ("replication", Failure::PermissionDenied, 60.0),
        ("io", Failure::Unsupported, 1440.0),
    ] {
        assert!(ask(&mut breaker, at(0.0), A, question, Outcome::Failed(failure)).is_granted());
        let Admission::Refused { until, .. } = breaker.admit(at(0.0), A, question) else {
            panic!("{question} is asked")
        };
        assert!(
            (minutes * 48.0..=minutes * 72.0).contains(&until.since(at(0.0)).as_secs_f64()),
            "{question}: {until:?}"
        );
    }
    assert_eq!(breaker.state(A).0, CircuitState::Closed);
    assert!(ask(&mut breaker, at(1.0), A, "activity", OK).is_granted());
}

#[test]
fn a_server_without_connections_is_left_alone_at_once_by_all_questions() {
    let mut breaker = Breaker::new(Config::default());
    ask(&mut breaker, at(0.0), A, "activity", Outcome::Failed(Failure::TooManyConnections));
    for question in ["activity", "statements", "never asked before"] {
        let refused = breaker.admit(at(10.0), A, question);
        assert!(
            matches!(refused, Admission::Refused { why: Refusal::Open(Failure::TooManyConnections), .. }),
            "{refused:?}"
        );
    }
    assert!(ask(&mut breaker, at(10.0), B, "activity", OK).is_granted());
    // The first question that comes afterwards is the canary of the whole server, whichever it is.
    assert!(matches!(breaker.admit(at(80.0), A, "statements"), Admission::Canary { .. }));
    assert!(!breaker.admit(at(80.0), A, "activity").is_granted());
}

#[test]
fn time_outs_adapt_within_their_bounds() {
    let config = Config { failure_threshold: 1000, ..Config::default() };
    let mut breaker = Breaker::new(config);
    let timeout = |admission: Admission| match admission {
        Admission::Go { timeout } | Admission::Canary { timeout } => timeout.as_secs_f64(),
        Admission::Refused { .. } => panic!("refused"),
    };
    assert_eq!(timeout(ask(&mut breaker, at(0.0), A, "q", OK)), 5.0);
    for _ in 0..100 {
        ask(&mut breaker, at(0.0), A, "q", Outcome::Failed(Failure::Timeout));
    }
    assert_eq!(timeout(ask(&mut breaker, at(0.0), A, "q", OK)), 30.0);
    assert!((timeout(ask(&mut breaker, at(0.0), A, "q", OK)) - 27.0).abs() < 1e-6);
    for _ in 0..100 {
        ask(&mut breaker, at(0.0), A, "q", OK);
    }
    assert_eq!(timeout(ask(&mut breaker, at(0.0), A, "q", OK)), 5.0);
}

#[test]
fn by_hand_it_stays_open_until_it_is_closed_by_hand() {
    let mut breaker = Breaker::new(Config::default());
    breaker.force(at(0.0), A, None, true);
    let refused = breaker.admit(at(1e6), A, "q");
    assert!(matches!(refused, Admission::Refused { why: Refusal::Manual, .. }), "{refused:?}");
    assert_eq!(breaker.state(A).0, CircuitState::Open);
    breaker.force(at(1e6), A, None, false);
    assert!(matches!(breaker.admit(at(1e6), A, "q"), Admission::Go { .. }));
    // By hand, a question that is disabled for a day is asked at once.
    breaker.done(at(1e6), A, "q", Outcome::Failed(Failure::Unsupported));
    assert!(!breaker.admit(at(1e6), A, "q").is_granted());
    breaker.force(at(1e6), A, Some("q"), false);
    assert!(breaker.admit(at(1e6), A, "q").is_granted());
}

#[test]
fn pressure_stops_everything_until_it_has_clearly_fallen() {
    let mut breaker = Breaker::new(Config::default());
    let asked = |breaker: &mut Breaker| ask(breaker, at(0.0), A, "q", OK).is_granted();
    breaker.pressure(512, 80.0);
    assert!(asked(&mut breaker));
    breaker.pressure(100, 80.1);
    assert!(!asked(&mut breaker));
    breaker.pressure(100, 75.0);
    assert!(!asked(&mut breaker));
    breaker.pressure(100, 71.0);
    assert!(asked(&mut breaker));
    breaker.pressure(513, 0.0);
    assert!(!asked(&mut breaker));
}

#[test]
fn no_more_than_two_questions_wait_and_lost_ones_are_forgotten() {
    let mut breaker = Breaker::new(Config::default());
    assert!(breaker.admit(at(0.0), A, "a").is_granted());
    assert!(breaker.admit(at(0.0), A, "b").is_granted());
    assert!(matches!(breaker.admit(at(0.0), A, "c"), Admission::Refused { why: Refusal::Busy, .. }));
    breaker.done(at(0.0), A, "a", OK);
    assert!(breaker.admit(at(1.0), A, "c").is_granted());
    assert!(!breaker.admit(at(60.0), A, "d").is_granted());
    assert!(breaker.admit(at(61.5), A, "d").is_granted());
}

#[test]
fn open_circuits_survive_a_restart_and_a_wall_clock_that_was_set_back() {
    let mut breaker = Breaker::new(Config::default());
    ask(&mut breaker, at(0.0), A, "statements", Outcome::Failed(Failure::MissingObject));
    breaker.force(at(0.0), B, None, true);
    let clock = |now, unix_seconds: i64| Moment { now, clock: WallClock::at(now, unix_seconds * 1_000_000_000) };
    let kept = serde_json::to_value(breaker.export_state(clock(at(0.0), 1_000_000))).unwrap();
    let restored = |moment| {
        let mut breaker = Breaker::new(Config::default());
        breaker.import_state(moment, serde_json::from_value(kept.clone()).unwrap());
        breaker
    };
    // Ten minutes later, after a reboot.
    let mut breaker = restored(clock(at(5.0), 1_000_600));
    assert!(!breaker.admit(at(5.0), A, "statements").is_granted());
    assert!(breaker.admit(at(5.0), A, "activity").is_granted());
    assert!(!breaker.admit(at(5.0), B, "activity").is_granted());
    assert!(matches!(breaker.admit(at(5.0 + 26.1 * 60.0), A, "statements"), Admission::Canary { .. }));
    // A year back: what is open for a day at most stays so for a day at most.
    let mut breaker = restored(clock(at(5.0), 1_000_000 - 31_536_000));
    assert!(!breaker.admit(at(5.0), A, "statements").is_granted());
    assert!(breaker.admit(at(5.0 + 86_400.0 * 1.2), A, "statements").is_granted());
}

#[test]
fn records_are_marked_and_what_was_asked_of_an_open_server_goes() {
    let gate = Gate::new(Config::default());
    let instance = testing::instance(1);
    let mut marker = Marker::new(gate.clone());
    let batch = || {
        let mut batch = Batch::new(WallClock::default());
        for other in [1, 2] {
            batch.push(testing::interval(&testing::instance(other), at(9.0), 7, 1));
            batch.push(testing::activity(&testing::instance(other), at(9.0)));
        }
        batch
    };
    let mut closed = batch();
    marker.process(at(10.0), &mut closed, &mut Effects::default());
    assert_eq!(closed.len(), 4);
    gate.lock().force(at(5.0), instance.service_instance_id, None, true);
    let mut open = batch();
    marker.process(at(10.0), &mut open, &mut Effects::default());
    let states: Vec<CircuitState> = open.records().iter().map(|record| record.circuit).collect();
    assert_eq!(states, [CircuitState::Open, CircuitState::Closed, CircuitState::Closed]);
    assert_eq!(open.ledger().discards(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Ask { instance: u128, question: usize, outcome: Outcome },
    Wait(u64),
    Pressure(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        3 => (0u64..20_000).prop_map(|millis| Outcome::Ok { took: Duration::from_millis(millis) }),
        4 => (0..Failure::ALL.len()).prop_map(|at| Outcome::Failed(Failure::ALL[at])),
        1 => Just(Outcome::Abandoned),
    ];
    let ask = (0u128..3, 0usize..80, outcome).prop_map(|(instance, question, outcome)| Step::Ask {
        instance,
        question,
        outcome,
    });
    let step = prop_oneof![
        8 => ask,
        3 => (0u64..200_000).prop_map(Step::Wait),
        1 => (0u64..1000).prop_map(Step::Pressure),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    /// Whatever happens: what is refused is refused for a reason that ends; waits are bounded; time-outs stay within their bounds; a half-open circuit
    /// has one canary; and in the end, once all is well, everything is asked again.
    #[test]
    fn whatever_happens_it_neither_floods_nor_starves(steps in steps()) {
        let config = Config::default();
        let mut breaker = Breaker::new(config.clone());
        let names: Vec<String> = (0..80).map(|at| format!("q{at}")).collect();
        let mut now = at(1.0);
        for step in steps {
            match step {
                Step::Wait(millis) => now = now + Duration::from_millis(millis),
                Step::Pressure(memory) => breaker.pressure(memory, 0.0),
                Step::Ask { instance, question, outcome } => {
                    let instance = Uuid::from_u128(instance);
                    match breaker.admit(now, instance, &names[question]) {
                        Admission::Refused { until, why } => {
                            prop_assert!(until > now, "{why:?}");
                            prop_assert!(until.since(now) <= Duration::from_secs(86_400).mul_f64(1.2));
                        }
                        Admission::Go { timeout } => {
                            prop_assert!((*config.base_timeout..=*config.max_timeout).contains(&timeout));
                            breaker.done(now, instance, &names[question], outcome);
                        }
                        Admission::Canary { timeout } => {
                            prop_assert!((*config.base_timeout..=*config.max_timeout).contains(&timeout));
                            prop_assert!(!breaker.admit(now, instance, &names[question]).is_granted());
                            breaker.done(now, instance, &names[question], outcome);
                        }
                    }
                }
            }
            prop_assert!(breaker.status().len() <= 3 * (MAX_QUESTIONS + 1));
        }
        breaker.pressure(0, 0.0);
        for instance in 0..3 {
            let instance = Uuid::from_u128(instance);
            for name in &names {
                now = now + Duration::from_secs(2 * 86_400);
                for _ in 0..config.success_threshold {
                    prop_assert!(ask(&mut breaker, now, instance, name, OK).is_granted());
                }
                let admission = ask(&mut breaker, now, instance, name, OK);
                prop_assert!(matches!(admission, Admission::Go { .. }), "{admission:?}");
            }
        }
    }
}
