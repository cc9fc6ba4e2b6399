//! What the kernel remembers of a connection, in memory that userspace can read.

/// A connection: numbers only, nothing that was read from the server's memory. What is used most lies together. One thread at a time reads and
/// writes it on the kernel's side; userspace reads it at any time, so that single fields are consistent and several together may not be.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Inode number of the server's socket; 0 if the place is free.
    pub inode: u64,
    /// Address of the `struct sock`, which tells a new connection in an old place.
    pub sock: u64,
    /// Whose session: see [`group`].
    pub group: u64,
    /// Tells the statement names of this session from those of all others; changes when they can no longer be trusted.
    pub names: u64,
    /// Slot of the server.
    pub slot: u32,
    /// Process that was first seen to serve it.
    pub tgid: u32,
    /// Address family.
    pub family: u16,
    /// One of [`mode`].
    pub mode: u16,
    /// One of [`activity`].
    pub activity: u16,
    /// Bits of [`facts`].
    pub facts: u16,
    /// Number of the next record.
    pub seq: u32,
    /// One of [`crate::strategy`]: whose hooks made it.
    pub strategy: u16,
    /// One of [`crate::framing`].
    pub framing: u16,

    /// One of [`phase`].
    pub phase: u16,
    /// One of [`record`]: what of it goes to userspace.
    pub record: u16,
    /// MySQL: the sequence number that the next packet of the response must have.
    pub packet: u16,
    /// MySQL: server status of the last response, as in the protocol. PostgreSQL: status byte of the last `ReadyForQuery`.
    pub status: u16,

    /// The exchange under way. When its request was complete, 0 if it is not.
    pub begin: u64,
    /// When its first response byte was written, 0 if it was not.
    pub first: u64,
    /// Its statement's hash; 0 if the kernel does not count it.
    pub hash: u64,
    /// When the last exchange ended, or the session became idle.
    pub end: u64,
    /// Bytes of its request.
    pub bytes_in: u64,
    /// Bytes of its response.
    pub bytes_out: u64,
    /// Rows it has sent.
    pub rows_sent: u64,
    /// Rows it has changed.
    pub rows_affected: u64,
    /// Row of its statement.
    pub row: u32,
    /// Error code so far, 0 for none.
    pub code: u32,
    /// The transaction under way: when it began, 0 if there is none.
    pub transaction: u64,
    /// Response bytes still to come of the message under way.
    pub skip: u64,
    /// MySQL: definitions or the like still to come in this phase.
    pub left: u32,
    /// Bytes of a response message whose rest has not come, kept from the last write.
    pub carry: u32,
    /// Request bytes still to come of the message under way.
    pub request_skip: u64,
    /// Name of the statement that is being prepared, 0 for none.
    pub preparing: u64,
    /// MySQL: a packet's header that was read by itself and not recorded yet, first byte lowest, with [`facts::HEADER`].
    pub request_header: u32,
    /// Its own place.
    pub place: u32,

    /// Bytes of the request that was answered last.
    pub answered_in: u64,
    /// Idle time so far of the transaction under way.
    pub idle: u64,
    /// The hash of the text of the statement that is being prepared; 0 if the kernel cannot tell.
    pub preparing_hash: u64,
    /// With [`facts::NAMELESS`]: the name that the request executes.
    pub nameless: u64,
    /// As [`Session::skip`] for what is recorded: bytes of a message's body that are still to come.
    pub elide_skip: u32,
    /// Bytes of `elide_header` that are there.
    pub elide_have: u16,
    /// One of [`crate::place`].
    pub elide_place: u16,
    /// Header of the message that a recorded write ended in the middle of, first byte lowest.
    pub elide_header: u64,
    /// Where the last write's buffer began in the server's memory. A write that begins inside it repeats the part that the
    /// operating system did not take the last time ([`crate::strategy::BOUNDARY`] only).
    pub written_from: u64,
    /// End of that buffer.
    pub written_to: u64,
    /// PostgreSQL: the hash of the text of the unnamed statement, 0 if there is none or the kernel cannot tell.
    pub unnamed: u64,
    /// What names of statements stood for the last time: the place is [`Known::place`].
    pub known: [Known; KNOWN],
}

/// Names that a session remembers; a power of two.
pub const KNOWN: usize = 8;

/// What the name of a prepared statement stood for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The name, hashed with [`Session::names`]; 0 for none.
    pub name: u64,
    /// The hash of its text.
    pub hash: u64,
}

