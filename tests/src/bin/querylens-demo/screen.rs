//! What the demo shows while it runs.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    time::Duration,
};

use querylens_tests::status::{InstanceStatus, Status};

use crate::workload::Workload;

/// Standard output, or standard error where standard output is for JSON.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    terminal: bool,
    /// Lines of the table on the terminal that the next one replaces.
    drawn: usize,
}

impl Screen {
    /// With `json`, standard output stays clean.
    pub(crate) fn new(json: bool) -> Screen {
        if json {
            Screen { out: Box::new(stderr()), terminal: stderr().is_terminal(), drawn: 0 }
        } else {
            Screen { out: Box::new(stdout()), terminal: stdout().is_terminal(), drawn: 0 }
        }
    }

    /// Text that stays.
    pub(crate) fn say(&mut self, text: &str) {
        self.drawn = 0;
        self.write(&format!("{text}\n"));
    }

    /// The servers now, with the rate since `before`; on a terminal in place of the last table.
    pub(crate) fn table(&mut self, elapsed: Duration, workloads: &[Workload], before: &Status, now: &Status) {
        let mut lines = vec![format!(
            "{:<18} {:>5} {:<8} {:>11} {:>9} {:>7} {:>9} {:>9}  most time in",
            "instance", "via", "wire", "executions", "per s", "errors", "p50 µs", "p99 µs"
        )];
        let seconds = (now.uptime_s - before.uptime_s).max(0.001);
        for workload in workloads {
            let label = workload.label();
            lines.push(match now.instance(workload.pid()) {
                None => format!("{label:<18} not found by the agent"),
                Some(instance) => {
                    let executions = before.instance(workload.pid()).map_or(0, |instance| instance.executions);
                    row(&label, instance, instance.executions.saturating_sub(executions) as f64 / seconds)
                }
            });
        }
        lines.push(format!(
            "{:>3} s   agent: {:.0} ms CPU, {:.0} MiB, {} records, {} lost",
            elapsed.as_secs(),
            now.agent.cpu_ms,
            now.agent.rss_mib,
            now.agent.records,
            now.agent.events_lost
        ));
        let mut text = String::new();
        if self.terminal && self.drawn > 0 {
            // ECMA-48: cursor up, erase below.
            text.push_str(&format!("\x1b[{}A\x1b[J", self.drawn));
        }
        text.push_str(&lines.join("\n"));
        text.push('\n');
        self.write(&text);
        self.drawn = lines.len();
    }

    fn write(&mut self, text: &str) {
        // Nobody is left to be told if nobody reads any more.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

fn row(label: &str, instance: &InstanceStatus, rate: f64) -> String {
    let top = instance.statements.iter().max_by(|a, b| a.total_ms.total_cmp(&b.total_ms));
    let wire = if instance.wire.state == "visible" { &instance.wire.strategy } else { &instance.wire.state };
    let text: String = top.map_or("", |row| row.text.as_str()).chars().take(48).collect();
    format!(
        "{label:<18} {:>5} {wire:<8} {:>11} {rate:>9.0} {:>7} {:>9.0} {:>9.0}  {text}",
        instance.transport, instance.executions, instance.errors, instance.p50_us, instance.p99_us
    )
}
