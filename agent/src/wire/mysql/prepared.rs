//! The prepared statements of one connection, bounded.

use std::collections::HashMap;

use crate::model::{Statement, Text};

/// Most statements remembered; MySQL's default for a whole server (`max_prepared_stmt_count`) is 16,382.
const MAX_STATEMENTS: usize = 4096;
/// Most bytes of text remembered.
const MAX_BYTES: usize = 1 << 20;

/// One prepared statement.
#[derive(Debug)]
struct Entry {
    text: Text,
    /// The execution whose cursor is open; it grows with each fetch.
    cursor: Option<Box<Statement>>,
    /// When it was last used, in uses.
    used: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        match &self.text {
            Text::Known(text) => text.raw().len(),
            Text::Unknown | Text::None => 0,
        }
    }
}

/// Statement id to text, least recently used forgotten first.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    entries: HashMap<u32, Entry, foldhash::fast::RandomState>,
    bytes: usize,
    uses: u64,
}

impl Prepared {
    /// Remembers a statement. `evicted` is called for each one that is forgotten to make room, with its open cursor's execution.
    pub(super) fn insert(&mut self, id: u32, text: Text, mut evicted: impl FnMut(Option<Statement>)) {
        self.uses += 1;
        let entry = Entry { text, cursor: None, used: self.uses };
        self.bytes += entry.bytes();
        if let Some(old) = self.entries.insert(id, entry) {
            self.bytes -= old.bytes();
        }
        while self.entries.len() > MAX_STATEMENTS || self.bytes > MAX_BYTES {
            // Linear, but only when a session is at the bound, and then once a preparation.
            let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id) else {
                break;
            };
            evicted(self.remove(oldest));
        }
    }

    /// The text of statement `id`.
    pub(super) fn text(&mut self, id: u32) -> Text {
        self.uses += 1;
        match self.entries.get_mut(&id) {
            Some(entry) => {
                entry.used = self.uses;
                entry.text.clone()
            }
            None => Text::Unknown,
        }
    }

    /// Forgets statement `id` and returns the execution whose cursor was open.
    pub(super) fn remove(&mut self, id: u32) -> Option<Statement> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= entry.bytes();
        entry.cursor.map(|execution| *execution)
    }

    /// Takes the execution whose cursor on statement `id` is open.
    pub(super) fn take_cursor(&mut self, id: u32) -> Option<Statement> {
        self.entries.get_mut(&id)?.cursor.take().map(|execution| *execution)
    }

    /// Keeps the execution whose cursor on statement `id` is open. An id that was never seen is remembered without text.
    pub(super) fn keep_cursor(&mut self, id: u32, execution: Statement, evicted: impl FnMut(Option<Statement>)) {
        if !self.entries.contains_key(&id) {
            self.insert(id, Text::Unknown, evicted);
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.cursor = Some(Box::new(execution));
        }
    }

    /// Takes all executions with open cursors, oldest statement first.
    pub(super) fn take_cursors(&mut self) -> Vec<Statement> {
        let mut open: Vec<_> =
            self.entries.iter_mut().filter_map(|(id, entry)| Some((*id, entry.cursor.take()?))).collect();
        open.sort_by_key(|(id, _)| *id);
        open.into_iter().map(|(_, execution)| *execution).collect()
    }
}
