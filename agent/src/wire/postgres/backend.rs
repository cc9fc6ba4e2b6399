//! What a server sends. Formats: PostgreSQL documentation, "Message Formats" and "Error and Notice Message Fields".

use super::framing::{LARGE, Rule, take_string};
use crate::model::Code;

/// The rule for each message of a server.
#[inline]
pub(super) fn rules(kind: u8) -> Option<Rule> {
    /// A format code for each of at most 65535 columns.
    const COPY: (u32, u32) = (3, 3 + 2 * 65_535);
    let (body, want) = match kind {
        b'D' => ((2, LARGE), 0),
        b'd' => ((0, LARGE), 0),
        b'1' | b'2' | b'3' | b'I' | b'c' | b'n' | b's' => ((0, 0), 0),
        b'Z' => ((1, 1), 1),
        // The server builds a tag in 64 bytes (`COMPLETION_TAG_BUFSIZE`).
        b'C' => ((1, 1024), 64),
        // Severity, its translation and the code come first.
        b'E' => ((1, LARGE), 256),
        b'N' => ((1, LARGE), 0),
        b'S' => ((2, LARGE), 1024),
        b'T' => ((2, LARGE), 0),
        b't' => ((2, 2 + 4 * 65_535), 0),
        b'G' | b'H' | b'W' => (COPY, 0),
        b'A' => ((6, 65_535), 0),
        b'V' => ((4, LARGE), 0),
        b'R' => ((4, 65_535), 0),
        // 4 bytes of key until protocol 3.0, up to 256 in 3.2.
        b'K' => ((8, 260), 0),
        b'v' => ((8, 65_535), 0),
        _ => return None,
    };
    Some(Rule { body, want })
}

/// SQLSTATE of `ErrorResponse`; `None` if it has none or it was not captured.
pub(super) fn sqlstate(mut body: &[u8]) -> Option<Code> {
    while let Some((kind @ 1.., mut rest)) = body.split_first() {
        let value = take_string(&mut rest)?;
        if *kind == b'C' {
            return value.try_into().ok().map(Code::Sqlstate);
        }
        body = rest;
    }
    None
}

/// Name and value of `ParameterStatus`.
pub(super) fn parameter(mut body: &[u8]) -> Option<(&[u8], &[u8])> {
    Some((take_string(&mut body)?, take_string(&mut body)?))
}

/// Which way COPY data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// To the server.
    In,
    /// To the client.
    Out,
}

/// Rows of a completed command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// Sent to the client.
    pub(super) sent: Option<u64>,
    /// Inserted, updated or deleted.
    pub(super) affected: Option<u64>,
}

/// Tag of `CommandComplete`.
pub(super) fn tag(body: &[u8]) -> &[u8] {
    take_string(&mut &*body).unwrap_or(body)
}

/// Rows that `tag` tells of, for a command that sent `seen` rows and moved COPY data `copy`.
///
/// CREATE TABLE AS and SELECT INTO are tagged `SELECT n` but send nothing: their rows are inserted. The tag of COPY does not say which way
/// the rows went; without `copy` it was a file of the server's, and nothing tells.
pub(super) fn rows(tag: &[u8], seen: u64, copy: Option<Copy>) -> Rows {
    let mut words = tag.split(|byte| *byte == b' ');
    let verb = words.next().unwrap_or_default();
    let Some(count) = words.next_back().and_then(number) else { return Rows::default() };
    let sent = Rows { sent: Some(count), affected: None };
    let affected = Rows { sent: None, affected: Some(count) };
    match verb {
        b"SELECT" if seen == 0 && count > 0 => affected,
        b"SELECT" | b"FETCH" => sent,
        b"INSERT" | b"UPDATE" | b"DELETE" | b"MERGE" => affected,
        b"COPY" => match copy {
            Some(Copy::In) => affected,
            Some(Copy::Out) => sent,
            None => Rows::default(),
        },
        _ => Rows::default(),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_from_the_tag() {
        let sent = |count| Rows { sent: Some(count), affected: None };
        let affected = |count| Rows { sent: None, affected: Some(count) };
        let none = Rows::default();
        for (tag, seen, copy, expected) in [
            ("SELECT 3", 3, None, sent(3)),
            ("SELECT 0", 0, None, sent(0)),
            ("SELECT 9", 0, None, affected(9)),
            ("FETCH 2", 2, None, sent(2)),
            ("INSERT 0 5", 0, None, affected(5)),
            ("INSERT 0 5", 5, None, affected(5)),
            ("UPDATE 1", 0, None, affected(1)),
            ("DELETE 18446744073709551615", 0, None, affected(u64::MAX)),
            ("DELETE 18446744073709551616", 0, None, none),
            ("MERGE 4", 0, None, affected(4)),
            ("COPY 7", 0, Some(Copy::In), affected(7)),
            ("COPY 7", 0, Some(Copy::Out), sent(7)),
            ("COPY 7", 0, None, none),
            ("MOVE 7", 0, None, none),
            ("BEGIN", 0, None, none),
            ("CREATE TABLE", 0, None, none),
            ("", 0, None, none),
            ("INSERT", 0, None, none),
            ("INSERT 0 ", 0, None, none),
        ] {
            assert_eq!(rows(tag.as_bytes(), seen, copy), expected, "{tag}");
        }
    }

    #[test]
    fn the_code_is_found_among_the_fields() {
        assert_eq!(sqlstate(b"SERROR\0VERROR\0C42P01\0Mrelation does not exist\0\0"), Some(Code::Sqlstate(*b"42P01")));
        for without in [&b""[..], b"\0", b"SERROR\0", b"SERROR\0C42P", b"C42P0\0", b"C"] {
            assert_eq!(sqlstate(without), None, "{without:?}");
        }
    }
}
