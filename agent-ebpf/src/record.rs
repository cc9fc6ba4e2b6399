//! Records of the ring buffer.

use core::mem::size_of;

/// Size classes of a data record's payload, smallest first. The verifier wants each reservation to have a constant size;
/// a chunk takes the smallest class that holds it, a longer one takes several records ([`MAX_PIECES`]).
///
/// The first class holds a prepared execution and its answer, the second most simple queries. PostgreSQL sends from an 8 KiB
/// buffer (`PQ_SEND_BUFFER_SIZE`, backend/libpq/pqcomm.c) and MySQL from one of 16 KiB (`net_buffer_length`): the last two.
pub const PAYLOAD_CLASSES: [usize; 6] = [96, 384, 1024, 4096, 8192, 16384];

/// The most bytes that one record can carry.
pub const MAX_PAYLOAD: usize = PAYLOAD_CLASSES[PAYLOAD_CLASSES.len() - 1];

/// A read or write longer than [`MAX_PAYLOAD`] is recorded in that many pieces at most, all with the same time; the last one is cut if there is
/// more. MySQL's send buffer grows with the largest packet of the session, so one write may hold many rows, and a cut between rows
/// would lose the place in the stream.
pub const MAX_PIECES: usize = 8;

/// What a record is. Values of [`RecordHeader::kind`].
pub mod kind {
    /// Bytes that the server read or wrote; the payload follows the header.
    pub const DATA: u16 = 1;
    /// The server saw the end of a connection (read returned 0 or an error other than "try again").
    pub const CLOSE: u16 = 2;
    /// A process began to run another executable (`sched_process_exec`).
    pub const EXEC: u16 = 3;
    /// The last thread of a watched process ended (`sched_process_exit`).
    pub const EXIT: u16 = 4;
    /// Bytes that the server wrote, without the bodies of its long messages; the payload is a sequence of [`super::segments`].
    pub const ELIDED: u16 = 5;
    /// An execution that was counted but not recorded, and is worth a look: it failed or was slow. The payload is a [`super::Outlier`].
    pub const OUTLIER: u16 = 6;
}

/// Direction of [`kind::DATA`], seen from the server. Values of [`RecordHeader::direction`].
pub mod direction {
    /// The server read: a request.
    pub const REQUEST: u8 = 0;
    /// The server wrote: a response.
    pub const RESPONSE: u8 = 1;
}

/// Bits of [`RecordHeader::flags`].
pub mod flags {
    /// The bytes were taken at the server's own I/O boundary, so they are clear text even if the session is encrypted.
    pub const BOUNDARY: u8 = 1;
    /// The payload could not be read from the process (page not present): only its length is known.
    pub const UNREADABLE: u8 = 2;
    /// The kernel has counted the execution whose response ends with this record.
    pub const COUNTED: u8 = 4;
    /// The request is one execution that the kernel will count; with [`super::RecordHeader::row`].
    pub const KEYED: u8 = 8;
    /// The request executes a prepared statement whose text the kernel does not know; [`super::RecordHeader::hash`] is its name there.
    pub const NAMELESS: u8 = 16;
    /// The execution whose response ends with this record was recorded by chance alone: with [`COUNTED`].
    pub const SAMPLED: u8 = 32;
}

/// Causes of loss. Index into the per-CPU array `LOSSES`.
pub mod loss {
    /// The ring buffer was full when a data record was reserved.
    pub const RING_FULL_DATA: u32 = 0;
    /// The ring buffer was full when a process record was reserved.
    pub const RING_FULL_PROCESS: u32 = 1;
    /// The bytes in the server's memory could not be read.
    pub const UNREADABLE: u32 = 2;
    /// A chunk was longer than [`super::MAX_PIECES`] times [`super::MAX_PAYLOAD`] and was cut.
    pub const TRUNCATED: u32 = 3;
    /// The connection's identity (its socket) could not be resolved.
    pub const NO_SOCKET: u32 = 4;
    /// The saved arguments of a read were not there on its return.
    pub const NO_ENTRY: u32 = 5;
    /// No place was left for a new connection: nothing of it is seen.
    pub const NO_SESSION: u32 = 6;
    /// The kernel lost its place within an execution that it had not recorded: the execution is not counted.
    pub const UNFOLLOWED: u32 = 7;
    /// The ring buffer was full when an outlier was reserved; it is counted all the same.
    pub const RING_FULL_OUTLIER: u32 = 8;
    /// Number of causes.
    pub const COUNT: u32 = 9;
    /// Names of the causes, as metrics and messages show them.
    pub const NAMES: [&str; COUNT as usize] = [
        "ring_full_data",
        "ring_full_process",
        "unreadable",
        "truncated",
        "no_socket",
        "no_entry",
        "no_session",
        "unfollowed",
        "outliers_unseen",
    ];
}

