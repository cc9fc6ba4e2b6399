//! The beginning of a connection: who, encryption, refusal, replication.

use super::*;

#[test]
fn start_up_tells_who_and_when() {
    let mut c = Connection::default();
    assert_eq!(c.machine.state(), SessionState::Unknown);
    c.send(&[ssl_request()]);
    assert_eq!(c.machine.state(), SessionState::Starting);
    c.data(Direction::Response, b"N", 0);
    c.send(&[startup("user\0tester\0database\0shop\0application_name\0unit\0\0")]);
    c.reply(&[message(b'R', &[b"\0\0\0\x05salt"])]);
    c.send(&[message(b'p', &[b"md5secret\0"])]);
    c.reply(&[
        message(b'R', &[b"\0\0\0\0"]),
        message(b'S', &[b"server_version\x0015.1\0"]),
        message(b'K', &[b"12345678"]),
        ready(b'I'),
    ]);
    assert_eq!(c.take(), ["Connect 10..60"]);
    let info = c.machine.info();
    assert_eq!(info.user.as_deref(), Some("tester"));
    assert_eq!(info.database.as_deref(), Some("shop"));
    assert_eq!(info.application.as_deref(), Some("unit"));
    assert_eq!(info.server_version.as_deref(), Some("15.1"));
    assert!(!info.encrypted);
    assert_eq!(c.machine.state(), SessionState::Idle);
    assert!(!format!("{:?}", c.machine).contains("secret"));
    c.reply(&[message(b'S', &[b"session_authorization\0other\0"]), message(b'S', &[b"application_name\0renamed\0"])]);
    assert_eq!(c.machine.info().user.as_deref(), Some("other"));
    assert_eq!(c.machine.info().application.as_deref(), Some("renamed"));
    assert!(c.take().is_empty(), "a change of parameters when idle is no statement");
}

#[test]
fn a_password_is_never_buffered() {
    let mut c = Connection::default();
    c.send(&[startup("user\0tester\0\0")]);
    c.reply(&[message(b'R', &[b"\0\0\0\x03"])]);
    let password = message(b'p', &[b"SECRET\0"]);
    let secret: Vec<String> = b"SECRET".iter().map(u8::to_string).collect();
    for byte in &password {
        c.data(Direction::Request, &[*byte], 0);
        let debug = format!("{:?}", c.machine);
        assert!(!debug.contains("SECRET") && !debug.contains(&secret[..3].join(", ")));
    }
}

#[test]
fn refused_connections_have_their_code() {
    let mut c = Connection::default();
    c.send(&[startup("user\0tester\0\0")]);
    c.reply(&[failed("28P01")]);
    c.close();
    assert_eq!(c.take(), ["Connect 10..20 Error 28P01"]);

    let mut c = Connection::default();
    c.send(&[ssl_request()]);
    c.reply(&[failed("53300")]);
    c.close();
    assert_eq!(c.take(), ["Connect 10..20 Error 53300"]);

    let mut c = Connection::default();
    c.send(&[startup("user\0tester\0\0")]);
    c.close();
    assert_eq!(c.take(), ["Connect 10..20 Incomplete"]);
}

#[test]
fn connections_that_say_nothing_or_cancel_are_no_attempts() {
    let mut c = Connection::default();
    c.close();
    assert!(c.take().is_empty());
    c.send(&[[&16u32.to_be_bytes()[..], &(1234u32 << 16 | 5678).to_be_bytes(), b"12345678"].concat()]);
    c.close();
    assert!(c.take().is_empty());
}

#[test]
fn ciphertext_is_opaque_and_reported_once() {
    let mut c = Connection::default();
    c.send(&[ssl_request()]);
    c.data(Direction::Response, b"S", 0);
    assert_eq!(c.machine.state(), SessionState::Starting);
    for _ in 0..3 {
        c.data(Direction::Request, b"\x16\x03\x01\x00\x05hello", 0);
        c.data(Direction::Response, b"\x16\x03\x03\x00\x05hello", 3);
        c.gap();
    }
    assert_eq!(c.take(), ["encrypted"]);
    assert_eq!(c.machine.state(), SessionState::Opaque("tls"));
    assert!(c.machine.info().encrypted);
    c.close();
    assert!(c.take().is_empty());
}

