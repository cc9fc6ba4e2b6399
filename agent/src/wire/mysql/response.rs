//! Packets of responses ("Generic Response Packets", "Text Resultset").

use super::{
    packet::Packet,
    protocol::{CLASSIC_EOF, PROGRESS, header, status},
    reader::Reader,
};

/// Bytes that are read of a packet that ends a result; session state behind them is lost.
pub(super) const WANT: u32 = 4096;
/// Most columns that are believed in; MySQL and MariaDB allow 4,096.
const MAX_COLUMNS: u64 = 65_535;
/// Type of a session state change that names the new default schema (`SESSION_TRACK_SCHEMA`).
const TRACK_SCHEMA: u8 = 1;

/// How a result ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End<'a> {
    /// OK packet.
    Ok {
        affected: u64,
        status: u16,
        /// New default schema, if it changed.
        schema: Option<&'a [u8]>,
    },
    /// EOF packet.
    Eof { status: u16 },
    /// ERR packet.
    Err { code: u16 },
    /// A packet that says nothing about the session, or none at all.
    Silent,
}

impl End<'_> {
    /// Server status, which an error does not carry.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            End::Ok { status, .. } | End::Eof { status } => Some(*status),
            End::Err { .. } | End::Silent => None,
        }
    }
}

/// An OK packet, or one with the header of an EOF packet in its place.
pub(super) fn ok<'a>(packet: &Packet<'a>) -> Option<End<'a>> {
    let mut reader = Reader(packet.payload);
    reader.u8()?;
    let affected = reader.lenenc()?;
    reader.lenenc()?; // last insert id
    let status = reader.u16()?;
    reader.u16()?; // warnings
    let mut schema = None;
    // The flag is only ever set for clients with CLIENT_SESSION_TRACK, whose information is a string with a length.
    if status & status::SESSION_STATE_CHANGED != 0 {
        schema = reader.lenenc_bytes().and_then(|_info| reader.lenenc_bytes()).and_then(changed_schema);
    }
    Some(End::Ok { affected, status, schema })
}

fn changed_schema(changes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(changes);
    let mut schema = None;
    while let Some(kind) = reader.u8() {
        let data = reader.lenenc_bytes()?;
        if kind == TRACK_SCHEMA {
            schema = Reader(data).lenenc_bytes();
        }
    }
    schema
}

/// A packet that begins with [`header::EOF`] and ends a result: a real EOF packet or an OK packet in its place. The length tells them apart.
pub(super) fn eof_or_ok<'a>(packet: &Packet<'a>) -> Option<End<'a>> {
    if packet.length == CLASSIC_EOF {
        let mut reader = Reader(packet.payload);
        reader.bytes(1 + 2)?; // header, warnings
        return Some(End::Eof { status: reader.u16()? });
    }
    ok(packet)
}

/// What an ERR packet says.
pub(super) enum Err {
    /// An error.
    Code(u16),
    /// A progress report of MariaDB, which ends nothing.
    Progress,
}

/// Reads an ERR packet.
pub(super) fn err(packet: &Packet<'_>) -> Option<Err> {
    let mut reader = Reader(packet.payload);
    reader.u8()?;
    Some(match reader.u16()? {
        PROGRESS => Err::Progress,
        code => Err::Code(code),
    })
}

/// First packet of a response that may be a result set.
pub(super) enum Head<'a> {
    /// The result has ended already.
    End(End<'a>),
    /// A progress report of MariaDB.
    Progress,
    /// The client has to send a file.
    LocalInfile,
    /// A result set with so many columns, whose definitions follow or are left out since the client has them.
    Columns { count: u32, defined: bool },
}

/// Reads the first packet of a result.
pub(super) fn head<'a>(packet: &Packet<'a>) -> Option<Head<'a>> {
    match *packet.payload.first()? {
        header::OK => ok(packet).map(Head::End),
        header::ERR => err(packet).map(|err| match err {
            Err::Code(code) => Head::End(End::Err { code }),
            Err::Progress => Head::Progress,
        }),
        header::LOCAL_INFILE => Some(Head::LocalInfile),
        _ => columns(packet),
    }
}

/// The column count. A second byte says whether the definitions follow: with `MARIADB_CLIENT_CACHE_METADATA` of MariaDB ("Resultset Column
/// Count Packet") and with `CLIENT_OPTIONAL_RESULTSET_METADATA` of MySQL, which has it there too, whatever the order in "Text Resultset".
fn columns<'a>(packet: &Packet<'a>) -> Option<Head<'a>> {
    let mut reader = Reader(packet.payload);
    let count = reader.lenenc()?;
    let defined = match reader.0 {
        [] | [1] => true,
        [0] => false,
        _ => return None,
    };
    let whole = packet.payload.len() as u64 == packet.length;
    (whole && (1..=MAX_COLUMNS).contains(&count)).then_some(Head::Columns { count: count as u32, defined })
}

/// Answer to `COM_STMT_PREPARE` (`COM_STMT_PREPARE_OK`).
pub(super) struct PrepareOk {
    pub(super) id: u32,
    pub(super) columns: u32,
    pub(super) params: u32,
    /// The definitions follow, as they do unless the client chose otherwise with `CLIENT_OPTIONAL_RESULTSET_METADATA`.
    pub(super) defined: bool,
}

impl PrepareOk {
    /// Reads the packet.
    pub(super) fn parse(packet: &Packet<'_>) -> Option<PrepareOk> {
        let mut reader = Reader(packet.payload);
        (reader.u8()? == header::OK).then_some(())?;
        let id = reader.u32()?;
        let columns = u32::from(reader.u16()?);
        let params = u32::from(reader.u16()?);
        reader.bytes(1 + 2)?; // filler, warnings
        Some(PrepareOk { id, columns, params, defined: reader.u8() != Some(0) })
    }
}
