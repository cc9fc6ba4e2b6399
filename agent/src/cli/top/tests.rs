//! Frames and tables as text, keys, and rates. Does not prove that a real terminal is restored: the end-to-end tests of the command do.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    app::{App, Next, Sort},
    draw,
    view::{StatementRow, View},
};
use crate::{
    health::status::Status,
    model::{
        AgentStats, Code, Digest, Engine, HumanDuration, Instance, InstanceSnapshot, Listen, ServerKey, SessionCounts,
        Snapshot, StatementSnapshot, StatementStats, WireState,
    },
};

fn statement(fingerprint: u64, text: &str, calls: u64, micros: u64, failed: u64) -> StatementSnapshot {
    let mut stats = StatementStats { rows_sent: calls, ..StatementStats::default() };
    (0..calls - failed).for_each(|_| stats.ok.record(Duration::from_micros(micros)));
    for _ in 0..failed {
        stats.failed.at(Some(Code::Sqlstate(*b"23505"))).record(Duration::from_micros(micros));
    }
    let summary = text.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let digest = Digest { fingerprint, text: text.into(), summary: summary.into(), operation: None, collection: None };
    StatementSnapshot {
        database: Some("shop".into()),
        user: Some("app\x1b[31m".into()),
        digest: Arc::new(digest),
        stats,
    }
}

fn instance(engine: Engine, port: u16, statements: Vec<StatementSnapshot>) -> InstanceSnapshot {
    let instance = Instance {
        key: ServerKey { pid: u32::from(port), start_ticks: 7 },
        engine,
        pooler: None,
        version: Some("15.18".into()),
        executable: "/usr/lib/postgresql/15/bin/postgres".into(),
        data_dir: None,
        uid: 111,
        listen: vec![Listen::Tcp(([127, 0, 0, 1], port).into())],
        container: None,
        service_instance_id: Uuid::from_u128(u128::from(port)),
    };
    InstanceSnapshot {
        instance: Arc::new(instance),
        wire: WireState { state: "visible", strategy: "boundary", reason: String::new() },
        transport: "tcp",
        sessions: SessionCounts { active: 2, idle: 5, ..SessionCounts::default() },
        connects: 7,
        connect_failures: Default::default(),
        transactions: Default::default(),
        outliers: Vec::new(),
        statements,
        losses: BTreeMap::new(),
    }
}

/// `scale` times the calls, `secs` after the start.
fn snapshot(secs: u64, scale: u64) -> Snapshot {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let long = format!("SELECT id, name FROM items WHERE {} id = $1", "price > $2 AND ".repeat(20));
    Snapshot {
        collected: Default::default(),
        at: start + Duration::from_secs(secs),
        start,
        instances: vec![
            instance(
                Engine::Postgresql,
                5432,
                vec![
                    statement(10, "INSERT INTO orders VALUES ($1, $2)", 100 * scale, 900, 5 * scale),
                    statement(11, &long, 10 * scale, 50_000, 0),
                    statement(12, "SELECT 1 \x1b]0;owned\x07", 1000 * scale, 40, 0),
                ],
            ),
            instance(Engine::Mysql, 3306, vec![statement(20, "UPDATE stock SET n = ?", 20 * scale, 2_000, 0)]),
        ],
        agent: AgentStats {
            cpu: Duration::from_millis(10 * secs),
            program_time: Some(Duration::from_millis(secs)),
            rss_bytes: 42 << 20,
            records: 5000 * scale,
            losses: BTreeMap::from([("ring_full_data", 3 * (scale - 1)), ("truncated", 0)]),
        },
        features: Vec::new(),
        measured: Arc::default(),
    }
}

fn view(before: Option<&Snapshot>, now: &Snapshot) -> Arc<View> {
    let status = |snapshot: &Snapshot| Status::new(snapshot, None);
    Arc::new(View::new(before.map(status).as_ref(), &status(now)))
}

