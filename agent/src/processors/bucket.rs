//! Token buckets.

use std::time::Duration;

use crate::model::Timestamp;

/// Lets a rate pass, and bursts of so many.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Timestamp,
}

impl TokenBucket {
    /// A full bucket: `rate` a second, `burst` at once.
    pub(super) fn new(rate: f64, burst: f64, now: Timestamp) -> TokenBucket {
        TokenBucket { rate, burst: burst.max(1.0), tokens: burst.max(1.0), filled: now }
    }

    /// Whether one may pass now.
    pub(super) fn take(&mut self, now: Timestamp) -> bool {
        self.fill(now);
        let passes = self.tokens >= 1.0;
        if passes {
            self.tokens -= 1.0;
        }
        passes
    }

    fn fill(&mut self, now: Timestamp) {
        let passed: Duration = now.since(self.filled);
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(10.0, 5.0, Timestamp(0));
        let passed = |bucket: &mut TokenBucket, now: u64| (0..100).filter(|_| bucket.take(Timestamp(now))).count();
        assert_eq!(passed(&mut bucket, 0), 5);
        assert_eq!(passed(&mut bucket, 300_000_000), 3);
        assert_eq!(passed(&mut bucket, 60_000_000_000), 5);
        // Time that runs backwards gives nothing.
        assert_eq!(passed(&mut bucket, 0), 0);
    }
}
