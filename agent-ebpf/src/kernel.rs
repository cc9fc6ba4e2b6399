//! Reading the kernel's own structures at the offsets that its BTF gives.

use core::ffi::c_void;

use agent_ebpf::Offsets;
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

/// The offset of one member, by its name in [`Offsets`]: a single word is read, of which the verifier knows the value.
macro_rules! offset {
    ($member:ident) => {
        // SAFETY: within the map's value, which userspace sets before it loads the programs.
        unsafe { (&raw const (*(&raw const OFFSETS).cast::<Offsets>()).$member).read_volatile() }
    };
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

/// The inode number of the socket that a `struct sock` belongs to.
#[inline(always)]
pub(crate) fn inode_of_sock(sk: u64) -> Option<u64> {
    let socket = pointer(sk, offset!(sock_socket))?;
    // struct socket_alloc holds the socket and its inode side by side (include/net/sock.h).
    read(socket + u64::from(offset!(socket_to_inode)), offset!(inode_ino))
}

/// The socket behind a file descriptor of the current process.
#[inline(always)]
pub(crate) fn socket_of_fd(fd: u64) -> Option<Socket> {
    // SAFETY: no arguments.
    let task = unsafe { generated::bpf_get_current_task() };
    let files = pointer(task, offset!(task_files))?;
    let table = pointer(files, offset!(files_fdt))?;
    let max: u32 = read(table, offset!(fdtable_max_fds))?;
    if fd >= u64::from(max) {
        return None;
    }
    let array = pointer(table, offset!(fdtable_fd))?;
    let file = pointer(array + fd * 8, 0)?;
    let inode = pointer(file, offset!(file_inode))?;
    let mode: u16 = read(inode, offset!(inode_mode))?;
    if mode & FILE_TYPE != SOCKET {
        return None;
    }
    let socket = pointer(file, offset!(file_private_data))?;
    let sk = pointer(socket, offset!(socket_sk))?;
    let number = read::<u64>(inode, offset!(inode_ino))?;
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
    let offset = offset!(sock_family);
    // SAFETY: a `struct sock`.
    unsafe { member(sock, offset) }
}

/// Whether programs keep anything with a `struct sock` as a tracepoint gives it.
#[inline(always)]
pub(crate) fn has_storage(sock: *mut c_void) -> bool {
    let offset = offset!(sock_storage);
    // SAFETY: a `struct sock`.
    let storage: u64 = unsafe { member(sock, offset) };
    storage != 0
}

/// Local port of a TCP socket as a tracepoint gives it.
#[inline(always)]
pub(crate) fn port_of(sock: *mut c_void) -> u16 {
    let offset = offset!(sock_port);
    // SAFETY: a `struct sock`.
    unsafe { member(sock, offset) }
}

/// Address family of a socket.
#[inline(always)]
pub(crate) fn family(sk: u64) -> Option<u16> {
    read(sk, offset!(sock_family))
}

/// Local port of a TCP socket.
#[inline(always)]
pub(crate) fn port(sk: u64) -> Option<u16> {
    read(sk, offset!(sock_port))
}

/// Whether a Unix socket has a name. An accepted one has its listener's (`unix_stream_connect`, net/unix/af_unix.c); one that the process
/// itself connected has none.
#[inline(always)]
pub(crate) fn named(sk: u64) -> bool {
    pointer(sk, offset!(unix_addr)).is_some()
}

/// Process id and thread id of a `task_struct`.
#[inline(always)]
pub(crate) fn ids(task: u64) -> Option<(u32, u32)> {
    Some((read(task, offset!(task_tgid))?, read(task, offset!(task_pid))?))
}

/// Whether the last thread of a task's process is ending (`signal->live` has reached 0, kernel/exit.c do_exit).
#[inline(always)]
pub(crate) fn last_thread(task: u64) -> bool {
    pointer(task, offset!(task_signal))
        .and_then(|signal| read::<i32>(signal, offset!(signal_live)))
        .is_some_and(|live| live == 0)
}
