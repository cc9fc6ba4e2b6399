//! PostgreSQL's protocol, as far as the kernel follows it (documentation, "Frontend/Backend Protocol").
//!
//! The server flushes `ReadyForQuery` before it reads the next command (`PostgresMain`, backend/tcop/postgres.c), so a read that comes after it
//! begins with a message.

use core::ffi::c_void;

use agent_ebpf::{
    Session, blind,
    blind::dialect,
    row::{ending, sqlstate},
    session::{CARRY, WINDOW, activity, facts, mode, phase, record},
};
use aya_ebpf::helpers::generated;

use crate::{
    follow::{self, Shape, walked},
    maps::NAMES,
    text,
    user::{fill, peek},
    verifier::{bit, bounded, forget},
};

/// Type byte and length.
const HEADER: u64 = 5;
/// `Execute` of the unnamed portal without a limit, then `Sync`.
const EXECUTE_SYNC: [u8; 15] = [b'E', 0, 0, 0, 9, 0, 0, 0, 0, 0, b'S', 0, 0, 0, 4];
/// `Describe` of the unnamed portal.
const DESCRIBE: [u8; 7] = [b'D', 0, 0, 0, 6, b'P', 0];
/// `Sync`.
const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];
/// The longest name of a statement that is looked at; names are cut at 63 bytes (`NAMEDATALEN`) by the server only where they are SQL names.
const MAX_NAME: usize = 56;
/// The longest message (`PQ_LARGE_MESSAGE_LIMIT`, libpq.h).
const MAX_MESSAGE: u64 = 1 << 30;
/// Bytes of a request's start that are looked at.
const HEAD: usize = 64;

#[inline(always)]
fn length(head: &[u8; HEAD]) -> u64 {
    u64::from(u32::from_be_bytes([head[1], head[2], head[3], head[4]]))
}

/// The server read `len` bytes.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn postgres_request(session: *mut Session, buffer: u64, len: u64, now: u64) -> u64 {
    if session.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    request(session, buffer, len, now);
    0
}

#[inline(always)]
fn request(session: &mut Session, buffer: u64, len: u64, now: u64) {
    match session.mode {
        mode::ACTIVE | mode::TENTATIVE => {
            session.bytes_in += len;
            if session.phase == phase::COPY_IN {
                return;
            }
            // The rest of a long query.
            if session.first == 0 && session.request_skip >= len {
                session.request_skip -= len;
                session.begin = now;
                return;
            }
            follow::forget_names(session, now);
            follow::lose(session);
        }
        mode::IDLE | mode::LOST => fresh(session, buffer, len, now),
        mode::STARTING => start_up(session, buffer, len),
        _ => {}
    }
}

#[inline(always)]
fn fresh(session: &mut Session, buffer: u64, len: u64, now: u64) {
    let mut head = [0u8; HEAD];
    if !fill::<HEAD>((&raw mut head).cast(), buffer, len) {
        return lost(session, now);
    }
    let first_seen = session.seq == 0;
    // A start-up packet begins with its length, which is short.
    if first_seen && head[0] == 0 {
        session.mode = mode::STARTING;
        session.activity = activity::STARTING;
        session.facts |= facts::FROM_START;
        session.record = record::ALL;
        return start_up(session, buffer, len);
    }
    if session.mode == mode::LOST && session.facts & facts::READY == 0 && !first_seen {
        return lost(session, now);
    }
    session.facts &= !(facts::READY | facts::NAMELESS);
    session.phase = phase::MESSAGES;
    session.preparing = 0;
    session.request_skip = 0;
    session.bytes_in = 0;
    let shape = match head[0] {
        b'Q' => query(session, &head, buffer, len),
        b'B' => bind(session, &head, buffer, len, 0),
        b'P' => parse(session, &head, buffer, len),
        b'C' => close(session, &head, buffer, len),
        b'S' if len == SYNC.len() as u64 => Shape::Followed,
        _ => Shape::Odd,
    };
    match shape {
        Shape::Odd | Shape::Silent => {
            // A text may not change what names stand for without the server saying so; other messages do.
            if head[0] == b'Q' {
                follow::lose(session);
            } else {
                lost(session, now);
            }
        }
        shape => follow::begin(session, shape, len, now),
    }
}

