//! The beginning of a connection, before it has messages with a type: encryption requests, cancel requests and the start-up packet.
//!
//! Captured at the server's own boundary, the bytes after an agreed encryption are clear text and again begin with a start-up packet;
//! captured at the socket they are ciphertext. Which it is, only the bytes tell, so this looks at each run of bytes anew.

use super::framing::{Hidden, take_string};
use crate::model::Timestamp;

/// `MAX_STARTUP_PACKET_LENGTH` (libpq/pqcomm.h).
const MAX_PACKET: usize = 10_000;

/// Request codes in the place of a protocol version (libpq/pqcomm.h): `PG_PROTOCOL(1234, n)`.
const CANCEL: u32 = 1234 << 16 | 5678;
const SSL: u32 = 1234 << 16 | 5679;
const GSS: u32 = 1234 << 16 | 5680;

/// First byte of a TLS record that carries a handshake (RFC 8446, section 5.1): PostgreSQL 17 lets a client begin with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// First byte of a TLS record that carries application data.
const TLS_DATA: u8 = 0x17;

/// Longest body of a TLS record (RFC 5246, section 6.2.3).
const TLS_RECORD: u16 = (1 << 14) + 2048;

/// Whether `bytes` begin with a TLS record of application data, as in a session that is older than the agent. No message begins so.
pub(super) fn is_tls_data(bytes: &[u8]) -> bool {
    matches!(*bytes, [TLS_DATA, 3, 1..=4, high, low, ..] if (1..=TLS_RECORD).contains(&u16::from_be_bytes([high, low])))
}

/// The start-up packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Startup {
    /// Database user.
    pub(super) user: Option<String>,
    /// Database; the user's name if the client named none.
    pub(super) database: Option<String>,
    /// `application_name`.
    pub(super) application: Option<String>,
    /// The connection speaks the replication protocol only. One that names a database beside it (`replication=database`) speaks SQL too.
    pub(super) replication: bool,
}

/// What request bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing complete yet.
    Nothing,
    /// The start-up packet; the bytes after it are messages.
    Startup(Startup),
    /// Not the beginning of a connection, recognised by its first byte: none of the bytes were consumed.
    NotAStart,
    /// Looked like a start-up packet but is none.
    Malformed,
    /// The rest is ciphertext.
    Ciphertext,
}

/// The beginning of a connection.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// When the first byte came.
    pub(super) began: Option<Timestamp>,
    /// Bytes of requests so far.
    pub(super) bytes_in: u64,
    /// Bytes of responses so far.
    pub(super) bytes_out: u64,
    /// The protection that was agreed on, or that the client began with.
    pub(super) encryption: Option<&'static str>,
    /// Ciphertext was seen.
    pub(super) ciphertext: bool,
    /// This connection only cancels a query of another one.
    pub(super) cancels: bool,
    /// The request that awaits its one-byte answer.
    asked: Option<u32>,
    /// The rest of this run of bytes is ciphertext.
    ignore_run: bool,
    packet: Hidden,
}

impl Handshake {
    /// The middle of a session that is encrypted.
    pub(super) fn encrypted() -> Handshake {
        Handshake { encryption: Some("tls"), ciphertext: true, ..Handshake::default() }
    }

    /// Consumes what belongs to the beginning of a connection off `input`. `new_run` says that these bytes begin a read of the server's.
    pub(super) fn request(&mut self, input: &mut &[u8], at: Timestamp, new_run: bool) -> Seen {
        if new_run {
            self.ignore_run = false;
        }
        if self.ignore_run {
            *input = &[];
        }
        while let Some(first) = input.first() {
            if self.packet.0.is_empty() && *first != 0 {
                if self.began.is_none() && *first != TLS_HANDSHAKE {
                    return Seen::NotAStart;
                }
                self.began.get_or_insert(at);
                return self.ciphertext(input);
            }
            self.began.get_or_insert(at);
            let need = match self.packet_len() {
                Ok(need) => need,
                Err(()) if self.encryption.is_some() || self.asked.is_some() => return self.ciphertext(input),
                Err(()) => return Seen::Malformed,
            };
            let (part, rest) = input.split_at(input.len().min(need - self.packet.0.len()));
            self.packet.0.extend_from_slice(part);
            self.bytes_in += part.len() as u64;
            *input = rest;
            if self.packet_len() == Ok(self.packet.0.len()) {
                let packet = std::mem::take(&mut self.packet.0);
                match be32(&packet[4..]) {
                    code @ (SSL | GSS) => self.asked = Some(code),
                    CANCEL => self.cancels = true,
                    _ => return startup(&packet[8..]).map_or(Seen::Malformed, Seen::Startup),
                }
            }
        }
        // A wrong length or code shows as soon as it is there, not with the next byte.
        match self.packet_len() {
            Err(()) if self.encryption.is_some() || self.asked.is_some() => self.ciphertext(input),
            Err(()) => Seen::Malformed,
            Ok(_) => Seen::Nothing,
        }
    }

    /// How many bytes the packet has, as far as its beginning tells: first its length, then its code.
    fn packet_len(&self) -> Result<usize, ()> {
        if self.packet.0.len() < 4 {
            return Ok(4);
        }
        let len = be32(&self.packet.0) as usize;
        if !(8..=MAX_PACKET).contains(&len) {
            return Err(());
        }
        if self.packet.0.len() < 8 {
            return Ok(8);
        }
        let fits = match be32(&self.packet.0[4..]) {
            SSL | GSS => len == 8,
            // Process id and at least four bytes of key.
            CANCEL => len >= 16,
            version => version >> 16 == 3,
        };
        if fits { Ok(len) } else { Err(()) }
    }

