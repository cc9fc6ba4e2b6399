//! Settings that are not what they were at the look before.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::SystemTime,
};

use super::row::{Malformed, Rows};
use crate::model::SettingChange;

/// Settings remembered; servers have some hundreds. Further ones are left out.
const MAX_SETTINGS: usize = 5000;
/// Changes remembered, the newest.
const MAX_CHANGES: usize = 100;
/// Bytes of a value that are shown.
const MAX_VALUE: usize = 256;

/// Parts of names of settings whose values may hold a password: connection strings, commands, keys.
const SECRET: &[&str] = &["conninfo", "command", "pass", "secret", "key", "token", "url", "init_connect", "user"];
/// Extensions' settings that hold none. Other names with a dot may be anything that an application keeps there.
const EXTENSIONS: &[&str] = &["pg_stat_statements.", "auto_explain.", "plpgsql."];
/// Settings that move by themselves.
const MOVING: &[&str] =
    &["gtid_", "timestamp", "rand_seed", "pseudo_", "insert_id", "last_insert_id", "error_count", "warning_count"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Shown(Arc<str>),
    /// Only whether it changes is told.
    Hidden(u64),
}

impl Known {
    fn shown(&self) -> Option<Arc<str>> {
        match self {
            Known::Shown(value) => Some(Arc::clone(value)),
            Known::Hidden(_) => None,
        }
    }
}

/// Remembers settings from look to look.
#[derive(Debug, Default)]
pub(super) struct Settings {
    known: Option<BTreeMap<Arc<str>, Known>>,
    changes: VecDeque<SettingChange>,
    hidden: RandomState,
}

impl Settings {
    /// Takes all settings, whose names are in the column `names` and whose values in `value`, and notes what is not as before.
    pub(super) fn look(&mut self, rows: &Rows, names: &str, now: SystemTime) -> Result<(), Malformed> {
        let mut settings = BTreeMap::new();
        for row in rows.iter().take(MAX_SETTINGS) {
            let Some(name) = row.name(names)?.filter(|name| !moves(name)) else { continue };
            let value = row.text("value")?.unwrap_or_default();
            let known = match is_secret(&name) {
                true => Known::Hidden(self.hidden.hash_one(value)),
                false => Known::Shown(value.chars().take(MAX_VALUE).collect::<String>().into()),
            };
            settings.insert(name, known);
        }
        let Some(before) = self.known.replace(settings) else { return Ok(()) };
        let after = self.known.as_ref().into_iter().flatten();
        let changed = after.filter(|(name, known)| before.get(*name) != Some(*known));
        let mut changes: Vec<SettingChange> = changed
            .map(|(name, known)| SettingChange {
                at: now,
                name: Arc::clone(name),
                before: before.get(name).and_then(Known::shown),
                after: known.shown(),
            })
            .collect();
        let gone = before.iter().filter(|(name, _)| self.known.as_ref().is_some_and(|now| !now.contains_key(*name)));
        changes.extend(gone.map(|(name, known)| SettingChange {
            at: now,
            name: Arc::clone(name),
            before: known.shown(),
            after: None,
        }));
        self.changes.extend(changes);
        self.changes.drain(..self.changes.len().saturating_sub(MAX_CHANGES));
        Ok(())
    }

    /// The latest changes, the newest last.
    pub(super) fn changes(&self) -> impl Iterator<Item = &SettingChange> {
        self.changes.iter()
    }
}

fn moves(name: &str) -> bool {
    MOVING.iter().any(|beginning| name.starts_with(beginning))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let foreign = name.contains('.') && !EXTENSIONS.iter().any(|extension| name.starts_with(extension));
    foreign || SECRET.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::collect::row::table;

    #[test]
    fn changes_are_told_but_no_secret_is() {
        let mut settings = Settings::default();
        let now = SystemTime::UNIX_EPOCH;
        settings
            .look(
                &table("name value\nwork_mem 4096\nprimary_conninfo password=hunter2\napp.token a\nold 1\ngtid_pos 1"),
                "name",
                now,
            )
            .unwrap();
        assert_eq!(settings.changes().count(), 0, "the first look is the ground");
        settings
            .look(
                &table("name value\nwork_mem 8192\nprimary_conninfo password=hunter3\napp.token a\ngtid_pos 2\nnew on"),
                "name",
                now,
            )
            .unwrap();
        let changes: Vec<_> = settings
            .changes()
            .map(|change| (&*change.name, change.before.as_deref(), change.after.as_deref()))
            .collect();
        assert_eq!(
            changes,
            [
                ("new", None, Some("on")),
                ("primary_conninfo", None, None),
                ("work_mem", Some("4096"), Some("8192")),
                ("old", Some("1"), None),
            ]
        );
        assert!(!format!("{settings:?}").contains("hunter"));
    }

    #[test]
    fn only_the_newest_changes_are_kept() {
        let mut settings = Settings::default();
        for value in 0..MAX_CHANGES + 50 {
            settings.look(&table(&format!("name value\nwork_mem {value}")), "name", SystemTime::UNIX_EPOCH).unwrap();
        }
        assert_eq!(settings.changes().count(), MAX_CHANGES);
        let last = (MAX_CHANGES + 49).to_string();
        assert_eq!(settings.changes().last().unwrap().after.as_deref(), Some(last.as_str()));
    }
}
