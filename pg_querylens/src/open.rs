//! Executions of this process that have begun and not ended.

use pgrx::pg_sys;

use crate::{
    counters::Usage,
    keys::{PlanKey, StatementKey},
    sampling::Sampling,
};

/// Executions that are open at a time in one process: nested ones and open cursors. Further ones are not counted.
const OPEN: usize = 64;

/// An execution between its start and its end.
#[derive(Clone, Copy)]
pub(crate) struct Execution {
    /// Which one. Only compared.
    query: *const pg_sys::QueryDesc,
    /// In which it began, or into which that went over.
    subtransaction: u32,
    /// What is executed.
    pub(crate) key: PlanKey,
    /// The plan with the partitions of a table taken for one.
    pub(crate) collapsed_id: u64,
    /// When its statement began.
    pub(crate) since: i64,
    /// What it has used so far.
    pub(crate) usage: Usage,
    /// How it is looked at.
    pub(crate) sampling: Sampling,
}

const NONE: Execution = Execution {
    query: std::ptr::null(),
    subtransaction: 0,
    key: PlanKey { statement: StatementKey { database: 0, user: 0, query_id: 0, top_level: 0 }, plan_id: 0 },
    collapsed_id: 0,
    since: 0,
    usage: Usage::NONE,
    sampling: Sampling::None,
};

/// They lie in places that are used again and again, and are filled and read there: an execution is large, and most are short.
pub(crate) struct Open {
    places: Vec<Execution>,
    /// The first so many places are in use.
    count: usize,
}

impl Open {
    /// None, and no place for any.
    pub(crate) const fn new() -> Open {
        Open { places: Vec::new(), count: 0 }
    }

    /// One more; `None` if there are too many. The first one takes the memory for all there can be.
    #[inline]
    pub(crate) fn begin(&mut self, query: *const pg_sys::QueryDesc, subtransaction: u32) -> Option<&mut Execution> {
        if self.places.is_empty() {
            self.places.resize(OPEN, NONE);
        }
        // One that failed may have left its place; its memory is used again.
        self.end(query);
        let place = self.places.get_mut(self.count)?;
        self.count += 1;
        place.query = query;
        place.subtransaction = subtransaction;
        place.usage = Usage::NONE;
        Some(place)
    }

    fn position(&self, query: *const pg_sys::QueryDesc) -> Option<usize> {
        // From the end: the one that began last is the one that is asked for, as a rule.
        self.places.get(..self.count)?.iter().rposition(|execution| execution.query == query)
    }

    /// One that is open.
    #[inline]
    pub(crate) fn find(&mut self, query: *const pg_sys::QueryDesc) -> Option<&mut Execution> {
        let at = self.position(query)?;
        self.places.get_mut(at)
    }

    /// One that was open until now. It stays where it is until the next one begins.
    #[inline]
    pub(crate) fn end(&mut self, query: *const pg_sys::QueryDesc) -> Option<&mut Execution> {
        let at = self.position(query)?;
        self.count -= 1;
        if at != self.count {
            self.places.swap(at, self.count);
        }
        self.places.get_mut(self.count)
    }

    /// Forgets those of a subtransaction: they are never ended. Without this, a transaction that catches many errors would run out of places.
    pub(crate) fn abort(&mut self, subtransaction: u32) {
        let mut at = 0;
        while at < self.count {
            match self.places.get(at).is_some_and(|execution| execution.subtransaction == subtransaction) {
                true => {
                    self.count -= 1;
                    self.places.swap(at, self.count);
                }
                false => at += 1,
            }
        }
    }

    /// Those of a subtransaction belong to its parent from now on.
    pub(crate) fn hand_over(&mut self, subtransaction: u32, parent: u32) {
        let open = self.places.iter_mut().take(self.count);
        open.filter(|execution| execution.subtransaction == subtransaction)
            .for_each(|execution| execution.subtransaction = parent);
    }

    /// Forgets all: those that failed are never ended.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(number: usize) -> *const pg_sys::QueryDesc {
        std::ptr::without_provenance(number * 64)
    }

    fn open(numbers: impl IntoIterator<Item = usize>) -> Open {
        let mut open = Open::new();
        for number in numbers {
            let execution = open.begin(query(number), 1).map(|execution| execution.since = number as i64);
            assert!(execution.is_some());
        }
        open
    }

    #[test]
    fn each_is_found_until_it_ends_whatever_ended_before() {
        let mut open = open(1..=5);
        assert_eq!(open.end(query(2)).map(|execution| execution.since), Some(2));
        assert!(open.find(query(2)).is_none() && open.end(query(2)).is_none());
        for number in [5, 1, 4, 3] {
            assert_eq!(open.find(query(number)).map(|execution| execution.since), Some(number as i64));
            assert_eq!(open.end(query(number)).map(|execution| execution.since), Some(number as i64));
        }
        assert_eq!(open.count, 0);
    }

    #[test]
    fn there_is_a_bound_and_nothing_of_the_one_before() {
        let mut open = open(1..=OPEN);
        assert!(open.begin(query(OPEN + 1), 1).is_none());
        if let Some(execution) = open.end(query(7)) {
            execution.usage.rows = 9;
        }
        assert_eq!(open.begin(query(OPEN + 1), 1).map(|execution| execution.usage.rows), Some(0));
        // The same memory is another execution now: the one before it had failed.
        assert!(open.begin(query(OPEN + 1), 1).is_some());
        assert_eq!(open.count, OPEN);
        open.clear();
        assert!(open.find(query(1)).is_none());
    }

    #[test]
    fn what_a_subtransaction_leaves_is_gone_with_it() {
        let mut open = open(1..=3);
        for (number, subtransaction) in [(4, 2), (5, 3), (6, 2), (7, 4)] {
            assert!(open.begin(query(number), subtransaction).is_some());
        }
        open.hand_over(3, 2);
        open.abort(2);
        let left: Vec<bool> = (1..=7).map(|number| open.find(query(number)).is_some()).collect();
        assert_eq!(left, [true, true, true, false, false, false, true]);
    }
}
