//! What a server is, has and grants: the ground on which ladders stand.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Engine;

/// A privilege that questions need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grant {
    /// PostgreSQL: statistics of all users (role `pg_read_all_stats`, part of `pg_monitor`).
    AllStats,
    /// PostgreSQL: all settings (role `pg_read_all_settings`, part of `pg_monitor`).
    AllSettings,
    /// PostgreSQL: the files of the write-ahead log (function `pg_ls_waldir`, part of `pg_monitor`).
    ListWal,
    /// MySQL and MariaDB: sessions of all users (`PROCESS`).
    Process,
    /// MySQL and MariaDB: state of replication (`REPLICATION CLIENT`; since MariaDB 10.5 `REPLICA MONITOR`).
    ReplicationClient,
    /// MySQL and MariaDB: `SELECT` on performance_schema.
    PerformanceSchema,
}

impl Grant {
    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Grant::AllStats => "role pg_read_all_stats",
            Grant::AllSettings => "role pg_read_all_settings",
            Grant::ListWal => "right to execute pg_ls_waldir()",
            Grant::Process => "privilege PROCESS",
            Grant::ReplicationClient => "privilege REPLICATION CLIENT",
            Grant::PerformanceSchema => "SELECT on performance_schema",
        }
    }
}

/// An extension of PostgreSQL, created in the database that the agent is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extension {
    /// Major times 100 plus minor: 111 for 1.11.
    pub(super) version: u32,
    /// Schema that it lies in.
    pub(super) schema: String,
}

/// What a server is, has and grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) engine: Engine,
    /// PostgreSQL: `server_version_num`; MySQL and MariaDB: major times 10000 plus minor times 100 plus patch.
    pub(super) version: u32,
    /// The account that the agent is, quoted as SQL wants it.
    pub(super) account: String,
    /// Database that the agent is connected to.
    pub(super) database: String,
    /// The process or thread that serves the agent, as the server numbers it; `None` where it does not tell.
    pub(super) task: Option<i64>,
    /// Everything is allowed.
    pub(super) superuser: bool,
    /// PostgreSQL: it follows another server.
    pub(super) recovery: bool,
    pub(super) extensions: BTreeMap<String, Extension>,
    /// Settings that decide what can be asked, by name.
    pub(super) settings: BTreeMap<String, String>,
    pub(super) grants: BTreeSet<Grant>,
}

impl Facts {
    /// Whether the agent has a privilege.
    pub(super) fn grants(&self, grant: Grant) -> bool {
        self.superuser || self.grants.contains(&grant)
    }

    /// Whether a setting is one of these, however it is written.
    pub(super) fn is_set(&self, name: &str, values: &[&str]) -> bool {
        self.settings.get(name).is_some_and(|own| values.iter().any(|value| own.eq_ignore_ascii_case(value)))
    }
}

/// The number of an extension's version: 111 for `1.11`, 109 for `1.9`; zero if it is written otherwise.
pub(super) fn extension_version(text: &str) -> u32 {
    let mut parts = text.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    major.saturating_mul(100).saturating_add(minor.min(99))
}

/// The number of a MySQL or MariaDB version: 101119 for `10.11.19-MariaDB-0+deb12u1`.
pub(super) fn mysql_version(text: &str) -> u32 {
    let number = text.split(|character: char| !(character.is_ascii_digit() || character == '.')).next().unwrap_or("");
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    major.saturating_mul(10_000).saturating_add(minor.min(99) * 100).saturating_add(patch.min(99))
}

/// Facts for tests: a superuser of the newest version, with nothing installed.
#[cfg(test)]
pub(super) fn sample(engine: Engine) -> Facts {
    Facts {
        engine,
        version: if engine == Engine::Postgresql { 180_000 } else { 90_700 },
        account: "querylens".to_owned(),
        database: "postgres".to_owned(),
        task: None,
        superuser: true,
        recovery: false,
        extensions: BTreeMap::new(),
        settings: BTreeMap::new(),
        grants: BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_releases_are() {
        assert_eq!(extension_version("1.11"), 111);
        assert_eq!(extension_version("1.9"), 109);
        assert_eq!(extension_version("unpackaged"), 0);
        assert_eq!(mysql_version("10.11.19-MariaDB-0+deb12u1"), 101_119);
        assert_eq!(mysql_version("8.0.36"), 80_036);
        assert_eq!(mysql_version("9.7.0-er2"), 90_700);
        assert_eq!(mysql_version(""), 0);
    }
}
