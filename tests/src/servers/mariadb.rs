//! MariaDB, as the distribution ships it.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use querylens::model::Engine;

use super::{
    Certificate,
    mysqld::{Mysqld, MysqldOptions, Place},
};
use crate::process::{Launch, User};

/// Starts a server and waits until it accepts connections.
pub fn start(options: &MysqldOptions) -> Result<Mysqld> {
    try_start(options).context("cannot start MariaDB")
}

fn try_start(options: &MysqldOptions) -> Result<Mysqld> {
    let user = User::named_or_nobody("mysql");
    let dir = tempfile::Builder::new().prefix("querylens-mariadb-").tempdir()?;
    user.own(dir.path())?;
    let install = Launch::new("mariadb-install-db").args(["--no-defaults", "--skip-test-db"]);
    let install = install.arg("--auth-root-authentication-method=normal").args([
        format!("--datadir={}", dir.path().join("data").display()),
        format!("--tmpdir={}", dir.path().display()),
    ]);
    install.user(user).run(Duration::from_secs(120))?;
    let mut arguments = Vec::new();
    if options.tls {
        let made = Certificate::create(dir.path(), user)?;
        arguments.push(format!("--ssl-cert={}", made.certificate.display()));
        arguments.push(format!("--ssl-key={}", made.key.display()));
    }
    let inside = dir.path().to_owned();
    let place = Place { dir, inside, root: None, user };
    place.start(Engine::Mariadb, Path::new("/usr/sbin/mariadbd"), arguments, options)
}
