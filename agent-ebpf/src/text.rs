//! Hashing bytes of a request.
//!
//! Here and in the files beside it, functions with an exported name are global ones to the kernel (Documentation/bpf/verifier.rst; Linux 5.6): it
//! verifies each once and by itself, for any arguments, so that its work is the sum of theirs and not the product.

use core::ffi::c_void;

use agent_ebpf::blind::{self, Blind, MAX_TEXT};
use aya_ebpf::helpers::generated;

use crate::{
    scratch::{SIZE, Scratch},
    verifier::{bit, forget},
};

/// Bytes hashed at once.
const WORD: u64 = size_of::<u64>() as u64;
/// Words or bytes that are taken in one round.
const ROUND: u32 = 64;
/// Rounds for the longest text, if all of it is taken byte by byte, and parts of the scratch are left to the next round.
const ROUNDS: u32 = MAX_TEXT as u32 / ROUND + MAX_TEXT as u32 / (SIZE as u32 - WORD as u32) + 2;
/// Reads into the scratch for the longest text.
const PIECES: u32 = MAX_TEXT as u32 / SIZE as u32 + 1;

/// A text and its hash under way. All words, so that the verifier has one kind of stack slot to follow.
#[repr(C)]
struct Hashing {
    dialect: u64,
    blind: Blind,
    /// Where the request lies.
    buffer: u64,
    /// Which of its bytes is the first one in the scratch.
    base: u64,
    /// Which of its bytes comes next.
    at: u64,
    /// Where the text ends.
    end: u64,
}

#[repr(C)]
struct Rounds {
    scratch: *mut Scratch,
    hashing: Hashing,
}

/// The literal-blind hash of the text from the byte `from` of the request at `buffer` to the byte `end`; `None` if only userspace can tell. The scratch
/// holds the beginning of the request, and afterwards it does if all of it fits.
#[inline(always)]
pub(crate) fn blind(scratch: &mut Scratch, dialect: usize, from: u64, buffer: u64, end: u64) -> Option<u64> {
    match text_blind(scratch, dialect as u64, from, buffer, end) {
        0 => None,
        hash => Some(hash),
    }
}

/// As [`blind`], 0 for none.
#[unsafe(no_mangle)]
extern "C" fn text_blind(scratch: *mut Scratch, dialect: u64, from: u64, buffer: u64, end: u64) -> u64 {
    if scratch.is_null() || from > end || end - from > MAX_TEXT {
        return 0;
    }
    let hashing = Hashing { dialect, blind: Blind::new(), buffer, base: 0, at: from, end };
    let mut rounds = Rounds { scratch, hashing };
    text_round(scratch, &mut rounds.hashing);
    if rounds.hashing.at != end {
        // SAFETY: the helper calls `round` with the given context, at most so many times.
        unsafe { generated::bpf_loop(ROUNDS, round as *mut c_void, (&raw mut rounds).cast(), 0) };
    }
    let Hashing { blind, at, .. } = rounds.hashing;
    if at == end { blind.finish().unwrap_or(0) } else { 0 }
}

extern "C" fn round(_index: u64, rounds: *mut Rounds) -> i64 {
    // SAFETY: the verifier knows it as the caller's stack, and where its pointer comes from.
    unsafe { bit(text_round((*rounds).scratch, &raw mut (*rounds).hashing) as i64) }
}

/// One round; 1 if there is nothing left to do.
#[unsafe(no_mangle)]
extern "C" fn text_round(scratch: *mut Scratch, hashing: *mut Hashing) -> u64 {
    if scratch.is_null() || hashing.is_null() {
        return 1;
    }
    // SAFETY: not null, and the verifier knows their sizes.
    let (scratch, hashing) = unsafe { (&mut *scratch, &mut *hashing) };
    if hashing.at - hashing.base + WORD > SIZE as u64 {
        hashing.base = hashing.at;
        if !scratch.fill::<0, SIZE>(hashing.buffer + hashing.at, hashing.end - hashing.at) {
            return 1;
        }
    }
    piece(scratch, hashing);
    u64::from(hashing.at >= hashing.end)
}