#[inline(always)]
fn lost(session: &mut Session, now: u64) {
    follow::forget_names(session, now);
    follow::lose(session);
}

/// The start-up packet: whose session it is. The same packet means the same user and database.
#[inline(always)]
fn start_up(session: &mut Session, buffer: u64, len: u64) {
    /// Protocol 3.x, behind the length.
    const MAJOR: u16 = 3;
    let [length, _, major, _] = peek::<[u16; 4]>(buffer);
    if length == 0
        && u16::from_be(major) == MAJOR
        && let Some(hash) = text::raw(buffer, len)
    {
        session.group = blind::scatter(hash ^ u64::from(session.slot));
    }
}

#[inline(always)]
fn query(session: &mut Session, head: &[u8; HEAD], buffer: u64, len: u64) -> Shape {
    let length = length(head);
    if !(HEADER..MAX_MESSAGE).contains(&length) {
        return Shape::Odd;
    }
    let size = 1 + length;
    if size > len {
        session.request_skip = size - len;
        return Shape::Followed;
    }
    if size != len {
        return Shape::Odd;
    }
    // Without the zero at its end.
    match text::blind(dialect::POSTGRESQL, buffer + HEADER, len - HEADER - 1) {
        Some(hash) => Shape::Execution(hash),
        None => Shape::Followed,
    }
}

/// A name that ends with a zero, at `at` in the head: its hash and its length.
#[inline(always)]
fn name(head: &[u8; HEAD], at: usize) -> Option<(u64, u64)> {
    let mut hash = blind::BASIS;
    for index in 0..MAX_NAME {
        let byte = head[(at + index) & (HEAD - 1)];
        if byte == 0 {
            return Some((blind::scatter(hash), forget(index as u64, hash)));
        }
        hash = blind::fnv(hash, u64::from(byte));
    }
    None
}

/// `Bind` of the unnamed portal, perhaps `Describe`, `Execute`, `Sync`. `prepared` is the name that a `Parse` before it gave, 0 for none, in which case
/// the statement must be one that the session knows.
#[inline(always)]
fn bind(session: &mut Session, head: &[u8; HEAD], buffer: u64, len: u64, prepared: u64) -> Shape {
    let length = length(head);
    if head[0] != b'B' || !(HEADER..MAX_MESSAGE).contains(&length) || head[5] != 0 {
        return Shape::Odd;
    }
    let size = 1 + length;
    if size >= len || !executes(buffer + size, len - size) {
        return Shape::Odd;
    }
    let Some((name, name_len)) = name(head, 6) else { return Shape::Followed };
    if prepared != 0 {
        return if name == prepared { Shape::Followed } else { Shape::Odd };
    }
    let key = blind::fnv(session.names, name);
    // SAFETY: copied at once.
    match unsafe { NAMES.get(key) }.copied() {
        Some(hash) if hash != 0 => Shape::Execution(hash),
        _ => {
            // What the unnamed statement is, userspace may have missed.
            if name_len > 0 {
                session.facts |= facts::NAMELESS;
                session.nameless = key;
            }
            Shape::Followed
        }
    }
}

/// Whether what lies at `at` runs the unnamed portal to its end and nothing else.
#[inline(always)]
fn executes(at: u64, len: u64) -> bool {
    let described = len == (DESCRIBE.len() + EXECUTE_SYNC.len()) as u64;
    let at = if described {
        if peek::<[u8; DESCRIBE.len()]>(at) != DESCRIBE {
            return false;
        }
        at + DESCRIBE.len() as u64
    } else {
        at
    };
    (described || len == EXECUTE_SYNC.len() as u64) && peek::<[u8; EXECUTE_SYNC.len()]>(at) == EXECUTE_SYNC
}

