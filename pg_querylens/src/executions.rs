//! The executions of this process: what is known of each from its start to its end.

use std::{sync::atomic::Ordering, time::Instant};

use pgrx::pg_sys;

use crate::{
    counters::{Counters, Usage},
    global::Global,
    guard, handover,
    keys::{PlanKey, StatementKey},
    open::Open,
    pending::{Pending, Slot},
    plan_id::{Identity, identify},
    raw,
    resources::{self, Moment},
    sampling::{self, Sampling},
    settings::{self, Track},
    shmem::{self, Shared},
};

/// Plans whose identity a process remembers.
const REMEMBERED: usize = 64;

/// The identity of a plan that was executed before.
#[derive(Clone, Copy)]
struct Remembered {
    statement: *const pg_sys::PlannedStmt,
    tree: *const pg_sys::Plan,
    query_id: u64,
    /// Plannings in this process until then. A plan's memory is used for another plan only after another planning.
    plannings: u64,
    identity: Identity,
    generic: bool,
}

const NOTHING: Remembered = Remembered {
    statement: std::ptr::null(),
    tree: std::ptr::null(),
    query_id: 0,
    plannings: 0,
    identity: Identity { plan_id: 0, collapsed_id: 0 },
    generic: false,
};

/// Where this process counts.
struct Counting {
    shared: Option<Shared>,
    slot: Option<&'static Slot>,
    /// A slot was looked for, so it is not looked for again.
    looked: bool,
    /// What is being handed on.
    pending: Vec<Pending>,
}

/// What this process knows.
struct Process {
    counting: Counting,
    /// Depth of statements within statements.
    level: u32,
    /// Depth of statements that are not followed, nor anything in them.
    silent: u32,
    plannings: u64,
    /// The statement that was planned last, if that was for known parameters.
    planned_for_parameters: u64,
    remembered: [Remembered; REMEMBERED],
    open: Open,
}

static PROCESS: Global<Process> = Global::new(Process {
    counting: Counting { shared: None, slot: None, looked: false, pending: Vec::new() },
    level: 0,
    silent: 0,
    plannings: 0,
    planned_for_parameters: 0,
    remembered: [NOTHING; REMEMBERED],
    open: Open::new(),
});

/// What is measured of a part of an execution.
pub(crate) struct Measurement {
    begin: Instant,
    moment: Moment,
}

impl Measurement {
    #[inline]
    fn begin() -> Measurement {
        let moment = Moment::now();
        Measurement { moment, begin: Instant::now() }
    }

    #[inline]
    fn end(&self, usage: &mut Usage) {
        usage.time += nanos(self.begin);
        self.moment.since(usage);
    }
}

fn nanos(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Counting {
    /// The shared memory and this process's place in it; it takes one at its first statement.
    #[inline]
    fn place(&mut self) -> Option<(&Shared, &'static Slot)> {
        if !self.looked {
            self.look();
        }
        Some((self.shared.as_ref()?, self.slot?))
    }

    #[cold]
    fn look(&mut self) {
        self.looked = true;
        self.shared = shmem::shared();
        let Some(shared) = &self.shared else { return };
        // SAFETY: plain variable of this process.
        let pid = unsafe { pg_sys::MyProcPid };
        let slots = shared.slots();
        // Each begins elsewhere, so that many that start at once do not all try the same one.
        let begin = pid.unsigned_abs() as usize % slots.len().max(1);
        self.slot = slots.iter().cycle().skip(begin).take(slots.len()).find(|slot| slot.claim(pid));
        if self.slot.is_some() {
            // SAFETY: registers a function that lives as long as the process.
            unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0)) };
        }
    }

    /// Shows what is being executed, if it is not within another statement.
    #[inline]
    fn executing(&self, level: u32, key: &PlanKey) {
        if let (0, Some(slot)) = (level, self.slot) {
            slot.executing(key, now());
        }
    }

    /// Shows that nothing is being executed, unless that was within another statement.
    #[inline]
    fn idle(&self, level: u32) {
        if let (0, Some(slot)) = (level, self.slot) {
            slot.idle();
        }
    }

    /// Counts for a plan.
    #[inline]
    fn count(&mut self, key: &PlanKey, collapsed_id: u64, at: i64, mut add: impl FnMut(&mut Counters)) {
        let Some((shared, slot)) = self.place() else { return lose() };
        match slot.count(key, collapsed_id, at, &mut add) {
            Some(true) => {}
            Some(false) => {
                let shared = *shared;
                handover::one(&shared, slot, &mut self.pending);
                if slot.count(key, collapsed_id, at, &mut add) != Some(true) {
                    lose();
                }
            }
            None => lose(),
        }
    }

    /// Counts a failure of a statement.
    fn count_failure(&mut self, key: &PlanKey, collapsed_id: u64, usage: &Usage, sqlstate: u64) {
        let at = now();
        self.count(key, collapsed_id, at, |counters| counters.add_failed(usage));
        if let Some(shared) = &self.shared {
            handover::failure(shared, key.statement, sqlstate, usage.time, at);
        }
    }
}

