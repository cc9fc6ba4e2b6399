//! Capture files: packets with their times out of pcap and pcapng, compressed by gzip or not.
//!
//! pcap-parser knows the formats; this knows sections, interfaces, clocks, and where a broken file breaks. The formats:
//! draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng; numbers of link types: draft-ietf-opsawg-pcaplinktype.

use std::{
    fmt,
    io::{self, BufReader, Read},
};

use flate2::read::MultiGzDecoder;
use pcap_parser::{
    Block, PcapBlockOwned, PcapError, create_reader,
    traits::{PcapNGPacketBlock, PcapReaderIterator},
};

use crate::model::Timestamp;

/// Bytes read at once.
const BUFFER: usize = 256 << 10;
/// Bound on one record or block. Programs that write captures bound packets at 256 KiB (`MAXIMUM_SNAPLEN`, libpcap); a block of secrets or comments may be longer.
const MAX_BUFFER: usize = 16 << 20;
/// Bound on the interfaces of a section.
const MAX_INTERFACES: usize = 4096;
/// Bytes that show which format a file has: the header of a classic one.
const HEAD: usize = 24;
/// The first two bytes of a file compressed by gzip (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What is wrong with a record or block of more than [`MAX_BUFFER`].
const TOO_LONG: &str = "its length is given as more than 16 MiB";

/// A packet as captured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// When, in nanoseconds since 1970; `None` where the file does not tell (a pcapng Simple Packet Block).
    pub(super) at: Option<Timestamp>,
    /// `LINKTYPE_` number of what `bytes` begins with.
    pub(super) link: i32,
    /// What was captured.
    pub(super) bytes: &'a [u8],
    /// Length on the network, at least that of `bytes`.
    pub(super) true_len: usize,
}

/// Why a file cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("reading failed at {place}: {cause}")]
    Read {
        /// Where.
        place: Place,
        /// Why.
        cause: io::Error,
    },
    /// There is nothing in it.
    #[error("it is empty; a capture begins with a header, so whatever wrote it had not yet begun or had no room")]
    Empty,
    /// It is something else.
    #[error(
        "it is no packet capture: it begins with {start}, but pcap begins with d4c3b2a1 or 4d3cb2a1 (or these bytes in reverse) and pcapng with 0a0d0d0a; \
         record one with `tcpdump -i any -s 0 -w FILE.pcap port 5432 or port 3306`"
    )]
    Foreign {
        /// Its first bytes, in hexadecimal digits.
        start: String,
    },
    /// It ends in the middle.
    #[error("it ends in the middle of {place}: it was cut short, or is still being written")]
    CutShort {
        /// Where.
        place: Place,
    },
    /// Its structure is broken.
    #[error("it is damaged at {place}: {why}; what follows cannot be read")]
    Damaged {
        /// Where.
        place: Place,
        /// What is wrong.
        why: &'static str,
    },
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the packet that should begin there, counted from 1.
    pub packet: u64,
    /// Offset in bytes, in the uncompressed content.
    pub offset: u64,
}

impl Place {
    const START: Place = Place { packet: 1, offset: 0 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet {} (byte {})", self.packet, self.offset)
    }
}

/// What the packets of an interface have in common.
#[derive(Clone, Copy, Debug)]
struct Interface {
    /// `LINKTYPE_` number.
    link: i32,
    /// Most bytes kept of a packet, 0 for all.
    snaplen: u32,
    /// Ticks of its clock a second.
    resolution: u64,
    /// Seconds to add to its clock.
    offset: i64,
}

impl Interface {
    /// Nanoseconds since 1970, within what 64 bits hold (the year 2554).
    fn time(&self, ticks: u64) -> Timestamp {
        let nanos = i128::from(ticks) * 1_000_000_000 / i128::from(self.resolution.max(1));
        let nanos = nanos + i128::from(self.offset) * 1_000_000_000;
        Timestamp(nanos.clamp(0, i128::from(u64::MAX)) as u64)
    }
}

/// Reads a capture packet by packet.
pub(super) struct Reader<'r> {
    blocks: Box<dyn PcapReaderIterator + Send + 'r>,
    /// Of a classic file the one there is; of pcapng those of the section so far.
    interfaces: Vec<Interface>,
    /// Byte order of the file or section, and where in a record or block its length is.
    big_endian: bool,
    length_at: usize,
    capacity: usize,
    packets: u64,
    bytes: Vec<u8>,
}

