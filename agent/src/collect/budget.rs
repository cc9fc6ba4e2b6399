//! What a question costs its server, against what it may.

use std::time::{Duration, Instant};

/// Costs are judged over so long at least, so that one dear answer to a question that is seldom asked is none too much.
const WINDOW: Duration = Duration::from_secs(60);

/// CPU time that one question has cost since its window began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    since: Instant,
    spent: Duration,
}

impl Budget {
    /// Nothing spent yet.
    pub(super) fn new(now: Instant) -> Budget {
        Budget { since: now, spent: Duration::ZERO }
    }

    /// The question was asked once more. Whether it has cost more than `limit`, a share of one core, over a whole window; then the next one begins.
    pub(super) fn spend(&mut self, now: Instant, cost: Duration, limit: f64) -> bool {
        self.spent = self.spent.saturating_add(cost);
        let window = now.saturating_duration_since(self.since);
        if window < WINDOW {
            return false;
        }
        let exceeded = self.spent > window.mul_f64(limit);
        *self = Budget::new(now);
        exceeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_too_costly_if_it_is_so_over_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut budget = Budget::new(start);
        // 0.5 s in 60 s.
        assert!(!budget.spend(at(1), Duration::from_millis(500), 0.01));
        assert!(!budget.spend(at(60), Duration::ZERO, 0.01));
        // 0.7 s in 60 s.
        assert!(!budget.spend(at(90), Duration::from_millis(600), 0.01));
        assert!(budget.spend(at(120), Duration::from_millis(100), 0.01));
        // Anew.
        assert!(!budget.spend(at(121), Duration::from_millis(500), 0.01));
        assert!(!budget.spend(at(180), Duration::ZERO, 0.01));
    }
}
