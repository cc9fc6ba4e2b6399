//! Every metric and attribute name that leaves the agent, as one catalogue that the exporters and the generated reference read. Raw
//! names elsewhere are a defect.
//!
//! Names and meanings follow OpenTelemetry semantic conventions 1.44 where they have one; what they lack is named `querylens.*`.

/// What kind of instrument a metric is (OpenTelemetry metrics API §Instrument).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    /// Sum that only grows.
    Counter,
    /// Sum that grows and falls; adding it over attributes makes sense.
    UpDownCounter,
    /// Current value; adding it over attributes makes no sense.
    Gauge,
    /// Distribution.
    Histogram,
    /// Constant 1 whose attributes carry facts. Prometheus only: OTLP has resources and attributes for it.
    Info,
}

impl Instrument {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Instrument::Counter => "counter",
            Instrument::UpDownCounter => "up-down counter",
            Instrument::Gauge => "gauge",
            Instrument::Histogram => "histogram",
            Instrument::Info => "info",
        }
    }
}

/// A metric that the agent emits.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its OpenTelemetry name.
    pub name: &'static str,
    /// Its unit in UCUM notation, as OpenTelemetry prescribes.
    pub unit: &'static str,
    /// Kind of instrument.
    pub instrument: Instrument,
    /// What it counts, one sentence without a full stop.
    pub description: &'static str,
    /// Attributes of its points, beside those of the resource.
    pub attributes: &'static [&'static str],
}

/// An attribute of a resource or of a point.
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// What it holds, one sentence without a full stop.
    pub description: &'static str,
}

