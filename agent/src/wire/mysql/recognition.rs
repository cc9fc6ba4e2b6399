//! What a session that is not understood turns out to be.

use smallvec::SmallVec;

use super::{Direction, protocol::x};

/// A session that cannot be followed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Encrypted, and not captured at the server's own boundary.
    Tls,
    /// The X protocol: protobuf messages, usually on port 33060.
    X,
}

/// So many messages each way, with no command among them that is answered, are no chance.
const PROOF: u8 = 3;

/// What the reads and writes of a session look like that has shown no provable boundary yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    tls: [u8; 2],
    x: [u8; 2],
    /// How the current read or write begins, as far as it has been seen; `None` if it is not looked at.
    head: Option<SmallVec<[u8; x::HELLO.len()]>>,
}

impl Evidence {
    /// A read or write begins; `weighed` says whether it is looked at.
    pub(super) fn begin(&mut self, weighed: bool) {
        self.head = weighed.then(SmallVec::new);
    }

    /// Looks at the next bytes of a read or write. Says what the session is as soon as that is sure.
    pub(super) fn weigh(&mut self, direction: Direction, bytes: &[u8]) -> Option<Foreign> {
        let head = self.head.as_mut()?;
        let before = head.len();
        head.extend_from_slice(&bytes[..bytes.len().min(x::HELLO.len() - before)]);
        let complete = |length: usize| before < length && head.len() >= length;
        if direction == Direction::Response && complete(x::HELLO.len()) && head.as_slice() == x::HELLO {
            return Some(Foreign::X);
        }
        // Application data, version 3.x.
        let tls = complete(3) && matches!(head.as_slice(), [0x17, 0x03, 1..=4, ..]);
        count(&mut self.tls, direction, tls);
        // A length of less than 2^24, then the type of a message. Where that would be a packet of the ordinary protocol, its sequence id is 0,
        // as that of no response is but a greeting.
        let types = if direction == Direction::Request { x::REQUESTS } else { x::RESPONSES };
        let x = complete(5) && matches!(head.as_slice(), [_, _, _, 0, kind, ..] if types.contains(kind));
        count(&mut self.x, direction, x);
        if self.tls.iter().all(|seen| *seen >= PROOF) {
            return Some(Foreign::Tls);
        }
        self.x.iter().all(|seen| *seen >= PROOF).then_some(Foreign::X)
    }
}

fn count(seen: &mut [u8; 2], direction: Direction, fits: bool) {
    let seen = &mut seen[direction as usize];
    *seen = seen.saturating_add(u8::from(fits));
}
