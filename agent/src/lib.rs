//! Querylens: zero-config database observability from the kernel up.
//!
//! The way of the data and who may import whom stand in docs/ARCHITECTURE.md.

pub mod aggregate;
pub mod capture;
pub mod cli;
pub mod collect;
pub mod config;
pub mod discovery;
pub mod enrich;
pub mod export;
pub mod health;
pub mod model;
pub mod processors;
pub mod replay;
pub mod runtime;
pub mod sql;
pub mod store;
pub mod wire;
