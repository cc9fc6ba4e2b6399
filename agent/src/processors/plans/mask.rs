//! Plans without literals: a whitelist of fields, and expressions through the normaliser. What is not known goes.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{mysql, postgres};
use crate::{model::Engine, sql::Normaliser};

/// Longest expression that is kept; a longer one is cut at its last whole token.
const MAX_EXPRESSION: usize = 4096;

/// Takes literals out of expressions of one engine.
pub(super) struct Masker<'a> {
    pub(super) engine: Engine,
    pub(super) normaliser: &'a mut Normaliser,
}

impl Masker<'_> {
    /// An expression without literals.
    fn expression(&mut self, text: &str) -> Arc<str> {
        let end = (0..=text.len().min(MAX_EXPRESSION)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.normaliser.digest(self.engine, &text.as_bytes()[..end], end < text.len()).text
    }

    /// The expression, or the expressions of a list.
    pub(super) fn expressions(&mut self, value: &Value) -> Vec<Arc<str>> {
        match value {
            Value::String(text) => vec![self.expression(text)],
            Value::Array(items) => items.iter().filter_map(Value::as_str).map(|text| self.expression(text)).collect(),
            _ => Vec::new(),
        }
    }

    /// The plan without literals; `None` if nothing of it is known.
    pub(super) fn plan(&mut self, plan: &Value) -> Option<Value> {
        match plan {
            Value::Array(items) => {
                let items: Vec<Value> = items.iter().filter_map(|item| self.plan(item)).collect();
                (!items.is_empty()).then_some(Value::Array(items))
            }
            Value::Object(fields) => {
                let fields: Map<String, Value> =
                    fields.iter().filter_map(|(name, value)| Some((name.clone(), self.field(name, value)?))).collect();
                (!fields.is_empty()).then_some(Value::Object(fields))
            }
            _ => None,
        }
    }

    fn field(&mut self, name: &str, value: &Value) -> Option<Value> {
        let (plain, expressions, nested) = match self.engine {
            Engine::Postgresql => (postgres::PLAIN, postgres::EXPRESSIONS, postgres::NESTED.contains(&name)),
            Engine::Mysql | Engine::Mariadb => (mysql::PLAIN, mysql::EXPRESSIONS, mysql::is_nested(name)),
        };
        if nested {
            return self.plan(value);
        }
        if plain.contains(&name) {
            return plain_value(value);
        }
        if expressions.contains(&name) {
            let masked = self.expressions(value).iter().map(|text| Value::from(&**text)).collect::<Vec<_>>();
            return match value {
                Value::String(_) => masked.into_iter().next(),
                _ => Some(Value::Array(masked)),
            };
        }
        None
    }
}

/// Single values, and lists of them.
fn plain_value(value: &Value) -> Option<Value> {
    match value {
        Value::Object(_) => None,
        Value::Array(items) => {
            Some(Value::Array(items.iter().filter(|item| !item.is_object() && !item.is_array()).cloned().collect()))
        }
        other => Some(other.clone()),
    }
}
