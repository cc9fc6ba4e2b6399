//! A packet capture in, timed statements out: the same machines and the same normaliser as for a live server, for hosts where eBPF cannot run.
//!
//! `pcap` reads the file, `packet` takes frames apart, `reassembly` makes streams of segments, `recognise` finds out what they speak,
//! `connections` keeps all that together and drives the machines, `coverage` counts what was not followed, `profile` gathers what came out.
//!
//! A statement's time is that between two packets at the place of the capture: on the server's machine it differs from the agent's by the
//! way through the network stack, on the client's by the network as well.

mod connections;
mod coverage;
mod packet;
mod pcap;
pub mod profile;
mod reassembly;
mod recognise;

use std::{
    io::{self, Read},
    net::SocketAddr,
    sync::Arc,
};

use connections::Connections;
pub use coverage::Coverage;
use pcap::Reader;
pub use pcap::{Error as CaptureError, Place};
pub use recognise::{Choice, Foreign};

use crate::model::{Digest, Engine, Statement, Timestamp};

/// One execution, and whose it was.
#[derive(Clone, Copy, Debug)]
pub struct Execution<'a> {
    /// What happened. Times are nanoseconds since 1970.
    pub statement: &'a Statement,
    /// What the server speaks. A MariaDB server that is only seen from the middle of its connections counts as MySQL.
    pub engine: Engine,
    /// The client's end.
    pub client: SocketAddr,
    /// The server's end.
    pub server: SocketAddr,
    /// Current database, if known.
    pub database: Option<&'a str>,
    /// User, if known.
    pub user: Option<&'a str>,
    /// Its text without literals.
    pub digest: &'a Arc<Digest>,
}

/// Takes executions in the order in which they complete; an error of its ends the replay.
pub type Sink<'s> = dyn FnMut(&Execution<'_>) -> io::Result<()> + 's;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file holds no packet that can be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The sink failed.
    #[error(transparent)]
    Sink(#[from] io::Error),
}

/// Replays a capture. A file that breaks off behind its first packet is replayed that far, and [`Coverage::cut`] says where it broke.
pub fn replay<'s>(source: impl Read + Send, choice: &'s Choice, sink: &'s mut Sink<'s>) -> Result<Coverage, Error> {
    let mut reader = Reader::new(source)?;
    let mut connections = Connections::new(choice, sink);
    let mut now = Timestamp(0);
    let cut = loop {
        let packet = match reader.next() {
            Ok(Some(packet)) => packet,
            Ok(None) => break None,
            Err(error) if connections.coverage().packets == 0 => return Err(error.into()),
            Err(error) => break Some(format!("{error}; what is before was analysed")),
        };
        let coverage = connections.coverage();
        coverage.timeless += u64::from(packet.at.is_none());
        now = packet.at.unwrap_or(now);
        coverage.packet(now, packet.true_len);
        match packet::dissect(&packet) {
            Ok(segment) => connections.segment(now, &segment)?,
            Err(skipped) => coverage.skip(skipped),
        }
    };
    let last = connections.coverage().range.map_or(now, |(_, last)| last);
    connections.coverage().cut = cut;
    Ok(connections.finish(last)?)
}
