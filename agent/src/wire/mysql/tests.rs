//! What recorded sessions (tests/wire) do not show: sizes, bounds, holes, and what a server never sends.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod compression;
mod recognition;
mod transactions;

use std::sync::Arc;

use super::{
    commands::{MAX_QUEUED, MAX_QUEUED_BYTES},
    prepared::Prepared,
    protocol::capability,
    *,
};
use crate::{
    model::{Code, Kind, Statement, Status, Text, Transaction},
    wire::Anomaly,
};

const CONTINUED: usize = packet::CONTINUED as usize;
const DEPRECATE: u64 = capability::DEPRECATE_EOF;

/// One physical packet.
fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(sequence);
    bytes.extend_from_slice(payload);
    bytes
}

/// Payloads as packets with sequence ids from `sequence` on.
fn packets(sequence: u8, payloads: &[&[u8]]) -> Vec<u8> {
    payloads.iter().zip(0u32..).flat_map(|(payload, at)| packet(sequence.wrapping_add(at as u8), payload)).collect()
}

fn query(text: &str) -> Vec<u8> {
    packet(0, &[&[0x03], text.as_bytes()].concat())
}

fn ok(affected: u8, status: u16) -> Vec<u8> {
    vec![0, affected, 0, status as u8, (status >> 8) as u8, 0, 0]
}

const DEFINITION: &[u8] = b"\x03def definition";

/// A machine, the time, and what it said.
struct Session {
    machine: Mysql,
    now: u64,
    events: Vec<Event>,
}

impl Session {
    /// A session joined late.
    fn joined() -> Session {
        Session { machine: Mysql::default(), now: 0, events: Vec::new() }
    }

    /// A session whose user is let in, with `capabilities` besides protocol 4.1.
    fn started(capabilities: u64) -> Session {
        let mut session = Session::joined();
        session.response(&packet(0, &greeting("9.0.0", u64::MAX)));
        session.request(&packet(1, &answer(capabilities | capability::PROTOCOL_41 | capability::MYSQL)));
        session.response(&packet(2, &ok(0, 2)));
        assert_eq!(session.statements().len(), 1);
        session.events.clear();
        session
    }

    fn data(&mut self, direction: Direction, bytes: &[u8], missing: usize) {
        self.now += 10;
        self.machine.data(direction, Timestamp(self.now), bytes, bytes.len() + missing, &mut self.events);
    }

    fn request(&mut self, bytes: &[u8]) {
        self.data(Direction::Request, bytes, 0);
    }

    fn response(&mut self, bytes: &[u8]) {
        self.data(Direction::Response, bytes, 0);
    }

    fn gap(&mut self) {
        self.machine.gap(Timestamp(self.now), &mut self.events);
    }

    fn close(&mut self) {
        self.machine.close(Timestamp(self.now), &mut self.events);
    }

    fn statements(&self) -> Vec<&Statement> {
        self.events
            .iter()
            .filter_map(|event| if let Event::Statement(statement) = event { Some(statement) } else { None })
            .collect()
    }

    fn texts(&self) -> Vec<String> {
        let text = |statement: &&Statement| match &statement.text {
            Text::Known(text) => String::from_utf8_lossy(text.raw()).into_owned(),
            Text::Unknown => "?".to_owned(),
            Text::None => "-".to_owned(),
        };
        self.statements().iter().map(text).collect()
    }

    fn transactions(&self) -> Vec<Transaction> {
        self.events
            .iter()
            .filter_map(|event| if let Event::Transaction(transaction) = event { Some(*transaction) } else { None })
            .collect()
    }

    fn anomalies(&self) -> Vec<Anomaly> {
        self.events
            .iter()
            .filter_map(|event| if let Event::Anomaly(anomaly) = event { Some(*anomaly) } else { None })
            .collect()
    }
}

