//! The maps: everything that outlives one run of a program.

use agent_ebpf::{Conn, Offsets, Target, loss};
use aya_ebpf::{
    Global,
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
};

/// Records for userspace. Userspace sets the size at load time.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Watched processes by process id: servers, put in by userspace, and their children, by [`crate::process`].
#[map]
pub(crate) static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(32768, 0);

/// Connections by inode number of their socket. Least recently used ones make room; userspace sees that as a gap.
#[map]
pub(crate) static CONNS: LruHashMap<u64, Conn> = LruHashMap::with_max_entries(65536, 0);

/// Reads under way at the server's boundary, by thread.
#[map]
pub(crate) static READS: LruHashMap<u64, Read> = LruHashMap::with_max_entries(32768, 0);

/// Losses by cause, see [`agent_ebpf::loss`].
#[map]
pub(crate) static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(loss::COUNT, 0);

/// Where the members of kernel structures lie on this kernel; set by userspace before loading.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Global<Offsets> = Global::new(Offsets {
    task_pid: 0,
    task_tgid: 0,
    task_files: 0,
    task_signal: 0,
    signal_live: 0,
    files_fdt: 0,
    fdtable_fd: 0,
    fdtable_max_fds: 0,
    file_private_data: 0,
    file_inode: 0,
    inode_ino: 0,
    inode_mode: 0,
    socket_sk: 0,
    sock_socket: 0,
    sock_family: 0,
    sock_port: 0,
    unix_addr: 0,
    socket_to_inode: 0,
});

/// Arguments of a read, kept from its entry to its return.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Read {
    /// Where the bytes will lie.
    pub(crate) buffer: u64,
    /// The connection's file descriptor.
    pub(crate) fd: u64,
}

/// Counts a loss.
#[inline(always)]
pub(crate) fn count(cause: u32) {
    if let Some(counter) = LOSSES.get_ptr_mut(cause) {
        // SAFETY: the slot is this CPU's own and the verifier proved it non-null.
        unsafe { *counter += 1 };
    }
}
