//! A statement without its literals.

use std::sync::Arc;

use serde::Serialize;

/// What remains of a statement's text after normalisation: it holds no literal and may leave the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Digest {
    /// Stable 64-bit identity of the normalised statement; the same for simple, prepared and pg_stat_statements spelling.
    pub fingerprint: u64,
    /// Normalised text (`db.query.text`), or `<unparsable>`, or `<unknown>` for statements prepared before the agent started.
    pub text: Arc<str>,
    /// `db.query.summary`: operations and targets, e.g. `SELECT pgbench_accounts`; at most 255 bytes.
    pub summary: Arc<str>,
    /// `db.operation.name`, e.g. `SELECT`.
    pub operation: Option<Arc<str>>,
    /// `db.collection.name`, where the statement has exactly one.
    pub collection: Option<Arc<str>>,
}

impl Digest {
    /// Fingerprint of [`Digest::unknown`] ("prepared before the agent started").
    pub const UNKNOWN: u64 = 0;
    /// Fingerprint of [`Digest::other`] (the bucket at the bound).
    pub const OTHER: u64 = 1;

    /// Fingerprint of [`Digest::command`].
    pub const COMMAND: u64 = 2;

    /// The digest of executions whose text was never seen.
    pub fn unknown() -> Digest {
        Digest::named(Digest::UNKNOWN, "<unknown>")
    }

    /// The digest under which everything beyond the bound on statements is counted.
    pub fn other() -> Digest {
        Digest::named(Digest::OTHER, "_other")
    }

    /// The digest of protocol commands that carry no statement (a ping, a change of schema by command).
    pub fn command() -> Digest {
        Digest::named(Digest::COMMAND, "<command>")
    }

    /// The fingerprint as it is written everywhere: 16 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.fingerprint)
    }

    fn named(fingerprint: u64, name: &str) -> Digest {
        Digest { fingerprint, text: name.into(), summary: name.into(), operation: None, collection: None }
    }
}
