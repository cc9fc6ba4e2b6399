//! The eBPF programs. They know no SQL: they recognise watched processes and copy what those read and write, bounded, to the ring buffer.
//!
//! One file a hook family; [`maps`] is what they share, [`emit`] the only way into the ring buffer.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod boundary;
mod elide;
mod emit;
mod follow;
mod kernel;
mod maps;
mod mysql;
mod names;
mod postgres;
mod process;
mod rows;
mod scratch;
mod sessions;
mod socket;
mod syscall;
mod text;
mod user;
mod verifier;
mod walk;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that these programs use are for GPL-compatible programs only; the sources are under either licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
