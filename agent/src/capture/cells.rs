//! Cells: counters of their own for each processor, for rows that are used so much that processors would wait for one another's cache lines.

use agent_ebpf::{Counters, row::COUNTERS_LEN};

use super::shared::SharedArray;

/// Memory for cells in bytes, on all processors together.
const MEMORY: usize = 4 << 20;
/// Rows that have cells at most.
const MOST: usize = 1024;

/// How many rows can have cells on a host with so many processors.
pub(super) fn number(processors: u32) -> u32 {
    (MEMORY / (COUNTERS_LEN * processors.max(1) as usize)).clamp(1, MOST) as u32
}

/// The cells of all rows.
pub(super) struct Cells {
    counters: SharedArray<Counters>,
    processors: u32,
    /// Numbers of those that no row has, as in [`agent_ebpf::Row::cells`].
    free: Vec<u32>,
}

impl Cells {
    /// All of `counters` is free; there are [`number`] for each of `processors`.
    pub(super) fn new(counters: SharedArray<Counters>, processors: u32) -> Cells {
        let number = counters.len() as u32 / processors.max(1);
        Cells { counters, processors, free: (1..=number).rev().collect() }
    }

    /// Cells for one more row, if there are any left.
    pub(super) fn acquire(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Takes back what a row had, emptied.
    pub(super) fn release(&mut self, cells: u32) {
        self.free.push(cells);
    }

    /// The counters of cells `cells`, one for each processor; none for 0.
    pub(super) fn of(&self, cells: u32) -> impl Iterator<Item = *mut Counters> + '_ {
        let from = cells.saturating_sub(1) * self.processors;
        let to = if cells == 0 { from } else { from + self.processors };
        (from..to).filter_map(|at| self.counters.get(at as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_have_cells_on_large_machines() {
        assert_eq!(number(1), 1024);
        assert_eq!(number(2), 1024);
        assert_eq!(number(64), 60);
        assert_eq!(number(8192), 1);
    }
}
