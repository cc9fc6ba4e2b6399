//! Protocol machines: bytes and timestamps in, statements out. No I/O, no clock, no async.
//!
//! Four properties hold for each machine: any split of a stream gives the same statements; any bytes are safe; memory is
//! bounded; a gap never pairs a wrong text with a time.

mod latest;
pub mod mysql;
pub mod postgres;

use crate::model::{Engine, SessionInfo, SessionState, Statement, Timestamp, Transaction};

/// Which way bytes went, seen from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Client to server.
    Request,
    /// Server to client.
    Response,
}

impl Direction {
    /// The other way.
    pub fn other(self) -> Direction {
        match self {
            Direction::Request => Direction::Response,
            Direction::Response => Direction::Request,
        }
    }
}

/// What a machine has to say.
#[derive(Debug)]
pub enum Event {
    /// A statement (or connection attempt) ended.
    Statement(Statement),
    /// A transaction ended.
    Transaction(Transaction),
    /// Something was lost or not understood; counted, never fatal.
    Anomaly(Anomaly),
}

/// Why something on a connection could not be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anomaly {
    /// The place in the stream was lost (gap, truncation inside a header, impossible bytes); statements until the next provable boundary are not counted.
    Desynchronised,
    /// A provable boundary was found again.
    Resynchronised,
    /// A bound on prepared statements or queued messages was reached and the oldest was forgotten.
    Evicted,
    /// The session is encrypted and the bytes are not clear text.
    Encrypted,
    /// The session speaks MySQL's X protocol, which is another one.
    XProtocol,
    /// Replication or binlog stream: left out on purpose.
    Replication,
}

impl Anomaly {
    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Anomaly::Desynchronised => "desynchronised",
            Anomaly::Resynchronised => "resynchronised",
            Anomaly::Evicted => "evicted",
            Anomaly::Encrypted => "encrypted",
            Anomaly::XProtocol => "x_protocol",
            Anomaly::Replication => "replication",
        }
    }
}

/// A connection's protocol machine.
pub trait Machine: Send {
    /// Bytes went over the wire at `at`. `bytes` is what was captured of the `true_len` bytes sent; what is missing is at the end.
    fn data(&mut self, direction: Direction, at: Timestamp, bytes: &[u8], true_len: usize, out: &mut Vec<Event>);
    /// An unknown number of bytes was lost, in either direction.
    fn gap(&mut self, at: Timestamp, out: &mut Vec<Event>);
    /// The connection ended.
    fn close(&mut self, at: Timestamp, out: &mut Vec<Event>);
    /// Whose session it is, as far as known.
    fn info(&self) -> &SessionInfo;
    /// What it does now.
    fn state(&self) -> SessionState;
}

/// The text that a request executes or prepares, where its bytes hold one from the first message on; `None` also if its end is missing.
pub fn request_text(engine: Engine, request: &[u8]) -> Option<&[u8]> {
    match engine {
        Engine::Postgresql => postgres::request_text(request),
        Engine::Mysql | Engine::Mariadb => mysql::request_text(request),
    }
}

/// A machine for a connection to `engine`. It tells by itself whether it sees the connection from its first byte (PostgreSQL: a start-up packet
/// begins with a zero byte, which no later message does; MySQL: the greeting is the only response with sequence id 0) or starts in the
/// middle and must find a provable boundary.
pub fn machine(engine: Engine) -> Box<dyn Machine> {
    match engine {
        Engine::Postgresql => Box::new(postgres::Postgres::default()),
        Engine::Mysql | Engine::Mariadb => Box::new(mysql::Mysql::default()),
    }
}
