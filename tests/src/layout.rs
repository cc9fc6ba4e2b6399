//! Where things lie in a checkout. Compiled into the harness and into xtask, so that the one who installs and the one who uses agree.

use std::path::{Path, PathBuf};

/// The checkout: this package and xtask lie directly beneath it.
pub fn checkout() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // Cargo takes a relative one from where it was called; the verbs are called from the checkout.
        Some(dir) => checkout().join(dir),
        None => checkout().join("target"),
    }
}

/// Tree of a PostgreSQL major version: Debian's where it is installed, else the one `cargo xtask setup` unpacked.
pub fn postgresql(major: u32) -> PathBuf {
    let system = PathBuf::from(format!("/usr/lib/postgresql/{major}"));
    if system.join("bin/postgres").exists() { system } else { unpacked_postgresql(major) }
}

/// Where `cargo xtask setup` unpacks a PostgreSQL major version.
pub fn unpacked_postgresql(major: u32) -> PathBuf {
    target().join(format!("servers/postgresql-{major}"))
}

/// Where `cargo xtask test querylens` puts the extension pg_querylens for a PostgreSQL major version.
pub fn extension(major: u32) -> PathBuf {
    target().join(format!("pg_querylens/pg{major}"))
}

/// Root directory in which MySQL runs: it needs a libc of its own.
pub fn mysql_root() -> PathBuf {
    target().join("servers/mysql")
}
