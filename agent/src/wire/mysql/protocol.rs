//! Numbers of the protocol, as the MySQL source documentation ("Capabilities Flags", "SERVER_STATUS_flags_enum",
//! "Command Phase") and MariaDB's ("Connection Capabilities", "Commands") give them.

/// Capability flags. Bits 32 and up are MariaDB's extended ones.
pub(super) mod capability {
    /// MySQL: `CLIENT_LONG_PASSWORD`, always set. MariaDB: `CLIENT_MYSQL`; a server that leaves it out has extended capabilities.
    pub(crate) const MYSQL: u64 = 1;
    pub(crate) const CONNECT_WITH_DB: u64 = 1 << 3;
    pub(crate) const COMPRESS: u64 = 1 << 5;
    pub(crate) const PROTOCOL_41: u64 = 1 << 9;
    pub(crate) const SSL: u64 = 1 << 11;
    pub(crate) const SECURE_CONNECTION: u64 = 1 << 15;
    pub(crate) const PLUGIN_AUTH: u64 = 1 << 19;
    pub(crate) const CONNECT_ATTRS: u64 = 1 << 20;
    pub(crate) const PLUGIN_AUTH_LENENC_DATA: u64 = 1 << 21;
    pub(crate) const DEPRECATE_EOF: u64 = 1 << 24;
    pub(crate) const ZSTD_COMPRESSION: u64 = 1 << 26;
    pub(crate) const QUERY_ATTRIBUTES: u64 = 1 << 27;
}

/// Server status flags, in OK and EOF packets.
pub(super) mod status {
    pub(crate) const IN_TRANS: u16 = 1;
    pub(crate) const MORE_RESULTS_EXISTS: u16 = 1 << 3;
    pub(crate) const CURSOR_EXISTS: u16 = 1 << 6;
    pub(crate) const LAST_ROW_SENT: u16 = 1 << 7;
    pub(crate) const NO_BACKSLASH_ESCAPES: u16 = 1 << 9;
    pub(crate) const SESSION_STATE_CHANGED: u16 = 1 << 14;
}

/// First byte of a command (`enum_server_command`).
pub(super) mod command {
    pub(crate) const QUIT: u8 = 0x01;
    pub(crate) const INIT_DB: u8 = 0x02;
    pub(crate) const QUERY: u8 = 0x03;
    pub(crate) const FIELD_LIST: u8 = 0x04;
    pub(crate) const STATISTICS: u8 = 0x09;
    pub(crate) const PROCESS_INFO: u8 = 0x0a;
    pub(crate) const CHANGE_USER: u8 = 0x11;
    pub(crate) const BINLOG_DUMP: u8 = 0x12;
    pub(crate) const TABLE_DUMP: u8 = 0x13;
    pub(crate) const REGISTER_SLAVE: u8 = 0x15;
    pub(crate) const STMT_PREPARE: u8 = 0x16;
    pub(crate) const STMT_EXECUTE: u8 = 0x17;
    pub(crate) const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub(crate) const STMT_CLOSE: u8 = 0x19;
    pub(crate) const STMT_RESET: u8 = 0x1a;
    pub(crate) const STMT_FETCH: u8 = 0x1c;
    pub(crate) const BINLOG_DUMP_GTID: u8 = 0x1e;
    pub(crate) const RESET_CONNECTION: u8 = 0x1f;
    pub(crate) const CLONE: u8 = 0x20;
    pub(crate) const SUBSCRIBE_GROUP_REPLICATION_STREAM: u8 = 0x21;
    /// The last command that MySQL has.
    pub(crate) const LAST: u8 = SUBSCRIBE_GROUP_REPLICATION_STREAM;
    /// MariaDB: `COM_STMT_BULK_EXECUTE`.
    pub(crate) const STMT_BULK_EXECUTE: u8 = 0xfa;
}

/// First byte of a generic response packet.
pub(super) mod header {
    pub(crate) const OK: u8 = 0x00;
    pub(crate) const AUTH_MORE_DATA: u8 = 0x01;
    pub(crate) const AUTH_NEXT_FACTOR: u8 = 0x02;
    pub(crate) const LOCAL_INFILE: u8 = 0xfb;
    /// EOF, or OK in its place, or a request to switch the authentication method.
    pub(crate) const EOF: u8 = 0xfe;
    pub(crate) const ERR: u8 = 0xff;
}

/// Exact payload length of an EOF packet of protocol 4.1: header, warnings, status. An OK packet has at least 7 bytes.
pub(super) const CLASSIC_EOF: u64 = 5;
/// Error number of MariaDB's progress reports, which look like errors but end nothing ("Progress Reporting").
pub(super) const PROGRESS: u16 = 0xffff;
/// MariaDB: "the statement prepared last" in place of a statement id ("COM_STMT_EXECUTE").
pub(super) const LAST_PREPARED: u32 = u32::MAX;

/// The X protocol (plugin/x/protocol/protobuf/mysqlx.proto): four bytes of length, one of type, protobuf.
pub(super) mod x {
    /// What a server says first, since 8.0: a notice of type `SERVER_HELLO` (mysqlx_notice.proto).
    pub(crate) const HELLO: &[u8] = &[5, 0, 0, 0, 11, 8, 5, 26, 0];
    /// `ClientMessages.Type`.
    pub(crate) const REQUESTS: &[u8] =
        &[1, 2, 3, 4, 5, 6, 7, 12, 17, 18, 19, 20, 24, 25, 30, 31, 32, 40, 41, 42, 43, 44, 45, 46];
    /// `ServerMessages.Type`.
    pub(crate) const RESPONSES: &[u8] = &[0, 1, 2, 3, 4, 11, 12, 13, 14, 15, 16, 17, 18, 19];
}
