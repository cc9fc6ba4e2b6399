//! The two byte streams of a TCP connection, put together from segments that come twice, overlap, are out of order, cut or missing.
//!
//! Bytes are handed on in the order in which the ends can have seen them: each in its own direction by sequence number, and none before the
//! bytes of the other direction that its sender had acknowledged. So a request is never behind its response, however the capture mixed them.
//!
//! A hole is a loss of the capture, and not of the network, if the receiver has acknowledged what would fill it. Such a hole is waited for
//! a little, since captures reorder, and then given up. One that is not acknowledged is waited for until it is sent again.

use std::{collections::BTreeMap, time::Duration};

use super::packet::Segment;
use crate::model::Timestamp;

/// Most bytes that wait on one connection; a receive window is rarely larger (`tcp_rmem`, Linux: 6 MiB at most, and that for one direction).
const MAX_HELD: usize = 4 << 20;
/// Segments of the connection, and time, that a hole is waited for although its bytes were acknowledged.
const PATIENCE_SEGMENTS: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(1);
/// A segment further ahead is none of this connection: the largest window there is (RFC 7323, section 2.2).
const MAX_WINDOW: i64 = 1 << 30;

/// What a piece that waits costs beside its bytes, about.
const PIECE_COST: usize = 96;

/// One end of a connection: index of its stream, the bytes that it sent.
pub(super) type Side = usize;

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output<'a> {
    /// The next bytes of a stream.
    Data {
        side: Side,
        at: Timestamp,
        /// What was captured.
        bytes: &'a [u8],
        /// How many there were; what is missing is at the end.
        true_len: usize,
    },
    /// Bytes of a stream are not in the capture.
    Gap { at: Timestamp, length: u64 },
}

/// What was seen and needed no attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Segments whose bytes had all been there.
    pub(super) repeated: u64,
    /// Segments that had to wait for others.
    pub(super) reordered: u64,
    /// Segments of no possible place.
    pub(super) misplaced: u64,
}

#[derive(Debug)]
struct Piece {
    at: Timestamp,
    bytes: Box<[u8]>,
    true_len: u64,
    /// Bytes of the other stream that its sender had received.
    after: u64,
}

impl Piece {
    /// What it takes while it waits, about.
    fn cost(&self) -> usize {
        self.bytes.len() + PIECE_COST
    }
}

/// One direction. Offsets count from the first byte that the connection was seen with.
#[derive(Debug, Default)]
struct Stream {
    /// Sequence number of offset 0, once known.
    base: Option<u32>,
    /// Everything before was handed on.
    next: u64,
    /// The receiver has everything before.
    acknowledged: u64,
    /// Where the sender ended it.
    end: Option<u64>,
    /// What waits, by its offset and, since bytes may come more than once, its number.
    pieces: BTreeMap<(u64, u64), Piece>,
    numbers: u64,
}

impl Stream {
    /// The offset nearest to `next` that has this sequence number; negative before the first byte.
    fn offset(&self, base: u32, sequence: u32) -> i64 {
        let next = base.wrapping_add(self.next as u32);
        self.next as i64 + i64::from(sequence.wrapping_sub(next) as i32)
    }

    /// Its receiver sent this acknowledgement number. Returns how much it had.
    fn acknowledge(&mut self, number: u32) -> u64 {
        let base = *self.base.get_or_insert(number);
        let offset = self.offset(base, number);
        if !(0..self.next as i64 + MAX_WINDOW).contains(&offset) {
            return 0;
        }
        // The end of a stream counts as a byte.
        let had = (offset as u64).min(self.end.unwrap_or(u64::MAX));
        self.acknowledged = self.acknowledged.max(had);
        had
    }

    /// The receiver has bytes that were not seen.
    fn has_lost(&self) -> bool {
        self.acknowledged > self.next
    }
}

/// A connection's streams.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    streams: [Stream; 2],
    held: usize,
    /// Time of what was handed on last: time does not run backwards on a connection.
    last: Timestamp,
    /// Since when something waits for bytes that will hardly come.
    stalled: Option<(Timestamp, u32)>,
}

impl Reassembly {
    /// Bytes that wait.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether both ends have sent everything.
    pub(super) fn is_finished(&self) -> bool {
        self.streams.iter().all(|stream| stream.end.is_some_and(|end| stream.next >= end))
    }

    /// Whether `side` sent a byte.
    pub(super) fn saw(&self, side: Side) -> bool {
        self.streams[side].next > 0 || !self.streams[side].pieces.is_empty()
    }

