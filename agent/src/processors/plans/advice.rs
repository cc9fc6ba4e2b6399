//! Recommendations: what a plan shows that could be better, with what was seen.

use std::sync::Arc;

use super::{
    config::Recommendations,
    tree::{Node, Shape},
};
use crate::model::signal::{Severity, Topic};

/// Share of the rows that must be thrown away for an index to help.
const THROWN_AWAY: f64 = 0.9;
/// Columns that are named.
const MAX_COLUMNS: usize = 8;

/// A recommendation before it has an owner.
#[derive(Debug, PartialEq)]
pub(super) struct Advice {
    pub(super) topic: Topic,
    pub(super) severity: Severity,
    /// The table first, then its columns.
    pub(super) objects: Vec<Arc<str>>,
    pub(super) evidence: Vec<(&'static str, f64)>,
}

/// The worst of each topic.
pub(super) fn advise(top: &Node, config: &Recommendations) -> Vec<Advice> {
    let mut all: Vec<Advice> = Vec::new();
    let mut add = |advice: Advice| match all.iter_mut().find(|known| known.topic == advice.topic) {
        Some(known) if known.severity >= advice.severity => {}
        Some(known) => *known = advice,
        None => all.push(advice),
    };
    top.walk(&mut |node, _| {
        scan(node, config).into_iter().for_each(&mut add);
        [stale(node, config), spill(node), nested_loop(node, config)].into_iter().flatten().for_each(&mut add);
    });
    all
}

/// A whole table is read for few rows: an index is missing, or a function around the column keeps it from being used.
fn scan(node: &Node, config: &Recommendations) -> Option<Advice> {
    let filter = node.filter.as_ref().filter(|_| node.shape == Shape::SeqScan)?;
    let read = node.rows_read();
    let given = node.actual_rows.unwrap_or(node.rows) * node.loops.unwrap_or(1.0);
    // Without an execution, and without the server's estimate of what it reads, nothing is known of the rows thrown away.
    let known = node.actual_rows.is_some() || node.examined.is_some();
    if !known || read < config.sequential_scan_rows as f64 || given > read * (1.0 - THROWN_AWAY) {
        return None;
    }
    let relation = node.relation.clone()?;
    let compared = compared(filter);
    let topic = if !compared.is_empty() && compared.iter().all(|column| column.in_function) {
        Topic::FunctionOnColumn
    } else {
        Topic::MissingIndex
    };
    let mut objects = vec![relation];
    for column in compared {
        if !objects.contains(&column.name) && objects.len() <= MAX_COLUMNS {
            objects.push(column.name);
        }
    }
    let times = read / config.sequential_scan_rows as f64;
    Some(Advice {
        topic,
        severity: Severity::of_ratio(times),
        objects,
        evidence: vec![("rows_read", read), ("rows_kept", given)],
    })
}

/// The planner expected something else than what was there.
fn stale(node: &Node, config: &Recommendations) -> Option<Advice> {
    let actual = node.actual_rows?;
    let error = node.estimate_error()?;
    // A few rows more or less make no other plan.
    if error < config.estimate_error || actual.max(node.rows) < 1000.0 {
        return None;
    }
    Some(Advice {
        topic: Topic::StaleStatistics,
        severity: Severity::of_ratio(error / config.estimate_error),
        objects: vec![node.relation.clone().unwrap_or_else(|| node.kind.clone())],
        evidence: vec![("rows_estimated", node.rows), ("rows_actual", actual)],
    })
}

/// Memory was too small for a sort or a hash.
fn spill(node: &Node) -> Option<Advice> {
    let spilled = node.spilled?;
    let mut objects = vec![node.kind.clone()];
    objects.extend(node.keys.iter().take(MAX_COLUMNS).cloned());
    let (name, severity) = match node.shape {
        // Kilobytes: the default of work_mem is 4 MB.
        Shape::Sort => ("disk_kilobytes", Severity::of_ratio(spilled / 4096.0)),
        _ => ("extra_batches", Severity::of_ratio(spilled)),
    };
    Some(Advice { topic: Topic::Spill, severity, objects, evidence: vec![(name, spilled)] })
}

/// The inner side of a nested loop is executed very often.
fn nested_loop(node: &Node, config: &Recommendations) -> Option<Advice> {
    let (Shape::NestedLoop, [outer, inner, ..]) = (node.shape, node.children.as_slice()) else { return None };
    let loops = inner.loops.unwrap_or(outer.rows);
    let limit = config.nested_loop_rows as f64;
    if loops < limit {
        return None;
    }
    let relation = |node: &Node| {
        let mut found = None;
        node.walk(&mut |node, _| {
            if found.is_none() {
                found = node.relation.clone();
            }
        });
        found
    };
    Some(Advice {
        topic: Topic::NestedLoop,
        severity: Severity::of_ratio(loops / limit),
        objects: [relation(outer), relation(inner)].into_iter().flatten().collect(),
        evidence: vec![("loops", loops)],
    })
}

#[derive(Debug, PartialEq)]
struct Column {
    name: Arc<str>,
    in_function: bool,
}

/// Columns that a condition without literals compares with something: the last name before a comparison, and whether it stands in a function's parentheses.
fn compared(condition: &str) -> Vec<Column> {
    let bytes = condition.as_bytes();
    let mut columns = Vec::new();
    // Names since the last comparison or connective, and for each open parenthesis whether a function's name stood before it.
    let (mut name, mut functions): (Option<(Arc<str>, bool)>, Vec<bool>) = (None, Vec::new());
    let mut at = 0;
    let mut before_is_name = false;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'"' || byte == b'`' || byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 {
            let (word, quoted, end) = word(condition, at);
            at = end;
            before_is_name = true;
            let upper = if quoted { String::new() } else { word.to_ascii_uppercase() };
            match upper.as_str() {
                "LIKE" | "ILIKE" | "IN" | "BETWEEN" | "IS" => columns.extend(take(&mut name)),
                "AND" | "OR" | "NOT" | "ANY" | "ALL" => {
                    name = None;
                    before_is_name = false;
                }
                // The type of a cast is no column.
                _ if condition[..end - word.len() - usize::from(quoted) * 2].ends_with("::") => {}
                _ => name = Some((word.into(), functions.contains(&true))),
            }
            continue;
        }
        match byte {
            b'(' => {
                functions.push(before_is_name);
                if before_is_name {
                    name = None;
                }
            }
            b')' => {
                functions.pop();
            }
            b'=' | b'<' | b'>' | b'~' | b'@' | b'!' => columns.extend(take(&mut name)),
            _ => {}
        }
        before_is_name = false;
        at += 1;
    }
    columns
}

