//! Plans of PostgreSQL: `EXPLAIN (FORMAT JSON)`, auto_explain and pg_querylens.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    mask::Masker,
    tree::{MAX_NODES, Node, Shape},
};

/// Fields that hold names, numbers and words of the server (src/backend/commands/explain.c), kept as they are.
pub(super) const PLAIN: &[&str] = &[
    "Node Type",
    "Strategy",
    "Partial Mode",
    "Parent Relationship",
    "Parallel Aware",
    "Async Capable",
    "Disabled",
    "Join Type",
    "Inner Unique",
    "Scan Direction",
    "Index Name",
    "Relation Name",
    "Schema",
    "Alias",
    "Function Name",
    "Table Function Name",
    "CTE Name",
    "Tuplestore Name",
    "Subplan Name",
    "Operation",
    "Command",
    "Custom Plan Provider",
    "Startup Cost",
    "Total Cost",
    "Plan Rows",
    "Plan Width",
    "Actual Startup Time",
    "Actual Total Time",
    "Actual Rows",
    "Actual Loops",
    "Rows Removed by Filter",
    "Rows Removed by Join Filter",
    "Rows Removed by Index Recheck",
    "Heap Fetches",
    "Index Searches",
    "Sort Method",
    "Sort Space Used",
    "Sort Space Type",
    "Hash Buckets",
    "Original Hash Buckets",
    "Hash Batches",
    "Original Hash Batches",
    "HashAgg Batches",
    "Planned Partitions",
    "Peak Memory Usage",
    "Disk Usage",
    "Exact Heap Blocks",
    "Lossy Heap Blocks",
    "Workers Planned",
    "Workers Launched",
    "Single Copy",
    "Subplans Removed",
    "Cache Mode",
    "Cache Hits",
    "Cache Misses",
    "Cache Evictions",
    "Cache Overflows",
    "Shared Hit Blocks",
    "Shared Read Blocks",
    "Shared Dirtied Blocks",
    "Shared Written Blocks",
    "Local Hit Blocks",
    "Local Read Blocks",
    "Temp Read Blocks",
    "Temp Written Blocks",
    "I/O Read Time",
    "WAL Bytes",
    "Planning Time",
    "Execution Time",
];

/// Fields that hold expressions: their literals go. What is in neither list goes as a whole.
pub(super) const EXPRESSIONS: &[&str] = &[
    "Filter",
    "Index Cond",
    "Recheck Cond",
    "Hash Cond",
    "Merge Cond",
    "Join Filter",
    "Order By",
    "TID Cond",
    "One-Time Filter",
    "Sort Key",
    "Presorted Key",
    "Group Key",
    "Cache Key",
    "Conflict Filter",
    "Run Condition",
];

/// Fields that hold further nodes.
pub(super) const NESTED: &[&str] = &["Plan", "Plans"];

/// Expressions that tell one plan from another.
const KEYS: &[&str] = &["Index Cond", "Hash Cond", "Merge Cond", "Sort Key", "Presorted Key", "Group Key", "TID Cond"];
const VARIANT: &[&str] =
    &["Strategy", "Partial Mode", "Parent Relationship", "Join Type", "Scan Direction", "Operation", "Command"];

/// The topmost node, if `plan` is a plan of PostgreSQL that is not too large.
pub(super) fn parse(plan: &Value, masker: &mut Masker) -> Option<Node> {
    let plan = match plan {
        Value::Array(statements) => statements.first()?,
        other => other,
    };
    let mut nodes = 0;
    node(plan.get("Plan")?.as_object()?, masker, &mut nodes)
}

fn node(fields: &Map<String, Value>, masker: &mut Masker, nodes: &mut usize) -> Option<Node> {
    *nodes += 1;
    if *nodes > MAX_NODES {
        return None;
    }
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(Arc::<str>::from);
    let number = |name: &str| fields.get(name).and_then(Value::as_f64);
    let count = |name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or(0);
    let kind = text("Node Type")?;
    let shape = match &*kind {
        "Seq Scan" => Shape::SeqScan,
        "Nested Loop" => Shape::NestedLoop,
        "Hash Join" => Shape::HashJoin,
        "Sort" | "Incremental Sort" => Shape::Sort,
        _ => Shape::Other,
    };
    let relation = text("Relation Name").map(|name| match text("Schema") {
        Some(schema) => format!("{schema}.{name}").into(),
        None => name,
    });
    let mut variant: Vec<Arc<str>> = VARIANT.iter().filter_map(|name| text(name)).collect();
    if fields.get("Parallel Aware") == Some(&Value::Bool(true)) {
        variant.push("parallel".into());
    }
    let keys = KEYS.iter().filter_map(|name| fields.get(*name)).flat_map(|value| masker.expressions(value)).collect();
    let on_disk = text("Sort Space Type").is_some_and(|place| &*place == "Disk");
    let batches = number("Hash Batches").or(number("HashAgg Batches")).filter(|batches| *batches > 1.0);
    let spilled = if on_disk { number("Sort Space Used") } else { batches.map(|batches| batches - 1.0) };
    let removed =
        ["Rows Removed by Filter", "Rows Removed by Join Filter"].iter().filter_map(|name| number(name)).sum();
    let children = match fields.get("Plans") {
        Some(Value::Array(plans)) => {
            let children: Option<Vec<Node>> = plans.iter().map(|plan| node(plan.as_object()?, masker, nodes)).collect();
            children?
        }
        _ => Vec::new(),
    };
    Some(Node {
        shape,
        variant,
        relation,
        index: text("Index Name"),
        keys,
        filter: fields.get("Filter").and_then(|filter| masker.expressions(filter).into_iter().next()),
        cost: number("Total Cost").unwrap_or(0.0),
        startup_cost: number("Startup Cost").unwrap_or(0.0),
        rows: number("Plan Rows").unwrap_or(0.0),
        width: count("Plan Width"),
        actual_rows: number("Actual Rows"),
        loops: number("Actual Loops"),
        removed: number("Actual Rows").map(|_| removed),
        examined: None,
        shared_hit: count("Shared Hit Blocks"),
        shared_read: count("Shared Read Blocks"),
        temp_read: count("Temp Read Blocks"),
        temp_written: count("Temp Written Blocks"),
        spilled,
        children,
        kind,
    })
}
