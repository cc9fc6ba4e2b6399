//! Leaves out what nobody needs: the bodies of long messages in long writes, which are result rows.
//!
//! A write is cut into messages by their headers alone; of each message its first bytes are kept, and its true length, so that
//! userspace still knows its place in the stream. A range query on MySQL shrinks to an eighth. Where the place is not known for
//! sure, or a header makes no sense, the bytes are recorded whole.

use core::ffi::c_void;

use agent_ebpf::{
    ELIDE_ABOVE, ELIDED_CLASS, MAX_SEGMENT, MAX_SEGMENTS, RecordHeader, SEGMENT_BYTES, SEGMENT_LENGTH_BITS, Session,
    framing, kind, loss, place, session::facts,
};
use aya_ebpf::helpers::{bpf_probe_read_user, generated};

use crate::{
    emit::NO_WAKEUP,
    maps::{RECORDS, count},
    postgres,
    verifier::{bounded, forget},
};

/// Longest write that is looked into; what is longer does not fit the word of a segment.
const MAX_WRITE: u64 = (1 << SEGMENT_LENGTH_BITS) - 1;
/// First bytes kept of a row: the header, and enough to tell that it is one.
const ROW_BYTES: u64 = 8;

/// A request was read. MySQL answers one command after the other and sends all of an answer before it reads on, so the next write begins
/// with a message; PostgreSQL may read on in the middle of an answer.
#[inline(always)]
pub(crate) fn request(session: &mut Session) {
    if u32::from(session.framing) == framing::MYSQL {
        session.elide_place = place::BOUNDARY;
    }
}

#[repr(C)]
struct Elided {
    header: RecordHeader,
    payload: [u8; ELIDED_CLASS],
}

/// Records the first part of a write without the bodies of its long messages. Gives how many bytes that part had, and how many behind it
/// have to be recorded whole.
#[inline(always)]
pub(crate) fn response(session: &mut Session, header: &mut RecordHeader, buffer: u64, len: u64) -> (u64, u64) {
    let postgresql = u32::from(session.framing) == framing::POSTGRESQL;
    // Compressed bytes have other headers.
    let opaque = session.facts & facts::OPAQUE != 0;
    let elide = match session.elide_place {
        _ if opaque => false,
        place::WITHIN => true,
        place::BOUNDARY => len > ELIDE_ABOVE as u64,
        _ => false,
    };
    if !elide || len > MAX_WRITE || buffer == 0 {
        session.elide_place =
            if postgresql && postgres::ready(buffer, len) != 0 { place::BOUNDARY } else { place::LOST };
        return (0, len);
    }
    if session.elide_place == place::BOUNDARY {
        (session.elide_skip, session.elide_have, session.elide_header) = (0, 0, 0);
    }
    let Some(mut entry) = RECORDS.reserve::<Elided>(0) else {
        count(loss::RING_FULL_DATA);
        session.elide_place = place::LOST;
        return (len, 0);
    };
    let slot = entry.as_mut_ptr();
    let mut walk = Walk {
        // SAFETY: the slot is ours until it is submitted, and `step` stays within it.
        payload: unsafe { (&raw mut (*slot).payload).cast() },
        buffer,
        len,
        at: forget(0, buffer),
        out: forget(0, buffer),
        header: forget(session.elide_header, buffer),
        skip: forget(u64::from(session.elide_skip), buffer),
        have: forget(u64::from(session.elide_have), buffer),
        postgresql: u64::from(postgresql),
    };
    // SAFETY: the helper calls `step` with the given context, at most so many times.
    unsafe { generated::bpf_loop(MAX_SEGMENTS as u32, step as *mut c_void, (&raw mut walk).cast(), 0) };
    (session.elide_header, session.elide_skip, session.elide_have) = (walk.header, walk.skip as u32, walk.have as u16);
    let at = walk.at;
    if at == 0 {
        // Not even the first header could be read or made sense: the caller records the write whole, under the same number.
        entry.discard(NO_WAKEUP);
        session.elide_place = place::LOST;
        return (0, len);
    }
    header.kind = kind::ELIDED;
    header.true_len = at as u32;
    header.captured = walk.out as u32;
    // SAFETY: as above.
    unsafe { (&raw mut (*slot).header).write(*header) };
    entry.submit(NO_WAKEUP);
    if at < len {
        session.elide_place =
            if postgresql && postgres::ready(buffer, len) != 0 { place::BOUNDARY } else { place::LOST };
    } else {
        session.elide_place =
            if session.elide_skip == 0 && session.elide_have == 0 { place::BOUNDARY } else { place::WITHIN };
    }
    (at, len - at)
}

