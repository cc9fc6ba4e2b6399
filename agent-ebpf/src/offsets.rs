//! Where the members of kernel structures lie.

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
    /// `sock.sk_bpf_storage`
    pub sock_storage: u32,
    /// `unix_sock.addr`
    pub unix_addr: u32,
    /// `socket_alloc.vfs_inode` minus `socket_alloc.socket`: the inode lies that far behind the socket it belongs to.
    pub socket_to_inode: u32,
    /// Explicit padding, always 0.
    pub reserved: u32,
}
