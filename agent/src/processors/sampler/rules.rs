//! Rules: which share of which executions is kept.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::statements::Known;
use crate::model::{Problem, Record, signal::Execution};

/// A share of the executions for which all conditions hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, shown in `sampling.rule`.
    #[schemars(example = &"reports")]
    pub name: Arc<str>,
    /// Rules with a higher one are tried first.
    #[serde(default)]
    pub priority: i32,
    /// Share to keep, from 0 to 1.
    #[schemars(example = 0.5)]
    pub sample_rate: f64,
    /// Executions to keep in a minute at most; 0 for no such limit.
    #[serde(default)]
    pub max_per_minute: u32,
    /// All of them must hold; with none, the rule fits always.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What is compared.
    #[schemars(example = &"avg_duration_ms")]
    pub attribute: Attribute,
    /// How.
    #[schemars(example = &"gt")]
    pub operator: Operator,
    /// With what; not needed for `exists`.
    #[serde(default)]
    pub value: Option<Value>,
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Attribute {
    /// Mean duration of the statement in milliseconds.
    #[serde(rename = "avg_duration_ms")]
    AvgDuration,
    /// Duration of the execution in milliseconds.
    #[serde(rename = "duration_ms")]
    Duration,
    /// Executions of the statement in the last interval.
    #[serde(rename = "execution_count")]
    ExecutionCount,
    /// Rows that the execution sent or changed.
    #[serde(rename = "rows")]
    Rows,
    /// Whether the statement's plan reads a whole table.
    #[serde(rename = "db.query.plan.has_seq_scan")]
    HasSeqScan,
    /// Rows of the largest table that the plan reads as a whole.
    #[serde(rename = "db.query.plan.rows")]
    PlanRows,
    /// First keyword of the statement.
    #[serde(rename = "db.operation.name")]
    Operation,
    /// Database or schema.
    #[serde(rename = "db.namespace")]
    Namespace,
    /// Database user.
    #[serde(rename = "user.name")]
    User,
    /// What the client calls itself.
    #[serde(rename = "application")]
    Application,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Greater; numbers only.
    Gt,
    /// Greater or equal; numbers only.
    Gte,
    /// Less; numbers only.
    Lt,
    /// Less or equal; numbers only.
    Lte,
    /// Has it as a part; text only.
    Contains,
    /// There is any value.
    Exists,
}

/// A value to compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// What stands at an attribute.
enum Found<'a> {
    Bool(bool),
    Number(f64),
    Text(&'a str),
    Nothing,
}

/// The rules of the system that this one succeeds.
pub(super) fn defaults() -> Vec<Rule> {
    let over = |attribute, limit| Condition { attribute, operator: Operator::Gt, value: Some(Value::Number(limit)) };
    let seq_scan =
        Condition { attribute: Attribute::HasSeqScan, operator: Operator::Eq, value: Some(Value::Bool(true)) };
    let rule = |name: &str, priority, sample_rate, max_per_minute, conditions| Rule {
        name: name.into(),
        priority,
        sample_rate,
        max_per_minute,
        conditions,
    };
    vec![
        rule("critical_queries", 100, 1.0, 0, vec![over(Attribute::AvgDuration, 1000.0)]),
        rule("missing_indexes", 90, 1.0, 0, vec![seq_scan, over(Attribute::PlanRows, 10_000.0)]),
        rule("high_frequency", 50, 0.01, 10, vec![over(Attribute::ExecutionCount, 1000.0)]),
    ]
}

/// Values that cannot work; keys from the sampler's section.
pub(super) fn check(rules: &[Rule]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let key = |name: &str| format!("rules[{at}].{name}");
        problems.extend(Problem::out_of_range(&key("sample_rate"), &rule.sample_rate, 0.0..=1.0));
        if rule.name.is_empty() {
            problems.push(Problem::new(key("name"), "must not be empty"));
        } else if rules[..at].iter().any(|other| other.name == rule.name) {
            problems.push(Problem::new(key("name"), "another rule has this name"));
        }
        for (number, condition) in rule.conditions.iter().enumerate() {
            let reason = condition.check();
            problems.extend(reason.map(|reason| Problem::new(key(&format!("conditions[{number}].value")), reason)));
        }
    }
    problems
}

