//! The extension changes no result: random statements with it and without it.
//!
//! Ten seconds a version as a rule; `QUERYLENS_RANDOM_SECONDS` and `QUERYLENS_RANDOM_SEED` say otherwise.

use std::time::{Duration, Instant};

use querylens_tests::{client::PostgresClient, extension::Extended, random_sql::Generator};

on_each_version! {
    random_statements
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().unwrap())
}

/// Rows in any order, or the SQLSTATE.
type Outcome = Result<Vec<Vec<Option<String>>>, String>;

fn outcome(client: &mut PostgresClient, statement: &str) -> Outcome {
    match client.query(statement) {
        Ok(mut rows) => {
            rows.sort();
            Ok(rows)
        }
        Err(error) => {
            let code = error.chain().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()?.code());
            Err(code.unwrap_or_else(|| panic!("{statement}: {error:#}")).code().to_owned())
        }
    }
}

/// What each statement of a transaction gives. It is rolled back: both sessions find the same.
fn outcomes(client: &mut PostgresClient, transaction: &[String]) -> Vec<Outcome> {
    client.query("BEGIN").unwrap();
    let outcomes = transaction.iter().map(|statement| outcome(client, statement)).collect();
    client.query("ROLLBACK").unwrap();
    outcomes
}

#[allow(clippy::print_stdout, reason = "how much was done")]
fn random_statements(major: u32) {
    let more = [
        ("autovacuum", "off"),
        ("pg_querylens.sample_rate", "0.5"),
        ("pg_querylens.sample_timing", "0.5"),
        ("pg_querylens.sample_budget", "1"),
        // So small that plans and texts are evicted all the time.
        ("pg_querylens.max_plans", "200"),
        ("pg_querylens.text_memory", "64kB"),
        ("min_parallel_table_scan_size", "0"),
        ("parallel_setup_cost", "10"),
        ("max_parallel_workers_per_gather", "1"),
    ];
    let extended = Extended::start(major, "'pg_querylens'", &more).unwrap();
    extended.run_file("setup.sql").unwrap();
    let (mut with, mut without) = (extended.client().unwrap(), extended.client().unwrap());
    without.query("SET pg_querylens.enabled = off").unwrap();
    let seed = number("QUERYLENS_RANDOM_SEED", 1);
    let end = Instant::now() + Duration::from_secs(number("QUERYLENS_RANDOM_SECONDS", 10));
    let mut generator = Generator::new(seed, major);
    let (mut statements, mut failures) = (0u64, 0u64);
    while Instant::now() < end {
        let transaction = generator.transaction();
        let (expected, found) = (outcomes(&mut without, &transaction), outcomes(&mut with, &transaction));
        for (at, statement) in transaction.iter().enumerate() {
            assert_eq!(found[at], expected[at], "seed {seed}, statement {statements}: {statement}");
            statements += 1;
            failures += u64::from(found[at].is_err());
        }
    }
    assert!(statements > 50 && failures * 4 < statements, "{statements} statements, {failures} of them failed");
    assert!(extended.info("plans_evicted").unwrap() > 0 || statements < 2_000);
    assert_eq!(extended.info("internal_failures").unwrap(), 0);
    assert!(!extended.server.log().contains("terminated by signal"));
    println!("{statements} statements, {failures} of them failed, as they do without the extension");
}
