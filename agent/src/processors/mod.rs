//! What happens to signals between being observed and being exported: processors, each pure.
//!
//! Of them, only the circuit [`breaker`] is here yet: it keeps servers that suffer from being asked.
//!
//! Time is an argument, so that a test needs no clock.

pub mod breaker;
pub mod config;
pub mod state;

mod bounded;

pub use config::Config;
