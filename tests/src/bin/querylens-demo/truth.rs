//! What was run beside what was counted.

use std::fmt::Write;

use querylens_tests::{
    load::{Comparison, Difference, Report},
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
    refused: u64,
    comparison: Comparison,
    instance: Option<InstanceStatus>,
}

impl Truth {
    /// Compares the load generator's report with the agent's status. Data was created before the agent started, so every execution that the
    /// agent counted of the script's statements comes from the load.
    pub(crate) fn compare(workload: &Workload, report: &Report, status: &Status) -> Truth {
        let instance = status.instance(workload.pid());
        let counted = instance.map(InstanceStatus::by_fingerprint).unwrap_or_default();
        Truth {
            engine: workload.engine().to_string(),
            version: workload.version().to_owned(),
            pid: workload.pid(),
            transport: workload.transport().name(),
            executed: report.total(),
            refused: report.refused,
            comparison: report.compare(workload.engine(), &counted),
            instance: instance.cloned(),
        }
    }

    /// Whether every statement was counted as often as it was run, and every refused one as an error.
    pub(crate) fn is_exact(&self) -> bool {
        let errors = self.instance.as_ref().map(|instance| instance.errors);
        self.comparison.differences.is_empty() && errors == Some(self.refused)
    }

    fn json(&self) -> Value {
        let number = |value: fn(&InstanceStatus) -> f64| self.instance.as_ref().map(value);
        json!({
            "engine": self.engine,
            "version": self.version,
            "pid": self.pid,
            "transport": self.transport,
            "executed": self.executed,
            "counted": self.comparison.counted,
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
            row.engine, row.pid, row.transport, row.executed, row.comparison.counted
        );
        let tail = match &row.instance {
            Some(instance) => format!("{:>7} {:>9.0} {:>9.0}", instance.errors, instance.p50_us, instance.p99_us),
            None => "not found by the agent".to_owned(),
        };
        let _ = writeln!(text, "{head} {tail}");
        for Difference { statement, executed, counted } in &row.comparison.differences {
            let _ = writeln!(text, "    {executed} executed, {counted} counted: {statement}");
        }
        if let Some(instance) = row.instance.as_ref().filter(|_| !row.is_exact()) {
            let wire = &instance.wire;
            let _ = writeln!(text, "    {} refused, {} errors counted", row.refused, instance.errors);
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
