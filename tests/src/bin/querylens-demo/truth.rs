//! What was run beside what was counted.

use std::fmt::Write;

use querylens_tests::{
    load::{Report, fingerprint},
    status::{AgentStatus, InstanceStatus, Status},
};
use serde_json::{Value, json};

use crate::workload::Workload;

/// One server's end of the comparison.
pub(crate) struct Truth {
    engine: String,
    version: String,
    pid: u32,
    transport: &'static str,
    executed: u64,
    counted: u64,
    instance: Option<InstanceStatus>,
    /// Statements whose counts differ: text, executed, counted.
    differences: Vec<(String, u64, u64)>,
}

impl Truth {
    /// Compares the load generator's report with the agent's status.
    ///
    /// The same statements are meant: those of the generator's script, recognised by the fingerprint of their text. A dedicated database would
    /// not tell them apart from what the generator itself asks at its start (pgbench: the scale and the partitions; client libraries:
    /// settings), which no report of a generator counts. Data was created before the agent started. Each statement is compared by itself, so
    /// that two faults cannot cancel out.
    pub(crate) fn compare(workload: &Workload, report: &Report, status: &Status) -> Truth {
        let instance = status.instance(workload.pid());
        let by_fingerprint = instance.map(InstanceStatus::by_fingerprint).unwrap_or_default();
        let executed = report.by_fingerprint(workload.engine());
        let count = |fingerprint: &str| by_fingerprint.get(fingerprint).copied().unwrap_or(0);
        let differences = report.executed.keys().filter_map(|text| {
            let fingerprint = fingerprint(workload.engine(), text);
            let (executed, counted) = (executed[&fingerprint], count(&fingerprint));
            (executed != counted).then(|| (text.clone(), executed, counted))
        });
        Truth {
            engine: workload.engine().to_string(),
            version: workload.version().to_owned(),
            pid: workload.pid(),
            transport: workload.transport().name(),
            executed: report.total(),
            counted: executed.keys().map(|fingerprint| count(fingerprint)).sum(),
            instance: instance.cloned(),
            differences: differences.collect(),
        }
    }

    /// Whether every statement was counted as often as it was run.
    pub(crate) fn is_exact(&self) -> bool {
        self.differences.is_empty() && self.executed == self.counted
    }

    fn json(&self) -> Value {
        let number = |value: fn(&InstanceStatus) -> f64| self.instance.as_ref().map(value);
        json!({
            "engine": self.engine,
            "version": self.version,
            "pid": self.pid,
            "transport": self.transport,
            "executed": self.executed,
            "counted": self.counted,
            "errors": self.instance.as_ref().map(|instance| instance.errors),
            "p50_us": number(|instance| instance.p50_us),
            "p99_us": number(|instance| instance.p99_us),
        })
    }
}

/// For people.
pub(crate) fn table(rows: &[Truth], agent: &AgentStatus) -> String {
    let mut text = format!(
        "\n{:<10} {:<24} {:>7} {:>5} {:>11} {:>11} {:>7} {:>9} {:>9}\n",
        "engine", "version", "pid", "via", "executed", "counted", "errors", "p50 µs", "p99 µs"
    );
    for row in rows {
        let version: String = row.version.chars().take(24).collect();
        let head = format!(
            "{:<10} {version:<24} {:>7} {:>5} {:>11} {:>11}",
            row.engine, row.pid, row.transport, row.executed, row.counted
        );
        let tail = match &row.instance {
            Some(instance) => format!("{:>7} {:>9.0} {:>9.0}", instance.errors, instance.p50_us, instance.p99_us),
            None => "not found by the agent".to_owned(),
        };
        let _ = writeln!(text, "{head} {tail}");
        for (statement, executed, counted) in &row.differences {
            let _ = writeln!(text, "    {executed} executed, {counted} counted: {statement}");
        }
        if let Some(instance) = row.instance.as_ref().filter(|_| !row.is_exact()) {
            let wire = &instance.wire;
            let _ = writeln!(
                text,
                "    wire {} by {}: {}; losses {:?}",
                wire.state, wire.strategy, wire.reason, instance.losses
            );
        }
    }
    let _ = write!(
        text,
        "agent: {:.0} ms CPU, {:.1} MiB, {} events lost {:?}",
        agent.cpu_ms, agent.rss_mib, agent.events_lost, agent.losses
    );
    text
}

/// For machines, in one line.
pub(crate) fn json(rows: &[Truth], agent: &AgentStatus) -> Value {
    let instances: Vec<Value> = rows.iter().map(Truth::json).collect();
    let agent = json!({ "cpu_ms": agent.cpu_ms, "rss_mib": agent.rss_mib, "events_lost": agent.events_lost });
    json!({ "instances": instances, "agent": agent })
}
