//! MySQL, in a root directory of its own, much as in a container.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use querylens::model::Engine;

use super::mysqld::{Mysqld, MysqldOptions, Place};
use crate::{
    layout,
    process::{Launch, User},
};

const PROGRAM: &str = "usr/sbin/mysqld";

/// Whether it could be had on this machine; where not, says so on standard error, since whoever asks will skip something.
#[allow(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn available() -> bool {
    let available = layout::mysql_root().join(PROGRAM).exists();
    if !available {
        eprintln!("SKIPPED: MySQL is not installed, so nothing is tested with it: cargo xtask setup --only test");
    }
    available
}

/// Starts a server and waits until it accepts connections.
pub fn start(options: &MysqldOptions) -> Result<Mysqld> {
    try_start(options).context("cannot start MySQL")
}

fn try_start(options: &MysqldOptions) -> Result<Mysqld> {
    // No user of this machine.
    let user = User { uid: 1999, gid: 1999 };
    let root = layout::mysql_root();
    let parent = root.join("tmp");
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let dir = tempfile::Builder::new().prefix("querylens-mysql-").tempdir_in(&parent)?;
    user.own(dir.path())?;
    let name = dir.path().file_name().context("a temporary directory has a name")?;
    let inside = PathBuf::from("/tmp").join(name);
    let program = Path::new("/").join(PROGRAM);
    let initialise = Launch::new(&program).args(["--no-defaults", "--initialize-insecure", "--secure-file-priv=NULL"]);
    let initialise = initialise.args([
        format!("--datadir={}", inside.join("data").display()),
        format!("--tmpdir={}", inside.display()),
        "--innodb-redo-log-capacity=8M".to_owned(),
    ]);
    let log = dir.path().join("initialise.log");
    initialise.user(user).chroot(&root).log(&log).run(Duration::from_secs(120))?;
    // mysqlx: another protocol on another port, with the same fixed number for every server.
    let arguments = ["--secure-file-priv=NULL", "--mysqlx=OFF", "--innodb-redo-log-capacity=8M"].map(str::to_owned);
    let place = Place { dir, inside, root: Some(root), user };
    place.start(Engine::Mysql, &program, arguments.to_vec(), options)
}
