//! The aggregation over real protocol bytes, made here: PostgreSQL sessions that start, query and end.

#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::model::{Code, Ending, Engine, ServerKey, SessionCounts, Signal, StatementSnapshot, Subject};

const SLOT: u32 = 3;
const SERVER: u32 = 100;

fn instance() -> Arc<Instance> {
    Arc::new(Instance {
        key: ServerKey { pid: SERVER, start_ticks: 1 },
        engine: Engine::Postgresql,
        pooler: None,
        version: None,
        executable: PathBuf::from("/bin/postgres"),
        data_dir: None,
        uid: 0,
        listen: Vec::new(),
        container: None,
        service_instance_id: uuid::Uuid::nil(),
    })
}

fn visible() -> WireState {
    WireState { state: "visible", strategy: "socket", reason: String::new() }
}

/// A connection whose records are numbered as the kernel does it.
struct Client {
    conn: u64,
    process: u32,
    seq: u32,
    at: u64,
}

impl Client {
    fn new(number: u32) -> Client {
        Client { conn: u64::from(number) + 1000, process: number, seq: 0, at: 0 }
    }

    fn send(&mut self, to: &mut Aggregator, direction: Direction, bytes: &[u8]) -> Vec<Advice> {
        self.at += 1_000_000;
        let (slot, seq, at) = (SLOT, self.seq, Timestamp(self.at));
        self.seq += 1;
        let chunk = Chunk {
            slot,
            conn: self.conn,
            process: self.process,
            family: 2,
            direction,
            at,
            seq,
            session: self.process,
            group: u64::from(SLOT),
            counted: false,
            sampled: false,
            request: None,
        };
        to.data(&chunk, [(bytes, bytes.len())]);
        to.advice().collect()
    }

    fn start(&mut self, to: &mut Aggregator, user: &str, database: &str) {
        let body = format!("user\0{user}\0database\0{database}\0\0");
        let mut packet = (body.len() as u32 + 8).to_be_bytes().to_vec();
        packet.extend(196_608u32.to_be_bytes());
        packet.extend(body.as_bytes());
        self.send(to, Direction::Request, &packet);
        self.send(to, Direction::Response, &[&message(b'R', &[0; 4])[..], &ready()].concat());
    }

    fn query(&mut self, to: &mut Aggregator, text: &str) {
        self.send(to, Direction::Request, &message(b'Q', format!("{text}\0").as_bytes()));
        self.send(to, Direction::Response, &[&message(b'C', b"SELECT 1\0")[..], &ready()].concat());
    }
}

