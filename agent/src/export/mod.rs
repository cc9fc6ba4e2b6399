//! The exits: OTLP, Prometheus, console. Each renders a [`Snapshot`](crate::model::Snapshot) and knows nothing of the stages before.

mod attributes;
pub mod console;
mod enriched;
pub mod file;
pub mod host;
pub mod otlp;
pub mod prometheus;
pub mod selection;
pub mod spool;

mod record;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{
    Problem,
    names::{Metric, metric},
};

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
    /// Write single records to a file: examples, findings, notices. Default: nothing.
    pub file: Option<file::Config>,
    /// Serve metrics to Prometheus, at `/metrics` of `health.listen`.
    pub prometheus: prometheus::Config,
    /// Send metrics, logs and traces to OpenTelemetry receivers. Default: none.
    pub otlp: Vec<otlp::Config>,
    /// What waits for receivers that are away.
    pub spool: spool::Config,
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let empty = self.host_name.as_deref().is_some_and(|name| name.trim().is_empty());
        let host = empty.then(|| Problem::new("host_name", "must not be empty"));
        let console = self.console.iter().flat_map(console::Config::check);
        let file = self.file.iter().flat_map(file::Config::check);
        host.into_iter()
            .chain(file.map(|problem| problem.beneath("file")))
            .chain(console.map(|problem| problem.beneath("console")))
            .chain(self.prometheus.check().map(|problem| problem.beneath("prometheus")))
            .chain(self.spool.check().map(|problem| problem.beneath("spool")))
            .chain(
                self.otlp.iter().enumerate().flat_map(|(index, otlp)| {
                    otlp.check().map(move |problem| problem.beneath(&format!("otlp[{index}]")))
                }),
            )
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_key_is_read_and_no_other() {
        let json = r#"{
            "host_name": "db7",
            "operation_duration_name": "db.client.operation.duration",
            "console": { "format": "json", "interval": "1m", "top": 5 },
            "file": { "path": "/var/log/querylens/events.jsonl", "max_mib": 7, "query_text_bytes": 9 },
            "prometheus": { "enabled": false, "max_statements": 3, "query_text_bytes": 9,
                            "buckets": { "first_power": -10, "last_power": 3, "per_octave": 2 } },
            "otlp": [{
                "protocol": "grpc", "endpoint": "https://otlp.example.com:4317", "headers": { "api-key": { "env": "KEY" } },
                "resource": { "deployment.environment.name": "test" }, "signals": ["metrics"], "interval": "30s", "timeout": "5s",
                "compression": "none", "max_request_bytes": 70000, "max_statements": 7, "query_text_bytes": 11,
                "retry": { "initial": "2s", "max": "20s", "elapsed": "40s" },
                "tls": { "ca_file": "/etc/ca.pem", "cert_file": "/etc/cert.pem", "key_file": "/etc/key.pem" }
            }],
            "spool": { "enabled": false, "max_mib": 100, "memory_mib": 3 }
        }"#;
        let config: Config = serde_json::from_str(json).unwrap();
        let again = serde_json::to_value(&config).unwrap();
        let mut expected: serde_json::Value = serde_json::from_str(json).unwrap();
        // A URL is written with its path.
        expected["otlp"][0]["endpoint"] = "https://otlp.example.com:4317/".into();
        assert_eq!(again, expected);
        for (wrong, key) in [
            (r#"{"hostname":"x"}"#, "hostname"),
            (r#"{"console":{"colour":true}}"#, "colour"),
            (r#"{"prometheus":{"buckets":{"le":1}}}"#, "le"),
            (r#"{"otlp":[{"retry":{"jitter":1}}]}"#, "jitter"),
            (r#"{"otlp":[{"tls":{"insecure":true}}]}"#, "insecure"),
        ] {
            let error = serde_json::from_str::<Config>(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown field `{key}`")), "{wrong}: {error}");
        }
    }

    #[test]
    fn each_key_is_described_in_the_schema() {
        fn check(schema: &serde_json::Value, path: &str) {
            let properties = schema.get("properties").and_then(serde_json::Value::as_object);
            for (key, property) in properties.into_iter().flatten() {
                assert!(property.get("description").is_some(), "{path}.{key} has no description");
            }
            for (name, definition) in schema.get("$defs").and_then(serde_json::Value::as_object).into_iter().flatten() {
                check(definition, name);
            }
        }
        check(schemars::schema_for!(Config).as_value(), "export");
        check(schemars::schema_for!(crate::health::Config).as_value(), "health");
    }
}
