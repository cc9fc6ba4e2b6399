//! Which protocol a connection speaks, and which end is the server.
//!
//! A connection seen from its start tells it by its handshake: a PostgreSQL client sends a start-up packet, a MySQL server greets. One that is
//! joined later is taken for what its port or an earlier handshake of the same server says, else for what its first messages can only be.

use std::net::SocketAddr;

use super::reassembly::Side;
use crate::model::Engine;

/// `PGPORT` and `MYSQL_PORT`, the defaults of the servers, and that of MySQL's X plugin.
pub(super) const POSTGRESQL_PORT: u16 = 5432;
pub(super) const MYSQL_PORT: u16 = 3306;
const X_PORT: u16 = 33060;

/// What the user said.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// What the servers speak: with `ports`, everything there; alone, only this engine is looked for.
    pub engine: Option<Engine>,
    /// Ports of servers; connections to others are left alone. Empty: all.
    pub ports: Vec<u16>,
}

/// Bytes that the ends exchanged so far, in order.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    /// The ends' addresses.
    pub(super) ends: [SocketAddr; 2],
    /// The end that opened the connection, if that was seen.
    pub(super) opener: Option<Side>,
    /// Nothing is missing before or between.
    pub(super) from_start: bool,
    /// What each end sent, as one stretch.
    pub(super) heads: [&'a [u8]; 2],
    /// The end whose bytes came last, and the chunk in which they came, if it is whole.
    pub(super) latest: Option<(Side, &'a [u8])>,
}

/// Why a connection is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreign {
    /// Its first bytes are none of a protocol that is followed, or the user excluded it.
    Other,
    /// MySQL's X protocol.
    XProtocol,
}

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It takes more bytes.
    Open,
    /// It is followed.
    Follow { engine: Engine, server: Side },
    /// It is left alone.
    Leave(Foreign),
}

/// Looks at a connection. `known` says what an address was found to speak earlier.
pub(super) fn recognise(
    opening: &Opening<'_>,
    choice: &Choice,
    known: impl Fn(&SocketAddr) -> Option<Engine>,
) -> Verdict {
    let has_port = |side: Side, port: u16| opening.ends[side].port() == port;
    let server_by = |test: &dyn Fn(Side) -> bool| match opening.opener {
        Some(opener) => Some(1 - opener).filter(|side| test(*side)),
        None => (0..2).find(|side| test(*side)),
    };
    let chosen = server_by(&|side| choice.ports.contains(&opening.ends[side].port()));
    if !choice.ports.is_empty() && chosen.is_none() {
        return Verdict::Leave(Foreign::Other);
    }
    if let (Some(server), Some(engine)) = (chosen, choice.engine) {
        return Verdict::Follow { engine, server };
    }
    let wanted = |engine: Engine| choice.engine.is_none_or(|choice| is_mysql(choice) == is_mysql(engine));
    let follow = |engine: Engine, server: Side| match wanted(engine) {
        true => Verdict::Follow { engine: choice.engine.unwrap_or(engine), server },
        false => Verdict::Leave(Foreign::Other),
    };
    if let (true, Some(opener)) = (opening.from_start, opening.opener) {
        let [client, server] = [opener, 1 - opener];
        return match handshake(opening.heads[client], opening.heads[server]) {
            Some(Handshake::Postgresql) => follow(Engine::Postgresql, server),
            Some(Handshake::Mysql(engine)) => {
                // A refusal does not tell which of the two refuses.
                let engine = engine.or_else(|| known(&opening.ends[server])).unwrap_or(Engine::Mysql);
                follow(engine, server)
            }
            Some(Handshake::Tls)
                if has_port(server, POSTGRESQL_PORT) || known(&opening.ends[server]) == Some(Engine::Postgresql) =>
            {
                follow(Engine::Postgresql, server)
            }
            Some(Handshake::X) => Verdict::Leave(Foreign::XProtocol),
            Some(Handshake::Tls | Handshake::Other) if has_port(server, X_PORT) => Verdict::Leave(Foreign::XProtocol),
            Some(Handshake::Tls | Handshake::Other) => Verdict::Leave(Foreign::Other),
            None => Verdict::Open,
        };
    }
    if let Some(server) = server_by(&|side| known(&opening.ends[side]).is_some()) {
        return known(&opening.ends[server]).map_or(Verdict::Open, |engine| follow(engine, server));
    }
    for (port, engine) in [(POSTGRESQL_PORT, Engine::Postgresql), (MYSQL_PORT, Engine::Mysql)] {
        if let Some(server) = server_by(&|side| has_port(side, port)) {
            return follow(engine, server);
        }
    }
    if server_by(&|side| has_port(side, X_PORT)).is_some() {
        return Verdict::Leave(Foreign::XProtocol);
    }
    match opening.latest.and_then(|(side, chunk)| messages(side, chunk)) {
        Some((engine, server)) if opening.opener.is_none_or(|opener| opener != server) => follow(engine, server),
        _ => Verdict::Open,
    }
}

