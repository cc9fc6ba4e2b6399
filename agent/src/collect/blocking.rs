//! Who waits for whom, as chains from the one that waits for nobody.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::model::{Blocked, BlockingChain};

/// Sessions listed in one chain; the furthest from the root are left out beyond it.
const MAX_BLOCKED: usize = 1000;

/// A session that waits for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) session: i64,
    /// Those that it waits for directly.
    pub(super) by: Vec<i64>,
    pub(super) lock: Option<Arc<str>>,
    pub(super) relation: Option<Arc<str>>,
    pub(super) waited: Duration,
}

/// Orders waiters by those that they wait for. One that waits for several roots stands in the chain of each of them. What the sessions
/// themselves are and do is filled in by who knows it.
pub(super) fn chains(waiters: Vec<Waiter>) -> Vec<BlockingChain> {
    let mut waiters: BTreeMap<i64, Waiter> = waiters.into_iter().map(|waiter| (waiter.session, waiter)).collect();
    for waiter in waiters.values_mut() {
        // A parallel query's workers wait for their leader's locks under its number.
        waiter.by.retain(|blocker| *blocker != waiter.session);
        waiter.by.sort_unstable();
        waiter.by.dedup();
    }
    waiters.retain(|_, waiter| !waiter.by.is_empty());
    let mut waiting_for: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for waiter in waiters.values() {
        waiter.by.iter().for_each(|blocker| waiting_for.entry(*blocker).or_default().push(waiter.session));
    }
    let mut reached = BTreeSet::new();
    let mut chains: Vec<BlockingChain> = waiting_for
        .keys()
        .filter(|blocker| !waiters.contains_key(*blocker))
        .map(|root| chain(*root, false, &waiters, &waiting_for, &mut reached))
        .collect();
    // Whoever waits for a root by no way waits for a circle of sessions.
    while let Some(start) = waiters.keys().find(|session| !reached.contains(*session)) {
        let root = least_of_circle(*start, &waiters);
        reached.insert(root);
        chains.push(chain(root, true, &waiters, &waiting_for, &mut reached));
    }
    chains
}

/// All that wait for `root`, nearest first.
fn chain(
    root: i64,
    deadlock: bool,
    waiters: &BTreeMap<i64, Waiter>,
    waiting_for: &BTreeMap<i64, Vec<i64>>,
    reached: &mut BTreeSet<i64>,
) -> BlockingChain {
    let mut depths = BTreeMap::from([(root, 0u32)]);
    let mut queue = VecDeque::from([root]);
    let mut blocked = Vec::new();
    while let Some(blocker) = queue.pop_front() {
        let depth = depths[&blocker] + 1;
        for session in waiting_for.get(&blocker).into_iter().flatten() {
            if depths.contains_key(session) {
                continue;
            }
            depths.insert(*session, depth);
            reached.insert(*session);
            queue.push_back(*session);
            if let Some(waiter) = waiters.get(session).filter(|_| blocked.len() < MAX_BLOCKED) {
                blocked.push(Blocked {
                    session: *session,
                    by: waiter.by.clone(),
                    depth,
                    lock: waiter.lock.clone(),
                    relation: waiter.relation.clone(),
                    waited: waiter.waited,
                    database: None,
                    user: None,
                    digest: None,
                });
            }
        }
    }
    blocked.sort_by_key(|blocked| (blocked.depth, blocked.session));
    BlockingChain { root, deadlock, root_state: None, root_transaction: None, blocked }
}

