//! Reading the kernel's own structures at the offsets that its BTF gives.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};

use crate::maps::OFFSETS;

/// `AF_UNIX`, include/linux/socket.h.
pub(crate) const AF_UNIX: u16 = 1;
/// `AF_INET`, include/linux/socket.h.
pub(crate) const AF_INET: u16 = 2;
/// `AF_INET6`, include/linux/socket.h.
pub(crate) const AF_INET6: u16 = 10;

/// `S_IFMT` and `S_IFSOCK`, include/uapi/linux/stat.h.
const FILE_TYPE: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;

/// A socket and its inode number.
#[derive(Clone, Copy)]
pub(crate) struct Socket {
    /// Address of the `struct sock`.
    pub(crate) sk: u64,
    /// Inode number.
    pub(crate) inode: u64,
}

#[inline(always)]
pub(crate) fn read<T>(base: u64, offset: u32) -> Option<T> {
    let at = (base + u64::from(offset)) as *const T;
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(at) }.ok()
}

#[inline(always)]
fn pointer(base: u64, offset: u32) -> Option<u64> {
    read::<u64>(base, offset).filter(|pointer| *pointer != 0)
}

/// The socket that a `struct sock` belongs to.
#[inline(always)]
pub(crate) fn socket_of_sock(sk: u64) -> Option<Socket> {
    let offsets = OFFSETS.load();
    let socket = pointer(sk, offsets.sock_socket)?;
    // struct socket_alloc holds the socket and its inode side by side (include/net/sock.h).
    let inode = read::<u64>(socket + u64::from(offsets.socket_to_inode), offsets.inode_ino)?;
    Some(Socket { sk, inode })
}

/// The socket behind a file descriptor of the current process.
#[inline(always)]
pub(crate) fn socket_of_fd(fd: u64) -> Option<Socket> {
    let offsets = OFFSETS.load();
    // SAFETY: no arguments.
    let task = unsafe { generated::bpf_get_current_task() };
    let files = pointer(task, offsets.task_files)?;
    let table = pointer(files, offsets.files_fdt)?;
    let max: u32 = read(table, offsets.fdtable_max_fds)?;
    if fd >= u64::from(max) {
        return None;
    }
    let array = pointer(table, offsets.fdtable_fd)?;
    let file = pointer(array + fd * 8, 0)?;
    let inode = pointer(file, offsets.file_inode)?;
    let mode: u16 = read(inode, offsets.inode_mode)?;
    if mode & FILE_TYPE != SOCKET {
        return None;
    }
    let socket = pointer(file, offsets.file_private_data)?;
    let sk = pointer(socket, offsets.socket_sk)?;
    let number = read::<u64>(inode, offsets.inode_ino)?;
    Some(Socket { sk, inode: number })
}

/// Reads a member of a structure that the verifier knows by its type, which needs no helper.
#[inline(always)]
unsafe fn member<T>(structure: *mut c_void, offset: u32) -> T {
    // SAFETY: by contract; the offset is a constant to the verifier, since the map it lies in is frozen.
    unsafe { structure.cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
}

/// Address family of a `struct sock` as a tracepoint gives it.
#[inline(always)]
pub(crate) fn family_of(sock: *mut c_void) -> u16 {
    // SAFETY: a `struct sock`.
    unsafe { member(sock, OFFSETS.load().sock_family) }
}

/// Local port of a TCP socket as a tracepoint gives it.
#[inline(always)]
pub(crate) fn port_of(sock: *mut c_void) -> u16 {
    // SAFETY: a `struct sock`.
    unsafe { member(sock, OFFSETS.load().sock_port) }
}

/// Address family of a socket.
#[inline(always)]
pub(crate) fn family(sk: u64) -> Option<u16> {
    read(sk, OFFSETS.load().sock_family)
}

/// Local port of a TCP socket.
#[inline(always)]
pub(crate) fn port(sk: u64) -> Option<u16> {
    read(sk, OFFSETS.load().sock_port)
}

/// Whether a Unix socket has a name. An accepted one has its listener's (`unix_stream_connect`, net/unix/af_unix.c); one that the process
/// itself connected has none.
#[inline(always)]
pub(crate) fn named(sk: u64) -> bool {
    pointer(sk, OFFSETS.load().unix_addr).is_some()
}

/// Process id and thread id of a `task_struct`.
#[inline(always)]
pub(crate) fn ids(task: u64) -> Option<(u32, u32)> {
    let offsets = OFFSETS.load();
    Some((read(task, offsets.task_tgid)?, read(task, offsets.task_pid)?))
}

/// Whether the last thread of a task's process is ending (`signal->live` has reached 0, kernel/exit.c do_exit).
#[inline(always)]
pub(crate) fn last_thread(task: u64) -> bool {
    let offsets = OFFSETS.load();
    pointer(task, offsets.task_signal)
        .and_then(|signal| read::<i32>(signal, offsets.signal_live))
        .is_some_and(|live| live == 0)
}