/// What stands before each record in the ring buffer. All integers are in the host's byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// One of [`kind`].
    pub kind: u16,
    /// One of [`direction`]; 0 where it has no meaning.
    pub direction: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Slot of the watched server, as userspace put it into `TARGETS`.
    pub target: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Connection: inode number of the server's socket (the number shown in /proc/PID/fd and /proc/net).
    pub conn: u64,
    /// `CLOCK_MONOTONIC` nanoseconds: for a request, when the read returned; for a response, when the write began
    /// ([`crate::strategy::BOUNDARY`]) or returned (the others, whose hooks run after it).
    pub at: u64,
    /// Number of this record on its connection, both directions together, counting lost ones too; wraps.
    pub seq: u32,
    /// Bytes of payload that follow the header.
    pub captured: u32,
    /// Bytes that the server really read or wrote; at least `captured`.
    pub true_len: u32,
    /// Address family of the socket (`AF_UNIX` 1, `AF_INET` 2, `AF_INET6` 10), 0 if unknown.
    pub family: u16,
    /// Explicit padding, always 0.
    pub reserved: u16,
    /// Hash of the text that the request holds or executes, 0 if there is none ([`crate::blind`]).
    pub hash: u64,
    /// Whose session ([`crate::Session::group`]).
    pub group: u64,
    /// Index of the [`crate::Session`].
    pub session: u32,
    /// Index of the [`crate::Row`] under which it is counted, with [`flags::KEYED`].
    pub row: u32,
}

/// Size of the header in bytes.
pub const HEADER_LEN: usize = size_of::<RecordHeader>();
const _: () = assert!(HEADER_LEN == 72);

/// Payload of [`kind::OUTLIER`]: an execution that was not recorded. Times are `CLOCK_MONOTONIC` nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlier {
    /// When its request was complete.
    pub begin: u64,
    /// When its first response byte was written.
    pub first: u64,
    /// When its completion was written.
    pub end: u64,
    /// Bytes of its request.
    pub bytes_in: u64,
    /// Bytes of its response.
    pub bytes_out: u64,
    /// Rows sent.
    pub rows_sent: u64,
    /// Rows changed.
    pub rows_affected: u64,
    /// As [`crate::RowKey::code`].
    pub code: u32,
    /// Explicit padding, always 0.
    pub reserved: u32,
}

/// Size of an outlier in bytes.
pub const OUTLIER_LEN: usize = size_of::<Outlier>();
const _: () = assert!(OUTLIER_LEN == 64);

impl Outlier {
    /// Reads the payload of a record; `None` if it is too short.
    pub fn read(payload: &[u8]) -> Option<Outlier> {
        let (words, _) = payload.get(..OUTLIER_LEN)?.as_chunks::<8>();
        let word = |at: usize| u64::from_ne_bytes(words[at]);
        let code = u32::from_ne_bytes([words[7][0], words[7][1], words[7][2], words[7][3]]);
        Some(Outlier {
            begin: word(0),
            first: word(1),
            end: word(2),
            bytes_in: word(3),
            bytes_out: word(4),
            rows_sent: word(5),
            rows_affected: word(6),
            code,
            reserved: 0,
        })
    }
}

/// A record, decoded in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The header.
    pub header: RecordHeader,
    /// `header.captured` bytes.
    pub payload: &'a [u8],
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than a header.
    Short,
    /// The header promises more payload than there is.
    Payload,
    /// The kind is not one of [`kind`].
    Kind,
    /// `captured` is greater than `true_len`.
    Length,
}

/// Reads one record as it lies in the ring buffer.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let (head, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(DecodeError::Short)?;
    let u16_at = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    let u32_at = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let u64_at = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&head[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let header = RecordHeader {
        kind: u16_at(0),
        direction: head[2],
        flags: head[3],
        target: u32_at(4),
        tgid: u32_at(8),
        tid: u32_at(12),
        conn: u64_at(16),
        at: u64_at(24),
        seq: u32_at(32),
        captured: u32_at(36),
        true_len: u32_at(40),
        family: u16_at(44),
        reserved: u16_at(46),
        hash: u64_at(48),
        group: u64_at(56),
        session: u32_at(64),
        row: u32_at(68),
    };
    if !(kind::DATA..=kind::OUTLIER).contains(&header.kind) {
        return Err(DecodeError::Kind);
    }
    if header.captured > header.true_len && header.kind != kind::ELIDED {
        return Err(DecodeError::Length);
    }
    let payload = rest.get(..header.captured as usize).ok_or(DecodeError::Payload)?;
    Ok(Record { header, payload })
}

