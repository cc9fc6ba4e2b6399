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
    (
        $(#[doc = $about:literal])* $module:ident, $all:ident:
        $($id:ident = $name:literal, $unit:literal, $instrument:ident, $description:literal, $attributes:expr;)*
    ) => {
        $(#[doc = $about])*
        pub mod $module {
            #[allow(unused_imports, reason = "not every catalogue has groups")]
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

        $(#[doc = $about])*
        pub static $all: &[&Metric] = &[$(&$module::$id,)*];
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
    TRANSACTION_OUTCOME = "querylens.transaction.outcome", "How the transaction ended: committed or rolled_back; the latter also with its connection";
    WIRE_STRATEGY = "querylens.wire.strategy", "How the agent attaches to the server: boundary, socket, syscall or none";
    LOSS_CAUSE = "querylens.loss.cause", "Why something was lost, cut or refused";
    BLOCK_STATE = "querylens.block.state", "What was done to a block: hit, read, dirtied, written; temp_read and temp_written for temporary files";
    WAIT_CLASS = "querylens.wait.class", "Class of what a session waits for, in the server's words; `CPU` for nothing";
    DISK_IO_DIRECTION = "disk.io.direction", "`read` or `write`";
    JOIN = "querylens.join", "Whether the server's count of a statement was found: matched, ambiguous or unmatched";
    SESSION_TRANSPORT = "querylens.session.transport", "Over what the sessions seen so far came: unix, tcp, tcp+unix or none";
    // Points: the processors.
    PROCESSOR = "querylens.processor", "Stage of the chain of processors";
    SIGNAL = "querylens.signal", "Kind of signal: interval, execution, plan, activity, blocking, fact or finding";
    REASON = "querylens.reason", "Why something was discarded or refused, or how it ended";
    QUESTION = "querylens.question", "What a server is asked; empty for the server as a whole";
    CACHE = "querylens.cache", "Which of a processor's caches";
    SAMPLING_RULE = "sampling.rule", "Rule that decided to keep an execution";
    TOPIC = "querylens.finding.topic", "What a finding is about";
    FEEDBACK_CATEGORY = "feedback.category", "What a feedback about the data is about";
    PII_CLASS = "querylens.pii.class", "Kind of private text";
    DIMENSION = "querylens.dimension", "Attribute whose distinct values are counted";
    RULE = "querylens.rule", "Rule of a receiver that a record would have broken";
    METRIC = "querylens.metric", "Name of a metric whose series are counted";
    // Logs and spans: single records.
    QUERY_DURATION = "querylens.query.duration", "Duration of one execution in seconds";
    QUERY_ROWS = "querylens.query.rows", "Rows that one execution sent and changed";
    SAMPLING_WEIGHT = "sampling.weight", "Executions that a shown one stands for; the sum of all weights estimates the number of all";
    APPLICATION = "querylens.session.application", "What the client calls itself";
    SESSION_PROCESS = "querylens.session.process", "Process or thread of the server that serves the session";
    SESSION_CONNECTION = "querylens.session.connection", "Connection of the session: the inode number of the server's socket";
    TRANSACTION_POSITION = "querylens.transaction.position", "Number of the statement in its transaction, or in its session outside of one";
    REPEATS = "querylens.query.repeats", "How often the same statement ran right before in its session";
    RETRY = "querylens.query.retry", "Whether it repeats one that had failed";
    CIRCUIT = "querylens.circuit", "State of the server's circuit: closed, half_open or open";
    PLAN_ID = "db.query.plan.hash", "Identity of a plan by its structure, 16 hexadecimal digits";
    PLAN_PREVIOUS = "db.query.plan.previous_hash", "Identity of the plan that a statement had before";
    PLAN_TEXT = "db.query.plan", "Plan without literals, as JSON";
    PLAN_SOURCE = "db.query.plan.source", "Who told the plan: pg_querylens, auto_explain or explain";
    PLAN_OPERATION = "db.query.plan.operation", "Type of the topmost node";
    PLAN_COST = "db.query.plan.cost", "Total cost in the planner's units";
    PLAN_ROWS = "db.query.plan.rows", "Rows that the topmost node was expected to give";
    PLAN_DEPTH = "db.query.plan.depth", "Nodes from the topmost to the lowest";
    PLAN_SEQ_SCAN = "db.query.plan.has_seq_scan", "Whether some table is read as a whole";
    PLAN_NESTED_LOOP = "db.query.plan.has_nested_loop", "Whether some join is a nested loop";
    PLAN_SPILLS = "db.query.plan.spills", "Whether a sort or hash went to disk";
    WAIT_EVENT = "querylens.wait.event", "What a session waits for, in the server's words";
    LASTING = "querylens.session.lasting", "Seconds since a session is in its state";
    BLOCKER_PROCESS = "querylens.blocker.process", "Process or thread of the session that is waited for";
    LOCK_MODE = "querylens.lock.mode", "Mode of the lock that is waited for";
    FINDING_OBJECTS = "querylens.finding.objects", "Tables, columns and nodes that a finding is about, the most important first";
    FINDING_EVIDENCE = "querylens.finding.evidence", "What a finding rests on: names and numbers";
    SEVERITY = "querylens.severity", "low up to 2 times, medium above 2, high above 5, critical above 10; or info, warning, error";
    SUBJECT = "querylens.subject", "What a notice of the agent is about";
    VALUE = "querylens.value", "What was measured";
    LIMIT = "querylens.limit", "What it was compared with";
    REMEDIATION = "feedback.remediation", "What to do about it";
    HELD_BACK = "feedback.suppressed", "Notices of the same kind that were held back since the one before";
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
    /// Metrics of servers and of the agent.
    metric, METRICS:
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
    SERVER_TRANSACTION_DURATION = "querylens.server.transaction.duration", "s", Histogram,
        "Time from the statement that opened a transaction block to the end of the one that ended it",
        &[a::DB_SYSTEM_NAME, a::TRANSACTION_OUTCOME];
    SERVER_TRANSACTION_IDLE = "querylens.server.transaction.idle", "s", Counter,
        "Time within transaction blocks that ended in which the server waited for its client", &[a::DB_SYSTEM_NAME];
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

metrics! {
    /// Metrics of the processors.
    processor_metric, PROCESSOR_METRICS:
    STAGE_RECORDS = "querylens.processor.records", "{record}", Counter,
        "Records that came to a stage", &[a::PROCESSOR];
    STAGE_MADE = "querylens.processor.made", "{record}", Counter,
        "Records that a stage made", &[a::PROCESSOR];
    STAGE_DISCARDED = "querylens.processor.discarded", "{record}", Counter,
        "Records that a stage took out", &[a::PROCESSOR, a::REASON, a::SIGNAL];
    STAGE_TIME = "querylens.processor.time", "s", Counter,
        "Time that a stage took", &[a::PROCESSOR];
    MEMORY_PERCENT = "querylens.memory_guard.usage", "%", Gauge,
        "Memory in use of what the agent may use", &[];
    MEMORY_LEVEL = "querylens.memory_guard.level", "1", Gauge,
        "What is shed: 0 nothing, 1 examples by chance, 2 plans too, 3 all but statistics and findings", &[];
    MEMORY_SHED = "querylens.memory_guard.shed", "{record}", Counter,
        "Records that went because memory was short", &[];
    CIRCUIT_STATE = "querylens.circuit_breaker.state", "1", Gauge,
        "State of a circuit: 0 closed, 1 half open, 2 open", &[a::SERVICE_INSTANCE_ID, a::QUESTION];
    CIRCUIT_TRIPS = "querylens.circuit_breaker.trips", "{trip}", Counter,
        "Times that a circuit was opened", &[];
    CIRCUIT_RECOVERY_ATTEMPTS = "querylens.circuit_breaker.recovery_attempts", "{attempt}", Counter,
        "Questions that were asked to see whether a server is well again", &[];
    CIRCUIT_RECOVERIES = "querylens.circuit_breaker.recoveries", "{recovery}", Counter,
        "Times that a circuit closed again", &[];
    CIRCUIT_RECOVERY_TIME = "querylens.circuit_breaker.recovery_time", "s", Counter,
        "Time from opening to closing, over all recoveries", &[];
    CIRCUIT_FAILURES = "querylens.circuit_breaker.failures", "{failure}", Counter,
        "Questions that got no good answer", &[a::ERROR_TYPE];
    CIRCUIT_REFUSALS = "querylens.circuit_breaker.refusals", "{question}", Counter,
        "Questions that were not asked", &[a::REASON];
    CIRCUIT_EVICTIONS = "querylens.circuit_breaker.evictions", "{server}", Counter,
        "Servers whose circuits were forgotten for want of room", &[];
    VERIFICATION_RECORDS = "querylens.verification.records", "{record}", Counter,
        "Records that were verified", &[];
    VERIFICATION_FAILURES = "querylens.verification.failures", "{failure}", Counter,
        "Things that were odd about the data", &[a::FEEDBACK_CATEGORY];
    VERIFICATION_QUALITY = "querylens.verification.quality", "1", Gauge,
        "Quality of the data: 1 less 0.3 of the share that lacks something and 0.2 of the share that cannot be", &[];
    VERIFICATION_FEEDBACK_HELD_BACK = "querylens.verification.feedback_held_back", "{feedback}", Gauge,
        "Feedbacks that wait to be told as a number", &[];
    PII_DETECTED = "querylens.verification.pii_detected", "{text}", Counter,
        "Texts in which something private was found", &[a::PII_CLASS];
    PII_ANONYMIZED = "querylens.verification.pii_anonymized", "{record}", Counter,
        "Records out of which something private was taken", &[];
    CARDINALITY = "querylens.verification.cardinality", "{value}", Gauge,
        "Distinct values in this UTC day", &[a::SIGNAL, a::DIMENSION];
    HEALING = "querylens.verification.healing", "{remedy}", Counter,
        "Remedies tried, troubles healed and given up", &[a::REASON];
    PLANS_READ = "querylens.plan_attributes.plans", "{plan}", Counter,
        "Plans that were read", &[];
    PLANS_UNREADABLE = "querylens.plan_attributes.unreadable", "{plan}", Counter,
        "Plans that were no plan of their engine, or too large", &[];
    PLANS_WITHHELD = "querylens.plan_attributes.withheld", "{plan}", Counter,
        "Plans whose text was too long to be sent", &[];
    PLAN_CHANGES = "querylens.plan_attributes.changes", "{change}", Counter,
        "Times that a statement changed its plan", &[];
    PLAN_STATEMENTS = "querylens.plan_attributes.statements", "{statement}", Gauge,
        "Statements whose plans and speed are remembered", &[];
    PLAN_EVICTIONS = "querylens.plan_attributes.evictions", "{statement}", Counter,
        "Statements that were forgotten for want of room", &[];
    FINDINGS = "querylens.findings", "{finding}", Counter,
        "Conclusions about statements", &[a::TOPIC];
    CORRELATOR_SESSIONS = "querylens.query_correlator.sessions", "{session}", Gauge,
        "Sessions that are followed", &[];
    CORRELATOR_EVICTIONS = "querylens.query_correlator.evictions", "{session}", Counter,
        "Sessions that were forgotten for want of room", &[];
    CORRELATOR_RETRIES = "querylens.query_correlator.retries", "{execution}", Counter,
        "Executions that repeated one that had failed", &[];
    SAMPLER_EXECUTIONS = "querylens.adaptive_sampler.records_processed", "{execution}", Counter,
        "Executions that came to the sampler", &[];
    SAMPLER_KEPT = "querylens.adaptive_sampler.records_kept", "{execution}", Counter,
        "Executions that were kept", &[];
    SAMPLER_TARGET = "querylens.adaptive_sampler.target_rate", "{execution}/s", Gauge,
        "Executions to keep in a second, as far as there is room", &[];
    SAMPLER_RATE = "querylens.adaptive_sampler.current_sample_rate", "1", Gauge,
        "Share of the executions that a rule keeps now", &[a::SAMPLING_RULE];
    SAMPLER_RULE_MATCHES = "querylens.adaptive_sampler.rule_matches", "{execution}", Counter,
        "Executions by the rule that decided", &[a::SAMPLING_RULE];
    SAMPLER_WEIGHT_LOST = "querylens.adaptive_sampler.weight_lost", "{execution}", Counter,
        "Executions that no example stands for, because their statement was forgotten", &[];
    SAMPLER_KERNEL_ONE_IN = "querylens.adaptive_sampler.kernel_one_in", "{execution}", Gauge,
        "Of so many executions the kernel is asked to show one", &[];
    SAMPLER_CACHE_HIT_RATE = "querylens.adaptive_sampler.cache_hit_rate", "1", Gauge,
        "Share of the plans that had been shown a short time before", &[];
    SAMPLER_CACHE_SIZE = "querylens.adaptive_sampler.cache_size", "{entry}", Gauge,
        "Entries of a cache", &[a::CACHE];
    SAMPLER_CACHE_EVICTIONS = "querylens.adaptive_sampler.cache_evictions", "{entry}", Counter,
        "Entries that were forgotten for want of room", &[a::CACHE];
    COST_BYTES = "querylens.cost_control.bytes", "By", Gauge,
        "Bytes of this month", &[];
    COST_INSTANCE_BYTES = "querylens.cost_control.instance_bytes", "By", Gauge,
        "Bytes of this month by server", &[a::SERVICE_INSTANCE_ID];
    COST_SIGNAL_BYTES = "querylens.cost_control.signal_bytes", "By", Gauge,
        "Bytes of this month by kind of signal", &[a::SIGNAL];
    COST_SPENT = "querylens.cost_control.spent", "{USD}", Gauge,
        "What this month has cost so far", &[];
    COST_FORECAST = "querylens.cost_control.forecast", "{USD}", Gauge,
        "What this month will come to", &[];
    COST_BUDGET = "querylens.cost_control.budget", "{USD}", Gauge,
        "What a month may cost", &[];
    COST_RUNG = "querylens.cost_control.rung", "1", Gauge,
        "What is left out: 0 nothing to 4 all but totals, top statements, failures and findings", &[];
    NEWRELIC_MENDS = "querylens.error_monitor.mends", "{mend}", Counter,
        "Things mended that New Relic would have refused", &[a::RULE, a::SIGNAL];
    NEWRELIC_ANSWERS = "querylens.error_monitor.answers", "{answer}", Counter,
        "Answers of New Relic by what they meant", &[a::REASON];
    NEWRELIC_REJECTED = "querylens.error_monitor.rejected", "{point}", Counter,
        "Points and faults that New Relic rejected", &[];
    NEWRELIC_STOPPED = "querylens.error_monitor.stopped", "1", Gauge,
        "1 while nothing is sent because the key or the address is wrong", &[];
    NEWRELIC_SERIES = "querylens.error_monitor.series", "{series}", Gauge,
        "Series of a metric in this UTC day", &[a::METRIC];
}

/// Names of events: `event_name` of log records.
pub mod event {
    /// One execution, as an example.
    pub const EXECUTION: &str = "db.server.query_sample";
    /// A plan of a statement.
    pub const PLAN: &str = "querylens.plan";
    /// A session at one moment.
    pub const ACTIVITY: &str = "querylens.activity";
    /// A session that waits for another one.
    pub const BLOCKING: &str = "querylens.blocking";
    /// What the agent concluded.
    pub const FINDING: &str = "querylens.finding";
    /// Something about the data that is worth knowing.
    pub const FEEDBACK: &str = "querylens.feedback";
    /// Something that somebody should know at once.
    pub const ALERT: &str = "querylens.alert";
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
        for metric in METRICS.iter().chain(PROCESSOR_METRICS) {
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
        let descriptions = METRICS.iter().chain(PROCESSOR_METRICS).map(|metric| metric.description);
        for description in descriptions.chain(ATTRIBUTES.iter().map(|attribute| attribute.description)) {
            assert!(!description.is_empty() && !description.ends_with('.'), "{description}");
        }
    }

    #[test]
    fn metrics_have_only_known_attributes() {
        for metric in METRICS.iter().chain(PROCESSOR_METRICS) {
            for attribute in metric.attributes {
                assert!(ATTRIBUTES.iter().any(|known| known.name == *attribute), "{}: {attribute}", metric.name);
            }
        }
    }
}