/// The row of the statement with `fingerprint`.
fn row(view: &View, fingerprint: u64) -> &StatementRow {
    view.statements.iter().find(|row| row.key.fingerprint == format!("{fingerprint:016x}")).unwrap()
}

fn app() -> App {
    let mut app = App::default();
    app.update(view(None, &snapshot(10, 1)));
    app.update(view(Some(&snapshot(10, 1)), &snapshot(12, 2)));
    app
}

fn frame(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines: Vec<String> = (0..height)
        .map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned())
        .collect();
    lines.join("\n") + "\n"
}

fn press(app: &mut App, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            '←' => KeyCode::Left,
            '⇟' => KeyCode::PageDown,
            '⇱' => KeyCode::Home,
            '⇲' => KeyCode::End,
            key => KeyCode::Char(key),
        };
        assert_eq!(app.key(code.into()), Next::Continue);
    }
}

/// Compares with `expected/NAME.txt`; `UPDATE_EXPECT=1` rewrites it.
fn check(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/top/expected").join(name).with_extension("txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, expected, "{name}; if the new text is right, run again with UPDATE_EXPECT=1");
}

fn fingerprint(row: &StatementRow) -> u64 {
    u64::from_str_radix(&row.key.fingerprint, 16).unwrap()
}

/// Fingerprints in the order shown.
fn order(app: &App) -> Vec<u64> {
    app.statements().iter().map(|row| fingerprint(row)).collect()
}

fn selected(app: &App) -> u64 {
    let statements = app.statements();
    fingerprint(statements[app.statement_index(&statements).unwrap()])
}

#[test]
fn frames() {
    check("before_the_first_snapshot", &frame(&App::default(), 80, 12));
    let mut app = app();
    check("all_instances", &frame(&app, 120, 16));
    press(&mut app, "\t\n");
    check("detail", &frame(&app, 100, 24));
    press(&mut app, "\n/stock\n");
    check("filter_without_match", &frame(&app, 100, 12));
    press(&mut app, "\ts ");
    check("paused_summaries", &frame(&app, 100, 12));
    press(&mut app, "?");
    check("help", &frame(&app, 80, 30));
}

#[tokio::test]
async fn a_table_for_pipes() {
    let (sender, receiver) = watch::channel(Arc::new(snapshot(10, 1)));
    let args = super::Args { common: Default::default(), interval: HumanDuration::from_millis(100), plain: true };
    let mut out = Vec::new();
    let send = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        drop(sender);
    };
    let (code, ()) = tokio::join!(super::run(args, receiver, &mut out), send);
    assert_eq!(format!("{:?}", code.unwrap()), format!("{:?}", std::process::ExitCode::SUCCESS));
    check("plain", &String::from_utf8(out).unwrap());
}

/// `querylens top | head`: the end of the reader is the end of the command, not an error.
#[tokio::test]
async fn a_closed_pipe_ends_it() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_sender, receiver) = watch::channel(Arc::new(snapshot(10, 1)));
    let args = super::Args { common: Default::default(), interval: HumanDuration::from_millis(100), plain: true };
    super::run(args, receiver, &mut Closed).await.unwrap();
}

#[test]
fn any_size_of_terminal_is_drawn() {
    let mut app = app();
    for keys in ["", "\n", "?"] {
        press(&mut app, keys);
        for (width, height) in [(1, 1), (2, 40), (200, 1), (10, 5), (300, 100)] {
            frame(&app, width, height);
        }
    }
}

#[test]
fn nothing_steers_the_terminal() {
    let mut app = app();
    press(&mut app, "\n⇲");
    let shown = frame(&app, 200, 40);
    assert!(shown.contains("app\\u{1b}[31m") && shown.contains("\\u{1b}]0;owned\\u{7}"), "{shown}");
    assert!(!shown.chars().any(|character| character.is_control() && character != '\n'));
}

