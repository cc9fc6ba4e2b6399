//! Numbers as people read them: few digits, a unit, never wider than eight characters.

use std::time::Duration;

/// What stands where a number is not known yet.
pub(super) const UNKNOWN: &str = "-";

/// `830ns`, `412µs`, `1.23ms`, `12.3s`, `2m05s`, `3h07m`, `4d05h`.
pub(super) fn duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    match duration.as_nanos() {
        0 => "0".into(),
        nanos @ 1..1_000 => format!("{nanos}ns"),
        nanos @ 1_000..1_000_000 => format!("{}µs", nanos / 1_000),
        nanos @ 1_000_000..1_000_000_000 => format!("{}ms", three_digits(nanos as f64 / 1e6)),
        nanos if secs < 60 => format!("{}s", three_digits(nanos as f64 / 1e9)),
        _ if secs < 3_600 => format!("{}m{:02}s", secs / 60, secs % 60),
        _ if secs < 86_400 => format!("{}h{:02}m", secs / 3_600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs / 3_600 % 24),
    }
}

/// `999`, `12.3k`, `4.56M`, `7.00G`.
pub(super) fn count(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { scaled(count as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"]) }
}

/// `512B`, `45.2MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        format!("{bytes}B")
    } else {
        scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
    }
}

/// Events in a second: `0`, `0.25`, `12.3`, `4.56k`.
pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.into(),
        Some(0.0) => "0".into(),
        Some(rate) if rate < 0.01 => "<0.01".into(),
        Some(rate) => scaled(rate, 1000.0, &["", "k", "M", "G", "T"]),
    }
}

/// A share of one: `12.3%`, `0.40%`, `100%`.
pub(super) fn percent(share: Option<f64>) -> String {
    match share {
        None => UNKNOWN.into(),
        Some(0.0) => "0%".into(),
        Some(share) if share < 0.0001 => "<0.01%".into(),
        Some(share) => format!("{}%", three_digits(share * 100.0)),
    }
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // A number that rounds up to four digits belongs to the next unit already.
    while number >= step - 0.5 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    format!("{}{}", three_digits(number), units[unit])
}

fn three_digits(number: f64) -> String {
    match number {
        _ if number < 9.995 => format!("{number:.2}"),
        _ if number < 99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (nanos, text) in [
            (0, "0"),
            (830, "830ns"),
            (412_900, "412µs"),
            (1_234_567, "1.23ms"),
            (12_345_678, "12.3ms"),
            (999_600_000, "1000ms"),
            (59_990_000_000, "60.0s"),
            (125_000_000_000, "2m05s"),
            (11_220_000_000_000, "3h07m"),
            (363_600_000_000_000, "4d05h"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn counts_bytes_rates_and_shares() {
        for (number, text) in [(0, "0"), (9_999, "9999"), (12_345, "12.3k"), (999_999, "1.00M"), (u64::MAX, "18.4E")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in [(0, "0B"), (1023, "1023B"), (1024, "1.00KiB"), (47_395_635, "45.2MiB")] {
            assert_eq!(bytes(number), text);
        }
        for (number, text) in
            [(None, "-"), (Some(0.0), "0"), (Some(0.001), "<0.01"), (Some(12.34), "12.3"), (Some(4560.0), "4.56k")]
        {
            assert_eq!(rate(number), text);
        }
        for (share, text) in [(None, "-"), (Some(0.0), "0%"), (Some(0.004), "0.40%"), (Some(1.0), "100%")] {
            assert_eq!(percent(share), text);
        }
    }
}
