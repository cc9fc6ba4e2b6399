//! The socket tracepoints `sock_send_length` and `sock_recv_length` (kernel 6.3 and later, include/trace/events/sock.h): after each send and
//! receive, on any kind of socket, in the context of the process that called.

use core::ffi::c_void;

use agent_ebpf::{direction, strategy};
use aya_ebpf::{helpers::generated, macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    emit::{self, Io},
    sessions,
    syscall::{self, Syscall},
};

/// `MSG_PEEK`, include/linux/socket.h: the bytes stay and are read again.
const MSG_PEEK: i32 = 2;

/// After a send.
#[btf_tracepoint(function = "sock_send_length")]
pub(crate) fn socket_send(ctx: BtfTracePointContext) -> i32 {
    handle(&ctx, direction::RESPONSE);
    0
}

/// After a receive.
#[btf_tracepoint(function = "sock_recv_length")]
pub(crate) fn socket_receive(ctx: BtfTracePointContext) -> i32 {
    handle(&ctx, direction::REQUEST);
    0
}

#[inline(always)]
fn handle(ctx: &BtfTracePointContext, direction: u8) -> Option<()> {
    let result: i32 = ctx.arg(1);
    // Whatever was wanted: most calls that give nothing are refused here, before anything is looked up.
    let mut io = Io { direction, buffer: 0, result: i64::from(result), wanted: 1 };
    if io.is_nothing(strategy::SOCKET) {
        return None;
    }
    let flags: i32 = ctx.arg(2);
    if flags & MSG_PEEK != 0 && direction == direction::REQUEST {
        return None;
    }
    let sock: *const c_void = ctx.arg(0);
    let place = sessions::of_sock(sock.cast_mut())?;
    // SAFETY: both helpers take and give pointers that the verifier checks.
    let regs = unsafe { generated::bpf_task_pt_regs(generated::bpf_get_current_task_btf()) };
    // SAFETY: the saved registers of the current task, typed by the verifier.
    let call = unsafe { Syscall::of(regs as *const _) };
    io.buffer = syscall::buffer(&call).unwrap_or(0);
    io.wanted = syscall::wanted(&call);
    if io.is_nothing(strategy::SOCKET) {
        return None;
    }
    emit::io(place, &io, strategy::SOCKET);
    Some(())
}
