//! What kinds of failures there are, and what each asks for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Code;

/// Why a question got no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The answer took too long.
    Timeout,
    /// The server cannot be reached, or the connection broke.
    Connection,
    /// The server has no connection left.
    TooManyConnections,
    /// The server does not let us in.
    Authentication,
    /// Something that the question reads is not there: an extension, a table, a column.
    MissingObject,
    /// It is there, but was not loaded when the server started.
    NotLoaded,
    /// It is there, but the user may not read it.
    PermissionDenied,
    /// This kind of server does not have it.
    Unsupported,
    /// The server's own memory or disk is full.
    Resources,
    /// Somebody waited for a lock because of the question, or it for somebody.
    Locks,
    /// The question has cost the server more than it may.
    Cost,
    /// Anything else.
    Other,
}

/// How far a failure reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The question, after several failures in a row.
    Question,
    /// The question, at once: asking again soon cannot help, or is too dear.
    Feature,
    /// Every question to this server, after several failures in a row.
    Instance,
    /// Every question to this server, at once: asking makes it worse.
    InstanceAtOnce,
}

/// What a failure asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) scope: Scope,
    /// How long to leave it alone at first; `None` for the configured time.
    pub(super) backoff: Option<Duration>,
    /// Longest such time; `None` for the configured one.
    pub(super) longest: Option<Duration>,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
/// What is missing today may be installed tomorrow.
const DAY: Duration = Duration::from_secs(24 * HOUR);

impl Failure {
    /// The kind of failure that a server's code stands for. Codes: PostgreSQL's errcodes.txt; MySQL's errmsg-utf8.txt and, from 2000 on, its client's.
    pub fn of_code(code: Code) -> Failure {
        if code.is_cancellation() {
            return Failure::Timeout;
        }
        match code {
            Code::Sqlstate(state) => match &state {
                b"53300" => Failure::TooManyConnections,
                b"42501" => Failure::PermissionDenied,
                b"28000" | b"28P01" => Failure::Authentication,
                // undefined_table, _function, _column, _object, invalid_schema_name
                b"42P01" | b"42883" | b"42703" | b"42704" | b"3F000" => Failure::MissingObject,
                // object_not_in_prerequisite_state: "must be loaded via shared_preload_libraries"; undefined_file: the library is gone
                b"55000" | b"58P01" => Failure::NotLoaded,
                b"0A000" => Failure::Unsupported,
                // lock_not_available, deadlock_detected
                b"55P03" | b"40P01" => Failure::Locks,
                // cannot_connect_now and the shutdowns
                b"57P01" | b"57P02" | b"57P03" => Failure::Connection,
                [b'0', b'8', ..] => Failure::Connection,
                [b'5', b'3', ..] => Failure::Resources,
                _ => Failure::Other,
            },
            Code::Mysql(number) => match number {
                // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED
                1040 | 1203 | 1226 => Failure::TooManyConnections,
                // ER_DBACCESS_DENIED, ER_TABLEACCESS_DENIED, ER_COLUMNACCESS_DENIED, ER_SPECIFIC_ACCESS_DENIED
                1044 | 1142 | 1143 | 1227 => Failure::PermissionDenied,
                // ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD
                1045 | 1698 => Failure::Authentication,
                // ER_BAD_DB, ER_BAD_FIELD, ER_NO_SUCH_TABLE, ER_UNKNOWN_TABLE, ER_SP_DOES_NOT_EXIST
                1049 | 1054 | 1146 | 1109 | 1305 => Failure::MissingObject,
                // ER_OPTION_PREVENTS_STATEMENT, ER_PLUGIN_IS_NOT_LOADED
                1290 | 1524 => Failure::NotLoaded,
                // ER_NOT_SUPPORTED_YET, ER_FEATURE_DISABLED
                1235 | 1289 => Failure::Unsupported,
                // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK
                1205 | 1213 => Failure::Locks,
                // ER_SERVER_SHUTDOWN; CR_CONNECTION_ERROR, CR_CONN_HOST_ERROR, CR_SERVER_GONE_ERROR, CR_SERVER_LOST
                1053 | 2002 | 2003 | 2006 | 2013 => Failure::Connection,
                // ER_DISK_FULL, ER_OUTOFMEMORY, ER_OUT_OF_SORTMEMORY, ER_OUT_OF_RESOURCES
                1021 | 1037 | 1038 | 1041 => Failure::Resources,
                _ => Failure::Other,
            },
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Timeout => "timeout",
            Failure::Connection => "connection",
            Failure::TooManyConnections => "too_many_connections",
            Failure::Authentication => "authentication",
            Failure::MissingObject => "missing_object",
            Failure::NotLoaded => "not_loaded",
            Failure::PermissionDenied => "permission_denied",
            Failure::Unsupported => "unsupported",
            Failure::Resources => "resources",
            Failure::Locks => "locks",
            Failure::Cost => "cost",
            Failure::Other => "other",
        }
    }

    /// All of them.
    pub const ALL: [Failure; 12] = [
        Failure::Timeout,
        Failure::Connection,
        Failure::TooManyConnections,
        Failure::Authentication,
        Failure::MissingObject,
        Failure::NotLoaded,
        Failure::PermissionDenied,
        Failure::Unsupported,
        Failure::Resources,
        Failure::Locks,
        Failure::Cost,
        Failure::Other,
    ];

    pub(super) fn response(self) -> Response {
        let feature =
            |secs| Response { scope: Scope::Feature, backoff: Some(Duration::from_secs(secs)), longest: Some(DAY) };
        let plain =
            |scope, backoff: Option<u64>| Response { scope, backoff: backoff.map(Duration::from_secs), longest: None };
        match self {
            Failure::MissingObject => feature(30 * MINUTE),
            Failure::Cost => feature(5 * MINUTE),
            Failure::NotLoaded | Failure::PermissionDenied => feature(HOUR),
            Failure::Unsupported => feature(24 * HOUR),
            Failure::Connection => plain(Scope::Instance, Some(30)),
            Failure::Authentication => plain(Scope::Instance, Some(MINUTE)),
            Failure::TooManyConnections | Failure::Resources => plain(Scope::InstanceAtOnce, Some(MINUTE)),
            Failure::Timeout | Failure::Locks => plain(Scope::Question, Some(30)),
            Failure::Other => plain(Scope::Question, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_engines() {
        let postgres = |state: &[u8; 5]| Failure::of_code(Code::Sqlstate(*state));
        assert_eq!(postgres(b"57014"), Failure::Timeout);
        assert_eq!(postgres(b"53300"), Failure::TooManyConnections);
        assert_eq!(postgres(b"53200"), Failure::Resources);
        assert_eq!(postgres(b"08006"), Failure::Connection);
        assert_eq!(postgres(b"42P01"), Failure::MissingObject);
        assert_eq!(postgres(b"55000"), Failure::NotLoaded);
        assert_eq!(postgres(b"42501"), Failure::PermissionDenied);
        assert_eq!(postgres(b"22012"), Failure::Other);
        for (number, failure) in [
            (3024, Failure::Timeout),
            (1040, Failure::TooManyConnections),
            (1142, Failure::PermissionDenied),
            (1146, Failure::MissingObject),
            (1205, Failure::Locks),
            (2006, Failure::Connection),
            (1064, Failure::Other),
        ] {
            assert_eq!(Failure::of_code(Code::Mysql(number)), failure, "{number}");
        }
    }
}
