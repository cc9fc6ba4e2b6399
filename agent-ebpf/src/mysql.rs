//! The protocol of MySQL and MariaDB, as far as the kernel follows it (MySQL source documentation, "Client/Server Protocol").
//!
//! A server reads the next command only when the answer to the one before is complete. It reads a packet's header and its payload one after
//! the other; the header is kept until the payload tells what it is.

use core::ffi::c_void;

use agent_ebpf::{
    Session, blind,
    blind::dialect,
    row::ending,
    session::{CARRY, WINDOW, activity, facts, group, mode, phase, record},
};
use aya_ebpf::helpers::generated;

use crate::{
    follow::{self, Shape, walked},
    maps::NAMES,
    text,
    user::{fill, peek},
    verifier::{bit, bounded, forget},
};

/// Bits of the server's status (`SERVER_STATUS_flags_enum`, include/mysql_com.h).
pub(crate) mod status {
    /// A transaction is open.
    pub(crate) const IN_TRANSACTION: u16 = 0x1;
    /// Another result follows.
    pub(crate) const MORE_RESULTS: u16 = 0x8;
    /// The result is read through a cursor.
    pub(crate) const CURSOR: u16 = 0x40;
    /// A backslash is a character like any other.
    pub(crate) const NO_BACKSLASH_ESCAPES: u16 = 0x200;
}

/// Commands (`enum_server_command`, include/my_command.h; MariaDB's include/mysql_com.h).
mod command {
    pub(super) const QUIT: u8 = 0x01;
    pub(super) const INIT_DB: u8 = 0x02;
    pub(super) const QUERY: u8 = 0x03;
    pub(super) const PING: u8 = 0x0e;
    pub(super) const BINLOG_DUMP: u8 = 0x12;
    pub(super) const STMT_PREPARE: u8 = 0x16;
    pub(super) const STMT_EXECUTE: u8 = 0x17;
    pub(super) const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub(super) const STMT_CLOSE: u8 = 0x19;
    pub(super) const STMT_RESET: u8 = 0x1a;
    pub(super) const SET_OPTION: u8 = 0x1b;
    pub(super) const BINLOG_DUMP_GTID: u8 = 0x1e;
    pub(super) const RESET_CONNECTION: u8 = 0x1f;
}

/// Capabilities of a client (include/mysql_com.h) that matter here.
mod capability {
    pub(super) const CONNECT_WITH_DB: u32 = 1 << 3;
    pub(super) const COMPRESS: u32 = 1 << 5;
    pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(super) const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub(super) const ZSTD: u32 = 1 << 26;
}

const HEADER: u64 = 4;
/// In place of the name of a statement that is being prepared.
const ANY_NAME: u64 = 1;
/// A payload of this length goes on in the next packet.
const CONTINUED: u64 = 0xff_ffff;
/// Payload of an EOF packet: header, warnings, status.
const EOF_LEN: u64 = 5;
/// Error number of MariaDB's progress reports, which end nothing.
const PROGRESS: u32 = 0xffff;

/// The server read `len` bytes.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mysql_request(session: *mut Session, buffer: u64, len: u64, now: u64) -> u64 {
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
            // The rest of a long command.
            if session.first == 0 && session.request_skip >= len {
                session.request_skip -= len;
                session.begin = now;
                return;
            }
            follow::lose(session);
        }
        mode::IDLE | mode::LOST | mode::STARTING => {
            session.record = record::ALL;
            fresh(session, buffer, len, now);
        }
        _ => {}
    }
}