/// What of the text lies in the scratch; where more comes behind it, without the last bytes, which may go together with those.
#[inline(always)]
fn piece(scratch: &Scratch, hashing: &mut Hashing) {
    let unknown = hashing.buffer;
    let mut at = forget(hashing.at - hashing.base, unknown);
    let left = hashing.end - hashing.base;
    let (end, whole) = if left > SIZE as u64 { (SIZE as u64, false) } else { (left, true) };
    let (dialect, mut blind) = (hashing.dialect as usize, hashing.blind);
    for _ in 0..ROUND {
        at = forget(at, unknown);
        blind = blind.map(|value| forget(value, unknown));
        if at + WORD <= end {
            if blind.word(dialect, scratch.word(at)) {
                at += WORD;
                continue;
            }
        } else if at >= end || !whole {
            break;
        }
        blind.byte(dialect, scratch.byte(at));
        at += 1;
    }
    hashing.blind = blind;
    hashing.at = forget(hashing.base + at, unknown);
}

/// The hash of `len` bytes as they are; `None` if they cannot be read or are too many. Afterwards the scratch holds the last of them.
#[inline(always)]
pub(crate) fn raw(scratch: &mut Scratch, buffer: u64, len: u64) -> Option<u64> {
    match text_raw(scratch, buffer, len) {
        0 => None,
        hash => Some(hash),
    }
}

/// Bytes as they are, being hashed.
#[repr(C)]
struct Raw {
    scratch: *mut Scratch,
    hash: u64,
    at: u64,
    left: u64,
}

/// As [`raw`], 0 for none.
#[unsafe(no_mangle)]
extern "C" fn text_raw(scratch: *mut Scratch, buffer: u64, len: u64) -> u64 {
    if scratch.is_null() || len > MAX_TEXT {
        return 0;
    }
    let mut raw = Raw { scratch, hash: blind::BASIS, at: buffer, left: len };
    // SAFETY: the helper calls `raw_piece` with the given context, at most so many times.
    unsafe { generated::bpf_loop(PIECES, raw_piece as *mut c_void, (&raw mut raw).cast(), 0) };
    if raw.left == 0 { blind::scatter(raw.hash) } else { 0 }
}

extern "C" fn raw_piece(_index: u64, raw: *mut Raw) -> i64 {
    // SAFETY: the verifier knows it as the caller's stack, and where its pointer comes from.
    let (raw, scratch) = unsafe { (&mut *raw, &mut *(*raw).scratch) };
    let unknown = raw.at;
    if !scratch.fill::<0, SIZE>(raw.at, raw.left) {
        return 1;
    }
    let (mut hash, mut left) = (raw.hash, raw.left);
    for at in (0..SIZE as u64).step_by(WORD as usize) {
        (hash, left) = (forget(hash, unknown), forget(left, unknown));
        if left < WORD {
            if left > 0 {
                hash = blind::mix(hash, scratch.word(at) & ((1 << (8 * left)) - 1));
                left = 0;
            }
            break;
        }
        hash = blind::mix(hash, scratch.word(at));
        left -= WORD;
    }
    raw.hash = forget(hash, unknown);
    raw.at = forget(unknown + SIZE as u64, unknown);
    raw.left = forget(left, unknown);
    bit(i64::from(raw.left == 0))
}

/// The hash of the bytes from `at` on in the scratch up to a zero, and how many they are; hash 0 if there is none within `MOST`.
#[inline(always)]
pub(crate) fn until_zero<const MOST: u64>(scratch: &Scratch, at: u64) -> (u64, u64) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    /// Shifted left by n bytes, its highest byte is n.
    const POSITIONS: u64 = 0x0001_0203_0405_0607;
    let mut hash = blind::BASIS;
    for part in 0..MOST / WORD {
        let word = scratch.word(at + WORD * part);
        // The highest bit of each byte that is zero, and perhaps of some above the lowest such one (Warren, Hacker's Delight, §6-1).
        let zeros = word.wrapping_sub(ONES) & !word & (0x80 * ONES);
        if zeros != 0 {
            // The lowest bit of the first such byte.
            let first = (zeros & zeros.wrapping_neg()) >> 7;
            let length = WORD * part + (first.wrapping_mul(POSITIONS) >> 56);
            return (blind::scatter(blind::mix(hash, word & (first - 1))), length);
        }
        hash = blind::mix(hash, word);
    }
    (0, 0)
}