    fn ciphertext(&mut self, input: &mut &[u8]) -> Seen {
        let asked = if self.asked == Some(GSS) { "gssapi" } else { "tls" };
        self.encryption.get_or_insert(asked);
        (self.asked, self.ciphertext, self.ignore_run) = (None, true, true);
        self.packet = Hidden::default();
        *input = &[];
        Seen::Ciphertext
    }

    /// Consumes a one-byte answer off `input`. What is left is a message, e.g. an error; only then, or if nothing was asked, does anything remain.
    pub(super) fn response(&mut self, input: &mut &[u8]) {
        while let Some((first, rest)) = input.split_first() {
            match (self.asked, first) {
                (None, _) if self.encryption.is_some() => {
                    self.ciphertext(input);
                    return;
                }
                (Some(SSL), b'S') => self.encryption = Some("tls"),
                (Some(GSS), b'G') => self.encryption = Some("gssapi"),
                (Some(_), b'N') => {}
                _ => return,
            }
            self.asked = None;
            self.bytes_out += 1;
            *input = rest;
        }
    }
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
}

/// Parameters of a start-up packet, after its version.
fn startup(mut body: &[u8]) -> Option<Startup> {
    let mut startup = Startup::default();
    loop {
        let name = take_string(&mut body)?;
        if name.is_empty() {
            break;
        }
        let value = take_string(&mut body)?;
        match name {
            b"user" => startup.user = Some(lossy(value)),
            b"database" => startup.database = Some(lossy(value)),
            b"application_name" => startup.application = Some(lossy(value)),
            b"replication" => startup.replication = asks_replication(value),
            _ => {}
        }
    }
    // `ProcessStartupPacket`: without a user the server refuses, and an empty database name means the user's.
    let user = startup.user.clone().filter(|user| !user.is_empty())?;
    startup.database = startup.database.filter(|database| !database.is_empty()).or(Some(user));
    body.is_empty().then_some(startup)
}

/// Anything that `parse_bool` takes for true: a unique beginning of true, yes or on, or 1 (`ProcessStartupPacket`).
fn asks_replication(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &[u8], shortest: usize| value.len() >= shortest && word.starts_with(&value);
    value == b"1" || begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2)
}

/// Most bytes kept of a name of the session's; the server cuts names at 63 bytes.
const MAX_NAME: usize = 256;

/// A name as text.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp(7);

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let len = 8 + body.len() as u32;
        [&len.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
    }

    fn request(handshake: &mut Handshake, bytes: &[u8]) -> Seen {
        handshake.request(&mut &*bytes, AT, true)
    }

    #[test]
    fn a_start_up_packet_tells_whose_session_it_is() {
        let bytes = packet(3 << 16, b"user\0tester\0application_name\0unit\0options\0-c x=y\0\0");
        let expected = Startup {
            user: Some("tester".into()),
            database: Some("tester".into()),
            application: Some("unit".into()),
            replication: false,
        };
        assert_eq!(request(&mut Handshake::default(), &bytes), Seen::Startup(expected));
    }

    #[test]
    fn replication_is_what_the_server_takes_for_it() {
        for (value, expected) in [
            ("database", false),
            ("true", true),
            ("T", true),
            ("on", true),
            ("1", true),
            ("y", true),
            ("false", false),
            ("o", false),
            ("off", false),
            ("0", false),
            ("", false),
            ("truest", false),
        ] {
            assert_eq!(asks_replication(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn clear_text_may_follow_an_agreed_encryption() {
        let mut handshake = Handshake::default();
        assert_eq!(request(&mut handshake, &packet(SSL, b"")), Seen::Nothing);
        let mut answer = &b"S"[..];
        handshake.response(&mut answer);
        assert!(answer.is_empty() && handshake.encryption == Some("tls") && !handshake.ciphertext);
        assert!(matches!(request(&mut handshake, &packet(3 << 16, b"user\0a\0\0")), Seen::Startup(_)));
    }

    #[test]
    fn ciphertext_is_recognised_and_clear_text_still_awaited() {
        let mut handshake = Handshake::default();
        request(&mut handshake, &packet(SSL, b""));
        handshake.response(&mut &b"S"[..]);
        assert_eq!(request(&mut handshake, b"\x16\x03\x01\x02\x00"), Seen::Ciphertext);
        assert_eq!(handshake.request(&mut &b"\0\0\0\x08"[..], AT, false), Seen::Nothing, "the same run");
        assert_eq!(request(&mut handshake, b"\0\x01\x02\x03"), Seen::Ciphertext);
        assert!(matches!(request(&mut handshake, &packet(3 << 16, b"user\0a\0\0")), Seen::Startup(_)));
    }

    #[test]
    fn what_is_no_beginning_is_told_apart() {
        assert_eq!(request(&mut Handshake::default(), b"Q\0\0\0\x0dSELECT 1\0"), Seen::NotAStart);
        assert_eq!(request(&mut Handshake::default(), b"\x16\x03\x01"), Seen::Ciphertext);
        for malformed in [
            &b"\0\0\0\x07"[..],
            b"\0\x01\0\0",
            &packet(2 << 16, b""),
            &packet(CANCEL, b"1234567"),
            &packet(SSL, b"x"),
            &packet(3 << 16, b"user\0a\0"),
            &packet(3 << 16, b"user\0a\0\0x"),
            &packet(3 << 16, b"database\0a\0\0"),
        ] {
            assert_eq!(request(&mut Handshake::default(), malformed), Seen::Malformed, "{malformed:?}");
        }
    }
}
