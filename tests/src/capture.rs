//! Packet captures made of recorded streams: TCP over any link layer, in any file format. Owes nothing to the parsers that it tests.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use flate2::{Compression, write::GzEncoder};
use querylens::{model::Timestamp, wire::Direction};

use crate::stream::Input;

/// What time 0 of a stream is in a capture: nanoseconds since 1970.
pub const EPOCH: u64 = 1_700_000_000_000_000_000;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet.
    Ethernet,
    /// Ethernet with a VLAN tag.
    Vlan,
    /// Ethernet with two VLAN tags.
    QinQ,
    /// Linux cooked capture.
    Cooked,
    /// Linux cooked capture, version 2.
    Cooked2,
    /// BSD loopback, the family in the byte order of the machine.
    Null,
    /// OpenBSD loopback, the family in network order.
    Loop,
    /// Nothing but IP.
    Raw,
}

impl Link {
    /// All of them.
    pub const ALL: [Link; 8] =
        [Link::Ethernet, Link::Vlan, Link::QinQ, Link::Cooked, Link::Cooked2, Link::Null, Link::Loop, Link::Raw];

    /// `LINKTYPE_` number.
    pub fn number(self) -> u16 {
        match self {
            Link::Ethernet | Link::Vlan | Link::QinQ => 1,
            Link::Cooked => 113,
            Link::Cooked2 => 276,
            Link::Null => 0,
            Link::Loop => 108,
            Link::Raw => 101,
        }
    }

    fn header(self, ipv6: bool) -> Vec<u8> {
        let ether_type: [u8; 2] = if ipv6 { [0x86, 0xdd] } else { [8, 0] };
        let family = if ipv6 { 10 } else { 2 };
        match self {
            Link::Ethernet => [&[2; 12], &ether_type[..]].concat(),
            Link::Vlan => [&[2; 12], &[0x81, 0, 0, 7][..], &ether_type].concat(),
            Link::QinQ => [&[2; 12], &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7][..], &ether_type].concat(),
            Link::Cooked => [&[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0], &ether_type[..]].concat(),
            Link::Cooked2 => [&ether_type[..], &[0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0]].concat(),
            Link::Null => vec![family, 0, 0, 0],
            Link::Loop => vec![0, 0, 0, family],
            Link::Raw => Vec::new(),
        }
    }
}

/// The file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Classic.
    Pcap {
        /// Byte order.
        big_endian: bool,
        /// Resolution of times: nanoseconds instead of microseconds.
        nanos: bool,
    },
    /// pcapng with a clock of nanoseconds.
    Pcapng {
        /// Byte order.
        big_endian: bool,
        /// A new section, with an interface of its own, after so many packets; 0 for one section.
        section: usize,
    },
}

impl Format {
    /// Some of each kind.
    pub const ALL: [Format; 7] = [
        Format::Pcap { big_endian: false, nanos: false },
        Format::Pcap { big_endian: false, nanos: true },
        Format::Pcap { big_endian: true, nanos: false },
        Format::Pcap { big_endian: true, nanos: true },
        Format::Pcapng { big_endian: false, section: 0 },
        Format::Pcapng { big_endian: true, section: 0 },
        Format::Pcapng { big_endian: false, section: 5 },
    ];

    /// The resolution of times, in nanoseconds.
    pub fn resolution(self) -> u64 {
        if matches!(self, Format::Pcap { nanos: false, .. }) { 1_000 } else { 1 }
    }

    /// Writes a file.
    pub fn file(self, link: Link, frames: &[Frame]) -> Vec<u8> {
        let mut file = Vec::new();
        match self {
            Format::Pcap { big_endian, nanos } => {
                let order = Order(big_endian);
                file.extend(order.u32(if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }));
                file.extend([order.u16(2), order.u16(4)].concat());
                file.extend([0, 0, 0x40000, u32::from(link.number())].map(|word| order.u32(word)).concat());
                for frame in frames {
                    let fraction = frame.at % 1_000_000_000 / self.resolution();
                    let words =
                        [(frame.at / 1_000_000_000) as u32, fraction as u32, frame.bytes.len() as u32, frame.true_len];
                    file.extend(words.map(|word| order.u32(word)).concat());
                    file.extend(&frame.bytes);
                }
            }
            Format::Pcapng { big_endian, section } => {
                let order = Order(big_endian);
                for (number, frame) in frames.iter().enumerate() {
                    if number == 0 || section > 0 && number % section == 0 {
                        let magic = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &[0xff; 8]].concat();
                        file.extend(order.block(0x0a0d_0d0a, &magic));
                        // The clock's resolution, 10^-9, and the end of the options.
                        let clock = [&order.u16(9)[..], &order.u16(1), &[9, 0, 0, 0], &[0; 4]].concat();
                        let interface = [&order.u16(link.number())[..], &order.u16(0), &order.u32(0), &clock].concat();
                        // One that is not used comes first, so that numbers of interfaces matter.
                        let unused = [order.u16(9), order.u16(0), order.u16(0), order.u16(0)].concat();
                        file.extend(order.block(1, &unused));
                        file.extend(order.block(1, &interface));
                        // Unknown blocks are skipped.
                        file.extend(order.block(0x0bad, b"skip"));
                    }
                    let words = [1, (frame.at >> 32) as u32, frame.at as u32, frame.bytes.len() as u32, frame.true_len];
                    let words = words.map(|word| order.u32(word)).concat();
                    file.extend(order.block(6, &[&words[..], &frame.bytes].concat()));
                }
            }
        }
        file
    }
}

