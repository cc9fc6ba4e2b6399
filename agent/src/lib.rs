//! Querylens: zero-config database observability from the kernel up.
//!
//! The way of the data and who may import whom stand in docs/ARCHITECTURE.md.

pub mod discovery;
pub mod model;
pub mod sql;
pub mod wire;