impl Rule {
    /// Whether all conditions hold.
    pub(super) fn fits(&self, record: &Record, execution: &Execution, known: &Known) -> bool {
        self.conditions.iter().all(|condition| condition.holds(record, execution, known))
    }
}

impl Condition {
    /// What is wrong with it.
    fn check(&self) -> Option<String> {
        use {Attribute::*, Operator::*};
        let kind = match self.attribute {
            AvgDuration | Duration | ExecutionCount | Rows | PlanRows => "a number",
            HasSeqScan => "`true` or `false`",
            Operation | Namespace | User | Application => "a text",
        };
        let given = match (&self.value, self.operator) {
            (_, Exists) => return None,
            (None, _) => return Some(format!("is missing: {kind}")),
            (Some(Value::Bool(_)), _) => "`true` or `false`",
            (Some(Value::Number(_)), _) => "a number",
            (Some(Value::Text(_)), _) => "a text",
        };
        let operators = match kind {
            "a number" => "eq, ne, gt, gte, lt, lte or exists",
            "a text" => "eq, ne, contains or exists",
            _ => "eq, ne or exists",
        };
        let fits = match self.operator {
            Eq | Ne | Exists => true,
            Gt | Gte | Lt | Lte => kind == "a number",
            Contains => kind == "a text",
        };
        match (given == kind, fits) {
            (false, _) => Some(format!("must be {kind}")),
            (true, false) => Some(format!("cannot be compared so: {kind} has {operators}")),
            (true, true) => None,
        }
    }

    fn holds(&self, record: &Record, execution: &Execution, known: &Known) -> bool {
        fn text(text: Option<&Arc<str>>) -> Found<'_> {
            text.map_or(Found::Nothing, |text| Found::Text(text))
        }
        let found = match self.attribute {
            Attribute::AvgDuration => {
                known.mean().map_or(Found::Nothing, |mean| Found::Number(mean.as_secs_f64() * 1e3))
            }
            Attribute::Duration => Found::Number(execution.duration.as_secs_f64() * 1e3),
            Attribute::ExecutionCount => Found::Number(known.executions() as f64),
            Attribute::Rows => Found::Number(execution.rows as f64),
            Attribute::HasSeqScan => known.seq_scan().map_or(Found::Nothing, |(has, _)| Found::Bool(has)),
            Attribute::PlanRows => known.seq_scan().map_or(Found::Nothing, |(_, rows)| Found::Number(rows)),
            Attribute::Operation => text(execution.digest.operation.as_ref()),
            Attribute::Namespace => text(record.origin.database.as_ref()),
            Attribute::User => text(record.origin.user.as_ref()),
            Attribute::Application => text(execution.application.as_ref()),
        };
        let Some(value) = self.value.as_ref().filter(|_| self.operator != Operator::Exists) else {
            return !matches!(found, Found::Nothing);
        };
        match (found, value) {
            (Found::Number(found), Value::Number(value)) => match self.operator {
                Operator::Eq => found == *value,
                Operator::Ne => found != *value,
                Operator::Gt => found > *value,
                Operator::Gte => found >= *value,
                Operator::Lt => found < *value,
                Operator::Lte => found <= *value,
                Operator::Contains | Operator::Exists => false,
            },
            (Found::Text(found), Value::Text(value)) => match self.operator {
                Operator::Eq => found == value,
                Operator::Ne => found != value,
                Operator::Contains => found.contains(value.as_str()),
                _ => false,
            },
            (Found::Bool(found), Value::Bool(value)) => match self.operator {
                Operator::Eq => found == *value,
                Operator::Ne => found != *value,
                _ => false,
            },
            // What is not there is not equal to anything.
            (_, _) => self.operator == Operator::Ne,
        }
    }
}
