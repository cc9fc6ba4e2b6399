//! Connection phase: greeting, handshake response, change of user ("Connection Phase Packets"). Authentication data is stepped over.

use std::sync::Arc;

use super::{
    protocol::{capability, command},
    reader::Reader,
    startup,
};

/// Longest name that is kept: a user may have 32 characters (MySQL) or 128 (MariaDB), a schema 64, of up to four bytes each.
const MAX_NAME: usize = 512;

/// A name as text, cut to [`MAX_NAME`] bytes; `None` if it is empty.
pub(super) fn name(bytes: &[u8]) -> Option<Arc<str>> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME)]);
    (!text.is_empty()).then(|| text.into())
}

/// What the server announces (`Protocol::HandshakeV10`).
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) version: Arc<str>,
    pub(super) capabilities: u64,
}

impl Greeting {
    /// Longest greeting believed in: its parts are a version (60 characters at most), 21 to 255 bytes of challenge, a method's name.
    pub(super) const MAX: u64 = 1024;
    /// MariaDB puts this before its version so that old replicas accept it ("Initial Handshake Packet").
    const REPLICATION_PREFIX: &'static str = "5.5.5-";

    /// Reads a whole greeting. Strict, since it also tells whether the connection is seen from its first byte.
    pub(super) fn parse(payload: &[u8]) -> Option<Greeting> {
        let mut reader = Reader(payload);
        (reader.u8()? == startup::GREETING).then_some(())?;
        let version = reader.until_nul()?;
        if version.is_empty()
            || version.len() > 128
            || !version.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
        {
            return None;
        }
        reader.bytes(4 + 8)?; // connection id, first part of the challenge
        (reader.u8()? == 0).then_some(())?;
        let low = u64::from(reader.u16()?);
        reader.bytes(1 + 2)?; // character set, status
        let high = u64::from(reader.u16()?);
        reader.u8()?; // length of the challenge
        (reader.bytes(6)? == [0; 6]).then_some(())?;
        let extended = u64::from(reader.u32()?);
        let mut capabilities = low | high << 16;
        if capabilities & capability::MYSQL == 0 {
            capabilities |= extended << 32;
        }
        let version = std::str::from_utf8(version).ok()?;
        let version = version.strip_prefix(Greeting::REPLICATION_PREFIX).unwrap_or(version).into();
        (capabilities & capability::PROTOCOL_41 != 0).then_some(Greeting { version, capabilities })
    }
}

/// Who logs in (`Protocol::HandshakeResponse41`, `COM_CHANGE_USER`).
#[derive(Debug, Default)]
pub(super) struct Login {
    pub(super) user: Option<Arc<str>>,
    pub(super) database: Option<Arc<str>>,
    pub(super) application: Option<Arc<str>>,
}

/// The client's first packet.
#[derive(Debug)]
pub(super) enum Answer {
    /// It asks to go on in TLS (`Protocol::SSLRequest`).
    Tls,
    /// It logs in.
    Login {
        login: Login,
        /// The client's capability flags.
        capabilities: u64,
    },
}

impl Answer {
    /// Bytes that are read of the packet; attributes behind them are lost.
    pub(super) const WANT: u32 = 16 * 1024;
    /// Payload length of an SSLRequest.
    const TLS_LENGTH: u64 = 32;

    /// Reads the answer to a greeting. Missing parts at the end are left out.
    pub(super) fn parse(payload: &[u8], length: u64) -> Option<Answer> {
        let mut reader = Reader(payload);
        let low = u64::from(reader.u16()?);
        if low & capability::PROTOCOL_41 == 0 {
            // Protocol::HandshakeResponse320, from clients older than 4.1.
            reader.bytes(3)?;
            let login = Login { user: reader.until_nul().and_then(name), ..Login::default() };
            return Some(Answer::Login { login, capabilities: low });
        }
        let mut capabilities = low | u64::from(reader.u16()?) << 16;
        if capabilities & capability::SSL != 0 && length == Answer::TLS_LENGTH {
            return Some(Answer::Tls);
        }
        reader.bytes(4 + 1 + 19)?; // largest packet, character set, filler
        let extended = u64::from(reader.u32()?);
        // The server goes by the client's flag here (sql_acl.cc, parse_client_handshake_packet).
        if capabilities & capability::MYSQL == 0 {
            capabilities |= extended << 32;
        }
        let mut login = Login::default();
        let complete = read_names(&mut reader, &mut login, capabilities);
        if complete.is_some() && capabilities & capability::CONNECT_ATTRS != 0 {
            login.application = program_name(reader);
        }
        Some(Answer::Login { login, capabilities })
    }
}

/// Reads user, database and method, and steps over the authentication data between them.
fn read_names(reader: &mut Reader<'_>, login: &mut Login, capabilities: u64) -> Option<()> {
    login.user = name(reader.until_nul()?);
    if capabilities & capability::PLUGIN_AUTH_LENENC_DATA != 0 {
        reader.lenenc_bytes()?;
    } else if capabilities & capability::SECURE_CONNECTION != 0 {
        let length = reader.u8()?;
        reader.bytes(length.into())?;
    } else {
        reader.until_nul()?;
    }
    if capabilities & capability::CONNECT_WITH_DB != 0 {
        login.database = name(reader.until_nul()?);
    }
    if capabilities & capability::PLUGIN_AUTH != 0 {
        reader.until_nul()?;
    }
    Some(())
}

/// The connection attribute `program_name`.
fn program_name(mut reader: Reader<'_>) -> Option<Arc<str>> {
    // The length before the pairs is not needed: they end with the packet, except for a compression level of one byte.
    reader.lenenc()?;
    loop {
        let key = reader.lenenc_bytes()?;
        let value = reader.lenenc_bytes()?;
        if key == b"program_name" {
            return name(value);
        }
    }
}

/// Reads `COM_CHANGE_USER`. `capabilities` of the session, `None` if unknown.
pub(super) fn change_user(payload: &[u8], capabilities: Option<u64>) -> Login {
    let capabilities = capabilities.unwrap_or(capability::SECURE_CONNECTION | capability::PLUGIN_AUTH);
    let mut login = Login::default();
    let mut read = || {
        let mut reader = Reader(payload);
        (reader.u8()? == command::CHANGE_USER).then_some(())?;
        login.user = name(reader.until_nul()?);
        if capabilities & capability::SECURE_CONNECTION != 0 {
            let length = reader.u8()?;
            reader.bytes(length.into())?;
        } else {
            reader.until_nul()?;
        }
        login.database = name(reader.until_nul()?);
        reader.bytes(2)?; // character set
        if capabilities & capability::PLUGIN_AUTH != 0 {
            reader.until_nul()?;
        }
        if capabilities & capability::CONNECT_ATTRS != 0 {
            login.application = program_name(reader);
        }
        Some(())
    };
    // What is missing at the end stays unknown.
    let _ = read();
    login
}
