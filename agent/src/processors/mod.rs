//! What happens to signals between being observed and being exported: a chain of processors, each pure.
//!
//! | Stage | What it does |
//! |---|---|
//! | [`memory`] | sheds by priority when the agent's memory is short |
//! | [`breaker`] | marks what comes from a server that must not be asked now; its state is the collectors' gate |
//! | [`verification`] | lets nothing private pass, checks quality, tells what it found |
//! | [`plans`] | reads plans: identity, attributes, changes, regressions, recommendations |
//! | [`correlator`] | sessions, transactions, load shares, repeated statements |
//! | [`sampler`] | keeps the examples that matter, and a share of the rest |
//! | [`cost`] | keeps the month's volume within its budget |
//! | [`newrelic`] | mends what New Relic would refuse |
//!
//! Exact statistics pass all of them; what is shed is examples and texts. Time is an argument, so that a test needs no clock; what a processor
//! wants done comes back as [`Effect`]s, which the runtime carries out.

pub mod breaker;
pub mod chain;
pub mod config;
pub mod correlator;
pub mod cost;
pub mod effects;
pub mod measure;
pub mod memory;
pub mod newrelic;
pub mod plans;
pub mod privacy;
pub mod sampler;
pub mod stage;
pub mod state;
pub mod verification;

mod bounded;
mod bucket;
mod hyperloglog;
mod merge;
#[cfg(test)]
mod testing;

use crate::model::{Batch, Timestamp};

pub use chain::{Chain, StageCounts};
pub use config::Config;
pub use effects::{Alert, Category, Effect, Effects, ExportAction, Feedback, Level, Tuning};
pub use measure::{Label, Measures};
pub use stage::{Field, Io, Stage};
pub use state::StateError;

/// One link of the chain.
pub trait Processor: Send {
    /// Which one it is. [`Stage::io`] tells what it reads and writes.
    fn stage(&self) -> Stage;

    /// Works on a batch. `now` never runs backwards.
    fn process(&mut self, now: Timestamp, batch: &mut Batch, effects: &mut Effects);

    /// Tells the values of its own metrics.
    fn measure(&self, _measures: &mut Measures) {}

    /// What has to survive a restart, as of `now`; `None` if nothing has to. Times in it are wall clock times.
    fn export_state(&self, _moment: state::Moment) -> Option<Result<serde_json::Value, StateError>> {
        None
    }

    /// Takes up what [`Processor::export_state`] gave before a restart. After an error the processor is as if there had been none.
    fn import_state(&mut self, _moment: state::Moment, _state: serde_json::Value) -> Result<(), StateError> {
        Ok(())
    }
}
