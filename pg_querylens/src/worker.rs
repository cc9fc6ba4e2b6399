//! The background worker: hands on each second what processes have counted, and saves it each minute.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use pgrx::{
    bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags},
    pg_guard, pg_sys,
};

use crate::{guard, handover, settings, shmem, state};

/// How often counters are handed on.
const HANDOVER: Duration = Duration::from_secs(1);
/// How often they are saved.
const SAVE: Duration = Duration::from_secs(60);

/// Asks for the worker. Only while libraries are preloaded.
pub(crate) fn install() {
    BackgroundWorkerBuilder::new("pg_querylens")
        .set_library("pg_querylens")
        .set_function("pg_querylens_worker")
        .set_type("pg_querylens")
        // On standbys too.
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .enable_shmem_access(None)
        .set_restart_time(Some(Duration::from_secs(10)))
        .load();
}

/// The worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_querylens_worker(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    let Some(shared) = shmem::shared() else { return };
    let mut saved = Instant::now();
    while BackgroundWorker::wait_latch(Some(HANDOVER)) {
        if BackgroundWorker::sighup_received() {
            // SAFETY: between two pieces of work, as the server itself does it.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        guard::run("handing on", || handover::all(&shared));
        shared.header().worker_rounds.fetch_add(1, Ordering::Relaxed);
        if settings::SAVE.get() && saved.elapsed() >= SAVE {
            guard::run("saving", || state::save(&shared));
            saved = Instant::now();
        }
    }
}
