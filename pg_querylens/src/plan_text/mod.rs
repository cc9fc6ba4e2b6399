//! The text of a plan, as JSON in the manner of EXPLAIN (FORMAT JSON).
//!
//! It is written from the plan itself, field by field, so nothing can be in it that is not named here. Expressions are written by [`expression`], which
//! knows no way to write a literal.

mod expression;

use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, NodeTag};
use serde_json::{Map, Value, json};

use crate::plan_id::{items, kind, node_name, nth};
use expression::Printer;

/// Deepest node that is written.
const DEPTH: u32 = 50;

/// The text of a plan.
///
/// # Safety
///
/// `statement` is a valid plan, and catalogs can be read.
pub(crate) unsafe fn render(statement: *const pg_sys::PlannedStmt) -> String {
    // SAFETY: promised by the caller.
    unsafe {
        let writer = Writer { statement };
        let mut root = Map::new();
        root.insert("Plan".to_owned(), writer.node((*statement).planTree, DEPTH));
        let subplans = items::<pg_sys::Plan>((*statement).subplans).filter(|plan| !plan.is_null());
        let subplans: Vec<Value> = subplans.map(|plan| writer.node(plan, DEPTH)).collect();
        if !subplans.is_empty() {
            root.insert("Subplans".to_owned(), Value::Array(subplans));
        }
        Value::Array(vec![Value::Object(root)]).to_string()
    }
}

