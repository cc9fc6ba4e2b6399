//! The contract between the kernel's side and userspace: record header, kinds, map values, limits, [`decode`].
//!
//! Everything here is plain integers in `repr(C)` without implicit padding, so that a record can be read in place from the
//! ring buffer and so that this crate can be tested on the host with a stock toolchain. See docs/ARCHITECTURE.md §Kernel.
#![cfg_attr(not(test), no_std)]

pub mod histogram;
mod record;

pub use record::*;
