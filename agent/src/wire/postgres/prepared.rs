//! Prepared statements and portals of one connection: what a name stands for. Bounded.

use std::{collections::hash_map::Entry, mem};

use super::{
    frontend::{Name, Target},
    lexer,
    request::Step,
};
use crate::model::{self, Kind, Status, Text, Timestamp};

/// Most named prepared statements that are remembered.
pub(super) const MAX_STATEMENTS: usize = 4096;

/// Most bytes of text that the named prepared statements of one connection may hold.
pub(super) const MAX_STATEMENT_BYTES: usize = 2 * 1024 * 1024;

/// Most named portals that are remembered: open cursors of one transaction.
pub(super) const MAX_PORTALS: usize = 256;

/// At a bound the least recently used eighth is forgotten at once, so that looking for it costs little per statement.
const EVICTED_SHARE: usize = 8;

/// Fetches of a portal that is not exhausted: the time they took together, without the client's time between them.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    /// Sum of the durations.
    pub(super) nanos: u64,
    /// From the beginning of the first fetch to the first byte of its reply.
    pub(super) first_byte_nanos: Option<u64>,
    /// End of the latest.
    pub(super) end: Timestamp,
    /// Rows sent.
    pub(super) rows: u64,
    /// Bytes of requests.
    pub(super) bytes_in: u64,
    /// Bytes of responses.
    pub(super) bytes_out: u64,
    /// One of the durations is an estimate.
    pub(super) estimated: bool,
}

impl Fetched {
    /// One fetch, timed as if it were a statement.
    pub(super) fn of(fetch: &model::Statement) -> Fetched {
        let nanos = fetch.end.0.saturating_sub(fetch.start.0);
        Fetched {
            nanos,
            first_byte_nanos: fetch.first_byte.map(|first| first.0.saturating_sub(fetch.start.0)),
            end: fetch.end,
            rows: fetch.rows_sent.unwrap_or(0),
            bytes_in: fetch.bytes_in,
            bytes_out: fetch.bytes_out,
            estimated: fetch.estimated,
        }
    }

    /// Adds these earlier fetches to `last`: its start moves back by the time they took, so that its duration is the sum.
    pub(super) fn add_to(&self, last: &mut model::Statement) {
        last.start = Timestamp(last.start.0.saturating_sub(self.nanos));
        last.first_byte = self.first_byte_nanos.map(|nanos| Timestamp(last.start.0.saturating_add(nanos)));
        last.rows_sent = Some(last.rows_sent.unwrap_or(0).saturating_add(self.rows));
        last.bytes_in += self.bytes_in;
        last.bytes_out += self.bytes_out;
        last.estimated |= self.estimated;
    }

    /// The execution that these fetches were, of a portal that is gone before it was exhausted.
    pub(super) fn statement(&self, text: Text) -> model::Statement {
        let mut statement = model::Statement {
            kind: Kind::Execute,
            text,
            start: self.end,
            first_byte: None,
            end: self.end,
            rows_sent: None,
            rows_affected: None,
            bytes_in: 0,
            bytes_out: 0,
            status: Status::Ok,
            code: None,
            estimated: false,
        };
        self.add_to(&mut statement);
        statement
    }
}

/// A bound statement.
#[derive(Debug)]
pub(super) struct Portal {
    /// Text of its statement.
    pub(super) text: Text,
    /// Present while its execution is suspended.
    pub(super) fetched: Option<Box<Fetched>>,
}

#[derive(Debug)]
struct Statement {
    text: Text,
    used: u64,
}

type Map = std::collections::HashMap<Name, Statement, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
struct Named {
    statements: Map,
    bytes: usize,
    clock: u64,
}

/// Everything that names stand for.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    unnamed: Option<Text>,
    named: Option<Box<Named>>,
    unnamed_portal: Option<Portal>,
    portals: Vec<(Name, Portal)>,
    /// Names forgotten at a bound, not reported yet.
    pub(super) evicted: usize,
}

/// Bytes of text that are held.
pub(super) fn text_len(text: &Text) -> usize {
    match text {
        Text::Known(text) => text.raw().len(),
        Text::Unknown | Text::None => 0,
    }
}