#[inline(always)]
fn fresh(session: &mut Session, buffer: u64, len: u64, now: u64) {
    if session.facts & facts::OPAQUE != 0 {
        return;
    }
    session.facts &= !facts::NAMELESS;
    session.preparing = 0;
    let (payload, length) = if session.facts & facts::HEADER != 0 {
        session.facts &= !facts::HEADER;
        (buffer, session.request_skip)
    } else {
        let word = u32::from_le(peek::<u32>(buffer));
        let (length, sequence) = (u64::from(word & 0xff_ffff), word >> 24);
        if len < HEADER || length == 0 || length == CONTINUED {
            return follow::lose(session);
        }
        if sequence != 0 {
            // Authentication, a file, or the middle of something.
            if session.mode == mode::STARTING {
                if len == HEADER {
                    // What matters of a handshake is in the read that follows.
                    return;
                }
                return handshake(session, buffer + HEADER, len - HEADER);
            }
            return follow::lose(session);
        }
        if session.mode == mode::STARTING {
            // Only in the command phase do packets of the client begin with 0.
            session.mode = mode::IDLE;
        }
        session.bytes_in = HEADER;
        if len == HEADER {
            session.facts |= facts::HEADER;
            session.request_header = u64::from(word);
            session.request_skip = length;
            session.record = record::NOTHING;
            return;
        }
        (buffer + HEADER, length)
    };
    let here = len - (payload - buffer);
    if session.mode == mode::STARTING {
        return handshake(session, payload, here);
    }
    session.request_skip = 0;
    if here > length {
        return follow::lose(session);
    }
    match recognise(session, payload, length, here, now) {
        Shape::Odd => follow::lose(session),
        Shape::Silent => {
            session.request_skip = length - here;
            session.bytes_in = 0;
            if here < length {
                follow::lose(session);
            }
        }
        shape => {
            session.request_skip = length - here;
            session.packet = 1;
            follow::begin(session, shape, here, now);
        }
    }
}

#[inline(always)]
fn recognise(session: &mut Session, payload: u64, length: u64, here: u64, now: u64) -> Shape {
    let command = peek::<u8>(payload);
    session.phase = phase::SIMPLE;
    let whole = here == length;
    match command {
        command::QUERY => {
            session.phase = phase::HEAD;
            // No attributes (`CLIENT_QUERY_ATTRIBUTES`): their number and that of their sets. No text begins with a zero.
            let skip = match peek::<[u8; 2]>(payload + 1) {
                [0, 1] => 3,
                [0, _] => return Shape::Followed,
                _ => 1,
            };
            if !whole || length <= skip || session.status & status::NO_BACKSLASH_ESCAPES != 0 {
                return Shape::Followed;
            }
            match text::blind(dialect::MYSQL, payload + skip, length - skip) {
                Some(hash) => Shape::Execution(hash),
                None => Shape::Followed,
            }
        }
        command::STMT_EXECUTE => {
            session.phase = phase::HEAD;
            let (id, flags) = (u32::from_le(peek::<u32>(payload + 1)), peek::<u8>(payload + 5));
            // With a cursor the result comes later; MariaDB calls the statement prepared last -1.
            if flags != 0 || id == u32::MAX {
                return Shape::Odd;
            }
            let key = statement(session, id);
            // SAFETY: copied at once.
            match unsafe { NAMES.get(key) }.copied() {
                Some(hash) if hash != 0 && whole => Shape::Execution(hash),
                Some(hash) if hash != 0 => Shape::Followed,
                _ => {
                    session.facts |= facts::NAMELESS;
                    session.nameless = key;
                    Shape::Followed
                }
            }
        }
        command::STMT_PREPARE => {
            session.phase = phase::PREPARED;
            // The server chooses the name.
            session.preparing = ANY_NAME;
            session.preparing_hash = match whole && session.status & status::NO_BACKSLASH_ESCAPES == 0 {
                true => text::blind(dialect::MYSQL, payload + 1, length - 1).unwrap_or(0),
                false => 0,
            };
            Shape::Followed
        }
        command::STMT_CLOSE => {
            let _ = NAMES.remove(statement(session, u32::from_le(peek::<u32>(payload + 1))));
            Shape::Silent
        }
        command::STMT_SEND_LONG_DATA => Shape::Silent,
        command::RESET_CONNECTION => {
            follow::forget_names(session, now);
            Shape::Followed
        }
        command::PING | command::INIT_DB | command::STMT_RESET | command::SET_OPTION => Shape::Followed,
        command::BINLOG_DUMP | command::BINLOG_DUMP_GTID => {
            // Userspace sees this request and nothing of what follows.
            session.mode = mode::IGNORED;
            Shape::Silent
        }
        command::QUIT => Shape::Silent,
        // Among them COM_CHANGE_USER, after which ids begin anew.
        _ => {
            follow::forget_names(session, now);
            Shape::Odd
        }
    }
}

