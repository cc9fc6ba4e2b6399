//! The functions behind the views of `sql/`. Times are milliseconds, moments seconds since 1970.
//!
//! Whoever may read all statistics (`pg_read_all_stats`) sees everything, others what they executed themselves.

use std::sync::atomic::Ordering;

use pgrx::{iter::TableIterator, name, pg_extern, pg_sys};

use crate::{
    handover,
    keys::StatementKey,
    moments::Moments,
    plan_id::node_name,
    raw,
    regression::{self, Limits},
    shmem::{self, Shared},
};

/// Seconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH: f64 = 946_684_800.0;

/// Oid of the role pg_read_all_stats, in pg_authid.dat of every version.
const PG_READ_ALL_STATS: u32 = 3375;

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6 + EPOCH
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Numbers of PostgreSQL are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn signed_all(numbers: &[u64]) -> Vec<i64> {
    numbers.iter().map(|number| signed(*number)).collect()
}

fn millis_all(numbers: &[u64]) -> Vec<f64> {
    numbers.iter().map(|nanos| millis(*nanos)).collect()
}

/// Total, shortest, longest, mean, standard deviation.
fn summary(moments: &Moments) -> Vec<f64> {
    let (mean, deviation) = (moments.mean() / 1e6, moments.deviation() / 1e6);
    vec![millis(moments.total), millis(moments.min), millis(moments.max), mean, deviation]
}

/// The shared memory, after everything that was counted has arrived in its tables.
fn current() -> Shared {
    let Some(shared) = shmem::shared() else {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pg_querylens is not loaded",
            "Add pg_querylens to shared_preload_libraries and restart the server."
        );
    };
    handover::all(&shared);
    shared
}

/// What the caller may see.
struct Sight {
    user: u32,
    all: bool,
}

impl Sight {
    fn of_caller() -> Sight {
        // SAFETY: called by a backend in a transaction.
        unsafe {
            let user = raw::GetUserId();
            Sight { user: user.to_u32(), all: pg_sys::has_privs_of_role(user, PG_READ_ALL_STATS.into()) }
        }
    }

    fn user(&self, user: u32) -> bool {
        self.all || self.user == user
    }

    fn statement(&self, statement: &StatementKey) -> bool {
        self.user(statement.user)
    }
}

type Oid = pg_sys::Oid;

/// Plans of statements.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn plans() -> TableIterator<
    'static,
    (
        name!(userid, Oid),
        name!(dbid, Oid),
        name!(queryid, i64),
        name!(toplevel, bool),
        name!(plan_id, i64),
        name!(collapsed_plan_id, i64),
        name!(calls, i64),
        name!(generic_calls, i64),
        name!(failed_calls, i64),
        name!(failed_time, f64),
        name!(rows, i64),
        name!(execution, Vec<f64>),
        name!(plannings, i64),
        name!(planning, Vec<f64>),
        name!(blocks, Vec<i64>),
        name!(io_times, Vec<f64>),
        name!(wal, Vec<i64>),
        name!(jit_functions, i64),
        name!(jit_times, Vec<f64>),
        name!(workers_planned, i64),
        name!(workers_launched, i64),
        name!(histogram, Vec<i64>),
        name!(first_seen, f64),
        name!(last_seen, f64),
    ),
> {
    let sight = Sight::of_caller();
    let rows = current().plans.collect(|key, _| sight.statement(&key.statement));
    TableIterator::new(rows.into_iter().map(|(key, row)| {
        let counters = &row.counters;
        (
            key.statement.user.into(),
            key.statement.database.into(),
            key.statement.query_id as i64,
            key.statement.top_level != 0,
            key.plan_id as i64,
            row.collapsed_id as i64,
            signed(counters.execution.count),
            signed(counters.generic),
            signed(counters.failed),
            millis(counters.failed_time),
            signed(counters.rows),
            summary(&counters.execution),
            signed(counters.planning.count),
            summary(&counters.planning),
            signed_all(&counters.blocks),
            millis_all(&counters.io_times),
            signed_all(&counters.wal),
            signed(counters.jit[0]),
            millis_all(&counters.jit[1..]),
            signed(counters.workers_planned),
            signed(counters.workers_launched),
            counters.histogram.iter().map(|count| i64::from(*count)).collect(),
            seconds(row.first_seen),
            seconds(row.last_seen),
        )
    }))
}

/// Statements, and the plan that each was executed by last.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn statements() -> TableIterator<
    'static,
    (
        name!(userid, Oid),
        name!(dbid, Oid),
        name!(queryid, i64),
        name!(toplevel, bool),
        name!(plan_id, i64),
        name!(since, f64),
        name!(changes, i64),
    ),
