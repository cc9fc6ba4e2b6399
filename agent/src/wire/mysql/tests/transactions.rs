//! Where transactions begin and end.

use std::time::Duration;

use super::*;
use crate::model::Outcome;

const AUTOCOMMIT: u16 = 2;
const IN_TRANS: u16 = protocol::status::IN_TRANS | AUTOCOMMIT;

impl Session {
    /// A command answered with OK and this status; one takes 20 ns, and 10 ns pass before the next.
    fn run(&mut self, text: &str, status: u16) {
        self.request(&query(text));
        self.now += 10;
        self.response(&packet(1, &ok(0, status)));
    }

    fn fail(&mut self, text: &str, code: u16) {
        self.request(&query(text));
        self.response(&packet(1, &[&[0xff][..], &code.to_le_bytes(), b"#HY000wrong"].concat()));
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.transactions().iter().map(|transaction| transaction.outcome).collect()
    }
}

#[test]
fn a_transaction_has_times_and_statements() {
    let mut session = Session::started(DEPRECATE);
    session.run("begin", IN_TRANS);
    let begun = session.now;
    session.now += 1000;
    session.run("update t set a = 1", IN_TRANS);
    session.fail("insert into t values (1)", 1062);
    session.run("commit", AUTOCOMMIT);
    let [transaction] = session.transactions()[..] else { panic!("{:?}", session.transactions()) };
    assert_eq!((transaction.start, transaction.end), (Timestamp(begun), Timestamp(session.now)));
    assert_eq!(transaction.idle, Duration::from_nanos(1000 + 3 * 10));
    assert_eq!((transaction.statements, transaction.outcome), (3, Outcome::Committed));
    session.run("select 1", AUTOCOMMIT);
    session.close();
    assert_eq!(session.transactions().len(), 1);
}

#[test]
fn outcomes() {
    use Outcome::{Committed, RolledBack};
    for (text, outcome) in [
        ("commit", Committed),
        ("/* c */ COMMIT WORK", Committed),
        ("rollback", RolledBack),
        ("ROLLBACK WORK", RolledBack),
        ("create table u (a int)", Committed),
        ("set autocommit = 1", Committed),
        ("call p()", Committed),
        // The server has rolled back when the statement before failed.
        ("select 1", RolledBack),
        ("rollback to s", RolledBack),
    ] {
        let mut session = Session::started(DEPRECATE);
        session.run("start transaction", IN_TRANS);
        session.fail("update t set a = 1", 1205);
        session.run(text, AUTOCOMMIT);
        assert_eq!(session.outcomes(), [outcome], "{text}");
    }
}

#[test]
fn a_deadlock_rolls_back_at_once_and_other_errors_do_not() {
    let mut session = Session::started(DEPRECATE);
    session.run("begin", IN_TRANS);
    session.fail("update t set a = 1", 1317);
    assert_eq!(session.machine.state(), SessionState::IdleInTransaction);
    session.fail("update t set a = 1", 1213);
    assert_eq!(session.outcomes(), [Outcome::RolledBack]);
    assert_eq!(session.machine.state(), SessionState::Idle);
    session.run("rollback", AUTOCOMMIT);
    assert_eq!(session.outcomes().len(), 1);
}

#[test]
fn one_transaction_may_follow_another_without_a_pause() {
    let mut session = Session::started(DEPRECATE);
    for text in ["begin", "savepoint s", "begin work", "commit and chain", "rollback to s", "rollback and chain"] {
        session.run(text, IN_TRANS);
    }
    session.run("commit", AUTOCOMMIT);
    use Outcome::{Committed, RolledBack};
    assert_eq!(session.outcomes(), [Committed, Committed, RolledBack, Committed]);
    let pairs = session.transactions();
    assert!(pairs.windows(2).all(|pair| pair[0].end == pair[1].start));
}

#[test]
fn a_session_that_ends_leaves_its_transaction() {
    let mut session = Session::started(DEPRECATE);
    session.run("begin", IN_TRANS);
    session.run("select 1", IN_TRANS);
    session.now += 500;
    session.close();
    let [transaction] = session.transactions()[..] else { panic!() };
    assert_eq!((transaction.outcome, transaction.statements), (Outcome::Abandoned, 1));
    assert_eq!(transaction.idle, Duration::from_nanos(10 + 500));
}

#[test]
fn a_reset_session_has_rolled_back() {
    let mut session = Session::started(DEPRECATE);
    session.run("begin", IN_TRANS);
    session.request(&packet(0, &[0x1f]));
    session.response(&packet(1, &ok(0, AUTOCOMMIT)));
    assert_eq!(session.outcomes(), [Outcome::RolledBack]);
}

#[test]
fn several_statements_in_one_text_may_hold_whole_transactions() {
    let mut session = Session::started(DEPRECATE);
    session.request(&query("begin; update t set a = 1; rollback; begin"));
    let more = protocol::status::MORE_RESULTS_EXISTS;
    let statuses = [IN_TRANS | more, IN_TRANS | more, AUTOCOMMIT | more, IN_TRANS];
    let answers: Vec<_> = statuses.iter().map(|status| ok(0, *status)).collect();
    session.response(&packets(1, &answers.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    session.close();
    assert_eq!(session.outcomes(), [Outcome::RolledBack, Outcome::Abandoned]);
    assert_eq!(session.transactions()[0].statements, 2);
}

#[test]
fn nothing_is_guessed_after_a_loss_or_on_a_session_joined_late() {
    let lost = || {
        let mut session = Session::started(DEPRECATE);
        session.run("begin", IN_TRANS);
        session.gap();
        session
    };
    for make in [Session::joined, lost] {
        let mut session = make();
        session.run("select 1", IN_TRANS);
        assert_eq!(session.machine.state(), SessionState::IdleInTransaction);
        session.run("commit", AUTOCOMMIT);
        assert!(session.transactions().is_empty());
        session.run("select 1", IN_TRANS);
        session.run("commit", AUTOCOMMIT);
        assert_eq!(session.outcomes(), [Outcome::Committed], "from here on its beginning is known");

        let mut session = make();
        session.run("begin", IN_TRANS);
        session.run("commit", AUTOCOMMIT);
        assert_eq!(session.outcomes(), [Outcome::Committed], "BEGIN always begins one");
    }
}