/// What the user's words and the ports alone say of a server that never answered.
pub(super) fn engine_of(server: &SocketAddr, choice: &Choice, known: Option<Engine>) -> Option<Engine> {
    if !choice.ports.is_empty() && !choice.ports.contains(&server.port()) {
        return None;
    }
    let by_port = match server.port() {
        POSTGRESQL_PORT => Some(Engine::Postgresql),
        MYSQL_PORT => Some(Engine::Mysql),
        _ => None,
    };
    let found = known.or(by_port);
    match choice.engine {
        Some(engine) if !choice.ports.is_empty() => Some(engine),
        Some(engine) => found.filter(|found| is_mysql(*found) == is_mysql(engine)).map(|_| engine),
        None => found,
    }
}

fn is_mysql(engine: Engine) -> bool {
    matches!(engine, Engine::Mysql | Engine::Mariadb)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    Postgresql,
    /// `None` where the server did not say which of the two it is.
    Mysql(Option<Engine>),
    X,
    Tls,
    Other,
}

/// What a connection's first bytes are; `None` if they do not tell yet.
fn handshake(client: &[u8], server: &[u8]) -> Option<Handshake> {
    if !client.is_empty()
        && let Some(found) = start_up(client)?
    {
        return Some(found);
    }
    if server.is_empty() {
        // A client that speaks first and is understood by nobody.
        return (client.len() >= UNDECIDED).then_some(Handshake::Other);
    }
    greeting(server)
}

/// Bytes of a client after which its server must have spoken first, if it is one of ours.
const UNDECIDED: usize = 4096;

/// `CapabilitiesGet` of the X protocol: length 1, type 1 (mysqlx.proto: `CON_CAPABILITIES_GET`).
const X_CAPABILITIES_GET: &[u8] = &[1, 0, 0, 0, 1];
/// A notice that MySQL's X plugin begins with: type 11, server hello (mysqlx_notice.proto).
const X_HELLO: &[u8] = &[5, 0, 0, 0, 11, 8, 5, 26, 0];
/// First bytes of a TLS record that carries a handshake (RFC 8446, section 5.1).
const TLS: &[u8] = &[0x16, 0x03];

/// A client's first bytes: `None` if there are too few, `Some(None)` if they are nothing that a client begins with.
fn start_up(bytes: &[u8]) -> Option<Option<Handshake>> {
    let begins = |pattern: &[u8]| {
        let shared = pattern.len().min(bytes.len());
        bytes[..shared] == pattern[..shared]
    };
    if begins(TLS) {
        return (bytes.len() >= TLS.len()).then_some(Some(Handshake::Tls));
    }
    if begins(X_CAPABILITIES_GET) {
        return (bytes.len() >= X_CAPABILITIES_GET.len()).then_some(Some(Handshake::X));
    }
    // Start-up packet, SSLRequest, GSSENCRequest, CancelRequest: length, then a version or a code (libpq/pqcomm.h).
    if bytes[0] != 0 {
        return Some(None);
    }
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let code = rest.first_chunk::<2>()?;
    let plausible = (8..=10_000).contains(&u32::from_be_bytes(*length));
    let known = matches!(u16::from_be_bytes(*code), 2 | 3 | 1234);
    Some((plausible && known).then_some(Handshake::Postgresql))
}

/// Longest greeting: 64 bytes beside a version, which is never as long.
const MAX_GREETING: u32 = 1024;

/// A server's first bytes; `None` if there are too few.
fn greeting(bytes: &[u8]) -> Option<Handshake> {
    if bytes.starts_with(X_HELLO) {
        return Some(Handshake::X);
    }
    if X_HELLO.starts_with(bytes) {
        return None;
    }
    let ([a, b, c, sequence], payload) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes([*a, *b, *c, 0]);
    if *sequence != 0 || !(2..=MAX_GREETING).contains(&length) {
        return Some(Handshake::Other);
    }
    match payload.split_first()? {
        (10, rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == 0) else {
                return (rest.len() as u32 + 1 >= length).then_some(Handshake::Other);
            };
            let version = &rest[..end];
            if !version.iter().all(u8::is_ascii_graphic) || !version.first().is_some_and(u8::is_ascii_digit) {
                return Some(Handshake::Other);
            }
            let mariadb = version.windows(7).any(|word| word == b"MariaDB");
            Some(Handshake::Mysql(Some(if mariadb { Engine::Mariadb } else { Engine::Mysql })))
        }
        // An error in place of a greeting, always one of ER_CON_COUNT_ERROR and the like: 1000 to 1999.
        (0xff, rest) => {
            let code = u16::from_le_bytes(*rest.first_chunk::<2>()?);
            Some(if (1000..2000).contains(&code) { Handshake::Mysql(None) } else { Handshake::Other })
        }
        _ => Some(Handshake::Other),
    }
}

