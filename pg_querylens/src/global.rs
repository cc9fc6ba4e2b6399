//! State of one process.

use std::cell::RefCell;

/// A variable of a PostgreSQL process, which runs one thread.
///
/// A second borrow while the first lasts panics; the panic is caught where PostgreSQL calls the extension ([`crate::guard`]).
pub(crate) struct Global<T>(RefCell<T>);

// SAFETY: a PostgreSQL process runs one thread, and only that one calls the extension; pgrx panics on any other.
unsafe impl<T> Sync for Global<T> {}

impl<T> Global<T> {
    /// A variable with its first value.
    pub(crate) const fn new(value: T) -> Global<T> {
        Global(RefCell::new(value))
    }

    /// Looks at it or changes it. `f` must not come back to the same variable.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }
}