#[test]
fn clear_text_behind_tls_is_followed() {
    // PostgreSQL 17: TLS from the first byte, which the server peeks at; the boundary then shows clear text.
    for first in [&b"\x16\x03\x01\x00\x05hello"[..], &ssl_request()] {
        let mut c = Connection::default();
        c.data(Direction::Request, first, 0);
        c.send(&[startup("user\0tester\0\0")]);
        c.reply(&[message(b'R', &[b"\0\0\0\0"]), ready(b'I')]);
        c.send(&[query("SELECT 1")]);
        c.reply(&[complete("SELECT 1"), ready(b'I')]);
        let lines = c.take();
        assert_eq!(lines.last().unwrap(), "Simple 40..50 SELECT 1", "{lines:?}");
    }
}

#[test]
fn replication_is_left_out() {
    let mut c = Connection::default();
    c.send(&[startup("user\0tester\0replication\0true\0\0")]);
    c.reply(&[message(b'R', &[b"\0\0\0\0"]), ready(b'I')]);
    c.send(&[query("IDENTIFY_SYSTEM")]);
    c.reply(&[complete("IDENTIFY_SYSTEM"), ready(b'I')]);
    c.close();
    assert_eq!(c.take(), ["replication"]);

    // Older than the agent.
    let mut c = Connection::default();
    c.send(&[query("START_REPLICATION 0/0")]);
    c.reply(&[message(b'W', &[b"\0\0\0"])]);
    assert_eq!(c.take(), ["replication"]);
    assert_eq!(c.machine.state(), SessionState::Opaque("replication"));
}

#[test]
fn sql_of_a_logical_walsender_is_timed_until_its_stream_begins() {
    let mut c = Connection::default();
    c.send(&[startup("user\0tester\0database\0shop\0replication\0database\0\0")]);
    c.reply(&[message(b'R', &[b"\0\0\0\0"]), ready(b'I')]);
    c.send(&[query("SELECT 1")]);
    c.reply(&[complete("SELECT 1"), ready(b'I')]);
    c.send(&[query("START_REPLICATION SLOT s LOGICAL 0/0")]);
    c.reply(&[message(b'W', &[b"\0\0\0"]), message(b'd', &[b"w"])]);
    c.reply(&[message(b'd', &[b"w"])]);
    c.close();
    assert_eq!(c.take(), ["Connect 10..20", "Simple 30..40 SELECT 1", "replication"]);
}

#[test]
fn encrypted_sessions_older_than_the_agent_are_recognised() {
    let record = b"\x17\x03\x03\x00\x1dciphertext".to_vec();
    let mut c = Connection::default();
    c.send(std::slice::from_ref(&record));
    assert!(c.out.is_empty(), "one direction alone proves nothing");
    c.reply(std::slice::from_ref(&record));
    c.send(std::slice::from_ref(&record));
    c.reply(&[record]);
    assert_eq!(c.take(), ["encrypted"]);
    assert_eq!(c.machine.state(), SessionState::Opaque("tls"));
    assert!(c.machine.info().encrypted);
}

#[test]
fn direct_tls_seen_at_the_servers_boundary_is_not_opaque() {
    let mut c = Connection::default();
    c.data(Direction::Request, b"\x16\x03\x01\x00\x05hello", 0);
    c.send(&[startup("user\0tester\0\0")]);
    c.reply(&[message(b'R', &[b"\0\0\0\0"]), ready(b'I')]);
    assert_eq!(c.take(), ["Connect 10..30"], "the peeked record is no ciphertext to report");
    let info = c.machine.info();
    assert!(info.encrypted && info.started == Some(Timestamp(10)));
}

#[test]
fn encryption_that_is_refused_leaves_clear_text() {
    let gss = [8u32.to_be_bytes(), (1234u32 << 16 | 5680).to_be_bytes()].concat();
    let mut c = Connection::default();
    for question in [gss, ssl_request()] {
        c.send(&[question]);
        c.data(Direction::Response, b"N", 0);
    }
    c.send(&[startup("user\0tester\0\0")]);
    c.reply(&[message(b'R', &[b"\0\0\0\0"]), ready(b'I')]);
    assert_eq!(c.take(), ["Connect 10..60"]);
    assert!(!c.machine.info().encrypted);
}
