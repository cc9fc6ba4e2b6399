//! Functions of the server, called without pgrx's catching of errors.
//!
//! pgrx prepares for a jump before each call, which costs more than what these do. They may be called directly because they raise no error
//! (unless the caller breaks their contract), or because an error may pass through: the caller then has nothing on its stack that must be dropped.

use std::ffi::{c_char, c_int, c_void};

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// Takes a lightweight lock, waiting for it. Raises only if 200 are held.
    pub(crate) fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
    /// Gives back a lightweight lock. Raises only if it is not held.
    pub(crate) fn LWLockRelease(lock: *mut pg_sys::LWLock);
    /// The SQLSTATE of the error being handled, packed. Valid only while one is.
    pub(crate) fn geterrcode() -> c_int;
    /// Raises the error being handled to the next handler.
    pub(crate) fn pg_re_throw() -> !;
    /// When the current message of the client came in.
    pub(crate) fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
    /// The time now, in microseconds since 2000-01-01.
    pub(crate) fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
    /// The current subtransaction.
    pub(crate) fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
    /// The effective user.
    pub(crate) fn GetUserId() -> pg_sys::Oid;
    /// Whether recursion should end.
    pub(crate) fn stack_is_too_deep() -> bool;

    /// Lets errors pass.
    pub(crate) fn standard_ExecutorStart(query_desc: *mut pg_sys::QueryDesc, eflags: c_int);
    /// Lets errors pass.
    #[cfg(not(feature = "pg18"))]
    pub(crate) fn standard_ExecutorRun(
        query_desc: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        once: bool,
    );
    /// Lets errors pass.
    #[cfg(feature = "pg18")]
    pub(crate) fn standard_ExecutorRun(
        query_desc: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
    );
    /// Lets errors pass.
    pub(crate) fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    /// Lets errors pass.
    #[allow(clippy::too_many_arguments, reason = "the server's signature")]
    pub(crate) fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        #[cfg(not(feature = "pg13"))] read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
    /// Lets errors pass.
    pub(crate) fn standard_ExecutorFinish(query_desc: *mut pg_sys::QueryDesc);
    /// Lets errors pass.
    pub(crate) fn standard_ExecutorEnd(query_desc: *mut pg_sys::QueryDesc);
}

unsafe extern "C-unwind" {
    /// Calls `walker` for each child until it says true. Raises only if the stack is too deep.
    #[cfg_attr(any(feature = "pg16", feature = "pg17", feature = "pg18"), link_name = "planstate_tree_walker_impl")]
    pub(crate) fn planstate_tree_walker(
        state: *mut pg_sys::PlanState,
        walker: unsafe extern "C-unwind" fn(*mut pg_sys::PlanState, *mut c_void) -> bool,
        context: *mut c_void,
    ) -> bool;
}
