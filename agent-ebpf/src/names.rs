//! What the names of prepared statements stand for: the hash of their text, by session and name.

use agent_ebpf::{Session, blind, session::Known};

use crate::{maps::NAMES, scratch::Scratch, text};

/// The longest name that is looked at in bytes, with its zero; names of SQL are cut at 63 bytes (`NAMEDATALEN`).
const MAX_NAME: u64 = 64;

/// The hash of the name at `at` and its length; hash 0 if it is too long.
#[inline(always)]
pub(crate) fn hashed(scratch: &Scratch, at: u64) -> (u64, u64) {
    text::until_zero::<MAX_NAME>(scratch, at)
}

/// The hash of the text that `name` stands for, 0 if it is not known.
#[inline(always)]
pub(crate) fn text_of(session: &mut Session, name: u64) -> u64 {
    let known = &mut session.known[Known::place(name)];
    if known.name != name {
        // SAFETY: copied at once.
        let hash = unsafe { NAMES.get(name) }.copied().unwrap_or(0);
        if hash == 0 {
            // It is not remembered that a name is unknown, since userspace may tell it.
            return 0;
        }
        *known = Known { name, hash };
    }
    known.hash
}

/// From now on `name` stands for the text with this hash, 0 for one that the kernel cannot tell.
#[inline(always)]
pub(crate) fn set(session: &mut Session, name: u64, hash: u64) {
    if hash == 0 {
        return forget(session, name);
    }
    let _ = NAMES.insert(name, hash, 0);
    session.known[Known::place(name)] = Known { name, hash };
}

/// `name` stands for nothing any more.
#[inline(always)]
pub(crate) fn forget(session: &mut Session, name: u64) {
    let _ = NAMES.remove(name);
    session.known[Known::place(name)].name = 0;
}

/// Forgets what all names of a session stand for: what was prepared since the last certain place is not known.
#[inline(always)]
pub(crate) fn forget_all(session: &mut Session, now: u64) {
    session.names = blind::scatter(session.names ^ now);
    session.unnamed = 0;
    session.preparing = 0;
}
