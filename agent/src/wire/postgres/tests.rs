//! The machine as a whole, on streams written by hand and on those of a model server. Recorded streams are in tests/wire/postgres.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod loss;
mod model;
mod start;

use std::sync::Arc;

use super::*;
use crate::model::{Code, Kind, Statement, StatementText, Status, Text};

/// A message.
fn message(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"])
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"])
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"])
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"])
}

fn named(kind: u8, target: u8, name: &str) -> Vec<u8> {
    message(kind, &[&[target], name.as_bytes(), b"\0"])
}

fn sync() -> Vec<u8> {
    message(b'S', &[])
}

fn empty(kind: u8) -> Vec<u8> {
    message(kind, &[])
}

fn row() -> Vec<u8> {
    message(b'D', &[b"\0\x01\0\0\0\x01x"])
}

fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &[tag.as_bytes(), b"\0"])
}

fn failed(code: &str) -> Vec<u8> {
    message(b'E', &[b"SERROR\0VERROR\0C", code.as_bytes(), b"\0Mmade up\0\0"])
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[&[status]])
}

fn startup(parameters: &str) -> Vec<u8> {
    let len = 8 + parameters.len() as u32;
    [&len.to_be_bytes()[..], &(3u32 << 16).to_be_bytes(), parameters.as_bytes()].concat()
}

fn ssl_request() -> Vec<u8> {
    [8u32.to_be_bytes(), (1234u32 << 16 | 5679).to_be_bytes()].concat()
}

/// A connection: each read and write happens 10 ns after the one before.
#[derive(Default)]
struct Connection {
    machine: Postgres,
    now: u64,
    out: Vec<Event>,
}

impl Connection {
    /// A connection that is past its start-up at 20 ns; what that said is forgotten.
    fn ready() -> Connection {
        let mut connection = Connection::default();
        connection.send(&[startup("user\0tester\0database\0shop\0\0")]);
        connection.reply(&[message(b'R', &[b"\0\0\0\0"]), ready(b'I')]);
        assert_eq!(connection.take().len(), 1);
        connection
    }

    fn data(&mut self, direction: Direction, bytes: &[u8], missing: usize) {
        self.now += 10;
        self.machine.data(direction, Timestamp(self.now), bytes, bytes.len() + missing, &mut self.out);
    }

    fn send(&mut self, messages: &[Vec<u8>]) {
        self.data(Direction::Request, &messages.concat(), 0);
    }

    fn reply(&mut self, messages: &[Vec<u8>]) {
        self.data(Direction::Response, &messages.concat(), 0);
    }

    fn gap(&mut self) {
        self.machine.gap(Timestamp(self.now), &mut self.out);
    }

    fn close(&mut self) {
        self.now += 10;
        self.machine.close(Timestamp(self.now), &mut self.out);
    }

    /// What the machine said since the last call, one word or a few for each event.
    fn take(&mut self) -> Vec<String> {
        self.out.drain(..).map(|event| summary(&event)).collect()
    }

    fn take_statement(&mut self) -> Statement {
        match self.out.remove(0) {
            Event::Statement(statement) => statement,
            other => panic!("{other:?}"),
        }
    }
}

fn raw(statement: &Statement) -> Option<&str> {
    match &statement.text {
        Text::Known(text) => Some(str::from_utf8(text.raw()).unwrap()),
        Text::Unknown => Some("?"),
        Text::None => None,
    }
}

fn summary(event: &Event) -> String {
    match event {
        Event::Anomaly(anomaly) => anomaly.name().to_owned(),
        Event::Transaction(transaction) => {
            format!("{:?} {}..{}", transaction.outcome, transaction.start.0, transaction.end.0)
        }
        Event::Statement(statement) => {
            let mut line = format!("{:?} {}..{}", statement.kind, statement.start.0, statement.end.0);
            if statement.status != Status::Ok {
                line.push_str(&format!(" {:?}", statement.status));
            }
            if let Some(code) = statement.code {
                line.push_str(&format!(" {code}"));
            }
            if statement.estimated {
                line.push_str(" estimated");
            }
            if let Some(text) = raw(statement) {
                line.push_str(&format!(" {text}"));
            }
            line
        }
    }
}

