//! What `top` shows and how keys change it. No terminal, no clock.

use std::{cmp::Ordering, sync::Arc};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::view::{InstanceKey, InstanceRow, StatementKey, StatementRow, View};

/// By what statements are ordered; the greatest first, unless reversed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    TotalTime,
    Calls,
    Mean,
    P99,
    Errors,
    Rows,
}

impl Sort {
    /// All of them: key, name in the header, meaning.
    pub(super) const ALL: [(char, Sort, &'static str); 6] = [
        ('t', Sort::TotalTime, "total time"),
        ('c', Sort::Calls, "calls"),
        ('m', Sort::Mean, "mean"),
        ('p', Sort::P99, "p99"),
        ('e', Sort::Errors, "errors"),
        ('r', Sort::Rows, "rows"),
    ];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        Sort::ALL.iter().find(|(_, sort, _)| *sort == self).map_or("", |(_, _, name)| name)
    }

    fn compare(self, a: &StatementRow, b: &StatementRow) -> Ordering {
        match self {
            Sort::TotalTime => a.total.cmp(&b.total),
            Sort::Calls => a.calls.cmp(&b.calls),
            Sort::Mean => a.mean.cmp(&b.mean),
            Sort::P99 => a.p99.cmp(&b.p99),
            Sort::Errors => a.errors.cmp(&b.errors),
            Sort::Rows => a.rows.cmp(&b.rows),
        }
    }
}

/// Whether the loop goes on after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    Quit,
}

/// The state of the display.
#[derive(Debug, Default)]
pub(super) struct App {
    view: Arc<View>,
    /// The newest view while the display stands still.
    held: Option<Arc<View>>,
    pub(super) paused: bool,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    /// Selected instance; `None` for all of them.
    instance: Option<InstanceKey>,
    /// Selected statement; kept while it moves within the order.
    statement: Option<StatementKey>,
    pub(super) detail: bool,
    /// First line of the detail that is shown.
    pub(super) scroll: u16,
    pub(super) help: bool,
    /// Show a statement's summary instead of its text.
    pub(super) summary: bool,
}

/// Statements that Page Up and Page Down pass over.
const PAGE: isize = 10;

impl App {
    /// What is shown now.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// A newer view; kept back while paused.
    pub(super) fn update(&mut self, view: Arc<View>) {
        if self.paused {
            self.held = Some(view);
        } else {
            self.show(view);
        }
    }

    fn show(&mut self, view: Arc<View>) {
        self.view = view;
        let gone = |key: &InstanceKey| !self.view.instances.iter().any(|row| row.key == *key);
        if self.instance.as_ref().is_some_and(gone) {
            self.instance = None;
        }
    }

    /// Position of the selected instance in the list, where 0 stands for all of them.
    pub(super) fn instance_index(&self) -> usize {
        let position = |key: &InstanceKey| self.view.instances.iter().position(|row| row.key == *key);
        self.instance.as_ref().and_then(position).map_or(0, |position| position + 1)
    }

    /// The selected instance, unless it is all of them.
    pub(super) fn instance(&self) -> Option<&InstanceRow> {
        self.instance_index().checked_sub(1).map(|index| &self.view.instances[index])
    }

    /// The statements to show, in their order.
    pub(super) fn statements(&self) -> Vec<&StatementRow> {
        let needle = self.filter.to_lowercase();
        let mut rows: Vec<&StatementRow> = self
            .view
            .statements
            .iter()
            .filter(|row| self.instance.as_ref().is_none_or(|instance| row.key.instance == *instance))
            .filter(|row| needle.is_empty() || row.contains(&needle))
            .collect();
        rows.sort_by(|a, b| {
            let order = self.sort.compare(b, a);
            let order = if self.reverse { order.reverse() } else { order };
            // Equal rows keep their place from one view to the next.
            order.then_with(|| a.key.cmp(&b.key))
        });
        rows
    }

    /// Position of the selected statement among `statements`; the first if the selected one is not there.
    pub(super) fn statement_index(&self, statements: &[&StatementRow]) -> Option<usize> {
        let selected = self.statement.as_ref();
        let position = selected.and_then(|key| statements.iter().position(|row| row.key == *key));
        position.or((!statements.is_empty()).then_some(0))
    }

    /// Reacts to a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Next::Quit } else { Next::Continue };
        }
        if self.typing {
            self.type_filter(key.code);
            return Next::Continue;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            // Leaves whatever is open, from the innermost.
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc if self.detail => self.detail = false,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char(' ') => self.pause(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('R') => self.reverse = !self.reverse,
            KeyCode::Char('s') => self.summary = !self.summary,
            KeyCode::Char(letter) => {
                if let Some((_, sort, _)) = Sort::ALL.iter().find(|(key, ..)| *key == letter) {
                    self.reverse = self.sort == *sort && !self.reverse;
                    self.sort = *sort;
                }
            }
            KeyCode::Tab | KeyCode::Right => self.move_instance(1),
            KeyCode::BackTab | KeyCode::Left => self.move_instance(-1),
            KeyCode::Up => self.move_statement(-1),
            KeyCode::Down => self.move_statement(1),
            KeyCode::PageUp if self.detail => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown if self.detail => self.scroll = self.scroll.saturating_add(1),
            KeyCode::PageUp => self.move_statement(-PAGE),
            KeyCode::PageDown => self.move_statement(PAGE),
            KeyCode::Home => self.move_statement(isize::MIN),
            KeyCode::End => self.move_statement(isize::MAX),
            KeyCode::Enter => {
                self.detail = !self.detail;
                // Hold on to the statement that is on top only because nothing was selected.
                self.move_statement(0);
            }
            _ => {}
        }
        Next::Continue
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if let (false, Some(view)) = (self.paused, self.held.take()) {
            self.show(view);
        }
    }

    fn move_instance(&mut self, by: isize) {
        let choices = self.view.instances.len() + 1;
        let next = (self.instance_index() + choices).saturating_add_signed(by) % choices;
        self.instance = next.checked_sub(1).map(|index| self.view.instances[index].key.clone());
    }

    fn move_statement(&mut self, by: isize) {
        let statements = self.statements();
        let Some(index) = self.statement_index(&statements) else { return };
        let next = index.saturating_add_signed(by).min(statements.len() - 1);
        self.statement = Some(statements[next].key.clone());
        self.scroll = 0;
    }
}
