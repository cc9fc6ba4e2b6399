//! What goes wrong, and does no harm.

use std::{fs, time::Duration};

use querylens_tests::{
    extension::Extended,
    load::{
        Amount, Pgbench,
        pgbench::{Protocol, Script},
    },
    process::wait_for,
    servers::Transport,
};

use crate::{PATIENCE, QUIET};

on_each_version! {
    statistics_survive_restarts damaged_files crashes crashes_under_load death_of_the_postmaster full_tables load_orders
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
        "'pg_querylens,auto_explain,pg_stat_statements'",
        "'pg_stat_statements,pg_querylens,auto_explain'",
        "'pg_stat_statements,auto_explain,pg_querylens'",
        "'auto_explain,pg_querylens,pg_stat_statements'",
        "'auto_explain,pg_stat_statements,pg_querylens'",
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

/// Whatever is done to the file, the server starts, and the file is set aside.
fn damaged_files(major: u32) {
    let mut extended = Extended::start(major, "'pg_querylens'", &[]).unwrap();
    extended.rows("SELECT count(*) FROM pg_class").unwrap();
    extended.server.stop().unwrap();
    let file = extended.server.data_dir().join("pg_stat/pg_querylens.stat");
    let aside = file.with_extension("stat.damaged");
    let whole = fs::read(&file).unwrap();
    let changed = |at: usize, by: u8| {
        let mut bytes = whole.clone();
        bytes[at] ^= by;
        bytes
    };
    let damages: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        ("one byte short", whole[..whole.len() - 1].to_vec()),
        ("one byte more", [whole.as_slice(), &[0]].concat()),
        ("of another kind", changed(0, 1)),
        ("no number of it true", vec![0xff; whole.len()]),
    ];
    for (damage, bytes) in damages {
        fs::write(&file, bytes).unwrap();
        extended.start_again("'pg_querylens'", &[]).unwrap();
        assert_eq!(extended.info("state_file").unwrap(), 2, "{damage}");
        assert!(aside.exists(), "{damage}");
        extended.server.stop().unwrap();
        fs::remove_file(&aside).unwrap();
    }
    fs::write(&file, &whole).unwrap();
    extended.start_again("'pg_querylens'", &[]).unwrap();
    assert_eq!(extended.info("state_file").unwrap(), 1);
}

fn load(extended: &Extended, seconds: u32) -> querylens_tests::load::Load {
    let (database, amount) = ("bench".to_owned(), Amount::Seconds(seconds));
    let (script, protocol) = (Script::SelectOnly, Protocol::Simple);
    let load = Pgbench { database, transport: Transport::Unix, script, protocol, clients: 8, amount, rate: None };
    load.start(&extended.server).unwrap()
}

/// Processes that are killed wherever they just are, hooks included: the server starts its processes anew each time, and counting goes on.
fn crashes_under_load(major: u32) {
    let extended = Extended::start(major, "'pg_querylens'", &[("pg_querylens.sample_rate", "0.5")]).unwrap();
    Pgbench::initialise(&extended.server, "bench").unwrap();
    // Tables that are not logged are empty after a crash, and pgbench refuses them.
    let mut client = extended.server.client("bench").unwrap();
    for table in ["accounts", "branches", "tellers", "history"] {
        client.query(&format!("ALTER TABLE pgbench_{table} SET LOGGED")).unwrap();
    }
    drop(client);
    for round in 1..=5 {
        let load = load(&extended, 10);
        let busy = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' AND state = 'active' LIMIT 1";
        let victim = wait_for("the load", PATIENCE, || {
            let rows = extended.rows(busy)?;
            Ok(rows.into_iter().next().and_then(|mut row| row[0].take()))
        });
        std::thread::sleep(Duration::from_micros(137 * round));
        // SAFETY: a process of the server that this test has started.
        assert_eq!(unsafe { libc::kill(victim.unwrap().parse().unwrap(), libc::SIGKILL) }, 0);
        // Its sessions are gone with the server's processes.
        let _failed = load.finish();
        let recovered = || {
            let seen = extended.server.log().matches("all server processes terminated; reinitializing").count();
            Ok((seen == round as usize && extended.rows("SELECT count(*) FROM pg_class").is_ok()).then_some(()))
        };
        wait_for("the server to recover", PATIENCE, recovered).unwrap();
        let counted = "SELECT count(*) > 0 FROM querylens.plans WHERE plan_id <> 0 AND calls > 0";
        assert_eq!(extended.client().unwrap().value(counted).unwrap(), "t");
        assert_eq!(extended.info("internal_failures").unwrap(), 0);
    }
}

/// The postmaster dies under load; what was saved before is there when the server is started again, and nothing waits for ever.
fn death_of_the_postmaster(major: u32) {
    let mut extended = Extended::start(major, "'pg_querylens'", &[]).unwrap();
    Pgbench::initialise(&extended.server, "bench").unwrap();
    extended.rows("SELECT count(*) FROM pg_class").unwrap();
    extended.restart("'pg_querylens'", &[]).unwrap();
    let kept = "SELECT count(*) FROM querylens.plans";
    let before: u32 = extended.client().unwrap().value(kept).unwrap().parse().unwrap();
    assert!(before > 0);
    let load = load(&extended, 3);
    std::thread::sleep(Duration::from_millis(500));
    let pid = i32::try_from(extended.server.pid()).unwrap();
    // SAFETY: the postmaster that this test has started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    // Its children notice when they wait next.
    let _failed_or_finished = load.finish();
    let ended = extended.server.stop().unwrap();
    assert!(!ended.success());
    let started = || Ok(extended.start_again("'pg_querylens'", &[]).is_ok().then_some(()));
    wait_for("the last of its processes to end", PATIENCE, started).unwrap();
    assert_eq!(extended.info("state_file").unwrap(), 1);
    assert!(extended.client().unwrap().value(kept).unwrap().parse::<u32>().unwrap() >= before);
}