    /// Takes up a segment that `side` sent.
    pub(super) fn segment(
        &mut self,
        side: Side,
        at: Timestamp,
        segment: &Segment<'_>,
        tally: &mut Tally,
        out: &mut dyn FnMut(Output<'_>),
    ) {
        let after = segment.acknowledged.map_or(0, |number| self.streams[1 - side].acknowledge(number));
        self.place(side, at, segment, after, tally, out);
        self.drain(out);
        self.give_up_late(at, out);
    }

    fn place(
        &mut self,
        side: Side,
        at: Timestamp,
        segment: &Segment<'_>,
        after: u64,
        tally: &mut Tally,
        out: &mut dyn FnMut(Output<'_>),
    ) {
        let stream = &mut self.streams[side];
        if stream.base.is_none() && segment.true_len == 0 && !segment.syn && !segment.fin {
            // A probe that keeps the connection alive has the number of a byte before.
            return;
        }
        let first = segment.sequence.wrapping_add(segment.syn.into());
        let base = *stream.base.get_or_insert(first);
        let from = stream.offset(base, first);
        if (from - stream.next as i64).abs() > MAX_WINDOW {
            tally.misplaced += 1;
            return;
        }
        let to = from.saturating_add_unsigned(segment.true_len as u64);
        if segment.fin && to >= stream.next as i64 {
            stream.end.get_or_insert(to as u64);
        }
        let next = self.streams[side].next;
        let old = (next as i64 - from).max(0) as usize;
        if segment.true_len == 0 {
            return;
        }
        if old >= segment.true_len {
            tally.repeated += 1;
            return;
        }
        let bytes = &segment.payload[old.min(segment.payload.len())..];
        let true_len = segment.true_len - old;
        let from = (from + old as i64) as u64;
        if from == next && after <= self.streams[1 - side].next {
            return self.hand_on(side, at, bytes, true_len as u64, out);
        }
        tally.reordered += 1;
        let piece = Piece { at, bytes: bytes.into(), true_len: true_len as u64, after };
        self.held += piece.cost();
        let stream = &mut self.streams[side];
        stream.pieces.insert((from, stream.numbers), piece);
        stream.numbers += 1;
    }

    fn hand_on(&mut self, side: Side, at: Timestamp, bytes: &[u8], true_len: u64, out: &mut dyn FnMut(Output<'_>)) {
        self.last = self.last.max(at);
        self.streams[side].next += true_len;
        out(Output::Data { side, at: self.last, bytes, true_len: true_len as usize });
    }

    /// Hands on every piece whose turn it is.
    fn drain(&mut self, out: &mut dyn FnMut(Output<'_>)) {
        while let Some((_, side, key)) = (0..2).filter_map(|side| self.ready(side)).min() {
            let stream = &mut self.streams[side];
            let Some(piece) = stream.pieces.remove(&key) else { break };
            self.held -= piece.cost();
            let old = stream.next - key.0;
            if old < piece.true_len {
                let bytes = &piece.bytes[(old as usize).min(piece.bytes.len())..];
                self.hand_on(side, piece.at, bytes, piece.true_len - old, out);
            }
        }
        if self.streams.iter().all(|stream| stream.pieces.is_empty()) {
            self.stalled = None;
        }
    }

    /// A piece of `side` whose turn it is, or whose bytes came otherwise.
    fn ready(&self, side: Side) -> Option<(Timestamp, Side, (u64, u64))> {
        let (stream, other) = (&self.streams[side], &self.streams[1 - side]);
        let mut begun = stream.pieces.range(..=(stream.next, u64::MAX));
        let (key, piece) = begun.find(|((from, _), piece)| {
            piece.after <= other.next || from.saturating_add(piece.true_len) <= stream.next
        })?;
        Some((piece.at, side, *key))
    }

    /// Gives up holes that have been waited for long enough.
    fn give_up_late(&mut self, now: Timestamp, out: &mut dyn FnMut(Output<'_>)) {
        while self.held > 0 {
            if self.held <= MAX_HELD {
                if !self.streams.iter().any(Stream::has_lost) {
                    self.stalled = None;
                    return;
                }
                let (since, segments) = self.stalled.get_or_insert((now, 0));
                *segments += 1;
                if *segments <= PATIENCE_SEGMENTS && now.since(*since) <= PATIENCE {
                    return;
                }
            }
            self.give_up_one(out);
        }
    }

    /// Nothing more will come: gives up all holes.
    pub(super) fn finish(&mut self, out: &mut dyn FnMut(Output<'_>)) {
        while self.held > 0 {
            self.give_up_one(out);
        }
    }

    /// Gives up the hole that what waits longest waits for.
    fn give_up_one(&mut self, out: &mut dyn FnMut(Output<'_>)) {
        let waiting = |side: Side| {
            self.streams[side].pieces.first_key_value().map(|((from, _), piece)| (piece.at, *from, piece.after))
        };
        let longest = (0..2).filter_map(|side| Some((waiting(side)?, side))).min();
        let Some(((at, from, after), side)) = longest else { return };
        // Its own stream first: only what is behind the hole can wait for the other one.
        let (hole, mut to) = if from > self.streams[side].next { (side, from) } else { (1 - side, after) };
        let stream = &mut self.streams[hole];
        if let Some(mut first) = stream.pieces.first_entry() {
            let (from, _) = *first.key();
            if from <= stream.next {
                // Each waits for the other, which no two ends can have done: numbers are wrong.
                first.get_mut().after = 0;
                return self.drain(out);
            }
            to = to.min(from);
        }
        let length = to - stream.next;
        stream.next = to;
        self.last = self.last.max(at);
        out(Output::Gap { at: self.last, length });
        self.drain(out);
    }
}