fn take(name: &mut Option<(Arc<str>, bool)>) -> Option<Column> {
    name.take().map(|(name, in_function)| Column { name, in_function })
}

/// The name at `at`, without its quotes; whether it had some; and where it ends. Of `a.b.c` it is `c`, since each dot begins another name.
fn word(text: &str, at: usize) -> (&str, bool, usize) {
    let bytes = text.as_bytes();
    let quote = bytes[at];
    if quote == b'"' || quote == b'`' {
        let length = bytes[at + 1..].iter().position(|byte| *byte == quote).unwrap_or(bytes.len() - at - 1);
        let end = (at + length + 2).min(bytes.len());
        return (&text[at + 1..at + 1 + length], true, end);
    }
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80;
    let end = at + bytes[at..].iter().take_while(|byte| is_part(byte)).count();
    (&text[at..end], false, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_conditions() {
        let names = |condition: &str| {
            let columns = compared(condition).into_iter();
            columns
                .map(|column| format!("{}{}", column.name, if column.in_function { "()" } else { "" }))
                .collect::<Vec<_>>()
        };
        assert_eq!(names("(status = ?::text)"), ["status"]);
        assert_eq!(names("((customer_id = ?) AND (created_at >= ?::date))"), ["customer_id", "created_at"]);
        assert_eq!(names("((o.status)::text = ANY (?::text[]))"), ["status"]);
        assert_eq!(names("(lower((email)::text) = ?::text)"), ["email()"]);
        assert_eq!(names("(`shop`.`orders`.`total` > ?)"), ["total"]);
        assert_eq!(names("(lower(`shop`.`users`.`email`) = ?)"), ["email()"]);
        assert_eq!(names("((name)::text ~~ ?::text)"), ["name"]);
        assert_eq!(names("(\"Name\" LIKE ?)"), ["Name"]);
        assert_eq!(names("active"), Vec::<String>::new());
    }
}
