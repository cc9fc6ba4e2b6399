//! Executions that are looked at more closely: how many rows each node was expected to give and gave, and the text of the plan.

use std::{
    ffi::c_void,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use pgrx::pg_sys::{self, NodeTag};

use crate::{
    global::Global, keys::NodeKey, plan_id::kind, plan_text, raw, resources::nanos, rows::NodeRow, settings,
    shmem::Shared,
};

/// Executions of a new plan that are sampled for certain.
const FIRST: u64 = 3;
/// Nodes of a plan that are looked at.
const NODES: usize = 100;
/// Plans of which a process remembers whether they are new.
const KNOWN: usize = 256;
/// What counting a row in a node costs, in nanoseconds: two calls and a few additions.
const COUNTING: u64 = 5;

/// How an execution is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// Not at all.
    #[default]
    None,
    /// The rows of each node are counted.
    Rows,
    /// Each node is also timed.
    Timed,
}

impl Sampling {
    /// What the executor is asked to count.
    pub(crate) fn options(self) -> i32 {
        let options = match self {
            Sampling::None => 0,
            Sampling::Rows => pg_sys::InstrumentOption::INSTRUMENT_ROWS,
            Sampling::Timed => pg_sys::InstrumentOption::INSTRUMENT_TIMER | pg_sys::InstrumentOption::INSTRUMENT_ROWS,
        };
        options as i32
    }
}

/// What this process knows of a plan.
#[derive(Clone, Copy)]
struct Known {
    plan_id: u64,
    /// Sampled executions, as far as they are known here.
    sampled: u64,
    /// Where its text begins.
    text: Option<u64>,
}

struct Sampler {
    known: [Known; KNOWN],
    random: u64,
    /// Since when this process keeps its budget.
    begin: Option<Instant>,
    /// What sampling has cost since then, in nanoseconds.
    spent: u64,
    /// What reading the clock costs, in nanoseconds.
    clock: u64,
}

static SAMPLER: Global<Sampler> = Global::new(Sampler {
    known: [Known { plan_id: 0, sampled: 0, text: None }; KNOWN],
    random: 0,
    begin: None,
    spent: 0,
    clock: 0,
});

impl Sampler {
    /// What is known of a plan; the tables are asked at the first time.
    fn known(&mut self, shared: &Shared, plan_id: u64) -> &mut Known {
        let place = &mut self.known[plan_id as usize % KNOWN];
        if place.plan_id != plan_id {
            let root = shared.nodes.read(&NodeKey { plan_id, node: 0 });
            let sampled = root.map_or(0, |row| row.executions);
            *place = Known { plan_id, sampled, text: shared.texts.find(plan_id) };
        }
        place
    }

    /// Whether the share of time that sampling may cost is not used up. Half a second is given in advance: each plan is new once.
    fn affordable(&mut self) -> bool {
        let begin = *self.begin.get_or_insert_with(Instant::now);
        let elapsed = begin.elapsed() + Duration::from_millis(500);
        (self.spent as f64) < elapsed.as_nanos() as f64 * settings::SAMPLE_BUDGET.get()
    }

