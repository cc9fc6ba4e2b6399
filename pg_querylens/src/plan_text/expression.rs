//! Expressions of a plan as text without literals: a constant is `?`, whatever it is, and what is not known here is `...`.

use pgrx::pg_sys::{self, NodeTag};

use super::name;
use crate::{
    plan_id::{items, nth, outer_input},
    raw,
};

/// Deepest part of an expression that is written.
const DEPTH: u32 = 20;
/// What is not written.
const UNWRITTEN: &str = "...";

/// Writes the expressions of one node.
pub(super) struct Printer {
    statement: *const pg_sys::PlannedStmt,
    plan: *const pg_sys::Plan,
}

impl Printer {
    /// # Safety
    ///
    /// `plan` is a node of `statement`, both are valid, and catalogs can be read.
    pub(super) unsafe fn new(statement: *const pg_sys::PlannedStmt, plan: *const pg_sys::Plan) -> Printer {
        Printer { statement, plan }
    }

    /// Conditions of which all must hold; nothing of none.
    ///
    /// # Safety
    ///
    /// `list` is null or a list of expressions of the node.
    pub(super) unsafe fn conjunction(&self, list: *const pg_sys::List) -> Option<String> {
        // SAFETY: as promised.
        let conditions = unsafe { self.each(self.plan, list, DEPTH) };
        match conditions.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            _ => Some(format!("({})", conditions.join(" AND "))),
        }
    }

    /// Keys that are columns of the node's input.
    ///
    /// # Safety
    ///
    /// `columns` points to `count` of them.
    pub(super) unsafe fn columns(&self, count: i32, columns: *const i16) -> Vec<String> {
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 || columns.is_null() {
            return Vec::new();
        }
        // SAFETY: as promised.
        unsafe {
            let columns = std::slice::from_raw_parts(columns, count);
            columns.iter().map(|column| self.output((*self.plan).lefttree, i64::from(*column), DEPTH)).collect()
        }
    }

    unsafe fn each(&self, plan: *const pg_sys::Plan, list: *const pg_sys::List, depth: u32) -> Vec<String> {
        // SAFETY: promised by the callers.
        unsafe { items::<pg_sys::Node>(list).map(|node| self.expression(plan, node, depth)).collect() }
    }

    unsafe fn expression(&self, plan: *const pg_sys::Plan, node: *const pg_sys::Node, depth: u32) -> String {
        // SAFETY: promised by the callers; each arm takes the node for what its tag says it is.
        unsafe {
            if node.is_null() || depth == 0 || raw::stack_is_too_deep() {
                return UNWRITTEN.to_owned();
            }
            let depth = depth - 1;
            match (*node).type_ {
                NodeTag::T_Const => "?".to_owned(),
                NodeTag::T_Param => {
                    let parameter = &*node.cast::<pg_sys::Param>();
                    if parameter.paramkind == pg_sys::ParamKind::PARAM_EXTERN {
                        format!("${}", parameter.paramid)
                    } else {
                        "(outer)".to_owned()
                    }
                }
                NodeTag::T_Var => self.variable(plan, &*node.cast::<pg_sys::Var>(), depth),
                NodeTag::T_TargetEntry => {
                    self.expression(plan, (*node.cast::<pg_sys::TargetEntry>()).expr.cast(), depth)
                }
                NodeTag::T_RelabelType => {
                    self.expression(plan, (*node.cast::<pg_sys::RelabelType>()).arg.cast(), depth)
                }
                NodeTag::T_CoerceViaIO => {
                    self.expression(plan, (*node.cast::<pg_sys::CoerceViaIO>()).arg.cast(), depth)
                }
                NodeTag::T_OpExpr => {
                    let operator = &*node.cast::<pg_sys::OpExpr>();
                    let sign = name(pg_sys::get_opname(operator.opno)).unwrap_or_else(|| UNWRITTEN.to_owned());
                    match self.each(plan, operator.args, depth).as_slice() {
                        [one] => format!("({sign} {one})"),
                        [left, right] => format!("({left} {sign} {right})"),
                        _ => UNWRITTEN.to_owned(),
                    }
                }
                NodeTag::T_ScalarArrayOpExpr => {
                    let operator = &*node.cast::<pg_sys::ScalarArrayOpExpr>();
                    let sign = name(pg_sys::get_opname(operator.opno)).unwrap_or_else(|| UNWRITTEN.to_owned());
                    let quantifier = if operator.useOr { "ANY" } else { "ALL" };
                    match self.each(plan, operator.args, depth).as_slice() {
                        [left, right] => format!("({left} {sign} {quantifier} ({right}))"),
                        _ => UNWRITTEN.to_owned(),
                    }
                }
                NodeTag::T_FuncExpr => {
                    let function = &*node.cast::<pg_sys::FuncExpr>();
                    let arguments = self.each(plan, function.args, depth);
                    if function.funcformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
                        && let Some(argument) = arguments.first()
                    {
                        return argument.clone();
                    }
                    call(name(pg_sys::get_func_name(function.funcid)), &arguments)
                }
                NodeTag::T_Aggref => {
                    let aggregate = &*node.cast::<pg_sys::Aggref>();
                    let arguments =
                        if aggregate.aggstar { vec!["*".to_owned()] } else { self.each(plan, aggregate.args, depth) };
                    call(name(pg_sys::get_func_name(aggregate.aggfnoid)), &arguments)
                }
                NodeTag::T_ArrayExpr => {
                    let elements = self.each(plan, (*node.cast::<pg_sys::ArrayExpr>()).elements, depth);
                    if elements.iter().all(|element| element == "?") {
                        return "?".to_owned();
                    }
                    format!("ARRAY[{}]", elements.join(", "))
                }
                NodeTag::T_BoolExpr => {
                    let boolean = &*node.cast::<pg_sys::BoolExpr>();
                    let arguments = self.each(plan, boolean.args, depth);
                    match boolean.boolop {
                        pg_sys::BoolExprType::AND_EXPR => format!("({})", arguments.join(" AND ")),
                        pg_sys::BoolExprType::OR_EXPR => format!("({})", arguments.join(" OR ")),
                        _ => format!("(NOT {})", arguments.join(", ")),
                    }
                }
                NodeTag::T_NullTest => {
                    let test = &*node.cast::<pg_sys::NullTest>();
                    let of = self.expression(plan, test.arg.cast(), depth);
                    let negated = test.nulltesttype == pg_sys::NullTestType::IS_NOT_NULL;
                    format!("({of} IS {}NULL)", if negated { "NOT " } else { "" })
                }
                _ => UNWRITTEN.to_owned(),
            }
        }
    }

    unsafe fn variable(&self, plan: *const pg_sys::Plan, variable: &pg_sys::Var, depth: u32) -> String {
        // SAFETY: promised by the callers.
        unsafe {
            let (number, column) = (i64::from(variable.varno), i64::from(variable.varattno));
            if number == i64::from(pg_sys::OUTER_VAR) {
                return self.output(outer_input(plan), column, depth);
            }
            if number == i64::from(pg_sys::INNER_VAR) {
                return self.output((*plan).righttree, column, depth);
            }
            if number == i64::from(pg_sys::INDEX_VAR) && (*plan).type_ == NodeTag::T_IndexOnlyScan {
                let list = (*plan.cast::<pg_sys::IndexOnlyScan>()).indextlist;
                return self.entry(plan, list, column, depth);
            }
            let index = usize::try_from(number - 1).ok();
            let entry = index.and_then(|index| nth::<pg_sys::RangeTblEntry>((*self.statement).rtable, index));
            let Some(entry) = entry.and_then(|entry| entry.as_ref()) else { return UNWRITTEN.to_owned() };
            if entry.rtekind != pg_sys::RTEKind::RTE_RELATION {
                return UNWRITTEN.to_owned();
            }
            name(pg_sys::get_attname(entry.relid, variable.varattno, true)).unwrap_or_else(|| UNWRITTEN.to_owned())
        }
    }

    /// An output column of a node, from 1.
    unsafe fn output(&self, plan: *const pg_sys::Plan, position: i64, depth: u32) -> String {
        // SAFETY: promised by the callers: null, or a node of the plan.
        unsafe {
            match plan.as_ref() {
                Some(node) => self.entry(plan, node.targetlist, position, depth),
                None => UNWRITTEN.to_owned(),
            }
        }
    }

    /// An entry of a target list, from 1.
    unsafe fn entry(&self, plan: *const pg_sys::Plan, list: *const pg_sys::List, position: i64, depth: u32) -> String {
        // SAFETY: promised by the callers.
        unsafe {
            let index = usize::try_from(position - 1).ok();
            let entry = index.and_then(|index| nth::<pg_sys::TargetEntry>(list, index));
            match entry.and_then(|entry| entry.as_ref()) {
                Some(entry) => self.expression(plan, entry.expr.cast(), depth),
                None => UNWRITTEN.to_owned(),
            }
        }
    }
}

fn call(function: Option<String>, arguments: &[String]) -> String {
    format!("{}({})", function.as_deref().unwrap_or(UNWRITTEN), arguments.join(", "))
}
