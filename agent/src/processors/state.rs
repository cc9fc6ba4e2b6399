//! What processors remember over a restart.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::Stage;
use crate::model::{Timestamp, WallClock};

/// One point in time on both clocks. A machine's restart sets the monotonic clock back, so what is kept is kept in wall clock time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// Monotonic.
    pub now: Timestamp,
    /// The wall clock beside it.
    pub clock: WallClock,
}

impl Moment {
    /// `time` in Unix nanoseconds.
    pub fn keep(self, time: Timestamp) -> i64 {
        self.clock.unix_nanos(time)
    }

    /// The kept time as a timestamp: zero if that was before the machine started.
    pub fn restore(self, unix_nanos: i64) -> Timestamp {
        Timestamp(u64::try_from(unix_nanos.saturating_sub(self.clock.unix_nanos(Timestamp(0)))).unwrap_or(0))
    }

    /// As [`Moment::restore`] for a time to come: at most `longest` from now, so that a wall clock that was set back does not make a wait endless.
    pub fn restore_deadline(self, unix_nanos: i64, longest: Duration) -> Timestamp {
        self.restore(unix_nanos).min(self.now + longest)
    }
}

/// State that cannot be kept or taken up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be written.
    #[error("the state of {0} cannot be written: {1}")]
    Write(Stage, serde_json::Error),
    /// It is not what this version writes.
    #[error("the state of {0} is not readable: {1}; the processor starts without it")]
    Read(Stage, serde_json::Error),
}

/// The state of `stage` as it is kept.
pub(super) fn export<T: Serialize>(stage: Stage, state: &T) -> Option<Result<Value, StateError>> {
    Some(serde_json::to_value(state).map_err(|error| StateError::Write(stage, error)))
}

/// The kept state of `stage`.
pub(super) fn import<T: DeserializeOwned>(stage: Stage, state: Value) -> Result<T, StateError> {
    serde_json::from_value(state).map_err(|error| StateError::Read(stage, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_a_reboot() {
        let second = 1_000_000_000;
        let before =
            Moment { now: Timestamp(50 * second), clock: WallClock::at(Timestamp(50 * second), 1_000 * second as i64) };
        let kept = before.keep(Timestamp(70 * second));
        assert_eq!(kept, 1_020 * second as i64);
        // Rebooted at 1010 s, now 1015 s.
        let after =
            Moment { now: Timestamp(5 * second), clock: WallClock::at(Timestamp(5 * second), 1_015 * second as i64) };
        assert_eq!(after.restore(kept), Timestamp(10 * second));
        assert_eq!(after.restore(900 * second as i64), Timestamp(0));
        assert_eq!(after.restore_deadline(9_000 * second as i64, Duration::from_secs(30)), Timestamp(35 * second));
    }
}
