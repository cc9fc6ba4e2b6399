//! A table of fixed size in shared memory.
//!
//! It is set-associative, like a processor's cache: a key's hash chooses a set of [`WAYS`] places, and a set has one lock, shared with other sets.
//! So nothing is ever moved or chained, a look-up reads one compact array, and what is evicted is the least used of its set.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::locks::{Locks, Mode};

/// Places in a set.
pub(crate) const WAYS: usize = 64;
/// Places that a set should hold on average: keys are not spread evenly, and sets that are full evict.
const FILL: usize = 48;

/// What may lie in shared memory and in a file: plain numbers without padding, for which any bytes are valid and zero bytes are the beginning.
///
/// # Safety
///
/// The type is `repr(C)`, of integers and floats, and has no padding.
pub(crate) unsafe trait Plain: Copy {}

/// A key: what is hashed is up to it.
pub(crate) trait Key: Plain + PartialEq {
    /// Spread over all 64 bits.
    fn hash(&self) -> u64;
}

/// [`WAYS`] places.
#[repr(C)]
struct Set<K, V> {
    /// Hashes of the keys; 0 is a free place.
    tags: [u64; WAYS],
    /// How much each was used lately.
    usage: [u64; WAYS],
    /// When each was last used, in uses of the set.
    used: [u64; WAYS],
    /// Uses of the set.
    uses: u64,
    /// Keys that had to make place in it.
    evictions: u64,
    keys: [K; WAYS],
    values: [V; WAYS],
}

/// What a table did since the start, beside holding values.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct TableCounters {
    /// Keys that had to make place for others.
    pub(crate) evicted: AtomicU64,
}

/// A table in shared memory, as one process sees it.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    sets: *mut Set<K, V>,
    count: usize,
    locks: Locks,
    counters: *const TableCounters,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Table<K, V> {}

impl<K: Key, V: Plain> Table<K, V> {
    /// Sets for about `capacity` keys.
    pub(crate) fn sets_for(capacity: usize) -> usize {
        capacity.div_ceil(FILL).max(1)
    }

    /// Bytes of so many sets.
    pub(crate) fn bytes(sets: usize) -> usize {
        sets * size_of::<Set<K, V>>()
    }

    /// # Safety
    ///
    /// `memory` points to [`Table::bytes`] bytes, aligned to 64, that all processes share, zero at first, and changed by tables of this kind only.
    pub(crate) unsafe fn new(
        memory: *mut u8,
        sets: usize,
        locks: Locks,
        counters: *const TableCounters,
    ) -> Table<K, V> {
        Table { sets: memory.cast(), count: sets, locks, counters }
    }

    fn place(&self, key: &K) -> (usize, u64) {
        let hash = key.hash();
        // The set is chosen by the upper half, so that tags within a set differ.
        ((hash >> 32) as usize % self.count, hash | 1)
    }

    /// Changes the value of a key; it is new, and zero, if it was not there. If its set is full, the least used key makes place.
    pub(crate) fn update<R>(&self, key: K, change: impl FnOnce(&mut V, bool) -> R) -> R {
        let (index, tag) = self.place(&key);
        let _held = self.locks.hold(index, Mode::Exclusive);
        // SAFETY: the set is within the memory promised to `new`, and nobody else has it while the lock is held.
        let set = unsafe { &mut *self.sets.add(index) };
        set.uses += 1;
        if let Some(way) = find(set, tag, &key) {
            set.usage[way] = set.usage[way].saturating_add(1);
            set.used[way] = set.uses;
            return change(&mut set.values[way], false);
        }
        let way = match set.tags.iter().position(|tag| *tag == 0) {
            Some(free) => free,
            None => self.evict(set),
        };
        set.tags[way] = tag;
        set.usage[way] = 1;
        set.used[way] = set.uses;
        set.keys[way] = key;
        // SAFETY: zero bytes are valid for what is `Plain`.
        set.values[way] = unsafe { std::mem::zeroed() };
        change(&mut set.values[way], true)
    }

    /// The place of the least used key; of several, that of the one whose last use was longest ago. Each time as many have left as there are places,
    /// all uses count half, so that what was used long ago leaves in the end.
    fn evict(&self, set: &mut Set<K, V>) -> usize {
        let victim = (0..WAYS).min_by_key(|way| (set.usage[*way], set.used[*way])).unwrap_or(0);
        set.evictions += 1;
        if set.evictions.is_multiple_of(WAYS as u64) {
            set.usage.iter_mut().for_each(|usage| *usage /= 2);
        }
        // SAFETY: promised to `new` by whoever laid out the memory.
        unsafe { (*self.counters).evicted.fetch_add(1, Ordering::Relaxed) };
        victim
    }

    /// The value of a key.
    pub(crate) fn read(&self, key: &K) -> Option<V> {
        let (index, tag) = self.place(key);
        let _held = self.locks.hold(index, Mode::Shared);
        // SAFETY: within the memory promised to `new`; nobody changes it while the lock is held.
        let set = unsafe { &*self.sets.add(index) };
        find(set, tag, key).map(|way| set.values[way])
    }

    /// All keys and values that `wanted` chooses, set by set: what is in one set is of one moment.
    pub(crate) fn collect(&self, wanted: impl Fn(&K, &V) -> bool) -> Vec<(K, V)> {
        let mut all = Vec::new();
        for index in 0..self.count {
            // Memory is asked for while no lock is held.
            all.reserve(WAYS);
            let _held = self.locks.hold(index, Mode::Shared);
            // SAFETY: as in `read`.
            let set = unsafe { &*self.sets.add(index) };
            let used = set.tags.iter().enumerate().filter(|(_, tag)| **tag != 0);
            all.extend(
                used.filter(|(way, _)| wanted(&set.keys[*way], &set.values[*way]))
                    .map(|(way, _)| (set.keys[way], set.values[way])),
            );
        }
        all
    }

    /// Removes what `unwanted` chooses; how many those were.
    pub(crate) fn remove(&self, unwanted: impl Fn(&K) -> bool) -> usize {
        let mut removed = 0;
        for index in 0..self.count {
            let _held = self.locks.hold(index, Mode::Exclusive);
            // SAFETY: as in `update`.
            let set = unsafe { &mut *self.sets.add(index) };
            for way in 0..WAYS {
                if set.tags[way] != 0 && unwanted(&set.keys[way]) {
                    set.tags[way] = 0;
                    set.usage[way] = 0;
                    removed += 1;
                }
            }
        }
        removed
    }

    /// Keys in the table.
    pub(crate) fn len(&self) -> usize {
        let used = |index: usize| {
            let _held = self.locks.hold(index, Mode::Shared);
            // SAFETY: as in `read`.
            let set = unsafe { &*self.sets.add(index) };
            set.tags.iter().filter(|tag| **tag != 0).count()
        };
        (0..self.count).map(used).sum()
    }
}

fn find<K: Key, V>(set: &Set<K, V>, tag: u64, key: &K) -> Option<usize> {
    let tags = set.tags.iter().enumerate();
    tags.filter(|(_, found)| **found == tag).map(|(way, _)| way).find(|way| set.keys[*way] == *key)
}