impl<'r> Reader<'r> {
    /// Reads the header.
    pub(super) fn new(mut source: impl Read + Send + 'r) -> Result<Reader<'r>, Error> {
        let head = read_head(&mut source)?;
        if !head.starts_with(&GZIP) {
            return Reader::uncompressed(head, source);
        }
        let compressed = io::Cursor::new(head).chain(source);
        let mut content = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, compressed));
        let head = read_head(&mut content)?;
        Reader::uncompressed(head, content)
    }

    fn uncompressed(head: Vec<u8>, rest: impl Read + Send + 'r) -> Result<Reader<'r>, Error> {
        let start = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let blocks =
            create_reader(BUFFER, Filling(io::Cursor::new(head).chain(rest))).map_err(|error| match error {
                PcapError::Eof => Error::Empty,
                PcapError::Incomplete(_) => Error::CutShort { place: Place::START },
                _ => Error::Foreign { start },
            })?;
        let (big_endian, length_at) = (false, 0);
        Ok(Reader {
            blocks,
            interfaces: Vec::new(),
            big_endian,
            length_at,
            capacity: BUFFER,
            packets: 0,
            bytes: Vec::new(),
        })
    }

    /// The next packet, `None` at the end. After an error there is nothing more.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, Error> {
        loop {
            let place = Place { packet: self.packets + 1, offset: self.blocks.consumed() as u64 };
            // At a clean end it speaks of an unexpected one, if its buffer was read to the last byte.
            let at_end = self.blocks.reader_exhausted() && self.blocks.data().is_empty();
            let (length, meta) = match self.blocks.next() {
                Ok((length, block)) => {
                    match &block {
                        PcapBlockOwned::LegacyHeader(header) => {
                            (self.big_endian, self.length_at) = (header.is_bigendian(), 8);
                        }
                        PcapBlockOwned::NG(Block::SectionHeader(section)) => {
                            (self.big_endian, self.length_at) = (section.big_endian(), 4);
                        }
                        _ => {}
                    }
                    let meta = take(block, &mut self.interfaces, &mut self.bytes);
                    (length, meta.map_err(|why| Error::Damaged { place, why })?)
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    self.refill(place)?;
                    continue;
                }
                Err(PcapError::BufferTooSmall) => {
                    self.grow(place)?;
                    continue;
                }
                Err(PcapError::UnexpectedEof) if at_end => return Ok(None),
                Err(PcapError::UnexpectedEof) => {
                    return Err(match self.is_too_long() {
                        true => Error::Damaged { place, why: TOO_LONG },
                        false => Error::CutShort { place },
                    });
                }
                Err(_) => return Err(Error::Damaged { place, why: "no record or block begins there" }),
            };
            self.blocks.consume(length);
            if let Some(Meta { at, link, true_len }) = meta {
                self.packets += 1;
                return Ok(Some(Packet { at, link, bytes: &self.bytes, true_len: true_len.max(self.bytes.len()) }));
            }
        }
    }

    /// Whether what begins here has a length that no file was cut short of.
    fn is_too_long(&self) -> bool {
        let word = self.blocks.data().get(self.length_at..).and_then(<[u8]>::first_chunk::<4>);
        let length =
            word.map(|word| if self.big_endian { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) });
        length.is_some_and(|length| length as usize > MAX_BUFFER)
    }

    fn refill(&mut self, place: Place) -> Result<(), Error> {
        // pcap-parser does not hand on what the operating system said.
        self.blocks.refill().map_err(|_| Error::Read { place, cause: io::ErrorKind::Other.into() })
    }

    fn grow(&mut self, place: Place) -> Result<(), Error> {
        if self.capacity >= MAX_BUFFER {
            return Err(Error::Damaged { place, why: TOO_LONG });
        }
        self.capacity *= 2;
        self.blocks.grow(self.capacity);
        self.refill(place)
    }
}

/// A packet without its bytes.
struct Meta {
    at: Option<Timestamp>,
    link: i32,
    true_len: usize,
}

