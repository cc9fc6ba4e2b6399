//! What is counted.

use std::collections::BTreeMap;

use querylens_tests::{
    extension::Extended,
    load::{
        Amount, Pgbench,
        pgbench::{Protocol, Script},
    },
    servers::Transport,
};

use crate::QUIET;

on_each_version! {
    counts_agree_with_pg_stat_statements nested_statements errors cursors_and_subtransactions many_caught_errors utility_statements
    planning_and_generic_plans parallel_workers nodes_are_sampled
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

/// Errors outside an execution that is open, caught again and again in one transaction: none of them may leave anything behind.
fn many_caught_errors(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", QUIET).unwrap();
    extended.run_file("setup.sql").unwrap();
    let mut client = extended.client().unwrap();
    client.query("SELECT querylens.reset()").unwrap();
    client.query("SET pg_querylens.track = 'all'").unwrap();
    let block = "DO $$ DECLARE r record; BEGIN
                     FOR i IN 1..500 LOOP
                         BEGIN
                             FOR r IN SELECT id FROM a LOOP RAISE EXCEPTION 'no'; END LOOP;
                         EXCEPTION WHEN raise_exception THEN NULL;
                         END;
                     END LOOP;
                     PERFORM count(*) FROM small;
                 END $$";
    client.query(block).unwrap();
    client.query("SET pg_querylens.track = none").unwrap();
    assert_eq!(extended.info("executions_lost").unwrap(), 0);
    let counted = "SELECT sum(calls) FROM querylens.plans WHERE plan_id <> 0 AND NOT toplevel";
    assert_eq!(client.value(counted).unwrap(), "1");
}