#[test]
fn literals_do_not_show_in_debug() {
    let mut c = Connection::ready();
    let secret: Vec<String> = b"SECRET".iter().map(u8::to_string).collect();
    let hidden = |c: &Connection| {
        let debug = format!("{:?}", c.machine);
        !debug.contains("SECRET") && !debug.contains(&secret[..3].join(", "))
    };
    for byte in query("SELECT 'SECRET'").iter().chain(&parse("s", "SELECT 'SECRET'")) {
        c.data(Direction::Request, &[*byte], 0);
        assert!(hidden(&c), "{:?}", c.machine);
    }
    for byte in message(b'D', &[b"\0\x01\0\0\0\x06SECRET"]) {
        c.data(Direction::Response, &[byte], 0);
        assert!(hidden(&c), "{:?}", c.machine);
    }
}

#[test]
fn transactions_are_told_with_their_time_and_end() {
    let mut c = Connection::ready();
    assert_eq!(c.machine.info().started, Some(Timestamp(10)));
    for (text, tag, status) in [("BEGIN", "BEGIN", b'T'), ("SELECT 1", "SELECT 1", b'T'), ("COMMIT", "COMMIT", b'I')] {
        c.send(&[query(text)]);
        c.reply(&[complete(tag), ready(status)]);
    }
    let Some(Event::Transaction(transaction)) = c.out.pop() else { panic!("{:?}", c.out) };
    assert_eq!((transaction.start, transaction.end), (Timestamp(40), Timestamp(80)));
    assert_eq!((transaction.idle.as_nanos(), transaction.statements), (20, 2));
    c.take();

    // In one read with its COMMIT, and pipelined.
    let unit = |text| [parse("", text), bind("", ""), execute("")].concat();
    let reply = |tag| [empty(b'1'), empty(b'2'), complete(tag)].concat();
    c.send(&[unit("BEGIN"), sync(), unit("SELECT 1"), unit("ROLLBACK"), sync()]);
    c.reply(&[reply("BEGIN"), ready(b'T')]);
    c.reply(&[reply("SELECT 1"), reply("ROLLBACK"), ready(b'I')]);
    assert_eq!(c.take().pop().unwrap(), "RolledBack 100..110");

    c.send(&[query("BEGIN")]);
    c.reply(&[complete("BEGIN"), ready(b'T')]);
    c.close();
    assert_eq!(c.take().pop().unwrap(), "Abandoned 130..140");
}

#[test]
fn statements_of_one_query_share_its_time() {
    let mut c = Connection::ready();
    c.send(&[query("BEGIN; SELECT 'a;b';\nCOMMIT")]);
    assert_eq!(c.machine.state(), SessionState::Active);
    c.reply(&[complete("BEGIN"), row()]);
    c.reply(&[complete("SELECT 1")]);
    c.reply(&[complete("COMMIT"), ready(b'I')]);
    assert_eq!(
        c.take(),
        ["Simple 30..40 estimated BEGIN", "Simple 40..50 estimated SELECT 'a;b'", "Simple 50..60 COMMIT"]
    );
}

#[test]
fn pieces_that_the_server_saw_differently_are_not_handed_out() {
    let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END";
    let mut c = Connection::ready();
    c.send(&[query(body)]);
    c.reply(&[complete("CREATE FUNCTION"), ready(b'I')]);
    assert_eq!(c.take(), [format!("Simple 30..40 {body}")]);
    // More completions than pieces.
    c.send(&[query("a;b")]);
    c.reply(&[complete("X"), complete("X"), complete("X"), ready(b'I')]);
    assert_eq!(c.take(), ["Simple 50..60 estimated a;b", "Simple 60..60 estimated a;b", "Simple 60..60 estimated a;b"]);
}

#[test]
fn bytes_of_a_query_are_counted_once() {
    let mut c = Connection::ready();
    let request = query("SELECT 1; SELECT 22");
    let reply = [complete("SELECT 1"), complete("SELECT 1"), ready(b'I')];
    c.send(std::slice::from_ref(&request));
    c.reply(&reply);
    let (first, second) = (c.take_statement(), c.take_statement());
    assert_eq!(second.bytes_in, 9);
    assert_eq!(first.bytes_in + second.bytes_in, request.len() as u64);
    assert_eq!(first.bytes_out + second.bytes_out, reply.concat().len() as u64);
}

