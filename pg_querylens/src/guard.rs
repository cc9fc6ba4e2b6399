//! The wall between the extension and the server: what goes wrong here never reaches a query.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
};

use pgrx::pg_sys::{self, panic::CaughtError};

use crate::{global::Global, shmem};

/// Whether this process has switched the extension off.
static OFF: Global<bool> = Global::new(false);

/// Whether the extension is off in this process, since something in it went wrong.
#[inline]
pub(crate) fn is_off() -> bool {
    OFF.with(|off| *off)
}

/// Runs a part of the extension. A panic in it, or an error of the server below it, ends here: the extension switches itself off for this process,
/// counts that and logs it once. The transaction goes on.
#[inline]
pub(crate) fn run<R>(part: &'static str, work: impl FnOnce() -> R) -> Option<R> {
    if is_off() {
        return None;
    }
    // SAFETY: reading and restoring a pointer of this process.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(payload) => {
            // SAFETY: the context is the one from before, and lives as long as the caller's frame.
            unsafe { pg_sys::CurrentMemoryContext = context };
            switch_off(part, matches!(payload.downcast_ref(), Some(CaughtError::PostgresError(_))));
            None
        }
    }
}

/// `raised`: the server has raised an error, whose data lies on its stack of errors. Parts that run while the server handles an error call nothing that
/// raises one, so it is not the error of the query.
#[cold]
fn switch_off(part: &'static str, raised: bool) {
    OFF.with(|off| *off = true);
    if let Some(shared) = shmem::shared() {
        shared.header().failures.fetch_add(1, Ordering::Relaxed);
    }
    let _ = catch_unwind(|| {
        if raised {
            // SAFETY: the error was raised and caught below `run`; nobody else handles it.
            unsafe { pg_sys::FlushErrorState() };
        }
        pgrx::log!("pg_querylens: internal failure in {part}; it is off for this process");
    });
}