#[test]
fn rates_are_differences_over_real_time() {
    let first = view(None, &snapshot(10, 1));
    assert_eq!((first.instances[0].rate, row(&first, 10).rate, first.agent.cpu), (None, None, None));
    let view = view(Some(&snapshot(10, 1)), &snapshot(12, 2));
    assert_eq!(view.instances[0].rate, Some(555.0));
    assert_eq!(view.instances[0].errors, Some(2.5));
    assert_eq!(row(&view, 10).rate, Some(50.0));
    assert_eq!(view.agent.cpu, Some(0.01));
    assert_eq!(view.agent.programs, Some(0.001));
    assert_eq!(view.agent.records, Some(2500.0));
    assert_eq!(view.agent.losses, [("ring_full_data".to_owned(), 3, Some(1.5))]);
}

/// Scenario: the server restarts, or the agent forgets a statement; its counters begin anew.
/// Guarantees: what has happened since is shown, never a negative rate.
#[test]
fn counters_that_fall_count_from_zero() {
    let view = view(Some(&snapshot(10, 5)), &snapshot(12, 2));
    assert_eq!(view.instances[0].rate, Some(1110.0));
    assert_eq!(row(&view, 10).rate, Some(100.0));
    assert!(view.statements.iter().all(|row| row.rate.unwrap() >= 0.0));
    assert_eq!(view.agent.records, Some(5000.0));
}

#[test]
fn without_elapsed_time_there_is_no_rate() {
    for secs in [12, 10] {
        let view = view(Some(&snapshot(12, 1)), &snapshot(secs, 2));
        assert_eq!((view.instances[0].rate, row(&view, 10).rate, view.agent.records), (None, None, None));
    }
}

#[test]
fn what_is_new_has_a_rate_only_where_its_instance_was_known() {
    let mut before = snapshot(10, 1);
    before.instances.pop();
    before.instances[0].statements.remove(0);
    let view = view(Some(&before), &snapshot(12, 2));
    assert_eq!(row(&view, 10).rate, Some(100.0));
    assert_eq!(view.instances[1].rate, None);
    assert_eq!(row(&view, 20).rate, None);
}

#[test]
fn instances_with_one_label_are_told_apart() {
    let mut snapshot = snapshot(10, 1);
    let mut twin = snapshot.instances[0].clone();
    let mut other = (*twin.instance).clone();
    other.service_instance_id = Uuid::from_u128(99);
    twin.instance = Arc::new(other);
    snapshot.instances.push(twin);
    let view = view(None, &snapshot);
    let labels: Vec<&str> = view.instances.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(labels, ["postgresql:5432", "mysql:3306", "postgresql:5432#2"]);
    assert!(view.statements.iter().any(|row| row.instance == "postgresql:5432#2"));
}

#[test]
fn each_key_orders_by_its_column() {
    let mut app = app();
    for (key, sort, expected) in [
        ("c", Sort::Calls, [12, 10, 20, 11]),
        ("m", Sort::Mean, [11, 20, 10, 12]),
        ("p", Sort::P99, [11, 20, 10, 12]),
        ("e", Sort::Errors, [10, 20, 11, 12]),
        ("r", Sort::Rows, [12, 10, 20, 11]),
        ("t", Sort::TotalTime, [11, 10, 20, 12]),
    ] {
        press(&mut app, key);
        assert_eq!((app.sort, order(&app)), (sort, expected.to_vec()), "{key}");
    }
    // Equal rows keep their order; the same key again, or R, reverses.
    press(&mut app, "t");
    assert_eq!(order(&app), [20, 12, 10, 11]);
    press(&mut app, "R");
    assert_eq!(order(&app), [11, 10, 20, 12]);
}

#[test]
fn the_filter_is_typed_applied_and_cleared() {
    let mut app = app();
    press(&mut app, "/STq");
    assert!(app.typing);
    assert_eq!(order(&app), Vec::<u64>::new());
    press(&mut app, "\x08ock\n");
    assert_eq!((app.typing, order(&app)), (false, vec![20]));
    press(&mut app, "\x1b");
    assert_eq!(order(&app).len(), 4);
    press(&mut app, "/shop\x1b");
    assert_eq!((app.typing, app.filter.as_str()), (false, ""));
}

