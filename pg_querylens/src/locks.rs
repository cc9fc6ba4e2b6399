//! Lightweight locks of the server, held no longer than a scope.

use pgrx::pg_sys;

use crate::raw;

/// How a lock is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// Beside other readers.
    Shared,
    /// Alone.
    Exclusive,
}

/// A group of locks of one named tranche.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Locks {
    first: *mut pg_sys::LWLockPadded,
    count: usize,
}

impl Locks {
    /// # Safety
    ///
    /// `first` points to `count` locks that live as long as the process.
    pub(crate) unsafe fn new(first: *mut pg_sys::LWLockPadded, count: usize) -> Locks {
        Locks { first, count }
    }

    /// Takes the lock for the `index`th of many things; things share locks.
    pub(crate) fn hold(&self, index: usize, mode: Mode) -> Held {
        let mode = match mode {
            Mode::Shared => pg_sys::LWLockMode::LW_SHARED,
            Mode::Exclusive => pg_sys::LWLockMode::LW_EXCLUSIVE,
        };
        // SAFETY: the lock is one of those promised to `new`. Nothing here raises while it is held.
        unsafe {
            let lock = &raw mut (*self.first.add(index % self.count)).lock;
            raw::LWLockAcquire(lock, mode);
            Held(lock)
        }
    }
}

/// A lock that is held; given back when dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Held(*mut pg_sys::LWLock);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: taken by `hold`, given back once.
        unsafe { raw::LWLockRelease(self.0) };
    }
}
