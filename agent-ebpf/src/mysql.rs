//! The protocol of MySQL and MariaDB, as far as the kernel follows it (MySQL source documentation, "Client/Server Protocol").
//!
//! A server reads the next command only when the answer to the one before is complete. It reads a packet's header and its payload one after
//! the other; the header is kept until the payload tells what it is.

use agent_ebpf::{
    Session, blind,
    blind::dialect,
    row::ending,
    session::{activity, facts, group, mode, phase, record},
};

use crate::{
    follow::{self, Shape},
    names,
    scratch::{SIZE, Scratch},
    text,
    user::peek,
    verifier::zero,
    walk::{self, Message, Messages, Place, walked},
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

/// `ER_LOCK_DEADLOCK` (include/mysqld_error.h): the server has rolled back the whole transaction.
pub(crate) const DEADLOCK: u32 = 1213;
/// Makes upper case of ASCII letters, and nonsense of other characters, which is no word then.
const UPPER: u64 = 0xdfdf_dfdf_dfdf_dfdf;

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
pub(crate) extern "C" fn mysql_request(
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
            fresh(session, scratch, buffer, len, now);
        }
        _ => {}
    }
}

#[inline(always)]
fn fresh(session: &mut Session, scratch: &mut Scratch, buffer: u64, len: u64, now: u64) {
    if session.facts & facts::OPAQUE != 0 {
        return;
    }
    session.facts &= !facts::NAMELESS;
    zero(&mut session.preparing);
    if !scratch.fill::<0, SIZE>(buffer, len) {
        return follow::lose(session);
    }
    // Where the payload begins, and how long it is.
    let (at, length) = if session.facts & facts::HEADER != 0 {
        session.facts &= !facts::HEADER;
        (0, session.request_skip)
    } else {
        let word = scratch.word(0) as u32;
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
                return handshake(session, scratch, buffer, HEADER, len);
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
            session.request_header = word;
            session.request_skip = length;
            session.record = record::NOTHING;
            return;
        }
        (HEADER, length)
    };
    let here = len - at;
    if session.mode == mode::STARTING {
        return handshake(session, scratch, buffer, at, len);
    }
    zero(&mut session.request_skip);
    if here > length {
        return follow::lose(session);
    }
    match recognise(session, scratch, buffer, at, length, here, now) {
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

/// The command whose payload of `length` bytes begins at `at` in the scratch; `here` of them were read.
#[inline(always)]
fn recognise(
    session: &mut Session,
    scratch: &mut Scratch,
    buffer: u64,
    at: u64,
    length: u64,
    here: u64,
    now: u64,
) -> Shape {
    let head = scratch.word(at);
    let command = head as u8;
    // Behind the command, where it is about a statement.
    let id = (head >> 8) as u32;
    session.phase = phase::SIMPLE;
    let whole = here == length;
    match command {
        command::QUERY => {
            session.phase = phase::HEAD;
            // No attributes (`CLIENT_QUERY_ATTRIBUTES`): their number and that of their sets. No text begins with a zero.
            let skip = match head.to_le_bytes() {
                [_, 0, 1, ..] => 3,
                [_, 0, ..] => return Shape::Followed,
                _ => 1,
            };
            if scratch.word(at + skip) & UPPER == u64::from_le_bytes(*b"ROLLBACK") {
                session.facts |= facts::ROLLED_BACK;
            }
            if !whole || length <= skip || session.status & status::NO_BACKSLASH_ESCAPES != 0 {
                return Shape::Followed;
            }
            match text::blind(scratch, dialect::MYSQL, at + skip, buffer, at + length) {
                Some(hash) => Shape::Execution(hash),
                None => Shape::Followed,
            }
        }
        command::STMT_EXECUTE => {
            session.phase = phase::HEAD;
            let flags = (head >> 40) as u8;
            // With a cursor the result comes later; MariaDB calls the statement prepared last -1.
            if flags != 0 || id == u32::MAX {
                return Shape::Odd;
            }
            let key = statement(session, id);
            match names::text_of(session, key) {
                0 => {
                    session.facts |= facts::NAMELESS;
                    session.nameless = key;
                    Shape::Followed
                }
                hash if whole => Shape::Execution(hash),
                _ => Shape::Followed,
            }
        }
        command::STMT_PREPARE => {
            session.phase = phase::PREPARED;
            // The server chooses the name.
            session.preparing = ANY_NAME;
            session.preparing_hash = match whole && session.status & status::NO_BACKSLASH_ESCAPES == 0 {
                true => text::blind(scratch, dialect::MYSQL, at + 1, buffer, at + length).unwrap_or(0),
                false => 0,
            };
            Shape::Followed
        }
        command::STMT_CLOSE => {
            let name = statement(session, id);
            names::forget(session, name);
            Shape::Silent
        }
        command::STMT_SEND_LONG_DATA => Shape::Silent,
        command::RESET_CONNECTION => {
            names::forget_all(session, now);
            Shape::Followed
        }
        command::PING | command::INIT_DB | command::STMT_RESET | command::SET_OPTION => Shape::Followed,
        command::BINLOG_DUMP | command::BINLOG_DUMP_GTID => {
            // Userspace sees this request and nothing of what follows.
            session.mode = mode::IGNORED;
            Shape::Silent
        }
        command::QUIT => {
            follow::leave(session, now);
            Shape::Silent
        }
        // Among them COM_CHANGE_USER, after which ids begin anew.
        _ => {
            names::forget_all(session, now);
            Shape::Odd
        }
    }
}

#[inline(always)]
fn statement(session: &Session, id: u32) -> u64 {
    blind::mix(session.names, blind::scatter(u64::from(id)))
}

/// The client's handshake response ("Protocol::HandshakeResponse41") at `at` in the scratch: whose session it is, and whether it can be followed.
#[inline(always)]
fn handshake(session: &mut Session, scratch: &mut Scratch, buffer: u64, at: u64, len: u64) {
    /// Capabilities, the largest packet, character set, filler.
    const FIXED: u64 = 32;
    /// Bytes of a name that are looked at, with its zero: 32 characters of up to 4 bytes (user), 64 characters (schema).
    const MAX_NAME: u64 = 136;
    if session.group >= group::GIVEN || len <= at + FIXED {
        return;
    }
    let capabilities = scratch.word(at) as u32;
    if capabilities & (capability::COMPRESS | capability::ZSTD) != 0 {
        session.facts |= facts::OPAQUE;
    }
    let at = at + FIXED;
    let (user, user_len) = text::until_zero::<MAX_NAME>(scratch, at);
    if user == 0 {
        return;
    }
    let at = at + user_len + 1;
    let mut database = 0;
    if capabilities & (capability::PLUGIN_AUTH_LENENC | capability::SECURE_CONNECTION) != 0
        && capabilities & capability::CONNECT_WITH_DB != 0
    {
        // Behind the proof of the password, whose length has one byte, since no method answers with more than 250 bytes here.
        let at = at + 1 + u64::from(scratch.byte(at));
        if at < len && scratch.fill::<0, SIZE>(buffer + at, len - at) {
            database = text::until_zero::<MAX_NAME>(scratch, 0).0;
        }
    }
    session.group = blind::scatter(blind::mix(user, database) ^ u64::from(session.slot));
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

/// [`walk::window`] over packets.
#[unsafe(no_mangle)]
extern "C" fn mysql_window(session: *mut Session, scratch: *mut Scratch, place: *mut Place) -> u64 {
    walk::window::<Mysql>(session, scratch, place)
}

/// MySQL's packets.
pub(crate) struct Mysql;

impl Messages for Mysql {
    const HEADER: u64 = HEADER;
    const MOST: usize = 24;

    #[inline(always)]
    fn header(session: &mut Session, scratch: &Scratch, at: u64, ready: bool) -> Message {
        let word = scratch.word(at);
        let (length, sequence) = (word & 0xff_ffff, (word >> 24) as u16 & 0xff);
        if sequence != session.packet & 0xff || length == CONTINUED || length == 0 || ready {
            return Message { size: 0, needed: 0 };
        }
        let size = HEADER + length;
        Message { size, needed: size.min(LOOK) }
    }

    #[inline(always)]
    fn message(session: &mut Session, scratch: &mut Scratch, at: u64, size: u64, _: u64) -> u64 {
        session.packet = (session.packet & 0xff) + 1;
        if session.phase == phase::ROWS && scratch.byte(at + HEADER) < first::EOF {
            session.rows_sent += 1;
            return walked::ON;
        }
        mysql_packet(session, scratch, at + HEADER, size - HEADER)
    }

    /// The definitions behind a preparation may end with an EOF packet or without; what tells is that the write ends, since they are sent together.
    #[inline(always)]
    fn ends(session: &Session) -> bool {
        session.phase == phase::DEFINITIONS && session.left == 0
    }

    #[inline(always)]
    fn window(session: *mut Session, scratch: *mut Scratch, place: *mut Place) -> u64 {
        mysql_window(session, scratch, place)
    }
}

/// Bytes of a packet that are looked at where it ends a result: up to the status behind two numbers of nine bytes.
const LOOK: u64 = HEADER + 1 + 9 + 9 + 2;

/// A number of `bytes` bytes, lowest first; fewer than eight.
#[inline(always)]
fn le(scratch: &Scratch, at: u64, bytes: u64) -> u64 {
    scratch.word(at) & ((1 << (8 * bytes)) - 1)
}

/// A number of variable length ("Protocol::LengthEncodedInteger") and the bytes it takes.
#[inline(always)]
fn lenenc(scratch: &Scratch, at: u64) -> (u64, u64) {
    match scratch.byte(at) {
        0xfc => (le(scratch, at + 1, 2), 3),
        0xfd => (le(scratch, at + 1, 3), 4),
        0xfe => (scratch.word(at + 1), 9),
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
extern "C" fn mysql_packet(session: *mut Session, scratch: *const Scratch, at: u64, length: u64) -> u64 {
    if session.is_null() || scratch.is_null() {
        return walked::WRONG;
    }
    // SAFETY: not null, and the verifier knows their sizes.
    unsafe { packet(&mut *session, &*scratch, at, length) }
}

#[inline(always)]
fn packet(session: &mut Session, scratch: &Scratch, at: u64, length: u64) -> u64 {
    use first::{EOF, ERR, LOCAL_INFILE, OK};
    let first = scratch.byte(at);
    if first == ERR && session.phase != phase::COLUMNS {
        let code = le(scratch, at + 1, 2) as u32;
        if code == PROGRESS {
            return walked::ON;
        }
        session.code = if code == 0 { ending::NO_CODE } else { code };
        return walked::READY;
    }
    match session.phase {
        phase::HEAD | phase::SIMPLE if first == OK => ended(session, scratch, at),
        phase::SIMPLE if first == EOF => ended_by_eof(session, scratch, at, length),
        phase::HEAD if first == LOCAL_INFILE || first == EOF => walked::WRONG,
        phase::HEAD => {
            let (columns, taken) = lenenc(scratch, at);
            // A flag behind the number: the definitions are left out.
            let left_out = length == taken + 1 && scratch.byte(at + taken) == 0;
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
            if le(scratch, at + 3, 2) as u16 & status::CURSOR != 0 { walked::WRONG } else { walked::ON }
        }
        phase::BEHIND_COLUMNS | phase::ROWS if first == EOF && length < CONTINUED => {
            ended_by_eof(session, scratch, at, length)
        }
        phase::BEHIND_COLUMNS | phase::ROWS => {
            session.phase = phase::ROWS;
            session.rows_sent += 1;
            walked::ON
        }
        phase::PREPARED if first == OK => {
            let name = statement(session, le(scratch, at + 1, 4) as u32);
            names::set(session, name, session.preparing_hash);
            session.left = (le(scratch, at + 5, 2) + le(scratch, at + 7, 2)) as u32;
            // A flag at the end: the definitions are left out.
            if length > 12 && scratch.byte(at + 12) == 0 {
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
fn ended_by_eof(session: &mut Session, scratch: &Scratch, at: u64, length: u64) -> u64 {
    if length == EOF_LEN {
        return result(session, le(scratch, at + 3, 2) as u16);
    }
    ended(session, scratch, at)
}

/// An OK packet ends a result.
#[inline(always)]
fn ended(session: &mut Session, scratch: &Scratch, at: u64) -> u64 {
    let (affected, taken) = lenenc(scratch, at + 1);
    let (_, inserted) = lenenc(scratch, at + 1 + taken);
    session.rows_affected += affected;
    result(session, le(scratch, at + 1 + taken + inserted, 2) as u16)
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
