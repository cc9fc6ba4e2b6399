//! Both clocks, read at once.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::model::{Timestamp, WallClock};

/// `CLOCK_MONOTONIC`, the clock of the kernel's records.
pub(super) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0)))
}

/// The wall clock, as it stands to the other one.
pub(super) fn wall() -> WallClock {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallClock::at(now(), i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
