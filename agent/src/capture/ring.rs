//! The stream of records.

use std::{io, time::Duration};

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

    /// Lets the calling thread run as soon as it wants to: real time, round robin, lowest priority (sched(7)). On a saturated host a thread
    /// of normal priority waited up to 650 ms for its turn even at nice -10 (Linux 6.18, two cores, measured with schedstat), and no
    /// ring is that long. In return the thread must never take more than half a core, see [`Ring::rest`].
    pub fn prefer_this_thread(&self) {
        let lowest = libc::sched_param { sched_priority: 1 };
        // SAFETY: 0 is the calling thread, the parameter outlives the call.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &lowest) } != 0 {
            let error = io::Error::last_os_error();
            tracing::info!(%error, "the ring is read at normal priority (CAP_SYS_NICE would allow more): on a saturated host records may be lost");
        }
    }

    /// How long to pause after `busy` time of work, where `wanted` would do: at least as long, so that half a core stays for others.
    pub fn rest(&self, busy: Duration, wanted: Duration) -> Duration {
        wanted.max(busy)
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