#[inline(always)]
fn statement(session: &Session, id: u32) -> u64 {
    blind::fnv(session.names, blind::scatter(u64::from(id)))
}

/// The client's handshake response ("Protocol::HandshakeResponse41"): whose session it is, and whether it can be followed.
#[inline(always)]
fn handshake(session: &mut Session, payload: u64, len: u64) {
    /// Capabilities, the largest packet, character set, filler.
    const FIXED: u64 = 32;
    /// Bytes of a name that are looked at: 32 characters of up to 4 bytes (user), 64 characters (schema).
    const MAX_NAME: u64 = 128;
    if session.group >= group::GIVEN || len <= FIXED {
        return;
    }
    let capabilities = u32::from_le(peek::<u32>(payload));
    if capabilities & (capability::COMPRESS | capability::ZSTD) != 0 {
        session.facts |= facts::OPAQUE;
    }
    let Some((user, user_len)) = text::until_zero(payload + FIXED, MAX_NAME) else { return };
    let mut at = payload + FIXED + user_len + 1;
    let mut database = 0;
    if capabilities & (capability::PLUGIN_AUTH_LENENC | capability::SECURE_CONNECTION) != 0 {
        // One byte, since no method answers with more than 250 bytes here.
        at += 1 + u64::from(peek::<u8>(at));
        if capabilities & capability::CONNECT_WITH_DB != 0
            && let Some((hash, _)) = text::until_zero(at, MAX_NAME)
        {
            database = hash;
        }
    }
    session.group = blind::scatter(blind::fnv(user, database) ^ u64::from(session.slot));
}

/// The server wrote outside of an exchange that the kernel follows.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mysql_aside(session: *mut Session, buffer: u64, len: u64) -> u64 {
    if session.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    aside(session, buffer, len);
    0
}

