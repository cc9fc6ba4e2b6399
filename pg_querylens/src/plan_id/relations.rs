//! Names for the relations of a plan that do not depend on the range table.

use pgrx::pg_sys;

use super::{
    hash::Hash,
    list::{items, nth},
};

/// Relations of one plan of which it is known how often they have appeared. In plans with more of them, the rest counts as appearing once.
const COUNTED: usize = 64;

/// A value for the exact and one for the collapsed identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Both {
    pub(super) exact: Hash,
    pub(super) collapsed: Hash,
}

impl Both {
    pub(super) const fn new(kind: u64) -> Both {
        Both { exact: Hash::new(kind), collapsed: Hash::new(kind) }
    }

    pub(super) const fn add(self, value: u64) -> Both {
        Both { exact: self.exact.add(value), collapsed: self.collapsed.add(value) }
    }

    pub(super) const fn add_both(self, other: Both) -> Both {
        Both { exact: self.exact.add(other.exact.value()), collapsed: self.collapsed.add(other.collapsed.value()) }
    }
}

/// The relations of one plan.
pub(super) struct Relations {
    rtable: *const pg_sys::List,
    /// By number in the range table: the table of which it is a partition, or itself.
    parents: Vec<usize>,
    labels: Vec<Option<Both>>,
    collapsed: Vec<Option<Hash>>,
    /// What has appeared how often.
    seen: Vec<(u64, u64)>,
}

impl Relations {
    /// # Safety
    ///
    /// `statement` is a valid plan that outlives this.
    pub(super) unsafe fn new(statement: *const pg_sys::PlannedStmt) -> Relations {
        // SAFETY: promised by the caller; the lists hold what their names say.
        unsafe {
            let rtable: *const pg_sys::List = (*statement).rtable;
            let count = rtable.as_ref().map_or(0, |list| usize::try_from(list.length).unwrap_or(0)) + 1;
            let mut parents: Vec<usize> = (0..count).collect();
            for relation in items::<pg_sys::AppendRelInfo>((*statement).appendRelations) {
                // In PostgreSQL, entries of relations without children are removed, and the rest may be null.
                let Some(relation) = relation.as_ref() else { continue };
                if relation.parent_reloid.to_u32() != 0
                    && let Some(parent) = parents.get_mut(relation.child_relid as usize)
                {
                    *parent = relation.parent_relid as usize;
                }
            }
            let seen = Vec::with_capacity(8);
            Relations { rtable, parents, labels: vec![None; count], collapsed: vec![None; count], seen }
        }
    }

    /// Whether it is a partition, or a child by inheritance.
    pub(super) fn is_child(&self, index: usize) -> bool {
        self.parents.get(index).is_some_and(|parent| *parent != index)
    }

    /// The name of the relation with this number in the range table.
    pub(super) fn label(&mut self, index: usize) -> Both {
        if let Some(Some(label)) = self.labels.get(index) {
            return *label;
        }
        let root = self.root(index);
        let exact = self.appear(index);
        let collapsed = match self.collapsed.get(root).copied().flatten() {
            Some(label) => label,
            None if root == index => exact,
            None => self.appear(root),
        };
        if let Some(place) = self.collapsed.get_mut(root) {
            *place = Some(collapsed);
        }
        let label = Both { exact, collapsed };
        if let Some(place) = self.labels.get_mut(index) {
            *place = Some(label);
        }
        label
    }

    /// The topmost table that it belongs to.
    fn root(&self, index: usize) -> usize {
        let mut root = index;
        // No further than there are relations, should the parents go round in a circle.
        for _ in 0..self.parents.len() {
            match self.parents.get(root) {
                Some(parent) if *parent != root => root = *parent,
                _ => break,
            }
        }
        root
    }

    fn appear(&mut self, index: usize) -> Hash {
        let (kind, relation) = self.describe(index);
        let known = kind << 32 | relation;
        let time = match self.seen.iter_mut().find(|(seen, _)| *seen == known) {
            Some((_, times)) => {
                *times += 1;
                *times
            }
            None => {
                if self.seen.len() < COUNTED {
                    self.seen.push((known, 1));
                }
                1
            }
        };
        Hash::new(kind).add(relation).add(time)
    }

    /// Kind of an entry of the range table, and the relation's oid.
    fn describe(&self, index: usize) -> (u64, u64) {
        // SAFETY: promised to `new`: the list holds entries of a range table.
        unsafe {
            let entry = index.checked_sub(1).and_then(|index| nth::<pg_sys::RangeTblEntry>(self.rtable, index));
            match entry.and_then(|entry| entry.as_ref()) {
                Some(entry) => (entry.rtekind as u64, u64::from(entry.relid.to_u32())),
                None => (u64::from(u32::MAX), 0),
            }
        }
    }
}
