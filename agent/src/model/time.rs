//! Points in time as the kernel stamps them.

use std::time::Duration;

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of `bpf_ktime_get_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Time from `earlier` to `self`; zero if `earlier` is later (CPUs may disagree by some nanoseconds).
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// What the wall clock shows at a [`Timestamp`]. Whoever makes a batch reads both clocks at once, so that a step of the wall clock shows in the next
/// batch and never within one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// Unix time in nanoseconds at `Timestamp(0)`, that is when the machine started.
    epoch: i64,
}

impl WallClock {
    /// The wall clock that shows `unix_nanos` at `now`.
    pub fn at(now: Timestamp, unix_nanos: i64) -> WallClock {
        WallClock { epoch: unix_nanos.saturating_sub(i64::try_from(now.0).unwrap_or(i64::MAX)) }
    }

    /// Unix time in nanoseconds at `time`.
    pub fn unix_nanos(self, time: Timestamp) -> i64 {
        self.epoch.saturating_add(i64::try_from(time.0).unwrap_or(i64::MAX))
    }
}
