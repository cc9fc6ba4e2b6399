//! Plans of MySQL and MariaDB: `EXPLAIN FORMAT=JSON` of both (a block of named operations), MySQL's second format (a tree of iterators) and MariaDB's
//! `ANALYZE FORMAT=JSON`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    mask::Masker,
    tree::{MAX_NODES, Node, Shape},
};

/// Fields that hold names, numbers and words of the server, kept as they are.
pub(super) const PLAIN: &[&str] = &[
    "select_id",
    "table_name",
    "access_type",
    "possible_keys",
    "key",
    "key_length",
    "used_key_parts",
    "index_name",
    "schema_name",
    "alias",
    "join_type",
    "join_algorithm",
    "limit",
    "query_type",
    "query_cost",
    "sort_cost",
    "read_cost",
    "eval_cost",
    "prefix_cost",
    "cost",
    "data_read_per_join",
    "rows",
    "rows_examined_per_scan",
    "rows_produced_per_join",
    "filtered",
    "estimated_rows",
    "estimated_total_cost",
    "estimated_first_row_cost",
    "actual_rows",
    "actual_loops",
    "actual_first_row_ms",
    "actual_last_row_ms",
    "r_loops",
    "r_rows",
    "r_filtered",
    "r_total_time_ms",
    "r_table_time_ms",
    "r_other_time_ms",
    "r_buffer_size",
    "r_limit",
    "r_used_priority_queue",
    "r_output_rows",
    "loops",
    "using_index",
    "using_filesort",
    "using_temporary_table",
    "using_join_buffer",
    "using_index_for_group_by",
    "not_exists",
    "first_match",
    "dependent",
    "cacheable",
    "covering",
    "json_schema_version",
    "index_access_type",
    "buffer_type",
];

/// Fields that hold expressions: their literals go.
pub(super) const EXPRESSIONS: &[&str] = &[
    "attached_condition",
    "index_condition",
    "condition",
    "having_condition",
    "sort_key",
    "sort_fields",
    "group_by",
    "lookup_condition",
    "hash_condition",
    "pushed_condition",
];

/// Fields that hold further operations, and what the node is called that they make; `None` for one that makes none of its own.
const OPERATIONS: &[(&str, Option<&str>)] = &[
    ("query_block", Some("query block")),
    ("query_specifications", None),
    ("nested_loop", Some("nested loop")),
    ("ordering_operation", Some("sort")),
    ("filesort", Some("sort")),
    ("read_sorted_file", None),
    ("grouping_operation", Some("group")),
    ("temporary_table", Some("temporary table")),
    ("duplicates_removal", Some("distinct")),
    ("duplicate_removal", Some("distinct")),
    ("union_result", Some("union")),
    ("materialized_from_subquery", Some("materialize")),
    ("materialized", Some("materialize")),
    ("attached_subqueries", None),
    ("optimized_away_subqueries", None),
    ("select_list_subqueries", None),
    ("subqueries", None),
    ("block-nl-join", Some("block nested loop")),
    ("buffer_result", Some("buffer")),
    ("windowing", Some("window")),
    ("query_plan", None),
    ("inputs", None),
];

/// Fields that hold further operations or tables.
pub(super) fn is_nested(name: &str) -> bool {
    matches!(name, "table" | "cost_info") || OPERATIONS.iter().any(|(known, _)| *known == name)
}

/// The topmost node, if `plan` is a plan of MySQL or MariaDB that is not too large.
pub(super) fn parse(plan: &Value, masker: &mut Masker) -> Option<Node> {
    let fields = plan.as_object()?;
    let mut nodes = 0;
    // The second format names the topmost iterator `query_plan`, or is it itself.
    if let Some(top) = fields.get("query_plan").or(fields.contains_key("operation").then_some(plan)) {
        return iterator(top.as_object()?, masker, &mut nodes);
    }
    let mut children = Vec::new();
    operations(fields, masker, &mut nodes, &mut children)?;
    let top = children.into_iter().next()?;
    (&*top.kind == "query block").then_some(top)
}

fn count(nodes: &mut usize) -> Option<()> {
    *nodes += 1;
    (*nodes <= MAX_NODES).then_some(())
}

/// Numbers may be written as text.
fn number(fields: &Map<String, Value>, name: &str) -> Option<f64> {
    let value = fields.get(name)?;
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).filter(|number| number.is_finite())
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<Arc<str>> {
    fields.get(name).and_then(Value::as_str).map(Arc::from)
}

