//! Lists of the server.

use pgrx::pg_sys;

/// The pointers of a list; none of no list.
///
/// # Safety
///
/// `list` is null or a valid list of pointers to `T` that stays as it is meanwhile.
pub(crate) unsafe fn items<'a, T>(list: *const pg_sys::List) -> impl Iterator<Item = *mut T> + 'a {
    // SAFETY: promised by the caller; a list has `length` elements.
    let cells = unsafe { cells(list) };
    // SAFETY: promised by the caller.
    cells.iter().map(|cell| unsafe { cell.ptr_value }.cast())
}

/// The numbers of a list.
///
/// # Safety
///
/// `list` is null or a valid list of integers that stays as it is meanwhile.
pub(super) unsafe fn integers<'a>(list: *const pg_sys::List) -> impl Iterator<Item = i32> + 'a {
    // SAFETY: promised by the caller.
    let cells = unsafe { cells(list) };
    // SAFETY: promised by the caller.
    cells.iter().map(|cell| unsafe { cell.int_value })
}

/// The `index`th pointer of a list, from 0.
///
/// # Safety
///
/// As for [`items`].
pub(crate) unsafe fn nth<T>(list: *const pg_sys::List, index: usize) -> Option<*mut T> {
    // SAFETY: promised by the caller.
    unsafe { cells(list).get(index).map(|cell| cell.ptr_value.cast()) }
}

unsafe fn cells<'a>(list: *const pg_sys::List) -> &'a [pg_sys::ListCell] {
    // SAFETY: promised by the callers.
    match unsafe { list.as_ref() } {
        // SAFETY: as above.
        Some(list) => unsafe { std::slice::from_raw_parts(list.elements, usize::try_from(list.length).unwrap_or(0)) },
        None => &[],
    }
}
