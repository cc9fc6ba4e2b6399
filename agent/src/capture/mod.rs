//! Loads the eBPF programs, attaches them to servers, reads their records. The only module that knows aya and the kernel contract.
//!
//! [`Control`] attaches and detaches and belongs to the discovery thread; [`Ring`] is the stream of records and [`Counters`] what the kernel counts:
//! both belong to the pipeline.

mod boundary;
mod btf;
mod cells;
pub mod config;
mod control;
mod counters;
mod features;
mod ring;
mod rows;
mod sessions;
mod shared;

pub use agent_ebpf::{Outlier, Record, RecordHeader, direction, flags, kind, segments};
pub use config::{Choice, Config};
pub use control::{Control, Error, Losses, Refused};
pub use counters::{Counters, ending};
pub use features::Features;
pub use ring::Ring;
pub use sessions::Followed;

use agent_ebpf::{Offsets, RowKey, Settings, Target, blind};
use serde::Serialize;

use crate::model::Engine;

/// A structure of the kernel contract as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Shared<T: Copy>(T);
// SAFETY: these are repr(C) structures of integers without padding, made to be shared with the kernel.
unsafe impl aya::Pod for Shared<Target> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<Offsets> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<RowKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<Settings> {}

/// The literal-blind hash by which the kernel counts a text; `None` for one that it leaves to userspace.
pub fn text_hash(engine: Engine, text: &[u8]) -> Option<u64> {
    let dialect = match engine {
        Engine::Postgresql => blind::dialect::POSTGRESQL,
        Engine::Mysql | Engine::Mariadb => blind::dialect::MYSQL,
    };
    blind::hash(dialect, text)
}

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
