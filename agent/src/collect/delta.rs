//! Growth of counters between two looks, where entries come, go, are reset and wrap meanwhile.
//!
//! The server's table is read as a whole at each look. What is known of an entry decides what its counters say:
//!
//! - Everything in the first look is older than the agent: it is the ground from which is counted.
//! - An entry that is new, or was absent in the look before, began after that look: all it holds is growth. Unless the look before could not
//!   hold all entries; then nobody knows how old it is, and it is ground too.
//! - An entry whose executions or whose time of birth say that it began anew holds only growth, as a new one.
//! - A counter that fell from the upper half of its range by wrapping goes on; any other fall means that the entry began anew.
//!
//! What an entry counted between the last look and its eviction or reset is lost: no look ever saw it. It is missing, never wrong.

use std::{collections::HashMap, hash::Hash};

/// Looks for which an entry that the server has dropped is remembered, so that its sum goes on when it comes back.
const REMEMBERED_LOOKS: u64 = 360;

/// Counters of one entry at one look; the first one counts executions and cannot wrap.
pub(super) type Counters<const N: usize> = [u64; N];

#[derive(Clone, Debug)]
struct Seen<const N: usize> {
    values: Counters<N>,
    since: Option<i64>,
    look: u64,
    total: [u128; N],
}

/// Remembers entries from look to look.
#[derive(Clone, Debug)]
pub(super) struct Deltas<K, const N: usize> {
    seen: HashMap<K, Seen<N>>,
    bound: usize,
    look: u64,
    /// The look before did not hold all entries.
    overflowed: bool,
    /// Entries left out at the bound, all looks together.
    omitted: u64,
}

impl<K: Eq + Hash + Clone, const N: usize> Deltas<K, N> {
    /// Remembers at most `bound` entries.
    pub(super) fn new(bound: usize) -> Deltas<K, N> {
        Deltas { seen: HashMap::new(), bound, look: 0, overflowed: false, omitted: 0 }
    }

    /// Takes the entries of one look: key, time of birth where the server tells it, counters. `whole` says that these are all that the server has.
    pub(super) fn look(&mut self, entries: impl IntoIterator<Item = (K, Option<i64>, Counters<N>)>, whole: bool) {
        self.look += 1;
        let look = self.look;
        // Whether everything that is new now has begun since the look before.
        let complete = look > 1 && !self.overflowed;
        self.overflowed = !whole;
        for (key, since, values) in entries {
            if let Some(seen) = self.seen.get_mut(&key) {
                let same = seen.since == since && (since.is_some() || seen.look + 1 == look);
                let grown = match same {
                    true => growth(&seen.values, &values).unwrap_or(values),
                    // It was away, or has been reset: a new one under an old key.
                    false if complete || seen.since != since => values,
                    false => [0; N],
                };
                seen.total.iter_mut().zip(grown).for_each(|(total, grown)| *total += u128::from(grown));
                (seen.values, seen.since, seen.look) = (values, since, look);
            } else if self.seen.len() < self.bound || self.make_room() {
                let total = if complete { values.map(u128::from) } else { [0; N] };
                self.seen.insert(key, Seen { values, since, look, total });
            } else {
                self.overflowed = true;
                self.omitted += 1;
            }
        }
        self.seen.retain(|_, seen| seen.look + REMEMBERED_LOOKS > look);
    }

    /// Growth of each entry since the first look, all looks together, with those that the server has dropped for a while: sums over entries must not fall.
    pub(super) fn totals(&self) -> impl Iterator<Item = (&K, &[u128; N])> {
        self.seen.iter().map(|(key, seen)| (key, &seen.total))
    }

    /// The same for the entries of the last look alone.
    pub(super) fn present(&self) -> impl Iterator<Item = (&K, &[u128; N])> {
        self.seen.iter().filter(|(_, seen)| seen.look == self.look).map(|(key, seen)| (key, &seen.total))
    }

    /// Entries left out at the bound, counted at each look.
    pub(super) fn omitted(&self) -> u64 {
        self.omitted
    }

    /// Forgets what the server has dropped; whether that made room.
    fn make_room(&mut self) -> bool {
        let look = self.look;
        self.seen.retain(|_, seen| seen.look + 1 >= look);
        self.seen.len() < self.bound
    }
}

