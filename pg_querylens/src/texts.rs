//! Texts of plans, in an area of fixed size in shared memory.
//!
//! The area is the end of an endless text: a new text is written behind the last one, over the oldest ones. A table says where each plan's text
//! begins; a text that has been written over is not found any more, and is captured again when its plan is executed next.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    keys::TextKey,
    locks::{Locks, Mode},
    rows::TextRow,
    table::Table,
};

/// The area, as one process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts {
    area: *mut u8,
    capacity: usize,
    /// Length of the endless text.
    end: *const AtomicU64,
    places: Table<TextKey, TextRow>,
    locks: Locks,
    lock: usize,
}

impl Texts {
    /// # Safety
    ///
    /// `area` points to `capacity` bytes that all processes share and only this changes, under lock `lock` of `locks`; `end` to a number beside them.
    pub(crate) unsafe fn new(
        area: *mut u8,
        capacity: usize,
        end: *const AtomicU64,
        places: Table<TextKey, TextRow>,
        locks: Locks,
        lock: usize,
    ) -> Texts {
        Texts { area, capacity, end, places, locks, lock }
    }

    fn end(&self) -> &AtomicU64 {
        // SAFETY: promised to `new`.
        unsafe { &*self.end }
    }

    /// Whether the area still holds what begins at `position`.
    pub(crate) fn holds(&self, position: u64) -> bool {
        self.end().load(Ordering::Acquire).wrapping_sub(position) <= self.capacity as u64
    }

    /// Where the text of a plan begins, if it is there.
    pub(crate) fn find(&self, plan_id: u64) -> Option<u64> {
        let place = self.places.read(&TextKey { plan_id })?;
        self.holds(place.position).then_some(place.position)
    }

    /// Keeps the text of a plan: where it begins, or nothing if it is larger than the area.
    pub(crate) fn write(&self, plan_id: u64, text: &[u8]) -> Option<u64> {
        let position = self.append(text)?;
        let place = TextRow { position, length: text.len() as u64 };
        self.places.update(TextKey { plan_id }, |row, _| *row = place);
        Some(position)
    }

    fn append(&self, text: &[u8]) -> Option<u64> {
        if text.len() > self.capacity {
            return None;
        }
        let _held = self.locks.hold(self.lock, Mode::Exclusive);
        let mut position = self.end().load(Ordering::Relaxed);
        let at = (position % self.capacity as u64) as usize;
        // A text never wraps around.
        if at + text.len() > self.capacity {
            position += (self.capacity - at) as u64;
        }
        // Before the bytes, so that a reader that looks at both sees that they are being written over.
        self.end().store(position + text.len() as u64, Ordering::Release);
        let at = (position % self.capacity as u64) as usize;
        // SAFETY: `at + text.len()` is at most the capacity promised to `new`; nobody reads while the lock is held.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.area.add(at), text.len()) };
        Some(position)
    }

    /// The text of a plan.
    pub(crate) fn read(&self, plan_id: u64) -> Option<Vec<u8>> {
        let place = self.places.read(&TextKey { plan_id })?;
        self.copy(&place)
    }

    fn copy(&self, place: &TextRow) -> Option<Vec<u8>> {
        let length = usize::try_from(place.length).ok().filter(|length| *length <= self.capacity)?;
        let mut text = Vec::with_capacity(length);
        let _held = self.locks.hold(self.lock, Mode::Shared);
        let at = (place.position % self.capacity as u64) as usize;
        if !self.holds(place.position) || at + length > self.capacity {
            return None;
        }
        // SAFETY: within the area promised to `new`; nobody writes while the lock is held.
        text.extend_from_slice(unsafe { std::slice::from_raw_parts(self.area.add(at), length) });
        Some(text)
    }

    /// All texts that are there.
    pub(crate) fn all(&self) -> Vec<(TextKey, Vec<u8>)> {
        let places = self.places.collect(|_, place| self.holds(place.position));
        places.into_iter().filter_map(|(key, place)| Some((key, self.copy(&place)?))).collect()
    }

    /// Forgets all texts.
    pub(crate) fn clear(&self) {
        self.places.remove(|_| true);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.collect(|_, place| self.holds(place.position)).len()
    }
}