/// A name that the server has allocated in the current memory context, where it is freed with it.
unsafe fn name(name: *const c_char) -> Option<String> {
    // SAFETY: null, or a terminated string.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

struct Writer {
    statement: *const pg_sys::PlannedStmt,
}

impl Writer {
    unsafe fn node(&self, plan: *const pg_sys::Plan, depth: u32) -> Value {
        // SAFETY: promised by the callers: null, or a node of the plan.
        let Some(node) = (unsafe { plan.as_ref() }) else { return Value::Null };
        let mut fields = Map::new();
        fields.insert("Node Type".to_owned(), json!(node_name(kind(node.type_))));
        fields.insert("Parallel Aware".to_owned(), json!(node.parallel_aware));
        fields.insert("Startup Cost".to_owned(), json!(cents(node.startup_cost)));
        fields.insert("Total Cost".to_owned(), json!(cents(node.total_cost)));
        fields.insert("Plan Rows".to_owned(), json!(node.plan_rows));
        fields.insert("Plan Width".to_owned(), json!(node.plan_width));
        // SAFETY: as above.
        unsafe {
            let printer = Printer::new(self.statement, plan);
            self.particulars(plan, &printer, &mut fields);
            insert(&mut fields, "Filter", printer.conjunction(node.qual));
            if depth > 0 {
                let inputs: Vec<Value> =
                    self.inputs(plan).into_iter().map(|input| self.node(input, depth - 1)).collect();
                if !inputs.is_empty() {
                    fields.insert("Plans".to_owned(), Value::Array(inputs));
                }
            }
        }
        Value::Object(fields)
    }

    unsafe fn inputs(&self, plan: *const pg_sys::Plan) -> Vec<*const pg_sys::Plan> {
        // SAFETY: promised by the callers; each arm takes the node for what its tag says it is.
        unsafe {
            let mut inputs: Vec<*const pg_sys::Plan> = vec![(*plan).lefttree, (*plan).righttree];
            inputs.retain(|input| !input.is_null());
            let list = match (*plan).type_ {
                NodeTag::T_Append => (*plan.cast::<pg_sys::Append>()).appendplans,
                NodeTag::T_MergeAppend => (*plan.cast::<pg_sys::MergeAppend>()).mergeplans,
                NodeTag::T_BitmapAnd => (*plan.cast::<pg_sys::BitmapAnd>()).bitmapplans,
                NodeTag::T_BitmapOr => (*plan.cast::<pg_sys::BitmapOr>()).bitmapplans,
                NodeTag::T_CustomScan => (*plan.cast::<pg_sys::CustomScan>()).custom_plans,
                #[cfg(feature = "pg13")]
                NodeTag::T_ModifyTable => (*plan.cast::<pg_sys::ModifyTable>()).plans,
                _ => std::ptr::null_mut(),
            };
            inputs.extend(items::<pg_sys::Plan>(list).map(|input| input.cast_const()));
            if (*plan).type_ == NodeTag::T_SubqueryScan {
                inputs.push((*plan.cast::<pg_sys::SubqueryScan>()).subplan);
            }
            inputs
        }
    }

    unsafe fn particulars(&self, plan: *const pg_sys::Plan, printer: &Printer, fields: &mut Map<String, Value>) {
        // SAFETY: promised by the callers; each arm takes the node for what its tag says it is.
        unsafe {
            match (*plan).type_ {
                NodeTag::T_IndexScan => {
                    let scan = &*plan.cast::<pg_sys::IndexScan>();
                    self.relation(&scan.scan, fields);
                    insert(fields, "Index Name", name(pg_sys::get_rel_name(scan.indexid)));
                    fields.insert("Scan Direction".to_owned(), json!(direction(scan.indexorderdir as i64)));
                    insert(fields, "Index Cond", printer.conjunction(scan.indexqualorig));
                }
                NodeTag::T_IndexOnlyScan => {
                    let scan = &*plan.cast::<pg_sys::IndexOnlyScan>();
                    self.relation(&scan.scan, fields);
                    insert(fields, "Index Name", name(pg_sys::get_rel_name(scan.indexid)));
                    fields.insert("Scan Direction".to_owned(), json!(direction(scan.indexorderdir as i64)));
                    insert(fields, "Index Cond", printer.conjunction(scan.indexqual));
                }
                NodeTag::T_BitmapIndexScan => {
                    let scan = &*plan.cast::<pg_sys::BitmapIndexScan>();
                    insert(fields, "Index Name", name(pg_sys::get_rel_name(scan.indexid)));
                    insert(fields, "Index Cond", printer.conjunction(scan.indexqualorig));
                }
                NodeTag::T_SeqScan
                | NodeTag::T_SampleScan
                | NodeTag::T_BitmapHeapScan
                | NodeTag::T_TidScan
                | NodeTag::T_ForeignScan
                | NodeTag::T_CustomScan => self.relation(&*plan.cast::<pg_sys::Scan>(), fields),
                NodeTag::T_ModifyTable => {
                    let change = &*plan.cast::<pg_sys::ModifyTable>();
                    fields.insert("Operation".to_owned(), json!(operation(change.operation)));
                    self.entry(change.nominalRelation as usize, fields);
                }
                NodeTag::T_NestLoop => {
                    let join = &*plan.cast::<pg_sys::NestLoop>();
                    fields.insert("Join Type".to_owned(), json!(join_type(join.join.jointype)));
                    insert(fields, "Join Filter", printer.conjunction(join.join.joinqual));
                }
                NodeTag::T_MergeJoin => {
                    let join = &*plan.cast::<pg_sys::MergeJoin>();
                    fields.insert("Join Type".to_owned(), json!(join_type(join.join.jointype)));
                    insert(fields, "Merge Cond", printer.conjunction(join.mergeclauses));
                    insert(fields, "Join Filter", printer.conjunction(join.join.joinqual));
                }
                NodeTag::T_HashJoin => {
                    let join = &*plan.cast::<pg_sys::HashJoin>();
                    fields.insert("Join Type".to_owned(), json!(join_type(join.join.jointype)));
                    insert(fields, "Hash Cond", printer.conjunction(join.hashclauses));
                    insert(fields, "Join Filter", printer.conjunction(join.join.joinqual));
                }
                NodeTag::T_Sort => {
                    let sort = &*plan.cast::<pg_sys::Sort>();
                    keys(fields, "Sort Key", printer.columns(sort.numCols, sort.sortColIdx));
                }
                NodeTag::T_IncrementalSort => {
                    let sort = &*plan.cast::<pg_sys::IncrementalSort>();
                    keys(fields, "Sort Key", printer.columns(sort.sort.numCols, sort.sort.sortColIdx));
                    keys(fields, "Presorted Key", printer.columns(sort.nPresortedCols, sort.sort.sortColIdx));
                }
                NodeTag::T_Agg => {
                    let aggregate = &*plan.cast::<pg_sys::Agg>();
                    fields.insert("Strategy".to_owned(), json!(strategy(aggregate.aggstrategy)));
                    keys(fields, "Group Key", printer.columns(aggregate.numCols, aggregate.grpColIdx));
                }
                NodeTag::T_Group => {
                    let group = &*plan.cast::<pg_sys::Group>();
                    keys(fields, "Group Key", printer.columns(group.numCols, group.grpColIdx));
                }
                NodeTag::T_Gather => {
                    let workers = (*plan.cast::<pg_sys::Gather>()).num_workers;
                    fields.insert("Workers Planned".to_owned(), json!(workers));
                }
                NodeTag::T_GatherMerge => {
                    let workers = (*plan.cast::<pg_sys::GatherMerge>()).num_workers;
                    fields.insert("Workers Planned".to_owned(), json!(workers));
                }
                _ => {}
            }
        }
    }

    unsafe fn relation(&self, scan: &pg_sys::Scan, fields: &mut Map<String, Value>) {
        // SAFETY: promised by the callers.
        unsafe { self.entry(scan.scanrelid as usize, fields) };
    }

    /// Name and schema of an entry of the range table, from 1.
    unsafe fn entry(&self, index: usize, fields: &mut Map<String, Value>) {
        // SAFETY: promised by the callers.
        unsafe {
            let index = index.checked_sub(1);
            let entry = index.and_then(|index| nth::<pg_sys::RangeTblEntry>((*self.statement).rtable, index));
            let Some(entry) = entry.and_then(|entry| entry.as_ref()) else { return };
            if entry.rtekind != pg_sys::RTEKind::RTE_RELATION {
                return;
            }
            insert(fields, "Relation Name", name(pg_sys::get_rel_name(entry.relid)));
            let schema = pg_sys::get_rel_namespace(entry.relid);
            insert(fields, "Schema", name(pg_sys::get_namespace_name(schema)));
        }
    }
}

fn insert(fields: &mut Map<String, Value>, field: &str, value: Option<String>) {
    if let Some(value) = value {
        fields.insert(field.to_owned(), Value::String(value));
    }
}

fn keys(fields: &mut Map<String, Value>, field: &str, values: Vec<String>) {
    if !values.is_empty() {
        fields.insert(field.to_owned(), json!(values));
    }
}

/// Costs with two decimals, as EXPLAIN prints them.
fn cents(cost: f64) -> f64 {
    (cost * 100.0).round() / 100.0
}

fn direction(direction: i64) -> &'static str {
    match direction {
        1 => "Forward",
        -1 => "Backward",
        _ => "NoMovement",
    }
}

