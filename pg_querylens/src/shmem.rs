//! The shared memory of the extension: asked for once, of a size that settings fix, laid out here.

use std::{
    ffi::CStr,
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

use pgrx::pg_sys;

use crate::{
    global::Global,
    guard,
    history::History,
    keys::{ErrorKey, NodeKey, PlanKey, StatementKey, TextKey},
    locks::Locks,
    pending::Slot,
    rows::{ChangeRow, ErrorRow, NodeRow, PlanRow, StatementRow, TextRow},
    settings, state,
    table::{Key, Plain, Table, TableCounters},
    texts::Texts,
};

/// Name of the memory and of its locks.
const NAME: &CStr = c"pg_querylens";
/// Locks of the tables.
const TABLE_LOCKS: usize = 128;
/// The lock of the ring of changes, and that of the texts.
const HISTORY_LOCK: usize = TABLE_LOCKS;
const TEXT_LOCK: usize = TABLE_LOCKS + 1;
/// The lock of whoever hands counters on, and that of whoever writes the file.
const HANDOVER_LOCK: usize = TABLE_LOCKS + 2;
const FILE_LOCK: usize = TABLE_LOCKS + 3;
const LOCKS: usize = TABLE_LOCKS + 4;
/// Places for the kinds of errors.
const ERRORS: usize = 1_000;
/// Places for nodes, for each plan.
const NODES_A_PLAN: usize = 4;
/// Processes that are no client's and no worker's, but run statements: those of autovacuum and of replication.
const OTHER_PROCESSES: usize = 32;

/// What is there once. All zero at first.
#[repr(C, align(64))]
pub(crate) struct Header {
    /// Processes that switched the extension off since something in it went wrong.
    pub(crate) failures: AtomicU64,
    /// Executions that were not counted: no slot for the process, too many at a time in it, or a slot that stayed busy.
    pub(crate) lost: AtomicU64,
    /// Executions without a query id.
    pub(crate) unidentified: AtomicU64,
    /// Executions that were sampled.
    pub(crate) sampled: AtomicU64,
    /// Time that sampling took beside the executor's own counting, in nanoseconds.
    pub(crate) sampling_time: AtomicU64,
    /// Times that the background worker has handed counters on.
    pub(crate) worker_rounds: AtomicU64,
    /// Texts of plans that were longer than allowed.
    pub(crate) long_texts: AtomicU64,
    /// When statistics were last reset as a whole, in microseconds since 2000-01-01.
    pub(crate) reset_at: AtomicI64,
    /// When they were last saved.
    pub(crate) saved_at: AtomicI64,
    /// Files that could not be written.
    pub(crate) save_failures: AtomicU64,
    /// A file was there at start, and was: 0 absent, 1 loaded, 2 damaged and set aside.
    pub(crate) loaded: AtomicU32,
    _reserved: AtomicU32,
    history_written: AtomicU64,
    text_end: AtomicU64,
    plans: TableCounters,
    statements: TableCounters,
    errors: TableCounters,
    nodes: TableCounters,
    texts: TableCounters,
}

/// The shared memory, as one process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    header: *const Header,
    slots: *const Slot,
    slot_count: usize,
    locks: Locks,
    /// Plans of statements.
    pub(crate) plans: Table<PlanKey, PlanRow>,
    /// Statements.
    pub(crate) statements: Table<StatementKey, StatementRow>,
    /// Kinds of errors.
    pub(crate) errors: Table<ErrorKey, ErrorRow>,
    /// Nodes of plans.
    pub(crate) nodes: Table<NodeKey, NodeRow>,
    /// Texts of plans.
    pub(crate) texts: Texts,
    /// Changes of plans.
    pub(crate) history: History,
    /// Bytes in all.
    pub(crate) bytes: usize,
}

impl Shared {
    /// What is there once.
    pub(crate) fn header(&self) -> &'static Header {
        // SAFETY: laid out by `Layout::attach`; the memory lives as long as the process.
        unsafe { &*self.header }
    }

    /// The places of processes.
    pub(crate) fn slots(&self) -> &'static [Slot] {
        // SAFETY: as in `header`.
        unsafe { std::slice::from_raw_parts(self.slots, self.slot_count) }
    }

    /// Held by whoever moves counters from slots to tables; taken before any other.
    pub(crate) fn handover_lock(&self) -> (Locks, usize) {
        (self.locks, HANDOVER_LOCK)
    }

    /// Held by whoever writes the file.
    pub(crate) fn file_lock(&self) -> (Locks, usize) {
        (self.locks, FILE_LOCK)
    }

    /// Keys that made place for others since the start: plans, statements, errors, nodes, texts.
    pub(crate) fn evicted(&self) -> [u64; 5] {
        let header = self.header();
        let tables = [&header.plans, &header.statements, &header.errors, &header.nodes, &header.texts];
        tables.map(|table| table.evicted.load(Ordering::Relaxed))
    }
}

static SHARED: Global<Option<Shared>> = Global::new(None);

/// The shared memory, if the library was preloaded.
#[inline]
pub(crate) fn shared() -> Option<Shared> {
    SHARED.with(|shared| *shared)
}

/// Where everything lies, in bytes from the beginning.
struct Layout {
    slot_count: usize,
    slots: usize,
    plans: (usize, usize),
    statements: (usize, usize),
    errors: (usize, usize),
    nodes: (usize, usize),
    text_places: (usize, usize),
    history: usize,
    texts: usize,
    bytes: usize,
}

/// Takes pieces of the memory one behind the other.
struct Pieces(usize);

impl Pieces {
    fn take(&mut self, bytes: usize) -> usize {
        let at = self.0.next_multiple_of(64);
        self.0 = at + bytes;
        at
    }