#[test]
fn long_texts_are_cut_but_measured() {
    let mut c = Connection::ready();
    let long = format!("SELECT '{}'", "x".repeat(100_000));
    for message in [query(&long), [parse("", &long), bind("", ""), execute(""), sync()].concat()] {
        message.chunks(8192).for_each(|chunk| c.data(Direction::Request, chunk, 0));
        let start = c.now;
        if message[0] == b'P' {
            c.reply(&[empty(b'1'), empty(b'2'), complete("SELECT 1"), ready(b'I')]);
        } else {
            c.reply(&[complete("SELECT 1"), ready(b'I')]);
        }
        let statement = c.take_statement();
        let Text::Known(text) = &statement.text else { panic!("no text") };
        assert_eq!(text.raw(), &long.as_bytes()[..frontend::MAX_TEXT]);
        assert!(text.truncated());
        assert_eq!((statement.start.0, statement.bytes_in), (start, message.len() as u64));
    }
}

#[test]
fn prepared_statements_carry_the_same_text() {
    let mut c = Connection::ready();
    c.send(&[parse("s1", "SELECT $1"), named(b'D', b'S', "s1"), sync()]);
    c.reply(&[empty(b'1'), message(b't', &[b"\0\0"]), empty(b'n'), ready(b'I')]);
    let mut texts: Vec<Arc<StatementText>> = Vec::new();
    for _ in 0..3 {
        c.send(&[bind("", "s1"), execute(""), sync()]);
        c.reply(&[empty(b'2'), row(), complete("SELECT 1"), ready(b'I')]);
    }
    for event in &c.out {
        let Event::Statement(Statement { text: Text::Known(text), .. }) = event else { panic!("{event:?}") };
        texts.push(text.clone());
    }
    assert!(texts.windows(2).all(|pair| Arc::ptr_eq(&pair[0], &pair[1])));
    assert_eq!(
        c.take(),
        [
            "Prepare 30..40 SELECT $1",
            "Execute 50..60 SELECT $1",
            "Execute 70..80 SELECT $1",
            "Execute 90..100 SELECT $1"
        ]
    );
    c.send(&[bind("", "elsewhere"), execute(""), sync()]);
    c.reply(&[empty(b'2'), complete("SELECT 0"), ready(b'I')]);
    assert_eq!(c.take(), ["Execute 110..120 ?"]);
}

#[test]
fn one_unit_is_one_execution_of_all_its_bytes() {
    let mut c = Connection::ready();
    let request = [parse("", "SELECT $1"), bind("", ""), named(b'D', b'P', ""), execute(""), sync()];
    let reply = [empty(b'1'), empty(b'2'), message(b'T', &[b"\0\0"]), row(), complete("SELECT 1"), ready(b'T')];
    c.send(&request);
    c.reply(&reply);
    let statement = c.take_statement();
    assert_eq!(statement.bytes_in, request.concat().len() as u64);
    assert_eq!(statement.bytes_out, reply.concat().len() as u64);
    assert_eq!(statement.rows_sent, Some(1));
    assert!(c.out.is_empty());
    assert_eq!(c.machine.state(), SessionState::IdleInTransaction);
}

#[test]
fn flush_brings_replies_and_ends_a_unit() {
    let mut c = Connection::ready();
    c.send(&[parse("a", "SELECT 1"), named(b'D', b'S', "a"), empty(b'H')]);
    c.reply(&[empty(b'1'), message(b't', &[b"\0\0"]), empty(b'n')]);
    assert_eq!(c.take(), ["Prepare 30..40 SELECT 1"]);
    c.send(&[bind("", "a"), execute(""), empty(b'H')]);
    c.reply(&[empty(b'2'), complete("SELECT 0")]);
    assert_eq!(c.take(), ["Execute 50..60 SELECT 1"]);
    c.send(&[sync()]);
    c.reply(&[ready(b'I')]);
    assert!(c.take().is_empty());
}

#[test]
fn pipelined_units_start_where_the_one_before_ended() {
    let mut c = Connection::ready();
    let unit = |text| [parse("", text), bind("", ""), execute(""), sync()].concat();
    c.send(&[unit("one"), unit("two"), unit("three")]);
    for tag in ["SELECT 1", "SELECT 2", "SELECT 3"] {
        c.reply(&[empty(b'1'), empty(b'2'), row(), complete(tag), ready(b'I')]);
    }
    assert_eq!(c.take(), ["Execute 30..40 one", "Execute 40..50 two", "Execute 50..60 three"]);
}