/// A walk over the messages of a write. All words, so that the verifier has one kind of stack slot to follow.
#[repr(C)]
struct Walk {
    /// Where segments are put; [`ELIDED_CLASS`] bytes.
    payload: *mut u8,
    /// The write's bytes in the server's memory, and how many.
    buffer: u64,
    len: u64,
    /// Bytes walked over, and bytes put.
    at: u64,
    out: u64,
    /// As in [`Session`].
    header: u64,
    skip: u64,
    have: u64,
    postgresql: u64,
}

const GO_ON: i64 = 0;
const STOP: i64 = 1;

/// One message of a [`Walk`]: puts its segment.
extern "C" fn step(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: the verifier knows it as the caller's stack.
    let walk = unsafe { &mut *walk };
    const ROOM: u64 = (ELIDED_CLASS - MAX_SEGMENT) as u64;
    if walk.at >= walk.len || walk.out > ROOM {
        return STOP;
    }
    let left = walk.len - walk.at;
    let postgresql = walk.postgresql != 0;
    let header_len = if postgresql { 5 } else { 4 };
    let from = walk.buffer + walk.at;
    let (mut length, mut keep, mut skip) = (walk.skip, 0, 0);
    if length == 0 {
        let missing = header_len - walk.have;
        let Some(read) = read_header(from, missing.min(left)) else { return STOP };
        let header = walk.header | read << (8 * (walk.have & 7));
        if left < missing {
            walk.header = header;
            walk.have += left;
            (length, keep) = (left, left);
        } else {
            let Some((body, row)) = message(header, postgresql, from + missing, left > missing) else { return STOP };
            (walk.header, walk.have) = (0, 0);
            length = missing + body;
            keep = if row { ROW_BYTES } else { SEGMENT_BYTES as u64 };
        }
    }
    if length > left {
        skip = length - left;
        length = left;
    }
    let keep = bounded::<SEGMENT_BYTES>(keep.min(length));
    let place = walk.out.min(ROOM);
    let place = bounded::<{ ELIDED_CLASS - MAX_SEGMENT }>(place);
    // SAFETY: place + 4 + keep is within the payload; the helper checks the user's address itself.
    unsafe {
        let word = walk.payload.add(place as usize);
        word.cast::<u32>().write(length as u32 | (keep as u32) << SEGMENT_LENGTH_BITS);
        if generated::bpf_probe_read_user(word.add(4).cast(), keep as u32, from as *const c_void) != 0 {
            return STOP;
        }
    }
    walk.skip = forget(skip, walk.buffer);
    walk.out = forget(place + 4 + ((keep + 3) & !3), walk.buffer);
    walk.at = forget(walk.at + length, walk.buffer);
    walk.header = forget(walk.header, walk.buffer);
    walk.have = forget(walk.have, walk.buffer);
    GO_ON
}

/// Up to five bytes at `from`, first one lowest.
#[inline(always)]
fn read_header(from: u64, len: u64) -> Option<u64> {
    let mut word = 0u64;
    let len = bounded::<5>(len);
    // SAFETY: the helper checks the user's address itself and writes at most five bytes.
    let result = unsafe { generated::bpf_probe_read_user((&raw mut word).cast(), len as u32, from as *const _) };
    (result == 0).then_some(u64::from_le(word))
}

/// Body length of the message with this header, and whether it is a row of which nothing is needed. `None` if it is no header.
#[inline(always)]
fn message(header: u64, postgresql: bool, body: u64, has_body: bool) -> Option<(u64, bool)> {
    if postgresql {
        let kind = header as u8;
        let length = u64::from(((header >> 8) as u32).swap_bytes());
        // A message's length counts itself; PostgreSQL allows no message of more than 1 GiB (PQ_LARGE_MESSAGE_LIMIT).
        if !(kind.is_ascii_alphabetic() || matches!(kind, b'1'..=b'3')) || !(4..=1 << 30).contains(&length) {
            return None;
        }
        return Some((length - 4, kind == b'D' || kind == b'd'));
    }
    let length = header & 0xff_ffff;
    // What begins with another byte than these is a row or the definition of a column: OK, EOF, ERR, LOCAL INFILE, NULL.
    let row = has_body && {
        // SAFETY: the helper checks the address itself.
        let first = unsafe { bpf_probe_read_user(body as *const u8) }.unwrap_or(0);
        !matches!(first, 0x00 | 0xfb..=0xff)
    };
    Some((length, row))
}
