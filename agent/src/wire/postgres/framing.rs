//! Messages out of bytes: one type byte, a length that counts itself, a body.
//!
//! Incomplete is not an error. Only the part of a body that somebody reads is ever copied, and only when a message spans chunks.

use std::{borrow::Cow, fmt, mem};

use crate::model::Timestamp;

/// Type byte and length.
const HEADER: usize = 5;

/// The longest body that a server accepts: `PQ_LARGE_MESSAGE_LIMIT` (libpq.h), which is `MaxAllocSize - 1`, less the length word.
pub(super) const LARGE: u32 = 0x3fff_fffe - 4;

/// The longest body of messages that hold only names: `PQ_SMALL_MESSAGE_LIMIT` (libpq.h).
pub(super) const SMALL: u32 = 10_000;

/// The longest body believed at a place that only looks like the beginning of a message. Four ASCII characters, read as a length, are more.
const CAUTIOUS: u32 = 0x03ff_ffff;

/// What is allowed for one type of message.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    /// Shortest and longest body.
    pub(super) body: (u32, u32),
    /// How much of the body's beginning is read.
    pub(super) want: u32,
}

/// Bytes that may hold literals: `Debug` shows only how many.
#[derive(Default)]
pub(super) struct Hidden(pub(super) Vec<u8>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A complete message.
pub(super) struct Frame<'a> {
    /// Its type byte.
    pub(super) kind: u8,
    /// True length of its body.
    pub(super) length: u32,
    /// The captured beginning of its body, at most what its rule wants.
    pub(super) body: Cow<'a, [u8]>,
    /// When its first byte went over the wire.
    pub(super) began: Timestamp,
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?}, {} bytes)", char::from(self.kind), self.length)
    }
}

impl Frame<'_> {
    /// Bytes on the wire.
    pub(super) fn size(&self) -> u64 {
        HEADER as u64 + u64::from(self.length)
    }
}

/// The bytes cannot be messages, or a header is missing: the place in the stream is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

/// Cuts one direction of a connection into messages.
#[derive(Debug, Default)]
pub(super) struct Framer {
    header: [u8; HEADER],
    header_len: u8,
    /// Bytes inside the body are missing, so that what follows them is not kept.
    holed: bool,
    cautious: bool,
    length: u32,
    remaining: u32,
    want: u32,
    began: Timestamp,
    /// Captured beginning of a body that spans chunks; holds memory only while there is one.
    prefix: Hidden,
}

impl Framer {
    /// A framer at a place that looks like the beginning of a message but is not proven: distrusts lengths above 64 MiB.
    pub(super) fn cautious() -> Framer {
        Framer { cautious: true, ..Framer::default() }
    }

    /// The place is proven.
    pub(super) fn trust(&mut self) {
        self.cautious = false;
    }

    /// Whether the next byte begins a message.
    pub(super) fn at_boundary(&self) -> bool {
        self.header_len == 0
    }

    /// Takes the next complete message off `input`; `None` when `input` is used up. `rules` has one for each type that the side may send.
    pub(super) fn next<'a>(
        &mut self,
        rules: impl Fn(u8) -> Option<Rule>,
        input: &mut &'a [u8],
        at: Timestamp,
    ) -> Result<Option<Frame<'a>>, Lost> {
        match self.next_whole(&rules, input, at)? {
            None => self.next_part(rules, input, at),
            whole => Ok(whole),
        }
    }

    /// [`Framer::next`] for a message that lies in `input` as a whole, as nearly all do; `None` if it does not. A loop that calls this and
    /// [`Framer::next_part`] by itself is faster by a tenth: the two kinds of message then never meet in one variable.
    #[inline]
    pub(super) fn next_whole<'a>(
        &self,
        rules: impl Fn(u8) -> Option<Rule>,
        input: &mut &'a [u8],
        at: Timestamp,
    ) -> Result<Option<Frame<'a>>, Lost> {
        if self.header_len == 0
            && let [kind, a, b, c, d, rest @ ..] = *input
        {
            let (length, want) = self.measure(&rules, *kind, [*a, *b, *c, *d])?;
            if let Some((body, rest)) = rest.split_at_checked(length as usize) {
                *input = rest;
                let body = Cow::Borrowed(&body[..want as usize]);
                return Ok(Some(Frame { kind: *kind, length, body, began: at }));
            }
        }
        Ok(None)
    }

    /// [`Framer::next`] for a message that does not lie in `input` as a whole.
    pub(super) fn next_part<'a>(
        &mut self,
        rules: impl Fn(u8) -> Option<Rule>,
        input: &mut &'a [u8],
        at: Timestamp,
    ) -> Result<Option<Frame<'a>>, Lost> {
        if usize::from(self.header_len) < HEADER {
            if input.is_empty() {
                return Ok(None);
            }
            if self.header_len == 0 {
                self.began = at;
            }
            let have = usize::from(self.header_len);
            let (head, rest) = input.split_at(input.len().min(HEADER - have));
            self.header[have..have + head.len()].copy_from_slice(head);
            self.header_len += head.len() as u8;
            *input = rest;
            if usize::from(self.header_len) < HEADER {
                return Ok(None);
            }
            let [kind, length @ ..] = self.header;
            (self.length, self.want) = self.measure(rules, kind, length)?;
            self.remaining = self.length;
        }
        let take = input.len().min(self.remaining as usize);
        let (part, rest) = input.split_at(take);
        *input = rest;
        self.remaining -= take as u32;
        if take == self.length as usize {
            self.header_len = 0;
            let body = Cow::Borrowed(&part[..self.want as usize]);
            return Ok(Some(Frame { kind: self.header[0], length: self.length, body, began: self.began }));
        }
        if !self.holed {
            let room = (self.want as usize).saturating_sub(self.prefix.0.len());
            self.prefix.0.extend_from_slice(&part[..take.min(room)]);
        }
        Ok(self.finish())
    }

    /// `missing` bytes went over the wire but were not captured.
    pub(super) fn skip(&mut self, missing: usize) -> Result<Option<Frame<'static>>, Lost> {
        let inside_body = usize::from(self.header_len) == HEADER && missing <= self.remaining as usize;
        if !inside_body {
            return Err(Lost);
        }
        self.remaining -= missing as u32;
        self.holed = true;
        Ok(self.finish())
    }

    /// Length of a body, and how much of it is wanted.
    #[inline]
    fn measure(
        &self,
        rules: impl Fn(u8) -> Option<Rule>,
        kind: u8,
        length: [u8; HEADER - 1],
    ) -> Result<(u32, u32), Lost> {
        let rule = rules(kind).ok_or(Lost)?;
        let length = u32::from_be_bytes(length).checked_sub(4).ok_or(Lost)?;
        let longest = if self.cautious { rule.body.1.min(CAUTIOUS) } else { rule.body.1 };
        if length < rule.body.0 || length > longest {
            return Err(Lost);
        }
        Ok((length, rule.want.min(length)))
    }

    fn finish(&mut self) -> Option<Frame<'static>> {
        if self.remaining > 0 {
            return None;
        }
        self.header_len = 0;
        self.holed = false;
        let body = Cow::Owned(mem::take(&mut self.prefix.0));
        Some(Frame { kind: self.header[0], length: self.length, body, began: self.began })
    }
}

