//! Framing: three bytes of length, one byte of sequence id, payload (MySQL source documentation, "MySQL Packets").
//!
//! A payload of 2^24 - 1 bytes or more goes in several physical packets, each but the last 0xffffff long; a [`Packet`] here is the whole.
//! Only the prefix that the caller asks for is kept, and it is copied only when it does not lie in one chunk.

use crate::model::Timestamp;

/// Length of a physical packet's header.
pub(super) const HEADER: usize = 4;
/// Payload length of a physical packet that is continued by the next one.
pub(super) const CONTINUED: u32 = 0xff_ffff;
/// Buffers larger than this are given back when the packet is done, so that idle connections stay small.
const KEEP_CAPACITY: usize = 256;

/// What is left of the bytes of one read or write.
pub(super) struct Chunk<'a> {
    /// Captured and not yet consumed.
    pub(super) bytes: &'a [u8],
    /// Bytes that were sent after `bytes` but not captured.
    pub(super) missing: usize,
    /// When it was read or written.
    pub(super) at: Timestamp,
}

/// A whole payload.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    /// Sequence id of its first physical packet.
    pub(super) first: u8,
    /// Sequence id of its last physical packet.
    pub(super) last: u8,
    /// The first bytes of the payload, at most as many as were asked for, fewer if they were not captured.
    pub(super) payload: &'a [u8],
    /// True length of the payload.
    pub(super) length: u64,
    /// Bytes on the wire, headers included.
    pub(super) wire: u64,
    /// When its first byte was sent.
    pub(super) began: Timestamp,
}

/// What a framer makes of a chunk.
pub(super) enum Step<'a> {
    /// A packet is complete.
    Packet(Packet<'a>),
    /// The chunk is used up.
    More,
    /// The place in the stream is lost: bytes of a header were not captured, or a continuation has the wrong sequence id.
    Lost,
}

/// Splits one direction of a connection into packets.
#[derive(Debug, Default)]
pub(super) struct Framer {
    /// Header of the current physical packet.
    header: [u8; HEADER],
    /// Bytes of it that have been seen; `HEADER` within a body.
    have: u8,
    /// Whether the current physical packet continues an earlier one.
    continuing: bool,
    /// Whether a byte of the payload was not captured, so that nothing behind it belongs to the prefix.
    hole: bool,
    first: u8,
    /// Bytes of the current physical packet's body that have not been seen.
    remaining: u32,
    /// Bytes of the payload that the caller wants; set by its first byte.
    want: u32,
    length: u64,
    wire: u64,
    began: Timestamp,
    prefix: Vec<u8>,
}

impl Framer {
    /// Forgets everything: the next byte is the first of a header.
    pub(super) fn reset(&mut self) {
        self.wipe();
        *self = Framer { prefix: std::mem::take(&mut self.prefix), ..Framer::default() };
    }

