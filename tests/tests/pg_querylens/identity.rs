//! Which plans share an identity.

use std::fs;

use querylens_tests::{client::PostgresClient, extension::Extended, layout};

use crate::QUIET;

on_each_version! {
    identities
}

/// What a case of identity.txt expects.
#[derive(Debug, PartialEq)]
enum Verdict {
    Same,
    Other,
    Collapsed,
}

/// Plan ids of the one plan that `line` executes: exact and collapsed.
fn plan_of(client: &mut PostgresClient, line: &str) -> (String, String) {
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = top").unwrap();
    for statement in line.split(';').filter(|statement| !statement.trim().is_empty()) {
        client.query(statement).unwrap();
    }
    client.query("RESET ALL").unwrap();
    let sql = "SELECT plan_id, collapsed_plan_id FROM querylens.plans WHERE plan_id <> 0 AND calls > 0";
    let rows = client.query(sql).unwrap();
    assert_eq!(rows.len(), 1, "{line}: {rows:?}");
    (rows[0][0].clone().unwrap(), rows[0][1].clone().unwrap())
}

fn identities(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let table = fs::read_to_string(layout::checkout().join("pg_querylens/tests/identity.txt")).unwrap();
    let mut client = extended.client().unwrap();
    let lines: Vec<&str> = table.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
    assert!(lines.len().is_multiple_of(3) && lines.len() / 3 >= 60, "{} lines", lines.len());
    let mut wrong = Vec::new();
    for case in lines.chunks(3) {
        let (kind, name) = case[0].split_once(':').unwrap();
        let (kind, since) = kind.split_once(' ').unwrap_or((kind, "0"));
        if since.parse::<u32>().unwrap() > major {
            continue;
        }
        let (first, second) = (plan_of(&mut client, case[1]), plan_of(&mut client, case[2]));
        let found = match (first.0 == second.0, first.1 == second.1) {
            (true, true) => Verdict::Same,
            (false, true) => Verdict::Collapsed,
            (false, false) => Verdict::Other,
            (true, false) => panic!("{name}: one plan, but not when collapsed"),
        };
        let expected = match kind {
            "same" => Verdict::Same,
            "other" => Verdict::Other,
            "collapsed" => Verdict::Collapsed,
            _ => panic!("{kind}"),
        };
        if found != expected {
            wrong.push(format!("{name}: {found:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
