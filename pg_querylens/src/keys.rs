//! What statistics are kept for.

use crate::{
    plan_id::Hash,
    table::{Key, Plain},
};

/// A statement of a user in a database, at the top or within another.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatementKey {
    /// Oid of the database.
    pub(crate) database: u32,
    /// Oid of the user.
    pub(crate) user: u32,
    /// PostgreSQL's query id.
    pub(crate) query_id: u64,
    /// 1: sent by a client; 0: executed within another statement. A number, since any bytes must be valid.
    pub(crate) top_level: u64,
}

/// A plan of a statement.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanKey {
    /// The statement.
    pub(crate) statement: StatementKey,
    /// The plan; 0 for statements that have none.
    pub(crate) plan_id: u64,
}

/// How a statement fails.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorKey {
    /// The statement.
    pub(crate) statement: StatementKey,
    /// SQLSTATE, as PostgreSQL packs it.
    pub(crate) sqlstate: u64,
}

/// A node of a plan.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeKey {
    /// The plan.
    pub(crate) plan_id: u64,
    /// Its number in the plan.
    pub(crate) node: u64,
}

/// The text of a plan.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextKey {
    /// The plan.
    pub(crate) plan_id: u64,
}

// SAFETY: repr(C) of u32, u32, u64, u64: no padding.
unsafe impl Plain for StatementKey {}
// SAFETY: numbers of 8 bytes.
unsafe impl Plain for PlanKey {}
// SAFETY: numbers of 8 bytes.
unsafe impl Plain for ErrorKey {}
// SAFETY: numbers of 8 bytes.
unsafe impl Plain for NodeKey {}
// SAFETY: numbers of 8 bytes.
unsafe impl Plain for TextKey {}

impl StatementKey {
    fn hashed(&self) -> Hash {
        let who = u64::from(self.database) << 32 | u64::from(self.user);
        Hash::new(self.top_level).add(who).add(self.query_id)
    }
}

impl Key for StatementKey {
    fn hash(&self) -> u64 {
        self.hashed().value()
    }
}

impl Key for PlanKey {
    fn hash(&self) -> u64 {
        self.statement.hashed().add(self.plan_id).value()
    }
}

impl Key for ErrorKey {
    fn hash(&self) -> u64 {
        self.statement.hashed().add(self.sqlstate).value()
    }
}

impl Key for NodeKey {
    fn hash(&self) -> u64 {
        Hash::new(self.plan_id).add(self.node).value()
    }
}

impl Key for TextKey {
    fn hash(&self) -> u64 {
        Hash::new(self.plan_id).value()
    }
}
