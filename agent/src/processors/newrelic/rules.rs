//! What New Relic refuses, and how it is mended. Limits from its documentation of the OTLP endpoint, of metric data and of NRDB attributes.

use std::{sync::Arc, time::Duration};

use super::Config;
use crate::model::{
    Record, Signal, Timestamp,
    names::ATTRIBUTES,
    signal::{Fact, TextMut},
};

/// Names that NRDB uses itself.
const RESERVED: [&str; 9] = [
    "accountId",
    "appId",
    "eventType",
    "entity.guid",
    "entity.name",
    "entity.type",
    "metricName",
    "endTimestamp",
    "newrelic.source",
];
/// Older points are refused.
const OLDEST: Duration = Duration::from_secs(48 * 3600);
/// Points further ahead are refused.
const AHEAD: Duration = Duration::from_secs(24 * 3600);

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A value is longer than allowed: cut at a character.
    ValueTooLong,
    /// A name is longer than allowed: the attribute goes, or the metric.
    NameTooLong,
    /// An attribute has a reserved name: it goes.
    ReservedName,
    /// An attribute is named like its metric: it goes.
    NamedLikeMetric,
    /// More attributes than allowed: the last ones go.
    TooManyAttributes,
    /// No number, or infinite: the point goes.
    NotFinite,
    /// Too old or too far ahead: exact statistics count as of now, anything else goes.
    TimeOutOfRange,
    /// More series than allowed in a day: further statements are counted together, other points go.
    TooManySeries,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 8] = [
        Rule::ValueTooLong,
        Rule::NameTooLong,
        Rule::ReservedName,
        Rule::NamedLikeMetric,
        Rule::TooManyAttributes,
        Rule::NotFinite,
        Rule::TimeOutOfRange,
        Rule::TooManySeries,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Rule::ValueTooLong => "attribute_too_long",
            Rule::NameTooLong => "metric_name_too_long",
            Rule::ReservedName => "reserved_name",
            Rule::NamedLikeMetric => "named_like_metric",
            Rule::TooManyAttributes => "too_many_attributes",
            Rule::NotFinite => "not_finite",
            Rule::TimeOutOfRange => "time_out_of_range",
            Rule::TooManySeries => "high_cardinality",
        }
    }
}

/// Mends a record; `broke` is told each rule that it broke. Whether it may be sent.
pub(super) fn mend(record: &mut Record, now: Timestamp, config: &Config, broke: &mut impl FnMut(Rule)) -> bool {
    if now.since(record.at) > OLDEST || record.at.since(now) > AHEAD {
        broke(Rule::TimeOutOfRange);
        if !matches!(record.signal, Signal::Interval(_)) {
            return false;
        }
        record.at = now;
    }
    let most = config.max_attribute_length;
    record.texts(&mut |_, text| match text {
        TextMut::Text(text) => {
            if let Some(cut) = cut(text, most) {
                *text = cut.into();
                broke(Rule::ValueTooLong);
            }
        }
        TextMut::Digest(digest) => {
            if let Some(cut) = cut(&digest.text, most) {
                Arc::make_mut(digest).text = cut.into();
                broke(Rule::ValueTooLong);
            }
        }
    });
    match &mut record.signal {
        Signal::Fact(fact) => mend_fact(fact, config, broke),
        Signal::Finding(finding) => {
            let before = finding.evidence.len();
            finding.evidence.retain(|(_, value)| value.is_finite());
            (finding.evidence.len()..before).for_each(|_| broke(Rule::NotFinite));
            true
        }
        _ => true,
    }
}

fn mend_fact(fact: &mut Fact, config: &Config, broke: &mut impl FnMut(Rule)) -> bool {
    if !fact.value.is_finite() {
        broke(Rule::NotFinite);
        return false;
    }
    let length = config.max_metric_name_length;
    if fact.metric.name.len() > length {
        broke(Rule::NameTooLong);
        return false;
    }
    let metric = fact.metric.name;
    fact.attributes.retain(|(name, _)| {
        let broken = if RESERVED.contains(name) {
            Rule::ReservedName
        } else if *name == metric {
            Rule::NamedLikeMetric
        } else if name.chars().count() > length {
            Rule::NameTooLong
        } else {
            return true;
        };
        broke(broken);
        false
    });
    // Those that the agent itself knows are worth more.
    if fact.attributes.len() > config.max_attributes {
        fact.attributes.sort_by_key(|(name, _)| !ATTRIBUTES.iter().any(|known| known.name == *name));
        (config.max_attributes..fact.attributes.len()).for_each(|_| broke(Rule::TooManyAttributes));
        fact.attributes.truncate(config.max_attributes);
    }
    true
}

/// The first `most` characters of a text that has more.
fn cut(text: &str, most: usize) -> Option<&str> {
    if text.len() <= most {
        return None;
    }
    text.char_indices().nth(most).map(|(end, _)| &text[..end])
}