/// Whether a command of SQL with this tag changes what names of prepared statements stand for.
pub(super) fn changes_names(tag: &[u8]) -> bool {
    matches!(tag, b"DEALLOCATE" | b"PREPARE" | b"DEALLOCATE ALL" | b"DISCARD ALL")
}

/// Whether running `text` certainly leaves alone what names stand for.
fn keeps_names(text: &Text) -> bool {
    matches!(text, Text::Known(text) if !text.truncated() && lexer::keeps_names(text.raw()))
}

impl Named {
    fn remove(&mut self, name: &[u8]) {
        if let Some(statement) = self.statements.remove(name) {
            self.bytes -= text_len(&statement.text);
        }
    }

    /// Forgets the least recently used ones; returns how many.
    fn evict(&mut self) -> usize {
        let mut used: Vec<u64> = self.statements.values().map(|statement| statement.used).collect();
        if used.is_empty() {
            return 0;
        }
        let last = (used.len() / EVICTED_SHARE).min(used.len() - 1);
        let (_, limit, _) = used.select_nth_unstable(last);
        let (limit, before, bytes) = (*limit, self.statements.len(), &mut self.bytes);
        self.statements.retain(|_, statement| {
            let keep = statement.used > limit;
            if !keep {
                *bytes -= text_len(&statement.text);
            }
            keep
        });
        before - self.statements.len()
    }
}

impl Prepared {
    /// `Parse` succeeded.
    pub(super) fn define(&mut self, name: Name, text: Text) {
        if name.is_empty() {
            self.unnamed = Some(text);
            return;
        }
        let named = self.named.get_or_insert_default();
        named.clock += 1;
        named.bytes += text_len(&text);
        let statement = Statement { text, used: named.clock };
        match named.statements.entry(name) {
            Entry::Occupied(mut old) => named.bytes -= text_len(&old.insert(statement).text),
            Entry::Vacant(new) => {
                new.insert(statement);
            }
        }
        while named.statements.len() > MAX_STATEMENTS || named.bytes > MAX_STATEMENT_BYTES {
            match named.evict() {
                0 => break,
                evicted => self.evicted += evicted,
            }
        }
    }

    /// Text of a prepared statement.
    pub(super) fn statement(&mut self, name: &[u8]) -> Text {
        if name.is_empty() {
            return self.unnamed.clone().unwrap_or(Text::Unknown);
        }
        let Some(named) = &mut self.named else { return Text::Unknown };
        let Some(statement) = named.statements.get_mut(name) else { return Text::Unknown };
        named.clock += 1;
        statement.used = named.clock;
        statement.text.clone()
    }

    /// The prepared statement is gone, or may stand for something else now.
    pub(super) fn forget_statement(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else if let Some(named) = &mut self.named {
            named.remove(name);
        }
    }

    /// All named prepared statements are gone, or may stand for something else now.
    pub(super) fn forget_named(&mut self) {
        self.named = None;
    }

    /// A command of SQL with a tag that [`changes_names`] ended, which was read as `sql` if that is known.
    pub(super) fn command_ended(&mut self, tag: &[u8], sql: Option<&[u8]>) {
        let named = match tag {
            b"DEALLOCATE" | b"PREPARE" => sql.and_then(lexer::prepared_name),
            _ => None,
        };
        match named {
            Some(name) => self.forget_statement(&name),
            None => self.forget_named(),
        }
    }

    /// The reply to `step` will not be seen: what it may have changed is no longer known.
    pub(super) fn unanswered(&mut self, step: &Step) {
        match step {
            Step::Parse { name, .. } | Step::Close { target: Target::Statement, name } => self.forget_statement(name),
            Step::Query(query) => {
                self.forget_statement(b"");
                if !keeps_names(&query.text) {
                    self.forget_named();
                }
            }
            // It may run a DEALLOCATE.
            Step::Bind { statement, .. } if !keeps_names(&self.statement(statement)) => self.forget_named(),
            _ => {}
        }
    }

    /// The replies to come will not be seen: all portals are gone, and what those may have changed is no longer known.
    pub(super) fn lose_portals(&mut self) -> Vec<Portal> {
        let portals: Vec<Portal> = self.take_portals().collect();
        if !portals.iter().all(|portal| keeps_names(&portal.text)) {
            self.forget_named();
        }
        portals
    }

