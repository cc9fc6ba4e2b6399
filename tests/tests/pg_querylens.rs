//! Guarantee: the extension pg_querylens knows by which plan each statement was executed, counts what pg_stat_statements counts, shows no literal, and
//! does no harm to the server, whatever goes wrong.
//!
//! Not proven here: versions without a server on this machine; what it costs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, time::Duration};

use querylens_tests::{
    client::PostgresClient,
    extension::Extended,
    layout,
    load::{
        Amount, Pgbench,
        pgbench::{Protocol, Script},
    },
    process::wait_for,
    servers::Transport,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing but what a test asks for.
const QUIET: &[(&str, &str)] = &[("pg_querylens.track", "none"), ("autovacuum", "off"), ("jit", "off")];

/// One test a major version, so that a failure says which.
macro_rules! on_each_version {
    ($($test:ident)*) => {
        $(mod $test {
            #[test]
            #[ignore = "needs root, servers and the built extension: cargo xtask test querylens"]
            fn pg_querylens_15() { super::$test(15); }
            #[test]
            #[ignore = "needs root, servers and the built extension: cargo xtask test querylens"]
            fn pg_querylens_17() { super::$test(17); }
            #[test]
            #[ignore = "needs root, servers and the built extension: cargo xtask test querylens"]
            fn pg_querylens_18() { super::$test(18); }
        })*
    };
}

on_each_version! {
    identities counts_agree_with_pg_stat_statements nested_statements errors cursors_and_subtransactions privileges literals_are_masked
    plan_changes_and_regressions nodes_are_sampled statistics_survive_restarts crashes full_tables load_orders utility_statements
    settings_at_run_time planning_and_generic_plans parallel_workers
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
    assert!(lines.len() % 3 == 0 && lines.len() / 3 >= 60, "{} lines", lines.len());
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

/// Calls and rows by query id, of top-level statements in the database `bench`.
fn counted(extended: &Extended, sql: &str) -> BTreeMap<String, (String, String)> {
    let rows = extended.rows(sql).unwrap().into_iter();
    rows.map(|row| (row[0].clone().unwrap(), (row[1].clone().unwrap(), row[2].clone().unwrap()))).collect()
}

fn counts_agree_with_pg_stat_statements(major: u32) {
    let more =
        [("pg_stat_statements.track", "top"), ("pg_stat_statements.max", "10000"), ("pg_querylens.sample_rate", "0.2")];
    let extended = Extended::start(major, "'pg_stat_statements,pg_querylens'", &more).unwrap();
    extended.rows("CREATE EXTENSION pg_stat_statements").unwrap();
    Pgbench::initialise(&extended.server, "bench").unwrap();
    for (protocol, script) in [
        (Protocol::Simple, Script::TpcB),
        (Protocol::Extended, Script::SelectOnly),
        (Protocol::Prepared, Script::SelectOnly),
    ] {
        extended.rows("SELECT pg_stat_statements_reset(), querylens.reset()").unwrap();
        let (database, amount) = ("bench".to_owned(), Amount::Seconds(2));
        let load = Pgbench { database, transport: Transport::Unix, script, protocol, clients: 8, amount, rate: None };
        let report = load.run(&extended.server).unwrap();
        let bench = "dbid = (SELECT oid FROM pg_database WHERE datname = 'bench')";
        let theirs = counted(
            &extended,
            &format!(
                "SELECT queryid, sum(calls), sum(rows) FROM pg_stat_statements WHERE {bench} AND queryid <> 0 GROUP BY 1"
            ),
        );
        let ours = counted(
            &extended,
            &format!(
                "SELECT queryid, sum(calls), sum(rows) FROM querylens.plans WHERE {bench} AND toplevel GROUP BY 1"
            ),
        );
        assert!(!theirs.is_empty() && report.transactions > 0);
        assert_eq!(ours, theirs, "{protocol:?} {script:?}");
        assert_eq!((extended.info("executions_lost").unwrap(), extended.info("plans_evicted").unwrap()), (0, 0));
    }
    assert_eq!(extended.info("internal_failures").unwrap(), 0);
}

fn nested_statements(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client
        .query(
            "CREATE FUNCTION twice() RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN
                 FOR i IN 1..2 LOOP SELECT count(*) INTO n FROM c WHERE w = i; END LOOP; RETURN n; END $$",
        )
        .unwrap();
    let sql = "SELECT sum(calls) FILTER (WHERE toplevel), sum(calls) FILTER (WHERE NOT toplevel) \
               FROM querylens.plans WHERE plan_id <> 0";
    for (track, nested) in [("all", Some("6".to_owned())), ("top", None)] {
        client.query("SELECT querylens.reset()").unwrap();
        client.query(&format!("SET pg_querylens.track = '{track}'")).unwrap();
        for _ in 0..3 {
            client.query("SELECT twice()").unwrap();
        }
        client.query("SET pg_querylens.track = none").unwrap();
        assert_eq!(client.query(sql).unwrap(), [[Some("3".to_owned()), nested]], "{track}");
    }
}

fn errors(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = top").unwrap();
    for _ in 0..3 {
        client.query("SELECT 1 / (w - w) FROM c").unwrap_err();
    }
    client.query("INSERT INTO small VALUES (1, 1)").unwrap_err();
    client.query("SET statement_timeout = '50ms'").unwrap();
    client.query("SELECT pg_sleep(10)").unwrap_err();
    client.query("RESET statement_timeout").unwrap();
    client.query("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'QL001'; END $$").unwrap_err();
    // The session goes on, and so does counting.
    client.query("SELECT count(*) FROM c").unwrap();
    client.query("SET pg_querylens.track = none").unwrap();
    let rows = client.query("SELECT sqlstate, sum(count) FROM querylens.errors GROUP BY 1 ORDER BY 1").unwrap();
    let text = |value: &str| Some(value.to_owned());
    let expected = [("22012", "3"), ("23505", "1"), ("57014", "1"), ("QL001", "1")];
    assert_eq!(rows, expected.map(|(state, count)| vec![text(state), text(count)]));
    let used = client.value("SELECT exec_time_ms >= 40 FROM querylens.errors WHERE sqlstate = '57014'").unwrap();
    assert_eq!(used, "t");
    let failed = "SELECT sum(failed_calls) FROM querylens.plans";
    assert_eq!(client.value(failed).unwrap(), "6");
    assert_eq!(extended.info("internal_failures").unwrap(), 0);
}

fn cursors_and_subtransactions(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client
        .query(
            "CREATE FUNCTION careful() RETURNS integer LANGUAGE plpgsql AS $$ DECLARE n integer := 0; BEGIN
                 FOR i IN 0..9 LOOP
                     BEGIN
                         PERFORM 1 / (i % 2) FROM small;
                         n := n + 1;
                     EXCEPTION WHEN division_by_zero THEN NULL;
                     END;
                 END LOOP;
                 RETURN n; END $$",
        )
        .unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = 'all'").unwrap();
    // Levels are right after errors that were caught: the second call is at the top again.
    for _ in 0..2 {
        assert_eq!(client.value("SELECT careful()").unwrap(), "5");
    }
    client.query("BEGIN").unwrap();
    client.query("DECLARE q CURSOR FOR SELECT id FROM a ORDER BY id").unwrap();
    assert_eq!(client.query("FETCH 10 FROM q").unwrap().len(), 10);
    client.query("SAVEPOINT s").unwrap();
    client.query("SELECT 1 / 0").unwrap_err();
    client.query("ROLLBACK TO s").unwrap();
    assert_eq!(client.query("FETCH 10 FROM q").unwrap().len(), 10);
    client.query("CLOSE q").unwrap();
    // One that is never closed.
    client.query("DECLARE r CURSOR FOR SELECT id FROM a").unwrap();
    client.query("FETCH 1 FROM r").unwrap();
    client.query("ROLLBACK").unwrap();
    client.query("CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..3 LOOP PERFORM count(*) FROM small; COMMIT; END LOOP; END $$").unwrap();
    client.query("CALL commits()").unwrap();
    client.query("SELECT count(*) FROM c").unwrap();
    client.query("SET pg_querylens.track = none").unwrap();
    let sql = "SELECT sum(calls) FILTER (WHERE toplevel AND plan_id <> 0), \
               sum(failed_calls) FILTER (WHERE NOT toplevel) FROM querylens.plans";
    let rows = client.query(sql).unwrap();
    // Twice careful(), the last SELECT; ten inner divisions by zero.
    assert_eq!(rows, [[Some("3".to_owned()), Some("10".to_owned())]]);
    assert_eq!(extended.info("executions_lost").unwrap(), 0);
    assert_eq!(extended.info("internal_failures").unwrap(), 0);
}

fn privileges(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", &[]).unwrap();
    let mut client = extended.client().unwrap();
    client.query("CREATE ROLE reader LOGIN; GRANT pg_read_all_stats TO reader; CREATE ROLE nobody LOGIN; CREATE ROLE own LOGIN").unwrap();
    client.query("GRANT USAGE ON SCHEMA querylens TO own; GRANT SELECT ON querylens.plans TO own").unwrap();
    client.query("GRANT EXECUTE ON FUNCTION querylens.plans_data() TO own").unwrap();
    client.query("SELECT count(*) FROM pg_class").unwrap();
    client.query("SET ROLE nobody").unwrap();
    client.query("SELECT * FROM querylens.plans").unwrap_err();
    client.query("SELECT querylens.reset()").unwrap_err();
    client.query("SET ROLE reader").unwrap();
    let users = "SELECT count(DISTINCT userid) FROM querylens.plans";
    assert!(
        client.value("SELECT count(*) FROM querylens.plans WHERE userid = 10").unwrap().parse::<u32>().unwrap() > 0
    );
    client.query("SELECT querylens.reset()").unwrap_err();
    client.query("SET ROLE own").unwrap();
    client.query("SELECT 1").unwrap();
    assert_eq!(client.value(users).unwrap(), "1");
    assert_eq!(client.value("SELECT count(*) FROM querylens.plans WHERE userid = 10").unwrap(), "0");
}

fn literals_are_masked(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = 'all'").unwrap();
    for sql in [
        "SELECT * FROM a WHERE s = 'sesame' AND x > 424242 OR y IN (424242, 424243)",
        "SELECT count(*) FROM a JOIN b ON a.id = b.a_id AND a.s || 'sesame' = 'sesamesesame' WHERE b.z = 424242",
        "SELECT s, count(*) FROM a WHERE s LIKE 'sesame%' AND coalesce(s, 'sesame') = 'x' GROUP BY s HAVING count(*) > 424242",
        "SELECT * FROM a WHERE id = 424242 ORDER BY s || 'sesame' LIMIT 424242",
        "SELECT * FROM (VALUES (424242, 'sesame')) v WHERE column1 > 1",
    ] {
        client.query(sql).unwrap();
    }
    client.query("SET pg_querylens.track = none").unwrap();
    let plans = client.query("SELECT plan_text FROM querylens.current_plans WHERE plan_id <> 0").unwrap();
    let texts: Vec<String> = plans.into_iter().filter_map(|mut row| row[0].take()).collect();
    assert_eq!(texts.len(), 5, "{texts:?}");
    for text in &texts {
        assert!(!text.contains("sesame") && !text.contains("42424"), "{text}");
        serde_json::from_str::<serde_json::Value>(text).unwrap();
    }
    let all = texts.concat();
    for expected in ["\"Node Type\":\"Seq Scan\"", "\"Relation Name\":\"a\"", "Index Cond", "(s = ?)", "(z = ?)"] {
        assert!(all.contains(expected), "{expected}: {all}");
    }
}

fn plan_changes_and_regressions(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    let mut execute = |times: usize| {
        client.query("SET pg_querylens.track = top").unwrap();
        for id in 0..times {
            client.query(&format!("SELECT count(*) FROM b WHERE a_id = {id}")).unwrap();
        }
        client.query("SET pg_querylens.track = none").unwrap();
        // What is counted is handed on before the plan changes.
        client.query("SELECT count(*) FROM querylens.plans").unwrap();
    };
    execute(100);
    extended.rows("DROP INDEX b_a_id").unwrap();
    execute(100);
    let found = extended.rows(
        "SELECT r.regression_type, r.regression_severity, r.confidence > 0.999, \
         querylens.get_plan_json(r.previous_plan_id) LIKE '%b_a_id%', querylens.get_plan_json(r.current_plan_id) LIKE '%Seq Scan%', \
         now() - r.detected_at < '1 minute' FROM querylens.performance_regressions r",
    );
    let expected = ["plan change", "critical", "t", "t", "t", "t"].map(|value| Some(value.to_owned()));
    assert_eq!(found.unwrap(), [expected]);
    let history = "SELECT count(*), sum(previous_calls) FROM querylens.plan_history";
    assert_eq!(extended.rows(history).unwrap(), [[Some("1".to_owned()), Some("100".to_owned())]]);
    // An index again: no regression any more, and one more change.
    extended.rows("CREATE INDEX b_a_id ON b (a_id)").unwrap();
    execute(50);
    assert_eq!(extended.rows("SELECT * FROM querylens.performance_regressions").unwrap().len(), 0);
}

fn nodes_are_sampled(major: u32) {
    let more =
        [("pg_querylens.sample_rate", "1"), ("pg_querylens.sample_budget", "1"), ("pg_querylens.sample_timing", "1")];
    let more: Vec<(&str, &str)> = QUIET.iter().copied().chain(more).collect();
    let extended = Extended::start(major, "'pg_querylens'", &more).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = top").unwrap();
    for _ in 0..5 {
        client.query("SELECT id, w FROM c WHERE w = 1 ORDER BY b_id").unwrap();
    }
    client.query("SET pg_querylens.track = none").unwrap();
    let rows = client.query("SELECT node_type, executions, loops, actual_rows, filtered_rows, timed_executions, time_ms > 0 FROM querylens.nodes ORDER BY node").unwrap();
    // Of 5000 rows with w from 0 to 12, 385 have 1.
    let expected = [["Sort", "5", "5", "1925", "0", "5", "t"], ["Seq Scan", "5", "5", "1925", "23075", "5", "t"]];
    assert_eq!(rows, expected.map(|row| row.map(|value| Some(value.to_owned()))));
    // Off means off.
    client.query("SET pg_querylens.sample_rate = 0; SET pg_querylens.track = top").unwrap();
    client.query("SELECT id, w FROM c WHERE w = 1 ORDER BY b_id").unwrap();
    client.query("SET pg_querylens.track = none").unwrap();
    assert_eq!(client.value("SELECT max(executions) FROM querylens.nodes").unwrap(), "5");
}

fn statistics_survive_restarts(major: u32) {
    let mut extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let count = |extended: &Extended, times: usize| {
        let mut client = extended.client().unwrap();
        client.query("SET pg_querylens.track = top").unwrap();
        for _ in 0..times {
            client.query("SELECT count(*) FROM a WHERE id = 5").unwrap();
        }
    };
    let seen =
        "SELECT plan_id, calls, querylens.get_plan_json(plan_id) IS NOT NULL FROM querylens.plans WHERE plan_id <> 0";
    extended.rows("SELECT querylens.reset()").unwrap();
    count(&extended, 7);
    let before = extended.rows(seen).unwrap();
    assert_eq!((before.len(), before[0][1].as_deref(), before[0][2].as_deref()), (1, Some("7"), Some("t")));
    extended.restart("'pg_querylens'", QUIET).unwrap();
    assert_eq!(extended.info("state_file").unwrap(), 1);
    assert_eq!(extended.rows(seen).unwrap(), before);
    // The same plan has the same id.
    count(&extended, 1);
    let after = extended.rows(seen).unwrap();
    assert_eq!((after.len(), after[0][0].clone(), after[0][1].as_deref()), (1, before[0][0].clone(), Some("8")));
    // A damaged file is set aside, and the server starts.
    extended.server.stop().unwrap();
    let file = extended.server.data_dir().join("pg_stat/pg_querylens.stat");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    extended.start_again("'pg_querylens'", QUIET).unwrap();
    assert_eq!(extended.info("state_file").unwrap(), 2);
    assert!(extended.server.data_dir().join("pg_stat/pg_querylens.stat.damaged").exists());
    assert_eq!(extended.rows(seen).unwrap().len(), 0);
}

fn crashes(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", &[]).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut victim = extended.client().unwrap();
    let pid: i32 = victim.value("SELECT pg_backend_pid()").unwrap().parse().unwrap();
    let running = std::thread::spawn(move || victim.query("SELECT count(pg_sleep(0.01)) FROM a"));
    let active = format!("SELECT count(*) FROM querylens.activity WHERE pid = {pid} AND plan_id IS NOT NULL");
    wait_for("the statement to run", PATIENCE, || Ok((extended.client()?.value(&active)? == "1").then_some(())))
        .unwrap();
    // SAFETY: a process of the server that this test has started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    running.join().unwrap().unwrap_err();
    // Until then it still answers with its old processes.
    let anew = "all server processes terminated; reinitializing";
    wait_for("the server to notice", PATIENCE, || Ok(extended.server.log().contains(anew).then_some(()))).unwrap();
    // The server starts its processes anew, with new shared memory, and counting goes on.
    wait_for("the server to recover", PATIENCE, || {
        Ok(extended.client().and_then(|mut client| client.query("SELECT count(*) FROM a")).is_ok().then_some(()))
    })
    .unwrap();
    let counted = "SELECT count(*) FROM querylens.plans WHERE plan_id <> 0 AND calls > 0";
    assert_ne!(extended.client().unwrap().value(counted).unwrap(), "0");
    assert_eq!(extended.info("internal_failures").unwrap(), 0);
    // In the new memory: so it runs again.
    wait_for("the worker", PATIENCE, || Ok((extended.info("worker_rounds")? > 1).then_some(()))).unwrap();
}

fn full_tables(major: u32) {
    let more =
        [("pg_querylens.max_plans", "100"), ("pg_querylens.text_memory", "64kB"), ("pg_querylens.history_size", "10")];
    let extended = Extended::start(major, "'pg_querylens'", &more).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    let memory = extended.info("memory_bytes").unwrap();
    let tables = 300;
    client
        .query(&format!(
            "DO $$ BEGIN FOR i IN 1..{tables} LOOP EXECUTE 'CREATE TABLE t' || i || ' ()'; END LOOP; END $$"
        ))
        .unwrap();
    for _ in 0..5 {
        for table in 1..=tables {
            // As many statements as tables; one that is executed all the time.
            client.query(&format!("SELECT count(*) FROM t{table}")).unwrap();
            client.query("SELECT n FROM small WHERE id = 1").unwrap();
        }
    }
    assert!(extended.info("plans_evicted").unwrap() > 300);
    // What is used all the time stays.
    let used = "SELECT calls FROM querylens.plans WHERE plan_id <> 0 ORDER BY calls DESC LIMIT 1";
    assert_eq!(client.value(used).unwrap(), (5 * tables).to_string());
    assert!(extended.info("plans").unwrap() <= 192);
    assert_eq!(extended.info("memory_bytes").unwrap(), memory);
    assert_eq!((extended.info("internal_failures").unwrap(), extended.info("executions_lost").unwrap()), (0, 0));
}

fn load_orders(major: u32) {
    let mut extended = Extended::start(major, "'pg_querylens'", &[]).unwrap();
    for libraries in [
        "'pg_querylens,pg_stat_statements,auto_explain'",
        "'auto_explain,pg_stat_statements,pg_querylens'",
        "'pg_stat_statements,pg_querylens,auto_explain'",
        "'auto_explain,pg_querylens'",
    ] {
        let more = [
            ("auto_explain.log_min_duration", "0"),
            ("auto_explain.log_analyze", "on"),
            ("pg_querylens.sample_rate", "1"),
        ];
        extended.restart(libraries, &more).unwrap();
        let mut client = extended.client().unwrap();
        client.query("SELECT querylens.reset()").unwrap();
        for _ in 0..3 {
            assert_eq!(client.value("SELECT count(*) FROM generate_series(1, 10)").unwrap(), "10");
        }
        let sql = "SELECT max(calls) FROM querylens.plans WHERE plan_id <> 0 AND toplevel";
        assert_eq!(client.value(sql).unwrap(), "3", "{libraries}");
        assert_eq!(extended.info("internal_failures").unwrap(), 0, "{libraries}");
    }
}

fn utility_statements(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = 'all'").unwrap();
    for sql in [
        "CREATE TABLE copied AS SELECT * FROM small",
        "CREATE MATERIALIZED VIEW seen AS SELECT * FROM small",
        "REFRESH MATERIALIZED VIEW seen",
        "EXPLAIN SELECT * FROM a",
        "EXPLAIN ANALYZE SELECT * FROM a",
        "DO $$ BEGIN PERFORM count(*) FROM small; END $$",
        "COPY (SELECT * FROM small) TO '/dev/null'",
        "DROP TABLE copied",
    ] {
        client.query(sql).unwrap();
    }
    client.query("SET pg_querylens.track = none").unwrap();
    let commands = "SELECT sum(calls), sum(rows) FROM querylens.plans WHERE toplevel AND plan_id = 0";
    // The six that are not EXPLAIN, and the SET that ends it.
    let rows = client.query(commands).unwrap();
    assert_eq!(rows[0][0].as_deref(), Some("7"), "{rows:?}");
    let plans =
        client.value("SELECT count(*) FROM querylens.plans WHERE plan_id <> 0 AND toplevel AND calls > 0").unwrap();
    assert_eq!(plans, "0", "nothing of EXPLAIN");
}

fn settings_at_run_time(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = 'all'; SET pg_querylens.enabled = off").unwrap();
    client.query("SELECT count(*) FROM pg_class").unwrap();
    client.query("SET pg_querylens.track = none; SET pg_querylens.enabled = on").unwrap();
    let rows = "SELECT count(*) FROM querylens.plans WHERE plan_id <> 0 AND calls > 0";
    assert_eq!(client.value(rows).unwrap(), "0");
    client.query("SET pg_querylens.max_plans = 7").unwrap_err();
    client.query("SET pg_querylens.track = 'some'").unwrap_err();
    client.query("SET pg_querylens.sample_rate = 2").unwrap_err();
}

fn planning_and_generic_plans(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("PREPARE p (integer) AS SELECT * FROM a WHERE id = $1").unwrap();
    client.query("SET pg_querylens.track = top").unwrap();
    // Five custom plans, then the generic one, which is planned once.
    for id in 1..=12 {
        client.query(&format!("EXECUTE p ({id})")).unwrap();
    }
    client.query("SET pg_querylens.track = none").unwrap();
    let sql = "SELECT calls, generic_calls, plannings, planning_time_ms > 0 FROM querylens.plans WHERE plan_id <> 0";
    let expected = ["12", "7", "6", "t"].map(|value| Some(value.to_owned()));
    assert_eq!(client.query(sql).unwrap(), [expected]);
}

fn parallel_workers(major: u32) {
    let more = [("min_parallel_table_scan_size", "0"), ("parallel_setup_cost", "0"), ("parallel_tuple_cost", "0")];
    let more: Vec<(&str, &str)> = QUIET.iter().copied().chain(more).collect();
    let extended = Extended::start(major, "'pg_querylens'", &more).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = 'all'").unwrap();
    client.query("SELECT count(*) FROM a").unwrap();
    client.query("SET pg_querylens.track = none").unwrap();
    let sql = "SELECT calls, rows, parallel_workers_planned >= 1, parallel_workers_launched <= parallel_workers_planned, \
               shared_blks_hit + shared_blks_read > 0 FROM querylens.plans WHERE plan_id <> 0";
    let expected = ["1", "1", "t", "t", "t"].map(|value| Some(value.to_owned()));
    assert_eq!(client.query(sql).unwrap(), [expected]);
}