/// How much each counter has grown; `None` if the entry must have begun anew.
fn growth<const N: usize>(before: &Counters<N>, now: &Counters<N>) -> Option<Counters<N>> {
    if now[0] < before[0] {
        return None;
    }
    let mut grown = [0; N];
    for (grown, (before, now)) in grown.iter_mut().zip(before.iter().zip(now)) {
        *grown = match now.checked_sub(*before) {
            Some(grown) => grown,
            None if *before > u64::MAX / 2 && *now < u64::MAX / 2 => now.wrapping_sub(*before),
            None => return None,
        };
    }
    Some(grown)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Growth of each entry after looks at tables of (key, executions, time).
    #[track_caller]
    fn check(looks: &[&[(u8, u64, u64)]], expected: &[(u8, u64, u64)]) {
        let mut deltas = Deltas::<u8, 2>::new(3);
        for look in looks {
            deltas.look(look.iter().map(|(key, calls, time)| (*key, None, [*calls, *time])), true);
        }
        let mut totals: Vec<_> =
            deltas.totals().map(|(key, [calls, time])| (*key, *calls as u64, *time as u64)).collect();
        totals.sort_unstable();
        assert_eq!(totals, expected);
    }

    #[test]
    fn the_first_look_is_the_ground() {
        check(&[&[(1, 100, 9)]], &[(1, 0, 0)]);
        check(&[&[(1, 100, 9)], &[(1, 103, 12)]], &[(1, 3, 3)]);
        check(&[&[], &[(1, 100, 9)]], &[(1, 100, 9)]);
    }

    #[test]
    fn an_entry_that_was_reset_or_evicted_begins_anew() {
        check(&[&[(1, 100, 50)], &[(1, 2, 1)]], &[(1, 2, 1)]);
        // More executions than before, but less time: another entry under the same key.
        check(&[&[(1, 100, 50)], &[(1, 120, 6)]], &[(1, 120, 6)]);
        check(&[&[(1, 100, 50)], &[], &[(1, 101, 51)]], &[(1, 101, 51)]);
        check(&[&[(1, 100, 50)], &[(1, 101, 60)], &[], &[(1, 3, 4)]], &[(1, 4, 14)]);
    }

    #[test]
    fn a_counter_that_wraps_goes_on() {
        check(&[&[(1, 100, u64::MAX - 4)], &[(1, 103, 5)]], &[(1, 3, 10)]);
    }

    #[test]
    fn beyond_the_bound_nothing_is_guessed() {
        let mut deltas = Deltas::<u8, 1>::new(2);
        deltas.look([(1, None, [5]), (2, None, [5]), (3, None, [5])], true);
        assert_eq!(deltas.omitted(), 1);
        // Entry 2 makes room. How old entry 3 is nobody knows: it was left out before.
        deltas.look([(1, None, [6]), (3, None, [50])], true);
        deltas.look([(1, None, [6]), (3, None, [57])], true);
        let totals: BTreeMap<_, _> = deltas.totals().map(|(key, total)| (*key, total[0])).collect();
        assert_eq!(totals, BTreeMap::from([(1, 1), (3, 0)]));
        deltas.look([(1, None, [6]), (3, None, [60])], true);
        deltas.look([(1, None, [6]), (3, None, [67])], true);
        let totals: BTreeMap<_, _> = deltas.totals().map(|(key, total)| (*key, total[0])).collect();
        assert_eq!(totals[&3], 10);
    }

    #[test]
    fn after_a_part_of_the_table_a_new_entry_may_be_old() {
        let mut deltas = Deltas::<u8, 1>::new(9);
        deltas.look([(1, None, [5])], false);
        deltas.look([(1, None, [6]), (2, None, [50])], true);
        deltas.look([(1, None, [6]), (2, None, [53])], true);
        let totals: BTreeMap<_, _> = deltas.totals().map(|(key, total)| (*key, total[0])).collect();
        assert_eq!(totals, BTreeMap::from([(1, 1), (2, 3)]));
    }

    #[test]
    fn what_the_server_dropped_is_forgotten_in_time() {
        let mut deltas = Deltas::<u8, 1>::new(10);
        deltas.look([(1, None, [1])], true);
        for _ in 0..REMEMBERED_LOOKS {
            deltas.look([], true);
        }
        assert!(deltas.seen.is_empty());
    }

    /// What can happen to an entry of the server's table.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Executed(u8, u8),
        Reset(u8),
        Look,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0u8..4, 1u8..9).prop_map(|(key, count)| Event::Executed(key, count)),
            1 => (0u8..4).prop_map(Event::Reset),
            2 => Just(Event::Look),
        ]
    }

    proptest! {
        /// Where the server tells when an entry began, the sum is exactly what looks could see: all executions but those before the first look
        /// and those between a look and a reset. Where it does not tell, it is never more.
        #[test]
        fn nothing_is_counted_twice_or_invented(events in prop::collection::vec(event(), 0..200), told: bool) {
            let mut deltas = Deltas::<u8, 2>::new(4);
            // Key → time of birth, executions, executions since the last look.
            let mut server: BTreeMap<u8, (i64, u64, u64)> = BTreeMap::new();
            let (mut expected, mut looks) = (BTreeMap::<u8, u64>::new(), 0);
            for (time, event) in events.iter().enumerate() {
                match *event {
                    Event::Executed(key, count) => {
                        let entry = server.entry(key).or_insert((time as i64, 0, 0));
                        entry.1 += u64::from(count);
                        entry.2 += u64::from(count);
                    }
                    Event::Reset(key) => drop(server.remove(&key)),
                    Event::Look => {
                        looks += 1;
                        for (key, entry) in &mut server {
                            let seen = std::mem::take(&mut entry.2);
                            *expected.entry(*key).or_default() += if looks > 1 { seen } else { 0 };
                        }
                        deltas.look(server.iter().map(|(key, entry)| {
                            // The time of execution grows with the executions, as in life.
                            (*key, told.then_some(entry.0), [entry.1, entry.1 * 7])
                        }), true);
                    }
                }
            }
            for (key, [calls, time]) in deltas.totals() {
                let expected = u128::from(expected[key]);
                prop_assert_eq!(*time, *calls * 7);
                match told {
                    true => prop_assert_eq!(*calls, expected),
                    false => prop_assert!(*calls <= expected),
                }
            }
        }
    }
}
