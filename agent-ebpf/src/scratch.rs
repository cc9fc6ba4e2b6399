//! What was read last from the server's memory for a session. Unlike the session itself it is out of userspace's sight, since it holds literals.

use core::ffi::c_void;

use agent_ebpf::strategy;
use aya_ebpf::helpers::generated;

use crate::{
    maps::{SCRATCH, SCRATCHES},
    verifier::bounded,
};

/// Bytes kept of a response message whose rest has not come yet.
pub(crate) const CARRY: usize = 64;
/// Bytes of a response that are looked at together, behind those kept.
pub(crate) const WINDOW: usize = 192;
/// Bytes of a request that are looked at together.
pub(crate) const SIZE: usize = CARRY + WINDOW;
/// Words are read at any place, so that the last one ends behind the bytes.
const BEHIND: usize = size_of::<u64>();

/// The bytes: of a request from its beginning, of a response those kept and the window.
#[repr(C)]
pub(crate) struct Scratch([u8; SIZE + BEHIND]);

impl Scratch {
    /// Fills the part from `FROM` on with what lies at `at`, at most `len` bytes; whether it could be read.
    #[inline(always)]
    pub(crate) fn fill<const FROM: usize, const N: usize>(&mut self, at: u64, len: u64) -> bool {
        const { assert!(FROM + N <= SIZE) };
        let len = bounded::<N>(len);
        // SAFETY: the target has that much room; the helper checks the user's address itself.
        unsafe { generated::bpf_probe_read_user((&raw mut self.0[FROM]).cast(), len as u32, at as *const c_void) == 0 }
    }

    /// The byte at `at`.
    #[inline(always)]
    pub(crate) fn byte(&self, at: u64) -> u8 {
        self.0[at as usize & (SIZE - 1)]
    }

    /// The eight bytes from `at` on, the first one lowest.
    #[inline(always)]
    pub(crate) fn word(&self, at: u64) -> u64 {
        // SAFETY: the place is masked, and there are as many bytes behind the last one.
        unsafe { load(self.0.as_ptr().add(at as usize & (SIZE - 1))) }
    }

    /// Copies the last bytes before `end` to where `other` keeps them.
    #[inline(always)]
    pub(crate) fn keep(&self, end: u64, other: &mut Scratch) {
        let from = end - CARRY as u64;
        for at in (0..CARRY).step_by(size_of::<u64>()) {
            let word = self.word(from + at as u64);
            // SAFETY: within the part of those kept, which is a multiple of a word.
            unsafe { other.0.as_mut_ptr().add(at).cast::<u64>().write(word.to_le()) };
        }
    }
}

/// The scratch of a session for what goes in `direction`. A program at a tracepoint is not run on a processor while it runs there already
/// (`__bpf_trace_run`, kernel/trace/bpf_trace.c), so that it may use the processor's own; probes may be interrupted by others. The
/// strategies have places of their own, since the kernel may one day run another program in between.
#[inline(always)]
pub(crate) fn of(session: u32, direction: u8, strategy: u32) -> Option<*mut Scratch> {
    match strategy {
        strategy::BOUNDARY => kept(session),
        strategy::SYSCALL => SCRATCH.get_ptr_mut(2 + u32::from(direction & 1)),
        _ => SCRATCH.get_ptr_mut(u32::from(direction & 1)),
    }
}

/// Where the bytes are that a session keeps from write to write.
#[inline(always)]
pub(crate) fn kept(session: u32) -> Option<*mut Scratch> {
    SCRATCHES.get_ptr_mut(session)
}

/// Eight bytes at any address: the compiler would read them one by one, though every machine with eBPF to speak of reads them as one
/// (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`, of which the verifier makes sure).
///
/// # Safety
/// There must be eight bytes at `at`.
#[inline(always)]
unsafe fn load(at: *const u8) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: by contract.
    unsafe {
        let word: u64;
        core::arch::asm!("{word} = *(u64 *)({at} + 0)", word = out(reg) word, at = in(reg) at, options(readonly, nostack));
        u64::from_le(word)
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: by contract.
    unsafe {
        u64::from_le(at.cast::<u64>().read_unaligned())
    }
}
