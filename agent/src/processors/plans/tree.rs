//! A plan as a tree, whichever server made it.

use std::sync::Arc;

/// Nodes that are read of a plan; one with more is not read.
pub(super) const MAX_NODES: usize = 4096;

/// What a node does to its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// Reads a table as a whole.
    SeqScan,
    /// Joins by executing its inner side for each row of the outer one.
    NestedLoop,
    /// Joins by a hash table.
    HashJoin,
    /// Sorts.
    Sort,
    /// Anything else.
    #[default]
    Other,
}

/// One node. Numbers are per loop, as the servers write them. Expressions are without literals.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The server's own name for it.
    pub(super) kind: Arc<str>,
    pub(super) shape: Shape,
    /// What else tells it from others of its kind: join type, strategy, partial mode, direction.
    pub(super) variant: Vec<Arc<str>>,
    /// Table, with its schema where that is known.
    pub(super) relation: Option<Arc<str>>,
    pub(super) index: Option<Arc<str>>,
    /// Expressions that are part of its identity: index, join and sort keys.
    pub(super) keys: Vec<Arc<str>>,
    /// The condition that throws rows away.
    pub(super) filter: Option<Arc<str>>,
    pub(super) cost: f64,
    pub(super) startup_cost: f64,
    pub(super) rows: f64,
    pub(super) width: u64,
    pub(super) actual_rows: Option<f64>,
    pub(super) loops: Option<f64>,
    /// Rows that the filter threw away.
    pub(super) removed: Option<f64>,
    /// Rows that are read for each that is given, where the server estimates that.
    pub(super) examined: Option<f64>,
    pub(super) shared_hit: u64,
    pub(super) shared_read: u64,
    pub(super) temp_read: u64,
    pub(super) temp_written: u64,
    /// Kilobytes of a sort on disk, or batches of a hash beyond the first.
    pub(super) spilled: Option<f64>,
    pub(super) children: Vec<Node>,
}

impl Node {
    /// Calls `see` for each node, topmost first, with its depth from 1.
    pub(super) fn walk<'a>(&'a self, see: &mut impl FnMut(&'a Node, u32)) {
        // The parsers allow no deeper tree than serde_json reads, which is 128 levels of JSON.
        fn step<'a>(node: &'a Node, depth: u32, see: &mut impl FnMut(&'a Node, u32)) {
            see(node, depth);
            node.children.iter().for_each(|child| step(child, depth + 1, see));
        }
        step(self, 1, see);
    }

    /// Rows that it read, over all loops: those it gave and those it threw away. As executed, else as estimated.
    pub(super) fn rows_read(&self) -> f64 {
        let loops = self.loops.unwrap_or(1.0);
        match (self.actual_rows, self.examined) {
            (Some(given), _) => (given + self.removed.unwrap_or(0.0)) * loops,
            (None, Some(examined)) => examined,
            (None, None) => self.rows,
        }
    }

    /// How far its estimate was off, if it was executed.
    pub(super) fn estimate_error(&self) -> Option<f64> {
        let actual = self.actual_rows.filter(|_| self.loops.unwrap_or(1.0) > 0.0)?.max(1.0);
        let estimated = self.rows.max(1.0);
        Some((actual / estimated).max(estimated / actual))
    }
}
