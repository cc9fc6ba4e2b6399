//! Every metric and attribute name that leaves the agent. Raw strings elsewhere are a defect.

/// Metric names.
pub mod metric {
    /// Histogram, seconds: duration of database operations seen at the server.
    pub const SERVER_OPERATION_DURATION: &str = "db.server.operation.duration";
    /// The same under the name of the client convention, chosen by `export.operation_duration_name`.
    pub const CLIENT_OPERATION_DURATION: &str = "db.client.operation.duration";
}
