//! Holds the number of records a second.

use std::time::Duration;

use crate::model::Timestamp;

/// How often it looks at what the kernel shows.
const TICK: Duration = Duration::from_secs(1);
/// How much the latest tick counts beside those before.
const SMOOTHING: f64 = 0.5;
/// Too few are made up for up to what comes in so long a time, and too many up to this.
const CREDIT: Duration = Duration::from_millis(200);
const DEBT: Duration = Duration::from_secs(1);
/// From this fill level of the export queue on, the target falls, down to this part of it when it is full.
const QUEUE_KNEE: f64 = 0.5;
const LEAST: f64 = 0.1;
/// The kernel shows one in twice as many from so many times the target on, and in half as many below.
const FLOOD: f64 = 8.0;
const DROUGHT: f64 = 1.0;
/// Largest number of executions of which the kernel is asked to show one.
const MAX_ONE_IN: u32 = 1 << 20;
/// A change takes a while to show.
const SETTLE: Duration = Duration::from_secs(10);

/// What else there is to say about how much can be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// How full the export queue is, from 0 to 1.
    pub queue: f64,
    /// What the budget leaves of the examples, from 0 to 1.
    pub budget: f64,
    /// The receiver does not answer: what is kept has to be stored.
    pub receiver_down: bool,
}

impl Default for Room {
    fn default() -> Room {
        Room { queue: 0.0, budget: 1.0, receiver_down: false }
    }
}

/// Finds the part of every rule's share that meets the target. What a batch brings is known before the first choice in it, so the part is exact for it; what chance makes
/// of it in one batch is made up for in the next.
#[derive(Debug)]
pub(super) struct Controller {
    target: f64,
    least: f64,
    room: Room,
    scale: f64,
    /// Records that the current batch may keep, and those of the batches before that were too few or too many.
    budget: f64,
    carry: f64,
    kept: u64,
    tick: Option<Timestamp>,
    arrived: u64,
    /// A second, smoothed.
    arrival_rate: f64,
    configured_one_in: u32,
    one_in: u32,
    one_in_changed: Timestamp,
}

impl Controller {
    /// `least`: smallest scale. `one_in`: what the kernel shows as configured; 0 for nothing.
    pub(super) fn new(target: f64, least: f64, one_in: u32) -> Controller {
        Controller {
            target,
            least,
            room: Room::default(),
            scale: 1.0,
            budget: 0.0,
            carry: 0.0,
            kept: 0,
            tick: None,
            arrived: 0,
            arrival_rate: 0.0,
            configured_one_in: one_in,
            one_in,
            one_in_changed: Timestamp::default(),
        }
    }

    /// Takes up what else there is to say.
    pub(super) fn room(&mut self, room: Room) {
        self.room = room;
    }

    /// The target as far as there is room.
    pub(super) fn target(&self) -> f64 {
        let queue = match self.room.queue {
            queue if queue <= QUEUE_KNEE => 1.0,
            queue => 1.0 - (1.0 - LEAST) * ((queue - QUEUE_KNEE) / (1.0 - QUEUE_KNEE)).min(1.0),
        };
        let down = if self.room.receiver_down { LEAST } else { 1.0 };
        self.target * queue.min(down) * self.room.budget.clamp(0.0, 1.0)
    }

    /// Part of every rule's share that is kept now.
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    /// Executions of which the kernel is asked to show one.
    pub(super) fn one_in(&self) -> u32 {
        self.one_in
    }

    /// A batch brings what came in the time `passed`: so many that are kept whatever the rate, and so many by chance, of which the rules alone would keep `base`.
    pub(super) fn begin(&mut self, passed: Duration, always: u64, chance: u64, base: f64) {
        self.budget = self.target() * passed.as_secs_f64() + self.carry;
        self.kept = 0;
        self.arrived += chance;
        if base > 0.0 {
            self.scale = ((self.budget - always as f64) / base).clamp(self.least, 1.0);
        }
    }

    /// One was kept.
    pub(super) fn kept(&mut self) {
        self.kept += 1;
    }

    /// The batch is done.
    pub(super) fn end(&mut self) {
        let (credit, debt) = (self.target() * CREDIT.as_secs_f64(), self.target() * DEBT.as_secs_f64());
        self.carry = (self.budget - self.kept as f64).clamp(-debt, credit);
    }

    /// Looks whether the kernel shows far too much or too little. Gives its new number if that changes.
    pub(super) fn tick(&mut self, now: Timestamp) -> Option<u32> {
        let since = *self.tick.get_or_insert(now);
        let passed = now.since(since);
        if passed < TICK {
            return None;
        }
        self.tick = Some(now);
        let seconds = passed.as_secs_f64();
        // After a long pause the past says nothing.
        let fresh = 1.0 - (1.0 - SMOOTHING).powf(seconds.min(64.0));
        self.arrival_rate += fresh * (std::mem::take(&mut self.arrived) as f64 / seconds - self.arrival_rate);
        if self.one_in == 0 || now.since(self.one_in_changed) < SETTLE {
            return None;
        }
        let target = self.target().max(1.0);
        let new = if self.arrival_rate > FLOOD * target {
            self.one_in.saturating_mul(2).min(MAX_ONE_IN.max(self.configured_one_in))
        } else if self.arrival_rate < DROUGHT * target {
            (self.one_in / 2).max(self.configured_one_in)
        } else {
            self.one_in
        };
        if new == self.one_in {
            return None;
        }
        self.one_in = new;
        self.one_in_changed = now;
        Some(new)
    }

    /// As it was before a restart.
    pub(super) fn restore(&mut self, scale: f64) {
        if scale.is_finite() {
            self.scale = scale.clamp(self.least, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_falls_with_the_room() {
        let mut controller = Controller::new(100.0, 0.001, 1024);
        let mut target = |queue, budget, receiver_down| {
            controller.room(Room { queue, budget, receiver_down });
            controller.target()
        };
        assert_eq!(target(0.0, 1.0, false), 100.0);
        assert_eq!(target(0.5, 1.0, false), 100.0);
        assert!((target(0.75, 1.0, false) - 55.0).abs() < 1e-9);
        assert!((target(2.0, 1.0, false) - 10.0).abs() < 1e-9);
        assert!((target(0.0, 0.5, true) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn the_kernel_shows_less_in_a_flood_and_as_configured_afterwards() {
        let mut controller = Controller::new(100.0, 0.001, 1024);
        let mut asked = Vec::new();
        for second in 0..400u64 {
            let shown = if second < 100 { 4_000_000 / u64::from(controller.one_in()) } else { 10 };
            controller.begin(Duration::from_secs(1), 0, shown, shown as f64 * 0.1);
            asked.extend(controller.tick(Timestamp(second * 1_000_000_000)));
        }
        // 3906 a second are shown of one in 1024; at one in 8192 it is less than eight times the target.
        assert_eq!(asked, [2048, 4096, 8192, 4096, 2048, 1024]);
    }
}