/// The least session of a circle that `start` waits for.
fn least_of_circle(start: i64, waiters: &BTreeMap<i64, Waiter>) -> i64 {
    let next = |session: i64| waiters.get(&session).and_then(|waiter| waiter.by.first().copied());
    let mut passed = BTreeSet::new();
    let mut session = start;
    while passed.insert(session) {
        // Who waits for no root waits for waiters only, so there is always a next one.
        let Some(blocker) = next(session) else { return session };
        session = blocker;
    }
    let (first, mut least) = (session, session);
    while let Some(blocker) = next(session).filter(|blocker| *blocker != first) {
        least = least.min(blocker);
        session = blocker;
    }
    least
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiter(session: i64, by: &[i64]) -> Waiter {
        Waiter { session, by: by.to_vec(), ..Waiter::default() }
    }

    /// Root, whether it is a deadlock, and each that waits with its depth.
    type Shape<'a> = (i64, bool, &'a [(i64, u32)]);

    #[track_caller]
    fn check(waiters: &[(i64, &[i64])], expected: &[Shape<'_>]) {
        let found = chains(waiters.iter().map(|(session, by)| waiter(*session, by)).collect());
        let shapes: Vec<_> = found
            .iter()
            .map(|chain| {
                (chain.root, chain.deadlock, chain.blocked.iter().map(|one| (one.session, one.depth)).collect())
            })
            .collect();
        let expected: Vec<(i64, bool, Vec<_>)> =
            expected.iter().map(|(root, deadlock, blocked)| (*root, *deadlock, blocked.to_vec())).collect();
        assert_eq!(shapes, expected);
    }

    #[test]
    fn a_chain_of_three_has_its_root() {
        check(&[(2, &[1]), (3, &[2]), (4, &[3])], &[(1, false, &[(2, 1), (3, 2), (4, 3)])]);
    }

    #[test]
    fn one_blocks_many_and_one_waits_for_many() {
        check(&[(2, &[1]), (3, &[1])], &[(1, false, &[(2, 1), (3, 1)])]);
        check(&[(3, &[1, 2])], &[(1, false, &[(3, 1)]), (2, false, &[(3, 1)])]);
        // The queue behind a lock: 4 waits for the holder and for those before it.
        check(&[(2, &[1]), (3, &[1, 2]), (4, &[1, 2, 3])], &[(1, false, &[(2, 1), (3, 1), (4, 1)])]);
    }

    #[test]
    fn a_circle_is_a_deadlock_and_those_behind_it_are_in_its_chain() {
        check(&[(5, &[7]), (7, &[5]), (9, &[7])], &[(5, true, &[(7, 1), (9, 2)])]);
        // The circle is behind the first one looked at.
        check(&[(1, &[8]), (8, &[9]), (9, &[8])], &[(8, true, &[(1, 1), (9, 1)])]);
    }

    #[test]
    fn who_waits_for_itself_or_nobody_does_not_wait() {
        check(&[(2, &[2]), (3, &[])], &[]);
        // 0 is a prepared transaction.
        check(&[(2, &[0])], &[(0, false, &[(2, 1)])]);
    }

    proptest! {
        #[test]
        fn every_waiter_is_in_a_chain_at_its_least_distance(edges in prop::collection::btree_set((0i64..12, 0i64..12), 0..40)) {
            let mut waiters: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            edges.iter().filter(|(from, to)| from != to).for_each(|(from, to)| waiters.entry(*from).or_default().push(*to));
            let found = chains(waiters.iter().map(|(session, by)| waiter(*session, by)).collect());
            let mut listed = BTreeSet::new();
            for chain in &found {
                let depths: BTreeMap<i64, u32> = std::iter::once((chain.root, 0))
                    .chain(chain.blocked.iter().map(|one| (one.session, one.depth)))
                    .collect();
                prop_assert_eq!(depths.len(), chain.blocked.len() + 1, "nobody stands twice in a chain");
                prop_assert_eq!(chain.deadlock, waiters.contains_key(&chain.root));
                for one in &chain.blocked {
                    let nearest = one.by.iter().filter_map(|blocker| depths.get(blocker)).min();
                    prop_assert_eq!(nearest.map(|depth| depth + 1), Some(one.depth));
                    listed.insert(one.session);
                }
                if chain.deadlock {
                    listed.insert(chain.root);
                }
            }
            prop_assert_eq!(listed, waiters.keys().copied().collect::<BTreeSet<_>>());
        }
    }
}
