//! Adds up statistics whose series have become one.

use hashbrown::HashMap;
use uuid::Uuid;

use std::sync::Arc;

use crate::model::{
    Batch, Signal, StatementStats,
    signal::{Reason, Sifted},
};

/// What tells series of one batch apart.
type Key = (Uuid, Option<Arc<str>>, Option<Arc<str>>, u64);

/// Adds intervals of the same server, database, user and statement to the first of them; the others leave as merged. So a series stands once in a batch whatever
/// was taken away from its attributes.
pub(super) fn equal_series(batch: &mut Batch) {
    let mut first: HashMap<Key, usize> = HashMap::new();
    let mut absorbed: Vec<(usize, StatementStats, Option<f64>)> = Vec::new();
    let mut leaves = vec![false; batch.len()];
    for (at, record) in batch.records_mut().iter_mut().enumerate() {
        let Signal::Interval(interval) = &mut record.signal else { continue };
        let origin = &record.origin;
        let instance = origin.instance.service_instance_id;
        let key = (instance, origin.database.clone(), origin.user.clone(), interval.digest.fingerprint);
        let into = *first.entry(key).or_insert(at);
        if into != at {
            absorbed.push((into, std::mem::take(&mut interval.stats), interval.load));
            leaves[at] = true;
        }
    }
    for (into, stats, load) in absorbed {
        if let Some(Signal::Interval(interval)) = batch.records_mut().get_mut(into).map(|record| &mut record.signal) {
            interval.stats.merge(&stats);
            interval.load = interval.load.zip(load).map(|(own, other)| own + other).or(interval.load).or(load);
        }
    }
    let mut at = 0;
    batch.sift(|_| {
        at += 1;
        if leaves[at - 1] { Sifted::Discard(Reason::Merged) } else { Sifted::Keep }
    });
}
