//! No process of the server reads memory that is not its own or was never written: the hooks under valgrind's memcheck.
//!
//! Not a test of every run: it takes minutes. `cargo xtask test querylens --valgrind`.

use std::fs;

use querylens_tests::{extension::Extended, layout, servers::Postgres};

/// What PostgreSQL itself does: it writes pages and log records whole, also the bytes in them that nobody has set.
const SUPPRESSIONS: &str = "pg_querylens/tests/valgrind.supp";

#[test]
#[ignore = "needs root, valgrind and the built extension: cargo xtask test querylens --valgrind"]
fn hooks_under_valgrind() {
    let logs = tempfile::tempdir().unwrap();
    Postgres::user().own(logs.path()).unwrap();
    let suppressions = layout::checkout().join(SUPPRESSIONS);
    let runner = [
        "valgrind".to_owned(),
        "--trace-children=yes".to_owned(),
        "--error-limit=no".to_owned(),
        "--num-callers=30".to_owned(),
        format!("--suppressions={}", suppressions.display()),
        format!("--log-file={}/%p", logs.path().display()),
    ];
    // So small that tables and texts are full at once, and everything is sampled.
    let more = [
        ("pg_querylens.max_plans", "100"),
        ("pg_querylens.text_memory", "64kB"),
        ("pg_querylens.history_size", "10"),
        ("pg_querylens.sample_rate", "1"),
        ("pg_querylens.sample_timing", "0.5"),
        ("pg_querylens.sample_budget", "1"),
        ("statement_timeout", "'10s'"),
        ("autovacuum", "off"),
        ("shared_buffers", "16MB"),
    ];
    let mut extended = Extended::start_run_by(runner.to_vec(), 17, "'pg_querylens'", &more).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    let table = fs::read_to_string(layout::checkout().join("pg_querylens/tests/identity.txt")).unwrap();
    let lines: Vec<&str> = table.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
    for line in lines.iter().skip(1).step_by(3) {
        for statement in line.split(';') {
            // Some are of later versions, some take too long here; that they fail is well, too.
            let _rows_or_error = client.query(statement);
        }
        client.query("RESET ALL").unwrap();
    }
    client.query("DEALLOCATE ALL").unwrap();
    for statement in [
        "DO $$ BEGIN FOR i IN 1..10 LOOP BEGIN PERFORM 1 / (i % 2) FROM small; EXCEPTION WHEN division_by_zero THEN NULL; \
         END; END LOOP; END $$",
        "PREPARE p (integer) AS SELECT n FROM small WHERE id = $1",
    ] {
        client.query(statement).unwrap();
    }
    for id in 1..=10 {
        client.query(&format!("EXECUTE p ({id})")).unwrap();
    }
    client.query("SELECT 1 / 0").unwrap_err();
    let views = [
        "plans",
        "current_plans",
        "queries",
        "plan_history",
        "performance_regressions",
        "nodes",
        "errors",
        "activity",
        "info",
    ];
    for view in views {
        client.query(&format!("SELECT * FROM querylens.{view}")).unwrap();
    }
    assert!(extended.info("plans_evicted").unwrap() > 0);
    assert_eq!(extended.info("internal_failures").unwrap(), 0);
    // Saves the statistics, and reads them again.
    extended.restart("'pg_querylens'", &more).unwrap();
    assert_eq!(extended.info("state_file").unwrap(), 1);
    extended.rows("SELECT querylens.reset()").unwrap();
    extended.server.stop().unwrap();

    let mut clean = 0;
    for log in fs::read_dir(logs.path()).unwrap() {
        let text = fs::read_to_string(log.unwrap().path()).unwrap();
        if text.contains("ERROR SUMMARY: 0 errors") {
            clean += 1;
        } else {
            assert!(!text.contains("ERROR SUMMARY"), "{text}");
        }
    }
    // The postmasters, their workers, and the sessions above.
    assert!(clean > 10, "{clean} processes");
}
