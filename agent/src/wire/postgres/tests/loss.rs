//! What was not captured: gaps, cut records, sessions older than the agent.

use super::*;

#[test]
fn a_gap_forgets_what_it_may_have_changed() {
    let mut c = Connection::ready();
    c.send(&[parse("s", "SELECT old"), sync()]);
    c.reply(&[empty(b'1'), ready(b'I')]);
    c.take();
    c.send(&[query("SELECT lost")]);
    c.gap();
    c.gap();
    assert_eq!(c.machine.state(), SessionState::Unknown);
    c.send(&[bind("", "s"), execute(""), sync()]);
    c.reply(&[empty(b'2'), complete("SELECT 0"), ready(b'I')]);
    assert_eq!(c.take(), ["desynchronised", "resynchronised", "Execute 60..70 ?"]);
}

#[test]
fn a_connection_older_than_the_agent_counts_from_its_first_request() {
    for (request, reply, expected) in [
        (vec![query("SELECT 1")], vec![complete("SELECT 1"), ready(b'T')], "Simple 10..20 SELECT 1"),
        (
            vec![bind("", "before"), execute(""), sync()],
            vec![empty(b'2'), complete("SELECT 0"), ready(b'T')],
            "Execute 10..20 ?",
        ),
    ] {
        let mut c = Connection::default();
        c.send(&request);
        c.reply(&reply[..reply.len() - 1]);
        assert!(c.out.is_empty(), "not proven yet");
        c.reply(&reply[reply.len() - 1..]);
        assert_eq!(c.take(), [expected]);
        assert_eq!(c.machine.state(), SessionState::IdleInTransaction);
    }
}

#[test]
fn an_unfinished_unit_is_no_beginning() {
    let mut c = Connection::default();
    c.send(&[parse("", "SELECT 1"), bind("", ""), execute("")]);
    c.reply(&[empty(b'1'), empty(b'2'), complete("SELECT 1")]);
    c.send(&[sync()]);
    c.reply(&[ready(b'I')]);
    assert!(c.take().is_empty());
}

#[test]
fn a_write_whose_end_was_not_captured_proves_nothing() {
    let mut c = Connection::ready();
    c.gap();
    c.data(Direction::Response, &ready(b'I'), 10);
    assert_eq!(c.machine.state(), SessionState::Unknown);
    c.reply(&[ready(b'I')]);
    assert_eq!(c.machine.state(), SessionState::Idle);
}

#[test]
fn what_only_looks_like_a_request_is_not_believed() {
    // The middle of something: neither the requests nor the replies fit.
    for (request, reply) in [
        (query("SELECT fake")[1..].to_vec(), vec![complete("SELECT 1"), ready(b'I')]),
        (query("SELECT fake"), vec![empty(b'2'), complete("SELECT 1"), ready(b'I')]),
        (query("SELECT fake"), vec![complete("SELECT 1"), complete("SELECT 1"), ready(b'I')]),
        ([query("SELECT fake"), message(b'd', &[b"x"])].concat(), vec![complete("COPY 1"), ready(b'I')]),
        ([parse("", "fake"), bind("", "")].concat(), vec![empty(b'1'), empty(b'2'), ready(b'I')]),
        (b"Q\x20\x20\x20\x20fake".to_vec(), vec![complete("SELECT 1"), ready(b'I')]),
    ] {
        let mut c = Connection::default();
        c.send(&[request]);
        c.reply(&reply);
        assert!(c.take().is_empty());
        // The write ended with `Z`, so the next read begins with a request.
        assert_eq!(c.machine.state(), SessionState::Idle);
        c.send(&[query("SELECT true")]);
        c.reply(&[complete("SELECT 1"), ready(b'I')]);
        assert_eq!(c.take(), ["Simple 30..40 SELECT true"]);
    }
}

#[test]
fn replies_lost_in_the_middle_leave_the_names_known() {
    let mut c = Connection::ready();
    c.send(&[parse("s", "SELECT kept"), parse("t", "SELECT replaced"), sync()]);
    c.reply(&[empty(b'1'), empty(b'1'), ready(b'I')]);
    c.take();
    c.send(&[query("SELECT rows")]);
    // The record says how much was written, but nothing could be read.
    c.data(Direction::Response, b"", 500);
    assert_eq!(c.take(), ["desynchronised"]);
    c.send(&[named(b'C', b'S', "t"), parse("t", "SELECT other"), sync()]);
    c.data(Direction::Response, b"", 16);
    c.send(&[query("SELECT unseen")]);
    c.reply(&[complete("SELECT 1"), ready(b'I')]);
    for name in ["s", "t"] {
        c.send(&[bind("", name), execute(""), sync()]);
        c.reply(&[empty(b'2'), complete("SELECT 0"), ready(b'I')]);
    }
    assert_eq!(c.take(), ["resynchronised", "Execute 110..120 SELECT kept", "Execute 130..140 ?"]);
}

#[test]
fn a_transaction_is_not_told_across_a_loss() {
    let mut c = Connection::ready();
    let exchange = |c: &mut Connection, text: &str, status| {
        c.send(&[query(text)]);
        c.reply(&[complete(text), ready(status)]);
    };
    exchange(&mut c, "BEGIN", b'T');
    c.gap();
    exchange(&mut c, "SELECT 1", b'T');
    exchange(&mut c, "COMMIT", b'I');
    exchange(&mut c, "BEGIN", b'T');
    exchange(&mut c, "COMMIT", b'I');
    let transactions: Vec<_> =
        c.out.iter().filter(|event| matches!(event, Event::Transaction(_))).map(summary).collect();
    assert_eq!(transactions, ["Committed 100..120"]);
}

#[test]
fn a_request_that_was_not_captured_whole_keeps_its_place() {
    let mut c = Connection::ready();
    let message = query("SELECT 'synthetic'");
    c.data(Direction::Request, &message[..12], message.len() - 12);
    c.reply(&[complete("SELECT 1"), ready(b'I')]);
    let statement = c.take_statement();
    let Text::Known(text) = &statement.text else { panic!("no text") };
    assert_eq!((text.raw(), text.truncated()), (&b"SELECT "[..], true));
}
