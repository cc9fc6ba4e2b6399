//! What a watched process read or wrote: followed, counted, and recorded where it has to be. The only way into the ring buffer.

use agent_ebpf::{
    HEADER_LEN, MAX_PAYLOAD, MAX_PIECES, Outlier, PAYLOAD_CLASSES, RecordHeader, Session, direction, flags, kind, loss,
    session::{facts, mode, record},
    strategy,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated};

use crate::{
    elide,
    follow::{self, Ended},
    maps::{RECORDS, count},
    scratch::{self, Scratch},
    sessions::Place,
    verifier::bounded,
};

/// `BPF_RB_NO_WAKEUP`, include/uapi/linux/bpf.h: userspace looks at the ring by a timer, because a wake-up for each record costs more
/// than everything else the agent does with it.
pub(crate) const NO_WAKEUP: u64 = 1;

/// `errno` values that mean "nothing happened, try again", include/uapi/asm-generic/errno*.h and include/linux/errno.h.
const TRY_AGAIN: [i64; 5] = [-11, -4, -512, -514, -516];

/// What a read or write of a watched process gave.
pub(crate) struct Io {
    /// One of [`direction`].
    pub(crate) direction: u8,
    /// Where the bytes lie in the server's memory, 0 if unknown.
    pub(crate) buffer: u64,
    /// How many: the result of the call; negative for an error.
    pub(crate) result: i64,
    /// How many were asked for: MySQL reads an empty packet by asking for none.
    pub(crate) wanted: u64,
}

impl Io {
    /// Whether it says nothing about the connection: neither bytes nor its end. At the boundary a failed read gives -1 and leaves the reason in
    /// errno, which is out of reach; a connection that failed for good is found by its socket's end.
    #[inline(always)]
    pub(crate) fn is_nothing(&self, strategy: u32) -> bool {
        let failed = self.result < 0 && strategy == strategy::BOUNDARY;
        self.result <= 0
            && (self.wanted == 0 || self.direction == direction::RESPONSE || failed || TRY_AGAIN.contains(&self.result))
    }
}

/// Takes up what went over a session's socket. What is seldom done is done in functions of its own, so that the rest is short.
#[inline(always)]
pub(crate) fn io(place: Place, io: &Io, strategy: u32) {
    // SAFETY: the map's value lives until the program ends, and a connection is used by one thread at a time.
    let session = unsafe { &mut *place.session };
    // What a server writes after its client has gone away reaches nobody.
    if session.mode == mode::ENDED {
        return;
    }
    let Some(scratch) = scratch::of(place.index, io.direction, strategy) else { return };
    // SAFETY: as the session.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if io.result <= 0 {
        emit_end(session, place.index, io.direction, now);
        return;
    }
    let (buffer, len) = (io.buffer, io.result as u64);
    if io.direction == direction::REQUEST {
        let kept = if session.facts & facts::HEADER != 0 { session.request_header } else { 0 };
        follow::request(session, scratch, buffer, len, now);
        if session.record != record::NOTHING {
            emit_request(session, u64::from(place.index) << 32 | u64::from(kept), buffer, len, now);
        }
    } else {
        response(place.index, session, scratch, buffer, len, now, strategy);
    }
}

/// The connection has ended.
#[unsafe(no_mangle)]
extern "C" fn emit_end(session: *mut Session, index: u32, direction: u8, now: u64) -> u64 {
    if session.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    let ended = follow::close(session, now);
    let mut header = header(kind::CLOSE, direction, index, session, now);
    if ended == Ended::Counted {
        header.flags |= flags::COUNTED;
    }
    submit_bare(&header, loss::RING_FULL_DATA);
    0
}

/// Records a request of the session at `index`, which is the upper half of `index_and_kept`; the lower is the packet header that was kept before it,
/// 0 for none.
#[unsafe(no_mangle)]
extern "C" fn emit_request(session: *mut Session, index_and_kept: u64, buffer: u64, len: u64, now: u64) -> u64 {
    if session.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    let (index, kept) = ((index_and_kept >> 32) as u32, index_and_kept as u32);
    elide::request(session);
    if kept != 0 {
        let mut header = header(kind::DATA, direction::REQUEST, index, session, now);
        header.true_len = size_of::<u32>() as u32;
        header.captured = header.true_len;
        word(&header, kept);
    }
    let mut header = header(kind::DATA, direction::REQUEST, index, session, now);
    if session.hash != 0 {
        header.flags |= flags::KEYED;
        header.hash = session.hash;
        header.row = session.row;
    } else if session.facts & facts::NAMELESS != 0 {
        header.flags |= flags::NAMELESS;
        header.hash = session.nameless;
    } else if session.preparing != 0 {
        header.hash = session.preparing_hash;
    }
    bytes(&mut header, session, buffer, len);
    0
}

