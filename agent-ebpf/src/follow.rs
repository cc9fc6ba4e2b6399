//! Follows sessions from exchange to exchange, and counts those of the common shapes.
//!
//! A server reads on only when it has answered what it can, so between a complete answer and the next read the place is certain. Where the kernel
//! knows it, it recognises the request's shape ([`postgres`], [`mysql`]), walks over the answer's messages and counts the execution in its row.
//! Anything else is *lost*: recorded for userspace, until an exchange has gone from a recognised request to a complete answer without contradiction.

use agent_ebpf::{
    RowKey, Session, framing,
    row::{ending, outcome, policy, reserved},
    session::{activity, facts, mode, record},
};
use aya_ebpf::helpers::generated;

use crate::{
    maps::{ROWS, SETTINGS, count},
    mysql::{self, Mysql},
    postgres::{self, Postgres},
    rows,
    scratch::Scratch,
    verifier::zero,
    walk::{walk, walked},
};

/// What a request is to the kernel.
pub(crate) enum Shape {
    /// One execution of the text with this hash.
    Execution(u64),
    /// The same, and a name is given to the text: userspace has to see it.
    Introduction(u64),
    /// Something whose answer the kernel can follow, and that userspace counts.
    Followed,
    /// Something else.
    Odd,
    /// No exchange: nothing will answer it.
    Silent,
}

/// The server read `len` bytes. Afterwards [`Session::record`] says whether they are recorded.
#[inline(always)]
pub(crate) fn request(session: &mut Session, scratch: &mut Scratch, buffer: u64, len: u64, now: u64) {
    if session.framing == framing::POSTGRESQL as u16 {
        postgres::postgres_request(session, scratch, buffer, len, now);
    } else {
        mysql::mysql_request(session, scratch, buffer, len, now);
    }
}

