//! Who waits for whom, as records: one when a session is first seen to wait for another, and one each while as long as it goes on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::model::{
    BlockingChain, Instance, Record, ServerKey, Signal, Timestamp,
    signal::{Blocking, Origin, Peer},
};

/// Time between two records of the same wait.
const AGAIN: Duration = Duration::from_secs(10);

/// A session of a server that waits for another one.
type Wait = (ServerKey, i64, i64);

/// Remembers what was told. As large as there are waits now: collectors bound them.
#[derive(Debug, Default)]
pub(super) struct Chains {
    told: HashMap<Wait, Timestamp>,
}

impl Chains {
    /// Records of what is to be told now, from the latest look at each server.
    pub(super) fn records<'a>(
        &mut self,
        now: Timestamp,
        servers: impl Iterator<Item = (&'a Arc<Instance>, &'a [BlockingChain])>,
    ) -> Vec<Record> {
        let (mut told, mut records) = (HashMap::new(), Vec::new());
        for (instance, chains) in servers {
            for blocked in chains.iter().flat_map(|chain| &chain.blocked) {
                for blocker in &blocked.by {
                    let wait = (instance.key, blocked.session, *blocker);
                    let last = told.get(&wait).or_else(|| self.told.get(&wait)).copied();
                    let due = last.filter(|last| now.since(*last) < AGAIN);
                    told.insert(wait, due.unwrap_or(now));
                    if due.is_some() {
                        continue;
                    }
                    let origin = Origin {
                        instance: Arc::clone(instance),
                        database: blocked.database.clone(),
                        user: blocked.user.clone(),
                    };
                    let blocking = Blocking {
                        blocked: peer(blocked.session),
                        blocker: peer(*blocker),
                        blocked_digest: blocked.digest.clone(),
                        blocker_digest: None,
                        lock: blocked.lock.clone(),
                        relation: blocked.relation.clone(),
                        waited: blocked.waited,
                        depth: blocked.depth,
                    };
                    records.push(Record::new(now, origin, Signal::Blocking(Box::new(blocking))));
                }
            }
        }
        self.told = told;
        records
    }
}

/// Sessions are numbered by their process or thread; what does not fit is none that the kernel knows.
fn peer(session: i64) -> Peer {
    Peer { connection: 0, process: u32::try_from(session).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Blocked, testing};

    fn blocked(session: i64, by: &[i64], depth: u32) -> Blocked {
        let waited = Duration::from_secs(3);
        let (lock, relation) = (Some("ShareLock".into()), None);
        Blocked { session, by: by.to_vec(), depth, lock, relation, waited, database: None, user: None, digest: None }
    }

    #[test]
    fn a_wait_is_told_when_it_begins_and_each_ten_seconds() {
        let instance = testing::server().instance;
        let chain = BlockingChain {
            root: 1,
            deadlock: false,
            root_state: None,
            root_transaction: None,
            blocked: vec![blocked(2, &[1], 1), blocked(3, &[1, 2], 1)],
        };
        let mut chains = Chains::default();
        let mut told = |second: u64, now: &[BlockingChain]| {
            let records = chains.records(Timestamp(second * 1_000_000_000), [(&instance, now)].into_iter());
            let of = |record: &Record| match &record.signal {
                Signal::Blocking(blocking) => (blocking.blocked.process, blocking.blocker.process),
                other => panic!("{other:?}"),
            };
            records.iter().map(of).collect::<Vec<_>>()
        };
        let all = [(2, 1), (3, 1), (3, 2)];
        let one = std::slice::from_ref(&chain);
        assert_eq!(told(100, one), all);
        assert_eq!(told(101, one), []);
        assert_eq!(told(110, one), all);
        assert_eq!(told(111, &[]), []);
        assert_eq!(told(112, one), all, "another wait");
        // A session in two chains is told once.
        assert_eq!(told(130, &[chain.clone(), chain.clone()]), all);
    }
}
