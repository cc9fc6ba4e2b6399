//! How questions fail, told by the servers' own error codes.

use super::row::Malformed;
use crate::model::{Asked, Verdict, with_causes};

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Its class.
    pub(super) asked: Asked,
    /// What the server or the client says; it holds no literal but those of the agent's own questions.
    pub(super) reason: String,
    /// The connection cannot be used any more.
    pub(super) fatal: bool,
}

impl Failure {
    /// The connection is of no use any more.
    pub(super) fn fatal(asked: Asked, reason: impl Into<String>) -> Failure {
        Failure { asked, reason: reason.into(), fatal: true }
    }

    /// The verdict on what was tried.
    pub(super) fn verdict(&self) -> Verdict {
        match self.asked {
            Asked::Denied => Verdict::Denied(self.reason.clone()),
            Asked::Missing => Verdict::Unsupported(self.reason.clone()),
            _ => Verdict::Broken(format!("{}: {}", self.asked.word(), self.reason)),
        }
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Failure {
        Failure { asked: Asked::Failed, reason: malformed.to_string(), fatal: false }
    }
}

/// The class of a SQLSTATE (PostgreSQL documentation, appendix A).
fn sqlstate(code: &str) -> Asked {
    match code {
        "57014" | "25P03" | "57P05" => Asked::TimedOut,
        "55P03" => Asked::LockTimedOut,
        "53300" => Asked::TooManyConnections,
        "57P01" | "57P02" | "57P03" => Asked::ShuttingDown,
        // undefined table, column, function, schema; object not in the state needed (a library that was not preloaded).
        "42P01" | "42703" | "42883" | "3F000" | "55000" | "0A000" => Asked::Missing,
        "42501" => Asked::Denied,
        code if code.starts_with("28") => Asked::Denied,
        code if code.starts_with("08") => Asked::Disconnected,
        _ => Asked::Failed,
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        if let Some(db) = error.as_db_error() {
            let severe = matches!(db.severity(), "FATAL" | "PANIC");
            let asked = sqlstate(db.code().code());
            return Failure { asked, reason: format!("{} ({})", db.message(), db.code().code()), fatal: severe };
        }
        let reason = with_causes(&error);
        // The client's own words where the server wants a password and there is none.
        let asked = if reason.contains("password missing") { Asked::Denied } else { Asked::Disconnected };
        Failure::fatal(asked, reason)
    }
}

/// The class of an error number of MySQL (errmsg-utf8) or MariaDB.
fn mysql_number(code: u16) -> Asked {
    match code {
        // ER_QUERY_INTERRUPTED, ER_QUERY_TIMEOUT, MariaDB's ER_STATEMENT_TIMEOUT.
        1317 | 3024 | 1969 => Asked::TimedOut,
        1205 | 3572 => Asked::LockTimedOut,
        1040 | 1203 | 1226 => Asked::TooManyConnections,
        1053 | 1927 => Asked::ShuttingDown,
        // Unknown database, column, table, function, system variable.
        1049 | 1054 | 1109 | 1146 | 1193 | 1305 => Asked::Missing,
        1044 | 1045 | 1095 | 1142 | 1143 | 1227 | 1370 | 1698 | 3118 => Asked::Denied,
        _ => Asked::Failed,
    }
}

impl From<mysql_async::Error> for Failure {
    fn from(error: mysql_async::Error) -> Failure {
        match error {
            mysql_async::Error::Server(server) => {
                let asked = mysql_number(server.code);
                let fatal = asked == Asked::ShuttingDown;
                Failure { asked, reason: format!("{} ({})", server.message, server.code), fatal }
            }
            other => Failure::fatal(Asked::Disconnected, with_causes(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_class_that_opens_or_spares_a_breaker() {
        for (code, asked) in [
            ("57014", Asked::TimedOut),
            ("55P03", Asked::LockTimedOut),
            ("53300", Asked::TooManyConnections),
            ("57P03", Asked::ShuttingDown),
            ("42P01", Asked::Missing),
            ("42501", Asked::Denied),
            ("28P01", Asked::Denied),
            ("08006", Asked::Disconnected),
            ("22012", Asked::Failed),
        ] {
            assert_eq!(sqlstate(code), asked, "{code}");
        }
        for (code, asked) in [
            (3024, Asked::TimedOut),
            (1969, Asked::TimedOut),
            (1205, Asked::LockTimedOut),
            (1040, Asked::TooManyConnections),
            (1053, Asked::ShuttingDown),
            (1146, Asked::Missing),
            (1045, Asked::Denied),
            (1698, Asked::Denied),
            (1064, Asked::Failed),
        ] {
            assert_eq!(mysql_number(code), asked, "{code}");
        }
    }
}
