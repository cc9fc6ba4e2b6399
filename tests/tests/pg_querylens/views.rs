//! What is shown, to whom, and by which settings.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use querylens_tests::{extension::Extended, process::wait_for};

use crate::{PATIENCE, QUIET};

on_each_version! {
    privileges literals_are_masked plan_changes_and_regressions regressions_under_load settings_at_run_time
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

/// Longest time from a change of a plan until it is known as a regression.
const NOTICED: std::time::Duration = std::time::Duration::from_secs(10);

fn regressions_under_load(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", &[("jit", "off")]).unwrap();
    extended.run_file("setup.sql").unwrap();
    extended.rows("SELECT querylens.reset()").unwrap();
    let end = AtomicBool::new(false);
    let session = || {
        let mut client = extended.client().unwrap();
        let mut id = 0;
        while !end.load(Ordering::Relaxed) {
            id = (id + 7) % 10_000;
            client.query(&format!("SELECT count(*) FROM b WHERE a_id = {id}")).unwrap();
        }
    };
    thread::scope(|scope| {
        // Sessions that never end and never rest: what they count must be seen all the same.
        let sessions: Vec<_> = (0..4).map(|_| scope.spawn(session)).collect();
        let outcome = (|| {
            let mut client = extended.client()?;
            let busy = "SELECT coalesce(max(calls), 0) >= 1000 FROM querylens.plans WHERE plan_id <> 0 AND toplevel";
            wait_for("the load", PATIENCE, || Ok((client.value(busy)? == "t").then_some(())))?;
            client.query("DROP INDEX b_a_id")?;
            let begin = Instant::now();
            let found = "SELECT regression_type, querylens.get_plan_json(previous_plan_id) LIKE '%b_a_id%', \
                         querylens.get_plan_json(current_plan_id) LIKE '%Seq Scan%' FROM querylens.performance_regressions";
            let rows = wait_for("the regression", NOTICED, || {
                let rows = client.query(found)?;
                Ok((!rows.is_empty()).then_some(rows))
            })?;
            anyhow::Ok((rows, begin.elapsed()))
        })();
        end.store(true, Ordering::Relaxed);
        sessions.into_iter().for_each(|session| session.join().unwrap());
        let (rows, elapsed) = outcome.unwrap();
        assert_eq!(rows, [["plan change", "t", "t"].map(|value| Some(value.to_owned()))]);
        assert!(elapsed < NOTICED, "{elapsed:?}");
    });
    assert_eq!(extended.info("internal_failures").unwrap(), 0);
}