/// Skips complete messages of type `kind` at the beginning of `input`, of which nothing is read; returns how many and their bytes.
/// Result rows and COPY data are most of the bytes on a connection, so they do not take the general way.
pub(super) fn skip_run(kind: u8, shortest_body: u32, input: &mut &[u8]) -> (u64, u64) {
    let mut rest = *input;
    let mut count = 0;
    while let [first, a, b, c, d, ..] = *rest
        && first == kind
    {
        let length = u32::from_be_bytes([a, b, c, d]);
        let total = length as usize + 1;
        if length < shortest_body + 4 || length > LARGE || total > rest.len() {
            break;
        }
        rest = &rest[total..];
        count += 1;
    }
    let bytes = input.len() - rest.len();
    *input = rest;
    (count, bytes as u64)
}

/// Takes a NUL-terminated string off `body`; `None` if its end was not captured.
pub(super) fn take_string<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    // Names and tags are too short for a vectorised search to pay.
    let end = body.iter().position(|byte| *byte == 0)?;
    let string = &body[..end];
    *body = &body[end + 1..];
    Some(string)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn rules(kind: u8) -> Option<Rule> {
        (kind == b'x').then_some(Rule { body: (0, 100), want: 4 })
    }

    const NOW: Timestamp = Timestamp(1);

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        let bytes = b"x\0\0\0\x0aabcdef";
        for cut in 0..bytes.len() {
            let mut framer = Framer::default();
            let mut first = &bytes[..cut];
            assert!(framer.next(rules, &mut first, NOW).unwrap().is_none(), "cut at {cut}");
            let mut second = &bytes[cut..];
            let frame = framer.next(rules, &mut second, Timestamp(2)).unwrap().unwrap();
            assert_eq!((frame.kind, frame.length, &*frame.body), (b'x', 6, &b"abcd"[..]));
            assert_eq!(frame.began, Timestamp(if cut == 0 { 2 } else { 1 }));
            assert!(framer.at_boundary() && second.is_empty());
        }
    }

    #[test]
    fn a_hole_inside_a_body_keeps_the_place() {
        let mut framer = Framer::default();
        let mut input = &b"x\0\0\0\x0aab"[..];
        assert!(framer.next(rules, &mut input, NOW).unwrap().is_none());
        assert!(framer.skip(1).unwrap().is_none());
        let mut input = &b"def"[..];
        let frame = framer.next(rules, &mut input, NOW).unwrap().unwrap();
        assert_eq!(&*frame.body, b"ab", "what follows a hole is not kept");
    }

    #[test]
    fn a_hole_over_a_header_loses_the_place() {
        let mut framer = Framer::default();
        let mut input = &b"x\0\0\0\x0aab"[..];
        assert!(framer.next(rules, &mut input, NOW).unwrap().is_none());
        assert_eq!(framer.skip(5).unwrap_err(), Lost);
        assert_eq!(Framer::default().skip(1).unwrap_err(), Lost);
    }

    #[test]
    fn impossible_headers_are_refused() {
        for bytes in [&b"y\0\0\0\x04"[..], b"x\0\0\0\x03", b"x\0\0\0\xff"] {
            let mut input = bytes;
            assert_eq!(Framer::default().next(rules, &mut input, NOW).unwrap_err(), Lost, "{bytes:?}");
        }
    }

    #[test]
    fn a_run_of_rows_stops_at_the_first_other_or_incomplete_message() {
        let mut input = &b"D\0\0\0\x06\0\0D\0\0\0\x07\0\0aD\0\0\0\x06\0"[..];
        assert_eq!(skip_run(b'D', 2, &mut input), (2, 15));
        assert_eq!(input, b"D\0\0\0\x06\0");
    }
}
