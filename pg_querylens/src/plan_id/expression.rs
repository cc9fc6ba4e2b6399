//! Identity of the expressions that are keys: of look-ups, joins, sorting and grouping.

use pgrx::pg_sys::{self, NodeTag};

use super::{
    hash::{Hash, Multiset},
    list::{items, nth},
    relations::{Both, Relations},
};
use crate::raw;

/// Deepest expression that is looked into; what is below counts as nothing.
const DEPTH: u32 = 100;
/// A literal, a parameter of the statement, or what is computed of nothing else.
const CONSTANT: Both = Both::new(1);

/// Numbers of kinds of expressions; they never change.
mod code {
    pub(super) const EXECUTION_PARAMETER: u64 = 2;
    pub(super) const COLUMN: u64 = 3;
    pub(super) const INDEX_COLUMN: u64 = 4;
    pub(super) const OPERATOR: u64 = 5;
    pub(super) const FUNCTION: u64 = 6;
    pub(super) const ANY_OF: u64 = 7;
    pub(super) const LIST: u64 = 8;
    pub(super) const BOOLEAN: u64 = 9;
    pub(super) const NULL_TEST: u64 = 10;
    pub(super) const BOOLEAN_TEST: u64 = 11;
    pub(super) const ROW_COMPARISON: u64 = 12;
    pub(super) const AGGREGATE: u64 = 13;
    pub(super) const WINDOW_FUNCTION: u64 = 14;
    pub(super) const SUBPLAN: u64 = 15;
    pub(super) const FIELD: u64 = 16;
    pub(super) const OTHER: u64 = 17;
}

/// Where expressions are looked at.
pub(super) struct Expressions<'a> {
    pub(super) relations: &'a mut Relations,
    /// The node whose key it is; references to its inputs are followed down to the columns of relations.
    plan: *const pg_sys::Plan,
    depth: u32,
}