/// The protocol and the server, if `chunk`, sent by `side`, is a whole number of messages that hardly anything else looks like.
fn messages(side: Side, chunk: &[u8]) -> Option<(Engine, Side)> {
    if postgresql_messages(chunk, b"QPB", b"QPBDEHSCdcf") {
        return Some((Engine::Postgresql, 1 - side));
    }
    if chunk.ends_with(&[5, b'I']) || chunk.ends_with(&[5, b'T']) || chunk.ends_with(&[5, b'E']) {
        let first = b"TDC12tnsIESNZ";
        if postgresql_messages(chunk, first, b"TDC12tnsIESNZA3GHWdcV") && chunk[chunk.len() - 6] == b'Z' {
            return Some((Engine::Postgresql, side));
        }
    }
    is_mysql_query(chunk).then_some((Engine::Mysql, 1 - side))
}

/// Whether `chunk` is a sequence of messages, each a type, a length that counts itself, and a body; with a body that has room for what it must hold.
fn postgresql_messages(mut chunk: &[u8], first: &[u8], types: &[u8]) -> bool {
    if !chunk.first().is_some_and(|kind| first.contains(kind)) {
        return false;
    }
    while let Some(([kind, length @ ..], _)) = chunk.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some(rest) = chunk.get(1 + length..) else { return false };
        let text_ends = *kind != b'Q' || (length > 4 && chunk[length] == 0);
        if length < 4 || !types.contains(kind) || !text_ends {
            return false;
        }
        chunk = rest;
    }
    chunk.is_empty()
}

/// Words that a statement begins with, in upper case: those of most statements; one of them is seen soon.
const STATEMENTS: [&[u8]; 12] = [
    b"SELECT",
    b"INSERT",
    b"UPDATE",
    b"DELETE",
    b"BEGIN",
    b"COMMIT",
    b"SET",
    b"SHOW",
    b"CALL",
    b"REPLACE",
    b"START",
    b"ROLLBACK",
];

/// Whether `chunk` is one `COM_QUERY` or `COM_STMT_PREPARE` with the text of a usual statement.
fn is_mysql_query(chunk: &[u8]) -> bool {
    let Some(([a, b, c, 0, 0x03 | 0x16], text)) = chunk.split_first_chunk::<5>() else { return false };
    let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
    // With query attributes (8.0.23), none and one set of them come first.
    let text = text.strip_prefix(&[0, 1]).unwrap_or(text);
    let word = text.split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
    length == chunk.len() - 4 && STATEMENTS.iter().any(|statement| statement.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_told_apart_as_soon_as_they_can_be() {
        let start_up = b"\0\0\0\x29\0\x03\0\0user\0";
        let greeting = |version: &str| [&[60, 0, 0, 0, 10], version.as_bytes(), &[0; 20]].concat();
        let table: [(&[u8], &[u8], Option<Handshake>); 14] = [
            (b"", b"", None),
            (&start_up[..5], b"", None),
            (start_up, b"", Some(Handshake::Postgresql)),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", b"", Some(Handshake::Postgresql)),
            (b"\0\0\0\x08\x04\xd3\x16\x2f", b"", None),
            (b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", Some(Handshake::Other)),
            (b"", &greeting("9.7.0"), Some(Handshake::Mysql(Some(Engine::Mysql)))),
            (b"", &greeting("5.5.5-10.11.4-MariaDB"), Some(Handshake::Mysql(Some(Engine::Mariadb)))),
            (b"", &greeting("9.7.0")[..8], None),
            (b"", &greeting("SSH-2.0"), Some(Handshake::Other)),
            (b"", b"\x17\0\0\0\xff\x10\x04Too many", Some(Handshake::Mysql(None))),
            (b"", X_HELLO, Some(Handshake::X)),
            (b"", &X_HELLO[..4], None),
            (b"\x16\x03\x01", b"", Some(Handshake::Tls)),
        ];
        for (client, server, expected) in table {
            assert_eq!(handshake(client, server), expected, "{} {}", client.escape_ascii(), server.escape_ascii());
        }
    }

    #[test]
    fn only_whole_messages_speak_for_a_protocol() {
        let query = b"Q\0\0\0\x0dSELECT 1\0";
        let ready = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
        let mysql = b"\x09\0\0\0\x03SELECT 1";
        assert_eq!(messages(1, query), Some((Engine::Postgresql, 0)));
        assert_eq!(messages(1, ready), Some((Engine::Postgresql, 1)));
        assert_eq!(messages(0, mysql), Some((Engine::Mysql, 1)));
        assert_eq!(messages(0, b"\x0b\0\0\0\x03\0\x01SELECT 1"), Some((Engine::Mysql, 1)), "with query attributes");
        for other in [&query[..12], &ready[1..], &mysql[..10], b"Quite another protocol", b"PING\r\n", b""] {
            assert_eq!(messages(0, other), None, "{}", other.escape_ascii());
        }
    }
}