#[inline(always)]
fn response(index: u32, session: &mut Session, scratch: &mut Scratch, buffer: u64, len: u64, now: u64, strategy: u32) {
    let (mut buffer, mut len) = (buffer, len);
    if strategy == strategy::BOUNDARY {
        let end = buffer + len;
        if buffer > session.written_from && buffer < session.written_to {
            // The rest of a write that was taken only in part: its bytes are known already.
            if end <= session.written_to {
                return;
            }
            len = end - session.written_to;
            buffer = session.written_to;
        }
        session.written_from = buffer;
        session.written_to = end;
    }
    let ended = follow::response(session, scratch, buffer, len, now);
    if session.record == record::NOTHING {
        if ended == Ended::Outlier {
            emit_outlier(session, index, now);
        }
    } else if session.mode != mode::IGNORED {
        let counted = u64::from(ended == Ended::Counted);
        emit_response(session, counted << 32 | u64::from(index), buffer, len, now);
    }
}

/// Records a response of the session at `index`, which is the lower half of `counted_and_index`; the upper is 1 if it completes an execution that was
/// counted.
#[unsafe(no_mangle)]
extern "C" fn emit_response(session: *mut Session, counted_and_index: u64, buffer: u64, len: u64, now: u64) -> u64 {
    if session.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    let (mut buffer, mut len) = (buffer, len);
    let mut header = header(kind::DATA, direction::RESPONSE, counted_and_index as u32, session, now);
    if counted_and_index >> 32 != 0 {
        header.flags |= flags::COUNTED;
        if session.record == record::SAMPLE {
            header.flags |= flags::SAMPLED;
        }
    }
    let (elided, rest) = elide::response(session, &mut header, buffer, len);
    if elided > 0 {
        if rest == 0 {
            return 0;
        }
        buffer += len - rest;
        len = rest;
        header.kind = kind::DATA;
        header.captured = 0;
        header.seq = session.seq;
        session.seq = session.seq.wrapping_add(1);
    }
    bytes(&mut header, session, buffer, len);
    0
}

/// Records bytes whole, in pieces if need be.
#[inline(always)]
fn bytes(header: &mut RecordHeader, session: &mut Session, buffer: u64, len: u64) {
    const PIECE: u64 = MAX_PAYLOAD as u64;
    let (mut buffer, mut len) = (buffer, len);
    for _ in 1..MAX_PIECES {
        if len <= PIECE {
            break;
        }
        header.true_len = PIECE as u32;
        copy::<MAX_PAYLOAD>(header, buffer, PIECE);
        buffer += PIECE;
        len -= PIECE;
        header.captured = 0;
        header.seq = session.seq;
        session.seq = session.seq.wrapping_add(1);
    }
    header.true_len = len as u32;
    data(header, buffer, len);
}

#[inline(always)]
fn header(kind: u16, direction: u8, index: u32, session: &mut Session, at: u64) -> RecordHeader {
    let id = bpf_get_current_pid_tgid();
    let seq = session.seq;
    session.seq = seq.wrapping_add(1);
    RecordHeader {
        kind,
        direction,
        flags: if u32::from(session.strategy) == strategy::BOUNDARY { flags::BOUNDARY } else { 0 },
        target: session.slot,
        tgid: (id >> 32) as u32,
        tid: id as u32,
        conn: session.inode,
        at,
        seq,
        captured: 0,
        true_len: 0,
        family: session.family,
        reserved: 0,
        hash: 0,
        group: session.group,
        session: index,
        row: 0,
    }
}

#[repr(C)]
struct OutlierRecord {
    header: RecordHeader,
    outlier: Outlier,
}

