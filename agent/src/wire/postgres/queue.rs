//! Requests in the order of their arrival, until they are answered. Bounded.

use std::{collections::VecDeque, mem};

use super::{
    framing::{Frame, Lost},
    frontend::Name,
    prepared::text_len,
    request::{KEEP_CAPACITY, Query, Request, Step},
};
use crate::{
    model::{Text, Timestamp},
    wire::latest::LatestText,
};

/// Most requests without a reply. The server reads 8 KiB and answers all of it before it reads on, so a real pipeline stays far below.
const MAX_QUEUE: usize = 8192;

/// Most bytes of text that requests without a reply may hold; beyond it they are timed without text.
const MAX_QUEUED_TEXT: usize = 1024 * 1024;

/// How far an `Execute` looks back for the `Parse` that it uses.
const MAX_LOOK_BACK: usize = 64;

/// Why a message does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The place in the stream is wrong.
    Lost,
    /// A bound was reached.
    Overflow,
    /// A replication stream begins.
    Replication,
}

impl From<Lost> for Fault {
    fn from(_: Lost) -> Fault {
        Fault::Lost
    }
}

/// What awaits a reply.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: VecDeque<Request>,
    /// Bytes of text that they hold.
    text: usize,
    latest: LatestText,
    /// After an error the server skips requests until `Sync`.
    skipping: bool,
    /// The server reads COPY data, and ignores `Sync` and `Flush`.
    copy_in: bool,
    /// Texts dropped at the bound, not reported yet.
    pub(super) texts_dropped: usize,
}

impl Queue {
    /// Takes a message of the client's. Returns the bytes of one that awaits no reply: they belong to the statement at the front. COPY data
    /// that nothing has asked for are a fault unless the place in the stream is `proven`.
    pub(super) fn take(&mut self, frame: &Frame<'_>, at: Timestamp, proven: bool) -> Result<u64, Fault> {
        match frame.kind {
            b'p' => return Ok(frame.size()),
            b'S' | b'H' if self.copy_in => return Ok(frame.size()),
            b'S' => self.skipping = false,
            // COPY data, also when the server has not yet asked for them or no longer wants them.
            b'd' | b'c' | b'f' => {
                self.expect_copy_data(proven)?;
                let wanted = frame.kind == b'd' || mem::take(&mut self.copy_in);
                if wanted || self.skipping || self.is_empty() {
                    return Ok(frame.size());
                }
            }
            b'X' => return Ok(0),
            _ if self.skipping => return Ok(0),
            b'H' if matches!(self.requests.back(), None | Some(Request { step: Step::Flush, .. })) => return Ok(0),
            _ => {}
        }
        if self.requests.len() >= MAX_QUEUE {
            return Err(Fault::Overflow);
        }
        self.requests.push_back(Request::BLANK);
        let Some(Request { arrived, bytes, step }) = self.requests.back_mut() else { return Ok(0) };
        (*arrived, *bytes) = (at, frame.size());
        if let Err(lost) = step.read(frame, &mut self.latest) {
            self.requests.pop_back();
            return Err(lost.into());
        }
        let text = match step {
            Step::Query(query) => &query.text,
            Step::Parse { text, .. } => text,
            Step::Execute { .. } => {
                self.mark_used();
                return Ok(0);
            }
            _ => return Ok(0),
        };
        let len = text_len(text);
        if self.text + len <= MAX_QUEUED_TEXT {
            self.text += len;
            return Ok(0);
        }
        self.texts_dropped += 1;
        match step {
            Step::Query(query) => *query = Query::new(Text::Unknown),
            Step::Parse { text, .. } => *text = Text::Unknown,
            _ => {}
        }
        Ok(0)
    }

    /// The start-up packet, which comes before all messages.
    pub(super) fn start(&mut self, arrived: Timestamp, bytes: u64) {
        self.requests.push_front(Request { arrived, bytes, step: Step::Startup });
    }

    /// Whether COPY data may come from the client.
    pub(super) fn expect_copy_data(&self, proven: bool) -> Result<(), Fault> {
        if proven || self.copy_in { Ok(()) } else { Err(Fault::Lost) }
    }

