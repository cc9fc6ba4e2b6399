//! Protocol compression ("Compression" in the MySQL source documentation, "Compressed Packet" in MariaDB's), undone as the bytes come.
//!
//! Once the user is let in, both directions consist of envelopes: three bytes of length, a sequence id, three bytes of length before
//! compression, 0 if the content is stored as it is. The contents joined are ordinary packets; neither need end with the other. Each
//! envelope is compressed by itself, so that one whose bytes were not all captured costs its own content only: its
//! length is known all the same, and it becomes a hole of that length. zlib or zstd, its first byte tells.
//!
//! Every flush of a server sets the sequence id of the packets inside to that of its envelope, so that it may jump where an envelope begins
//! (`net_flush`, sql-common/net_serv.cc); the ids tell nothing here.
//!
//! Memory is bounded: 44 KiB for zlib (its window), for zstd a window of [`MAX_WINDOW`] and one block, and nothing between two envelopes.
//! Content longer than its envelope said is cut off.

use std::{fmt, io::Read as _};

use flate2::{Decompress, FlushDecompress, Status};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{Lost, packet::Chunk};

/// Length of an envelope's header.
const HEADER: usize = 7;
/// Bytes that are unpacked at once: the window of zlib, in which the decoder may hold that much. With less room it would keep, when it meets
/// damage, what it has decoded before.
pub(super) const PIECE: usize = 32 * 1024;
/// Largest window of a zstd frame: that of level 3, MySQL's default, for content of any length. With a larger one the content is a hole.
const MAX_WINDOW: u64 = 2 << 20;
/// `Block_Maximum_Size` (RFC 8878, section 3.1.1.2.4).
const MAX_BLOCK: usize = 128 << 10;
/// Longest frame header (RFC 8878, section 3.1.1.1), magic number included.
const MAX_FRAME_HEADER: usize = 18;
/// First byte of a zstd frame. A zlib stream that begins so (a window of 1 KiB) no server or client makes.
const ZSTD: u8 = 0x28;

/// How the rest of the current envelope becomes content.
#[derive(Default)]
enum Content {
    /// It is the content.
    #[default]
    Stored,
    /// Its first byte has not been seen.
    Undecided,
    Zlib(Box<Decompress>),
    Zstd(Box<Zstd>),
    /// Not at all: something before it was not captured, or all content is there.
    Skipped,
    /// It is damaged. What came before the damage was given out, as it is where that came earlier.
    Damaged,
}

/// Undoes compression of one direction.
#[derive(Default)]
pub(super) struct Unpacker {
    header: [u8; HEADER],
    /// Bytes of it that have been seen; `HEADER` within an envelope.
    have: u8,
    /// Bytes of the envelope that have not been seen.
    packed: usize,
    /// Bytes of the content that have not been given out.
    left: usize,
    content: Content,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unpacker({} bytes to come, {} unpacked)", self.packed, self.left)
    }
}

impl Unpacker {
    /// Forgets everything: the next byte is the first of an envelope.
    pub(super) fn reset(&mut self) {
        *self = Unpacker::default();
    }

    /// Whether the next byte is the first of an envelope.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0
    }

    /// The next content that `chunk` holds, as a chunk; `None` when it is used up.
    pub(super) fn next<'s, 'b: 's>(
        &mut self,
        chunk: &mut Chunk<'b>,
        piece: &'s mut [u8; PIECE],
    ) -> Result<Option<Chunk<'s>>, Lost> {
        loop {
            if usize::from(self.have) < HEADER && !self.take_header(chunk) {
                return if chunk.missing > 0 { Err(Lost) } else { Ok(None) };
            }
            let at = chunk.at;
            if self.packed == 0 && self.left == 0 {
                self.reset();
                if chunk.bytes.is_empty() && chunk.missing == 0 {
                    return Ok(None);
                }
                continue;
            }
            if let Content::Undecided = self.content
                && let Some(first) = chunk.bytes.first()
            {
                self.content = match *first {
                    ZSTD => Content::Zstd(Box::default()),
                    _ => Content::Zlib(Box::new(Decompress::new(true))),
                };
            }
            let seen = &chunk.bytes[..self.packed.min(chunk.bytes.len())];
            let room = self.left.min(PIECE);
            let (taken, made) = match &mut self.content {
                Content::Stored => {
                    let bytes = take(chunk, seen.len());
                    let missing = hide(chunk, self.packed - bytes.len());
                    self.packed -= bytes.len() + missing;
                    self.left = self.packed;
                    return Ok((!bytes.is_empty() || missing > 0).then_some(Chunk { bytes, missing, at }));
                }
                Content::Skipped => {
                    let taken = take(chunk, seen.len()).len();
                    self.packed -= taken;
                    self.packed -= hide(chunk, self.packed);
                    let missing = std::mem::take(&mut self.left);
                    if missing > 0 {
                        return Ok(Some(Chunk { bytes: &[], missing, at }));
                    }
                    if self.packed > 0 {
                        return Ok(None);
                    }
                    continue;
                }
                Content::Undecided => (0, 0),
                Content::Damaged => return Err(Lost),
                Content::Zlib(zlib) => {
                    let Inflated { taken, made, ended } = inflate(zlib, seen, &mut piece[..room])?;
                    if ended && made < self.left {
                        self.content = Content::Damaged;
                    }
                    (taken, made)
                }
                Content::Zstd(zstd) => match zstd.decode(seen, self.packed == seen.len(), &mut piece[..room])? {
                    Some(made) => (seen.len(), made),
                    None => {
                        self.content = Content::Skipped;
                        continue;
                    }
                },
            };
            take(chunk, taken);
            self.packed -= taken;
            self.left -= made;
            if self.left == 0 {
                // What may follow is a checksum.
                self.content = Content::Skipped;
            }
            if made > 0 {
                return Ok(Some(Chunk { bytes: &piece[..made], missing: 0, at }));
            }
            match (self.packed, chunk.bytes.is_empty(), chunk.missing) {
                // The envelope has ended and its content has not.
                (0, ..) => return Err(Lost),
                (_, true, 0) => return Ok(None),
                (_, true, _) => self.content = Content::Skipped,
                // The decoder has taken something, or it would have failed.
                (_, false, _) => {}
            }
        }
    }

    /// Completes the header. Returns whether it is complete.
    fn take_header(&mut self, chunk: &mut Chunk<'_>) -> bool {
        let have = usize::from(self.have);
        let bytes = take(chunk, (HEADER - have).min(chunk.bytes.len()));
        self.header[have..have + bytes.len()].copy_from_slice(bytes);
        self.have += bytes.len() as u8;
        if usize::from(self.have) < HEADER {
            return false;
        }
        let length = |bytes: [u8; 3]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize;
        let [a, b, c, _, d, e, f] = self.header;
        self.packed = length([a, b, c]);
        (self.left, self.content) = match length([d, e, f]) {
            0 => (self.packed, Content::Stored),
            unpacked => (unpacked, Content::Undecided),
        };
        true
    }
}

