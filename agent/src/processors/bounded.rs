//! A map with a bound: what was used longest ago makes room.

use std::{hash::Hash, num::NonZeroUsize};

use lru::LruCache;

/// A map that holds at most so many entries and counts what it forgot.
#[derive(Debug)]
pub(super) struct Bounded<K: Hash + Eq, V> {
    map: LruCache<K, V>,
    evicted: u64,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// A map of at most `capacity` entries, at least one. It allocates as it grows.
    pub(super) fn new(capacity: usize) -> Bounded<K, V> {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        Bounded { map: LruCache::sparse(capacity), evicted: 0 }
    }

    /// The value of `key`, as just used.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    /// The value of `key`, without being used.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.map.peek(key)
    }

    /// The value of `key`, made by `make` if there is none. What makes room for it goes to `forget`.
    pub(super) fn at(&mut self, key: K, make: impl FnOnce() -> V, forget: impl FnOnce(V)) -> &mut V {
        if self.map.len() == self.map.cap().get()
            && !self.map.contains(&key)
            && let Some((_, oldest)) = self.map.pop_lru()
        {
            self.evicted += 1;
            forget(oldest);
        }
        self.map.get_or_insert_mut(key, make)
    }

    /// All entries, what was used last first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.map.iter()
    }

    /// All values, to write on them.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.map.iter_mut().map(|(_, value)| value)
    }

    /// Removes what was used longest ago while `is_old` says so of it.
    pub(super) fn expire(&mut self, mut is_old: impl FnMut(&V) -> bool) {
        while self.map.peek_lru().is_some_and(|(_, value)| is_old(value)) {
            self.map.pop_lru();
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Entries that had to make room for others.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room_and_is_counted() {
        let mut map = Bounded::new(2);
        let mut forgotten = Vec::new();
        for key in [1, 2, 1, 3, 1, 4] {
            *map.at(key, || key * 10, |value| forgotten.push(value)) += 1;
        }
        assert_eq!((map.len(), map.evicted(), forgotten), (2, 2, vec![21, 31]));
        assert_eq!((map.peek(&1), map.peek(&4), map.peek(&3)), (Some(&13), Some(&41), None));
        map.expire(|value| *value == 13);
        assert_eq!((map.len(), map.evicted()), (1, 2));
    }
}