#[test]
fn replies_that_share_a_write_are_estimates() {
    let mut c = Connection::ready();
    let unit = |text| [parse("", text), bind("", ""), execute("")].concat();
    let reply = [empty(b'1'), empty(b'2'), complete("SELECT 0")].concat();
    c.send(&[unit("one"), unit("two"), unit("three"), sync()]);
    c.reply(&[reply.clone(), reply.clone()]);
    c.reply(&[reply, ready(b'I')]);
    assert_eq!(c.take(), ["Execute 30..40 estimated one", "Execute 40..40 estimated two", "Execute 40..50 three"]);
}

#[test]
fn an_error_drops_what_is_queued_up_to_the_sync() {
    let mut c = Connection::ready();
    let unit = |text| [parse("", text), bind("", ""), execute("")].concat();
    c.send(&[unit("good"), unit("bad"), unit("dropped"), sync(), unit("next"), sync()]);
    c.reply(&[empty(b'1'), empty(b'2'), complete("SELECT 0"), empty(b'1'), empty(b'2'), failed("22012")]);
    c.reply(&[ready(b'I')]);
    c.reply(&[empty(b'1'), empty(b'2'), complete("SELECT 0"), ready(b'I')]);
    assert_eq!(
        c.take(),
        ["Execute 30..40 estimated good", "Execute 40..40 Error 22012 estimated bad", "Execute 50..60 next"]
    );
    // The error comes before the sync was sent: what follows is skipped by the server until then.
    c.send(&[unit("bad"), empty(b'H')]);
    c.reply(&[failed("42601")]);
    c.send(&[unit("dropped"), query("dropped too")]);
    c.send(&[sync()]);
    c.reply(&[ready(b'I')]);
    c.send(&[query("SELECT 1")]);
    c.reply(&[complete("SELECT 1"), ready(b'I')]);
    assert_eq!(c.take(), ["Execute 70..80 Error 42601 bad", "Simple 120..130 SELECT 1"]);
}

#[test]
fn a_parse_that_was_skipped_defines_nothing() {
    let mut c = Connection::ready();
    c.send(&[parse("", "old"), sync()]);
    c.reply(&[empty(b'1'), ready(b'I')]);
    c.send(&[bind("", "missing"), execute(""), parse("", "new"), sync()]);
    c.reply(&[failed("26000"), ready(b'I')]);
    c.send(&[bind("", ""), execute(""), sync()]);
    c.reply(&[empty(b'2'), complete("SELECT 0"), ready(b'I')]);
    assert_eq!(c.take(), ["Prepare 30..40 old", "Execute 50..60 Error 26000 ?", "Execute 70..80 old"]);
}

#[test]
fn a_commit_that_fails_fails_its_statement() {
    let mut c = Connection::ready();
    c.send(&[parse("", "INSERT"), bind("", ""), execute(""), sync()]);
    c.reply(&[empty(b'1'), empty(b'2'), complete("INSERT 0 1")]);
    assert!(c.take().is_empty());
    c.reply(&[failed("23505"), ready(b'I')]);
    let statement = c.take_statement();
    assert_eq!((statement.status, statement.code), (Status::Error, Some(Code::Sqlstate(*b"23505"))));
    assert_eq!((statement.end, statement.rows_affected), (Timestamp(50), None));
    assert!(c.out.is_empty());
}

#[test]
fn fetches_are_summed_without_the_clients_time() {
    let mut c = Connection::ready();
    c.send(&[parse("", "SELECT many"), bind("c", ""), execute("c"), sync()]);
    c.reply(&[empty(b'1'), empty(b'2'), row(), row(), empty(b's'), ready(b'T')]);
    c.now += 1000;
    c.send(&[execute("c"), sync()]);
    c.reply(&[row()]);
    c.reply(&[row(), empty(b's'), ready(b'T')]);
    c.now += 1000;
    c.send(&[execute("c"), sync()]);
    c.reply(&[row(), complete("SELECT 1"), ready(b'T')]);
    let statement = c.take_statement();
    assert_eq!((statement.duration().as_nanos(), statement.end.0), (10 + 20 + 10, c.now));
    assert_eq!(statement.first_byte.unwrap().since(statement.start).as_nanos(), 10);
    assert_eq!(statement.rows_sent, Some(5));
    assert!(c.out.is_empty());

    // Never exhausted: it ends with the transaction, at its last fetch.
    c.send(&[parse("", "SELECT more"), bind("c", ""), execute("c"), sync()]);
    c.reply(&[empty(b'1'), empty(b'2'), row(), empty(b's'), ready(b'T')]);
    let end = c.now;
    assert!(c.out.is_empty());
    c.send(&[query("COMMIT")]);
    c.reply(&[complete("COMMIT"), ready(b'I')]);
    assert_eq!(raw(&c.take_statement()), Some("COMMIT"));
    let statement = c.take_statement();
    assert_eq!((raw(&statement), statement.end.0, statement.rows_sent), (Some("SELECT more"), end, Some(1)));
}

