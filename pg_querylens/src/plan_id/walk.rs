//! Identity of a plan: a walk over its nodes, inputs first.

use std::slice;

use pgrx::pg_sys::{self, NodeTag};

use super::{
    expression::Expressions,
    hash::{Hash, Multiset},
    kinds::kind,
    list::{integers, items},
    relations::{Both, Relations},
};
use crate::raw;

/// Deepest node that is looked at; what is below counts as nothing.
const DEPTH: u32 = 500;

/// Which plan it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The plan; never 0.
    pub(crate) plan_id: u64,
    /// The plan with the partitions of a table taken for one; never 0.
    pub(crate) collapsed_id: u64,
}

/// Which plan it is.
///
/// # Safety
///
/// `statement` is a valid plan that does not change meanwhile.
pub(crate) unsafe fn identify(statement: *const pg_sys::PlannedStmt) -> Identity {
    // SAFETY: promised by the caller.
    unsafe {
        let mut walk = Walk { relations: Relations::new(statement), depth: 0 };
        let tree = walk.node((*statement).planTree);
        let mut subplans = Bag::default();
        for plan in items::<pg_sys::Plan>((*statement).subplans) {
            subplans.add(walk.node(plan));
        }
        let whole = Both::new((*statement).commandType as u64).add_both(tree).add_both(subplans.counted());
        Identity { plan_id: whole.exact.value().max(1), collapsed_id: whole.collapsed.value().max(1) }
    }
}

/// Things in an order that means nothing.
#[derive(Default)]
struct Bag {
    exact: Multiset,
    collapsed: Multiset,
    distinct: Vec<Hash>,
}

impl Bag {
    fn add(&mut self, item: Both) {
        self.exact.add(item.exact.value());
        self.collapsed.add(item.collapsed.value());
        if !self.distinct.contains(&item.collapsed) {
            self.distinct.push(item.collapsed);
        }
    }

    fn counted(&self) -> Both {
        Both { exact: Hash::new(0).add(self.exact.value()), collapsed: Hash::new(0).add(self.collapsed.value()) }
    }

    /// Collapsed, the same thing several times is there once.
    fn different(&self) -> Hash {
        let mut different = Multiset::default();
        self.distinct.iter().for_each(|item| different.add(item.value()));
        Hash::new(0).add(different.value())
    }
}

struct Walk {
    relations: Relations,
    depth: u32,
}

impl Walk {
    /// # Safety
    ///
    /// `plan` is null or a node of the plan that `relations` is of.
    unsafe fn node(&mut self, plan: *const pg_sys::Plan) -> Both {
        // SAFETY: `stack_is_too_deep` only compares addresses; the node is valid, as promised.
        unsafe {
            if plan.is_null() || self.depth > DEPTH || raw::stack_is_too_deep() {
                return Both::new(0);
            }
            self.depth += 1;
            let mut node = Both::new(kind((*plan).type_)).add(u64::from((*plan).parallel_aware));
            if !(*plan).lefttree.is_null() {
                let input = self.node((*plan).lefttree);
                node = node.add(1).add_both(input);
            }
            if !(*plan).righttree.is_null() {
                let input = self.node((*plan).righttree);
                node = node.add(2).add_both(input);
            }
            let node = self.particulars(plan, node);
            self.depth -= 1;
            node
        }
    }

