//! Walking over the messages of an answer, a window at a time.
//!
//! Of each message that matters the first bytes are looked at; what is longer is skipped, also over several writes. A message that a write ends in
//! the middle of is kept for the next one.

use core::ffi::c_void;

use agent_ebpf::Session;
use aya_ebpf::helpers::generated;

use crate::{
    scratch::{self, CARRY, Scratch, WINDOW},
    verifier::{bit, forget},
};

/// What a walk found. Numbers, since global functions give nothing else.
pub(crate) mod walked {
    /// More is to come.
    pub(crate) const ON: u64 = 0;
    /// The answer is complete.
    pub(crate) const READY: u64 = 1;
    /// What was found does not fit.
    pub(crate) const WRONG: u64 = 2;
}

/// A message whose header was read.
pub(crate) struct Message {
    /// Its bytes with the header; 0 if there can be no such message.
    pub(crate) size: u64,
    /// How many of them must be there before it is looked at, at most [`CARRY`].
    pub(crate) needed: u64,
}

/// The messages of a protocol.
pub(crate) trait Messages {
    /// Bytes of a header.
    const HEADER: u64;
    /// Messages looked at in one window; what is left then is looked at in the next.
    const MOST: usize;

    /// The header of the message at `at`; `ready` if the answer was complete before it.
    fn header(session: &mut Session, scratch: &Scratch, at: u64, ready: bool) -> Message;

    /// Takes up the message at `at` with `size` bytes, of which those before `end` are there; one of [`walked`].
    fn message(session: &mut Session, scratch: &mut Scratch, at: u64, size: u64, end: u64) -> u64;

    /// Whether an answer that ends here is complete.
    fn ends(session: &Session) -> bool;

    /// [`window`] of this protocol, as a global function.
    fn window(session: *mut Session, scratch: *mut Scratch, place: *mut Place) -> u64;
}

/// Where a walk is in a write.
#[repr(C)]
pub(crate) struct Place {
    buffer: u64,
    len: u64,
    at: u64,
    /// One of [`walked`].
    found: u64,
}

#[repr(C)]
struct Walk {
    session: *mut Session,
    scratch: *mut Scratch,
    place: Place,
}

/// Walks over a write; one of [`walked`].
#[inline(always)]
pub(crate) fn walk<M: Messages>(session: &mut Session, scratch: &mut Scratch, buffer: u64, len: u64) -> u64 {
    // Opaque zeros, since the compiler would call a function for two plain ones.
    let (at, found) = (forget(0, buffer), forget(walked::ON, buffer));
    let mut walk = Walk { session, scratch, place: Place { buffer, len, at, found } };
    // One window is enough for nearly all writes.
    let over = M::window(walk.session, walk.scratch, &raw mut walk.place);
    if over == 0 {
        // A window moves on by at least one byte, or ends the walk.
        let windows = (len as u32).min(1 << 20);
        // SAFETY: the helper calls `step` with the given context, at most so many times.
        unsafe { generated::bpf_loop(windows, step::<M> as *mut c_void, (&raw mut walk).cast(), 0) };
    }
    if walk.place.at == len { walk.place.found } else { walked::WRONG }
}

extern "C" fn step<M: Messages>(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: the verifier knows it as the caller's stack, and where its pointers come from.
    unsafe { bit(M::window((*walk).session, (*walk).scratch, &raw mut (*walk).place) as i64) }
}

/// One window of a write; 1 if it was the last one.
#[inline(always)]
pub(crate) fn window<M: Messages>(session: *mut Session, scratch: *mut Scratch, place: *mut Place) -> u64 {
    if session.is_null() || scratch.is_null() || place.is_null() {
        return 1;
    }
    // SAFETY: not null, and the verifier knows their sizes.
    let (session, scratch, place) = unsafe { (&mut *session, &mut *scratch, &mut *place) };
    look::<M>(session, scratch, place);
    u64::from(place.at >= place.len || place.found == walked::WRONG)
}

/// One window: what was kept, and the next part of the write.
#[inline(always)]
fn look<M: Messages>(session: &mut Session, scratch: &mut Scratch, place: &mut Place) {
    let unknown = place.buffer;
    if session.skip > 0 {
        let skipped = session.skip.min(place.len - place.at);
        session.skip -= skipped;
        place.at = forget(place.at + skipped, unknown);
        if place.at >= place.len {
            return;
        }
    }
    let left = place.len - place.at;
    let part = left.min(WINDOW as u64);
    if !scratch.fill::<CARRY, WINDOW>(place.buffer + place.at, left) {
        place.found = walked::WRONG;
        return;
    }
    if session.carry > 0 {
        let Some(kept) = scratch::kept(session.place) else {
            place.found = walked::WRONG;
            return;
        };
        // SAFETY: the verifier proved it non-null.
        unsafe { (*kept).keep(CARRY as u64, scratch) };
    }
    let mut at = forget(CARRY as u64 - u64::from(session.carry).min(CARRY as u64), unknown);
    let mut end = forget(CARRY as u64 + part, unknown);
    session.carry = 0;
    for _ in 0..M::MOST {
        (at, end) = (forget(at, unknown), forget(end, unknown));
        place.found = forget(place.found, unknown);
        if at + M::HEADER > end {
            break;
        }
        let message = M::header(session, scratch, at, place.found == walked::READY);
        let (size, needed) = (forget(message.size, unknown), forget(message.needed, unknown));
        if size == 0 {
            place.found = walked::WRONG;
            return;
        }
        if at + needed > end {
            break;
        }
        match M::message(session, scratch, at, size, end) {
            walked::ON => {}
            walked::READY => place.found = walked::READY,
            _ => {
                place.found = walked::WRONG;
                return;
            }
        }
        at += size;
        if at >= end {
            break;
        }
    }
    (at, end) = (forget(at, unknown), forget(end, unknown));
    if at >= end {
        session.skip = at - end;
        place.at = forget(place.at + part, unknown);
        if session.skip == 0 && left == part && M::ends(session) {
            place.found = walked::READY;
        }
    } else if left == part && end - at <= CARRY as u64 {
        let Some(kept) = scratch::kept(session.place) else {
            place.found = walked::WRONG;
            return;
        };
        // SAFETY: the verifier proved it non-null.
        scratch.keep(end, unsafe { &mut *kept });
        session.carry = (end - at) as u32;
        place.at = forget(place.at + part, unknown);
    } else if at > CARRY as u64 {
        // The rest is looked at in the next window.
        place.at = forget(place.at + at - CARRY as u64, unknown);
    } else {
        place.found = walked::WRONG;
    }
}
