//! The exits: OTLP, Prometheus, console. Each renders a [`Snapshot`](crate::model::Snapshot) and knows nothing of the stages before.

mod attributes;
pub mod console;
pub mod host;
pub mod prometheus;
pub mod selection;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::names::{Metric, metric};

pub use host::Host;
pub use selection::Selection;

/// What leaves the agent, and to where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this host in everything exported (`host.name`). Default: the kernel's host name, which inside a container is the
    /// container's.
    pub host_name: Option<String>,
    /// Name of the latency metric: `db.server.operation.duration` says what is measured; `db.client.operation.duration` is what
    /// dashboards for client instrumentation read.
    pub operation_duration_name: OperationDurationName,
    /// Print to standard output. Default: nothing.
    pub console: Option<console::Config>,
    /// Serve metrics to Prometheus, at `/metrics` of `health.listen`.
    pub prometheus: prometheus::Config,
}

/// Name of the latency metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationDurationName {
    /// What it is: measured at the server.
    #[default]
    #[serde(rename = "db.server.operation.duration")]
    Server,
    /// The name of the client convention.
    #[serde(rename = "db.client.operation.duration")]
    Client,
}

impl OperationDurationName {
    /// The metric of that name.
    pub fn metric(self) -> &'static Metric {
        match self {
            OperationDurationName::Server => &metric::SERVER_OPERATION_DURATION,
            OperationDurationName::Client => &metric::CLIENT_OPERATION_DURATION,
        }
    }
}