fn greeting(version: &str, capabilities: u64) -> Vec<u8> {
    let caps = capabilities.to_le_bytes();
    let mut bytes = vec![10];
    bytes.extend_from_slice(version.as_bytes());
    bytes.extend_from_slice(b"\0\x07\0\0\0challeng\0");
    bytes.extend_from_slice(&caps[..2]);
    bytes.extend_from_slice(&[0xff, 2, 0]);
    bytes.extend_from_slice(&caps[2..4]);
    bytes.extend_from_slice(&[21, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&caps[4..]);
    bytes.extend_from_slice(b"challenge...\0");
    bytes
}

fn answer(capabilities: u64) -> Vec<u8> {
    let mut bytes = (capabilities as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[0; 24]);
    bytes.extend_from_slice(&((capabilities >> 32) as u32).to_le_bytes());
    bytes.extend_from_slice(b"alice\0\0shop\0");
    bytes
}

#[test]
fn a_payload_of_several_packets_is_one_command() {
    let mut session = Session::started(DEPRECATE);
    let text = format!("select '{}'", "x".repeat(CONTINUED + 100));
    let payload = [b"\x03", text.as_bytes()].concat();
    let (first, second) = payload.split_at(CONTINUED);
    session.request(&packet(0, first));
    session.request(&packet(1, second));
    session.response(&packet(2, &ok(1, 2)));
    let statements = session.statements();
    let [statement] = statements.as_slice() else { panic!("{} statements", statements.len()) };
    let Text::Known(known) = &statement.text else { panic!("no text") };
    assert_eq!(known.raw(), &text.as_bytes()[..command::MAX_TEXT]);
    assert!(known.truncated());
    assert_eq!(statement.bytes_in, payload.len() as u64 + 8);
    assert_eq!(statement.start, Timestamp(50), "the time of the last byte");
}

#[test]
fn a_row_of_several_packets_is_one_row() {
    let mut session = Session::started(DEPRECATE);
    session.request(&query("select huge"));
    session.response(&packets(1, &[&[1], DEFINITION]));
    // The first value is so long that the row begins like an EOF packet.
    let mut row = vec![0xfe];
    row.extend_from_slice(&(CONTINUED as u64).to_le_bytes());
    row.resize(CONTINUED + 9, b'x');
    session.response(&packet(3, &row[..CONTINUED]));
    session.response(&packet(4, &row[CONTINUED..]));
    session.response(&packet(5, &[0xfe, 0, 0, 2, 0, 0, 0]));
    assert_eq!(session.statements()[0].rows_sent, Some(1));
}

#[test]
fn a_payload_of_exactly_one_full_packet_ends_with_an_empty_one() {
    let mut session = Session::started(DEPRECATE);
    let mut payload = vec![b' '; CONTINUED];
    payload[..7].copy_from_slice(b"\x03select");
    session.request(&packet(0, &payload));
    session.request(&packet(1, &[]));
    session.response(&packet(2, &ok(0, 2)));
    assert_eq!(session.statements().len(), 1);
}

#[test]
fn a_hole_within_a_body_keeps_the_place_and_marks_the_text() {
    let mut session = Session::started(DEPRECATE);
    let request = query("insert into t values (1), (2), (3)");
    session.data(Direction::Request, &request[..15], request.len() - 15);
    session.response(&packet(1, &ok(3, 2)));
    assert_eq!(session.texts(), ["insert int"]);
    let Text::Known(text) = &session.statements()[0].text else { panic!("no text") };
    assert!(text.truncated());
    assert!(session.anomalies().is_empty());
}

#[test]
fn bytes_behind_a_hole_are_not_part_of_the_text() {
    let mut session = Session::started(DEPRECATE);
    let request = query("select aaaa_bbbb_cccc");
    session.data(Direction::Request, &request[..12], 5);
    session.request(&request[17..]);
    session.response(&packet(1, &ok(0, 2)));
    assert_eq!(session.texts(), ["select "]);
}

#[test]
fn a_hole_over_a_header_loses_the_place_until_the_next_command() {
    let mut session = Session::started(DEPRECATE);
    session.request(&query("select many rows"));
    let response = packets(1, &[&[1], DEFINITION, b"\x01a", b"\x01b"]);
    session.data(Direction::Response, &response, 1000);
    assert_eq!(session.machine.state(), SessionState::Unknown);
    session.response(b"the rest of the rows");
    session.request(&query("select 2"));
    assert!(session.statements().is_empty());
    session.response(&packet(1, &ok(0, 1)));
    assert_eq!(session.texts(), ["select 2"]);
    assert_eq!(session.anomalies(), [Anomaly::Desynchronised, Anomaly::Resynchronised]);
    assert_eq!(session.machine.state(), SessionState::IdleInTransaction);
}

#[test]
fn an_end_packet_whose_status_was_not_captured_loses_the_place() {
    let mut session = Session::started(DEPRECATE);
    session.request(&query("select 1"));
    session.data(Direction::Response, &packet(1, &ok(0, 8))[..6], 5);
    assert_eq!(session.anomalies(), [Anomaly::Desynchronised]);
    assert!(session.statements().is_empty());
}

#[test]
fn a_joined_session_counts_a_statement_only_when_its_response_was_right() {
    for (wrong, response) in [
        ("sequence", packet(2, &ok(0, 2))),
        ("file", packet(1, &[0xfb, 0, 0])),
        ("definition", packets(1, &[&[1], b"\x05abcde"])),
        ("end", packets(1, &[&[1], DEFINITION, &[0xfe, 0]])),
    ] {
        let mut session = Session::joined();
        session.request(&query("select 1"));
        assert_eq!(session.machine.state(), SessionState::Unknown);
        session.response(&response);
        session.close();
        assert!(session.events.is_empty(), "{wrong}: {:?}", session.events);
    }
}

#[test]
fn a_read_that_is_longer_than_its_command_is_no_boundary() {
    let mut session = Session::joined();
    session.request(&[query("select 1"), b"tail".to_vec()].concat());
    session.response(&packet(1, &ok(0, 2)));
    assert!(session.statements().is_empty());
    session.request(&query("select 2"));
    session.response(&packet(1, &ok(0, 2)));
    assert_eq!(session.texts(), ["select 2"]);
}

#[test]
fn a_joined_session_infers_both_kinds_of_end() {
    let end_of_rows: &[u8] = &[0xfe, 0, 0, 2, 0, 0, 0];
    let eof: &[u8] = &[0xfe, 0, 0, 2, 0];
    for (response, rows) in [
        (packets(1, &[&[1], DEFINITION, end_of_rows]), 0),
        (packets(1, &[&[1], DEFINITION, b"\x01a", end_of_rows]), 1),
        (packets(1, &[&[1], DEFINITION, eof, eof]), 0),
        (packets(1, &[&[1], DEFINITION, eof, b"\x01a", b"\x01b", eof]), 2),
        (packets(1, &[&[2, 0], eof, b"\x01a", eof]), 1),
        (packets(1, &[&[2, 0], b"\x01a", end_of_rows]), 1),
    ] {
        let mut session = Session::joined();
        session.request(&query("select a"));
        session.response(&response);
        assert_eq!(session.statements()[0].rows_sent, Some(rows), "{response:?}");
        assert_eq!(session.machine.state(), SessionState::Idle);
    }
}

#[test]
fn a_joined_session_finds_the_end_of_a_preparation() {
    let prepared = |columns: u8, params: u8| vec![0, 7, 0, 0, 0, columns, 0, params, 0, 0, 0, 0];
    let eof: &[u8] = &[0xfe, 0, 0, 2, 0];
    let execute: &[u8] = &[0x17, 7, 0, 0, 0, 0, 1, 0, 0, 0];
    let classic = packets(1, &[&prepared(0, 1), DEFINITION, eof]);
    let modern = packets(1, &[&prepared(0, 1), DEFINITION]);
    let both = packets(1, &[&prepared(2, 1), DEFINITION, DEFINITION, DEFINITION]);
    let both_classic = packets(1, &[&prepared(2, 1), DEFINITION, eof, DEFINITION, DEFINITION, eof]);
    for response in [classic, modern, both, both_classic, packet(1, &prepared(0, 0))] {
        let mut session = Session::joined();
        session.request(&packet(0, b"\x16delete from t where a = ?"));
        session.response(&response);
        session.request(&packet(0, execute));
        session.response(&packet(1, &ok(1, 2)));
        assert_eq!(session.texts(), ["delete from t where a = ?"; 2], "{response:?}");
        assert_eq!(session.statements()[0].end, Timestamp(20));
        assert_eq!(session.statements()[0].bytes_out, response.len() as u64);
    }
}

#[test]
fn executions_share_one_text_and_unknown_ids_are_counted() {
    let mut session = Session::started(DEPRECATE);
    session.request(&packet(0, b"\x16select 1"));
    session.response(&packet(1, &[0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    for id in [7, 7, 8] {
        session.request(&packet(0, &[0x17, id, 0, 0, 0, 0, 1, 0, 0, 0]));
        session.response(&packet(1, &ok(0, 2)));
    }
    assert_eq!(session.texts(), ["select 1", "select 1", "select 1", "?"]);
    let statements = session.statements();
    let texts: Vec<_> =
        statements.iter().filter_map(|s| if let Text::Known(t) = &s.text { Some(t) } else { None }).collect();
    assert!(Arc::ptr_eq(texts[0], texts[1]) && Arc::ptr_eq(texts[1], texts[2]));
}

#[test]
fn the_least_recently_used_statement_is_forgotten_first() {
    let mut prepared = Prepared::default();
    let text = |bytes: usize| Text::Known(Arc::new(crate::model::StatementText::new(vec![b'x'; bytes], bytes)));
    let mut evicted = 0;
    for id in 0..4096 {
        prepared.insert(id, text(1), |_| evicted += 1);
    }
    assert!(matches!(prepared.text(0), Text::Known(_)));
    prepared.insert(4096, text(1), |_| evicted += 1);
    assert_eq!(evicted, 1);
    assert!(matches!(prepared.text(0), Text::Known(_)));
    assert!(matches!(prepared.text(1), Text::Unknown));
    // The bound on bytes.
    let mut prepared = Prepared::default();
    let mut evicted = 0;
    for id in 0..100 {
        prepared.insert(id, text(16 * 1024), |_| evicted += 1);
    }
    assert_eq!(evicted, 100 - 64);
}

#[test]
fn several_results_are_assigned_only_if_that_is_certain() {
    let more = |last: bool| ok(0, if last { 2 } else { 10 });
    let run = |text: &str, results: usize| {
        let mut session = Session::started(DEPRECATE);
        session.request(&query(text));
        let payloads: Vec<_> = (1..=results).map(|at| more(at == results)).collect();
        session.response(&packets(1, &payloads.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        session.texts()
    };
    assert_eq!(
        run("set @a = 1; set @b = ';'; -- c;\n set @c = 3;", 3),
        ["set @a = 1", "set @b = ';'", "-- c;\n set @c = 3"]
    );
    assert_eq!(run("set @a = 1; set @b = 2", 3), ["set @a = 1; set @b = 2"], "more results than statements");
    assert_eq!(run("set @a = 1; set @b = 2; set @c = 3", 2).len(), 1, "fewer results than statements");
    assert_eq!(run("set @a = 'it\\'s; one'; set @b = 2", 2), ["set @a = 'it\\'s; one'", "set @b = 2"]);
    let body = "create procedure p() begin set @a = 1; end; call p()";
    assert_eq!(run(body, 2), [body]);
    assert_eq!(run("begin; commit", 2), ["begin", "commit"]);
    let long = format!("set @a = 1; set @b = '{}'", "x".repeat(command::MAX_TEXT));
    assert_eq!(run(&long, 2).len(), 1, "a text that is not whole");
}

#[test]
fn without_backslash_escapes_a_backslash_ends_no_string() {
    let mut session = Session::started(DEPRECATE);
    let status = 2 | protocol::status::NO_BACKSLASH_ESCAPES;
    session.request(&query("set @a = '\\'; set @b = '\\'"));
    session.response(&packets(1, &[&ok(0, status | 8), &ok(0, status)]));
    assert_eq!(session.texts(), ["set @a = '\\'", "set @b = '\\'"]);
}

#[test]
fn a_session_that_ends_within_a_command_leaves_it_incomplete() {
    let mut session = Session::started(DEPRECATE);
    session.request(&[query("select 1"), query("select 2")].concat());
    session.response(&packets(1, &[&[1], DEFINITION]));
    session.close();
    let statements = session.statements();
    assert_eq!(statements.iter().map(|s| s.status).collect::<Vec<_>>(), [Status::Incomplete; 2]);
    assert_eq!((statements[0].first_byte, statements[1].first_byte), (Some(Timestamp(50)), None));
    assert_eq!(session.texts(), ["select 1", "select 2"]);
}

#[test]
fn a_refused_connection_is_an_error_without_greeting() {
    let mut session = Session::joined();
    session.response(&packet(0, b"\xff\x10\x04Too many connections"));
    let statement = session.statements()[0];
    assert_eq!((statement.kind, statement.code), (Kind::Connect, Some(Code::Mysql(1040))));
    // The same on a session that is older than the agent is a farewell.
    let mut session = Session::joined();
    session.request(&query("select 1"));
    session.response(&packet(1, &ok(0, 2)));
    session.response(&packet(0, b"\xff\xbf\x0f#HY000The client was disconnected by the server because of inactivity."));
    assert_eq!(session.texts(), ["select 1"]);
    assert!(session.anomalies().is_empty());
}

#[test]
fn a_new_greeting_begins_a_new_session() {
    let mut session = Session::started(DEPRECATE);
    session.request(&packet(0, b"\x16select old"));
    session.response(&packet(1, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    session.gap();
    session.response(&packet(0, &greeting("5.5.5-11.4.2-MariaDB", !capability::MYSQL)));
    assert_eq!(session.machine.state(), SessionState::Starting);
    session.request(&packet(1, &answer(capability::PROTOCOL_41)));
    session.response(&packet(2, &ok(0, 2)));
    assert_eq!(session.machine.info().server_version.as_deref(), Some("11.4.2-MariaDB"));
    session.request(&packet(0, &[0x17, 1, 0, 0, 0, 0, 1, 0, 0, 0]));
    session.response(&packet(1, &ok(0, 2)));
    assert_eq!(session.texts(), ["select old", "-", "?"]);
}

#[test]
fn after_a_gap_texts_are_kept_but_not_which_statement_was_last() {
    let mut session = Session::started(DEPRECATE);
    session.request(&packet(0, b"\x16select 1"));
    session.response(&packet(1, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    session.gap();
    for id in [[0xff; 4], [1, 0, 0, 0]] {
        session.request(&packet(0, &[&[0x17][..], &id, &[0, 1, 0, 0, 0]].concat()));
        session.response(&packet(1, &ok(0, 2)));
    }
    assert_eq!(session.texts(), ["select 1", "?", "select 1"]);
}

#[test]
fn replication_is_named_once_and_left_alone() {
    let mut session = Session::started(DEPRECATE);
    session.request(&packet(0, &[0x15, 1, 0, 0, 0]));
    session.response(&packet(1, &ok(0, 2)));
    session.request(&packet(0, &[0x12, 4, 0, 0, 0]));
    assert_eq!(session.anomalies(), [Anomaly::Replication]);
    assert_eq!(session.machine.state(), SessionState::Opaque("replication"));
}

#[test]
fn a_session_captured_behind_its_encryption_is_followed() {
    let mut session = Session::joined();
    session.response(&packet(0, &greeting("9.0.0", u64::MAX)));
    let caps = capability::PROTOCOL_41 | capability::MYSQL | capability::SSL | DEPRECATE;
    session.request(&packet(1, &answer(caps)[..32]));
    session.request(&packet(2, &answer(caps)));
    session.response(&packet(3, b"\x01\x03"));
    session.response(&packet(4, &ok(0, 2)));
    session.request(&query("select 1"));
    session.response(&packet(1, &ok(0, 2)));
    assert_eq!(session.texts(), ["-", "select 1"]);
    assert!(session.machine.info().encrypted);
    assert!(session.anomalies().is_empty());
}

#[test]
fn authentication_data_is_never_kept() {
    let mut session = Session::joined();
    session.response(&packet(0, &greeting("9.0.0", u64::MAX)));
    let secret = b"a-secret-that-must-not-stay";
    let caps = capability::PROTOCOL_41 | capability::MYSQL | capability::PLUGIN_AUTH_LENENC_DATA;
    let mut login = (caps as u32).to_le_bytes().to_vec();
    login.extend_from_slice(&[0; 28]);
    login.extend_from_slice(b"alice\0");
    login.push(secret.len() as u8);
    login.extend_from_slice(secret);
    let login = packet(1, &login);
    for byte in login.chunks(1) {
        session.request(byte);
    }
    session.response(&packet(2, b"\xfecaching_sha2_password\0challenge"));
    for byte in packet(3, secret).chunks(1) {
        session.request(byte);
        assert!(session.machine.session.request.kept().is_empty());
    }
    session.response(&packet(4, &ok(0, 2)));
    assert_eq!(session.machine.info().user.as_deref(), Some("alice"));
    assert!(session.machine.session.request.kept().is_empty());
    assert!(!format!("{:?}", session.machine).contains("secret"));
}

#[test]
fn too_many_waiting_commands_lose_the_place_and_their_texts_are_bounded() {
    let mut session = Session::started(DEPRECATE);
    for _ in 0..MAX_QUEUED + 1 {
        session.request(&query("select 1"));
    }
    assert!(session.anomalies().is_empty());
    session.request(&query("select 1"));
    assert_eq!(session.anomalies(), [Anomaly::Desynchronised]);

    let mut session = Session::started(DEPRECATE);
    let text = "x".repeat(command::MAX_TEXT);
    for _ in 0..70 {
        session.request(&query(&text));
    }
    assert_eq!(session.anomalies().len(), 70 - 1 - MAX_QUEUED_BYTES / command::MAX_TEXT);
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Mysql>() <= 512, "{} bytes", size_of::<Mysql>());
    let mut session = Session::started(DEPRECATE);
    let text = query(&format!("select '{}'", "x".repeat(10_000)));
    session.request(&text[..5000]);
    session.request(&text[5000..]);
    session.response(&packet(1, &ok(0, 2)));
    assert!(session.machine.session.request.kept().is_empty() && session.machine.session.exchange.is_none());
}

#[test]
fn use_changes_the_schema_in_every_spelling() {
    for (text, schema) in [
        ("use shop", Some("shop")),
        ("  USE\t`odd``name` ;", Some("odd`name")),
        ("/* c */ use /* d */ shop;", Some("shop")),
        ("use `open", None),
        ("use", None),
        ("user shop", None),
        ("select 1", None),
    ] {
        let schema = schema.map(|schema| schema.as_bytes().to_vec());
        assert_eq!(lexer::use_schema(text.as_bytes()), schema, "{text}");
    }
}

#[test]
fn rows_are_counted_however_the_sequence_ids_wrap() {
    let mut session = Session::started(DEPRECATE);
    session.request(&query("select many"));
    session.response(&packets(1, &[&[1], DEFINITION]));
    let mut sequence = 3u8;
    for _ in 0..10 {
        let mut chunk = Vec::new();
        for _ in 0..100 {
            chunk.extend_from_slice(&packet(sequence, b"\x01a"));
            sequence = sequence.wrapping_add(1);
        }
        session.response(&chunk);
    }
    session.response(&packet(sequence, &[0xfe, 0, 0, 2, 0, 0, 0]));
    assert_eq!(session.statements()[0].rows_sent, Some(1000));
    assert_eq!(session.statements()[0].bytes_out, 5 + 4 + DEFINITION.len() as u64 + 1000 * 6 + 11);
}
