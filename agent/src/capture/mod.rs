//! Bytes of database connections, seen by eBPF programs.

mod config;

pub use config::{Config, Strategy};