    /// Whether the next byte is the first of a packet.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0 && !self.continuing
    }

    /// Header of the packet being received, once it is there.
    pub(super) fn current(&self) -> Option<[u8; HEADER]> {
        (usize::from(self.have) == HEADER).then_some(self.header)
    }

    /// The next packet of `chunk`. `want` says, from a payload's first byte, how many bytes of it the caller needs.
    #[inline]
    pub(super) fn next<'a, 'b: 'a>(&'a mut self, chunk: &mut Chunk<'b>, want: impl Fn(u8) -> u32) -> Step<'a> {
        loop {
            if usize::from(self.have) < HEADER && !self.take_header(chunk) {
                return if chunk.missing > 0 { Step::Lost } else { Step::More };
            }
            if self.remaining > 0 && self.length_before() == 0 && self.is_first_byte() && !chunk.bytes.is_empty() {
                self.want = want(chunk.bytes[0]);
            }
            let body = self.take_body(chunk);
            if self.remaining > 0 {
                return Step::More;
            }
            // The physical packet is complete.
            self.have = 0;
            if self.physical_length() == CONTINUED {
                self.continuing = true;
                continue;
            }
            self.continuing = false;
            let payload = match body {
                Some(slice) if self.prefix.is_empty() => slice,
                _ => self.prefix.as_slice(),
            };
            return Step::Packet(Packet {
                first: self.first,
                last: self.header[3],
                payload,
                length: self.length,
                wire: self.wire,
                began: self.began,
            });
        }
    }

    /// Completes the header. Returns whether it is complete and consistent; a wrong continuation counts as missing bytes.
    fn take_header(&mut self, chunk: &mut Chunk<'_>) -> bool {
        if self.have == 0 && !self.continuing && !chunk.bytes.is_empty() {
            self.wipe();
            self.length = 0;
            self.wire = 0;
            self.want = 0;
            self.hole = false;
            self.began = chunk.at;
        }
        let previous = self.header[3];
        let take = (HEADER - usize::from(self.have)).min(chunk.bytes.len());
        let (head, rest) = chunk.bytes.split_at(take);
        // The sequence id is the last byte of a header: until it is overwritten it is that of the packet before.
        self.header[usize::from(self.have)..usize::from(self.have) + take].copy_from_slice(head);
        self.have += take as u8;
        chunk.bytes = rest;
        if usize::from(self.have) < HEADER {
            return false;
        }
        if self.continuing {
            if self.header[3] != previous.wrapping_add(1) {
                chunk.missing = chunk.missing.max(1);
                return false;
            }
        } else {
            self.first = self.header[3];
        }
        self.remaining = self.physical_length();
        self.length += u64::from(self.remaining);
        self.wire += u64::from(self.remaining) + HEADER as u64;
        true
    }

    /// Consumes what the chunk has of the body. Returns the wanted prefix if the chunk held all of the packet's body.
    fn take_body<'a>(&mut self, chunk: &mut Chunk<'a>) -> Option<&'a [u8]> {
        let whole = !self.continuing && self.is_first_byte();
        let seen = (self.remaining as usize).min(chunk.bytes.len());
        let (body, rest) = chunk.bytes.split_at(seen);
        chunk.bytes = rest;
        self.remaining -= seen as u32;
        let mut hidden = 0;
        if self.remaining > 0 && chunk.missing > 0 {
            hidden = (self.remaining as usize).min(chunk.missing);
            chunk.missing -= hidden;
            self.remaining -= hidden as u32;
        }
        let wanted = &body[..seen.min((self.want as usize).saturating_sub(self.prefix.len()))];
        if whole && self.remaining == 0 && self.physical_length() != CONTINUED {
            return Some(wanted);
        }
        if !self.hole {
            self.prefix.extend_from_slice(wanted);
        }
        self.hole |= hidden > 0;
        None
    }

    /// Skips result-set rows that lie whole in the chunk, without looking into them. `sequence` is the id of the next packet.
    /// Returns how many rows and how many bytes on the wire.
    #[inline]
    pub(super) fn skip_rows(&mut self, chunk: &mut Chunk<'_>, sequence: &mut u8) -> (u64, u64) {
        if !self.at_boundary() {
            return (0, 0);
        }
        let (mut rows, mut rest) = (0, chunk.bytes);
        while let [a, b, c, id, first, ..] = *rest {
            let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
            // 0xfe and 0xff may end the result set; an empty or continued packet is left to the slow path as well.
            if id != *sequence || first >= 0xfe || length == 0 || length == CONTINUED as usize {
                break;
            }
            let Some(next) = rest.get(HEADER + length..) else { break };
            rest = next;
            rows += 1;
            *sequence = sequence.wrapping_add(1);
        }
        let wire = (chunk.bytes.len() - rest.len()) as u64;
        chunk.bytes = rest;
        (rows, wire)
    }

    fn physical_length(&self) -> u32 {
        u32::from_le_bytes([self.header[0], self.header[1], self.header[2], 0])
    }

    /// Payload length of the physical packets before the current one.
    fn length_before(&self) -> u64 {
        self.length - u64::from(self.physical_length())
    }

    fn is_first_byte(&self) -> bool {
        self.remaining == self.physical_length()
    }

    /// Empties the buffer. Overwrites it, since it may have held a statement, a row or an authentication packet.
    fn wipe(&mut self) {
        if self.prefix.is_empty() {
            return;
        }
        self.prefix.fill(0);
        self.prefix.clear();
        if self.prefix.capacity() > KEEP_CAPACITY {
            self.prefix = Vec::new();
        }
    }

    /// What is kept of the packet being received.
    #[cfg(test)]
    pub(super) fn kept(&self) -> &[u8] {
        &self.prefix
    }

    /// Gives the buffer back; to be called when the caller is done with the last packet and the connection may become idle.
    pub(super) fn release(&mut self) {
        if self.at_boundary() {
            self.wipe();
        }
    }
}