/// `Parse`, then either nothing but a `Describe` of the statement, or its execution; `Sync`.
#[inline(always)]
fn parse(session: &mut Session, head: &[u8; HEAD], buffer: u64, len: u64) -> Shape {
    let length = length(head);
    let size = 1 + length;
    if !(8..MAX_MESSAGE).contains(&length) || size >= len {
        return Shape::Odd;
    }
    let Some((name, name_len)) = name(head, 5) else { return Shape::Odd };
    let from = HEADER + name_len + 1;
    // Behind the text's zero: the number of parameter types, and the types, of which there are none or a few.
    let Some(text_len) = text_len(buffer + from, size - from) else { return Shape::Odd };
    let hash = text::blind(dialect::POSTGRESQL, buffer + from, text_len).unwrap_or(0);
    session.preparing = blind::fnv(session.names, name);
    session.preparing_hash = hash;
    let (rest, left) = (buffer + size, len - size);
    if left == SYNC.len() as u64 {
        return if peek::<[u8; SYNC.len()]>(rest) == SYNC { Shape::Followed } else { Shape::Odd };
    }
    let mut head = [0u8; HEAD];
    if !fill::<HEAD>((&raw mut head).cast(), rest, left) {
        return Shape::Odd;
    }
    if head[0] == b'D' {
        // Of the statement just parsed, since its name is as long, and nothing behind it but `Sync`.
        let described = 1 + self::length(&head);
        let fits = described == HEADER + 1 + name_len + 1
            && head[5] == b'S'
            && left == described + SYNC.len() as u64
            && peek::<[u8; SYNC.len()]>(rest + described) == SYNC;
        return if fits { Shape::Followed } else { Shape::Odd };
    }
    match bind(session, &head, rest, left, name) {
        Shape::Followed if hash != 0 && name_len > 0 => Shape::Introduction(hash),
        Shape::Followed if hash != 0 => Shape::Execution(hash),
        shape => shape,
    }
}

/// Length of a text of which only the end of the message around it is known: it ends with a zero, then the number of types follows.
#[inline(always)]
fn text_len(text: u64, room: u64) -> Option<u64> {
    // A client that gives no types, as nearly all do.
    if room < 3 {
        return None;
    }
    if peek::<[u8; 3]>(text + room - 3) == [0, 0, 0] {
        return Some(room - 3);
    }
    // As many types as fit this many bytes: the number must be where it would then be.
    const MAX_TYPES: u64 = 16;
    for types in 1..=MAX_TYPES {
        let behind = 3 + 4 * types;
        if room < behind {
            return None;
        }
        let [end, high, low] = peek::<[u8; 3]>(text + room - behind);
        if end == 0 && high == 0 && u64::from(low) == types {
            return Some(forget(room - behind, text));
        }
    }
    None
}

/// `Close` of a statement, then `Sync`.
#[inline(always)]
fn close(session: &mut Session, head: &[u8; HEAD], buffer: u64, len: u64) -> Shape {
    let size = 1 + length(head);
    if head[5] != b'S' || len != size + SYNC.len() as u64 || peek::<[u8; SYNC.len()]>(buffer + size) != SYNC {
        return Shape::Odd;
    }
    let Some((name, _)) = name(head, 6) else { return Shape::Odd };
    let _ = NAMES.remove(blind::fnv(session.names, name));
    Shape::Followed
}

/// The server wrote outside of an exchange that the kernel follows.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn postgres_aside(session: *mut Session, buffer: u64, len: u64, now: u64) -> u64 {
    if session.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    aside(session, buffer, len, now);
    0
}

#[inline(always)]
fn aside(session: &mut Session, buffer: u64, len: u64, now: u64) {
    match session.mode {
        mode::IDLE => {
            // A notice or notification, a parameter: whole, and nothing else.
            session.record = record::ALL;
            let head = peek::<[u8; 5]>(buffer);
            let length = u64::from(u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
            if !matches!(head[0], b'N' | b'A' | b'S') || len != 1 + length {
                follow::lose(session);
            }
        }
        mode::STARTING | mode::LOST => {
            session.facts &= !facts::READY;
            const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];
            if len < 6 {
                return;
            }
            let [z, a, b, c, d, status] = peek::<[u8; 6]>(buffer + len - 6);
            if [z, a, b, c, d] == READY && matches!(status, b'I' | b'T' | b'E') {
                session.facts |= facts::READY;
                session.status = u16::from(status);
                session.end = now;
                if session.mode == mode::STARTING {
                    session.mode = mode::IDLE;
                }
                follow::settle(session, now);
            }
        }
        _ => {}
    }
}

/// A walk: the session, and where it is.
#[repr(C)]
struct Walk {
    session: *mut Session,
    place: Place,
}

