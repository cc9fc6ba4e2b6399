//! Points of metrics, being collected.

use std::sync::Arc;

use crate::model::{Point, Value, names::Metric};

/// Points in the order in which they were added. Questions bound their number by their own limits.
#[derive(Clone, Debug, Default)]
pub(super) struct Points(Vec<Point>);

/// An attribute and its value.
pub(super) type Attribute<'a> = (&'static str, &'a Arc<str>);

impl Points {
    /// Adds a whole number, if there is one.
    pub(super) fn int(&mut self, metric: &'static Metric, attributes: &[Attribute<'_>], value: Option<i64>) {
        self.add(metric, attributes, value.map(Value::Int));
    }

    /// Adds a number with a fraction, if there is one.
    pub(super) fn double(&mut self, metric: &'static Metric, attributes: &[Attribute<'_>], value: Option<f64>) {
        self.add(metric, attributes, value.map(Value::Double));
    }

    fn add(&mut self, metric: &'static Metric, attributes: &[Attribute<'_>], value: Option<Value>) {
        let attributes = || attributes.iter().map(|(name, value)| (*name, Arc::clone(value))).collect();
        self.0.extend(value.map(|value| Point { metric, attributes: attributes(), value }));
    }

    /// All of them.
    pub(super) fn into_vec(self) -> Vec<Point> {
        self.0
    }

    /// Adds all of `other`.
    pub(super) fn extend(&mut self, other: Points) {
        self.0.extend(other.0);
    }
}
