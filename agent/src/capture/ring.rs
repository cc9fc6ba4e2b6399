//! The stream of records.

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
