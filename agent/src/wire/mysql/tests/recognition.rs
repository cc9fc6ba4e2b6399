//! Sessions that are none of the ordinary protocol in clear text.

use super::*;

#[test]
fn an_encrypted_session_joined_late_is_named() {
    let mut session = Session::joined();
    for _ in 0..3 {
        assert_eq!(session.machine.state(), SessionState::Unknown);
        // The server reads a record's header, then the rest.
        session.request(b"\x17\x03\x03\x00\x03");
        session.request(b"abc");
        session.response(b"\x17\x03\x03\x00\x05defgh");
    }
    assert_eq!(session.machine.state(), SessionState::Opaque("tls"));
    assert_eq!(session.anomalies(), [Anomaly::Encrypted]);
}

/// A message of the X protocol.
fn x_message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 1).to_le_bytes()[..], &[kind], body].concat()
}

#[test]
fn the_x_protocol_is_named_by_its_first_message() {
    let mut session = Session::joined();
    session.response(protocol::x::HELLO);
    assert_eq!(session.machine.state(), SessionState::Opaque("x-protocol"));
    session.request(&query("select 1"));
    session.response(&packet(1, &ok(0, 2)));
    session.close();
    assert_eq!(session.anomalies(), [Anomaly::XProtocol]);
    assert!(session.statements().is_empty());
}

#[test]
fn the_x_protocol_joined_late_is_named_and_never_misread() {
    let mut session = Session::joined();
    for _ in 0..3 {
        assert_eq!(session.machine.state(), SessionState::Unknown);
        // SQL_STMT_EXECUTE, which looks like COM_PROCESS_KILL; metadata, row, the end of rows, the end.
        session.request(&x_message(12, b"\x0a\x08select 1"));
        let rows = [
            x_message(12, b"\x08\x07\x12\x011"),
            x_message(13, b"\x0a\x01\x02"),
            x_message(14, b""),
            x_message(17, b""),
        ];
        session.response(&rows.concat());
    }
    assert_eq!(session.machine.state(), SessionState::Opaque("x-protocol"));
    assert_eq!(session.anomalies(), [Anomaly::XProtocol]);
    assert!(session.statements().is_empty());
}