    unsafe fn particulars(&mut self, plan: *const pg_sys::Plan, node: Both) -> Both {
        // SAFETY: each arm takes the node for what its tag says it is.
        unsafe {
            match (*plan).type_ {
                NodeTag::T_Append => self.members(node, (*plan.cast::<pg_sys::Append>()).appendplans),
                NodeTag::T_MergeAppend => self.members(node, (*plan.cast::<pg_sys::MergeAppend>()).mergeplans),
                NodeTag::T_BitmapAnd => self.parts(node, (*plan.cast::<pg_sys::BitmapAnd>()).bitmapplans),
                NodeTag::T_BitmapOr => self.parts(node, (*plan.cast::<pg_sys::BitmapOr>()).bitmapplans),
                NodeTag::T_ModifyTable => self.modification(plan.cast(), node),
                NodeTag::T_IndexScan | NodeTag::T_IndexOnlyScan | NodeTag::T_BitmapIndexScan => {
                    self.index_scan(plan, node)
                }
                NodeTag::T_SeqScan | NodeTag::T_SampleScan | NodeTag::T_BitmapHeapScan | NodeTag::T_TidScan => {
                    self.scan(plan, node)
                }
                #[cfg(not(feature = "pg13"))]
                NodeTag::T_TidRangeScan => self.scan(plan, node),
                NodeTag::T_ForeignScan => {
                    let foreign = plan.cast::<pg_sys::ForeignScan>();
                    self.scan(plan, node.add((*foreign).operation as u64))
                }
                NodeTag::T_SubqueryScan => {
                    let input = self.node((*plan.cast::<pg_sys::SubqueryScan>()).subplan);
                    self.scan(plan, node.add_both(input))
                }
                NodeTag::T_ValuesScan
                | NodeTag::T_TableFuncScan
                | NodeTag::T_CteScan
                | NodeTag::T_NamedTuplestoreScan
                | NodeTag::T_WorkTableScan => self.scan(plan, node),
                NodeTag::T_FunctionScan => {
                    let mut node = self.scan(plan, node);
                    for function in items::<pg_sys::RangeTblFunction>((*plan.cast::<pg_sys::FunctionScan>()).functions)
                    {
                        let expression = (*function).funcexpr.cast::<pg_sys::FuncExpr>();
                        if !expression.is_null() && (*expression).xpr.type_ == NodeTag::T_FuncExpr {
                            node = node.add(u64::from((*expression).funcid.to_u32()));
                        }
                    }
                    node
                }
                NodeTag::T_CustomScan => {
                    let custom = plan.cast::<pg_sys::CustomScan>();
                    let name = std::ffi::CStr::from_ptr((*(*custom).methods).CustomName).to_bytes();
                    let node = node.add(Hash::new(0).text(name).value());
                    let node = self.parts(node, (*custom).custom_plans);
                    self.scan(plan, node)
                }
                NodeTag::T_NestLoop => node.add((*plan.cast::<pg_sys::Join>()).jointype as u64),
                NodeTag::T_MergeJoin => {
                    let join = plan.cast::<pg_sys::MergeJoin>();
                    let keys = self.expressions(plan).list((*join).mergeclauses);
                    node.add((*join).join.jointype as u64).add_both(keys)
                }
                NodeTag::T_HashJoin => {
                    let join = plan.cast::<pg_sys::HashJoin>();
                    let keys = self.expressions(plan).set((*join).hashclauses);
                    node.add((*join).join.jointype as u64).add_both(keys)
                }
                NodeTag::T_Sort => self.sort(plan.cast(), node),
                NodeTag::T_IncrementalSort => {
                    let sort = plan.cast::<pg_sys::IncrementalSort>();
                    self.sort(&raw const (*sort).sort, node.add((*sort).nPresortedCols as u64))
                }
                NodeTag::T_Agg => self.aggregate(plan.cast(), node),
                NodeTag::T_Group => {
                    let group = plan.cast::<pg_sys::Group>();
                    self.columns(plan, node, (*group).numCols, (*group).grpColIdx)
                }
                NodeTag::T_Unique => {
                    let unique = plan.cast::<pg_sys::Unique>();
                    self.columns(plan, node, (*unique).numCols, (*unique).uniqColIdx)
                }
                NodeTag::T_WindowAgg => {
                    let window = plan.cast::<pg_sys::WindowAgg>();
                    let node = self.columns(plan, node, (*window).partNumCols, (*window).partColIdx);
                    self.columns(plan, node, (*window).ordNumCols, (*window).ordColIdx)
                }
                #[cfg(not(feature = "pg13"))]
                NodeTag::T_Memoize => {
                    let keys = self.expressions(plan).set((*plan.cast::<pg_sys::Memoize>()).param_exprs);
                    node.add_both(keys)
                }
                NodeTag::T_SetOp => {
                    let operation = plan.cast::<pg_sys::SetOp>();
                    node.add((*operation).cmd as u64).add((*operation).strategy as u64)
                }
                _ => node,
            }
        }
    }