    fn table<K: Key, V: Plain>(&mut self, capacity: usize) -> (usize, usize) {
        let sets = Table::<K, V>::sets_for(capacity);
        (self.take(Table::<K, V>::bytes(sets)), sets)
    }
}

impl Layout {
    /// By the settings, which are the same in all processes.
    fn new() -> Layout {
        let plans = settings::max_plans();
        // SAFETY: settings of the server that are fixed when this is called.
        let processes = unsafe { pg_sys::MaxConnections + pg_sys::max_worker_processes };
        let slot_count = usize::try_from(processes).unwrap_or(0) + OTHER_PROCESSES;
        let mut pieces = Pieces(size_of::<Header>());
        Layout {
            slot_count,
            slots: pieces.take(slot_count * size_of::<Slot>()),
            plans: pieces.table::<PlanKey, PlanRow>(plans),
            statements: pieces.table::<StatementKey, StatementRow>(plans),
            errors: pieces.table::<ErrorKey, ErrorRow>(ERRORS),
            nodes: pieces.table::<NodeKey, NodeRow>(plans * NODES_A_PLAN),
            text_places: pieces.table::<TextKey, TextRow>(plans),
            history: pieces.take(settings::history_size() * size_of::<ChangeRow>()),
            texts: pieces.take(settings::text_memory()),
            bytes: pieces.0,
        }
    }

    /// # Safety
    ///
    /// `memory` points to the bytes of this layout, aligned to 64, shared by all processes and zero at first; `locks` to [`LOCKS`] locks.
    unsafe fn attach(&self, memory: *mut u8, locks: *mut pg_sys::LWLockPadded) -> Shared {
        // SAFETY: the pieces lie within the memory, do not overlap, and are aligned.
        unsafe {
            let tables = TableLocks(Locks::new(locks, TABLE_LOCKS));
            let locks = Locks::new(locks, LOCKS);
            let header: *const Header = memory.cast();
            let at = |offset: usize| memory.add(offset);
            let places = tables.table(at(self.text_places.0), self.text_places.1, &raw const (*header).texts);
            let end = &raw const (*header).text_end;
            Shared {
                header,
                slots: at(self.slots).cast_const().cast(),
                slot_count: self.slot_count,
                locks,
                plans: tables.table(at(self.plans.0), self.plans.1, &raw const (*header).plans),
                statements: tables.table(at(self.statements.0), self.statements.1, &raw const (*header).statements),
                errors: tables.table(at(self.errors.0), self.errors.1, &raw const (*header).errors),
                nodes: tables.table(at(self.nodes.0), self.nodes.1, &raw const (*header).nodes),
                texts: Texts::new(at(self.texts), settings::text_memory(), end, places, locks, TEXT_LOCK),
                history: History::new(
                    at(self.history).cast(),
                    settings::history_size(),
                    &raw const (*header).history_written,
                    locks,
                    HISTORY_LOCK,
                ),
                bytes: self.bytes,
            }
        }
    }
}

/// The locks that tables share.
struct TableLocks(Locks);

impl TableLocks {
    /// # Safety
    ///
    /// See [`Table::new`].
    unsafe fn table<K: Key, V: Plain>(
        &self,
        memory: *mut u8,
        sets: usize,
        counters: *const TableCounters,
    ) -> Table<K, V> {
        // SAFETY: promised by the caller.
        unsafe { Table::new(memory, sets, self.0, counters) }
    }
}

/// The hook that was there before.
static PREVIOUS_STARTUP: Global<pg_sys::shmem_startup_hook_type> = Global::new(None);
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
static PREVIOUS_REQUEST: Global<pg_sys::shmem_request_hook_type> = Global::new(None);

/// Asks for the memory. Only while libraries are preloaded.
pub(crate) fn install() {
    // SAFETY: hooks are changed while libraries are loaded, in the one thread there is.
    unsafe {
        #[cfg(any(feature = "pg13", feature = "pg14"))]
        request();
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
        {
            PREVIOUS_REQUEST.with(|previous| *previous = pg_sys::shmem_request_hook);
            pg_sys::shmem_request_hook = Some(on_request);
        }
        PREVIOUS_STARTUP.with(|previous| *previous = pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
unsafe extern "C-unwind" fn on_request() {
    if let Some(previous) = PREVIOUS_REQUEST.with(|previous| *previous) {
        // SAFETY: another library's hook, called as the server would.
        unsafe { previous() };
    }
    guard::run("the request for shared memory", request);
}

fn request() {
    // SAFETY: called when shared memory may be asked for.
    unsafe {
        pg_sys::RequestAddinShmemSpace(Layout::new().bytes + 64);
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), LOCKS as i32);
    }
}

unsafe extern "C-unwind" fn on_startup() {
    if let Some(previous) = PREVIOUS_STARTUP.with(|previous| *previous) {
        // SAFETY: another library's hook, called as the server would.
        unsafe { previous() };
    }
    guard::run("the start of shared memory", startup);
}

/// Lays the memory out, in the postmaster: all other processes inherit what it knows. Runs again after a crash of a process.
fn startup() {
    let layout = Layout::new();
    let mut found = false;
    // SAFETY: called when shared memory may be laid out, by the only process there is.
    let shared = unsafe {
        let memory: *mut u8 = pg_sys::ShmemInitStruct(NAME.as_ptr(), layout.bytes + 64, &raw mut found).cast();
        let memory = memory.add(memory.align_offset(64));
        if !found {
            memory.write_bytes(0, layout.bytes);
        }
        layout.attach(memory, pg_sys::GetNamedLWLockTranche(NAME.as_ptr()))
    };
    SHARED.with(|global| *global = Some(shared));
    if !found {
        state::load_at_start(&shared);
    }
}
