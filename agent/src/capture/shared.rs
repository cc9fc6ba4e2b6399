//! Arrays of the kernel's side, mapped into this process.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::NonNull,
};

use aya::maps::MapData;

/// An eBPF array of `T` that was made with `BPF_F_MMAPABLE`. The programs read and write it at the same time: what is handed out are raw pointers.
pub(super) struct SharedArray<T> {
    elements: NonNull<T>,
    len: usize,
    /// Keeps the map.
    _map: MapData,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access goes through raw pointers.
unsafe impl<T> Send for SharedArray<T> {}

impl<T> SharedArray<T> {
    /// Maps `len` elements.
    pub(super) fn new(map: MapData, len: usize) -> io::Result<SharedArray<T>> {
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel rounds the size of an element up to 8 bytes") };
        let bytes = len * size_of::<T>();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a map's memory, as long as the map is; the result is checked.
        let mapped = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.fd().as_fd().as_raw_fd(), 0)
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let elements = NonNull::new(mapped.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(SharedArray { elements, len, _map: map })
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where element `index` lies; `None` if there is no such element.
    pub(super) fn get(&self, index: usize) -> Option<*mut T> {
        // SAFETY: within the mapping.
        (index < self.len).then(|| unsafe { self.elements.as_ptr().add(index) })
    }
}

impl<T> Drop for SharedArray<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nobody else has it.
        unsafe { libc::munmap(self.elements.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}