    unsafe fn expressions(&mut self, plan: *const pg_sys::Plan) -> Expressions<'_> {
        // SAFETY: promised by the callers.
        unsafe { Expressions::new(&mut self.relations, plan) }
    }

    /// Inputs in an order that means nothing: parallel plans sort them by their costs.
    unsafe fn parts(&mut self, node: Both, plans: *const pg_sys::List) -> Both {
        let mut parts = Bag::default();
        // SAFETY: promised by the callers: a list of nodes.
        unsafe {
            for part in items::<pg_sys::Plan>(plans) {
                parts.add(self.node(part));
            }
        }
        node.add_both(parts.counted())
    }

    /// The members of an Append. Collapsed, partitions that are read alike are one, and an Append of one thing is that thing.
    unsafe fn members(&mut self, node: Both, plans: *const pg_sys::List) -> Both {
        let mut members = Bag::default();
        // SAFETY: promised by the callers: a list of nodes.
        unsafe {
            for member in items::<pg_sys::Plan>(plans) {
                members.add(self.node(member));
            }
        }
        let exact = node.add_both(members.counted()).exact;
        let collapsed = match members.distinct.as_slice() {
            [one] => *one,
            _ => node.collapsed.add(members.different().value()),
        };
        Both { exact, collapsed }
    }

    /// A scan of an entry of the range table; of a join, if there is none.
    unsafe fn scan(&mut self, plan: *const pg_sys::Plan, node: Both) -> Both {
        // SAFETY: promised by the callers: a node that begins like `Scan`.
        let relation = unsafe { (*plan.cast::<pg_sys::Scan>()).scanrelid } as usize;
        if relation == 0 { node } else { node.add_both(self.relations.label(relation)) }
    }

    unsafe fn index_scan(&mut self, plan: *const pg_sys::Plan, node: Both) -> Both {
        // SAFETY: promised by the callers: a node that is what its tag says.
        unsafe {
            let (index, keys, order, direction) = match (*plan).type_ {
                NodeTag::T_IndexScan => {
                    let scan = &*plan.cast::<pg_sys::IndexScan>();
                    (scan.indexid, scan.indexqual, scan.indexorderby, scan.indexorderdir as i64)
                }
                NodeTag::T_IndexOnlyScan => {
                    let scan = &*plan.cast::<pg_sys::IndexOnlyScan>();
                    (scan.indexid, scan.indexqual, scan.indexorderby, scan.indexorderdir as i64)
                }
                _ => {
                    let scan = &*plan.cast::<pg_sys::BitmapIndexScan>();
                    (scan.indexid, scan.indexqual, std::ptr::null_mut(), 0)
                }
            };
            let relation = (*plan.cast::<pg_sys::Scan>()).scanrelid as usize;
            let node = self.scan(plan, node).add(direction as u64);
            let keys = self.expressions(plan).set(keys);
            let order = self.expressions(plan).list(order);
            let index = u64::from(index.to_u32());
            // Each partition has an index of its own; collapsed, its keys stand for it.
            let collapsed = if self.relations.is_child(relation) { 0 } else { index };
            let node = Both { exact: node.exact.add(index), collapsed: node.collapsed.add(collapsed) };
            node.add_both(keys).add_both(order)
        }
    }

    unsafe fn modification(&mut self, change: *const pg_sys::ModifyTable, node: Both) -> Both {
        // SAFETY: promised by the callers.
        unsafe {
            let mut node = node.add((*change).operation as u64).add((*change).onConflictAction as u64);
            #[cfg(feature = "pg13")]
            {
                node = self.members(node, (*change).plans);
            }
            let mut targets = Bag::default();
            for relation in integers((*change).resultRelations) {
                targets.add(self.relations.label(usize::try_from(relation).unwrap_or(0)));
            }
            node.exact = node.exact.add(targets.counted().exact.value());
            node.collapsed = node.collapsed.add(targets.different().value());
            #[cfg(not(any(feature = "pg13", feature = "pg14")))]
            for actions in items::<pg_sys::List>((*change).mergeActionLists).take(1) {
                for action in items::<pg_sys::MergeAction>(actions) {
                    node = node.add((*action).commandType as u64);
                }
            }
            node
        }
    }

    unsafe fn sort(&mut self, sort: *const pg_sys::Sort, node: Both) -> Both {
        // SAFETY: promised by the callers: the arrays have as many elements as the node says.
        unsafe {
            let count = usize::try_from((*sort).numCols).unwrap_or(0);
            let mut node = self.columns(&raw const (*sort).plan, node, (*sort).numCols, (*sort).sortColIdx);
            for at in 0..count {
                node = node.add(u64::from((*(*sort).sortOperators.add(at)).to_u32()));
                node = node.add(u64::from(*(*sort).nullsFirst.add(at)));
            }
            node
        }
    }

    unsafe fn aggregate(&mut self, aggregate: *const pg_sys::Agg, node: Both) -> Both {
        // SAFETY: promised by the callers.
        unsafe {
            let node = node.add((*aggregate).aggstrategy as u64).add((*aggregate).aggsplit as u64);
            let plan = &raw const (*aggregate).plan;
            let mut node = self.columns(plan, node, (*aggregate).numCols, (*aggregate).grpColIdx);
            for further in items::<pg_sys::Agg>((*aggregate).chain) {
                node = node.add((*further).aggstrategy as u64).add((*further).numCols as u64);
            }
            node
        }
    }

    /// Keys that are columns of the input, in their order.
    unsafe fn columns(&mut self, plan: *const pg_sys::Plan, node: Both, count: i32, columns: *const i16) -> Both {
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 || columns.is_null() {
            return node.add(0);
        }
        // SAFETY: promised by the callers: so many columns, which are those of the node's input.
        unsafe {
            let input = (*plan).lefttree;
            let mut expressions = self.expressions(input);
            let columns = slice::from_raw_parts(columns, count);
            columns.iter().fold(node.add(count as u64), |node, column| node.add_both(expressions.column(*column)))
        }
    }
}
