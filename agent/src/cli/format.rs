//! Numbers as people read them: few digits, a unit, never wider than eight characters.

/// What stands where a number is not known yet.
pub(super) const UNKNOWN: &str = "-";

/// `999`, `12.3k`, `4.56M`, `7.00G`.
pub(super) fn count(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { scaled(count as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"]) }
}

/// `45.2MiB`, `1.10GiB`.
pub(super) fn mebibytes(mebibytes: f64) -> String {
    scaled(mebibytes, 1024.0, &["MiB", "GiB", "TiB"])
}

/// `999B`, `12.3KiB`, `4.56MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes}B"),
        _ => scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]),
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
    fn counts_bytes_rates_and_shares() {
        for (number, text) in [(0, "0"), (9_999, "9999"), (12_345, "12.3k"), (999_999, "1.00M"), (u64::MAX, "18.4E")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in [(0.0, "0.00MiB"), (45.2, "45.2MiB"), (1126.4, "1.10GiB")] {
            assert_eq!(mebibytes(number), text);
        }
        for (number, text) in [(0, "0B"), (9_999, "9999B"), (12_595, "12.3KiB"), (u64::MAX, "16.0EiB")] {
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
