//! When each question is due. Times are spread by chance, so that many agents do not ask many servers at the same moment.

use std::time::{Duration, Instant};

use crate::model::Question;

/// By how much an interval is shortened or lengthened at most, as a share of it.
const JITTER: f64 = 0.1;

/// Questions with their intervals.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    question: Question,
    every: Duration,
    due: Instant,
}

impl Schedule {
    /// Everything is due within the first second, in the given order.
    pub(super) fn new(questions: impl IntoIterator<Item = (Question, Duration)>, now: Instant) -> Schedule {
        let entry = |(at, (question, every)): (usize, (Question, Duration))| {
            let pause = Duration::from_millis(50) * u32::try_from(at).unwrap_or(0);
            Entry { question, every, due: now + pause.min(Duration::from_secs(1)) }
        };
        Schedule { entries: questions.into_iter().enumerate().map(entry).collect() }
    }

    /// What is due first, and when.
    pub(super) fn next(&self) -> Option<(Question, Instant)> {
        self.entries.iter().min_by_key(|entry| entry.due).map(|entry| (entry.question, entry.due))
    }

    /// A question was asked: it is due again after its interval, give or take; `chance` is from 0 to 1. What was missed meanwhile is left out.
    pub(super) fn done(&mut self, question: Question, now: Instant, chance: f64) {
        for entry in self.entries.iter_mut().filter(|entry| entry.question == question) {
            let jitter = 1.0 + JITTER * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
            let planned = entry.due + entry.every.mul_f64(jitter);
            entry.due = if planned > now { planned } else { now + entry.every.mul_f64(jitter) };
        }
    }
}

/// Pauses between attempts that fail: each twice as long as the one before, up to a limit, spread by chance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(2);
    /// A failed login stands in the server's log each time.
    const LONGEST: Duration = Duration::from_secs(600);

    /// Begins with the shortest pause.
    pub(super) fn new() -> Backoff {
        Backoff { next: Backoff::FIRST }
    }

    /// The pause before the next attempt, half of it certain and half left to chance.
    pub(super) fn pause(&mut self, chance: f64) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Backoff::LONGEST);
        pause / 2 + (pause / 2).mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn questions_keep_their_rate_and_do_not_pile_up() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut schedule = Schedule::new([(Question::Activity, second), (Question::Tables, second * 60)], start);
        assert_eq!(schedule.next(), Some((Question::Activity, start)));
        schedule.done(Question::Activity, start, 0.5);
        let (question, due) = schedule.next().unwrap();
        assert_eq!((question, due), (Question::Tables, start + Duration::from_millis(50)));
        schedule.done(Question::Tables, due, 0.5);
        assert_eq!(schedule.next(), Some((Question::Activity, start + second)));
        // Ten seconds late: one question, not ten.
        schedule.done(Question::Activity, start + second * 11, 0.5);
        assert_eq!(schedule.next(), Some((Question::Activity, start + second * 12)));
    }

    #[test]
    fn intervals_are_spread_by_a_tenth() {
        let start = Instant::now();
        for (chance, millis) in [(0.0, 900), (1.0, 1100), (7.0, 1100)] {
            let mut schedule = Schedule::new([(Question::Activity, Duration::from_secs(1))], start);
            schedule.done(Question::Activity, start, chance);
            assert_eq!(schedule.next().unwrap().1, start + Duration::from_millis(millis));
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u64> = (0..12).map(|_| backoff.pause(1.0).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
        assert_eq!(Backoff::new().pause(0.0), Duration::from_secs(1));
    }
}
