//! What a replay saw, and what it could not follow and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{packet::Skipped, reassembly::Tally, recognise::Foreign};
use crate::{
    model::{ByCode, Timestamp},
    wire::Anomaly,
};

/// Link types listed by number at most.
const MAX_LINK_TYPES: usize = 8;

/// Counts of one replay.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Packets in the file.
    pub packets: u64,
    /// Their bytes on the network.
    pub bytes: u64,
    /// Earliest and latest packet.
    pub range: Option<(Timestamp, Timestamp)>,
    /// Packets that are no TCP over IP.
    pub other_protocols: u64,
    /// Fragments of IP packets.
    pub fragments: u64,
    /// Packets with headers that are cut or contradict themselves.
    pub malformed: u64,
    /// Packets of link layers that are not known.
    pub unknown_link: u64,
    /// The numbers of these link types.
    pub link_types: BTreeSet<i32>,
    /// Packets without a time, taken for as late as the one before.
    pub timeless: u64,
    /// Segments, as reassembly saw them.
    pub(super) tally: Tally,
    /// Holes in streams of connections that are followed.
    pub gaps: u64,
    /// Bytes in these holes.
    pub missing_bytes: u64,
    /// Connections that were recognised and followed.
    pub connections: u64,
    /// Those of them that began before the capture.
    pub joined_late: u64,
    /// Those of them of which one direction is not in the capture.
    pub one_sided: u64,
    /// Connections whose end was not waited for, since too many were open.
    pub evicted: u64,
    /// Connections of other protocols, and ones that the user excluded.
    pub foreign: u64,
    /// Connections of MySQL's X protocol.
    pub x_protocol: u64,
    /// Connections without a byte of data.
    pub silent: u64,
    /// Attempts that were answered by a reset.
    pub refused: u64,
    /// Attempts that were not answered.
    pub unanswered: u64,
    /// Attempts of all kinds that succeeded.
    pub accepted: u64,
    /// Attempts that failed, by the server's code.
    pub failed: ByCode<u64>,
    /// What the protocol machines reported.
    pub anomalies: BTreeMap<Anomaly, u64>,
    /// What ended the reading before the end of the file.
    pub cut: Option<String>,
}

impl Coverage {
    pub(super) fn packet(&mut self, at: Timestamp, true_len: usize) {
        self.packets += 1;
        self.bytes += true_len as u64;
        let (first, last) = self.range.unwrap_or((at, at));
        self.range = Some((first.min(at), last.max(at)));
    }

    pub(super) fn skip(&mut self, skipped: Skipped) {
        match skipped {
            Skipped::OtherProtocol => self.other_protocols += 1,
            Skipped::Fragment => self.fragments += 1,
            Skipped::Malformed => self.malformed += 1,
            Skipped::LinkType(number) => {
                self.unknown_link += 1;
                if self.link_types.len() < MAX_LINK_TYPES {
                    self.link_types.insert(number);
                }
            }
        }
    }

    pub(super) fn leave(&mut self, foreign: Foreign) {
        match foreign {
            Foreign::Other => self.foreign += 1,
            Foreign::XProtocol => self.x_protocol += 1,
        }
    }

    fn anomaly(&self, anomaly: Anomaly) -> u64 {
        self.anomalies.get(&anomaly).copied().unwrap_or(0)
    }

    /// What was not followed and need not be: one sentence each.
    pub fn left_alone(&self) -> Vec<String> {
        let mut notes = Notes::default();
        notes.add(self.foreign, "connection", "of other protocols or excluded");
        notes.add(self.silent, "connection", "without a byte of data");
        notes.add(self.other_protocols, "packet", "that are no TCP over IP");
        notes.add(self.anomaly(Anomaly::Replication), "session", "of replication");
        notes.add(self.tally.repeated, "segment", "repeated");
        notes.add(self.tally.reordered, "segment", "put into order");
        notes.0
    }

    /// What could not be followed, so that statements may be missing: one sentence each; empty if all is well.
    pub fn troubles(&self) -> Vec<String> {
        let mut notes = Notes::default();
        notes.0.extend(self.cut.clone());
        if self.connections + self.x_protocol == 0 && self.refused + self.unanswered == 0 {
            notes.0.push(
                "no connection of PostgreSQL, MySQL or MariaDB was recognised; if there is one on another port, name it: --port PORT --engine ENGINE"
                    .to_owned(),
            );
        }
        let numbers: Vec<String> = self.link_types.iter().map(i32::to_string).collect();
        let link =
            format!("of unknown link types ({}); capture on another interface, or with -i any", numbers.join(", "));
        notes.add(self.unknown_link, "packet", &link);
        notes.add(self.anomaly(Anomaly::Encrypted), "session", "encrypted: only their number is known");
        let x_protocol = self.x_protocol + self.anomaly(Anomaly::XProtocol);
        notes.add(x_protocol, "connection", "of MySQL's X protocol, which is not followed");
        let gaps = format!("in the streams ({} bytes): the capture lost packets", self.missing_bytes);
        notes.add(self.gaps, "hole", &gaps);
        notes.add(self.anomaly(Anomaly::Desynchronised), "time", "the place in a stream was lost");
        notes.add(self.anomaly(Anomaly::Evicted), "time", "something was forgotten at a bound");
        notes.add(self.one_sided, "connection", "of which one direction is missing");
        notes.add(self.malformed, "packet", "with headers that are cut off or broken; capture with -s 0");
        notes.add(self.fragments, "fragment", "of IP packets, which are not put together");
        notes.add(self.timeless, "packet", "without a time; their statements have no true duration");
        notes.add(self.evicted, "connection", "given up, since too many were open at once");
        notes.add(self.tally.misplaced, "segment", "outside every window");
        notes.0
    }
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn add(&mut self, count: u64, what: &str, which: &str) {
        if count > 0 {
            let mut note = format!("{count} {what}");
            let plural = if count == 1 { "" } else { "s" };
            let _ = write!(note, "{plural} {which}");
            self.0.push(note);
        }
    }
}
