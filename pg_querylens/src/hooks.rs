//! Where PostgreSQL calls the extension. Each hook calls the one that was there before, or what PostgreSQL would have called.
//!
//! Starting, finishing a plain SELECT and taking down let errors of the server pass by: nothing of ours is on the stack then that would have to be
//! dropped. Running, finishing, planning and utility statements catch errors to count them, and raise them again untouched: as PG_TRY and PG_RE_THROW do
//! it, not by way of pgrx's panics, which would make a new error of it that has lost its constraint, its position and more.

use std::{
    ffi::{c_char, c_int},
    mem::MaybeUninit,
};

use pgrx::pg_sys::{self, NodeTag};

use crate::{executions, global::Global, guard, raw};

/// The hooks that were there before.
#[derive(Clone, Copy)]
struct Previous {
    planner: pg_sys::planner_hook_type,
    start: pg_sys::ExecutorStart_hook_type,
    run: pg_sys::ExecutorRun_hook_type,
    finish: pg_sys::ExecutorFinish_hook_type,
    end: pg_sys::ExecutorEnd_hook_type,
    utility: pg_sys::ProcessUtility_hook_type,
}

static PREVIOUS: Global<Previous> =
    Global::new(Previous { planner: None, start: None, run: None, finish: None, end: None, utility: None });

fn previous() -> Previous {
    PREVIOUS.with(|previous| *previous)
}

/// Puts the hooks in place. Only while libraries are preloaded.
pub(crate) fn install() {
    // SAFETY: hooks are changed while libraries are loaded, in the one thread there is.
    unsafe {
        PREVIOUS.with(|previous| {
            *previous = Previous {
                planner: pg_sys::planner_hook,
                start: pg_sys::ExecutorStart_hook,
                run: pg_sys::ExecutorRun_hook,
                finish: pg_sys::ExecutorFinish_hook,
                end: pg_sys::ExecutorEnd_hook,
                utility: pg_sys::ProcessUtility_hook,
            };
        });
        pg_sys::planner_hook = Some(planner);
        pg_sys::ExecutorStart_hook = Some(executor_start);
        pg_sys::ExecutorRun_hook = Some(executor_run);
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        pg_sys::ExecutorEnd_hook = Some(executor_end);
        pg_sys::ProcessUtility_hook = Some(process_utility);
        pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_ended), std::ptr::null_mut());
    }
}

/// An error of the server that was caught and must be raised again.
struct Failure {
    sqlstate: u64,
}

/// Calls the server, and catches its error if it raises one.
///
/// # Safety
///
/// `call` only calls the server, without pgrx's wrappers, whose panics could not leave it, and has nothing that must be dropped. The result must be [concluded](conclude), and until then nothing may be called that
/// raises an error.
unsafe fn attempt<R: Copy>(call: impl FnOnce() -> R) -> Result<R, Failure> {
    // SAFETY: what PG_TRY does: the jump buffer lives as long as the server can jump to it; both stacks are put back before anything else.
    unsafe {
        let (exceptions, contexts) = (pg_sys::PG_exception_stack, pg_sys::error_context_stack);
        let mut result = MaybeUninit::uninit();
        let jumped = cee_scape::call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack = std::ptr::from_ref(buffer).cast_mut().cast();
            result.write(call());
            0
        });
        pg_sys::PG_exception_stack = exceptions;
        pg_sys::error_context_stack = contexts;
        if jumped == 0 {
            Ok(result.assume_init())
        } else {
            Err(Failure { sqlstate: u64::from(raw::geterrcode().unsigned_abs()) })
        }
    }
}

/// The result of the server's part, after the extension's part was done; its error goes on its way.
///
/// # Safety
///
/// The caller has nothing that must be dropped.
unsafe fn conclude<R>(outcome: Result<R, Failure>) -> R {
    match outcome {
        Ok(result) => result,
        // SAFETY: the error that was caught is still being handled.
        Err(_) => unsafe { raw::pg_re_throw() },
    }
}

unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: called by the server with what its planner takes.
    let query_id = unsafe { (*query).queryId } as u64;
    let begin = guard::run("planning", executions::plan_begins).flatten();
    let next = previous().planner;
    // SAFETY: as above.
    let outcome = unsafe {
        attempt(|| match next {
            Some(next) => next(query, text, options, parameters),
            None => raw::standard_planner(query, text, options, parameters),
        })
    };
    guard::run("planning", || match &outcome {
        // SAFETY: the plan that the server has just made.
        Ok(statement) => unsafe { executions::plan_ends(*statement, !parameters.is_null(), begin) },
        Err(failure) => executions::plan_failed(query_id, begin, failure.sqlstate),
    });
    // SAFETY: nothing must be dropped.
    unsafe { conclude(outcome) }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: called by the server with a query that is about to be set up.
    unsafe {
        guard::run("the start of an execution", || executions::start(query, flags));
        match previous().start {
            Some(next) => next(query, flags),
            None => raw::standard_ExecutorStart(query, flags),
        }
    }
}

#[cfg(not(feature = "pg18"))]
unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    let next = previous().run;
    // SAFETY: called by the server with a query that is set up.
    unsafe {
        measured(query, || match next {
            Some(next) => next(query, direction, count, once),
            None => raw::standard_ExecutorRun(query, direction, count, once),
        });
    }
}

