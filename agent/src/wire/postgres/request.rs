//! Requests that await their reply.

use std::{ops::Range, sync::Arc};

use super::{
    framing::{Frame, Lost},
    frontend::{self, Name, Target},
    lexer,
};
use crate::{
    model::{Code, Statement, StatementText, Text, Timestamp},
    wire::latest::LatestText,
};

/// A queue or list that grew beyond this gives its memory back when it is empty.
pub(super) const KEEP_CAPACITY: usize = 16;

/// A request that awaits its reply.
#[derive(Debug)]
pub(super) struct Request {
    /// When its last byte arrived.
    pub(super) arrived: Timestamp,
    /// Its bytes on the wire.
    pub(super) bytes: u64,
    pub(super) step: Step,
}

impl Request {
    /// To be filled in where it lies: one that is put together elsewhere and moved costs a tenth of a statement's time.
    pub(super) const BLANK: Request = Request { arrived: Timestamp(0), bytes: 0, step: Step::Flush };
}

#[derive(Debug)]
pub(super) enum Step {
    /// The start-up packet: `R`, `S`, `K`, `v`, then `Z`.
    Startup,
    /// A completion for each statement, then `Z`.
    Query(Query),
    /// `1`. `used` says that an `Execute` of the same unit runs it.
    Parse { name: Name, text: Text, used: bool },
    /// `2`.
    Bind { portal: Name, statement: Name },
    /// `t` for a statement, then `T` or `n`.
    Describe { target: Target, name: Name },
    /// Rows or COPY data, then `C`, `I` or `s`.
    Execute { portal: Name },
    /// `3`.
    Close { target: Target, name: Name },
    /// No reply; ends a unit.
    Flush,
    /// No reply; ends COPY data that were sent before the server asked for them.
    CopyEnd,
    /// `V`, then `Z`.
    Function { answered: bool },
    /// `Z`.
    Sync,
}

impl Step {
    /// What a message of the client's asks for.
    pub(super) fn of(frame: &Frame<'_>) -> Result<Step, Lost> {
        let mut step = Step::Flush;
        step.read(frame, &mut LatestText::default())?;
        Ok(step)
    }

    /// Becomes what a message of the client's asks for. In place, since moving a step costs more than reading it.
    pub(super) fn read(&mut self, frame: &Frame<'_>, latest: &mut LatestText) -> Result<(), Lost> {
        match frame.kind {
            b'Q' => *self = Step::Query(Query::new(frontend::query(frame, latest))),
            b'P' => {
                let (name, text) = frontend::parse(frame, latest).ok_or(Lost)?;
                *self = Step::Parse { name, text, used: false };
            }
            b'B' => {
                let (portal, statement) = frontend::bind(frame).ok_or(Lost)?;
                *self = Step::Bind { portal, statement };
            }
            b'E' => *self = Step::Execute { portal: frontend::execute(frame).ok_or(Lost)? },
            b'D' => {
                let (target, name) = frontend::target(frame).ok_or(Lost)?;
                *self = Step::Describe { target, name };
            }
            b'C' => {
                let (target, name) = frontend::target(frame).ok_or(Lost)?;
                *self = Step::Close { target, name };
            }
            b'H' => *self = Step::Flush,
            b'S' => *self = Step::Sync,
            b'c' | b'f' => *self = Step::CopyEnd,
            b'F' => *self = Step::Function { answered: false },
            _ => return Err(Lost),
        }
        Ok(())
    }
}

/// A text that the server runs statement by statement.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) text: Text,
    /// Where its statements lie, if there are several.
    pub(super) pieces: Option<Box<[Range<usize>]>>,
    pub(super) completions: usize,
    pub(super) failed: bool,
}

impl Query {
    pub(super) fn new(text: Text) -> Query {
        let pieces = match &text {
            Text::Known(text) if !text.truncated() => lexer::pieces(text.raw()),
            _ => None,
        };
        Query { text, pieces, completions: 0, failed: false }
    }

    /// Text of the statement that comes next, as far as it can be told before all are done.
    pub(super) fn current(&self) -> Option<&[u8]> {
        let Text::Known(text) = &self.text else { return None };
        match &self.pieces {
            None => (!text.truncated()).then(|| text.raw()),
            Some(pieces) => pieces.get(self.completions).map(|range| &text.raw()[range.clone()]),
        }
    }

    /// Gives each statement its own piece of the text, if the pieces are what the server saw: as many as completions, or fewer before an error.
    pub(super) fn hand_out(&self, done: &mut [Statement]) {
        let (Some(pieces), Text::Known(text)) = (&self.pieces, &self.text) else { return };
        let Some(first) = done.first() else { return };
        // A syntax error anywhere fails the whole text before its first statement runs.
        let whole_failed = done.len() == 1 && first.code == Some(SYNTAX_ERROR);
        let fits = if self.failed { done.len() <= pieces.len() && !whole_failed } else { done.len() == pieces.len() };
        if !fits {
            return;
        }
        for (statement, range) in done.iter_mut().zip(pieces) {
            let piece = &text.raw()[range.clone()];
            statement.text = Text::Known(Arc::new(StatementText::new(piece, piece.len())));
        }
        if let [first, later @ ..] = done {
            for (statement, range) in later.iter_mut().zip(&pieces[1..]) {
                let len = range.len() as u64;
                statement.bytes_in += len;
                first.bytes_in = first.bytes_in.saturating_sub(len);
            }
        }
    }
}

/// `syntax_error` (errcodes.txt).
const SYNTAX_ERROR: Code = Code::Sqlstate(*b"42601");
