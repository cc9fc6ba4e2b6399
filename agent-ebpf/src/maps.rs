//! The maps: everything that outlives one run of a program.

use agent_ebpf::{Counters, Offsets, Row, RowKey, Session, Settings, Shortcut, Target, loss};
use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, Queue, RingBuf},
};

use crate::scratch::Scratch;

/// Records for userspace. Userspace sets the size at load time.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Watched processes by process id: servers, put in by userspace, and their children, by [`crate::process`].
#[map]
pub(crate) static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(32768, 0);

/// TCP ports on which watched servers listen: one bit a port. Asked first, so that other sockets cost next to nothing.
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// What is remembered of each connection. Userspace reads it in place, sets its size at load time, and frees what has ended.
#[map]
pub(crate) static SESSIONS: Array<Session> = Array::with_max_entries(16384, BPF_F_MMAPABLE);

/// What was read last for each of [`SESSIONS`]; userspace does not look at it. As many places as there are sessions.
#[map]
pub(crate) static SCRATCHES: Array<Scratch> = Array::with_max_entries(16384, 0);

/// The same where nothing can come in between on a processor: hot in its cache. One place for each direction of each
/// strategy that uses it.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(4, 0);

/// Free places in [`SESSIONS`], put in by userspace.
#[map]
pub(crate) static FREE_SESSIONS: Queue<u32> = Queue::with_max_entries(16384, 0);

/// Place in [`SESSIONS`] of a socket, kept with the socket itself ([`agent_ebpf::strategy::SOCKET`]).
#[btf_map]
pub(crate) static SESSION_OF_SOCKET: SkStorage<u32> = SkStorage::new();

/// Place in [`SESSIONS`] by inode number of the socket (the other strategies). Userspace takes out what has ended.
#[map]
pub(crate) static SESSION_OF_INODE: HashMap<u64, u32> = HashMap::with_max_entries(16384, 0);

/// What is counted. Userspace takes it from there in place and sets the size at load time.
#[map]
pub(crate) static ROWS: Array<Row> = Array::with_max_entries(10240, BPF_F_MMAPABLE);

/// Counters of rows by cell and processor. Userspace takes what is there in place and sets the size at load time.
#[map]
pub(crate) static CELLS: Array<Counters> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How many processors a row's cells are for; set by userspace before loading.
#[unsafe(no_mangle)]
pub(crate) static PROCESSORS: Global<u32> = Global::new(1);

/// Free places in [`ROWS`], put in by userspace.
#[map]
pub(crate) static FREE_ROWS: Queue<u32> = Queue::with_max_entries(10240, 0);

/// Place in [`ROWS`] by key. Userspace takes out what it frees.
#[map]
pub(crate) static ROW_OF_KEY: HashMap<RowKey, u32> = HashMap::with_max_entries(10240, 0);

/// Where [`ROW_OF_KEY`] was right the last time; [`SHORTCUTS_LEN`] places.
#[map]
pub(crate) static SHORTCUTS: Array<Shortcut> = Array::with_max_entries(SHORTCUTS_LEN, 0);
/// A power of two.
pub(crate) const SHORTCUTS_LEN: u32 = 16384;

/// Text hash of prepared statements, by name and session. Least recently used ones make room; their executions are recorded.
#[map]
pub(crate) static NAMES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(65536, 0);

/// What userspace says while the programs run.
#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

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
    sock_storage: 0,
    unix_addr: 0,
    socket_to_inode: 0,
    reserved: 0,
});

/// Arguments of a read, kept from its entry to its return.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Read {
    /// Where the bytes will lie.
    pub(crate) buffer: u64,
    /// The connection's file descriptor.
    pub(crate) fd: u64,
    /// How many bytes are asked for.
    pub(crate) wanted: u64,
}

/// Counts a loss.
#[inline(always)]
pub(crate) fn count(cause: u32) {
    if let Some(counter) = LOSSES.get_ptr_mut(cause) {
        // SAFETY: the slot is this CPU's own and the verifier proved it non-null.
        unsafe { *counter += 1 };
    }
}
