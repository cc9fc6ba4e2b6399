//! Processes: which ones belong to a watched server, and what begins and ends on the host.

use agent_ebpf::kind;
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::warn;

use crate::{emit, kernel, maps::TARGETS};

/// A process or thread was created: a server's child belongs to the server.
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn process_fork(ctx: BtfTracePointContext) -> i32 {
    inherit(&ctx);
    0
}

#[inline(always)]
fn inherit(ctx: &BtfTracePointContext) -> Option<()> {
    let (parent, _) = kernel::ids(ctx.arg(0))?;
    // SAFETY: copied at once.
    let target = *unsafe { TARGETS.get(parent) }?;
    let (child, thread) = kernel::ids(ctx.arg(1))?;
    if child == thread && TARGETS.insert(child, target, 0).is_err() {
        warn!(ctx, "no room to watch process {}: its sessions are not seen", child);
    }
    Some(())
}

/// A process runs another executable: it is no longer (part of) the server it was forked from, but may become one.
#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn process_exec(ctx: BtfTracePointContext) -> i32 {
    if let Some((tgid, _)) = kernel::ids(ctx.arg(0)) {
        let _ = TARGETS.remove(tgid);
        emit::process(kind::EXEC, 0, tgid);
    }
    0
}

/// A thread ends; the last one of a watched process is reported.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn process_exit(ctx: BtfTracePointContext) -> i32 {
    end(&ctx);
    0
}

#[inline(always)]
fn end(ctx: &BtfTracePointContext) -> Option<()> {
    let task: u64 = ctx.arg(0);
    let (tgid, _) = kernel::ids(task)?;
    // SAFETY: copied at once.
    let target = *unsafe { TARGETS.get(tgid) }?;
    if kernel::last_thread(task) {
        let _ = TARGETS.remove(tgid);
        emit::process(kind::EXIT, target.slot, tgid);
    }
    Some(())
}