/// Takes up a block. If it is a packet, its bytes are in `bytes`.
fn take(
    block: PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    bytes: &mut Vec<u8>,
) -> Result<Option<Meta>, &'static str> {
    let mut packet = |at, link, data: &[u8], true_len: u32| {
        bytes.clear();
        bytes.extend_from_slice(data);
        Ok(Some(Meta { at, link, true_len: true_len as usize }))
    };
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            // The upper bits hold the length of a checksum at the end of each packet.
            let link = header.network.0 & 0xffff;
            interfaces.push(Interface { link, snaplen: header.snaplen, resolution, offset: 0 });
            Ok(None)
        }
        PcapBlockOwned::Legacy(record) => {
            let interface = interfaces.first().ok_or("there is no file header before it")?;
            let ticks = u64::from(record.ts_sec) * interface.resolution + u64::from(record.ts_usec);
            packet(Some(interface.time(ticks)), interface.link, record.data, record.origlen)
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            Ok(None)
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
            if interfaces.len() >= MAX_INTERFACES {
                return Err("its section describes more than 4096 interfaces");
            }
            let resolution = block.ts_resolution().ok_or("the resolution of an interface's clock is impossible")?;
            let (link, snaplen, offset) = (block.linktype.0, block.snaplen, block.ts_offset());
            interfaces.push(Interface { link, snaplen, resolution, offset });
            Ok(None)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            let interface =
                interfaces.get(block.if_id as usize).ok_or("it names an interface that is not described")?;
            let at = interface.time(u64::from(block.ts_high) << 32 | u64::from(block.ts_low));
            packet(Some(at), interface.link, block.packet_data(), block.origlen)
        }
        PcapBlockOwned::NG(Block::SimplePacket(block)) => {
            let interface = interfaces.first().ok_or("no interface is described before it")?;
            let bound = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
            let data = &block.data[..block.data.len().min(block.origlen.min(bound) as usize)];
            packet(None, interface.link, data, block.origlen)
        }
        // Names, statistics, secrets, comments, what does not exist yet.
        PcapBlockOwned::NG(_) => Ok(None),
    }
}

/// The first bytes of a file, as many as its format shows in.
fn read_head(source: &mut impl Read) -> Result<Vec<u8>, Error> {
    let mut head = Vec::with_capacity(HEAD);
    let read = source.by_ref().take(HEAD as u64).read_to_end(&mut head);
    read.map_err(|cause| Error::Read { place: Place::START, cause })?;
    Ok(head)
}

/// Fills the reader's buffer even from a pipe, so that a header never comes in two reads.
struct Filling<R>(R);

impl<R: Read> Read for Filling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut have = 0;
        while have < buffer.len() {
            match self.0.read(&mut buffer[have..]) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What is there is still good; the error comes again with the next read.
                Err(_) if have > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_every_resolution_are_nanoseconds_since_1970() {
        let time = |resolution, offset, ticks| Interface { link: 1, snaplen: 0, resolution, offset }.time(ticks).0;
        assert_eq!(time(1_000_000, 0, 1_700_000_000_123_456), 1_700_000_000_123_456_000);
        assert_eq!(time(1 << 10, 0, 3 << 9), 1_500_000_000, "a power of two");
        assert_eq!(time(1, 100, 1), 101_000_000_000, "an offset");
        assert_eq!(time(1, -100, 1), 0, "before 1970");
        assert_eq!(time(1, 0, u64::MAX), u64::MAX, "after 2554");
    }

    #[test]
    fn a_file_of_which_every_record_fits_is_read_to_its_end() {
        let mut file = [0xa1b2_c3d4u32, 2 | 4 << 16, 0, 0, 65535, 101].map(u32::to_le_bytes).concat();
        for length in [1, BUFFER as u32 + 1, 3] {
            file.extend([7, 5, length, length].map(u32::to_le_bytes).concat());
            file.extend(vec![0x45; length as usize]);
        }
        let mut reader = Reader::new(file.as_slice()).unwrap();
        let mut lengths = Vec::new();
        while let Some(packet) = reader.next().unwrap() {
            assert_eq!((packet.at, packet.link), (Some(Timestamp(7_000_005_000)), 101));
            lengths.push(packet.bytes.len());
        }
        assert_eq!(lengths, [1, BUFFER + 1, 3]);
    }
}