    /// The latest request is an `Execute`: the `Parse` that its `Bind` names, in the same unit, is part of it.
    fn mark_used(&mut self) {
        let mut wanted: Option<&Name> = None;
        let mut unit = self.requests.iter().enumerate().rev();
        let Some((_, Request { step: Step::Execute { portal }, .. })) = unit.next() else { return };
        let unit = unit.take(MAX_LOOK_BACK);
        let mut unit =
            unit.take_while(|(_, request)| !matches!(request.step, Step::Sync | Step::Flush | Step::Query(_)));
        let parse = unit.find_map(|(at, request)| match &request.step {
            Step::Bind { portal: bound, statement } if wanted.is_none() && bound == portal => {
                wanted = Some(statement);
                None
            }
            Step::Parse { name, .. } if wanted == Some(name) => Some(at),
            _ => None,
        });
        if let Some(Request { step: Step::Parse { used, .. }, .. }) = parse.and_then(|at| self.requests.get_mut(at)) {
            *used = true;
        }
    }

    /// Whether nothing awaits a reply.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The request that is answered next.
    pub(super) fn front(&self) -> Option<&Request> {
        self.requests.front()
    }

    /// The request that is answered next.
    pub(super) fn front_mut(&mut self) -> Option<&mut Request> {
        self.requests.front_mut()
    }

    /// What the request that is answered next asks for.
    pub(super) fn step(&self) -> Option<&Step> {
        self.front().map(|request| &request.step)
    }

    /// Whether the requests so far are complete units that the server will answer by itself.
    pub(super) fn ends_unit(&self) -> bool {
        self.requests.back().is_some_and(|request| {
            matches!(request.step, Step::Query(_) | Step::Sync | Step::Flush | Step::Function { .. })
        })
    }

    /// Drops the request at the front, and what behind it awaits no reply: of that the bytes are returned.
    pub(super) fn advance(&mut self) -> u64 {
        match self.requests.pop_front() {
            Some(Request { step: Step::Parse { text, .. }, .. }) => self.text -= text_len(&text),
            Some(Request { step: Step::Query(query), .. }) => self.text -= text_len(&query.text),
            _ => {}
        }
        let mut behind = 0;
        while let Some(Step::Flush | Step::CopyEnd) = self.step() {
            behind += self.requests.pop_front().map_or(0, |request| request.bytes);
        }
        behind
    }

    /// Of the unit at the front: its bytes up to its first `Execute`, and whether it has one.
    pub(super) fn unit(&self) -> (u64, bool) {
        let unit = || self.requests.iter().take_while(|request| !matches!(request.step, Step::Sync | Step::Query(_)));
        let run = unit().position(|request| matches!(request.step, Step::Execute { .. }));
        (unit().take(run.unwrap_or(0) + 1).map(|request| request.bytes).sum(), run.is_some())
    }

    /// The server asks for COPY data. What was sent behind the command and before the data's end, it ignores; returns the bytes of that.
    pub(super) fn begin_copy_in(&mut self) -> Result<u64, Fault> {
        let behind = |request: &Request| matches!(request.step, Step::Sync | Step::Flush);
        let mut end = 1 + self.requests.iter().skip(1).take_while(|request| behind(request)).count();
        self.copy_in = true;
        match self.requests.get(end).map(|request| &request.step) {
            None => {}
            Some(Step::CopyEnd) => (self.copy_in, end) = (false, end + 1),
            Some(_) => return Err(Fault::Lost),
        }
        Ok(self.requests.drain(1..end).map(|request| request.bytes).sum())
    }

    /// The server no longer wants COPY data.
    pub(super) fn end_copy_in(&mut self) {
        self.copy_in = false;
    }

    /// From now on the server skips what is not a `Sync`.
    pub(super) fn skip(&mut self, skipping: bool) {
        self.skipping = skipping;
    }

    /// Whether the server skips what comes next.
    pub(super) fn skips(&self) -> bool {
        self.skipping
    }

    /// Takes all that is left.
    pub(super) fn clear(&mut self) -> VecDeque<Request> {
        (self.text, self.skipping, self.copy_in) = (0, false, false);
        mem::take(&mut self.requests)
    }

    /// Gives back the memory of a long pipeline.
    pub(super) fn shrink(&mut self) {
        if self.requests.is_empty() && self.requests.capacity() > KEEP_CAPACITY {
            self.requests = VecDeque::new();
        }
    }
}
