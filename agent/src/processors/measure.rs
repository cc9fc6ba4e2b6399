//! Values of the processors' own metrics.

use std::borrow::Cow;

use crate::model::{Measured, names::Metric};

/// An attribute of a value.
pub type Label = (&'static str, Cow<'static, str>);

/// Values by metric, as they are now. Counters are cumulative since the start.
#[derive(Debug, Default)]
pub struct Measures(Vec<(&'static Metric, Vec<Label>, f64)>);

impl Measures {
    /// Tells a value without attributes.
    pub fn tell(&mut self, metric: &'static Metric, value: f64) {
        self.0.push((metric, Vec::new(), value));
    }

    /// Tells a value with one attribute.
    pub fn tell_by(
        &mut self,
        metric: &'static Metric,
        name: &'static str,
        label: impl Into<Cow<'static, str>>,
        value: f64,
    ) {
        self.0.push((metric, vec![(name, label.into())], value));
    }

    /// Tells a value with several attributes.
    pub fn tell_with(&mut self, metric: &'static Metric, labels: Vec<Label>, value: f64) {
        self.0.push((metric, labels, value));
    }

    /// All values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Metric, &[Label], f64)> {
        self.0.iter().map(|(metric, labels, value)| (*metric, labels.as_slice(), *value))
    }

    /// As snapshots have them.
    pub fn into_measured(self) -> Vec<Measured> {
        let measured = |(metric, attributes, value)| Measured { metric, attributes, value };
        self.0.into_iter().map(measured).collect()
    }

    /// The value of a metric with exactly these attributes.
    pub fn value(&self, metric: &'static Metric, labels: &[(&str, &str)]) -> Option<f64> {
        let same = |own: &[Label]| {
            own.len() == labels.len()
                && labels.iter().all(|label| own.iter().any(|own| (own.0, own.1.as_ref()) == *label))
        };
        self.iter().find(|(told, own, _)| told.name == metric.name && same(own)).map(|(_, _, value)| value)
    }
}