> {
    let sight = Sight::of_caller();
    let rows = current().statements.collect(|key, _| sight.statement(key));
    TableIterator::new(rows.into_iter().map(|(key, row)| {
        (
            key.user.into(),
            key.database.into(),
            key.query_id as i64,
            key.top_level != 0,
            row.plan_id as i64,
            seconds(row.since),
            signed(row.changes),
        )
    }))
}

/// Changes of plans.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn changes() -> TableIterator<
    'static,
    (
        name!(userid, Oid),
        name!(dbid, Oid),
        name!(queryid, i64),
        name!(toplevel, bool),
        name!(previous_plan_id, i64),
        name!(plan_id, i64),
        name!(first_at, f64),
        name!(at, f64),
        name!(count, i64),
        name!(previous_calls, i64),
        name!(previous_execution, Vec<f64>),
        name!(previous_rows, i64),
        name!(calls, i64),
        name!(execution, Vec<f64>),
        name!(rows, i64),
    ),
> {
    let sight = Sight::of_caller();
    let rows = current().history.all();
    TableIterator::new(rows.into_iter().filter(move |row| sight.statement(&row.statement)).map(|row| {
        (
            row.statement.user.into(),
            row.statement.database.into(),
            row.statement.query_id as i64,
            row.statement.top_level != 0,
            row.previous_plan_id as i64,
            row.plan_id as i64,
            seconds(row.first_at),
            seconds(row.at),
            signed(row.count),
            signed(row.before.execution.count),
            summary(&row.before.execution),
            signed(row.before.rows),
            signed(row.after.execution.count),
            summary(&row.after.execution),
            signed(row.after.rows),
        )
    }))
}

/// Statements that became slower.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn regressions(
    minimum_calls: i64,
    ratio: f64,
    confidence: f64,
) -> TableIterator<
    'static,
    (
        name!(userid, Oid),
        name!(dbid, Oid),
        name!(queryid, i64),
        name!(toplevel, bool),
        name!(current_plan_id, i64),
        name!(previous_plan_id, i64),
        name!(previous_mean, f64),
        name!(current_mean, f64),
        name!(ratio, f64),
        name!(confidence, f64),
        name!(cause, String),
        name!(severity, String),
        name!(detected_at, f64),
    ),
> {
    let sight = Sight::of_caller();
    let limits = Limits { calls: u64::try_from(minimum_calls).unwrap_or(0), ratio, confidence };
    let found = regression::all(&current(), limits);
    TableIterator::new(found.into_iter().filter(move |found| sight.statement(&found.statement)).map(|found| {
        (
            found.statement.user.into(),
            found.statement.database.into(),
            found.statement.query_id as i64,
            found.statement.top_level != 0,
            found.plan_id as i64,
            found.previous_plan_id as i64,
            found.before.execution.mean() / 1e6,
            found.after.execution.mean() / 1e6,
            found.regression.ratio,
            found.regression.confidence,
            found.regression.cause.name().to_owned(),
            found.regression.severity().to_owned(),
            seconds(found.at),
        )
    }))
}

/// What is being executed.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn activity() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(userid, Oid),
        name!(dbid, Oid),
        name!(queryid, i64),
        name!(plan_id, i64),
        name!(since, f64),
    ),
> {
    let sight = Sight::of_caller();
    let running: Vec<_> = current().slots().iter().filter_map(|slot| slot.activity()).collect();
    TableIterator::new(running.into_iter().filter(move |running| sight.user(running.user)).map(|running| {
        (
            running.pid,
            running.user.into(),
            running.database.into(),
            running.query_id as i64,
            running.plan_id as i64,
            seconds(running.since),
        )
    }))
}

/// How statements failed.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn errors() -> TableIterator<
    'static,
    (
        name!(userid, Oid),
        name!(dbid, Oid),
        name!(queryid, i64),
        name!(toplevel, bool),
        name!(sqlstate, String),
        name!(count, i64),
        name!(time, f64),
        name!(last_seen, f64),
    ),
> {
    let sight = Sight::of_caller();
    let rows = current().errors.collect(|key, _| sight.statement(&key.statement));
    TableIterator::new(rows.into_iter().map(|(key, row)| {
        (
            key.statement.user.into(),
            key.statement.database.into(),
            key.statement.query_id as i64,
            key.statement.top_level != 0,
            sqlstate(key.sqlstate),
            signed(row.count),
            millis(row.time),
            seconds(row.last_seen),
        )
    }))
}

/// Five characters of six bits each, as PostgreSQL packs them (`MAKE_SQLSTATE` of elog.h).
fn sqlstate(packed: u64) -> String {
    (0..5).map(|at| char::from(b'0' + ((packed >> (6 * at)) & 0x3f) as u8)).collect()
}