fn operation(operation: pg_sys::CmdType::Type) -> &'static str {
    match operation {
        pg_sys::CmdType::CMD_INSERT => "Insert",
        pg_sys::CmdType::CMD_UPDATE => "Update",
        pg_sys::CmdType::CMD_DELETE => "Delete",
        #[cfg(not(any(feature = "pg13", feature = "pg14")))]
        pg_sys::CmdType::CMD_MERGE => "Merge",
        _ => "Other",
    }
}

fn join_type(join: pg_sys::JoinType::Type) -> &'static str {
    match join {
        pg_sys::JoinType::JOIN_INNER => "Inner",
        pg_sys::JoinType::JOIN_LEFT => "Left",
        pg_sys::JoinType::JOIN_FULL => "Full",
        pg_sys::JoinType::JOIN_RIGHT => "Right",
        pg_sys::JoinType::JOIN_SEMI => "Semi",
        pg_sys::JoinType::JOIN_ANTI => "Anti",
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        pg_sys::JoinType::JOIN_RIGHT_ANTI => "Right Anti",
        #[cfg(feature = "pg18")]
        pg_sys::JoinType::JOIN_RIGHT_SEMI => "Right Semi",
        _ => "Other",
    }
}

fn strategy(strategy: pg_sys::AggStrategy::Type) -> &'static str {
    match strategy {
        pg_sys::AggStrategy::AGG_PLAIN => "Plain",
        pg_sys::AggStrategy::AGG_SORTED => "Sorted",
        pg_sys::AggStrategy::AGG_HASHED => "Hashed",
        pg_sys::AggStrategy::AGG_MIXED => "Mixed",
        _ => "Other",
    }
}
