//! System calls: where the caller's buffer lies, and the tracepoint `sys_exit` as a strategy of its own for kernels without the socket tracepoints.

use agent_ebpf::{direction, strategy};
use aya_ebpf::{
    bindings::pt_regs, helpers::bpf_probe_read_user, macros::btf_tracepoint, programs::BtfTracePointContext,
};

use crate::{
    emit::{self, Io},
    kernel, sessions,
};

/// Numbers of the calls that carry bytes over a socket, arch/x86/entry/syscalls/syscall_64.tbl.
#[cfg(not(bpf_target_arch = "aarch64"))]
mod number {
    pub(super) const READ: u64 = 0;
    pub(super) const WRITE: u64 = 1;
    pub(super) const READV: u64 = 19;
    pub(super) const WRITEV: u64 = 20;
    pub(super) const SENDTO: u64 = 44;
    pub(super) const RECVFROM: u64 = 45;
    pub(super) const SENDMSG: u64 = 46;
    pub(super) const RECVMSG: u64 = 47;
}

/// The same, include/uapi/asm-generic/unistd.h.
#[cfg(bpf_target_arch = "aarch64")]
mod number {
    pub(super) const READ: u64 = 63;
    pub(super) const WRITE: u64 = 64;
    pub(super) const READV: u64 = 65;
    pub(super) const WRITEV: u64 = 66;
    pub(super) const SENDTO: u64 = 206;
    pub(super) const RECVFROM: u64 = 207;
    pub(super) const SENDMSG: u64 = 211;
    pub(super) const RECVMSG: u64 = 212;
}

/// Offset of `msg_iov` in `struct user_msghdr` on 64-bit machines, include/linux/socket.h.
const MSG_IOV: u64 = 16;
/// `MSG_PEEK`, include/linux/socket.h.
const MSG_PEEK: u64 = 2;

/// The system call that a thread is in.
pub(crate) struct Syscall {
    number: u64,
    arguments: [u64; 4],
}

impl Syscall {
    /// From the registers saved at its entry.
    ///
    /// # Safety
    /// `regs` must be a pointer that the verifier lets the program read.
    #[cfg(not(bpf_target_arch = "aarch64"))]
    #[inline(always)]
    pub(crate) unsafe fn of(regs: *const pt_regs) -> Syscall {
        // SAFETY: by contract.
        unsafe { Syscall { number: (*regs).orig_rax, arguments: [(*regs).rdi, (*regs).rsi, (*regs).rdx, (*regs).r10] } }
    }

    /// From the registers saved at its entry. `syscallno` and `orig_x0` follow `user_pt_regs` in struct pt_regs, arch/arm64/include/asm/ptrace.h.
    ///
    /// # Safety
    /// `regs` must be a pointer that the verifier lets the program read.
    #[cfg(bpf_target_arch = "aarch64")]
    #[inline(always)]
    pub(crate) unsafe fn of(regs: *const pt_regs) -> Syscall {
        let words = regs.cast::<u64>();
        // SAFETY: by contract; x8 holds the number at entry and is preserved.
        unsafe {
            Syscall { number: *words.add(8), arguments: [*words.add(34), *words.add(1), *words.add(2), *words.add(3)] }
        }
    }
}

/// Where the caller's buffer lies. Of a vector, the first part: the databases use none for their clients.
#[inline(always)]
pub(crate) fn buffer(call: &Syscall) -> Option<u64> {
    let second = call.arguments[1];
    match call.number {
        number::SENDTO | number::RECVFROM | number::READ | number::WRITE => Some(second),
        number::READV | number::WRITEV => user_word(second),
        number::SENDMSG | number::RECVMSG => user_word(user_word(second + MSG_IOV)?),
        _ => None,
    }
}

/// How many bytes the caller wants; 1 where the call does not say it in a register, since all but empty ones are alike.
#[inline(always)]
pub(crate) fn wanted(call: &Syscall) -> u64 {
    match call.number {
        number::SENDTO | number::RECVFROM | number::READ | number::WRITE => call.arguments[2],
        _ => 1,
    }
}

#[inline(always)]
fn user_word(at: u64) -> Option<u64> {
    // SAFETY: the helper checks the address itself.
    unsafe { bpf_probe_read_user(at as *const u64) }.ok()
}

/// After any system call; all but `sendto` and `recvfrom`, which exist for sockets only, are left at once.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    handle(&ctx);
    0
}

#[inline(always)]
fn handle(ctx: &BtfTracePointContext) -> Option<()> {
    let regs: *const pt_regs = ctx.arg(0);
    // SAFETY: typed by the verifier.
    let call = unsafe { Syscall::of(regs) };
    let direction = match call.number {
        number::SENDTO => direction::RESPONSE,
        number::RECVFROM => direction::REQUEST,
        _ => return None,
    };
    let io = Io { direction, buffer: call.arguments[1], result: ctx.arg(1), wanted: call.arguments[2] };
    if io.is_nothing(strategy::SYSCALL) {
        return None;
    }
    sessions::target(strategy::SYSCALL)?;
    if direction == direction::REQUEST && call.arguments[3] & MSG_PEEK != 0 {
        return None;
    }
    let socket = kernel::socket_of_fd(call.arguments[0])?;
    emit::io(sessions::of_socket(strategy::SYSCALL, &socket)?, &io, strategy::SYSCALL);
    Some(())
}