/// Nodes of plans in sampled executions.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn nodes() -> TableIterator<
    'static,
    (
        name!(plan_id, i64),
        name!(node, i64),
        name!(node_type, String),
        name!(executions, i64),
        name!(loops, f64),
        name!(estimated_rows, f64),
        name!(actual_rows, f64),
        name!(filtered_rows, f64),
        name!(timed_executions, i64),
        name!(time, f64),
    ),
> {
    let sight = Sight::of_caller();
    let shared = current();
    let own = own_plans(&shared, &sight);
    let rows = shared.nodes.collect(|key, _| sight.all || own.contains(&key.plan_id));
    TableIterator::new(rows.into_iter().map(|(key, row)| {
        (
            key.plan_id as i64,
            key.node as i64,
            node_name(row.kind).to_owned(),
            signed(row.executions),
            row.loops,
            row.estimated_rows,
            row.actual_rows,
            row.filtered_rows,
            signed(row.timed),
            row.time * 1e3,
        )
    }))
}

/// Plans that the caller has executed; not needed by whoever sees everything.
fn own_plans(shared: &Shared, sight: &Sight) -> Vec<u64> {
    if sight.all {
        return Vec::new();
    }
    let rows = shared.plans.collect(|key, _| sight.statement(&key.statement));
    rows.into_iter().map(|(key, _)| key.plan_id).collect()
}

/// The text of a plan.
#[pg_extern(sql = false)]
fn plan_json(plan_id: i64) -> Option<String> {
    let (sight, shared) = (Sight::of_caller(), current());
    let plan_id = plan_id as u64;
    if !sight.all && !own_plans(&shared, &sight).contains(&plan_id) {
        return None;
    }
    shared.texts.read(plan_id).and_then(|text| String::from_utf8(text).ok())
}

/// The extension itself.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn info() -> TableIterator<'static, (name!(name, String), name!(value, i64))> {
    let shared = current();
    let header = shared.header();
    let evicted = shared.evicted();
    let load = |counter: &std::sync::atomic::AtomicU64| signed(counter.load(Ordering::Relaxed));
    let rows = [
        ("plans", shared.plans.len() as i64),
        ("statements", shared.statements.len() as i64),
        ("errors", shared.errors.len() as i64),
        ("nodes", shared.nodes.len() as i64),
        ("texts", shared.texts.len() as i64),
        ("changes", shared.history.all().len() as i64),
        ("plans_evicted", signed(evicted[0])),
        ("statements_evicted", signed(evicted[1])),
        ("errors_evicted", signed(evicted[2])),
        ("nodes_evicted", signed(evicted[3])),
        ("texts_evicted", signed(evicted[4])),
        ("executions_lost", load(&header.lost)),
        ("executions_unidentified", load(&header.unidentified)),
        ("executions_sampled", load(&header.sampled)),
        ("sampling_nanoseconds", load(&header.sampling_time)),
        ("worker_rounds", load(&header.worker_rounds)),
        ("texts_too_long", load(&header.long_texts)),
        ("internal_failures", load(&header.failures)),
        ("save_failures", load(&header.save_failures)),
        ("memory_bytes", shared.bytes as i64),
        ("state_file", i64::from(header.loaded.load(Ordering::Relaxed))),
        ("reset_at", unix(header.reset_at.load(Ordering::Relaxed))),
        ("saved_at", unix(header.saved_at.load(Ordering::Relaxed))),
    ];
    TableIterator::new(rows.map(|(name, value)| (name.to_owned(), value)))
}

/// Whole seconds since 1970; 0 for what never was.
fn unix(micros: i64) -> i64 {
    if micros == 0 { 0 } else { seconds(micros) as i64 }
}

/// Forgets statistics of a user, a database, a statement: of all of them, where 0 is given. How many plans those were.
#[pg_extern(sql = false)]
fn reset(userid: Oid, dbid: Oid, queryid: i64) -> i64 {
    let shared = current();
    let (user, database, query_id) = (userid.to_u32(), dbid.to_u32(), queryid as u64);
    let chosen = |statement: &StatementKey| {
        (user == 0 || statement.user == user)
            && (database == 0 || statement.database == database)
            && (query_id == 0 || statement.query_id == query_id)
    };
    let removed = shared.plans.remove(|key| chosen(&key.statement));
    shared.statements.remove(chosen);
    shared.errors.remove(|key| chosen(&key.statement));
    shared.history.remove(|row| chosen(&row.statement));
    if user == 0 && database == 0 && query_id == 0 {
        shared.nodes.remove(|_| true);
        shared.texts.clear();
        // SAFETY: reads the clock.
        shared.header().reset_at.store(unsafe { raw::GetCurrentTimestamp() }, Ordering::Relaxed);
    }
    removed as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_are_unpacked() {
        let packed = b"42P01".iter().rev().fold(0, |packed, byte| packed << 6 | u64::from((byte - b'0') & 0x3f));
        assert_eq!(sqlstate(packed), "42P01");
    }
}