fn take<'a>(chunk: &mut Chunk<'a>, count: usize) -> &'a [u8] {
    let (head, rest) = chunk.bytes.split_at(count);
    chunk.bytes = rest;
    head
}

/// So many of the missing bytes belong to something that lacks `lacking` bytes, if no captured ones are left.
fn hide(chunk: &mut Chunk<'_>, lacking: usize) -> usize {
    let hidden = if chunk.bytes.is_empty() { chunk.missing.min(lacking) } else { 0 };
    chunk.missing -= hidden;
    hidden
}

struct Inflated {
    taken: usize,
    made: usize,
    /// Nothing will come behind it: the stream has ended or is damaged. A wrong checksum is no damage, since it is not waited for.
    ended: bool,
}

fn inflate(zlib: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<Inflated, Lost> {
    let before = (zlib.total_in(), zlib.total_out());
    let status = zlib.decompress(input, output, FlushDecompress::None);
    let (taken, made) = ((zlib.total_in() - before.0) as usize, (zlib.total_out() - before.1) as usize);
    let ended = !matches!(status, Ok(Status::Ok | Status::BufError));
    let stuck = taken == 0 && !input.is_empty();
    if made == 0 && (ended || stuck) { Err(Lost) } else { Ok(Inflated { taken, made, ended }) }
}

/// A zstd frame, a block at a time: so much is never unpacked before it is given out.
#[derive(Default)]
struct Zstd {
    decoder: FrameDecoder,
    begun: bool,
    /// A checksum of four bytes follows the last block.
    checksum: bool,
    /// Bytes of a header or block that is not complete.
    input: Vec<u8>,
}

impl Zstd {
    /// Takes `bytes`, behind which the frame ends if `last`, and gives out what it can. `None` if the frame needs more memory than it may have.
    fn decode(&mut self, bytes: &[u8], last: bool, output: &mut [u8]) -> Result<Option<usize>, Lost> {
        self.input.extend_from_slice(bytes);
        if !self.begun {
            if self.input.len() < MAX_FRAME_HEADER && !last {
                return Ok(Some(0));
            }
            self.decoder.set_max_window_size(MAX_WINDOW);
            let mut rest = self.input.as_slice();
            match self.decoder.init(&mut rest) {
                Ok(()) => {}
                Err(ruzstd::decoding::errors::FrameDecoderError::WindowSizeTooBig { .. }) => return Ok(None),
                Err(_) => return Err(Lost),
            }
            self.begun = true;
            // Frame_Header_Descriptor, Content_Checksum_flag.
            self.checksum = self.input[4] & 1 << 2 != 0;
            self.input.drain(..self.input.len() - rest.len());
        }
        loop {
            let made = self.decoder.read(output).map_err(|_| Lost)?;
            if made > 0 {
                return Ok(Some(made));
            }
            if self.decoder.is_finished() {
                // More was announced.
                return Err(Lost);
            }
            let Some(length) = self.block()? else { return Ok(Some(0)) };
            let block = self.input.get(..length).ok_or(Lost)?;
            self.decoder.decode_blocks(block, BlockDecodingStrategy::UptoBlocks(1)).map_err(|_| Lost)?;
            self.input.drain(..length);
        }
    }

    /// Length of the block that the input begins with, if all of it is there (RFC 8878, section 3.1.1.2).
    fn block(&self) -> Result<Option<usize>, Lost> {
        const BLOCK_HEADER: usize = 3;
        let [a, b, c, ..] = *self.input else { return Ok(None) };
        let header = u32::from_le_bytes([a, b, c, 0]);
        let (last, kind, size) = (header & 1 != 0, header >> 1 & 3, (header >> 3) as usize);
        if size > MAX_BLOCK {
            return Err(Lost);
        }
        // An RLE block has one byte, which it repeats.
        let body = if kind == 1 { 1 } else { size };
        let length = BLOCK_HEADER + body + if last && self.checksum { 4 } else { 0 };
        Ok((self.input.len() >= length).then_some(length))
    }
}
