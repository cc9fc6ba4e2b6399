//! Whose session a PostgreSQL backend serves, from the title that it gives its process.
//!
//! A session that is older than the agent has sent its start-up packet already; the title still tells user and database. Its form
//! (`init_ps_display`, src/backend/utils/misc/ps_status.c, and `BackendInitialize`): `postgres: [cluster_name: ]user database host activity`,
//! where host is `[local]` or `address(port)`.

/// User and database of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTitle {
    /// Database user.
    pub user: String,
    /// Database.
    pub database: String,
}

/// Reads a title. `None` where it is not that of a client's backend, or where a name holds a space, so that it cannot be told apart.
pub(super) fn parse(command_line: &[u8]) -> Option<SessionTitle> {
    let end = command_line.iter().position(|byte| *byte == 0).unwrap_or(command_line.len());
    let title = std::str::from_utf8(&command_line[..end]).ok()?.strip_prefix("postgres: ")?;
    // The cluster's name may hold spaces, so it is cut off first.
    let title = title.split_once(": ").map_or(title, |(_, rest)| rest);
    let mut words = title.split(' ');
    let (user, database, host) = (words.next()?, words.next()?, words.next()?);
    let is_host = host == "[local]" || (host.contains('(') && host.ends_with(')'));
    let is_backend = is_host && !user.is_empty() && !database.is_empty() && user != "walsender";
    is_backend.then(|| SessionTitle { user: user.to_owned(), database: database.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(title: &str, expected: Option<(&str, &str)>) {
        let found = parse(title.as_bytes());
        let found = found.as_ref().map(|title| (title.user.as_str(), title.database.as_str()));
        assert_eq!(found, expected, "{title:?}");
    }

    #[test]
    fn titles_of_backends() {
        check("postgres: app shop [local] idle", Some(("app", "shop")));
        check("postgres: app shop 127.0.0.1(43782) SELECT\0\0\0", Some(("app", "shop")));
        check("postgres: app shop ::1(43782) idle in transaction", Some(("app", "shop")));
        check("postgres: 15/main: app shop 10.0.0.7(5123) UPDATE waiting", Some(("app", "shop")));
        check("postgres: main cluster: app shop [local] idle", Some(("app", "shop")));
    }

    #[test]
    fn titles_of_others() {
        check("postgres: checkpointer ", None);
        check("postgres: autovacuum launcher ", None);
        check("postgres: walsender standby 10.0.0.8(5123) streaming 0/3000148", None);
        check("postgres: my app shop [local] idle", None);
        check("/usr/lib/postgresql/15/bin/postgres\0-D\0/data", None);
        check("", None);
        check("postgres: \u{7f}", None);
    }
}
