//! Passwords in the file that libpq's programs read (PostgreSQL documentation, "The Password File").

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::model::Secret;

/// Bound on the file's size.
const MAX_BYTES: u64 = 1 << 20;

/// Where a connection goes to, as the file's lines are matched with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// Host as connected to; `localhost` for Unix sockets.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password for `target`: `Ok(None)` if there is no file or no line for it; the reason, if there is a file that must not be read.
pub(super) fn find(target: Target<'_>) -> Result<Option<Secret>, String> {
    let file = env::var_os("PGPASSFILE").map(PathBuf::from);
    let file = file.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".pgpass")));
    file.map_or(Ok(None), |file| read(&file, target))
}

fn read(file: &Path, target: Target<'_>) -> Result<Option<Secret>, String> {
    let Ok(about) = fs::metadata(file) else { return Ok(None) };
    // Like libpq, which leaves such a file alone.
    if about.permissions().mode() & 0o077 != 0 {
        return Err(format!("{} can be read by others and is left alone: chmod 0600", file.display()));
    }
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(format!("{} is no password file", file.display()));
    }
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(parse(&text, target))
}

/// The first line that matches: host:port:database:user:password, `*` for any, `\` before `:` and `\`.
fn parse(text: &str, target: Target<'_>) -> Option<Secret> {
    let port = target.port.to_string();
    let wanted = [target.host, &port, target.database, target.user];
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut passwords = lines.filter_map(|line| {
        let mut fields = fields(line).into_iter();
        let matches = wanted.iter().all(|wanted| fields.next().is_some_and(|own| own == "*" || own == *wanted));
        fields.next().filter(|_| matches)
    });
    passwords.next().map(Secret::from_value)
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            // The password is the rest, and may hold colons as they are.
            ':' if fields.len() < 5 => fields.push(String::new()),
            character => {
                let escaped = if character == '\\' { characters.next() } else { None };
                if let Some(field) = fields.last_mut() {
                    field.push(escaped.unwrap_or(character));
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TARGET: Target<'_> = Target { host: "localhost", port: 5432, database: "postgres", user: "monitor" };

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(parse(text, TARGET).as_ref().and_then(Secret::expose), expected, "{text}");
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        check("localhost:5432:postgres:monitor:one\n*:*:*:*:two", Some("one"));
        check("other:5432:*:monitor:one\n*:*:*:monitor:two", Some("two"));
        check("#localhost:5432:postgres:monitor:one\nlocalhost:5433:*:*:two", None);
        check("localhost:5432:postgres:monitor", None);
        check(r"*:*:*:monitor:a\:b\\c:d", Some(r"a:b\c:d"));
        check("", None);
    }

    #[test]
    fn a_file_that_others_can_read_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgpass");
        assert!(read(&file, TARGET).unwrap().is_none());
        fs::write(&file, "*:*:*:*:hunter2").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read(&file, TARGET).unwrap_err();
        assert!(error.contains("chmod 0600") && !error.contains("hunter2"), "{error}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&file, TARGET).unwrap().unwrap().expose(), Some("hunter2"));
    }
}
