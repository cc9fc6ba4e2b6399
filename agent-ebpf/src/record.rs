//! Records of the ring buffer and values of the maps.

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
    /// Number of causes.
    pub const COUNT: u32 = 6;
    /// Names of the causes, as metrics and messages show them.
    pub const NAMES: [&str; COUNT as usize] =
        ["ring_full_data", "ring_full_process", "unreadable", "truncated", "no_socket", "no_entry"];
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
    /// ([`strategy::BOUNDARY`]) or returned (the others, whose hooks run after it).
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
}

/// Size of the header in bytes.
pub const HEADER_LEN: usize = size_of::<RecordHeader>();
const _: () = assert!(HEADER_LEN == 48);

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
    };
    if !(kind::DATA..=kind::ELIDED).contains(&header.kind) {
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

/// Value of `TARGETS`: what the kernel must know of a watched process (key: its process id). Children inherit it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Slot of the server, given by userspace.
    pub slot: u32,
    /// One of [`strategy`]: only that family of hooks speaks for this server.
    pub strategy: u32,
    /// One of [`framing`]: how its responses are cut into messages.
    pub framing: u32,
    /// Explicit padding, always 0.
    pub reserved: u32,
    /// TCP ports on which the server accepts connections, 0 where unused. A socket with another local port is one that the server itself
    /// opened (replication, foreign data wrappers, name service) and is left alone.
    pub ports: [u16; Target::PORTS],
}

impl Target {
    /// Bound on the ports of one server.
    pub const PORTS: usize = 8;
}

/// Which family of hooks captures a server. Values of [`Target::strategy`].
pub mod strategy {
    /// Nothing is captured; forks and exits are still followed.
    pub const NONE: u32 = 0;
    /// Uprobes at the server's own I/O functions.
    pub const BOUNDARY: u32 = 1;
    /// Socket tracepoints `sock_send_length` and `sock_recv_length`.
    pub const SOCKET: u32 = 2;
    /// The system-call tracepoint `sys_exit`, for `sendto` and `recvfrom`.
    pub const SYSCALL: u32 = 3;
}

/// How responses are cut into messages. Values of [`Target::framing`].
pub mod framing {
    /// Type byte, then four bytes of length, highest first, that count themselves (PostgreSQL 3.x).
    pub const POSTGRESQL: u32 = 0;
    /// Three bytes of length, lowest first, then a sequence number (MySQL, MariaDB).
    pub const MYSQL: u32 = 1;
}

/// How well the kernel knows its place in a connection's responses. Values of [`Conn::place`].
pub mod place {
    /// Not at all: writes are recorded whole.
    pub const LOST: u16 = 0;
    /// The next write begins with a message.
    pub const BOUNDARY: u16 = 1;
    /// [`super::Conn::skip`] bytes of a message are still to come, or [`super::Conn::have`] bytes of a header are there.
    pub const WITHIN: u16 = 2;
}

/// Value of `CONNS` (key: inode number of the socket): what the kernel remembers of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conn {
    /// Where the last write's buffer began and ended in the server's memory. A write that begins inside it repeats the
    /// part that the operating system did not take the last time ([`strategy::BOUNDARY`] only).
    pub written_from: u64,
    /// End of that buffer.
    pub written_to: u64,
    /// Header of the message that a write ended in the middle of, first byte lowest.
    pub header: u64,
    /// Bytes of a message's body that are still to come.
    pub skip: u32,
    /// Bytes of `header` that are there.
    pub have: u16,
    /// One of [`place`].
    pub place: u16,
    /// Number of the next record.
    pub seq: u32,
    /// Address family.
    pub family: u16,
    /// 1 if this is a connection that a client opened to the server, 0 if it is to be left alone.
    pub accepted: u16,
}

/// Byte offsets of kernel structure members, read from the running kernel's BTF by userspace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.fd`
    pub fdtable_fd: u32,
    /// `fdtable.max_fds`
    pub fdtable_max_fds: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_ino: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.sk_socket`
    pub sock_socket: u32,
    /// `sock.__sk_common.skc_family`
    pub sock_family: u32,
    /// `sock.__sk_common.skc_num`: the local port, in host byte order.
    pub sock_port: u32,
    /// `unix_sock.addr`
    pub unix_addr: u32,
    /// `socket_alloc.vfs_inode` minus `socket_alloc.socket`: the inode lies that far behind the socket it belongs to.
    pub socket_to_inode: u32,
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