/// Where a walk is in a write.
#[repr(C)]
struct Place {
    buffer: u64,
    len: u64,
    at: u64,
    /// 1 when the answer is complete.
    ready: u64,
    wrong: u64,
}

/// Walks over the messages of a write; gives one of [`walked`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn postgres_walk(session: *mut Session, buffer: u64, len: u64) -> u64 {
    if session.is_null() {
        return walked::WRONG;
    }
    let mut walk = Walk { session, place: Place { buffer, len, at: 0, ready: 0, wrong: 0 } };
    // A window moves on by at least one of them, or ends the write.
    let windows = (len as u32).min(1 << 20);
    // SAFETY: the helper calls `window` with the given context, at most so many times.
    unsafe { generated::bpf_loop(windows, window as *mut c_void, (&raw mut walk).cast(), 0) };
    let place = &walk.place;
    if place.wrong != 0 || place.at != len {
        walked::WRONG
    } else if place.ready != 0 {
        walked::READY
    } else {
        walked::ON
    }
}

extern "C" fn window(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: the verifier knows it as the caller's stack.
    bit(unsafe { postgres_window((*walk).session, &raw mut (*walk).place) })
}

const GO_ON: i64 = 0;
const STOP: i64 = 1;
/// Messages looked at in one window; the shortest have five bytes.
const MESSAGES: usize = 32;
/// All bytes of a session's scratch.
const SCRATCH: usize = CARRY + WINDOW;

/// One window: a part of the write and what was left over before it.
#[unsafe(no_mangle)]
extern "C" fn postgres_window(session: *mut Session, place: *mut Place) -> i64 {
    if session.is_null() || place.is_null() {
        return STOP;
    }
    // SAFETY: not null, and the verifier knows their sizes.
    let (session, walk) = unsafe { (&mut *session, &mut *place) };
    if session.skip > 0 {
        let skipped = session.skip.min(walk.len - walk.at);
        session.skip -= skipped;
        walk.at = forget(walk.at + skipped, walk.buffer);
    }
    if walk.at >= walk.len {
        return STOP;
    }
    let size = bounded::<WINDOW>(walk.len - walk.at);
    if !fill::<WINDOW>(&raw mut session.scratch[CARRY], walk.buffer + walk.at, size) {
        walk.wrong = 1;
        return STOP;
    }
    let carried = u64::from(session.carry).min(CARRY as u64);
    session.carry = 0;
    let unknown = walk.buffer;
    let start = forget(CARRY as u64 - carried, unknown);
    let mut end = forget(CARRY as u64 + size, unknown);
    let last = walk.at + size == walk.len;
    let mut at = start;
    for _ in 0..MESSAGES {
        (at, end) = (forget(at, unknown), forget(end, unknown));
        if at + HEADER > end {
            break;
        }
        let kind = byte(session, at);
        let length = be32(session, at + 1);
        if !(4..MAX_MESSAGE).contains(&length) || walk.ready != 0 && !matches!(kind, b'N' | b'A' | b'S') {
            walk.wrong = 1;
            return STOP;
        }
        let next = at + 1 + length;
        // What is read of a message must be there; the rest may come later.
        let needed = match kind {
            b'C' => next,
            b'Z' => at + 6,
            b'E' => next.min(at + MAX_ERROR),
            _ => at + HEADER,
        };
        if needed > end {
            if at > start && !last {
                // It is whole in the next window.
                break;
            }
            if last && end - at <= CARRY as u64 {
                break;
            }
            if kind != b'E' {
                walk.wrong = 1;
                return STOP;
            }
        }
        if kind == b'D' {
            session.rows_sent += 1;
        } else {
            match postgres_message(session, kind, at + HEADER, length - 4, end) {
                walked::ON => {}
                walked::READY => walk.ready = 1,
                _ => {
                    walk.wrong = 1;
                    return STOP;
                }
            }
        }
        at = next;
        if at >= end {
            break;
        }
    }
    (at, end) = (forget(at, unknown), forget(end, unknown));
    let before = walk.at;
    if at >= end {
        session.skip = at - end;
        walk.at = forget(before + size, unknown);
        return GO_ON;
    }
    if last {
        let left = end - at;
        if left > CARRY as u64 {
            // More short messages than a window looks at.
            return go_on_from(walk, start, at);
        }
        carry(session, end, left);
        walk.at = forget(before + size, unknown);
        return GO_ON;
    }
    go_on_from(walk, start, at)
}