#[inline(always)]
fn aside(session: &mut Session, buffer: u64, len: u64) {
    /// First payload byte of a greeting ("Protocol::HandshakeV10").
    const GREETING: u8 = 10;
    if session.mode == mode::LOST && session.seq == 0 {
        let [_, _, _, sequence, first] = peek::<[u8; 5]>(buffer);
        if sequence == 0 && first == GREETING && len > HEADER {
            session.mode = mode::STARTING;
            session.activity = activity::STARTING;
            session.facts |= facts::FROM_START;
        }
    } else if session.mode == mode::IDLE {
        // A server that says something unasked ends the session, or does not speak as expected.
        follow::lose(session);
    }
    if session.mode != mode::IGNORED {
        session.record = record::ALL;
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

/// Walks over the packets of a write; gives one of [`walked`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mysql_walk(session: *mut Session, buffer: u64, len: u64) -> u64 {
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
    bit(unsafe { mysql_window((*walk).session, &raw mut (*walk).place) })
}

const GO_ON: i64 = 0;
const STOP: i64 = 1;
/// Packets looked at in one window; the shortest row has five bytes.
const PACKETS: usize = 24;
/// All bytes of a session's scratch.
const SCRATCH: usize = CARRY + WINDOW;
/// Bytes of a packet that are looked at where it ends a result: up to the status behind two numbers of nine bytes.
const LOOK: u64 = HEADER + 1 + 9 + 9 + 2;

/// One window: a part of the write and what was left over before it.
#[unsafe(no_mangle)]
extern "C" fn mysql_window(session: *mut Session, place: *mut Place) -> i64 {
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
        return wrong(walk);
    }
    let carried = u64::from(session.carry).min(CARRY as u64);
    session.carry = 0;
    let unknown = walk.buffer;
    let start = forget(CARRY as u64 - carried, unknown);
    let mut end = forget(CARRY as u64 + size, unknown);
    let last = walk.at + size == walk.len;
    let mut at = start;
    for _ in 0..PACKETS {
        (at, end) = (forget(at, unknown), forget(end, unknown));
        if at + HEADER > end {
            break;
        }
        let word = le(session, at, 4);
        let (length, sequence) = (word & 0xff_ffff, (word >> 24) as u16);
        let next = at + HEADER + length;
        if sequence != session.packet & 0xff || length == CONTINUED || length == 0 || walk.ready != 0 {
            return wrong(walk);
        }
        if next.min(at + LOOK) > end {
            if at == start && !last {
                return wrong(walk);
            }
            break;
        }
        session.packet = sequence + 1;
        let first = byte(session, at + HEADER);
        if session.phase == phase::ROWS && first < first::EOF {
            session.rows_sent += 1;
        } else {
            match mysql_packet(session, at + HEADER, length) {
                walked::ON => {}
                walked::READY => walk.ready = 1,
                _ => return wrong(walk),
            }
        }
        at = next;
        if at >= end {
            break;
        }
    }
    (at, end) = (forget(at, unknown), forget(end, unknown));
    let next = if at >= end {
        session.skip = at - end;
        walk.at + size
    } else if last && end - at <= LOOK {
        carry(session, end, end - at);
        walk.at + size
    } else if at > start && at >= CARRY as u64 {
        walk.at + at - CARRY as u64
    } else {
        return wrong(walk);
    };
    walk.at = forget(next, unknown);
    if walk.at == walk.len && session.skip == 0 && session.carry == 0 && ends_preparation(session) {
        walk.ready = 1;
    }
    GO_ON
}

#[inline(always)]
fn wrong(walk: &mut Place) -> i64 {
    walk.wrong = 1;
    STOP
}

/// The definitions behind a preparation may end with an EOF packet or without; what tells is that the write ends, since they are sent together.
#[inline(always)]
fn ends_preparation(session: &Session) -> bool {
    session.phase == phase::DEFINITIONS && session.left == 0
}

#[inline(always)]
fn byte(session: &Session, at: u64) -> u8 {
    session.scratch[at as usize & (SCRATCH - 1)]
}

/// A number of `bytes` bytes, lowest first.
#[inline(always)]
fn le(session: &Session, at: u64, bytes: u64) -> u64 {
    let mut value = 0;
    for index in 0..bytes {
        value |= u64::from(byte(session, at + index)) << (8 * index);
    }
    value
}

/// Keeps the last `left` bytes before `end` for the next write.
#[inline(always)]
fn carry(session: &mut Session, end: u64, left: u64) {
    for index in 1..=LOOK {
        if index > left {
            break;
        }
        session.scratch[(CARRY as u64 - index) as usize & (SCRATCH - 1)] = byte(session, end - index);
    }
    session.carry = left as u32;
}

/// A number of variable length ("Protocol::LengthEncodedInteger") and the bytes it takes.
#[inline(always)]
fn lenenc(session: &Session, at: u64) -> (u64, u64) {
    match byte(session, at) {
        0xfc => (le(session, at + 1, 2), 3),
        0xfd => (le(session, at + 1, 3), 4),
        0xfe => (le(session, at + 1, 8), 9),
        small => (u64::from(small), 1),
    }
}

/// First bytes of packets.
mod first {
    pub(super) const OK: u8 = 0;
    pub(super) const LOCAL_INFILE: u8 = 0xfb;
    pub(super) const EOF: u8 = 0xfe;
    pub(super) const ERR: u8 = 0xff;
}