    /// A number from 0 to below 1 (xorshift64, Marsaglia, "Xorshift RNGs", 2003).
    fn chance(&mut self) -> f64 {
        if self.random == 0 {
            // SAFETY: plain variable of this process.
            let pid = unsafe { pg_sys::MyProcPid }.unsigned_abs();
            self.random = u64::from(pid).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn clock(&mut self) -> u64 {
        if self.clock == 0 {
            let begin = Instant::now();
            for _ in 0..16 {
                std::hint::black_box(Instant::now());
            }
            self.clock = (begin.elapsed().as_nanos() as u64 / 16).max(1);
        }
        self.clock
    }
}

/// Whether and how an execution that begins is looked at.
#[inline]
pub(crate) fn choose(shared: &Shared, plan_id: u64) -> Sampling {
    let rate = settings::SAMPLE_RATE.get();
    if rate <= 0.0 {
        return Sampling::None;
    }
    SAMPLER.with(|sampler| {
        let new = sampler.known(shared, plan_id).sampled < FIRST;
        if !(new || sampler.chance() < rate) || !sampler.affordable() {
            return Sampling::None;
        }
        if sampler.chance() < settings::SAMPLE_TIMING.get() { Sampling::Timed } else { Sampling::Rows }
    })
}

/// The end of an execution: keeps what its nodes did, if it was sampled, and the text of its plan, if it is new.
///
/// # Safety
///
/// `query` is valid, and not yet taken down.
pub(crate) unsafe fn finish(
    shared: &Shared,
    query: *const pg_sys::QueryDesc,
    plan_id: u64,
    time: u64,
    sampling: Sampling,
) {
    SAMPLER.with(|sampler| {
        let known = *sampler.known(shared, plan_id);
        let threshold = u64::try_from(settings::PLAN_CAPTURE_THRESHOLD.get()).unwrap_or(0) * 1_000_000;
        let texted = time < threshold || known.text.is_some_and(|position| shared.texts.holds(position));
        if texted && sampling == Sampling::None {
            return;
        }
        let begin = Instant::now();
        let mut counted = 0;
        if sampling != Sampling::None {
            // SAFETY: promised by the caller.
            counted = unsafe { nodes(shared, (*query).planstate, plan_id, sampling) };
            shared.header().sampled.fetch_add(1, Ordering::Relaxed);
            sampler.known(shared, plan_id).sampled += 1;
        }
        if !texted {
            // SAFETY: promised by the caller.
            let text = unsafe { plan_text::render((*query).plannedstmt) };
            sampler.known(shared, plan_id).text = keep(shared, plan_id, text.as_bytes());
        }
        let each = COUNTING + if sampling == Sampling::Timed { 2 * sampler.clock() } else { 0 };
        let cost = (begin.elapsed().as_nanos() as u64).saturating_add(counted.saturating_mul(each));
        sampler.spent = sampler.spent.saturating_add(cost);
        shared.header().sampling_time.fetch_add(cost, Ordering::Relaxed);
    });
}

fn keep(shared: &Shared, plan_id: u64, text: &[u8]) -> Option<u64> {
    if text.len() > settings::max_plan_length() {
        shared.header().long_texts.fetch_add(1, Ordering::Relaxed);
        // Not rendered again by this process as long as it remembers the plan: a position that is never written over counts as known.
        return Some(u64::MAX);
    }
    shared.texts.write(plan_id, text)
}

/// A node of an execution.
struct Node {
    number: u64,
    row: NodeRow,
}

/// Adds what the nodes of an execution did; how many rows were counted in it.
unsafe fn nodes(shared: &Shared, state: *mut pg_sys::PlanState, plan_id: u64, sampling: Sampling) -> u64 {
    let mut nodes: Vec<Node> = Vec::with_capacity(NODES);
    // SAFETY: promised by the caller; the context is the list, for as long as the walk lasts.
    unsafe { gather(state, (&raw mut nodes).cast()) };
    let mut counted = 0;
    for (at, node) in nodes.iter().enumerate() {
        let row = &node.row;
        counted += (row.actual_rows + row.loops) as u64;
        // The root is number 0, so that it is found whatever number it has.
        let number = if at == 0 { 0 } else { node.number + 1 };
        shared.nodes.update(NodeKey { plan_id, node: number }, |sum, _| {
            sum.executions += 1;
            sum.kind = row.kind;
            sum.loops += row.loops;
            sum.estimated_rows += row.estimated_rows;
            sum.actual_rows += row.actual_rows;
            sum.filtered_rows += row.filtered_rows;
            if sampling == Sampling::Timed {
                sum.timed += 1;
                sum.time += row.time;
            }
        });
    }
    counted
}

/// Reads a node and those below it into the list that `context` points to.
unsafe extern "C-unwind" fn gather(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
    // SAFETY: called with a node of an execution and the list.
    unsafe {
        let Some(node) = state.as_ref() else { return false };
        let nodes = &mut *context.cast::<Vec<Node>>();
        if nodes.len() == NODES || raw::stack_is_too_deep() {
            return true;
        }
        if let Some(counters) = node.instrument.as_ref() {
            // What is still running has a last round that is not yet counted in.
            let (rows, loops, time) = if counters.running {
                let last = nanos(&counters.counter) as f64 / 1e9;
                (counters.ntuples + counters.tuplecount, counters.nloops + 1.0, counters.total + last)
            } else {
                (counters.ntuples, counters.nloops, counters.total)
            };
            let plan = &*node.plan;
            let row = NodeRow {
                kind: kind(plan.type_),
                loops,
                estimated_rows: plan.plan_rows * loops,
                actual_rows: rows,
                filtered_rows: counters.nfiltered1 + counters.nfiltered2,
                time,
                ..NodeRow::default()
            };
            nodes.push(Node { number: u64::try_from(plan.plan_node_id).unwrap_or(0), row });
        }
        raw::planstate_tree_walker(state, gather, context)
    }
}

/// Parallel workers that an execution planned and got, from the states of its nodes.
///
/// # Safety
///
/// `state` is the topmost node of an execution that has not been taken down.
pub(crate) unsafe fn workers(state: *mut pg_sys::PlanState) -> (u64, u64) {
    let mut workers = (0, 0);
    // SAFETY: promised by the caller; the context is the pair.
    unsafe { gather_workers(state, (&raw mut workers).cast()) };
    workers
}

unsafe extern "C-unwind" fn gather_workers(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
    // SAFETY: called with a node of an execution and the pair.
    unsafe {
        let Some(node) = state.as_ref() else { return false };
        if raw::stack_is_too_deep() {
            return true;
        }
        let workers = &mut *context.cast::<(u64, u64)>();
        match (*node.plan).type_ {
            NodeTag::T_Gather => {
                workers.0 += (*node.plan.cast::<pg_sys::Gather>()).num_workers as u64;
                workers.1 += (*state.cast::<pg_sys::GatherState>()).nworkers_launched as u64;
            }
            NodeTag::T_GatherMerge => {
                workers.0 += (*node.plan.cast::<pg_sys::GatherMerge>()).num_workers as u64;
                workers.1 += (*state.cast::<pg_sys::GatherMergeState>()).nworkers_launched as u64;
            }
            _ => {}
        }
        raw::planstate_tree_walker(state, gather_workers, context)
    }
}
