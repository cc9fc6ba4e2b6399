//! pg_querylens: for every statement, the plan that was really executed, with statistics of its own, its history and its regressions.
//!
//! Hooks ([`hooks`]) tell what the server executes; [`executions`] follows each execution ([`open`]) and knows its plan's identity ([`plan_id`]); what was
//! counted goes to the process's slot in shared memory ([`pending`]), and from there, each second, to tables ([`handover`], [`table`]) that SQL
//! functions read ([`views`]). Some executions are looked at more closely ([`sampling`], [`plan_text`]). [`shmem`] lays the memory out, [`worker`] runs in the
//! background, [`state`] is the file that survives restarts. Nothing of it can make a query fail ([`guard`]).
#![allow(clippy::unnecessary_cast, reason = "numbers of the server have other types in other versions")]

mod counters;
mod executions;
mod global;
mod guard;
mod handover;
mod history;
mod hooks;
mod keys;
mod locks;
mod moments;
mod open;
mod pending;
mod plan_id;
mod plan_text;
mod raw;
mod regression;
mod resources;
mod rows;
mod sampling;
mod settings;
mod shmem;
mod state;
mod table;
mod texts;
mod views;
mod worker;

use pgrx::{pg_guard, pg_sys};

pgrx::pg_module_magic!();

/// Called when the library is loaded. Only a preloaded library has shared memory; otherwise its functions say so.
#[allow(non_snake_case, reason = "the server's name")]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: plain variable of the server.
    if unsafe { !pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    settings::define();
    // Otherwise nobody computes query ids; `auto` means on as soon as somebody asks.
    #[cfg(not(feature = "pg13"))]
    // SAFETY: called while libraries are preloaded.
    unsafe {
        pg_sys::EnableQueryId();
    }
    shmem::install();
    hooks::install();
    worker::install();
}