/// One packet of an answer, whose payload begins at `at` in the scratch; gives one of [`walked`].
#[unsafe(no_mangle)]
extern "C" fn mysql_packet(session: *mut Session, at: u64, length: u64) -> u64 {
    if session.is_null() {
        return walked::WRONG;
    }
    // SAFETY: not null, and the verifier knows its size.
    packet(unsafe { &mut *session }, at, length)
}

#[inline(always)]
fn packet(session: &mut Session, at: u64, length: u64) -> u64 {
    use first::{EOF, ERR, LOCAL_INFILE, OK};
    let first = byte(session, at);
    if first == ERR && session.phase != phase::COLUMNS {
        let code = le(session, at + 1, 2) as u32;
        if code == PROGRESS {
            return walked::ON;
        }
        session.code = if code == 0 { ending::NO_CODE } else { code };
        return walked::READY;
    }
    match session.phase {
        phase::HEAD | phase::SIMPLE if first == OK => ended(session, at),
        phase::SIMPLE if first == EOF => ended_by_eof(session, at, length),
        phase::HEAD if first == LOCAL_INFILE || first == EOF => walked::WRONG,
        phase::HEAD => {
            let (columns, taken) = lenenc(session, at);
            // A flag behind the number: the definitions are left out.
            let left_out = length == taken + 1 && byte(session, at + taken) == 0;
            if columns == 0 || columns > 4096 || length > taken + 1 {
                return walked::WRONG;
            }
            session.left = columns as u32;
            session.phase = if left_out { phase::BEHIND_COLUMNS } else { phase::COLUMNS };
            walked::ON
        }
        phase::COLUMNS => {
            session.left = session.left.wrapping_sub(1);
            if session.left == 0 {
                session.phase = phase::BEHIND_COLUMNS;
            }
            walked::ON
        }
        phase::BEHIND_COLUMNS if first == EOF && length == EOF_LEN => {
            session.phase = phase::ROWS;
            // With a cursor the rows are fetched by other commands.
            if le(session, at + 3, 2) as u16 & status::CURSOR != 0 { walked::WRONG } else { walked::ON }
        }
        phase::BEHIND_COLUMNS | phase::ROWS if first == EOF && length < CONTINUED => ended_by_eof(session, at, length),
        phase::BEHIND_COLUMNS | phase::ROWS => {
            session.phase = phase::ROWS;
            session.rows_sent += 1;
            walked::ON
        }
        phase::PREPARED if first == OK => {
            follow::name(statement(session, le(session, at + 1, 4) as u32), session.preparing_hash);
            session.left = (le(session, at + 5, 2) + le(session, at + 7, 2)) as u32;
            // A flag at the end: the definitions are left out.
            if length > 12 && byte(session, at + 12) == 0 {
                session.left = 0;
            }
            session.phase = phase::DEFINITIONS;
            walked::ON
        }
        phase::DEFINITIONS => {
            if first != EOF || length != EOF_LEN {
                if session.left == 0 {
                    return walked::WRONG;
                }
                session.left -= 1;
            }
            walked::ON
        }
        _ => walked::WRONG,
    }
}

/// A packet that begins like an EOF packet and ends a result: a real one, or an OK packet in its place.
#[inline(always)]
fn ended_by_eof(session: &mut Session, at: u64, length: u64) -> u64 {
    if length == EOF_LEN {
        return result(session, le(session, at + 3, 2) as u16);
    }
    ended(session, at)
}

/// An OK packet ends a result.
#[inline(always)]
fn ended(session: &mut Session, at: u64) -> u64 {
    let (affected, taken) = lenenc(session, at + 1);
    let (_, inserted) = lenenc(session, at + 1 + taken);
    session.rows_affected += affected;
    result(session, le(session, at + 1 + taken + inserted, 2) as u16)
}

#[inline(always)]
fn result(session: &mut Session, status: u16) -> u64 {
    session.status = status;
    if status & status::MORE_RESULTS == 0 {
        return walked::READY;
    }
    session.phase = phase::HEAD;
    walked::ON
}
