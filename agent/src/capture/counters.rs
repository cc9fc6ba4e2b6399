//! What kernel and agent share besides the ring: rows, sessions, names. Belongs to the pipeline.

use agent_ebpf::{Counters as CellCounters, Outlier, Row, Session, Settings, row::reserved};
use aya::{
    Ebpf,
    maps::{Array, HashMap as BpfHashMap, Map, MapData, MapError, Queue},
};

use super::{
    Shared,
    cells::{self, Cells},
    rows::{self, Rows},
    sessions::{Followed, Sessions},
    shared::SharedArray,
};
use crate::model::{Counted, Ending, Policy};

/// What the kernel counts and follows.
pub struct Counters {
    rows: Rows,
    sessions: Sessions,
    names: BpfHashMap<MapData, u64, u64>,
    settings: Array<MapData, Shared<Settings>>,
}

impl Counters {
    pub(super) fn open(ebpf: &mut Ebpf, rows: u32, sessions: u32, processors: u32) -> Result<Counters, MapError> {
        let mut take = |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        let row_array = shared::<Row>("ROWS", take("ROWS")?, rows)?;
        let session_array = shared::<Session>("SESSIONS", take("SESSIONS")?, sessions)?;
        let cell_array = shared::<CellCounters>("CELLS", take("CELLS")?, cells::number(processors) * processors)?;
        let mut rows = Rows::new(
            row_array,
            Cells::new(cell_array, processors),
            Queue::try_from(take("FREE_ROWS")?)?,
            BpfHashMap::try_from(take("ROW_OF_KEY")?)?,
        );
        let mut sessions = Sessions::new(
            session_array,
            Queue::try_from(take("FREE_SESSIONS")?)?,
            BpfHashMap::try_from(take("SESSION_OF_INODE")?)?,
        );
        rows.offer()?;
        sessions.offer()?;
        let names = BpfHashMap::try_from(take("NAMES")?)?;
        let settings = Array::try_from(take("SETTINGS")?)?;
        Ok(Counters { rows, sessions, names, settings })
    }

    /// Takes what was counted since the last look. `postgresql` tells whether a slot is a PostgreSQL server.
    pub fn take(&mut self, postgresql: impl Fn(u32) -> bool, each: impl FnMut(&Counted<'_>)) {
        self.rows.take(postgresql, each);
    }

    /// Says what is to be done with the executions that `row` counts: its text, of this hash, has been seen.
    pub fn instruct(&self, row: u32, hash: u64, policy: Policy) {
        self.rows.instruct(row, hash, policy);
    }

    /// Tells the text of a prepared statement by its name as a record gave it, `None` for one whose text cannot be known.
    /// What the kernel has learnt meanwhile stays.
    pub fn name(&mut self, name: u64, hash: Option<u64>) {
        /// `BPF_NOEXIST`, include/uapi/linux/bpf.h.
        const NOEXIST: u64 = 1;
        // One that exists already is as good; a full table makes room by itself.
        let _ = self.names.insert(name, hash.unwrap_or(reserved::UNKNOWN), NOEXIST);
    }

    /// The session at `place`, that of the socket `conn`, belongs to `group` from now on.
    pub fn regroup(&self, place: u32, conn: u64, group: u64) {
        self.sessions.regroup(place, conn, group);
    }

    /// The sessions that are there now.
    pub fn sessions(&mut self) -> Vec<Followed> {
        self.sessions.all()
    }

    /// The session at `place`, that of the socket `conn`, has ended.
    pub fn end(&mut self, place: u32, conn: u64) {
        self.sessions.end(place, conn);
    }

    /// Frees what has ended since the last sweep and ends the sessions for which `gone` holds; `thorough`: also those whose process has ended
    /// without anybody having said so.
    pub fn sweep(&mut self, thorough: bool, gone: impl Fn(&Followed) -> bool) {
        self.sessions.sweep(thorough, gone);
    }

    /// One in so many executions is recorded although it need only be counted, at random; 0 means none.
    pub fn sample(&mut self, one_in: u32) -> Result<(), MapError> {
        let sample = u32::MAX.checked_div(one_in).unwrap_or(0);
        self.settings.set(0, Shared(Settings { sample, reserved: 0 }), 0)
    }
}

/// How the execution ended that `outlier` tells of.
pub fn ending(outlier: &Outlier, postgresql: bool) -> Ending {
    rows::ending(outlier.code, postgresql)
}

fn shared<T>(name: &'static str, map: Map, len: u32) -> Result<SharedArray<T>, MapError> {
    let Map::Array(map) = map else { return Err(MapError::InvalidName { name: name.to_owned() }) };
    SharedArray::new(map, len as usize).map_err(MapError::from)
}
