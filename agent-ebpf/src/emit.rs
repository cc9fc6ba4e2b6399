//! The only way into the ring buffer.

use agent_ebpf::{
    Conn, HEADER_LEN, MAX_PAYLOAD, MAX_PIECES, PAYLOAD_CLASSES, RecordHeader, Target, direction, flags, kind, loss,
    strategy,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated};

use crate::{
    elide,
    kernel::{self, AF_INET, AF_INET6, AF_UNIX, Socket},
    maps::{CONNS, RECORDS, TARGETS, count},
};

/// `BPF_RB_NO_WAKEUP`, include/uapi/linux/bpf.h: userspace looks at the ring by a timer, because a wake-up for each record costs more
/// than everything else the agent does with it.
pub(crate) const NO_WAKEUP: u64 = 1;

/// `errno` values that mean "nothing happened, try again", include/uapi/asm-generic/errno*.h and include/linux/errno.h.
const TRY_AGAIN: [i64; 5] = [-11, -4, -512, -514, -516];

/// The target that the current process is, if the hooks of `strategy` speak for it.
#[inline(always)]
pub(crate) fn target(strategy: u32) -> Option<Target> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: values are only replaced as a whole, and a torn read of a replaced one costs at most one record.
    let target = unsafe { TARGETS.get(tgid) }?;
    if target.strategy == strategy { Some(*target) } else { None }
}

/// What a read or write of a watched process gave.
pub(crate) struct Io {
    /// One of [`direction`].
    pub(crate) direction: u8,
    /// Where the bytes lie in the server's memory, 0 if unknown.
    pub(crate) buffer: u64,
    /// How many: the result of the call; negative for an error.
    pub(crate) result: i64,
}

/// Records what went over `socket`.
#[inline(always)]
pub(crate) fn io(target: &Target, socket: Socket, io: &Io) {
    let Some(conn) = conn(target, socket) else { return };
    // SAFETY: the map's value lives until the program ends, and a connection is used by one thread at a time.
    let conn = unsafe { &mut *conn };
    if conn.accepted == 0 {
        return;
    }
    let (mut buffer, mut len) = (io.buffer, io.result as u64);
    if io.result <= 0 {
        // At the boundary a failed read gives -1 and leaves the reason in errno, which is out of reach; a connection that failed
        // for good is found by its socket's end.
        let failed = io.result < 0 && target.strategy == strategy::BOUNDARY;
        if io.direction == direction::RESPONSE || failed || TRY_AGAIN.contains(&io.result) {
            return;
        }
        let header = header(kind::CLOSE, io.direction, target, socket.inode, conn);
        submit_bare(&header, loss::RING_FULL_DATA);
        let _ = CONNS.remove(socket.inode);
        return;
    }
    if target.strategy == strategy::BOUNDARY && io.direction == direction::RESPONSE {
        let end = buffer + len;
        if buffer > conn.written_from && buffer < conn.written_to {
            // The rest of a write that was taken only in part: its bytes are recorded already.
            if end <= conn.written_to {
                return;
            }
            len = end - conn.written_to;
            buffer = conn.written_to;
        }
        conn.written_from = buffer;
        conn.written_to = end;
    }
    let mut header = header(kind::DATA, io.direction, target, socket.inode, conn);
    if io.direction == direction::REQUEST {
        elide::request(target, conn);
    } else {
        let (elided, rest) = elide::response(target, conn, &mut header, buffer, len);
        if elided > 0 {
            if rest == 0 {
                return;
            }
            buffer += len - rest;
            len = rest;
            header.kind = kind::DATA;
            header.captured = 0;
            header.seq = conn.seq;
            conn.seq = conn.seq.wrapping_add(1);
        }
    }
    const PIECE: u64 = MAX_PAYLOAD as u64;
    for _ in 1..MAX_PIECES {
        if len <= PIECE {
            break;
        }
        header.true_len = PIECE as u32;
        copy::<MAX_PAYLOAD>(&mut header, buffer, PIECE);
        buffer += PIECE;
        len -= PIECE;
        header.captured = 0;
        header.seq = conn.seq;
        conn.seq = conn.seq.wrapping_add(1);
    }
    header.true_len = len as u32;
    data(&mut header, buffer, len);
}

/// The connection's state, made on first sight.
#[inline(always)]
fn conn(target: &Target, socket: Socket) -> Option<*mut Conn> {
    if let Some(conn) = CONNS.get_ptr_mut(socket.inode) {
        return Some(conn);
    }
    let family = kernel::family(socket.sk)?;
    let accepted = match family {
        AF_UNIX => kernel::named(socket.sk),
        AF_INET | AF_INET6 => {
            let port = kernel::port(socket.sk)?;
            port != 0 && target.ports.contains(&port)
        }
        _ => false,
    };
    let conn = Conn { family, accepted: u16::from(accepted), ..Conn::default() };
    CONNS.insert(socket.inode, conn, 0).ok()?;
    CONNS.get_ptr_mut(socket.inode)
}

#[inline(always)]
fn header(kind: u16, direction: u8, target: &Target, inode: u64, conn: &mut Conn) -> RecordHeader {
    let id = bpf_get_current_pid_tgid();
    let seq = conn.seq;
    conn.seq = seq.wrapping_add(1);
    RecordHeader {
        kind,
        direction,
        flags: if target.strategy == strategy::BOUNDARY { flags::BOUNDARY } else { 0 },
        target: target.slot,
        tgid: (id >> 32) as u32,
        tid: id as u32,
        conn: inode,
        // SAFETY: no arguments.
        at: unsafe { bpf_ktime_get_ns() },
        seq,
        captured: 0,
        true_len: 0,
        family: conn.family,
        reserved: 0,
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

/// `min(len, N)`, written so that the verifier sees the bound on the very register that it is used in.
#[inline(always)]
pub(crate) fn bounded<const N: usize>(len: u64) -> u64 {
    let mut len = len;
    // SAFETY: plain arithmetic on one register.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!(
            "if {len} <= {bound} goto +1",
            "{len} = {bound}",
            len = inout(reg) len,
            bound = const N,
        );
    }
    if len > N as u64 {
        len = N as u64;
    }
    len
}
