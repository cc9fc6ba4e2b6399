//! What the kernel must know of a watched process.

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

/// How well the kernel knows its place in a connection's responses. Values of [`crate::Session::elide_place`].
pub mod place {
    /// Not at all: writes are recorded whole.
    pub const LOST: u16 = 0;
    /// The next write begins with a message.
    pub const BOUNDARY: u16 = 1;
    /// Bytes of a message are still to come, or only a part of a header is there.
    pub const WITHIN: u16 = 2;
}