#[cfg(feature = "pg18")]
unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
) {
    let next = previous().run;
    // SAFETY: called by the server with a query that is set up.
    unsafe {
        measured(query, || match next {
            Some(next) => next(query, direction, count),
            None => raw::standard_ExecutorRun(query, direction, count),
        });
    }
}

unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    let next = previous().finish;
    // SAFETY: called by the server with a query that has run.
    unsafe {
        let call = || match next {
            Some(next) => next(query),
            None => raw::standard_ExecutorFinish(query),
        };
        // Nothing is left to do for what changes nothing: no triggers, no rest of a WITH that changes something.
        let statement = &*(*query).plannedstmt;
        if statement.commandType == pg_sys::CmdType::CMD_SELECT && !statement.hasModifyingCTE {
            call();
        } else {
            measured(query, call);
        }
    }
}

unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: called by the server with a query that has finished.
    unsafe {
        guard::run("the end of an execution", || executions::end(query));
        match previous().end {
            Some(next) => next(query),
            None => raw::standard_ExecutorEnd(query),
        }
    }
}

/// A part of an execution, measured.
#[inline]
unsafe fn measured(query: *mut pg_sys::QueryDesc, call: impl FnOnce()) {
    let entered = guard::run("an execution", || executions::enter(query));
    // SAFETY: promised by the callers.
    unsafe {
        let outcome = attempt(call);
        if let Some(measurement) = &entered {
            let sqlstate = outcome.as_ref().err().map(|failure| failure.sqlstate);
            guard::run("an execution", || executions::leave(query, measurement.as_ref(), sqlstate));
        }
        conclude(outcome);
    }
}

/// How a statement without a plan is followed.
struct Treatment {
    /// It is not followed, nor anything in it.
    silent: bool,
    /// It is counted.
    counted: bool,
    /// What it executes is within it.
    nested: bool,
}

/// As pg_stat_statements does: what EXECUTE executes is the client's own statement, and PREPARE does nothing that is seen from outside. EXPLAIN is left
/// out with everything in it, since what it executes is slower than it would be.
fn treatment(tag: NodeTag) -> Treatment {
    match tag {
        NodeTag::T_ExecuteStmt => Treatment { silent: false, counted: false, nested: false },
        NodeTag::T_PrepareStmt => Treatment { silent: false, counted: false, nested: true },
        NodeTag::T_ExplainStmt => Treatment { silent: true, counted: false, nested: true },
        _ => Treatment { silent: false, counted: true, nested: true },
    }
}

/// Commands whose rows count.
fn counts_rows(completion: *const pg_sys::QueryCompletion) -> u64 {
    // SAFETY: null, or the completion of a statement that has just ended.
    let Some(completion) = (unsafe { completion.as_ref() }) else { return 0 };
    let counted = [
        pg_sys::CommandTag::CMDTAG_COPY,
        pg_sys::CommandTag::CMDTAG_FETCH,
        pg_sys::CommandTag::CMDTAG_SELECT,
        pg_sys::CommandTag::CMDTAG_REFRESH_MATERIALIZED_VIEW,
    ];
    if counted.contains(&completion.commandTag) { completion.nprocessed } else { 0 }
}

/// The part of the hook that all versions share.
unsafe fn utility(statement: *mut pg_sys::PlannedStmt, completion: *mut pg_sys::QueryCompletion, call: impl FnOnce()) {
    // SAFETY: called by the server with a statement that it is about to execute. It is not touched afterwards: it may be gone.
    let (query_id, tag) = unsafe { ((*statement).queryId as u64, (*(*statement).utilityStmt).type_) };
    let treatment = treatment(tag);
    let begun = guard::run("a utility statement", || {
        executions::utility_begins(query_id, treatment.silent, treatment.counted, treatment.nested)
    });
    // SAFETY: `call` only calls the server.
    let outcome = unsafe { attempt(call) };
    if let Some(begun) = begun {
        let sqlstate = outcome.as_ref().err().map(|failure| failure.sqlstate);
        let rows = if sqlstate.is_none() { counts_rows(completion) } else { 0 };
        guard::run("a utility statement", || executions::utility_ends(&begun, rows, sqlstate));
    }
    // SAFETY: nothing must be dropped.
    unsafe { conclude(outcome) };
}

#[cfg(not(feature = "pg13"))]
#[allow(clippy::too_many_arguments, reason = "the server's signature")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let next = previous().utility;
    // SAFETY: called by the server with what this function takes.
    unsafe {
        utility(statement, completion, || match next {
            Some(next) => next(statement, text, read_only, context, parameters, environment, destination, completion),
            None => raw::standard_ProcessUtility(
                statement,
                text,
                read_only,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        });
    }
}

#[cfg(feature = "pg13")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let next = previous().utility;
    // SAFETY: called by the server with what this function takes.
    unsafe {
        utility(statement, completion, || match next {
            Some(next) => next(statement, text, context, parameters, environment, destination, completion),
            None => {
                raw::standard_ProcessUtility(
                    statement,
                    text,
                    context,
                    parameters,
                    environment,
                    destination,
                    completion,
                );
            }
        });
    }
}

unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if [XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE].contains(&event) {
        guard::run("the end of a transaction", executions::transaction_ends);
    }
}

unsafe extern "C-unwind" fn subtransaction_ended(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    if [SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB].contains(&event) {
        let aborted = event == SUBXACT_EVENT_ABORT_SUB;
        guard::run("the end of a subtransaction", || executions::subtransaction_ends(own, parent, aborted));
    }
}
