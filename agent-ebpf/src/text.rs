//! Hashing bytes in the server's memory, a piece at a time.
//!
//! Here and in the files beside it, functions with an exported name are global ones to the kernel (Documentation/bpf/verifier.rst; Linux 5.6): it
//! verifies each once and by itself, for any arguments, so that its work is the sum of theirs and not the product.

use core::ffi::c_void;

use agent_ebpf::blind::{self, Blind, MAX_TEXT, PIECE};
use aya_ebpf::helpers::generated;

use crate::{
    user::{fill, peek},
    verifier::{bounded, forget},
};

/// FNV-1a over all bytes, without an eye for literals.
const RAW: u64 = 2;

#[repr(C)]
struct Hashing {
    blind: Blind,
    raw: u64,
    /// Where the next piece lies, and how much is left.
    at: u64,
    left: u64,
    dialect: u64,
    failed: u64,
}

/// The literal-blind hash of `len` bytes; `None` if only userspace can tell.
#[inline(always)]
pub(crate) fn blind(dialect: usize, at: u64, len: u64) -> Option<u64> {
    match text_blind(dialect as u64, at, len) {
        0 => None,
        hash => Some(hash),
    }
}

/// As [`blind`], 0 for none.
#[unsafe(no_mangle)]
extern "C" fn text_blind(dialect: u64, at: u64, len: u64) -> u64 {
    run(dialect, at, len).and_then(|hashing| hashing.blind.finish()).unwrap_or(0)
}

/// The hash of `len` bytes as they are.
#[inline(always)]
pub(crate) fn raw(at: u64, len: u64) -> Option<u64> {
    match text_raw(at, len) {
        0 => None,
        hash => Some(hash),
    }
}

/// As [`raw`], 0 for none.
#[unsafe(no_mangle)]
extern "C" fn text_raw(at: u64, len: u64) -> u64 {
    run(RAW, at, len).map_or(0, |hashing| blind::scatter(hashing.raw))
}

#[inline(always)]
fn run(dialect: u64, at: u64, len: u64) -> Option<Hashing> {
    if len > MAX_TEXT {
        return None;
    }
    let mut hashing = Hashing { blind: Blind::new(), raw: blind::BASIS, at, left: len, dialect, failed: 0 };
    let pieces = (len as u32).div_ceil(PIECE as u32);
    // SAFETY: the helper calls `piece` with the given context, at most so many times.
    unsafe { generated::bpf_loop(pieces, piece as *mut c_void, (&raw mut hashing).cast(), 0) };
    (hashing.failed == 0).then_some(hashing)
}

extern "C" fn piece(_index: u64, hashing: *mut Hashing) -> i64 {
    // SAFETY: the verifier knows it as the caller's stack.
    let hashing = unsafe { &mut *hashing };
    let mut bytes = [0u8; PIECE];
    let len = bounded::<PIECE>(hashing.left);
    if !fill::<PIECE>((&raw mut bytes).cast(), hashing.at, len) {
        hashing.failed = 1;
        return 1;
    }
    let unknown = hashing.at;
    hashing.at = forget(unknown + len, unknown);
    hashing.left = forget(hashing.left - len, unknown);
    let len = forget(len, unknown);
    if hashing.dialect == RAW {
        let mut raw = hashing.raw;
        for at in 0..PIECE {
            if at as u64 >= len {
                break;
            }
            raw = blind::fnv(raw, u64::from(bytes[at]));
        }
        hashing.raw = forget(raw, unknown);
    } else {
        let mut blind = hashing.blind;
        for at in 0..PIECE {
            if at as u64 >= len {
                break;
            }
            blind.byte(hashing.dialect as usize, bytes[at]);
            blind = blind.map(|value| forget(value, unknown));
        }
        hashing.blind = blind;
    }
    0
}

/// The hash of the bytes at `at` up to a zero, and how many they are; `None` if there is none within `most`.
#[inline(always)]
pub(crate) fn until_zero(at: u64, most: u64) -> Option<(u64, u64)> {
    let mut name = Name { hash: blind::BASIS, at, len: 0, ended: 0 };
    // SAFETY: the helper calls `character` with the given context, at most so many times.
    unsafe { generated::bpf_loop(most as u32, character as *mut c_void, (&raw mut name).cast(), 0) };
    (name.ended != 0).then_some((name.hash, name.len))
}

#[repr(C)]
struct Name {
    hash: u64,
    at: u64,
    len: u64,
    ended: u64,
}

extern "C" fn character(_index: u64, name: *mut Name) -> i64 {
    // SAFETY: the verifier knows it as the caller's stack.
    let name = unsafe { &mut *name };
    let byte = peek::<u8>(name.at);
    if byte == 0 {
        name.ended = 1;
        return 1;
    }
    let unknown = name.at;
    name.hash = forget(blind::fnv(name.hash, u64::from(byte)), unknown);
    name.at = unknown + 1;
    name.len = forget(name.len + 1, unknown);
    0
}