/// The server wrote `len` bytes. Whether they complete an execution that was counted.
#[inline(always)]
pub(crate) fn response(session: &mut Session, scratch: &mut Scratch, buffer: u64, len: u64, now: u64) -> Ended {
    let postgresql = session.framing == framing::POSTGRESQL as u16;
    if !matches!(session.mode, mode::ACTIVE | mode::TENTATIVE) {
        match postgresql {
            true => postgres::postgres_aside(session, buffer, len, now),
            false => mysql::mysql_aside(session, buffer, len),
        };
        return Ended::Not;
    }
    if session.first == 0 {
        session.first = now;
    }
    session.bytes_out += len;
    let walked = match postgresql {
        true => walk::<Postgres>(session, scratch, buffer, len),
        false => walk::<Mysql>(session, scratch, buffer, len),
    };
    match walked {
        walked::ON => Ended::Not,
        walked::READY => complete(session, now),
        _ => {
            lose(session);
            Ended::Not
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It did not, or the kernel does not count it.
    Not,
    /// It was counted.
    Counted,
    /// It was counted and is worth a look, but was not recorded.
    Outlier,
}

/// A request is complete: an exchange begins.
#[inline(always)]
pub(crate) fn begin(session: &mut Session, shape: Shape, len: u64, now: u64) {
    session.begin = now;
    session.bytes_in += len;
    session.record = record::ALL;
    session.code = 0;
    session.carry = 0;
    zero(&mut session.first);
    zero(&mut session.hash);
    zero(&mut session.bytes_out);
    zero(&mut session.rows_sent);
    zero(&mut session.rows_affected);
    zero(&mut session.skip);
    if session.transaction != 0 {
        session.idle += now - session.end;
    }
    let proven = session.mode == mode::IDLE;
    session.mode = if proven { mode::ACTIVE } else { mode::TENTATIVE };
    session.activity = activity::ACTIVE;
    let introduction = matches!(shape, Shape::Introduction(_));
    if let Shape::Execution(hash) | Shape::Introduction(hash) = shape {
        let key = RowKey { hash, group: session.group, code: 0, slot: session.slot };
        // A session often executes the same statement again.
        let Some(index) = rows::find(session.row, &key) else { return };
        let Some(row) = ROWS.get_ptr(index) else { return };
        // SAFETY: the verifier proved it non-null.
        let wanted = unsafe { (*row).policy };
        if wanted == policy::LEAVE {
            return;
        }
        session.hash = hash;
        session.row = index;
        if proven && wanted == policy::COUNT && !introduction {
            session.record = if sampled() { record::SAMPLE } else { record::NOTHING };
        }
    }
}

#[inline(always)]
fn sampled() -> bool {
    // SAFETY: no arguments; the setting is a word that userspace replaces as a whole.
    SETTINGS.get_ptr(0).is_some_and(|settings| unsafe {
        let share = (*settings).sample;
        share != 0 && generated::bpf_get_prandom_u32() < share
    })
}

/// The place is lost: from here on everything is recorded, until it is found again.
#[inline(always)]
pub(crate) fn lose(session: &mut Session) {
    session_lose(session);
}

#[unsafe(no_mangle)]
extern "C" fn session_lose(session: *mut Session) -> u64 {
    if session.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    if session.record == record::NOTHING && session.mode == mode::ACTIVE {
        // Userspace has not seen how this exchange began and cannot make anything of the rest. It will not happen twice with this statement.
        count(agent_ebpf::loss::UNFOLLOWED);
        if let Some(row) = ROWS.get_ptr_mut(session.row) {
            // SAFETY: the verifier proved it non-null.
            unsafe { (*row).policy = policy::LEAVE };
        }
    }
    session.mode = mode::LOST;
    session.activity = activity::UNKNOWN;
    session.record = record::ALL;
    session.hash = 0;
    session.begin = 0;
    session.bytes_in = 0;
    session.request_skip = 0;
    session.facts &= !(facts::READY | facts::HEADER);
    session.elide_place = agent_ebpf::place::LOST;
    session.transaction = 0;
    0
}

/// The connection has ended: what it was executing is incomplete.
#[inline(always)]
pub(crate) fn close(session: &mut Session, now: u64) -> Ended {
    let mut ended = Ended::Not;
    if session.mode == mode::ACTIVE && session.hash != 0 {
        session.code = ending::INCOMPLETE;
        session.first = if session.first == 0 { now } else { session.first };
        ended = complete(session, now);
    }
    leave(session, now);
    session.mode = mode::ENDED;
    if ended == Ended::Outlier { Ended::Counted } else { ended }
}

/// The client takes its leave: the server rolls back what it leaves open.
#[inline(always)]
pub(crate) fn leave(session: &mut Session, now: u64) {
    if session.transaction != 0 {
        if session.mode == mode::IDLE {
            session.idle += now - session.end;
        }
        session.facts |= facts::ROLLED_BACK;
        end_transaction(session, now);
    }
}

/// The answer is complete.
#[inline(always)]
fn complete(session: &mut Session, now: u64) -> Ended {
    let mut ended = Ended::Not;
    if session.hash != 0 {
        let nanos = now - session.begin;
        let key = RowKey { hash: session.hash, group: session.group, code: session.code, slot: session.slot };
        if let Some(slow) = rows::add(&key, session, nanos) {
            ended = Ended::Counted;
            if session.code != 0 || slow != 0 && nanos >= slow {
                match session.record {
                    record::NOTHING => ended = Ended::Outlier,
                    // It would have been shown whatever chance said.
                    record::SAMPLE => session.record = record::ALL,
                    _ => {}
                }
            }
        } else {
            count(agent_ebpf::loss::UNFOLLOWED);
        }
    }
    session.mode = mode::IDLE;
    session.end = now;
    session.answered_in = session.bytes_in;
    session.bytes_in = 0;
    session.facts |= facts::READY;
    session.elide_place = agent_ebpf::place::BOUNDARY;
    settle(session, now);
    ended
}

/// What the session does after an answer, and whether a transaction began or ended.
#[inline(always)]
pub(crate) fn settle(session: &mut Session, now: u64) {
    let (open, failed) = if session.framing == framing::POSTGRESQL as u16 {
        (session.status != b'I' as u16, session.status == b'E' as u16)
    } else {
        if session.code == mysql::DEADLOCK {
            // An error comes without a status.
            session.status &= !mysql::status::IN_TRANSACTION;
            session.facts |= facts::ROLLED_BACK;
        }
        let open = session.status & mysql::status::IN_TRANSACTION != 0;
        if open {
            // To a savepoint.
            session.facts &= !facts::ROLLED_BACK;
        }
        (open, false)
    };
    session.activity = match (open, failed) {
        (false, _) => activity::IDLE,
        (true, false) => activity::IDLE_IN_TRANSACTION,
        (true, true) => activity::IDLE_IN_FAILED_TRANSACTION,
    };
    if failed {
        session.facts |= facts::ROLLED_BACK;
    }
    if open {
        if session.transaction == 0 {
            session.transaction = now;
            session.idle = 0;
        }
        return;
    }
    if session.transaction != 0 {
        end_transaction(session, now);
    }
    session.facts &= !facts::ROLLED_BACK;
}

#[inline(always)]
fn end_transaction(session: &mut Session, now: u64) {
    let code = if session.facts & facts::ROLLED_BACK != 0 { outcome::ROLLED_BACK } else { outcome::COMMITTED };
    let key = RowKey { hash: reserved::TRANSACTION, group: session.group, code, slot: session.slot };
    rows::add_transaction(&key, now - session.transaction, session.idle);
    session.transaction = 0;
}
