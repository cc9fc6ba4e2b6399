//! What a statement's server and the kernel know of it, as the agent tells it: a part of `/status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::status::millis;
use crate::model::{Enrichment, Join};

/// What is known of a statement beside the wire's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Whether the server's count was found: `matched`, `ambiguous` or `unmatched`.
    pub join: String,
    /// Where the server's count is from.
    pub source: Option<String>,
    /// The server's own identities of the statement.
    pub ids: Vec<String>,
    /// Executions that the server counted since the agent's first look.
    pub calls: Option<u64>,
    /// Time of these in milliseconds.
    pub exec_ms: Option<f64>,
    /// Time in waits by class, and under `CPU` without one, in milliseconds, estimated from looks.
    pub waits_ms: BTreeMap<String, f64>,
    /// CPU time in milliseconds.
    pub cpu_ms: Option<f64>,
    /// Time waited for a CPU in milliseconds.
    pub run_queue_ms: Option<f64>,
    /// Time waited for block devices in milliseconds, where the kernel counts it.
    pub block_io_ms: Option<f64>,
    /// Bytes read from storage.
    pub read_bytes: Option<u64>,
    /// Bytes sent towards storage.
    pub written_bytes: Option<u64>,
}

impl Known {
    /// Renders it.
    pub fn new(known: &Enrichment) -> Known {
        let join = match known.join {
            Join::Matched => "matched",
            Join::Ambiguous => "ambiguous",
            Join::Unmatched => "unmatched",
        };
        let (server, kernel) = (known.server.as_ref(), known.kernel.as_ref());
        Known {
            join: join.to_owned(),
            source: known.source.map(str::to_owned),
            ids: known.ids.iter().map(|id| id.as_ref().to_owned()).collect(),
            calls: server.map(|server| server.calls),
            exec_ms: server.map(|server| millis(server.exec_time)),
            waits_ms: known.waits.iter().map(|(class, time)| (class.as_ref().to_owned(), millis(*time))).collect(),
            cpu_ms: kernel.map(|kernel| millis(kernel.on_cpu)),
            run_queue_ms: kernel.map(|kernel| millis(kernel.run_queue)),
            block_io_ms: kernel.and_then(|kernel| kernel.block_io).map(millis),
            read_bytes: kernel.and_then(|kernel| kernel.read_bytes),
            written_bytes: kernel.and_then(|kernel| kernel.written_bytes),
        }
    }
}
