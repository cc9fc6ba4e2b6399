//! Which plan it is: an identity by structure.
//!
//! What makes a plan: the kinds of its nodes and how they hang together, join types, strategies, the relations and indexes that it reads, the keys by
//! which it looks up, joins, sorts and groups, and what runs in parallel. What does not: costs, constants, parameters, filters, output columns, the
//! number of workers, and the numbers that the range table happens to give to relations. A relation is known by its oid and, where a plan reads
//! it several times, by which time it is.
//!
//! Numbers of node types differ from one major version to the next, so kinds have numbers of their own ([`kinds`]).
//!
//! Beside the exact identity there is a *collapsed* one, in which the partitions of a table are taken for one: it does not change when a partition is
//! added, nor with the partition that a query happens to need.

mod expression;
mod hash;
mod kinds;
mod list;
mod relations;
mod walk;

pub(crate) use expression::outer_input;
pub(crate) use hash::Hash;
pub(crate) use kinds::{kind, node_name};
pub(crate) use list::{items, nth};
pub(crate) use walk::{Identity, identify};
