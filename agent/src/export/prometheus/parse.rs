//! A strict reader of both formats, written from their specifications (prometheus.io "Exposition formats", OpenMetrics 1.0 §5), so that
//! tests see the output as Prometheus does. It panics at the first fault.

use std::collections::{BTreeMap, BTreeSet};

use super::Format;

pub(super) type LabelSet = BTreeMap<String, String>;

/// A family of metrics as read.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) kind: String,
    pub(super) help: String,
    pub(super) unit: Option<String>,
    /// (sample name, labels) → value.
    pub(super) samples: BTreeMap<(String, LabelSet), f64>,
}

/// Families by name.
#[derive(Debug)]
pub(super) struct Exposition(pub(super) BTreeMap<String, Family>);

impl Exposition {
    /// The value of the one sample with that name that has all of `labels`.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.values(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].1
    }

    /// All samples with that name that have all of `labels`.
    pub(super) fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(&LabelSet, f64)> {
        let samples = self.0.values().flat_map(|family| &family.samples);
        samples
            .filter(|((sample, set), _)| {
                sample == name && labels.iter().all(|(key, value)| set.get(*key).is_some_and(|is| is == value))
            })
            .map(|((_, set), value)| (set, *value))
            .collect()
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let mut bytes = name.bytes();
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || (colons && byte == b':');
    bytes.next().is_some_and(first) && bytes.all(|byte| first(byte) || byte.is_ascii_digit())
}

fn unescape(text: &str, quotes: bool) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        assert!(c == '\t' || !c.is_control(), "control character {c:?} in {text:?}");
        match c {
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some('n') => out.push('\n'),
                Some('"') if quotes => out.push('"'),
                other => panic!("escape {other:?} in {text:?}"),
            },
            '"' => panic!("bare quote in {text:?}"),
            c => out.push(c),
        }
    }
    out
}

fn labels(mut text: &str) -> LabelSet {
    let mut set = LabelSet::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("a label has a quoted value");
        assert!(is_name(name, false), "label name {name:?}");
        let mut escaped = false;
        let end = rest
            .find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })
            .expect("a label's value ends");
        assert!(set.insert(name.into(), unescape(&rest[..end], true)).is_none(), "label {name} twice");
        text = &rest[end + 1..];
        if !text.is_empty() {
            text = text.strip_prefix(',').expect("labels are separated by commas");
            assert!(!text.is_empty(), "comma at the end of labels");
        }
    }
    set
}

fn sample(line: &str) -> (String, LabelSet, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
    let (name, set) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}').expect("labels end with a brace"))),
        None => (series, LabelSet::new()),
    };
    assert!(is_name(name, true), "metric name {name:?}");
    (name.to_owned(), set, value.parse().unwrap_or_else(|_| panic!("value {value:?} of {line:?}")))
}

/// Reads all families; every rule that can be checked is.
pub(super) fn parse(text: &str, format: Format) -> Exposition {
    let openmetrics = format == Format::OpenMetrics;
    let mut body = text;
    if openmetrics {
        body = text.strip_suffix("# EOF\n").expect("OpenMetrics ends with # EOF");
    }
    assert!(!body.contains("# EOF") && (body.is_empty() || body.ends_with('\n')), "{text}");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in body.split_terminator('\n') {
        if let Some(comment) = line.strip_prefix("# ") {
            let (what, rest) = comment.split_once(' ').expect("metadata has a kind");
            let (name, rest) = rest.split_once(' ').expect("metadata has a text");
            if name != current {
                assert!(!families.contains_key(name), "family {name} is scattered");
                current = name.to_owned();
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "metadata of {name} after its samples");
            match what {
                "HELP" => family.help = unescape(rest, openmetrics),
                "TYPE" => family.kind = rest.to_owned(),
                "UNIT" if openmetrics => {
                    assert!(name.ends_with(&format!("_{rest}")), "unit {rest} of {name}");
                    family.unit = Some(rest.to_owned());
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, set, value) = sample(line);
        let family = families.get_mut(&current).expect("metadata goes before samples");
        let suffixes: &[&str] = match (family.kind.as_str(), openmetrics) {
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            ("counter", true) => &["_total"],
            ("info", true) => &["_info"],
            ("counter" | "gauge", false) | ("gauge", true) => &[""],
            other => panic!("type {other:?} of {current}"),
        };
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{name} in family {current}"));
        assert!(suffixes.contains(&suffix), "{name} in {} {current}", family.kind);
        assert!(family.kind != "counter" || name.ends_with("_total"), "counter {name}");
        assert!(value.is_finite() && (family.kind == "gauge" || value >= 0.0), "{line}");
        assert!(family.samples.insert((name, set), value).is_none(), "duplicate series: {line}");
    }
    for (name, family) in &families {
        assert!(!family.help.is_empty() && !family.kind.is_empty() && !family.samples.is_empty(), "{name}");
        if family.kind == "histogram" {
            histogram(name, family);
        }
    }
    Exposition(families)
}

/// Buckets are cumulative, the infinite one is the count, and sum and count are there.
fn histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<LabelSet, Vec<(f64, f64)>> = BTreeMap::new();
    for ((sample, set), value) in &family.samples {
        if *sample == format!("{name}_bucket") {
            let mut set = set.clone();
            let le = set.remove("le").expect("a bucket has le");
            let bound = if le == "+Inf" { f64::INFINITY } else { le.parse().expect("le is a number") };
            series.entry(set).or_default().push((bound, *value));
        }
    }
    let with_count: BTreeSet<_> =
        family.samples.keys().filter(|(sample, _)| sample.ends_with("_count")).map(|(_, set)| set.clone()).collect();
    assert_eq!(with_count, series.keys().cloned().collect(), "{name}");
    for (set, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}{set:?}: {buckets:?}");
        let (last, all) = buckets[buckets.len() - 1];
        assert_eq!(last, f64::INFINITY, "{name}{set:?}");
        assert_eq!(family.samples[&(format!("{name}_count"), set.clone())], all, "{name}{set:?}");
        assert!(family.samples.contains_key(&(format!("{name}_sum"), set)), "{name}");
    }
}
