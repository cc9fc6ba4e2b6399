//! The stream of records.

use std::io;

use agent_ebpf::{Record, decode};
use aya::maps::{MapData, RingBuf};

/// The consumer's end of the ring buffer.
pub struct Ring {
    records: RingBuf<MapData>,
    /// Records that were not of the agreed form: kernel and agent are of different builds, or memory is broken.
    pub undecodable: u64,
}

impl Ring {
    pub(super) fn new(records: RingBuf<MapData>) -> Ring {
        Ring { records, undecodable: 0 }
    }

    /// Lets the calling thread run before others: on a saturated host the ring must be emptied in time, and that costs a few per cent of a
    /// core at most.
    pub fn prefer_this_thread(&self) {
        const NICE: i32 = -10;
        // SAFETY: plain integers; for setpriority(2), Linux takes 0 for the calling thread.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
            let error = io::Error::last_os_error();
            tracing::debug!(%error, "the ring is read at normal priority (CAP_SYS_NICE would allow more)");
        }
    }

    /// Hands up to `most` records to `each` and gives their number and bytes. Never blocks.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(Record<'_>)) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        while count < most
            && let Some(item) = self.records.next()
        {
            count += 1;
            bytes += item.len();
            match decode(&item) {
                Ok(record) => each(record),
                Err(_) => self.undecodable += 1,
            }
        }
        (count, bytes)
    }
}