#[test]
fn copy_data_are_bytes_of_their_statement() {
    let mut c = Connection::ready();
    c.send(&[query("COPY t FROM STDIN")]);
    c.reply(&[message(b'G', &[b"\0\0\0"])]);
    c.send(&[message(b'd', &[b"1\n"]), message(b'd', &[b"2\n"])]);
    c.send(&[empty(b'c')]);
    c.reply(&[complete("COPY 2"), ready(b'I')]);
    let statement = c.take_statement();
    assert_eq!((statement.kind, statement.bytes_in), (Kind::Copy, 23 + 14 + 5));
    assert_eq!((statement.rows_affected, statement.rows_sent), (Some(2), None));

    c.send(&[query("COPY t TO STDOUT")]);
    c.reply(&[message(b'H', &[b"\0\0\0"]), message(b'd', &[b"1\n"]), message(b'd', &[b"2\n"]), empty(b'c')]);
    c.reply(&[complete("COPY 2"), ready(b'I')]);
    let statement = c.take_statement();
    assert_eq!((statement.kind, statement.rows_sent, statement.bytes_out), (Kind::Copy, Some(2), 8 + 14 + 5 + 12 + 6));
}

#[test]
fn a_sync_behind_copy_in_is_ignored_like_the_server_does() {
    let copy = [parse("", "COPY t FROM STDIN"), bind("", ""), execute(""), sync()].concat();
    let data = [message(b'd', &[b"1\n"]), empty(b'c'), sync()].concat();
    let asks = [empty(b'1'), empty(b'2'), message(b'G', &[b"\0\0\0"])];
    // The data wait for the server's answer, or do not.
    for waits in [true, false] {
        let mut c = Connection::ready();
        if waits {
            c.send(std::slice::from_ref(&copy));
            c.reply(&asks);
            c.send(std::slice::from_ref(&data));
        } else {
            c.send(&[copy.clone(), data.clone()]);
            c.reply(&asks);
        }
        c.reply(&[complete("COPY 1"), ready(b'I')]);
        let statement = c.take_statement();
        assert_eq!((statement.kind, statement.rows_affected), (Kind::Copy, Some(1)));
        assert_eq!(statement.bytes_in, (copy.len() + data.len()) as u64);
        assert_eq!(c.machine.state(), SessionState::Idle);
        c.send(&[query("SELECT 1")]);
        c.reply(&[complete("SELECT 1"), ready(b'I')]);
        assert_eq!(c.take().len(), 1);
    }
}

#[test]
fn a_failed_copy_in_ignores_the_rest_of_its_data() {
    let mut c = Connection::ready();
    c.send(&[query("COPY t FROM STDIN")]);
    c.reply(&[message(b'G', &[b"\0\0\0"])]);
    c.send(&[message(b'd', &[b"bad\n"])]);
    c.reply(&[failed("22P02"), ready(b'I')]);
    c.send(&[message(b'd', &[b"more\n"]), empty(b'c')]);
    c.send(&[query("SELECT 1")]);
    c.reply(&[complete("SELECT 1"), ready(b'I')]);
    assert_eq!(c.take(), ["Copy 30..60 Error 22P02 COPY t FROM STDIN", "Simple 80..90 SELECT 1"]);
}

#[test]
fn function_calls_are_utilities() {
    let mut c = Connection::ready();
    let call = message(b'F', &[b"\0\0\0\x01\0\0\0\0\0\0"]);
    c.send(std::slice::from_ref(&call));
    c.reply(&[message(b'V', &[b"\xff\xff\xff\xff"]), ready(b'I')]);
    c.send(&[call]);
    c.reply(&[failed("42883"), ready(b'I')]);
    assert_eq!(c.take(), ["Utility 30..40", "Utility 50..60 Error 42883"]);
}