impl Process {
    /// Whether a statement that begins now is followed.
    #[inline]
    fn follows(&self) -> bool {
        let wanted = match settings::TRACK.get() {
            Track::None => false,
            Track::Top => self.level == 0,
            Track::All => true,
        };
        // SAFETY: a setting of this process, fixed at its start. Workers of a parallel query are counted by their leader.
        wanted && self.silent == 0 && settings::ENABLED.get() && unsafe { pg_sys::ParallelWorkerNumber } < 0
    }

    fn statement(&self, query_id: u64) -> StatementKey {
        // SAFETY: plain variables of this process.
        let (database, user) = unsafe { (pg_sys::MyDatabaseId.to_u32(), raw::GetUserId().to_u32()) };
        StatementKey { database, user, query_id, top_level: u64::from(self.level == 0) }
    }

    /// The identity of a plan, and whether it was made for any parameters.
    ///
    /// # Safety
    ///
    /// `query` is valid.
    unsafe fn identity(&mut self, query: *const pg_sys::QueryDesc, query_id: u64) -> (Identity, bool) {
        // SAFETY: promised by the caller.
        unsafe {
            let statement: *const pg_sys::PlannedStmt = (*query).plannedstmt;
            let tree: *const pg_sys::Plan = (*statement).planTree;
            let plannings = self.plannings;
            let place = &mut self.remembered[(statement as usize >> 6) % REMEMBERED];
            let same = place.statement == statement
                && place.tree == tree
                && place.query_id == query_id
                && place.plannings == plannings;
            if !same {
                let parameters = (*query).params.as_ref().is_some_and(|parameters| parameters.numParams > 0);
                let generic = parameters && self.planned_for_parameters != query_id;
                *place = Remembered { statement, tree, query_id, plannings, identity: identify(statement), generic };
            }
            (place.identity, place.generic)
        }
    }
}

