//! Loads the eBPF programs, attaches them to servers, reads their records. The only module that knows aya and the kernel contract.
//!
//! [`Control`] attaches and detaches and belongs to the discovery thread; [`Ring`] is the stream of records and belongs to the pipeline.

mod boundary;
mod btf;
pub mod config;
mod control;
mod features;
mod ring;

pub use agent_ebpf::{Record, RecordHeader, direction, kind, segments};
pub use config::{Choice, Config};
pub use control::{Control, Error, Losses, Refused};
pub use features::Features;
pub use ring::Ring;

use serde::Serialize;

/// An attach strategy: a family of hooks that can speak for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Uprobes at the server's own I/O functions.
    Boundary,
    /// Socket tracepoints.
    Socket,
    /// The system-call tracepoint.
    Syscall,
}

impl Strategy {
    /// Name in configuration and output.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Boundary => "boundary",
            Strategy::Socket => "socket",
            Strategy::Syscall => "syscall",
        }
    }

    /// Value in the kernel's map.
    fn code(self) -> u32 {
        match self {
            Strategy::Boundary => agent_ebpf::strategy::BOUNDARY,
            Strategy::Socket => agent_ebpf::strategy::SOCKET,
            Strategy::Syscall => agent_ebpf::strategy::SYSCALL,
        }
    }
}
