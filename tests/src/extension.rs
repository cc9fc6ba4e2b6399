//! A PostgreSQL server with the extension pg_querylens.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{
    client::{PostgresClient, Rows},
    layout,
    servers::{Postgres, PostgresOptions},
};

/// A server that has loaded the extension; in its database `postgres`, the extension's objects are there.
pub struct Extended {
    /// The server.
    pub server: Postgres,
    major: u32,
    // Where its library lies. After the server: removed when that has ended.
    library: TempDir,
}

/// The first version that finds extensions elsewhere than among its own files (`extension_control_path`).
const FINDS_EXTENSIONS: u32 = 18;
const CONTROL: &str = "pg_querylens.control";
const SCRIPT: &str = "pg_querylens--0.1.0.sql";

/// Settings of a server of a major version that loads `libraries`, in this order, and these settings beside.
fn settings(major: u32, library: &TempDir, libraries: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let library = library.path().display();
    let (libraries_path, control_path) = (format!("'{library}:$libdir'"), format!("'{library}:$system'"));
    let mut own = vec![("dynamic_library_path", libraries_path.as_str()), ("shared_preload_libraries", libraries)];
    if major >= FINDS_EXTENSIONS {
        own.push(("extension_control_path", &control_path));
    }
    own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A file of the extension.
fn source(name: &str) -> PathBuf {
    layout::checkout().join("pg_querylens").join(name)
}

impl Extended {
    /// Starts a server of a major version that loads `libraries`, e.g. `'pg_querylens,pg_stat_statements'`.
    pub fn start(major: u32, libraries: &str, more: &[(&str, &str)]) -> Result<Extended> {
        Extended::start_run_by(Vec::new(), major, libraries, more)
    }

    /// The same with a program that runs the server, see [`PostgresOptions::runner`].
    pub fn start_run_by(runner: Vec<String>, major: u32, libraries: &str, more: &[(&str, &str)]) -> Result<Extended> {
        let library = tempfile::Builder::new().prefix("querylens-extension-").tempdir()?;
        fs::set_permissions(library.path(), fs::Permissions::from_mode(0o755))?;
        let built = layout::extension(major).join("pg_querylens.so");
        let own = library.path().join("pg_querylens.so");
        fs::copy(&built, &own)
            .with_context(|| format!("{} is missing: cargo xtask test querylens", built.display()))?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755))?;
        let control = library.path().join("extension");
        fs::create_dir(&control)?;
        fs::copy(source(CONTROL), control.join(CONTROL))?;
        fs::copy(source("sql").join(SCRIPT), control.join(SCRIPT))?;
        let mut options = PostgresOptions::new(major);
        options.settings = settings(major, &library, libraries, more);
        options.runner = runner;
        let extended = Extended { server: Postgres::start(options)?, major, library };
        extended.create()?;
        Ok(extended)
    }

    /// The extension's objects; from its script where `CREATE EXTENSION` looks only among the server's own files, which belong to the machine.
    fn create(&self) -> Result<()> {
        if self.major >= FINDS_EXTENSIONS {
            return self.client()?.query("CREATE EXTENSION pg_querylens").map(drop);
        }
        let file = source("sql").join(SCRIPT);
        let script = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        // The first line is psql's.
        let script = script.lines().skip(1).collect::<Vec<_>>().join("\n").replace("MODULE_PATHNAME", "pg_querylens");
        let mut client = self.server.client("postgres")?;
        client.query("CREATE SCHEMA querylens; SET search_path = querylens")?;
        client.query(&script).map(drop)
    }

    /// Ends the server as an administrator would and starts it with other settings.
    pub fn restart(&mut self, libraries: &str, more: &[(&str, &str)]) -> Result<()> {
        let settings = settings(self.major, &self.library, libraries, more);
        self.server.restart(settings)
    }

    /// Starts the server after it was stopped.
    pub fn start_again(&mut self, libraries: &str, more: &[(&str, &str)]) -> Result<()> {
        let settings = settings(self.major, &self.library, libraries, more);
        self.server.start_again(settings)
    }

    /// A session of the superuser.
    pub fn client(&self) -> Result<PostgresClient> {
        self.server.client("postgres")
    }

    /// Runs a file of pg_querylens/tests.
    pub fn run_file(&self, name: &str) -> Result<()> {
        let file = source("tests").join(name);
        let script = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let mut client = self.client()?;
        // One by one: VACUUM runs in no transaction, which several statements in one message are.
        script.split(";\n").filter(|sql| !sql.trim().is_empty()).try_for_each(|sql| client.query(sql).map(drop))
    }

    /// A number of `querylens.info`.
    pub fn info(&self, name: &str) -> Result<i64> {
        let value = self.client()?.value(&format!("SELECT value FROM querylens.info WHERE name = '{name}'"))?;
        value.parse().with_context(|| format!("{name} = {value}"))
    }

    /// Rows of a query in a session of its own.
    pub fn rows(&self, sql: &str) -> Result<Rows> {
        self.client()?.query(sql)
    }
}
