//! Reading the server's own memory.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated;

use crate::verifier::bounded;

/// What lies at `at`; all zero if it cannot be read (`bpf_probe_read_user` clears its target then). An `Option` would make the compiler
/// read registers that the verifier knows to be unset.
#[inline(always)]
pub(crate) fn peek<T: Copy>(at: u64) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the user's address itself and fills the whole target either way; only plain integers and arrays of them are read.
    unsafe {
        generated::bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, at as *const c_void);
        value.assume_init()
    }
}

/// Fills the beginning of `target` with what lies at `at`, at most `len` bytes; whether it could be read.
#[inline(always)]
pub(crate) fn fill<const N: usize>(target: *mut u8, at: u64, len: u64) -> bool {
    let part = bounded::<N>(len);
    // SAFETY: the caller's target has N bytes; the helper checks the user's address itself.
    unsafe { generated::bpf_probe_read_user(target.cast(), part as u32, at as *const c_void) == 0 }
}
