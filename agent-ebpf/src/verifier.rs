//! Saying to the verifier, and to the compiler, what they would not see.

/// `min(len, N)`, written so that the verifier sees the bound on the very register that it is used in.
#[inline(always)]
pub(crate) fn bounded<const N: usize>(len: u64) -> u64 {
    let mut len = len;
    // SAFETY: plain arithmetic on one register.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!(
            "if {len} <= {bound} goto +1",
            "{len} = {bound}",
            len = inout(reg) len,
            bound = const N,
        );
    }
    if len > N as u64 {
        len = N as u64;
    }
    len
}

/// The same value, of which the verifier knows nothing any more. A loop whose state it knows too well is a new state to it in each round,
/// until it gives up at a million instructions; one it knows nothing about is the same from the first round on.
#[inline(always)]
pub(crate) fn forget(value: u64, unknown: u64) -> u64 {
    let mut value = value;
    // SAFETY: plain arithmetic on registers.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!(
            "{value} ^= {unknown}",
            "{value} ^= {unknown}",
            value = inout(reg) value,
            unknown = in(reg) unknown,
        );
    }
    let _ = unknown;
    value
}

/// `value`, which is 0 or 1, so that the verifier sees it where the compiler does not write it down.
#[inline(always)]
pub(crate) fn bit(value: i64) -> i64 {
    let mut value = value;
    // SAFETY: plain arithmetic on one register.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{value} &= 1", value = inout(reg) value);
    }
    value & 1
}

/// Sets a word to 0. Of several plain stores side by side the compiler makes a call of `memset`, which goes byte by byte.
#[inline(always)]
pub(crate) fn zero(word: &mut u64) {
    // SAFETY: a reference.
    unsafe { (word as *mut u64).write_volatile(0) };
}