/// Writes integers in big-endian order if set.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, word: u16) -> [u8; 2] {
        if self.0 { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    fn u32(self, word: u32) -> [u8; 4] {
        if self.0 { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
        let length = self.u32((body.len() + padding.len() + 12) as u32);
        [&self.u32(kind)[..], &length, body, &padding, &length].concat()
    }
}

/// Compresses a file.
pub fn gzip(file: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(file)?;
    encoder.finish()
}

/// A packet as captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// What was captured.
    pub bytes: Vec<u8>,
    /// Length on the network.
    pub true_len: u32,
    /// Bytes of TCP payload, captured or not.
    pub payload: usize,
}

impl Frame {
    /// Cuts the packet as a short snapshot length does.
    pub fn cut(&mut self, length: usize) {
        self.bytes.truncate(length);
    }
}

/// Flags of a TCP header (RFC 9293, section 3.1).
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 1;
    /// The connection begins.
    pub const SYN: u8 = 2;
    /// The connection is reset.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

/// One TCP connection, as a capture sees it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Link layer.
    pub link: Link,
    /// IPv6, with extension headers, instead of IPv4.
    pub ipv6: bool,
    /// Port of the client.
    pub client_port: u16,
    /// Port of the server.
    pub server_port: u16,
    /// Sequence numbers of the next byte of client and server.
    pub next: [u32; 2],
    /// Its packets so far.
    pub frames: Vec<Frame>,
}

impl Connection {
    /// A connection without a packet. Its sequence numbers soon begin anew at 0.
    pub fn new(link: Link, ipv6: bool, server_port: u16) -> Connection {
        Connection {
            link,
            ipv6,
            client_port: 40_000,
            server_port,
            next: [u32::MAX - 20, u32::MAX - 700],
            frames: Vec::new(),
        }
    }

    /// The addresses of client and server.
    pub fn ends(&self) -> [SocketAddr; 2] {
        let address = |last: u8| -> IpAddr {
            match self.ipv6 {
                true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
                false => Ipv4Addr::new(10, 0, 0, last).into(),
            }
        };
        [SocketAddr::new(address(9), self.client_port), SocketAddr::new(address(1), self.server_port)]
    }

    /// Both sides of the opening handshake.
    pub fn open(&mut self, at: Timestamp) {
        self.segment(Direction::Request, at, flag::SYN, &[], 0);
        self.segment(Direction::Response, at, flag::SYN | flag::ACK, &[], 0);
        self.segment(Direction::Request, at, flag::ACK, &[], 0);
    }

    /// The end of both directions.
    pub fn close(&mut self, at: Timestamp) {
        self.segment(Direction::Request, at, flag::FIN | flag::ACK, &[], 0);
        self.segment(Direction::Response, at, flag::FIN | flag::ACK, &[], 0);
        self.segment(Direction::Request, at, flag::ACK, &[], 0);
    }

    /// Everything that happened on a recorded stream; segments get at most as many bytes as `sizes` says, in turn. A gap is left out.
    pub fn stream(&mut self, inputs: &[Input], sizes: &[usize]) {
        let mut sizes = sizes.iter().copied().cycle();
        let mut now = Timestamp(0);
        for input in inputs {
            match input {
                Input::Gap => {}
                Input::Close => self.close(now),
                Input::Data { direction, at, bytes, missing } => {
                    now = *at;
                    let mut rest = bytes.as_slice();
                    loop {
                        let size = sizes.next().unwrap_or(usize::MAX).clamp(1, 60_000).min(rest.len());
                        let (part, behind) = rest.split_at(size);
                        rest = behind;
                        let missing = if rest.is_empty() { *missing } else { 0 };
                        self.segment(*direction, now, flag::ACK, part, missing);
                        if rest.is_empty() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// One segment; `missing` bytes at its end are not captured.
    pub fn segment(&mut self, direction: Direction, at: Timestamp, flags: u8, payload: &[u8], missing: usize) {
        let (from, to) = match direction {
            Direction::Request => (0, 1),
            Direction::Response => (1, 0),
        };
        let ends = self.ends();
        let acknowledged = if flags & flag::ACK != 0 { self.next[to] } else { 0 };
        let tcp = [
            &ends[from].port().to_be_bytes()[..],
            &ends[to].port().to_be_bytes(),
            &self.next[from].to_be_bytes(),
            &acknowledged.to_be_bytes(),
            // Eight words of header: twelve bytes of options, no-operations.
            &[0x80, flags, 0xff, 0xff, 0, 0, 0, 0],
            &[1; 12],
        ]
        .concat();
        let length = tcp.len() + payload.len() + missing;
        let ip = match (ends[from].ip(), ends[to].ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let length = (20 + length) as u16;
                let fixed = [0x45, 0, length.to_be_bytes()[0], length.to_be_bytes()[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
                [&fixed[..], &from.octets(), &to.octets()].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                // Hop-by-hop and destination options of eight bytes each: a padding of six.
                let options = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
                let length = ((options.len() + length) as u16).to_be_bytes();
                let fixed = [0x60, 0, 0, 0, length[0], length[1], 0, 64];
                [&fixed[..], &from.octets(), &to.octets(), &options].concat()
            }
            _ => Vec::new(),
        };
        let bytes = [&self.link.header(self.ipv6)[..], &ip, &tcp, payload].concat();
        let true_len = (bytes.len() + missing) as u32;
        self.frames.push(Frame { at: EPOCH + at.0, bytes, true_len, payload: payload.len() + missing });
        let counted = u32::from(flags & (flag::SYN | flag::FIN) != 0);
        self.next[from] = self.next[from].wrapping_add((payload.len() + missing) as u32 + counted);
    }
}