/// Records an execution that was only counted. It takes no number: nothing of the stream is in it.
#[unsafe(no_mangle)]
extern "C" fn emit_outlier(session: *mut Session, index: u32, now: u64) -> u64 {
    if session.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier knows its size.
    let session = unsafe { &mut *session };
    let mut header = header(kind::OUTLIER, direction::RESPONSE, index, session, now);
    session.seq = header.seq;
    header.hash = session.hash;
    header.row = session.row;
    header.captured = size_of::<Outlier>() as u32;
    header.true_len = header.captured;
    let Some(mut entry) = RECORDS.reserve::<OutlierRecord>(0) else {
        count(loss::RING_FULL_OUTLIER);
        return 0;
    };
    let outlier = Outlier {
        begin: session.begin,
        first: session.first,
        end: now,
        bytes_in: session.answered_in,
        bytes_out: session.bytes_out,
        rows_sent: session.rows_sent,
        rows_affected: session.rows_affected,
        code: session.code,
        reserved: 0,
    };
    entry.write(OutlierRecord { header, outlier });
    entry.submit(NO_WAKEUP);
    0
}

#[repr(C)]
struct WordRecord {
    header: RecordHeader,
    word: u32,
    reserved: u32,
}

/// Records four bytes that the kernel kept.
#[inline(always)]
fn word(header: &RecordHeader, word: u32) {
    match RECORDS.reserve::<WordRecord>(0) {
        Some(mut entry) => {
            entry.write(WordRecord { header: *header, word: word.to_le(), reserved: 0 });
            entry.submit(NO_WAKEUP);
        }
        None => count(loss::RING_FULL_DATA),
    }
}

/// Records an event of a process.
#[inline(always)]
pub(crate) fn process(kind: u16, slot: u32, tgid: u32) {
    let header = RecordHeader {
        kind,
        direction: 0,
        flags: 0,
        target: slot,
        tgid,
        tid: tgid,
        conn: 0,
        // SAFETY: no arguments.
        at: unsafe { bpf_ktime_get_ns() },
        seq: 0,
        captured: 0,
        true_len: 0,
        family: 0,
        reserved: 0,
        hash: 0,
        group: 0,
        session: 0,
        row: 0,
    };
    submit_bare(&header, loss::RING_FULL_PROCESS);
}

#[inline(always)]
fn submit_bare(header: &RecordHeader, cause: u32) {
    match RECORDS.reserve::<RecordHeader>(0) {
        Some(mut entry) => {
            entry.write(*header);
            entry.submit(NO_WAKEUP);
        }
        None => count(cause),
    }
}

#[inline(always)]
fn data(header: &mut RecordHeader, buffer: u64, len: u64) {
    if len > MAX_PAYLOAD as u64 {
        count(loss::TRUNCATED);
    }
    if len <= PAYLOAD_CLASSES[0] as u64 {
        copy::<{ PAYLOAD_CLASSES[0] }>(header, buffer, len);
    } else if len <= PAYLOAD_CLASSES[1] as u64 {
        copy::<{ PAYLOAD_CLASSES[1] }>(header, buffer, len);
    } else if len <= PAYLOAD_CLASSES[2] as u64 {
        copy::<{ PAYLOAD_CLASSES[2] }>(header, buffer, len);
    } else if len <= PAYLOAD_CLASSES[3] as u64 {
        copy::<{ PAYLOAD_CLASSES[3] }>(header, buffer, len);
    } else if len <= PAYLOAD_CLASSES[4] as u64 {
        copy::<{ PAYLOAD_CLASSES[4] }>(header, buffer, len);
    } else {
        copy::<{ PAYLOAD_CLASSES[5] }>(header, buffer, len);
    }
}

#[repr(C)]
struct Slot<const N: usize> {
    header: RecordHeader,
    payload: [u8; N],
}

/// Copies up to `N` bytes from the server's memory behind the header.
#[inline(always)]
fn copy<const N: usize>(header: &mut RecordHeader, buffer: u64, len: u64) {
    const { assert!(size_of::<Slot<N>>() == HEADER_LEN + N) };
    let Some(mut entry) = RECORDS.reserve::<Slot<N>>(0) else {
        count(loss::RING_FULL_DATA);
        return;
    };
    let slot = entry.as_mut_ptr();
    let captured = bounded::<N>(len);
    // SAFETY: the slot is ours until it is submitted; the helper checks the user's address itself and writes at most N bytes.
    unsafe {
        let read = generated::bpf_probe_read_user(
            (&raw mut (*slot).payload).cast(),
            captured as u32,
            buffer as *const core::ffi::c_void,
        );
        if read == 0 {
            header.captured = captured as u32;
        } else {
            header.flags |= flags::UNREADABLE;
            count(loss::UNREADABLE);
        }
        (&raw mut (*slot).header).write(*header);
    }
    entry.submit(NO_WAKEUP);
}
