//! What only the database knows: asked over at most two connections, with hard time limits, each question behind a gate, and each on the highest rung of
//! its ladder that holds. The only part that logs in to databases.
//!
//! [`Collector`] asks one server. What it publishes is [`crate::model::Collected`]; nothing in it holds a literal, a password or a row of anybody's table.
//!
//! - `login` finds a way in, `session` keeps its limits, `failure` tells errors apart.
//! - `facts` are what a server is and grants, `ladder` what can be asked of it then.
//! - `postgres` and `mysql` hold the questions, each beside the decoding of its answer.
//! - `kernel` reads what the server's tasks use, `budget` what the agent's own questions may.
//! - `delta`, `statements`, `blocking`, `history`, `samples`, `activity`, `settings` and `schedule` compute and do nothing else.

mod activity;
mod blocking;
mod budget;
mod collector;
pub mod config;
mod delta;
mod facts;
mod failure;
mod gate;
mod history;
mod kernel;
mod ladder;
mod login;
mod mysql;
mod own;
mod points;
mod postgres;
mod row;
mod samples;
mod schedule;
mod session;
mod settings;
mod statements;

pub use collector::Collector;
pub use config::Config;
pub use gate::{Gate, Held, Open};
