//! Recorded MySQL and MariaDB sessions, joined late or with a gap.
//!
//! Proves: a machine that sees a session from any read or write on, or loses one, reports only statements that it reports for the whole
//! session, with the same times and counts and the same text or none, and finds its place again with the next command.
//! Does not prove: anything about losses that capture does not report.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{collections::HashSet, fs, path::PathBuf};

use querylens::{
    model::{Engine, Kind, Statement, Text},
    wire::Direction,
};
use querylens_tests::stream::{Fixture, Input, run};

fn recordings() -> Vec<(String, Vec<Input>)> {
    let mut all = Vec::new();
    for folder in ["mysql", "mariadb"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wire").join(folder);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let fixture = Fixture::parse(&fs::read_to_string(&path).unwrap()).unwrap();
            all.push((path.display().to_string(), fixture.inputs));
        }
    }
    all
}

/// What must be the same, and the text.
fn key(statement: &Statement) -> (String, Option<Vec<u8>>) {
    let Statement { kind, start, first_byte, end, rows_sent, rows_affected, bytes_in, bytes_out, status, code, .. } =
        statement;
    let rest = format!(
        "{kind:?} {start:?} {first_byte:?} {end:?} {rows_sent:?} {rows_affected:?} {bytes_in} {bytes_out} {status:?} {code:?}"
    );
    let text = match &statement.text {
        Text::Known(text) => Some(text.raw().to_vec()),
        Text::Unknown | Text::None => None,
    };
    (rest, text)
}

/// Executions whose cursor was opened before the first input that is seen have lost a part.
fn has_cursors(path: &str) -> bool {
    ["cursors", "deprecate", "extensions"].iter().any(|name| path.contains(name))
}

fn assert_subset(path: &str, whole: &[Input], seen: &[Input], place: usize) -> HashSet<String> {
    let expected: std::collections::HashMap<_, _> = run(Engine::Mysql, whole).statements().map(key).collect();
    let mut found = HashSet::new();
    for statement in run(Engine::Mysql, seen).statements() {
        let (rest, text) = key(statement);
        match expected.get(&rest) {
            Some(full) => assert!(text.is_none() || text == *full, "{path} from {place}: wrong text for {rest}"),
            None => assert!(
                has_cursors(path) && statement.kind == Kind::Execute,
                "{path} from {place}: {rest} is not in the whole session"
            ),
        }
        found.insert(rest);
    }
    found
}

#[test]
fn a_session_joined_late_reports_the_rest_of_it() {
    for (path, inputs) in recordings() {
        let whole: Vec<_> = run(Engine::Mysql, &inputs).statements().map(|s| (s.start, key(s).0, s.kind)).collect();
        for place in 1..inputs.len() {
            let found = assert_subset(&path, &inputs, &inputs[place..], place);
            // From the first command that begins after the machine joined, nothing is missing.
            let Input::Data { direction: Direction::Request, at, .. } = &inputs[place] else { continue };
            for (start, statement, kind) in &whole {
                if start >= at && *kind != Kind::Connect && !has_cursors(&path) && !path.contains("pipelined") {
                    assert!(found.contains(statement), "{path} from {place}: missed {statement}");
                }
            }
        }
    }
}

#[test]
fn a_gap_costs_only_what_was_under_way() {
    for (path, inputs) in recordings() {
        let whole: Vec<_> = run(Engine::Mysql, &inputs).statements().map(|s| (s.start, key(s).0, s.kind)).collect();
        for place in 1..inputs.len() {
            let mut damaged = inputs.clone();
            damaged[place] = Input::Gap;
            let found = assert_subset(&path, &inputs, &damaged, place);
            let Some(Input::Data { direction: Direction::Request, at, .. }) = damaged.get(place + 1) else { continue };
            for (start, statement, kind) in &whole {
                if start >= at && *kind != Kind::Connect && !has_cursors(&path) && !path.contains("pipelined") {
                    assert!(found.contains(statement), "{path} gap at {place}: missed {statement}");
                }
            }
        }
    }
}
