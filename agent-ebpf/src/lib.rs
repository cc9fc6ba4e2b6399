//! The contract between the kernel's side and userspace: records, rows, sessions, limits, [`decode`], and the code that both must agree on.
//!
//! Everything here is plain integers in `repr(C)` without implicit padding, so that a record can be read in place from the
//! ring buffer and so that this crate can be tested on the host with a stock toolchain. See docs/ARCHITECTURE.md §Kernel.
#![cfg_attr(not(test), no_std)]

pub mod blind;
pub mod histogram;
mod offsets;
mod record;
pub mod row;
pub mod session;
mod target;

pub use offsets::Offsets;
pub use record::*;
pub use row::{Counters, ROW_LEN, Row, RowKey, Shortcut};
pub use session::{SESSION_LEN, Session};
pub use target::*;

/// What userspace tells the programs while they run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// An execution that is counted only is recorded too if a random number of 32 bits is below this.
    pub sample: u32,
    /// Explicit padding, always 0.
    pub reserved: u32,
}