#[test]
fn instances_are_selected_in_a_circle() {
    let mut app = app();
    for expected in [Some("postgresql:5432"), Some("mysql:3306"), None] {
        press(&mut app, "\t");
        assert_eq!(app.instance().map(|row| row.label.as_str()), expected);
    }
    press(&mut app, "←");
    assert_eq!(order(&app), [20]);
    // The selected instance is gone: back to all of them.
    let mut rest = snapshot(14, 3);
    rest.instances.pop();
    app.update(view(None, &rest));
    assert_eq!((app.instance(), order(&app).len()), (None, 3));
}

#[test]
fn the_selected_statement_is_kept_while_the_order_changes() {
    let mut app = app();
    assert_eq!(selected(&app), 11);
    press(&mut app, "↓");
    assert_eq!(selected(&app), 10);
    press(&mut app, "c");
    assert_eq!((selected(&app), order(&app)[0]), (10, 12));
    press(&mut app, "⇲");
    assert_eq!(selected(&app), 11);
    press(&mut app, "⇱↑");
    assert_eq!(selected(&app), 12);
    press(&mut app, "⇟");
    assert_eq!(selected(&app), 11);
    // Opening the detail holds on to the first statement, even if another one overtakes it.
    let mut app = self::app();
    press(&mut app, "\nc");
    assert_eq!((selected(&app), order(&app)[0]), (11, 12));
}

#[test]
fn pausing_holds_the_newest_view_back() {
    let mut app = app();
    let calls = |app: &App| row(app.view(), 10).calls;
    press(&mut app, " ");
    app.update(view(None, &snapshot(14, 3)));
    app.update(view(None, &snapshot(16, 4)));
    assert_eq!((app.paused, calls(&app)), (true, 200));
    press(&mut app, " ");
    assert_eq!((app.paused, calls(&app)), (false, 400));
}

#[test]
fn escape_leaves_from_within() {
    let mut app = app();
    press(&mut app, "/o\n\n?");
    assert!(app.help && app.detail && app.filter == "o");
    press(&mut app, "\x1b");
    assert!(!app.help && app.detail);
    press(&mut app, "\x1b");
    assert!(!app.detail && app.filter == "o");
    press(&mut app, "\x1b");
    assert_eq!(app.filter, "");
}

#[test]
fn q_and_control_c_quit() {
    let mut app = app();
    assert_eq!(app.key(KeyCode::Char('q').into()), Next::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.key(control_c), Next::Quit);
    press(&mut app, "/");
    assert_eq!(app.key(control_c), Next::Quit);
}

#[test]
fn any_keys_in_any_order_are_safe() {
    use proptest::prelude::*;
    let key = prop::sample::select("tcmperRs /?h\n\t\x1b\x08↓↑←⇟⇱⇲xyz".chars().collect::<Vec<_>>());
    proptest!(ProptestConfig::with_cases(64), |(keys in prop::collection::vec(key, 0..40), scale in 1..4u64)| {
        let mut app = app();
        for key in keys {
            press(&mut app, &key.to_string());
            let mut now = snapshot(20, scale);
            now.instances.truncate(scale as usize - 1);
            app.update(view(None, &now));
            frame(&app, 60, 14);
        }
    });
}

#[tokio::test]
async fn the_source_gives_each_snapshot_once_and_ends_with_them() {
    let first = Arc::new(snapshot(10, 1));
    let (sender, receiver) = watch::channel(first.clone());
    let mut source = super::Source::new(receiver, Duration::from_millis(1));
    assert!(Arc::ptr_eq(&source.next().await.unwrap(), &first));
    assert!(tokio::time::timeout(Duration::from_millis(20), source.next()).await.is_err());
    let second = Arc::new(snapshot(12, 2));
    sender.send(second.clone()).unwrap();
    assert!(Arc::ptr_eq(&source.next().await.unwrap(), &second));
    drop(sender);
    assert!(source.next().await.is_none());
}
