//! What is read out of a plan: its identity and its attributes.

use twox_hash::XxHash3_64;

use super::tree::{Node, Shape};
use crate::model::signal::{PlanFacts, PlanId};

/// Identity: node kinds, variants, tables, indexes and keys in their order in the tree. No costs, rows, literals, aliases.
pub(super) fn identity(top: &Node) -> PlanId {
    fn write(node: &Node, bytes: &mut Vec<u8>) {
        // Lengths before texts, so that no two trees write the same bytes.
        let mut text = |text: &str| {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        text(&node.kind);
        text(node.relation.as_deref().unwrap_or_default());
        text(node.index.as_deref().unwrap_or_default());
        for list in [&node.variant, &node.keys] {
            text(&list.len().to_string());
            list.iter().for_each(|item| text(item));
        }
        bytes.extend_from_slice(&(node.children.len() as u32).to_le_bytes());
        node.children.iter().for_each(|child| write(child, bytes));
    }
    let mut bytes = Vec::new();
    write(top, &mut bytes);
    PlanId(XxHash3_64::oneshot(&bytes))
}

/// Attributes of the whole tree.
pub(super) fn facts(top: &Node) -> PlanFacts {
    let mut facts = PlanFacts {
        operation: top.kind.clone(),
        cost: top.cost,
        startup_cost: top.startup_cost,
        rows: top.rows,
        width: top.width,
        actual_rows: top.actual_rows.map(|rows| rows * top.loops.unwrap_or(1.0)),
        // Buffers of a node hold those of the nodes beneath.
        shared_hit: top.shared_hit,
        shared_read: top.shared_read,
        temp_read: top.temp_read,
        temp_written: top.temp_written,
        estimate_error: 1.0,
        ..PlanFacts::default()
    };
    top.walk(&mut |node, depth| {
        facts.nodes += 1;
        facts.depth = facts.depth.max(depth);
        match node.shape {
            Shape::SeqScan => {
                facts.has_seq_scan = true;
                facts.seq_scan_rows = facts.seq_scan_rows.max(node.rows_read());
            }
            Shape::NestedLoop => facts.has_nested_loop = true,
            Shape::HashJoin => facts.has_hash_join = true,
            Shape::Sort => facts.has_sort = true,
            Shape::Other => {}
        }
        facts.spills |= node.spilled.is_some();
        facts.estimate_error = facts.estimate_error.max(node.estimate_error().unwrap_or(1.0));
    });
    facts
}