impl Known {
    /// The place of a name.
    #[inline(always)]
    pub const fn place(name: u64) -> usize {
        (name >> 40) as usize & (KNOWN - 1)
    }
}

/// Size of a session in bytes.
pub const SESSION_LEN: usize = size_of::<Session>();
const _: () = assert!(SESSION_LEN == 384);

/// Whose session it is. Values of [`Session::group`] below all of these are slots of servers: sessions of which nothing can be known.
pub mod group {
    /// And above: the session's own, until its start or userspace tells more.
    pub const PROVISIONAL: u64 = 1 << 61;
    /// And above: numbers given by userspace.
    pub const GIVEN: u64 = 1 << 62;
    /// And above: hashes of the start-up packet's user and database, which are the same for all sessions that begin alike.
    pub const HASHED: u64 = 1 << 63;
}

/// How well the kernel follows a session. Values of [`Session::mode`].
pub mod mode {
    /// Start-up and authentication.
    pub const STARTING: u16 = 0;
    /// The place is not known: everything is recorded for userspace.
    pub const LOST: u16 = 1;
    /// Between exchanges, at a known place.
    pub const IDLE: u16 = 2;
    /// Within an exchange, at a known place.
    pub const ACTIVE: u16 = 3;
    /// As [`ACTIVE`], but whether the place is right is proven only when the exchange has ended as it should.
    pub const TENTATIVE: u16 = 4;
    /// Nothing of it is wanted any more: a replication stream.
    pub const IGNORED: u16 = 5;
    /// The connection has ended.
    pub const ENDED: u16 = 6;
}

/// What a session does, for those who look at it. Values of [`Session::activity`].
pub mod activity {
    /// Nothing provable seen yet.
    pub const UNKNOWN: u16 = 0;
    /// Start-up and authentication.
    pub const STARTING: u16 = 1;
    /// Waits outside a transaction.
    pub const IDLE: u16 = 2;
    /// Executes.
    pub const ACTIVE: u16 = 3;
    /// Waits inside a transaction.
    pub const IDLE_IN_TRANSACTION: u16 = 4;
    /// Waits inside a failed transaction.
    pub const IDLE_IN_FAILED_TRANSACTION: u16 = 5;
}

/// Where in the response to a request the session is. Values of [`Session::phase`].
pub mod phase {
    /// PostgreSQL: any message may come.
    pub const MESSAGES: u16 = 0;
    /// PostgreSQL: the client sends COPY data.
    pub const COPY_IN: u16 = 1;
    /// MySQL: the first packet of a result.
    pub const HEAD: u16 = 2;
    /// MySQL: definitions of columns.
    pub const COLUMNS: u16 = 3;
    /// MySQL: the packet behind the definitions, an EOF or already a row.
    pub const BEHIND_COLUMNS: u16 = 4;
    /// MySQL: rows.
    pub const ROWS: u16 = 5;
    /// MySQL: the answer to a preparation.
    pub const PREPARED: u16 = 6;
    /// MySQL: definitions behind that answer, with or without EOF packets.
    pub const DEFINITIONS: u16 = 7;
    /// MySQL: an OK, EOF or ERR packet and nothing else.
    pub const SIMPLE: u16 = 8;
}

/// What of an exchange goes to userspace. Values of [`Session::record`].
pub mod record {
    /// Nothing.
    pub const NOTHING: u16 = 0;
    /// All bytes.
    pub const ALL: u16 = 1;
    /// All bytes, for no other reason than chance.
    pub const SAMPLE: u16 = 2;
}

/// Bits of [`Session::facts`].
pub mod facts {
    /// Seen from its first byte.
    pub const FROM_START: u16 = 1;
    /// The last response ended with `ReadyForQuery`, or with a packet that ends a result.
    pub const READY: u16 = 2;
    /// MySQL: EOF packets follow column definitions.
    pub const CLASSIC_EOF: u16 = 4;
    /// MySQL: they do not.
    pub const NO_EOF: u16 = 8;
    /// Something in the transaction under way was rolled back.
    pub const ROLLED_BACK: u16 = 16;
    /// The kernel may not follow it: compressed.
    pub const OPAQUE: u16 = 32;
    /// MySQL: [`super::Session::request_header`] holds a header.
    pub const HEADER: u16 = 64;
    /// The request executes a statement whose name the kernel does not know: userspace may tell.
    pub const NAMELESS: u16 = 128;
}
