//! Durations as people write them in a configuration.

use std::{borrow::Cow, fmt, ops::Deref, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units, largest first, with their length in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A duration written as whole numbers with units: `10s`, `500ms`, `1m30s`. A bare number is refused, since nothing tells its unit.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// A whole number of seconds.
    pub const fn from_secs(secs: u64) -> HumanDuration {
        HumanDuration(Duration::from_secs(secs))
    }

    /// A whole number of milliseconds.
    pub const fn from_millis(millis: u64) -> HumanDuration {
        HumanDuration(Duration::from_millis(millis))
    }

    /// Rounded to what people read in a table, at most six characters up to a hundred days: `830ns`, `41.6us`, `1.23ms`, `12.3s`, `2m05s`,
    /// `3h07m`, `4d05h`.
    pub fn brief(self) -> String {
        let (nanos, secs) = (self.0.as_nanos() as f64, self.0.as_secs());
        let (value, unit) = match nanos {
            0.0 => return "0".into(),
            nanos if nanos < 999.5 => return format!("{nanos}ns"),
            nanos if nanos < 999.5e3 => (nanos / 1e3, "us"),
            nanos if nanos < 999.5e6 => (nanos / 1e6, "ms"),
            nanos if nanos < 59.95e9 => (nanos / 1e9, "s"),
            _ if secs < 60 => return "60.0s".into(),
            _ if secs < 3_600 => return format!("{}m{:02}s", secs / 60, secs % 60),
            _ if secs < 86_400 => return format!("{}h{:02}m", secs / 3_600, secs / 60 % 60),
            _ => return format!("{}d{:02}h", secs / 86_400, secs / 3_600 % 24),
        };
        let decimals = match value {
            value if value < 9.995 => 2,
            value if value < 99.95 => 1,
            _ => 0,
        };
        format!("{value:.decimals$}{unit}")
    }
}

impl Deref for HumanDuration {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Duration {
        duration.0
    }
}

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a duration: {reason}; write a whole number and a unit (ns, us, ms, s, m, h, d), e.g. `10s` or `1m30s`"
)]
pub struct ParseError {
    text: String,
    reason: &'static str,
}

impl FromStr for HumanDuration {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<HumanDuration, ParseError> {
        let error = |reason| ParseError { text: text.to_owned(), reason };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(error("it is empty"));
        }
        let mut nanos = 0u128;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let number: u64 = match number {
                "" => return Err(error("a number is missing")),
                number => number.parse().map_err(|_| error("a number is too large"))?,
            };
            let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let unit = match unit.trim() {
                "" => return Err(error("a unit is missing")),
                "µs" => "us",
                unit => unit,
            };
            let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(error("a unit is unknown"));
            };
            nanos += u128::from(number) * length;
            rest = after.trim_start();
        }
        let secs = u64::try_from(nanos / 1_000_000_000).map_err(|_| error("it is too long"))?;
        Ok(HumanDuration(Duration::new(secs, (nanos % 1_000_000_000) as u32)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in UNITS {
            let number = nanos / length;
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
            nanos %= length;
        }
        Ok(())
    }
}

impl fmt::Debug for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HumanDuration, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = HumanDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with a unit, e.g. `10s`, `500ms` or `1m30s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Whole numbers with units, e.g. 10s, 500ms, 1m30s.",
            "type": "string",
            "pattern": r"^\s*([0-9]+\s*(ns|us|µs|ms|s|m|h|d)\s*)+$"
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, expected: Duration) {
        assert_eq!(text.parse::<HumanDuration>().unwrap().0, expected, "{text}");
    }

    #[test]
    fn texts_mean_what_they_say() {
        check("10s", Duration::from_secs(10));
        check("500ms", Duration::from_millis(500));
        check("1m", Duration::from_secs(60));
        check("1h30m", Duration::from_secs(5400));
        check(" 1 h 30 m ", Duration::from_secs(5400));
        check("2d", Duration::from_secs(172_800));
        check("7us", Duration::from_micros(7));
        check("7µs", Duration::from_micros(7));
        check("0s", Duration::ZERO);
    }

    #[test]
    fn wrong_texts_say_why() {
        for (text, reason) in [
            ("10", "a unit is missing"),
            ("", "it is empty"),
            ("s", "a number is missing"),
            ("1.5s", "a unit is unknown"),
            ("-1s", "a number is missing"),
            ("10parsec", "a unit is unknown"),
            ("99999999999999999999s", "a number is too large"),
            ("18446744073709551615d", "it is too long"),
        ] {
            assert_eq!(text.parse::<HumanDuration>().unwrap_err().reason, reason, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for nanos in [0u64, 1, 999, 1_500_000_000, 90_000_000_000, 86_400_000_000_001, u64::MAX] {
            let duration = HumanDuration(Duration::from_nanos(nanos));
            assert_eq!(duration.to_string().parse::<HumanDuration>().unwrap(), duration);
        }
        assert_eq!(HumanDuration::from_millis(90_500).to_string(), "1m30s500ms");
    }

    #[test]
    fn brief_texts_fit_into_a_column() {
        for (nanos, text) in [
            (0, "0"),
            (830, "830ns"),
            (41_623, "41.6us"),
            (999_499, "999us"),
            (999_600, "1.00ms"),
            (1_234_567, "1.23ms"),
            (99_960_000, "100ms"),
            (12_345_678_900, "12.3s"),
            (59_990_000_000, "60.0s"),
            (125_000_000_000, "2m05s"),
            (11_220_000_000_000, "3h07m"),
            (363_600_000_000_000, "4d05h"),
        ] {
            assert_eq!(HumanDuration(Duration::from_nanos(nanos)).brief(), text);
        }
    }

    #[test]
    fn a_bare_number_is_refused() {
        let error = serde_json::from_str::<HumanDuration>("10").unwrap_err().to_string();
        assert!(error.contains("a duration with a unit"), "{error}");
        assert_eq!(serde_json::from_str::<HumanDuration>("\"10s\"").unwrap(), HumanDuration::from_secs(10));
    }
}