/// Writes longer than this are recorded without the bodies of their long messages: what fills the ring are result rows, and nobody needs them.
pub const ELIDE_ABOVE: usize = 1024;

/// Payload of an [`kind::ELIDED`] record. The last [`MAX_SEGMENT`] bytes are room for the last segment.
pub const ELIDED_CLASS: usize = 4096;

/// The most bytes of a message that a segment carries.
pub const SEGMENT_BYTES: usize = 64;

/// The most bytes that a segment takes in the record: its word and what it carries.
pub const MAX_SEGMENT: usize = 4 + SEGMENT_BYTES;

/// The most segments of one record.
pub const MAX_SEGMENTS: usize = 256;

/// A segment begins with a word: this many low bits are its true length, the rest is how many of its first bytes follow, padded to whole words.
pub const SEGMENT_LENGTH_BITS: u32 = 24;

/// The segments of an [`kind::ELIDED`] record: consecutive parts of the stream, each with its first bytes and its true length. A damaged payload
/// ends the sequence.
pub fn segments(payload: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut rest = payload;
    core::iter::from_fn(move || {
        let (word, behind) = rest.split_first_chunk::<4>()?;
        let word = u32::from_ne_bytes(*word);
        let (true_len, captured) = (word & ((1 << SEGMENT_LENGTH_BITS) - 1), (word >> SEGMENT_LENGTH_BITS) as usize);
        let bytes = behind.get(..captured)?;
        rest = behind.get(captured.next_multiple_of(4)..).unwrap_or_default();
        (captured <= true_len as usize).then_some((bytes, true_len as usize))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_survives_the_way_through_bytes() {
        let header = RecordHeader {
            kind: kind::DATA,
            direction: direction::RESPONSE,
            flags: flags::BOUNDARY,
            target: 7,
            tgid: 0x0102_0304,
            tid: 0x0506_0708,
            conn: 0x1112_1314_1516_1718,
            at: 0x2122_2324_2526_2728,
            seq: 9,
            captured: 3,
            true_len: 5,
            family: 10,
            reserved: 0,
            hash: 0x3132_3334_3536_3738,
            group: 0x4142_4344_4546_4748,
            session: 0x5152_5354,
            row: 0x6162_6364,
        };
        // SAFETY: RecordHeader is repr(C) integers without padding (HEADER_LEN is asserted).
        let mut bytes = unsafe { core::mem::transmute::<RecordHeader, [u8; HEADER_LEN]>(header) }.to_vec();
        bytes.extend_from_slice(b"abcpadding");
        assert_eq!(decode(&bytes), Ok(Record { header, payload: b"abc" }));
        assert_eq!(decode(&bytes[..HEADER_LEN + 2]), Err(DecodeError::Payload));
        assert_eq!(decode(&bytes[..HEADER_LEN - 1]), Err(DecodeError::Short));
        bytes[0] = 99;
        assert_eq!(decode(&bytes), Err(DecodeError::Kind));
    }

    #[test]
    fn segments_are_read_back() {
        let mut payload = Vec::new();
        for (bytes, true_len) in [(&b"abcde"[..], 70_000u32), (b"", 12), (b"wxyz", 4)] {
            payload.extend_from_slice(&(true_len | (bytes.len() as u32) << SEGMENT_LENGTH_BITS).to_ne_bytes());
            payload.extend_from_slice(bytes);
            payload.resize(payload.len().next_multiple_of(4), 0);
        }
        let read: Vec<(&[u8], usize)> = segments(&payload).collect();
        assert_eq!(read, [(&b"abcde"[..], 70_000), (b"", 12), (b"wxyz", 4)]);
        assert_eq!(segments(&payload[..6]).count(), 0, "a segment that is cut is none");
    }

    proptest! {
        #[test]
        fn any_segments_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (bytes, true_len) in segments(&bytes) {
                prop_assert!(bytes.len() <= true_len);
            }
        }

        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = decode(&bytes) {
                let whole = record.header.kind != kind::ELIDED;
                prop_assert!(!whole || record.payload.len() as u32 <= record.header.true_len);
                prop_assert_eq!(record.payload.len(), record.header.captured as usize);
            }
        }
    }
}