#[cold]
fn lose() {
    if let Some(shared) = shmem::shared() {
        shared.header().lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// A statement without a query id.
#[cold]
fn pass_over() {
    if let Some(shared) = shmem::shared() {
        shared.header().unidentified.fetch_add(1, Ordering::Relaxed);
    }
}

/// Begin of the client's current message: good enough as the time of a statement, and known already.
fn now() -> i64 {
    // SAFETY: reads a variable of this process.
    unsafe { raw::GetCurrentStatementStartTimestamp() }
}

/// Before an execution is set up.
///
/// # Safety
///
/// `query` is valid.
pub(crate) unsafe fn start(query: *mut pg_sys::QueryDesc, flags: i32) {
    PROCESS.with(|process| {
        if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32 != 0 || !process.follows() {
            return;
        }
        // SAFETY: promised by the caller.
        let query_id = unsafe { (*(*query).plannedstmt).queryId } as u64;
        if process.counting.place().is_none() {
            return lose();
        }
        if query_id == 0 {
            return pass_over();
        }
        // SAFETY: promised by the caller.
        let (identity, generic) = unsafe { process.identity(query, query_id) };
        let key = PlanKey { statement: process.statement(query_id), plan_id: identity.plan_id };
        // SAFETY: reads a variable of this process.
        let subtransaction = unsafe { raw::GetCurrentSubTransactionId() };
        let Some(execution) = process.open.begin(query, subtransaction) else { return lose() };
        execution.key = key;
        execution.collapsed_id = identity.collapsed_id;
        execution.since = now();
        execution.usage.generic = generic;
        let shared = process.counting.shared.as_ref();
        execution.sampling = shared.map_or(Sampling::None, |shared| sampling::choose(shared, key.plan_id));
        // SAFETY: promised by the caller; more than others asked for, never less.
        unsafe { (*query).instrument_options |= execution.sampling.options() };
        process.counting.executing(process.level, &key);
    });
}

/// Before an execution runs, or finishes.
#[inline]
pub(crate) fn enter(query: *const pg_sys::QueryDesc) -> Option<Measurement> {
    PROCESS.with(|process| {
        process.level += 1;
        process.open.find(query).map(|_| Measurement::begin())
    })
}

/// After an execution has run, or finished.
///
/// # Safety
///
/// `query` is valid unless it failed.
pub(crate) unsafe fn leave(query: *const pg_sys::QueryDesc, measurement: Option<&Measurement>, sqlstate: Option<u64>) {
    PROCESS.with(|process| {
        process.level = process.level.saturating_sub(1);
        let Some(measurement) = measurement else { return };
        let Some(execution) = process.open.find(query) else { return };
        measurement.end(&mut execution.usage);
        let Some(sqlstate) = sqlstate else { return };
        let Some(execution) = process.open.end(query) else { return };
        process.counting.count_failure(&execution.key, execution.collapsed_id, &execution.usage, sqlstate);
        process.counting.idle(process.level);
    });
}

/// Before an execution is taken down.
///
/// # Safety
///
/// `query` is valid and was set up.
pub(crate) unsafe fn end(query: *mut pg_sys::QueryDesc) {
    PROCESS.with(|process| {
        let Some(execution) = process.open.end(query) else { return };
        // SAFETY: promised by the caller.
        unsafe {
            let state: *const pg_sys::EState = (*query).estate;
            if !state.is_null() {
                execution.usage.rows = resources::rows(state);
                resources::jit(state, &mut execution.usage);
            }
            if (*(*query).plannedstmt).parallelModeNeeded {
                (execution.usage.workers_planned, execution.usage.workers_launched) =
                    sampling::workers((*query).planstate);
            }
        }
        let (counting, usage) = (&mut process.counting, &execution.usage);
        counting.count(&execution.key, execution.collapsed_id, execution.since, |counters| counters.add(usage));
        if let Some(shared) = &counting.shared {
            // SAFETY: promised by the caller.
            unsafe { sampling::finish(shared, query, execution.key.plan_id, usage.time, execution.sampling) };
        }
        counting.idle(process.level);
    });
}

/// Before a statement is planned.
pub(crate) fn plan_begins() -> Option<Instant> {
    PROCESS.with(|process| {
        let follows = settings::TRACK_PLANNING.get() && process.follows();
        process.plannings += 1;
        // What planning executes, such as functions of constants, is within the statement.
        process.level += 1;
        follows.then(Instant::now)
    })
}

/// After a statement was planned.
///
/// # Safety
///
/// `statement` is null or the plan, which was made for known parameters if `bound`.
pub(crate) unsafe fn plan_ends(statement: *mut pg_sys::PlannedStmt, bound: bool, begin: Option<Instant>) {
    PROCESS.with(|process| {
        process.level = process.level.saturating_sub(1);
        // SAFETY: promised by the caller.
        let Some(plan) = (unsafe { statement.as_mut() }) else { return };
        let query_id = plan.queryId as u64;
        process.planned_for_parameters = if bound { query_id } else { 0 };
        #[cfg(not(feature = "pg18"))]
        let wanted = begin.is_some();
        #[cfg(feature = "pg18")]
        let wanted = begin.is_some() || plan.planId == 0;
        if !wanted || query_id == 0 || plan.planTree.is_null() {
            return;
        }
        // SAFETY: promised by the caller.
        let identity = unsafe { identify(statement) };
        #[cfg(feature = "pg18")]
        if plan.planId == 0 {
            plan.planId = identity.plan_id as i64;
        }
        // For the execution that as a rule follows at once.
        process.remembered[(statement as usize >> 6) % REMEMBERED] = Remembered {
            statement,
            tree: plan.planTree,
            query_id,
            plannings: process.plannings,
            identity,
            generic: false,
        };
        let Some(begin) = begin else { return };
        let time = nanos(begin);
        let key = PlanKey { statement: process.statement(query_id), plan_id: identity.plan_id };
        process.counting.count(&key, identity.collapsed_id, now(), |counters| counters.planning.add(time));
    });
}

/// A statement without a plan.
pub(crate) struct Utility {
    key: Option<PlanKey>,
    measurement: Measurement,
    silent: bool,
    level: u32,
}

/// Before a statement without a plan. `silent`: it is not followed, nor anything in it. `nested`: what it executes is within it.
pub(crate) fn utility_begins(query_id: u64, silent: bool, counted: bool, nested: bool) -> Utility {
    PROCESS.with(|process| {
        let follows = counted && !silent && settings::TRACK_UTILITY.get() && query_id != 0 && process.follows();
        let key = follows.then(|| PlanKey { statement: process.statement(query_id), plan_id: 0 });
        if let Some(key) = &key
            && process.counting.place().is_some()
        {
            process.counting.executing(process.level, key);
        }
        let level = process.level;
        process.level += u32::from(nested);
        process.silent += u32::from(silent);
        Utility { key, measurement: Measurement::begin(), silent, level }
    })
}

/// After a statement without a plan.
pub(crate) fn utility_ends(utility: &Utility, rows: u64, sqlstate: Option<u64>) {
    PROCESS.with(|process| {
        process.level = utility.level;
        process.silent = process.silent.saturating_sub(u32::from(utility.silent));
        let Some(key) = &utility.key else { return };
        let mut usage = Usage { rows, ..Usage::NONE };
        utility.measurement.end(&mut usage);
        match sqlstate {
            None => process.counting.count(key, 0, now(), |counters| counters.add(&usage)),
            Some(sqlstate) => process.counting.count_failure(key, 0, &usage, sqlstate),
        }
        process.counting.idle(process.level);
    });
}

/// A statement failed while it was planned.
pub(crate) fn plan_failed(query_id: u64, begin: Option<Instant>, sqlstate: u64) {
    PROCESS.with(|process| {
        process.level = process.level.saturating_sub(1);
        let Some(begin) = begin.filter(|_| query_id != 0) else { return };
        let usage = Usage { time: nanos(begin), ..Usage::NONE };
        let key = PlanKey { statement: process.statement(query_id), plan_id: 0 };
        process.counting.count_failure(&key, 0, &usage, sqlstate);
    });
}

/// The end of a transaction: executions that failed were never taken down.
pub(crate) fn transaction_ends() {
    PROCESS.with(|process| {
        process.open.clear();
        process.counting.idle(process.level);
    });
}

/// The end of a subtransaction: what failed in it was never taken down; what goes on belongs to `parent`.
pub(crate) fn subtransaction_ends(own: u32, parent: u32, aborted: bool) {
    PROCESS.with(|process| {
        if aborted {
            process.open.abort(own);
        } else {
            process.open.hand_over(own, parent);
        }
    });
}

/// The end of the process: hands on what it has counted, and gives its place back, even if the extension is off.
unsafe extern "C-unwind" fn on_exit(_code: i32, _argument: pg_sys::Datum) {
    let (shared, slot) = PROCESS.with(|process| (process.counting.shared, process.counting.slot.take()));
    let (Some(shared), Some(slot)) = (shared, slot) else { return };
    guard::run("the end of a process", || handover::one(&shared, slot, &mut Vec::new()));
    slot.release();
}