macro_rules! attributes {
    ($($id:ident = $name:literal, $description:literal;)*) => {
        /// Attribute names.
        pub mod attribute {
            $(#[doc = $description] pub const $id: &str = $name;)*
        }

        /// All attributes.
        pub static ATTRIBUTES: &[Attribute] = &[$(Attribute { name: $name, description: $description },)*];
    };
}

macro_rules! metrics {
    ($($id:ident = $name:literal, $unit:literal, $instrument:ident, $description:literal, $attributes:expr;)*) => {
        /// Metrics.
        pub mod metric {
            use super::{Instrument, Metric, attribute as a, groups as g};
            $(
                #[doc = $description]
                pub static $id: Metric = Metric {
                    name: $name,
                    unit: $unit,
                    instrument: Instrument::$instrument,
                    description: $description,
                    attributes: $attributes,
                };
            )*
        }

        /// All metrics.
        pub static METRICS: &[&Metric] = &[$(&metric::$id,)*];
    };
}

attributes! {
    // Resource: the server.
    SERVICE_NAME = "service.name", "Name of the service; for a database server the value of `db.system.name`";
    SERVICE_VERSION = "service.version", "Version of the server, or of the agent";
    SERVICE_INSTANCE_ID = "service.instance.id", "UUID version 5 that a restart of the server keeps";
    HOST_NAME = "host.name", "Name of the host";
    HOST_ID = "host.id", "Machine id of the host";
    OS_TYPE = "os.type", "Always `linux`";
    SERVER_ADDRESS = "server.address", "Address, host name or Unix socket at which the server accepts connections";
    SERVER_PORT = "server.port", "TCP port at which the server accepts connections";
    PROCESS_PID = "process.pid", "Process id of the server's main process in the agent's pid namespace";
    PROCESS_EXECUTABLE_NAME = "process.executable.name", "File name of the executable";
    PROCESS_EXECUTABLE_PATH = "process.executable.path", "Path of the executable in the server's mount namespace";
    CONTAINER_ID = "container.id", "Id of the container that the server runs in";
    CONTAINER_RUNTIME = "container.runtime", "Container runtime by the shape of the cgroup path";
    K8S_POD_UID = "k8s.pod.uid", "UID of the Kubernetes pod that the server runs in";
    SERVER_PID = "querylens.server.pid", "Process id, on series of a server whose other labels are those of another one";
    DATA_DIRECTORY = "querylens.server.data_directory", "Data directory in the server's mount namespace";
    // Points: the statement.
    DB_SYSTEM_NAME = "db.system.name", "Database software: `postgresql`, `mysql` or `mariadb`";
    DB_NAMESPACE = "db.namespace", "Database (PostgreSQL) or default schema (MySQL); absent where the connection is older than the agent";
    DB_OPERATION_NAME = "db.operation.name", "First keyword of the statement, e.g. `SELECT`";
    DB_COLLECTION_NAME = "db.collection.name", "Table, where the statement has exactly one";
    DB_QUERY_SUMMARY = "db.query.summary", "Operations and targets of the statement, at most 255 bytes";
    DB_QUERY_TEXT = "db.query.text", "Statement text without literals";
    DB_RESPONSE_STATUS_CODE = "db.response.status_code", "SQLSTATE or MySQL error number of failed executions";
    ERROR_TYPE = "error.type", "Same as `db.response.status_code`, or `_OTHER` where an execution failed without a code";
    USER_NAME = "user.name", "Database user; absent where the connection is older than the agent";
    QUERY_FINGERPRINT = "querylens.query.fingerprint", "Identity of the normalised statement, 16 hexadecimal digits";
    NETWORK_IO_DIRECTION = "network.io.direction", "`receive` for requests, `transmit` for responses, seen from the server";
    SESSION_STATE = "querylens.session.state", "What the session does: active, idle, idle_in_transaction, idle_in_failed_transaction, starting, unknown or opaque";
    WIRE_STRATEGY = "querylens.wire.strategy", "How the agent attaches to the server: boundary, socket, syscall or none";
    LOSS_CAUSE = "querylens.loss.cause", "Why something was lost, cut or refused";
    BLOCK_STATE = "querylens.block.state", "What was done to a block: hit, read, dirtied, written; temp_read and temp_written for temporary files";
    WAIT_CLASS = "querylens.wait.class", "Class of what a session waits for, in the server's words; `CPU` for nothing";
    DISK_IO_DIRECTION = "disk.io.direction", "`read` or `write`";
    JOIN = "querylens.join", "Whether the server's count of a statement was found: matched, ambiguous or unmatched";
    SESSION_TRANSPORT = "querylens.session.transport", "Over what the sessions seen so far came: unix, tcp, tcp+unix or none";
}

/// Sets of attributes that several metrics share.
mod groups {
    use super::attribute as a;

    /// Attributes of a statement, and more.
    macro_rules! statement {
        ($($more:ident),*) => {
            &[
                a::DB_SYSTEM_NAME,
                a::DB_NAMESPACE,
                a::USER_NAME,
                a::DB_OPERATION_NAME,
                a::DB_COLLECTION_NAME,
                a::DB_QUERY_SUMMARY,
                a::QUERY_FINGERPRINT,
                $(a::$more),*
            ]
        };
    }

    pub(super) const STATEMENT: &[&str] = statement!();
    pub(super) const STATEMENT_IO: &[&str] = statement!(NETWORK_IO_DIRECTION);
    pub(super) const STATEMENT_ERRORS: &[&str] = statement!(DB_RESPONSE_STATUS_CODE, ERROR_TYPE);
    pub(super) const STATEMENT_DURATION: &[&str] = statement!(DB_QUERY_TEXT, DB_RESPONSE_STATUS_CODE, ERROR_TYPE);
    pub(super) const STATEMENT_BLOCKS: &[&str] = statement!(BLOCK_STATE);
    pub(super) const STATEMENT_WAITS: &[&str] = statement!(WAIT_CLASS);
    pub(super) const STATEMENT_DISK: &[&str] = statement!(DISK_IO_DIRECTION);
    pub(super) const SERVER: &[&str] = &[
        a::SERVICE_VERSION,
        a::PROCESS_PID,
        a::PROCESS_EXECUTABLE_NAME,
        a::PROCESS_EXECUTABLE_PATH,
        a::DATA_DIRECTORY,
        a::CONTAINER_RUNTIME,
        a::CONTAINER_ID,
        a::K8S_POD_UID,
        a::WIRE_STRATEGY,
        a::SESSION_TRANSPORT,
    ];
}

metrics! {
    SERVER_OPERATION_DURATION = "db.server.operation.duration", "s", Histogram,
        "Time from the last byte of a request to the completion message of its response, seen at the server",
        g::STATEMENT_DURATION;
    CLIENT_OPERATION_DURATION = "db.client.operation.duration", "s", Histogram,
        "The same as db.server.operation.duration, in its place if export.operation_duration_name says so",
        g::STATEMENT_DURATION;
    STATEMENT_ERRORS = "querylens.statement.errors", "{execution}", Counter,
        "Executions that failed", g::STATEMENT_ERRORS;
    STATEMENT_RETURNED_ROWS = "querylens.statement.returned_rows", "{row}", Counter,
        "Rows sent to clients", g::STATEMENT;
    STATEMENT_AFFECTED_ROWS = "querylens.statement.affected_rows", "{row}", Counter,
        "Rows inserted, updated or deleted", g::STATEMENT;
    STATEMENT_IO = "querylens.statement.io", "By", Counter,
        "Bytes of requests and responses on the wire", g::STATEMENT_IO;
    STATEMENT_PREPARES = "querylens.statement.prepares", "{prepare}", Counter,
        "Preparations that were not part of an execution", g::STATEMENT;
    STATEMENT_ESTIMATED = "querylens.statement.estimated", "{execution}", Counter,
        "Executions whose duration is an estimate, because several replies shared one write", g::STATEMENT;
    STATEMENT_TRUNCATED = "querylens.statement.truncated", "{execution}", Counter,
        "Executions whose text was cut by the capture limit", g::STATEMENT;
    STATEMENT_SERVER_CALLS = "querylens.statement.server.calls", "{call}", Counter,
        "Executions that the server itself counted since the agent's first look", g::STATEMENT;
    STATEMENT_SERVER_TIME = "querylens.statement.server.time", "s", Counter,
        "Time of execution that the server itself measured", g::STATEMENT;
    STATEMENT_PLANNING_TIME = "querylens.statement.planning.time", "s", Counter,
        "Time of planning, where the server measures it", g::STATEMENT;
    STATEMENT_BLOCKS = "querylens.statement.blocks", "{block}", Counter,
        "Blocks that executions used, by what was done to them", g::STATEMENT_BLOCKS;
    STATEMENT_BLOCK_TIME = "querylens.statement.block.time", "s", Counter,
        "Time of reading and writing blocks, where the server measures it", g::STATEMENT;
    STATEMENT_WAL = "querylens.statement.wal", "By", Counter,
        "Write-ahead log that executions wrote", g::STATEMENT;
    STATEMENT_EXAMINED_ROWS = "querylens.statement.examined_rows", "{row}", Counter,
        "Rows that executions looked at, where the server counts them", g::STATEMENT;
    STATEMENT_WAIT_TIME = "querylens.statement.wait.time", "s", Counter,
        "Time in waits, and under `CPU` without one, estimated from looks at the sessions", g::STATEMENT_WAITS;
    STATEMENT_CPU_TIME = "querylens.statement.cpu.time", "s", Counter,
        "CPU time of executions, counted by the kernel and charged by looks at the sessions", g::STATEMENT;
    STATEMENT_RUN_QUEUE_TIME = "querylens.statement.run_queue.time", "s", Counter,
        "Time that executions waited for a CPU, counted and charged likewise", g::STATEMENT;
    STATEMENT_BLOCK_IO_TIME = "querylens.statement.block_io.time", "s", Counter,
        "Time that executions waited for block devices, counted and charged likewise", g::STATEMENT;
    STATEMENT_CONTEXT_SWITCHES = "querylens.statement.context_switches", "{switch}", Counter,
        "Times that executions were put on a CPU, counted and charged likewise", g::STATEMENT;
    STATEMENT_MAJOR_FAULTS = "querylens.statement.major_faults", "{fault}", Counter,
        "Page faults of executions that read from a device, counted and charged likewise", g::STATEMENT;
    STATEMENT_DISK_IO = "querylens.statement.disk.io", "By", Counter,
        "Bytes that executions read from and sent towards storage, counted and charged likewise", g::STATEMENT_DISK;
    STATEMENT_INFO = "querylens.statement", "", Info,
        "Text of a statement, by fingerprint", &[a::DB_SYSTEM_NAME, a::QUERY_FINGERPRINT, a::DB_QUERY_TEXT];
    SERVER_SESSIONS = "querylens.server.sessions", "{session}", UpDownCounter,
        "Sessions by what they do now", &[a::DB_SYSTEM_NAME, a::SESSION_STATE];
    SERVER_CONNECTS = "querylens.server.connects", "{connection}", Counter,
        "Connections accepted", &[a::DB_SYSTEM_NAME];
    SERVER_CONNECT_FAILURES = "querylens.server.connect_failures", "{connection}", Counter,
        "Connection attempts refused", &[a::DB_SYSTEM_NAME, a::DB_RESPONSE_STATUS_CODE, a::ERROR_TYPE];
    SERVER_LOSSES = "querylens.server.losses", "{event}", Counter,
        "Losses that hit the server's sessions, by cause", &[a::DB_SYSTEM_NAME, a::LOSS_CAUSE];
    SERVER_VISIBLE = "querylens.server.visible", "{server}", UpDownCounter,
        "1 if the agent sees the server's wire, else 0", &[a::DB_SYSTEM_NAME, a::WIRE_STRATEGY];
    SERVER_JOINED = "querylens.server.joined", "{execution}", UpDownCounter,
        "Executions on the wire by whether the server's count of their statements was found", &[a::DB_SYSTEM_NAME, a::JOIN];
    SERVER_INFO = "querylens.server", "", Info,
        "Facts about a server, by service.instance.id", g::SERVER;
    AGENT_CPU_TIME = "querylens.agent.cpu.time", "s", Counter,
        "CPU time of the agent's process, user and system", &[];
    AGENT_PROGRAM_TIME = "querylens.agent.program.time", "s", Counter,
        "Run time of the eBPF programs; absent where kernel.bpf_stats_enabled is 0", &[];
    AGENT_MEMORY_USAGE = "querylens.agent.memory.usage", "By", UpDownCounter,
        "Resident memory of the agent's process", &[];
    AGENT_RECORDS = "querylens.agent.records", "{record}", Counter,
        "Records read from the ring buffer", &[];
    AGENT_LOSSES = "querylens.agent.losses", "{event}", Counter,
        "Records lost, cut or refused, by cause, all servers together", &[a::LOSS_CAUSE];
    AGENT_UPTIME = "querylens.agent.uptime", "s", Gauge,
        "Time since the agent started", &[];
    AGENT_INFO = "querylens.agent", "", Info,
        "The agent's version", &[a::SERVICE_VERSION];
}

/// Value of `error.type` for a failure without a code (semantic conventions, error.type).
pub const ERROR_TYPE_OTHER: &str = "_OTHER";
/// Values of `network.io.direction`.
pub const RECEIVE: &str = "receive";
/// Values of `network.io.direction`.
pub const TRANSMIT: &str = "transmit";
/// `service.name` of the agent and name of the instrumentation scope.
pub const AGENT: &str = "querylens";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert_eq!(metric.unit.is_empty(), metric.instrument == Instrument::Info, "unit of {}", metric.name);
        }
        // A metric that is named like an attribute is refused by some backends. Info metrics never leave through OTLP.
        for attribute in ATTRIBUTES {
            assert!(seen.insert(attribute.name), "{} twice", attribute.name);
        }
        for name in seen {
            assert!(name.len() <= 255, "{name}: OpenTelemetry allows 255 characters");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._0123456789".contains(&byte)), "{name}");
        }
    }

    #[test]
    fn descriptions_are_one_sentence_without_full_stop() {
        let descriptions = METRICS.iter().map(|metric| metric.description);
        for description in descriptions.chain(ATTRIBUTES.iter().map(|attribute| attribute.description)) {
            assert!(!description.is_empty() && !description.ends_with('.'), "{description}");
        }
    }

    #[test]
    fn metrics_have_only_known_attributes() {
        for metric in METRICS {
            for attribute in metric.attributes {
                assert!(ATTRIBUTES.iter().any(|known| known.name == *attribute), "{}: {attribute}", metric.name);
            }
        }
    }
}
