//! The PostgreSQL extension pg_querylens: built for each major version whose server is there, and tested on it.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{
    command::{cargo, run as execute},
    layout,
    test::cargo_as_root,
};

/// Major versions of servers that `cargo xtask setup` provides.
const MAJORS: &[u32] = &[15, 17, 18];
const MANIFEST: &str = "--manifest-path=pg_querylens/Cargo.toml";

/// The stage: lints and unit tests against each version's headers, then the tests on its server.
pub(crate) fn test() -> Result<()> {
    execute(cargo().args(["fmt", MANIFEST, "--check"]))?;
    for major in MAJORS {
        eprintln!("\n--- PostgreSQL {major}");
        execute(on(*major, &["clippy", "--lib"])?.args(["--", "-D", "warnings"]))?;
        execute(&mut on(*major, &["test", "--lib"])?)?;
        build(*major)?;
    }
    let arguments = ["test", "--release", "--locked", "--package=querylens-tests", "--test=pg_querylens"];
    execute(cargo_as_root()?.args(arguments).args(["--", "--ignored", "--test-threads=1"]))
}

/// Builds the library for a major version, and puts it where tests look for it.
fn build(major: u32) -> Result<()> {
    execute(&mut on(major, &["build", "--release"])?)?;
    let into = layout::extension(major);
    fs::create_dir_all(&into).with_context(|| format!("cannot create {}", into.display()))?;
    let library = target().join("release/libpg_querylens.so");
    fs::copy(&library, into.join("pg_querylens.so")).with_context(|| format!("cannot copy {}", library.display()))?;
    Ok(())
}

/// Where the extension is compiled: its features exclude each other, so not where everything else is.
fn target() -> std::path::PathBuf {
    layout::target().join("pg_querylens")
}

/// A command of cargo on the extension, with the headers of a major version.
fn on(major: u32, arguments: &[&str]) -> Result<std::process::Command> {
    let configuration = layout::postgresql(major).join("bin/pg_config");
    ensure!(configuration.exists(), "{} is missing: cargo xtask setup --only extension", configuration.display());
    let mut command = cargo();
    command.args(arguments).args(["--locked", MANIFEST]).arg(format!("--features=pg{major}"));
    command.arg("--target-dir").arg(target()).env("PGRX_PG_CONFIG_PATH", absolute(&configuration));
    Ok(command)
}

fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