#[test]
fn asides_may_come_any_time() {
    let mut c = Connection::ready();
    let notice = message(b'N', &[b"SNOTICE\0\0"]);
    let notification = message(b'A', &[b"\0\0\0\x01chan\0payload\0"]);
    let parameter = message(b'S', &[b"TimeZone\0UTC\0"]);
    c.reply(&[notice.clone(), notification.clone(), parameter.clone()]);
    c.send(&[query("SELECT 1")]);
    c.reply(&[notice.clone(), row(), parameter.clone()]);
    c.reply(&[notification.clone(), complete("SELECT 1"), notice.clone(), parameter, ready(b'E')]);
    c.reply(&[notification]);
    let statement = c.take_statement();
    assert_eq!((statement.first_byte, statement.end), (Some(Timestamp(50)), Timestamp(60)));
    assert!(c.out.is_empty());
    assert_eq!(c.machine.state(), SessionState::IdleInFailedTransaction);
    c.reply(&[failed("57P01")]);
    c.close();
    assert_eq!(c.take(), ["Abandoned 60..90"], "the server ended an idle session: no statement failed");
}

#[test]
fn what_runs_when_the_connection_ends_is_incomplete() {
    let mut c = Connection::ready();
    c.send(&[query("SELECT slow")]);
    c.close();
    assert_eq!(c.take(), ["Simple 30..40 Incomplete SELECT slow"]);

    let mut c = Connection::ready();
    c.send(&[parse("", "one"), bind("", ""), execute(""), parse("", "two"), bind("", ""), execute(""), sync()]);
    c.reply(&[empty(b'1'), empty(b'2'), row()]);
    c.close();
    assert_eq!(c.take(), ["Execute 30..50 Incomplete one"], "the second one never began");

    let mut c = Connection::ready();
    c.send(&[query("SELECT 1; SELECT slow")]);
    c.reply(&[complete("SELECT 1")]);
    c.close();
    assert_eq!(c.take(), ["Simple 30..40 SELECT 1", "Simple 40..50 Incomplete SELECT slow"]);
}

#[test]
fn commands_of_sql_change_names_too() {
    for (command, tag, kept) in [
        ("DEALLOCATE s", "DEALLOCATE", false),
        ("DEALLOCATE other", "DEALLOCATE", true),
        ("SELECT 1; DEALLOCATE s", "DEALLOCATE", false),
        ("DEALLOCATE ALL", "DEALLOCATE ALL", false),
        ("DISCARD ALL", "DISCARD ALL", false),
        ("PREPARE s AS SELECT 2", "PREPARE", false),
        ("PREPARE t AS SELECT 2", "PREPARE", true),
    ] {
        let mut c = Connection::ready();
        c.send(&[parse("s", "SELECT 1"), sync()]);
        c.reply(&[empty(b'1'), ready(b'I')]);
        c.send(&[query(command)]);
        if command.contains(';') {
            c.reply(&[complete("SELECT 1"), complete(tag), ready(b'I')]);
        } else {
            c.reply(&[complete(tag), ready(b'I')]);
        }
        c.send(&[bind("", "s"), execute(""), sync()]);
        c.reply(&[empty(b'2'), complete("SELECT 1"), ready(b'I')]);
        let last = c.take().pop().unwrap();
        assert_eq!(last, format!("Execute 70..80 {}", if kept { "SELECT 1" } else { "?" }), "{command}");
    }
}

#[test]
fn a_flood_of_requests_is_bounded_and_counted() {
    let mut c = Connection::ready();
    for _ in 0..20_000 {
        c.send(&[sync()]);
    }
    assert_eq!(c.take(), ["evicted", "desynchronised"]);

    let mut c = Connection::ready();
    let long = "x".repeat(frontend::MAX_TEXT);
    for _ in 0..100 {
        c.send(&[query(&long)]);
    }
    for _ in 0..100 {
        c.reply(&[complete("SELECT 1"), ready(b'I')]);
    }
    let (mut known, mut unknown, mut evicted) = (0, 0, 0);
    for event in c.out.drain(..) {
        match event {
            Event::Statement(Statement { text: Text::Known(_), .. }) => known += 1,
            Event::Statement(_) => unknown += 1,
            Event::Anomaly(Anomaly::Evicted) => evicted += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((known, unknown, evicted), (64, 36, 36), "all are timed, the text of the first MiB is kept");
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Postgres>() <= 1024, "{} bytes", size_of::<Postgres>());
}
