//! The server's own I/O boundary: `secure_read`/`secure_write` of PostgreSQL, the vio functions of MariaDB and MySQL.
//!
//! All of them have the shape `ssize_t f(connection *, buffer, size)`, and the first member of the connection is its file
//! descriptor: `Port.sock` (PostgreSQL, include/libpq/libpq-be.h), `Vio.mysql_socket.fd` (MySQL and MariaDB, include/violite.h).
//! Here TLS and GSS sessions are in the clear too.

use agent_ebpf::{direction, loss, strategy};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use crate::{
    emit::{self, Io},
    kernel,
    maps::{READS, Read, count},
    sessions,
};

#[inline(always)]
fn fd(connection: u64) -> Option<u64> {
    // SAFETY: the helper checks the address itself.
    let fd = unsafe { bpf_probe_read_user(connection as *const i32) }.ok()?;
    u64::try_from(fd).ok()
}

/// Entry of a read: its buffer is filled only when it returns.
#[uprobe]
pub(crate) fn boundary_read(ctx: ProbeContext) -> u32 {
    read_begins(&ctx);
    0
}

#[inline(always)]
fn read_begins(ctx: &ProbeContext) -> Option<()> {
    sessions::target(strategy::BOUNDARY)?;
    let read = Read { fd: fd(ctx.arg(0)?)?, buffer: ctx.arg(1)?, wanted: ctx.arg(2)? };
    READS.insert(bpf_get_current_pid_tgid(), read, 0).ok()
}

/// Return of a read.
#[uretprobe]
pub(crate) fn boundary_read_return(ctx: RetProbeContext) -> u32 {
    read_ends(&ctx);
    0
}

#[inline(always)]
fn read_ends(ctx: &RetProbeContext) -> Option<()> {
    sessions::target(strategy::BOUNDARY)?;
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its own entry.
    let Some(read) = unsafe { READS.get(thread) }.copied() else {
        // A read that was under way when the probe came is normal, but it is still bytes not seen.
        count(loss::NO_ENTRY);
        return None;
    };
    let _ = READS.remove(thread);
    let result: i64 = ctx.ret();
    record(read.fd, Io { direction: direction::REQUEST, buffer: read.buffer, result, wanted: read.wanted })
}

/// Entry of a write.
#[uprobe]
pub(crate) fn boundary_write(ctx: ProbeContext) -> u32 {
    write_begins(&ctx);
    0
}

#[inline(always)]
fn write_begins(ctx: &ProbeContext) -> Option<()> {
    sessions::target(strategy::BOUNDARY)?;
    let fd = fd(ctx.arg(0)?)?;
    let (buffer, size): (u64, u64) = (ctx.arg(1)?, ctx.arg(2)?);
    record(fd, Io { direction: direction::RESPONSE, buffer, result: size as i64, wanted: size })
}

#[inline(always)]
fn record(fd: u64, io: Io) -> Option<()> {
    if io.is_nothing(strategy::BOUNDARY) {
        return None;
    }
    let Some(socket) = kernel::socket_of_fd(fd) else {
        count(loss::NO_SOCKET);
        return None;
    };
    emit::io(sessions::of_socket(strategy::BOUNDARY, &socket)?, &io, strategy::BOUNDARY);
    Some(())
}
