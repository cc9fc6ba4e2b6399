//! PostgreSQL's protocol, as far as the kernel follows it (documentation, "Frontend/Backend Protocol").
//!
//! The server flushes `ReadyForQuery` before it reads the next command (`PostgresMain`, backend/tcop/postgres.c), so a read that comes after it
//! begins with a message.

use agent_ebpf::{
    Session, blind,
    blind::dialect,
    row::{ending, sqlstate},
    session::{activity, facts, mode, phase, record},
};

use crate::{
    follow::{self, Shape},
    names,
    scratch::{CARRY, SIZE, Scratch},
    text,
    user::peek,
    verifier::zero,
    walk::{self, Message, Messages, Place, walked},
};

/// Type byte and length.
const HEADER: u64 = 5;
/// `Execute` of the unnamed portal without a limit, then `Sync`: the first and the last eight bytes.
const EXECUTE_SYNC: [u64; 2] =
    [u64::from_le_bytes([b'E', 0, 0, 0, 9, 0, 0, 0]), u64::from_le_bytes([0, 0, 0, b'S', 0, 0, 0, 4])];
const EXECUTE_SYNC_LEN: u64 = 15;
/// `Describe` of the unnamed portal.
const DESCRIBE: u64 = u64::from_le_bytes([b'D', 0, 0, 0, 6, b'P', 0, 0]);
const DESCRIBE_LEN: u64 = 7;
/// `Sync`.
const SYNC: u64 = u64::from_le_bytes([b'S', 0, 0, 0, 4, 0, 0, 0]);
const SYNC_LEN: u64 = 5;
/// `ReadyForQuery` but for its status.
const READY: u64 = u64::from_le_bytes([b'Z', 0, 0, 0, 5, 0, 0, 0]);
const READY_LEN: u64 = 6;
/// The longest message (`PQ_LARGE_MESSAGE_LIMIT`, libpq.h).
const MAX_MESSAGE: u64 = 1 << 30;
/// In place of the name of the unnamed statement that is being prepared.
const UNNAMED: u64 = 1;
/// Bytes of an error message that are looked at: severity twice, then the code.
const MAX_ERROR: u64 = CARRY as u64;

/// A request, or a part of one that begins with a message.
struct Request {
    /// Where it lies in the server's memory, and how many bytes it has.
    buffer: u64,
    len: u64,
    /// Where its first bytes lie in the scratch.
    base: u64,
}

impl Request {
    /// One whose first bytes are read into the scratch; whether they could be.
    #[inline(always)]
    fn read(scratch: &mut Scratch, buffer: u64, len: u64) -> (Request, bool) {
        (Request { buffer, len, base: 0 }, scratch.fill::<0, SIZE>(buffer, len))
    }

    /// The eight bytes from `at` on, which is small.
    #[inline(always)]
    fn head(&self, scratch: &Scratch, at: u64) -> u64 {
        scratch.word(self.base + at)
    }

    /// The `len` bytes before `end`, first one lowest; at most eight. There must be eight bytes before `end`.
    #[inline(always)]
    fn before(&self, scratch: &Scratch, end: u64, len: u64) -> u64 {
        let at = self.base + end;
        let word = match at <= SIZE as u64 {
            true => scratch.word(at - 8),
            false => u64::from_le(peek::<u64>(self.buffer + end - 8)),
        };
        word >> (64 - 8 * len)
    }

    /// Type and size of the message it begins with; size 0 if there can be no such message.
    #[inline(always)]
    fn message(&self, scratch: &Scratch) -> (u8, u64) {
        header(self.head(scratch, 0))
    }

    /// What lies behind its first `size` bytes, and whether it could be read.
    #[inline(always)]
    fn behind(&self, scratch: &mut Scratch, size: u64) -> (Request, bool) {
        let (buffer, len) = (self.buffer + size, self.len - size);
        if self.base + self.len <= SIZE as u64 {
            return (Request { buffer, len, base: self.base + size }, true);
        }
        Request::read(scratch, buffer, len)
    }

    /// Whether it is a `Sync` and nothing else.
    #[inline(always)]
    fn is_sync(&self, scratch: &Scratch) -> bool {
        self.len == SYNC_LEN && self.head(scratch, 0) & ((1 << (8 * SYNC_LEN)) - 1) == SYNC
    }
}

