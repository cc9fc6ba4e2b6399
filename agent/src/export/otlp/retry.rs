//! When a failed request is sent again.

use std::time::Duration;

use super::{LONGEST_WAIT, config::Retry};

/// Pauses that double up to a bound, each spread by chance over its upper half, so that agents which lost one receiver together do not come
/// back together.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(retry: &Retry) -> Backoff {
        let max = retry.max.0.min(LONGEST_WAIT);
        Backoff { pause: retry.initial.0.min(max), max }
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.max);
        pause.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

/// The time that a `Retry-After` header asks for (RFC 9110 §10.2.3): seconds or a date.
pub(super) fn retry_after(value: &str, now: std::time::SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::model::HumanDuration;

    #[test]
    fn pauses_double_up_to_the_bound_and_are_spread() {
        let retry = Retry {
            initial: HumanDuration::from_secs(1),
            max: HumanDuration::from_secs(5),
            elapsed: HumanDuration::from_secs(60),
        };
        let mut seen = Vec::new();
        for _ in 0..50 {
            let mut backoff = Backoff::new(&retry);
            for full in [1.0, 2.0, 4.0, 5.0, 5.0] {
                let pause = backoff.next().as_secs_f64();
                assert!((full / 2.0..=full).contains(&pause), "{pause} of {full}");
                seen.push(pause);
            }
        }
        seen.sort_by(f64::total_cmp);
        seen.dedup();
        assert!(seen.len() > 200, "they differ");
    }

    #[test]
    fn no_configuration_overflows() {
        let forever = HumanDuration(Duration::MAX);
        let mut backoff = Backoff::new(&Retry { initial: forever, max: forever, elapsed: forever });
        (0..5).for_each(|_| assert!(backoff.next() <= LONGEST_WAIT));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: SystemTime = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }
}
