//! Frames taken apart down to TCP. etherparse knows Ethernet, VLAN, IP and TCP; this knows the other link layers, and lengths where a packet was cut.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::pcap::Packet;

/// `LINKTYPE_` numbers, draft-ietf-opsawg-pcaplinktype.
mod link {
    pub(super) const NULL: i32 = 0;
    pub(super) const ETHERNET: i32 = 1;
    pub(super) const RAW: i32 = 101;
    pub(super) const LOOP: i32 = 108;
    pub(super) const LINUX_SLL: i32 = 113;
    pub(super) const IPV4: i32 = 228;
    pub(super) const IPV6: i32 = 229;
    pub(super) const LINUX_SLL2: i32 = 276;
    /// `DLT_RAW` as BSD systems number it; some programs write it into files.
    pub(super) const DLT_RAW: [i32; 2] = [12, 14];
}

/// Bytes of a header that is skipped: an address family (NULL, LOOP), Linux cooked capture version 1 and 2.
const FAMILY_HEADER: usize = 4;
const SLL_HEADER: usize = 16;
const SLL2_HEADER: usize = 20;

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    /// Acknowledgement number, if it is valid.
    pub(super) acknowledged: Option<u32>,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// What was captured of the payload.
    pub(super) payload: &'a [u8],
    /// Length of the payload on the network, at least that of `payload`.
    pub(super) true_len: usize,
}

/// Why a packet is no TCP segment that could be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Skipped {
    /// Something else than TCP over IP: nothing of a database is in it.
    OtherProtocol,
    /// A fragment of an IP packet.
    Fragment,
    /// A header was cut off or contradicts itself.
    Malformed,
    /// The link layer is not known: `LINKTYPE_` number.
    LinkType(i32),
}

/// Takes a packet apart.
pub(super) fn dissect<'a>(packet: &Packet<'a>) -> Result<Segment<'a>, Skipped> {
    let bytes = packet.bytes;
    let behind = |header: usize| bytes.get(header..).ok_or(Skipped::Malformed);
    let ether_type = |at: usize| match bytes.get(at..at + 2) {
        Some(word) => Ok(EtherType(u16::from_be_bytes([word[0], word[1]]))),
        None => Err(Skipped::Malformed),
    };
    let sliced = match packet.link {
        link::ETHERNET => LaxSlicedPacket::from_ethernet(bytes).map_err(|_| Skipped::Malformed)?,
        link::LINUX_SLL => LaxSlicedPacket::from_ether_type(ether_type(14)?, behind(SLL_HEADER)?),
        link::LINUX_SLL2 => LaxSlicedPacket::from_ether_type(ether_type(0)?, behind(SLL2_HEADER)?),
        link::NULL | link::LOOP => from_ip(behind(FAMILY_HEADER)?)?,
        link::RAW | link::IPV4 | link::IPV6 => from_ip(bytes)?,
        link if link::DLT_RAW.contains(&link) => from_ip(bytes)?,
        other => return Err(Skipped::LinkType(other)),
    };
    segment(&sliced, packet.true_len - bytes.len())
}

fn from_ip(bytes: &[u8]) -> Result<LaxSlicedPacket<'_>, Skipped> {
    match bytes.first().map(|first| first >> 4) {
        Some(4 | 6) => LaxSlicedPacket::from_ip(bytes).map_err(|_| Skipped::Malformed),
        Some(_) => Err(Skipped::OtherProtocol),
        None => Err(Skipped::Malformed),
    }
}

/// `cut`: bytes at the end of the packet that were not captured.
fn segment<'a>(sliced: &LaxSlicedPacket<'a>, cut: usize) -> Result<Segment<'a>, Skipped> {
    let (from, to, payload, declared): (IpAddr, IpAddr, _, _) = match &sliced.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let extensions = ip.extensions().auth.map_or(0, |auth| auth.slice().len());
            let before = header.slice().len() + extensions;
            let declared = usize::from(header.total_len()).checked_sub(before);
            (header.source_addr().into(), header.destination_addr().into(), ip.payload(), declared)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let declared = usize::from(header.payload_length()).checked_sub(ip.extensions().slice().len());
            (header.source_addr().into(), header.destination_addr().into(), ip.payload(), declared)
        }
        Some(LaxNetSlice::Arp(_)) => return Err(Skipped::OtherProtocol),
        None if sliced.stop_err.is_some() => return Err(Skipped::Malformed),
        None => return Err(Skipped::OtherProtocol),
    };
    if payload.fragmented {
        return Err(Skipped::Fragment);
    }
    let tcp = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => tcp,
        Some(_) => return Err(Skipped::OtherProtocol),
        None if sliced.stop_err.is_some() => return Err(Skipped::Malformed),
        None => return Err(Skipped::OtherProtocol),
    };
    let captured = payload.payload.len();
    // A length of 0 is that of a segment larger than 64 KiB, as the kernel hands them to a card that cuts them: the packet's own length counts.
    let missing = match declared {
        Some(declared @ 1..) => declared.saturating_sub(captured),
        Some(0) | None => cut,
    };
    Ok(Segment {
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        acknowledged: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        payload: tcp.payload(),
        true_len: tcp.payload().len() + missing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IPv4 that says it is `length` long, TCP without options, two bytes of payload.
    fn ipv4(length: u16) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1];
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes.extend([0x9c, 0x40, 0x15, 0x38, 0, 0, 0, 7, 0, 0, 0, 8, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        bytes.extend(b"ab");
        bytes
    }

    fn lengths(bytes: &[u8], true_len: usize) -> Result<(usize, usize), Skipped> {
        dissect(&Packet { at: None, link: link::RAW, bytes, true_len }).map(|tcp| (tcp.payload.len(), tcp.true_len))
    }

    #[test]
    fn a_payload_is_as_long_as_its_packet_says() {
        assert_eq!(lengths(&ipv4(42), 42), Ok((2, 2)));
        assert_eq!(lengths(&ipv4(41), 42), Ok((1, 1)), "the rest is padding of the frame");
        assert_eq!(lengths(&ipv4(1042), 1042), Ok((2, 1002)), "cut");
        assert_eq!(lengths(&ipv4(0), 70_042), Ok((2, 70_002)), "too long for its own field");
        assert_eq!(lengths(&ipv4(42)[..30], 42), Err(Skipped::Malformed));
        let mut fragment = ipv4(42);
        fragment[6] = 0x20;
        assert_eq!(lengths(&fragment, 42), Err(Skipped::Fragment));
        let mut udp = ipv4(42);
        udp[9] = 17;
        assert_eq!(lengths(&udp, 42), Err(Skipped::OtherProtocol));
    }
}
