//! The configuration. [`Config`] composes each part's own; a part's defaults, checks and documentation stay with the part.
//!
//! Settings come from layers, the weaker first: defaults, profiles, one optional YAML file, drop-ins beside it, the command line (`layers`). Everything
//! wrong is told at once, with its place. To that end each text becomes a tree of located nodes, the trees are laid over one another (`tree`), serde reads
//! the result (`de`), and whatever it stumbles over is noted, left out and replaced by its default, until the rest reads (`read`).

pub mod diagnostic;
pub mod layers;
pub mod log;
pub mod lookup;
pub mod origins;
pub mod profile;
pub mod reference;

mod de;
mod read;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{aggregate, capture, collect, discovery, export, health, model::Problem, processors, store};

pub use capture::Choice;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use layers::{DEFAULT_PATH, Loaded, Stamp, Wanted, load, parse};
pub use lookup::{Host, Lookup};
pub use profile::Profile;

/// Everything that can be set. All of it has a default: the agent needs no configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Shipped settings for a purpose, the weaker first; whatever is set here, in a drop-in or on the command line is stronger.
    pub profiles: Vec<Profile>,
    /// The agent's own log, written to standard error.
    pub log: log::Config,
    /// How servers are looked for.
    pub discovery: discovery::Config,
    /// How queries are seen on the wire.
    pub capture: capture::Config,
    /// How much is remembered about statements and sessions.
    pub aggregate: aggregate::Config,
    /// What databases are asked, and as whom.
    pub collect: collect::Config,
    /// What happens to signals before they leave, and what keeps databases from being asked.
    pub processors: processors::Config,
    /// What leaves the agent, and to where.
    pub export: export::Config,
    /// What is kept over a restart.
    pub state: store::Config,
    /// The agent's HTTP end points: `/metrics`, `/status`, `/health/live`, `/health/ready`.
    pub health: health::Config,
}

impl Config {
    /// What the parts cannot work with, though its type is right; keys from the root.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        beneath("discovery", self.discovery.check())
            .chain(beneath("capture", self.capture.check()))
            .chain(beneath("aggregate", self.aggregate.check()))
            .chain(beneath("collect", self.collect.check()))
            .chain(beneath("processors", self.processors.check()))
            .chain(beneath("state", self.state.check()))
            .chain(beneath("export", self.export.check()))
    }
}

fn beneath(section: &str, problems: impl Iterator<Item = Problem>) -> impl Iterator<Item = Problem> {
    problems.map(move |problem| problem.beneath(section))
}