/// One message of an answer, whose body begins at `at` in the scratch, up to `end` of which there are bytes; gives one of [`walked`].
#[unsafe(no_mangle)]
extern "C" fn postgres_message(session: *mut Session, kind: u8, at: u64, length: u64, end: u64) -> u64 {
    if session.is_null() {
        return walked::WRONG;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    match kind {
        b'C' => tag(session, at, length),
        b'E' => session.code = error_code(session, at, end),
        b'1' => prepared(session),
        b'G' => session.phase = phase::COPY_IN,
        b'Z' => {
            session.status = u16::from(byte(session, at));
            return walked::READY;
        }
        b'2' | b'3' | b't' | b'T' | b'n' | b'I' | b'H' | b'd' | b'c' | b'N' | b'A' | b'S' => {}
        _ => return walked::WRONG,
    }
    walked::ON
}

/// The next window begins at `at`, a place in the scratch, if that is further on than `start`.
#[inline(always)]
fn go_on_from(walk: &mut Place, start: u64, at: u64) -> i64 {
    if at < CARRY as u64 || at == start {
        walk.wrong = 1;
        return STOP;
    }
    walk.at = forget(walk.at + at - CARRY as u64, walk.buffer);
    GO_ON
}

/// Bytes of an error message that are looked at: severity twice, then the code.
const MAX_ERROR: u64 = 64;

#[inline(always)]
fn byte(session: &Session, at: u64) -> u8 {
    session.scratch[at as usize & (SCRATCH - 1)]
}

#[inline(always)]
fn be32(session: &Session, at: u64) -> u64 {
    let mut value = 0;
    for index in 0..4 {
        value = value << 8 | u64::from(byte(session, at + index));
    }
    value
}

/// Keeps the last `left` bytes before `end` for the next write.
#[inline(always)]
fn carry(session: &mut Session, end: u64, left: u64) {
    for index in 1..=CARRY as u64 {
        if index > left {
            break;
        }
        session.scratch[(CARRY as u64 - index) as usize & (SCRATCH - 1)] = byte(session, end - index);
    }
    session.carry = left as u32;
}

/// `CommandComplete`: how many rows it changed, and whether it rolled back.
#[inline(always)]
fn tag(session: &mut Session, at: u64, len: u64) {
    /// Bytes of a tag that are looked at.
    const MAX_TAG: u64 = 40;
    let first = [byte(session, at), byte(session, at + 1), byte(session, at + 2)];
    if first == *b"ROL" {
        session.facts |= facts::ROLLED_BACK;
    }
    // INSERT, UPDATE, DELETE, MERGE; what other commands count are rows sent.
    if !matches!(first, [b'I', b'N', b'S'] | [b'U', b'P', b'D'] | [b'D', b'E', b'L'] | [b'M', b'E', b'R']) {
        return;
    }
    let mut number = 0u64;
    for index in 0..MAX_TAG {
        if index >= len {
            break;
        }
        match byte(session, at + index) {
            digit @ b'0'..=b'9' => number = number * 10 + u64::from(digit - b'0'),
            0 => break,
            _ => number = 0,
        }
    }
    session.rows_affected += number;
}

/// The SQLSTATE of an `ErrorResponse`: the field that begins with `C`, behind those of the severity.
#[inline(always)]
fn error_code(session: &Session, at: u64, end: u64) -> u32 {
    for index in 0..MAX_ERROR {
        let here = at + index;
        if here + 7 > end {
            break;
        }
        if byte(session, here) == 0 && byte(session, here + 1) == b'C' {
            let mut state = [0; 5];
            for (offset, byte_of) in state.iter_mut().enumerate() {
                *byte_of = byte(session, here + 2 + offset as u64);
            }
            return sqlstate(state);
        }
    }
    ending::NO_CODE
}

/// `ParseComplete`: from now on the name stands for the text.
#[inline(always)]
fn prepared(session: &mut Session) {
    let (name, hash) = (session.preparing, session.preparing_hash);
    session.preparing = 0;
    if name != 0 {
        follow::name(name, hash);
    }
}