/// Type and size of a message by its header; size 0 if there can be no such message.
#[inline(always)]
fn header(word: u64) -> (u8, u64) {
    let length = u64::from(((word >> 8) as u32).swap_bytes());
    (word as u8, if (4..MAX_MESSAGE).contains(&length) { 1 + length } else { 0 })
}

/// The server read `len` bytes.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn postgres_request(
    session: *mut Session,
    scratch: *mut Scratch,
    buffer: u64,
    len: u64,
    now: u64,
) -> u64 {
    if session.is_null() || scratch.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows their sizes.
    let (session, scratch) = unsafe { (&mut *session, &mut *scratch) };
    request(session, scratch, buffer, len, now);
    0
}

#[inline(always)]
fn request(session: &mut Session, scratch: &mut Scratch, buffer: u64, len: u64, now: u64) {
    match session.mode {
        mode::IDLE | mode::LOST => fresh(session, scratch, buffer, len, now),
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
            lost(session, now);
        }
        mode::STARTING => start_up(session, scratch, buffer, len),
        _ => {}
    }
}

#[inline(always)]
fn fresh(session: &mut Session, scratch: &mut Scratch, buffer: u64, len: u64, now: u64) {
    let (request, read) = Request::read(scratch, buffer, len);
    if !read {
        return lost(session, now);
    }
    let kind = scratch.byte(0);
    if session.mode == mode::LOST {
        let first_seen = session.seq == 0;
        // A start-up packet begins with its length, which is short.
        if first_seen && kind == 0 {
            session.mode = mode::STARTING;
            session.activity = activity::STARTING;
            session.facts |= facts::FROM_START;
            session.record = record::ALL;
            return start_up(session, scratch, buffer, len);
        }
        if session.facts & facts::READY == 0 && !first_seen {
            return lost(session, now);
        }
    }
    session.facts &= !(facts::READY | facts::NAMELESS);
    session.phase = phase::MESSAGES;
    zero(&mut session.preparing);
    zero(&mut session.request_skip);
    zero(&mut session.bytes_in);
    let shape = match kind {
        b'B' => bind(session, scratch, &request, 0),
        b'Q' => query(session, scratch, &request),
        b'P' => match postgres_parse(session, scratch, buffer, len) {
            parsed::INTRODUCTION => Shape::Introduction(session.preparing_hash),
            parsed::EXECUTION => Shape::Execution(session.preparing_hash),
            parsed::FOLLOWED => Shape::Followed,
            _ => Shape::Odd,
        },
        b'C' => match postgres_close(session, scratch, buffer, len) {
            parsed::FOLLOWED => Shape::Followed,
            _ => Shape::Odd,
        },
        b'S' if len == SYNC_LEN => Shape::Followed,
        b'X' => {
            follow::leave(session, now);
            Shape::Odd
        }
        _ => Shape::Odd,
    };
    match shape {
        Shape::Odd | Shape::Silent => {
            // A text may not change what names stand for without the server saying so; other messages do.
            if kind == b'Q' {
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
    names::forget_all(session, now);
    follow::lose(session);
}

/// The start-up packet: whose session it is. The same packet means the same user and database.
#[inline(always)]
fn start_up(session: &mut Session, scratch: &mut Scratch, buffer: u64, len: u64) {
    /// Protocol 3.x, behind the length.
    const MAJOR: u16 = 3;
    let [length, _, major, _] = peek::<[u16; 4]>(buffer);
    if length == 0
        && u16::from_be(major) == MAJOR
        && let Some(hash) = text::raw(scratch, buffer, len)
    {
        session.group = blind::scatter(hash ^ u64::from(session.slot));
    }
}

#[inline(always)]
fn query(session: &mut Session, scratch: &mut Scratch, request: &Request) -> Shape {
    let (_, size) = request.message(scratch);
    // It destroys the unnamed statement.
    session.unnamed = 0;
    if size <= HEADER {
        return Shape::Odd;
    }
    if size > request.len {
        session.request_skip = size - request.len;
        return Shape::Followed;
    }
    if size != request.len {
        return Shape::Odd;
    }
    // Without the zero at its end.
    match text::blind(scratch, dialect::POSTGRESQL, HEADER, request.buffer, size - 1) {
        Some(hash) => Shape::Execution(hash),
        None => Shape::Followed,
    }
}

/// `Bind` of the unnamed portal, perhaps `Describe`, `Execute`, `Sync`. `prepared` is the name that a `Parse` before it gave, 0 for none, in which case
/// the statement must be one that the session knows.
#[inline(always)]
fn bind(session: &mut Session, scratch: &mut Scratch, request: &Request, prepared: u64) -> Shape {
    let head = request.head(scratch, 0);
    let (kind, size) = header(head);
    let portal = head >> (8 * HEADER) & 0xff;
    if kind != b'B' || portal != 0 || size <= HEADER || size >= request.len || !executes(request, scratch, size) {
        return Shape::Odd;
    }
    let (name, length) = names::hashed(scratch, request.base + HEADER + 1);
    if name == 0 {
        return Shape::Followed;
    }
    if prepared != 0 {
        return if name == prepared { Shape::Followed } else { Shape::Odd };
    }
    if length == 0 {
        // Where it is not known, userspace may have missed it too.
        return if session.unnamed == 0 { Shape::Followed } else { Shape::Execution(session.unnamed) };
    }
    let key = blind::mix(session.names, name);
    match names::text_of(session, key) {
        0 => {
            session.facts |= facts::NAMELESS;
            session.nameless = key;
            Shape::Followed
        }
        hash => Shape::Execution(hash),
    }
}

/// Whether what lies behind the first `size` bytes runs the unnamed portal to its end and nothing else.
#[inline(always)]
fn executes(request: &Request, scratch: &Scratch, size: u64) -> bool {
    let (end, left) = (request.len, request.len - size);
    let described = left == DESCRIBE_LEN + EXECUTE_SYNC_LEN;
    (described || left == EXECUTE_SYNC_LEN)
        && request.before(scratch, end, 8) == EXECUTE_SYNC[1]
        && request.before(scratch, end - (EXECUTE_SYNC_LEN - 8), 8) == EXECUTE_SYNC[0]
        && (!described || request.before(scratch, end - EXECUTE_SYNC_LEN, DESCRIBE_LEN) == DESCRIBE)
}

/// A [`Shape`] as global functions give it; the hash is that of the statement being prepared.
mod parsed {
    pub(super) const ODD: u64 = 0;
    pub(super) const FOLLOWED: u64 = 1;
    pub(super) const EXECUTION: u64 = 2;
    pub(super) const INTRODUCTION: u64 = 3;
}

/// As [`parse`], of a request that was read into the scratch.
#[unsafe(no_mangle)]
extern "C" fn postgres_parse(session: *mut Session, scratch: *mut Scratch, buffer: u64, len: u64) -> u64 {
    if session.is_null() || scratch.is_null() {
        return parsed::ODD;
    }
    // SAFETY: not null, and the verifier knows their sizes.
    let (session, scratch) = unsafe { (&mut *session, &mut *scratch) };
    match parse(session, scratch, Request { buffer, len, base: 0 }) {
        Shape::Followed => parsed::FOLLOWED,
        Shape::Execution(_) => parsed::EXECUTION,
        Shape::Introduction(_) => parsed::INTRODUCTION,
        Shape::Odd | Shape::Silent => parsed::ODD,
    }
}

/// `Parse`, then either nothing but a `Describe` of the statement, or its execution; `Sync`.
#[inline(always)]
fn parse(session: &mut Session, scratch: &mut Scratch, request: Request) -> Shape {
    let (_, size) = request.message(scratch);
    if size < 9 || size >= request.len {
        return Shape::Odd;
    }
    let (name, name_len) = names::hashed(scratch, HEADER);
    if name == 0 {
        return Shape::Odd;
    }
    let from = HEADER + name_len + 1;
    // Behind the text's zero: the number of parameter types, and the types, of which there are none or a few.
    let text_end = text_end(&request, scratch, from, size);
    if text_end == 0 {
        return Shape::Odd;
    }
    let hash = text::blind(scratch, dialect::POSTGRESQL, from, request.buffer, text_end).unwrap_or(0);
    session.preparing = if name_len == 0 { UNNAMED } else { blind::mix(session.names, name) };
    session.preparing_hash = hash;
    if name_len == 0 {
        session.unnamed = 0;
    }
    let (rest, read) = request.behind(scratch, size);
    if !read {
        return Shape::Odd;
    }
    if rest.is_sync(scratch) {
        return Shape::Followed;
    }
    let head = rest.head(scratch, 0);
    let (kind, described) = header(head);
    if kind == b'D' {
        // Of the statement just parsed, since its name is as long, and nothing behind it but `Sync`.
        let of_statement = head >> (8 * HEADER) & 0xff == u64::from(b'S');
        let fits = of_statement && described == HEADER + 1 + name_len + 1 && rest.len == described + SYNC_LEN;
        return if fits && rest.before(scratch, rest.len, SYNC_LEN) == SYNC { Shape::Followed } else { Shape::Odd };
    }
    match bind(session, scratch, &rest, name) {
        Shape::Followed if hash != 0 && name_len > 0 => Shape::Introduction(hash),
        Shape::Followed if hash != 0 => Shape::Execution(hash),
        shape => shape,
    }
}

/// Where a text ends of which only its beginning and the end of the message around it are known; 0 if nowhere. It ends with a zero, then the number of
/// parameter types and the types follow.
#[inline(always)]
fn text_end(request: &Request, scratch: &Scratch, from: u64, size: u64) -> u64 {
    /// The zero and the number.
    const COUNT: u64 = 3;
    // Most clients give no types; else as many as fit these bytes: the number must be where it would then be.
    const MAX_TYPES: u64 = 16;
    for types in 0..=MAX_TYPES {
        let behind = 4 * types;
        if from + COUNT + behind > size {
            return 0;
        }
        if request.before(scratch, size - behind, COUNT) == types << 16 {
            return size - behind - COUNT;
        }
    }
    0
}

/// `Close` of a statement, then `Sync`; gives what is in [`parsed`].
#[unsafe(no_mangle)]
extern "C" fn postgres_close(session: *mut Session, scratch: *const Scratch, buffer: u64, len: u64) -> u64 {
    if session.is_null() || scratch.is_null() {
        return parsed::ODD;
    }
    // SAFETY: not null, and the verifier knows their sizes.
    let (session, scratch) = unsafe { (&mut *session, &*scratch) };
    let request = Request { buffer, len, base: 0 };
    let head = request.head(scratch, 0);
    let (_, size) = header(head);
    let of_statement = head >> (8 * HEADER) & 0xff == u64::from(b'S');
    if !of_statement || request.len != size + SYNC_LEN || request.before(scratch, request.len, SYNC_LEN) != SYNC {
        return parsed::ODD;
    }
    let (name, _) = names::hashed(scratch, HEADER + 1);
    if name == 0 {
        return parsed::ODD;
    }
    let key = blind::mix(session.names, name);
    names::forget(session, key);
    parsed::FOLLOWED
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
            let [kind, length @ ..] = peek::<[u8; 5]>(buffer);
            if !is_unasked(kind) || len != 1 + u64::from(u32::from_be_bytes(length)) {
                follow::lose(session);
            }
        }
        mode::STARTING | mode::LOST => {
            session.facts &= !facts::READY;
            let status = ready(buffer, len);
            if status != 0 {
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

/// The status of the `ReadyForQuery` with which a write ends, 0 if it does not.
#[inline(always)]
pub(crate) fn ready(buffer: u64, len: u64) -> u8 {
    if len < READY_LEN {
        return 0;
    }
    let [z, a, b, c, d, status] = peek::<[u8; READY_LEN as usize]>(buffer + len - READY_LEN);
    if [z, a, b, c, d] == READY.to_le_bytes()[..5] && matches!(status, b'I' | b'T' | b'E') { status } else { 0 }
}

/// Whether a message may come at any time: a notice, a notification, a parameter.
#[inline(always)]
fn is_unasked(kind: u8) -> bool {
    matches!(kind, b'N' | b'A' | b'S')
}

/// [`walk::window`] over messages.
#[unsafe(no_mangle)]
extern "C" fn postgres_window(session: *mut Session, scratch: *mut Scratch, place: *mut Place) -> u64 {
    walk::window::<Postgres>(session, scratch, place)
}

/// PostgreSQL's messages.
pub(crate) struct Postgres;

impl Messages for Postgres {
    const HEADER: u64 = HEADER;
    const MOST: usize = 32;

    #[inline(always)]
    fn header(_: &mut Session, scratch: &Scratch, at: u64, ready: bool) -> Message {
        let (kind, size) = header(scratch.word(at));
        if ready && !is_unasked(kind) {
            return Message { size: 0, needed: 0 };
        }
        let needed = match kind {
            b'C' => size,
            b'Z' => READY_LEN,
            b'E' => size.min(MAX_ERROR),
            _ => HEADER,
        };
        Message { size, needed }
    }

    #[inline(always)]
    fn message(session: &mut Session, scratch: &mut Scratch, at: u64, size: u64, end: u64) -> u64 {
        // The most frequent ones, without a call.
        match scratch.byte(at) {
            b'D' => session.rows_sent += 1,
            b'2' | b'T' => {}
            // How many rows a SELECT gave is known already; one that gave none may have made a table of them.
            b'C' if scratch.byte(at + HEADER) == b'S' && session.rows_sent != 0 => {}
            b'Z' => {
                session.status = u16::from(scratch.byte(at + HEADER));
                return walked::READY;
            }
            _ => return postgres_message(session, scratch, at, size, end),
        }
        walked::ON
    }

    #[inline(always)]
    fn ends(_: &Session) -> bool {
        false
    }

    #[inline(always)]
    fn window(session: *mut Session, scratch: *mut Scratch, place: *mut Place) -> u64 {
        postgres_window(session, scratch, place)
    }
}

/// One of the rarer messages, at `at` in the scratch, up to `end` of which there are bytes; gives one of [`walked`].
#[unsafe(no_mangle)]
extern "C" fn postgres_message(session: *mut Session, scratch: *mut Scratch, at: u64, size: u64, end: u64) -> u64 {
    if session.is_null() || scratch.is_null() {
        return walked::WRONG;
    }
    // SAFETY: not null, and the verifier knows their sizes.
    let (session, scratch) = unsafe { (&mut *session, &*scratch) };
    match scratch.byte(at) {
        b'C' => tag(session, scratch, at + HEADER, size - HEADER),
        b'E' => session.code = error_code(scratch, at + HEADER, end),
        b'1' => prepared(session),
        b'G' => session.phase = phase::COPY_IN,
        b'H' => session.phase = phase::COPY_OUT,
        b't' | b'n' | b'3' | b'I' | b'd' | b'c' | b'N' | b'A' | b'S' => {}
        _ => return walked::WRONG,
    }
    walked::ON
}

/// `CommandComplete`: how many rows it changed or copied, and whether it rolled back.
#[inline(always)]
fn tag(session: &mut Session, scratch: &Scratch, at: u64, len: u64) {
    /// Bytes of a tag that are looked at.
    const MAX_TAG: u64 = 40;
    let first = scratch.word(at).to_le_bytes();
    if first.starts_with(b"ROL") {
        session.facts |= facts::ROLLED_BACK;
    }
    let copy = first.starts_with(b"COP");
    // SELECT comes here where nothing was sent: CREATE TABLE AS and SELECT INTO. What other commands count are rows sent.
    if !copy && !([*b"INS", *b"UPD", *b"DEL", *b"MER", *b"SEL"].iter().any(|command| first.starts_with(command))) {
        return;
    }
    let mut number = 0u64;
    for index in 0..MAX_TAG {
        if index >= len {
            break;
        }
        match scratch.byte(at + index) {
            digit @ b'0'..=b'9' => number = number * 10 + u64::from(digit - b'0'),
            0 => break,
            _ => number = 0,
        }
    }
    match session.phase {
        phase::COPY_OUT if copy => session.rows_sent += number,
        // A file of the server's: nothing tells which way the rows went.
        phase::MESSAGES if copy => {}
        _ => session.rows_affected += number,
    }
}

/// The SQLSTATE of an `ErrorResponse`: the field that begins with `C`, behind those of the severity.
#[inline(always)]
fn error_code(scratch: &Scratch, at: u64, end: u64) -> u32 {
    for index in 0..MAX_ERROR {
        let here = at + index;
        if here + 7 > end {
            break;
        }
        if let [0, b'C', a, b, c, d, e, _] = scratch.word(here).to_le_bytes() {
            return sqlstate([a, b, c, d, e]);
        }
    }
    ending::NO_CODE
}

/// `ParseComplete`: from now on the name stands for the text.
#[inline(always)]
fn prepared(session: &mut Session) {
    let (name, hash) = (session.preparing, session.preparing_hash);
    session.preparing = 0;
    match name {
        0 => {}
        UNNAMED => session.unnamed = hash,
        name => names::set(session, name, hash),
    }
}