impl<'a> Expressions<'a> {
    /// # Safety
    ///
    /// `plan` is a valid node of the plan that `relations` is of.
    pub(super) unsafe fn new(relations: &'a mut Relations, plan: *const pg_sys::Plan) -> Expressions<'a> {
        Expressions { relations, plan, depth: 0 }
    }

    /// A key that is the `position`th output column, from 1, of the input.
    ///
    /// # Safety
    ///
    /// As for `new`.
    pub(super) unsafe fn column(&mut self, position: i16) -> Both {
        // SAFETY: as promised.
        unsafe { self.output(self.plan, i64::from(position)) }
    }

    /// Keys in an order that means nothing.
    ///
    /// # Safety
    ///
    /// `list` is null or a list of expressions of the node.
    pub(super) unsafe fn set(&mut self, list: *const pg_sys::List) -> Both {
        let (mut exact, mut collapsed) = (Multiset::default(), Multiset::default());
        // SAFETY: as promised.
        for node in unsafe { items::<pg_sys::Node>(list) } {
            // SAFETY: as promised.
            let item = unsafe { self.of(node) };
            exact.add(item.exact.value());
            collapsed.add(item.collapsed.value());
        }
        Both {
            exact: Hash::new(code::LIST).add(exact.value()),
            collapsed: Hash::new(code::LIST).add(collapsed.value()),
        }
    }

    /// Keys in their order.
    ///
    /// # Safety
    ///
    /// As for [`Expressions::set`].
    pub(super) unsafe fn list(&mut self, list: *const pg_sys::List) -> Both {
        // SAFETY: as promised.
        unsafe { self.arguments(Both::new(code::LIST), list, true) }
    }

    /// Arguments, added to what they are arguments of. What has only constant ones is a constant, however it is computed: a plan for known parameters
    /// has the result where one for any parameters has the computation.
    unsafe fn arguments(&mut self, of: Both, list: *const pg_sys::List, always: bool) -> Both {
        let (mut all, mut constant, mut count) = (of, true, 0);
        // SAFETY: promised by the callers.
        for node in unsafe { items::<pg_sys::Node>(list) } {
            // SAFETY: promised by the callers.
            let argument = unsafe { self.of(node) };
            constant &= argument == CONSTANT;
            all = all.add_both(argument);
            count += 1;
        }
        if constant && count > 0 && !always { CONSTANT } else { all }
    }

    /// Identity of an expression.
    ///
    /// # Safety
    ///
    /// `node` is null or an expression of the node.
    pub(super) unsafe fn of(&mut self, node: *const pg_sys::Node) -> Both {
        // SAFETY: `stack_is_too_deep` only compares addresses; the node is valid, as promised.
        unsafe {
            if node.is_null() {
                return Both::new(code::OTHER);
            }
            if self.depth > DEPTH || raw::stack_is_too_deep() {
                return Both::new(code::OTHER);
            }
            self.depth += 1;
            let found = self.by_kind(node);
            self.depth -= 1;
            found
        }
    }

    unsafe fn by_kind(&mut self, node: *const pg_sys::Node) -> Both {
        // SAFETY: each arm takes the node for what its tag says it is.
        unsafe {
            match (*node).type_ {
                NodeTag::T_Const => CONSTANT,
                NodeTag::T_Param => match (*node.cast::<pg_sys::Param>()).paramkind {
                    pg_sys::ParamKind::PARAM_EXTERN => CONSTANT,
                    _ => Both::new(code::EXECUTION_PARAMETER),
                },
                NodeTag::T_Var => self.variable(node.cast()),
                NodeTag::T_TargetEntry => self.of((*node.cast::<pg_sys::TargetEntry>()).expr.cast()),
                NodeTag::T_RelabelType => self.of((*node.cast::<pg_sys::RelabelType>()).arg.cast()),
                NodeTag::T_CoerceViaIO => self.of((*node.cast::<pg_sys::CoerceViaIO>()).arg.cast()),
                NodeTag::T_CoerceToDomain => self.of((*node.cast::<pg_sys::CoerceToDomain>()).arg.cast()),
                NodeTag::T_ArrayCoerceExpr => self.of((*node.cast::<pg_sys::ArrayCoerceExpr>()).arg.cast()),
                NodeTag::T_CollateExpr => self.of((*node.cast::<pg_sys::CollateExpr>()).arg.cast()),
                NodeTag::T_PlaceHolderVar => self.of((*node.cast::<pg_sys::PlaceHolderVar>()).phexpr.cast()),
                NodeTag::T_OpExpr | NodeTag::T_DistinctExpr | NodeTag::T_NullIfExpr => {
                    let operator = node.cast::<pg_sys::OpExpr>();
                    let of = Both::new(code::OPERATOR).add(u64::from((*operator).opno.to_u32()));
                    self.arguments(of, (*operator).args, false)
                }
                NodeTag::T_ScalarArrayOpExpr => {
                    let operator = node.cast::<pg_sys::ScalarArrayOpExpr>();
                    let of = Both::new(code::ANY_OF).add(u64::from((*operator).opno.to_u32()));
                    self.arguments(of.add(u64::from((*operator).useOr)), (*operator).args, false)
                }
                NodeTag::T_FuncExpr => {
                    let function = node.cast::<pg_sys::FuncExpr>();
                    let of = Both::new(code::FUNCTION).add(u64::from((*function).funcid.to_u32()));
                    self.arguments(of, (*function).args, false)
                }
                NodeTag::T_ArrayExpr => {
                    let array = node.cast::<pg_sys::ArrayExpr>();
                    self.arguments(Both::new(code::LIST), (*array).elements, false)
                }
                NodeTag::T_RowExpr => {
                    self.arguments(Both::new(code::LIST), (*node.cast::<pg_sys::RowExpr>()).args, false)
                }
                NodeTag::T_BoolExpr => {
                    let boolean = node.cast::<pg_sys::BoolExpr>();
                    let of = Both::new(code::BOOLEAN).add((*boolean).boolop as u64);
                    of.add_both(self.set((*boolean).args))
                }
                NodeTag::T_NullTest => {
                    let test = node.cast::<pg_sys::NullTest>();
                    let of = Both::new(code::NULL_TEST).add((*test).nulltesttype as u64);
                    of.add_both(self.of((*test).arg.cast()))
                }
                NodeTag::T_BooleanTest => {
                    let test = node.cast::<pg_sys::BooleanTest>();
                    let of = Both::new(code::BOOLEAN_TEST).add((*test).booltesttype as u64);
                    of.add_both(self.of((*test).arg.cast()))
                }
                NodeTag::T_RowCompareExpr => {
                    let rows = node.cast::<pg_sys::RowCompareExpr>();
                    let left = self.list((*rows).largs);
                    let right = self.list((*rows).rargs);
                    Both::new(code::ROW_COMPARISON).add_both(left).add_both(right)
                }
                NodeTag::T_Aggref => {
                    let aggregate = node.cast::<pg_sys::Aggref>();
                    let of = Both::new(code::AGGREGATE).add(u64::from((*aggregate).aggfnoid.to_u32()));
                    self.arguments(of, (*aggregate).args, true)
                }
                NodeTag::T_WindowFunc => {
                    let function = node.cast::<pg_sys::WindowFunc>();
                    let of = Both::new(code::WINDOW_FUNCTION).add(u64::from((*function).winfnoid.to_u32()));
                    self.arguments(of, (*function).args, true)
                }
                NodeTag::T_FieldSelect => {
                    let field = node.cast::<pg_sys::FieldSelect>();
                    let of = Both::new(code::FIELD).add((*field).fieldnum as u64);
                    of.add_both(self.of((*field).arg.cast()))
                }
                // The plans themselves are hashed with the statement.
                NodeTag::T_SubPlan | NodeTag::T_AlternativeSubPlan => Both::new(code::SUBPLAN),
                _ => Both::new(code::OTHER),
            }
        }
    }

    /// A column: of a relation, of an index, or of an input of the node.
    unsafe fn variable(&mut self, variable: *const pg_sys::Var) -> Both {
        // SAFETY: promised by the callers.
        unsafe {
            let (number, column) = (i64::from((*variable).varno), i64::from((*variable).varattno));
            if number == i64::from(pg_sys::OUTER_VAR) {
                self.output(outer_input(self.plan), column)
            } else if number == i64::from(pg_sys::INNER_VAR) {
                self.output((*self.plan).righttree, column)
            } else if number == i64::from(pg_sys::INDEX_VAR) {
                Both::new(code::INDEX_COLUMN).add(column as u64)
            } else {
                let label = self.relations.label(usize::try_from(number).unwrap_or(0));
                Both::new(code::COLUMN).add_both(label).add(column as u64)
            }
        }
    }

    /// The `position`th output column of a node, from 1.
    unsafe fn output(&mut self, plan: *const pg_sys::Plan, position: i64) -> Both {
        // SAFETY: the node is null or one of the plan; its target list holds target entries.
        unsafe {
            let Some(node) = plan.as_ref() else { return Both::new(code::OTHER).add(position as u64) };
            let index = usize::try_from(position - 1).ok();
            let entry = index.and_then(|index| nth::<pg_sys::TargetEntry>(node.targetlist, index));
            let Some(entry) = entry.and_then(|entry| entry.as_ref()) else {
                return Both::new(code::OTHER).add(position as u64);
            };
            let above = std::mem::replace(&mut self.plan, plan);
            let found = self.of(entry.expr.cast());
            self.plan = above;
            found
        }
    }
}

/// The input that OUTER_VAR stands for in a node.
///
/// # Safety
///
/// `plan` is a valid node.
pub(crate) unsafe fn outer_input(plan: *const pg_sys::Plan) -> *const pg_sys::Plan {
    // SAFETY: promised by the caller; a node is what its tag says.
    unsafe {
        match (*plan).type_ {
            NodeTag::T_Append => first((*plan.cast::<pg_sys::Append>()).appendplans),
            NodeTag::T_MergeAppend => first((*plan.cast::<pg_sys::MergeAppend>()).mergeplans),
            _ => (*plan).lefttree,
        }
    }
}

unsafe fn first(list: *const pg_sys::List) -> *const pg_sys::Plan {
    // SAFETY: promised by the caller.
    unsafe { nth::<pg_sys::Plan>(list, 0).map_or(std::ptr::null(), |plan| plan.cast_const()) }
}