    /// `Bind` succeeded. Returns the portal that had the name before.
    pub(super) fn bind(&mut self, name: Name, statement: &[u8]) -> Option<Portal> {
        let portal = Portal { text: self.statement(statement), fetched: None };
        if name.is_empty() {
            return self.unnamed_portal.replace(portal);
        }
        let mut old = self.take_portal(&name);
        if self.portals.len() >= MAX_PORTALS {
            self.evicted += 1;
            old = Some(self.portals.remove(0).1);
        }
        self.portals.push((name, portal));
        old
    }

    /// The portal of that name.
    pub(super) fn portal(&mut self, name: &[u8]) -> Option<&mut Portal> {
        if name.is_empty() {
            return self.unnamed_portal.as_mut();
        }
        self.portals.iter_mut().find(|(known, _)| known.as_slice() == name).map(|(_, portal)| portal)
    }

    /// Text that a portal executes.
    pub(super) fn portal_text(&mut self, name: &[u8]) -> Text {
        self.portal(name).map_or(Text::Unknown, |portal| portal.text.clone())
    }

    /// Text of what `Describe` or `Close` names.
    pub(super) fn text(&mut self, target: Target, name: &[u8]) -> Text {
        match target {
            Target::Statement => self.statement(name),
            Target::Portal => self.portal_text(name),
        }
    }

    /// Removes a portal.
    pub(super) fn take_portal(&mut self, name: &[u8]) -> Option<Portal> {
        if name.is_empty() {
            return self.unnamed_portal.take();
        }
        let at = self.portals.iter().position(|(known, _)| known.as_slice() == name)?;
        Some(self.portals.remove(at).1)
    }

    /// Whether a portal is open.
    pub(super) fn has_portals(&self) -> bool {
        self.unnamed_portal.is_some() || !self.portals.is_empty()
    }

    /// Removes all portals, e.g. because the transaction ended.
    pub(super) fn take_portals(&mut self) -> impl Iterator<Item = Portal> + use<> {
        self.unnamed_portal.take().into_iter().chain(mem::take(&mut self.portals).into_iter().map(|(_, portal)| portal))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::StatementText;

    fn text(len: usize) -> Text {
        Text::Known(Arc::new(StatementText::new(vec![b'x'; len], len)))
    }

    fn name(number: usize) -> Name {
        Name::from_slice(format!("s{number}").as_bytes())
    }

    #[test]
    fn the_least_recently_used_statements_are_forgotten_and_counted() {
        let mut prepared = Prepared::default();
        for number in 0..MAX_STATEMENTS {
            prepared.define(name(number), text(1));
        }
        assert_eq!(prepared.evicted, 0);
        assert!(matches!(prepared.statement(b"s0"), Text::Known(_)), "a use keeps it");
        prepared.define(name(MAX_STATEMENTS), text(1));
        assert!(matches!(prepared.statement(b"s0"), Text::Known(_)));
        assert!(matches!(prepared.statement(b"s1"), Text::Unknown));
        assert!(matches!(prepared.statement(&name(MAX_STATEMENTS)), Text::Known(_)));
        assert_eq!(prepared.evicted + prepared.named.as_ref().unwrap().statements.len(), MAX_STATEMENTS + 1);
    }

    #[test]
    fn bytes_are_bounded_and_counted_exactly() {
        let mut prepared = Prepared::default();
        let len = 16 * 1024;
        for number in 0..1000 {
            prepared.define(name(number % 300), text(len));
            let named = prepared.named.as_ref().unwrap();
            assert!(named.bytes <= MAX_STATEMENT_BYTES);
            assert_eq!(named.bytes, named.statements.len() * len);
        }
        prepared.forget_statement(&name(999 % 300));
        let named = prepared.named.as_ref().unwrap();
        assert_eq!(named.bytes, named.statements.len() * len);
        assert!(prepared.evicted > 0);
    }

    #[test]
    fn portals_are_bounded() {
        let mut prepared = Prepared::default();
        prepared.define(Name::new(), text(1));
        for number in 0..=MAX_PORTALS {
            prepared.bind(name(number), b"");
        }
        assert!(prepared.portal(b"s0").is_none());
        assert!(matches!(prepared.portal_text(b"s1"), Text::Known(_)));
        assert_eq!((prepared.evicted, prepared.take_portals().count()), (1, MAX_PORTALS));
    }
}
