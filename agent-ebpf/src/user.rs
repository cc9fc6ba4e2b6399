//! Reading the server's own memory.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated;

/// What lies at `at`; all zero if it cannot be read (`bpf_probe_read_user` clears its target then). An `Option` would make the compiler
/// read registers that the verifier knows to be unset.
#[inline(always)]
pub(crate) fn peek<T: Copy>(at: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the user's address itself and fills the whole target either way; only plain integers and arrays of them are read.
    unsafe {
        generated::bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, at as *const c_void);
        value.assume_init()
    }
}
