//! Commands of the client ("Command Phase").

use super::{
    packet::Packet,
    protocol::{capability, command},
    reader::Reader,
};

/// Bytes of a text that are kept.
pub(super) const MAX_TEXT: usize = 16 * 1024;
/// Bytes of query attributes that are stepped over to find the text behind them.
const MAX_ATTRIBUTES: usize = 4 * 1024;

/// How many bytes of a command that begins with `first` are needed.
pub(super) fn want(first: u8) -> u32 {
    match first {
        command::QUERY => (1 + MAX_ATTRIBUTES + MAX_TEXT) as u32,
        command::STMT_PREPARE => (1 + MAX_TEXT) as u32,
        command::CHANGE_USER => super::handshake::Answer::WANT,
        command::INIT_DB => 1024,
        // Command, statement id, flags.
        _ => 8,
    }
}

/// Whether the server answers nothing.
pub(super) fn is_silent(code: u8) -> bool {
    matches!(code, command::QUIT | command::STMT_CLOSE | command::STMT_SEND_LONG_DATA)
}

/// Whether the connection becomes a stream that is none of statements.
pub(super) fn is_replication(code: u8) -> bool {
    matches!(
        code,
        command::BINLOG_DUMP
            | command::BINLOG_DUMP_GTID
            | command::TABLE_DUMP
            | command::REGISTER_SLAVE
            | command::CLONE
            | command::SUBSCRIBE_GROUP_REPLICATION_STREAM
    )
}

/// Whether a packet may be a command of a client: a known code with a length that it can have. Used where nothing else is known
/// of the place in the stream.
pub(super) fn is_plausible(packet: &Packet<'_>) -> bool {
    let Some(code) = packet.payload.first() else { return false };
    match *code {
        command::QUERY | command::STMT_PREPARE | command::INIT_DB => packet.length > 1,
        command::STMT_EXECUTE => packet.length >= 10,
        command::STMT_BULK_EXECUTE => packet.length >= 7,
        command::STMT_CLOSE | command::STMT_RESET => packet.length == 5,
        command::STMT_FETCH => packet.length == 9,
        command::STMT_SEND_LONG_DATA => packet.length >= 7,
        command::QUIT | command::STATISTICS | command::PROCESS_INFO | command::RESET_CONNECTION => packet.length == 1,
        0 => false,
        code => code <= command::LAST,
    }
}

/// Statement id and flags of a command on a prepared statement; flags are 0 where there are none.
pub(super) fn statement_id(payload: &[u8]) -> Option<(u32, u8)> {
    let mut reader = Reader(payload);
    reader.u8()?;
    let id = reader.u32()?;
    Some((id, reader.u8().unwrap_or(0)))
}

/// What was captured of the text of `COM_QUERY`, and its true length. `None` if query attributes hide where it begins.
pub(super) fn query_text<'a>(packet: &Packet<'a>, capabilities: Option<u64>) -> Option<(&'a [u8], usize)> {
    let mut reader = Reader(packet.payload.get(1..)?);
    let attributes = match capabilities {
        Some(flags) => flags & capability::QUERY_ATTRIBUTES != 0,
        // Without attributes the first byte is text; with them it is their number and the second one the number of sets, always 1.
        // No statement begins with a control character that is not space.
        None => matches!(reader.0, [0..=8, 1, ..]),
    };
    if attributes {
        skip_attributes(&mut reader)?;
    }
    let skipped = packet.payload.len() - reader.0.len();
    let length = usize::try_from(packet.length).ok()?.checked_sub(skipped)?;
    Some((&reader.0[..reader.0.len().min(MAX_TEXT)], length))
}

/// Steps over query attributes ("COM_QUERY", since MySQL 8.0.23).
fn skip_attributes(reader: &mut Reader<'_>) -> Option<()> {
    let count = usize::try_from(reader.lenenc()?).ok()?;
    reader.lenenc()?; // number of sets
    if count == 0 {
        return Some(());
    }
    let nulls = reader.bytes(count.div_ceil(8))?;
    (reader.u8()? == 1).then_some(())?; // types follow
    // Each has at least three bytes here, so that the payload bounds the number.
    let mut types = Vec::new();
    for _ in 0..count {
        let kind = reader.u16()? as u8;
        reader.lenenc_bytes()?; // name
        types.push(kind);
    }
    for (at, kind) in types.into_iter().enumerate() {
        if nulls[at / 8] & 1 << (at % 8) == 0 {
            skip_value(reader, kind)?;
        }
    }
    Some(())
}

/// Steps over a value of the binary protocol ("Binary Protocol Value"); types are those of `enum_field_types`.
fn skip_value(reader: &mut Reader<'_>, kind: u8) -> Option<()> {
    let length = match kind {
        1 => 1,                                        // TINY
        2 | 13 => 2,                                   // SHORT, YEAR
        3 | 4 | 9 => 4,                                // LONG, FLOAT, INT24
        5 | 8 => 8,                                    // DOUBLE, LONGLONG
        6 => 0,                                        // NULL
        7 | 10 | 11 | 12 => usize::from(reader.u8()?), // TIMESTAMP, DATE, TIME, DATETIME
        _ => return reader.lenenc_bytes().map(drop),
    };
    reader.bytes(length).map(drop)
}