fn no_hash(_: Engine, _: &[u8]) -> Option<u64> {
    None
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn aggregator(max_statements: usize, max_sessions: usize) -> Aggregator {
    let mut aggregator = Aggregator::new(Config { max_statements, max_sessions }, no_hash);
    aggregator.add(SLOT, instance(), visible());
    aggregator
}

fn only(aggregator: &Aggregator) -> InstanceSnapshot {
    let sessions: Vec<_> = aggregator.connections.iter().map(|(conn, c)| (c.slot, *conn, None)).collect();
    let mut snapshots = aggregator.snapshot(&sessions);
    assert_eq!(snapshots.len(), 1);
    snapshots.remove(0)
}

/// (database, user, text, executions), sorted.
fn rows(aggregator: &Aggregator) -> Vec<(String, String, String, u64)> {
    let text = |name: &Option<Arc<str>>| name.as_deref().unwrap_or("-").to_owned();
    let row = |row: &StatementSnapshot| {
        (text(&row.database), text(&row.user), row.digest.text.to_string(), row.stats.executions())
    };
    let mut rows: Vec<_> = only(aggregator).statements.iter().map(row).collect();
    rows.sort();
    rows
}

fn expect(aggregator: &Aggregator, expected: &[(&str, &str, &str, u64)]) {
    let owned = |(d, u, t, n): &(&str, &str, &str, u64)| ((*d).to_owned(), (*u).to_owned(), (*t).to_owned(), *n);
    assert_eq!(rows(aggregator), expected.iter().map(owned).collect::<Vec<_>>());
}

#[test]
fn statements_are_counted_by_database_user_and_fingerprint() {
    let mut aggregator = aggregator(100, 100);
    let (mut first, mut second) = (Client::new(1), Client::new(2));
    first.start(&mut aggregator, "app", "shop");
    second.start(&mut aggregator, "report", "shop");
    for number in 0..5 {
        first.query(&mut aggregator, &format!("SELECT {number}"));
    }
    second.query(&mut aggregator, "select 'secret'");
    expect(&aggregator, &[("shop", "app", "select ?", 5), ("shop", "report", "select ?", 1)]);
    let snapshot = only(&aggregator);
    assert_eq!((snapshot.connects, snapshot.transport), (2, "tcp"));
    assert_eq!(snapshot.sessions, SessionCounts { idle: 2, ..SessionCounts::default() });
    assert!(snapshot.losses.is_empty());
}

#[test]
fn beyond_the_bound_on_statements_everything_is_counted_in_one_row() {
    let mut aggregator = aggregator(2, 100);
    let mut client = Client::new(1);
    client.start(&mut aggregator, "app", "shop");
    for table in ["a", "b", "c", "d", "c", "a"] {
        client.query(&mut aggregator, &format!("select * from {table}"));
    }
    expect(
        &aggregator,
        &[("-", "-", "_other", 3), ("shop", "app", "select * from a", 2), ("shop", "app", "select * from b", 1)],
    );
}

#[test]
fn users_beyond_the_bound_are_counted_together_too() {
    let mut aggregator = aggregator(1, 100);
    for number in 1..=3 {
        let mut client = Client::new(number);
        client.start(&mut aggregator, &format!("user{number}"), "shop");
        client.query(&mut aggregator, "select 1");
    }
    expect(&aggregator, &[("-", "-", "_other", 2), ("shop", "user1", "select ?", 1)]);
}

#[test]
fn sessions_beyond_the_bound_are_counted_as_lost() {
    let mut aggregator = aggregator(100, 1);
    let (mut first, mut second) = (Client::new(1), Client::new(2));
    first.start(&mut aggregator, "app", "shop");
    second.start(&mut aggregator, "app", "shop");
    assert_eq!(only(&aggregator).losses["sessions_full"], 2);
    // The end of one makes room for another.
    aggregator.exit(1, Timestamp(1));
    let mut third = Client::new(3);
    third.start(&mut aggregator, "app", "shop");
    third.query(&mut aggregator, "select 1");
    expect(&aggregator, &[("shop", "app", "select ?", 1)]);
}

#[test]
fn missing_records_are_counted_and_never_become_a_statement() {
    let mut aggregator = aggregator(100, 100);
    let mut client = Client::new(1);
    client.start(&mut aggregator, "app", "shop");
    client.send(&mut aggregator, Direction::Request, &message(b'Q', b"select 1\0"));
    // Lost: the answer, and the next question.
    client.seq += 2;
    client.send(&mut aggregator, Direction::Response, &[&message(b'C', b"SELECT 1\0")[..], &ready()].concat());
    client.query(&mut aggregator, "select * from found_again");
    let losses = only(&aggregator).losses;
    assert_eq!((losses["records_missing"], losses["desynchronised"], losses["resynchronised"]), (2, 1, 1));
    expect(&aggregator, &[("shop", "app", "select * from found_again", 1)]);
}

#[test]
fn a_session_that_is_older_than_the_agent_is_named_by_other_evidence() {
    let mut aggregator = aggregator(100, 100);
    aggregator.serves(7, "app".into(), "shop".into());
    for number in [7, 8] {
        let mut client = Client::new(number);
        client.query(&mut aggregator, "select 1");
        client.query(&mut aggregator, "select 1");
    }
    expect(&aggregator, &[("-", "-", "select ?", 2), ("shop", "app", "select ?", 2)]);
    // Evidence may also come after the first record.
    aggregator.serves(8, "app".into(), "other".into());
    let mut client = Client { seq: 4, ..Client::new(8) };
    client.query(&mut aggregator, "select 1");
    assert_eq!(rows(&aggregator)[1], ("other".into(), "app".into(), "select ?".into(), 1));
}

#[test]
fn a_change_of_strategy_takes_sessions_up_anew_and_keeps_the_counts() {
    let mut aggregator = aggregator(100, 100);
    let mut client = Client::new(1);
    client.start(&mut aggregator, "app", "shop");
    client.query(&mut aggregator, "select 1");
    aggregator.rewire(SLOT, WireState { strategy: "boundary", ..visible() });
    assert_eq!(only(&aggregator).sessions, SessionCounts::default());
    client.query(&mut aggregator, "select 1");
    client.query(&mut aggregator, "select 1");
    expect(&aggregator, &[("shop", "app", "select ?", 3)]);
    assert_eq!(only(&aggregator).wire.strategy, "boundary");
}

#[test]
fn encryption_asks_for_the_boundary() {
    let mut aggregator = aggregator(100, 100);
    let mut client = Client::new(1);
    let ssl_request = [&8u32.to_be_bytes()[..], &80_877_103u32.to_be_bytes()].concat();
    client.send(&mut aggregator, Direction::Request, &ssl_request);
    client.send(&mut aggregator, Direction::Response, b"S");
    // A TLS ClientHello (RFC 8446 §4.1.2): handshake record, version 3.1.
    let hello = [&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[7; 194]].concat();
    let mut advice = client.send(&mut aggregator, Direction::Request, &hello);
    let answer = [&[22, 3, 3, 0, 100, 2, 0, 0, 96, 3, 3][..], &[9; 94]].concat();
    advice.extend(client.send(&mut aggregator, Direction::Response, &answer));
    assert!(matches!(advice[..], [Advice::SeekBoundary(SLOT)]), "{advice:?}");
    assert_eq!(only(&aggregator).sessions.opaque, 1);
}

#[test]
fn sockets_that_are_gone_end_their_sessions() {
    let mut aggregator = aggregator(100, 100);
    for number in 1..=3 {
        Client::new(number).start(&mut aggregator, "app", "shop");
    }
    aggregator.reconcile(SLOT, &HashSet::from([1002]), Timestamp(1));
    assert_eq!(only(&aggregator).sessions.idle, 1);
    aggregator.close(1002, Timestamp(2), false);
    assert_eq!(only(&aggregator).sessions, SessionCounts::default());
    assert!(aggregator.remove(SLOT).is_some());
    assert!(aggregator.snapshot(&[]).is_empty());
}

/// What the kernel counted under `hash` for sessions of `group`: one execution of a millisecond.
fn counted(aggregator: &mut Aggregator, group: u64, subject: Subject, ending: Ending) {
    let millisecond = Duration::from_millis(1);
    let bucket = agent_ebpf::histogram::bucket(1_000_000);
    aggregator.counted(&Counted {
        slot: SLOT,
        group,
        subject,
        ending,
        buckets: &[(bucket, 1)],
        total: millisecond,
        range: (millisecond, millisecond),
        first_byte: millisecond,
        rows_sent: 1,
        rows_affected: 0,
        bytes_in: 30,
        bytes_out: 40,
    });
}

/// A session whose exchanges the kernel counts: its records say so.
struct Counting(Client);

impl Counting {
    const GROUP: u64 = 1 << 63 | 5;

    fn query(&mut self, to: &mut Aggregator, hash: u64, text: &str) -> Vec<Advice> {
        self.shown(to, hash, text, false)
    }

    /// A query that the kernel counts and shows, by chance alone if it is `sampled`.
    fn shown(&mut self, to: &mut Aggregator, hash: u64, text: &str, sampled: bool) -> Vec<Advice> {
        let Client { conn, process, .. } = self.0;
        let chunk = |client: &mut Client, direction, counted, request| {
            client.at += 1_000_000;
            client.seq += 1;
            let (at, seq) = (Timestamp(client.at), client.seq - 1);
            Chunk {
                slot: SLOT,
                conn,
                process,
                family: 2,
                direction,
                at,
                seq,
                session: 9,
                group: Counting::GROUP,
                counted,
                sampled: counted && sampled,
                request,
            }
        };
        let request = message(b'Q', format!("{text}\0").as_bytes());
        let executes = Some(Request::Executes { hash, row: 3 });
        to.data(&chunk(&mut self.0, Direction::Request, false, executes), [(&request[..], request.len())]);
        let response = [&message(b'C', b"SELECT 1\0")[..], &ready()].concat();
        to.data(&chunk(&mut self.0, Direction::Response, true, None), [(&response[..], response.len())]);
        to.advice().collect()
    }
}

#[test]
fn what_the_kernel_counts_gets_its_text_and_names_from_one_record() {
    let mut aggregator = aggregator(100, 100);
    let mut client = Client::new(1);
    client.start(&mut aggregator, "app", "shop");
    let mut client = Counting(client);
    counted(&mut aggregator, Counting::GROUP, Subject::Text(77), Ending::Ok);
    expect(&aggregator, &[]);
    let advice = client.query(&mut aggregator, 77, "select 5");
    let instruct = |advice: &Advice| matches!(advice, Advice::Instruct { row: 3, hash: 77, policy: Policy::Count });
    assert!(advice.iter().any(instruct), "{advice:?}");
    counted(&mut aggregator, Counting::GROUP, Subject::Text(77), Ending::Ok);
    counted(&mut aggregator, Counting::GROUP, Subject::Text(77), Ending::Failed(Some(Code::Sqlstate(*b"57014"))));
    // The recorded execution is among those that the kernel counted.
    aggregator.resolve();
    expect(&aggregator, &[("shop", "app", "select ?", 3)]);
    let snapshot = only(&aggregator);
    assert_eq!((snapshot.errors(), snapshot.statements[0].stats.rows_sent), (1, 3));
}

/// Scenario: the kernel counts a statement's executions, shows one in 64 by chance, and one that failed by its numbers.
/// Guarantees: what is shown by chance stands for 64, what is shown for another reason for itself; texts and names are there; nothing is kept for nobody.
#[test]
fn executions_that_are_seen_become_examples_with_their_weight() {
    let mut aggregator = aggregator(100, 100);
    let mut client = Client::new(1);
    client.start(&mut aggregator, "app", "shop");
    let mut client = Counting(client);
    client.query(&mut aggregator, 77, "select 4");
    assert!(aggregator.take_examples().is_empty());
    aggregator.keep_examples(64);
    client.query(&mut aggregator, 77, "select 5");
    client.shown(&mut aggregator, 77, "select 6", true);
    let outlier = RawOutlier {
        conn: 1001,
        process: 1,
        group: Counting::GROUP,
        hash: 77,
        begin: Timestamp(5),
        end: Timestamp(1_000_005),
        ending: Ending::Failed(Some(Code::Sqlstate(*b"57014"))),
        rows: 0,
    };
    aggregator.outlier(SLOT, &outlier);
    let shown = aggregator.take_examples();
    let mut weights = Vec::new();
    for record in &shown {
        let Signal::Execution(execution) = &record.signal else { panic!("{record:?}") };
        assert_eq!(&*execution.digest.text, "select ?");
        assert_eq!((record.origin.database.as_deref(), record.origin.user.as_deref()), (Some("shop"), Some("app")));
        assert_eq!(execution.session.map(|session| (session.connection, session.process)), Some((1001, 1)));
        assert_eq!(execution.duration, Duration::from_millis(1));
        weights.push((execution.sampling.weight, execution.ending == Ending::Ok));
    }
    assert_eq!(weights, [(1.0, true), (64.0, true), (1.0, false)]);
    assert!(aggregator.take_examples().is_empty());
}

#[test]
fn what_changes_the_session_is_always_recorded() {
    let mut aggregator = aggregator(100, 100);
    let mut client = Client::new(1);
    client.start(&mut aggregator, "app", "shop");
    let mut client = Counting(client);
    for (text, policy) in [
        ("set session authorization bob", Policy::Record),
        ("set statement_timeout = 5", Policy::Count),
        ("deallocate all", Policy::Record),
        ("update t set a = 1", Policy::Count),
    ] {
        let hash = text.len() as u64;
        let advice = client.query(&mut aggregator, hash, text);
        let found = advice.iter().find_map(|advice| match advice {
            Advice::Instruct { policy, .. } => Some(*policy),
            _ => None,
        });
        assert_eq!(found, Some(policy), "{text}");
    }
}

#[test]
fn a_count_whose_text_never_comes_is_unknown_in_the_end() {
    let mut aggregator = aggregator(100, 100);
    counted(&mut aggregator, u64::from(SLOT), Subject::Text(78), Ending::Ok);
    counted(&mut aggregator, u64::from(SLOT), Subject::UnknownText, Ending::Ok);
    counted(&mut aggregator, u64::from(SLOT), Subject::Other, Ending::Ok);
    counted(&mut aggregator, u64::from(SLOT), Subject::Transaction { rolled_back: true }, Ending::Ok);
    expect(&aggregator, &[("-", "-", "<unknown>", 1), ("-", "-", "_other", 1)]);
    aggregator.settle(true);
    expect(&aggregator, &[("-", "-", "<unknown>", 2), ("-", "-", "_other", 1)]);
    assert_eq!(only(&aggregator).transactions.rolled_back.count(), 1);
}

#[test]
fn a_session_whose_names_change_is_moved_to_their_group() {
    let mut aggregator = aggregator(100, 100);
    let mut first = Client::new(1);
    first.start(&mut aggregator, "app", "shop");
    let mut first = Counting(first);
    first.query(&mut aggregator, 77, "select 5");
    // The same packet, as far as the kernel's hash can tell, but another user by now.
    let mut second = Client::new(2);
    second.start(&mut aggregator, "bob", "shop");
    let mut second = Counting(second);
    let advice = second.query(&mut aggregator, 77, "select 5");
    let group = advice.iter().find_map(|advice| match advice {
        Advice::Regroup { session: 9, conn: 1002, group } => Some(*group),
        _ => None,
    });
    counted(&mut aggregator, group.unwrap(), Subject::Text(77), Ending::Ok);
    expect(&aggregator, &[("shop", "bob", "select ?", 1)]);
}
