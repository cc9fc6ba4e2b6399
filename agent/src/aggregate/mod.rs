//! Statistics per statement and session.

mod config;

pub use config::Config;
