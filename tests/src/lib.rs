//! Real servers, load, the agent's process and oracles: everything that the end-to-end tests and the demo share; and recorded wire streams.
//!
//! What is started here is ended on drop, and by the kernel if this process dies first.
pub mod agent;
pub mod bpf;
pub mod capture;
pub mod client;
pub mod cpu;
pub mod extension;
pub mod http;
pub mod layout;
pub mod load;
pub mod metrics;
pub mod oracle;
pub mod process;
pub mod random_sql;
pub mod recorded;
pub mod servers;
pub mod status;
pub mod stream;