/// The nodes that the fields of an object make.
fn operations(fields: &Map<String, Value>, masker: &mut Masker, nodes: &mut usize, out: &mut Vec<Node>) -> Option<()> {
    for (name, value) in fields {
        if name == "table" {
            if let Value::Object(fields) = value {
                out.push(table(fields, masker, nodes)?);
            }
            continue;
        }
        let Some((_, kind)) = OPERATIONS.iter().find(|(known, _)| known == name) else { continue };
        let mut children = Vec::new();
        match value {
            Value::Object(fields) => operations(fields, masker, nodes, &mut children)?,
            Value::Array(items) => {
                for item in items.iter().filter_map(Value::as_object) {
                    operations(item, masker, nodes, &mut children)?;
                }
            }
            _ => continue,
        }
        let Some(kind) = kind else {
            out.append(&mut children);
            continue;
        };
        count(nodes)?;
        let empty = Map::new();
        let own = value.as_object().unwrap_or(&empty);
        // `ordering_operation` is there also where an index gives the order.
        let sorts = *kind == "sort" && own.get("using_filesort") != Some(&Value::Bool(false));
        let shape = match *kind {
            "sort" if sorts => Shape::Sort,
            // One table is no join.
            "nested loop" | "block nested loop" if children.len() > 1 => Shape::NestedLoop,
            _ => Shape::Other,
        };
        let cost = own.get("cost_info").and_then(Value::as_object).unwrap_or(own);
        let cost = ["query_cost", "cost"].iter().find_map(|name| number(cost, name)).unwrap_or(0.0);
        let keys = own.get("sort_key").into_iter().flat_map(|key| masker.expressions(key)).collect();
        let rows = children.iter().map(|child: &Node| child.rows).product();
        out.push(Node { kind: (*kind).into(), shape, keys, cost, rows, children, ..Node::default() });
    }
    Some(())
}

fn table(fields: &Map<String, Value>, masker: &mut Masker, nodes: &mut usize) -> Option<Node> {
    count(nodes)?;
    let access = text(fields, "access_type").unwrap_or_else(|| "none".into());
    let examined = ["rows_examined_per_scan", "rows"].iter().find_map(|name| number(fields, name));
    let share = number(fields, "filtered").map_or(1.0, |percent| percent / 100.0);
    let actual = number(fields, "r_rows");
    let actual_share = number(fields, "r_filtered").map_or(1.0, |percent| percent / 100.0);
    let mut children = Vec::new();
    operations(fields, masker, nodes, &mut children)?;
    let condition = fields.get("attached_condition").or(fields.get("index_condition"));
    let cost = fields.get("cost_info").and_then(Value::as_object).unwrap_or(fields);
    Some(Node {
        kind: format!("table {access}").into(),
        shape: if &*access == "ALL" { Shape::SeqScan } else { Shape::Other },
        relation: text(fields, "table_name"),
        index: text(fields, "key"),
        filter: condition.and_then(|condition| masker.expressions(condition).into_iter().next()),
        cost: ["prefix_cost", "read_cost", "cost"].iter().find_map(|name| number(cost, name)).unwrap_or(0.0),
        rows: examined.unwrap_or(0.0) * share,
        actual_rows: actual.map(|rows| rows * actual_share),
        loops: number(fields, "r_loops"),
        removed: actual.map(|rows| rows * (1.0 - actual_share)),
        examined,
        children,
        ..Node::default()
    })
}

/// A node of MySQL's second format.
fn iterator(fields: &Map<String, Value>, masker: &mut Masker, nodes: &mut usize) -> Option<Node> {
    count(nodes)?;
    let mut children = Vec::new();
    for input in fields.get("inputs").and_then(Value::as_array).into_iter().flatten() {
        children.push(iterator(input.as_object()?, masker, nodes)?);
    }
    let access = text(fields, "access_type");
    let algorithm = text(fields, "join_algorithm");
    let index_access = text(fields, "index_access_type");
    let kind: Arc<str> = match (&access, &algorithm, &index_access) {
        (Some(access), Some(algorithm), _) => format!("{access} {algorithm}").into(),
        (Some(access), _, Some(index)) => format!("{access} {index}").into(),
        (Some(access), ..) => access.clone(),
        (None, ..) => "iterator".into(),
    };
    let shape = match (access.as_deref(), algorithm.as_deref()) {
        (Some("table"), _) => Shape::SeqScan,
        (Some("join"), Some("nested_loop")) => Shape::NestedLoop,
        (Some("join"), Some("hash")) => Shape::HashJoin,
        (Some("sort"), _) => Shape::Sort,
        _ => Shape::Other,
    };
    let keys = ["lookup_condition", "hash_condition", "sort_fields", "group_by"];
    let keys = keys.iter().filter_map(|name| fields.get(*name)).flat_map(|value| masker.expressions(value)).collect();
    Some(Node {
        kind,
        shape,
        variant: text(fields, "join_type").into_iter().collect(),
        relation: text(fields, "table_name"),
        index: text(fields, "index_name"),
        keys,
        filter: fields.get("condition").and_then(|condition| masker.expressions(condition).into_iter().next()),
        cost: number(fields, "estimated_total_cost").unwrap_or(0.0),
        startup_cost: number(fields, "estimated_first_row_cost").unwrap_or(0.0),
        rows: number(fields, "estimated_rows").unwrap_or(0.0),
        actual_rows: number(fields, "actual_rows"),
        loops: number(fields, "actual_loops"),
        children,
        ..Node::default()
    })
}
