//! What this kernel and these privileges allow, found by doing it.

use std::io;

use aya::programs::ProgramError;
use serde::Serialize;

use super::Strategy;
use crate::model::Verdict;

/// Verdict on each family of hooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Types of the running kernel and the members that the programs read.
    pub btf: Verdict,
    /// `sched_process_{fork,exec,exit}` through tp_btf.
    pub process: Verdict,
    /// `sock_send_length` and `sock_recv_length` through tp_btf.
    pub socket: Verdict,
    /// `sys_exit` through tp_btf.
    pub syscall: Verdict,
    /// uprobes and uretprobes.
    pub boundary: Verdict,
}

impl Features {
    /// Everything with one verdict: nothing could be tried.
    pub(super) fn all(verdict: &Verdict) -> Features {
        Features {
            btf: verdict.clone(),
            process: verdict.clone(),
            socket: verdict.clone(),
            syscall: verdict.clone(),
            boundary: verdict.clone(),
        }
    }

    /// Verdict on a strategy.
    pub fn strategy(&self, strategy: Strategy) -> &Verdict {
        match strategy {
            Strategy::Boundary => &self.boundary,
            Strategy::Socket => &self.socket,
            Strategy::Syscall => &self.syscall,
        }
    }

    /// By name, for tables.
    pub fn rows(&self) -> [(&'static str, &Verdict); 5] {
        [
            ("kernel types (BTF)", &self.btf),
            ("process events (tp_btf sched_process_*)", &self.process),
            ("strategy socket (tp_btf sock_*_length)", &self.socket),
            ("strategy syscall (tp_btf sys_exit)", &self.syscall),
            ("strategy boundary (uprobes)", &self.boundary),
        ]
    }
}

/// What a person can do about missing privileges.
const PRIVILEGES: &str =
    "run as root, or grant CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_SYS_RESOURCE and CAP_DAC_READ_SEARCH";

/// The verdict that an error amounts to.
pub(super) fn verdict(what: &str, error: &(dyn std::error::Error + 'static)) -> Verdict {
    let mut text = error.to_string();
    let mut os = None;
    let mut source = Some(error);
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            os = error.raw_os_error().or(os);
        }
        if !text.contains(&inner.to_string()) {
            text = format!("{text}: {inner}");
        }
        source = inner.source();
    }
    if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref::<ProgramError>() {
        // The last lines of the verifier's log say what it refuses; the rest is its walk there.
        let log = verifier_log.to_string();
        let mut tail: Vec<&str> = log.lines().rev().filter(|line| !line.trim().is_empty()).take(4).collect();
        tail.reverse();
        text = format!("{io_error}; verifier: {}", tail.join(" | "));
    }
    let text = format!("{what}: {text}");
    match os {
        Some(libc::EPERM | libc::EACCES) if !privileged() => Verdict::Denied(format!("{text}; {PRIVILEGES}")),
        Some(libc::EPERM) => Verdict::Unsupported(format!(
            "{text} (refused although privileged: a kernel in lockdown or one without this hook)"
        )),
        Some(libc::ENOENT | libc::EOPNOTSUPP) => Verdict::Unsupported(text),
        _ if text.contains("unknown BTF type") => {
            Verdict::Unsupported(format!("{text} (this kernel has no such tracepoint)"))
        }
        _ => Verdict::Broken(text),
    }
}

/// Whether the process runs with all capabilities of root.
fn privileged() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}
