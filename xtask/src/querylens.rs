//! The PostgreSQL extension pg_querylens: built for a major version whose server is there, and tested on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    command::{cargo, run as execute},
    layout,
    setup::{self, Purpose},
    test::cargo_as_root,
};

/// Major versions for which it can be built and tested: those whose servers and headers `cargo xtask setup` provides.
const MAJORS: [&str; 5] = ["14", "15", "16", "17", "18"];
/// Those that every run takes: the first that asks for shared memory in a hook, the one that the benchmarks use, and the newest. 14 and 16 differ
/// from them in little, and each takes minutes.
const ALWAYS: &[u32] = &[15, 17, 18];
/// The one on which the extension's cost is measured, as the agent's is.
pub(crate) const BENCHMARKED: u32 = 17;
const MANIFEST: &str = "--manifest-path=pg_querylens/Cargo.toml";

/// A major version on the command line.
pub(crate) fn major() -> impl TypedValueParser<Value = u32> {
    PossibleValuesParser::new(MAJORS).try_map(|major| major.parse::<u32>())
}

/// The stage: lints against each version's headers, unit tests, then the tests on each version's server, and under valgrind if that is asked for.
pub(crate) fn test(chosen: &[u32], valgrind: bool) -> Result<()> {
    let majors = if chosen.is_empty() { ALWAYS } else { chosen };
    provide(majors)?;
    execute(cargo().args(["fmt", MANIFEST, "--check"]))?;
    for (at, major) in majors.iter().enumerate() {
        eprintln!("\n--- PostgreSQL {major}");
        // All in the profile in which the library is built: so the headers are read once for each version.
        execute(on(*major, &["clippy", "--lib", "--release"])?.args(["--", "-D", "warnings"]))?;
        if at == 0 {
            // They touch no server, so one version stands for all.
            execute(&mut on(*major, &["test", "--lib", "--release"])?)?;
        }
        build(*major)?;
    }
    let mut names: Vec<String> = majors.iter().map(|major| format!("pg_querylens_{major}")).collect();
    if valgrind {
        setup::ensure(&[Purpose::Memory], false)?;
        build(BENCHMARKED)?;
        names.push("under_valgrind".to_owned());
    }
    let arguments = ["test", "--release", "--locked", "--package=querylens-tests", "--test=pg_querylens", "--"];
    execute(cargo_as_root()?.args(arguments).args(["--ignored", "--test-threads=1"]).args(names))
}

/// Sees to it that the servers of these versions are there.
pub(crate) fn provide(majors: &[u32]) -> Result<()> {
    if majors.iter().all(|major| ALWAYS.contains(major)) {
        return Ok(());
    }
    setup::ensure(&[Purpose::Majors], false)
}

/// Builds the library for a major version, and puts it where tests and packages look for it; says where.
pub(crate) fn build(major: u32) -> Result<PathBuf> {
    execute(&mut on(major, &["build", "--release"])?)?;
    let into = layout::extension(major);
    fs::create_dir_all(&into).with_context(|| format!("cannot create {}", into.display()))?;
    let (built, library) = (target().join("release/libpg_querylens.so"), into.join("pg_querylens.so"));
    fs::copy(&built, &library).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(library)
}

/// Where the extension is compiled: its features exclude each other, so not where everything else is.
fn target() -> PathBuf {
    layout::target().join("pg_querylens")
}

/// A command of cargo on the extension, with the headers of a major version.
fn on(major: u32, arguments: &[&str]) -> Result<Command> {
    let configuration = layout::postgresql(major).join("bin/pg_config");
    ensure!(configuration.exists(), "{} is missing: cargo xtask setup", configuration.display());
    let mut command = cargo();
    command.args(arguments).args(["--locked", MANIFEST]).arg(format!("--features=pg{major}"));
    command.arg("--target-dir").arg(target()).env("PGRX_PG_CONFIG_PATH", absolute(&configuration));
    Ok(command)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A file of the extension's sources.
pub(crate) fn source(name: &str) -> PathBuf {
    layout::checkout().join("pg_querylens").join(name)
}

/// The scripts that make the extension's objects, and those that change them from one version to the next.
pub(crate) fn scripts() -> Result<Vec<PathBuf>> {
    let dir = source("sql");
    let files = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
    let mut files: Vec<PathBuf> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

/// The version that `CREATE EXTENSION` makes, from the control file.
pub(crate) fn version() -> Result<String> {
    let file = source("pg_querylens.control");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("default_version = '")?.strip_suffix('\''));
    line.map(str::to_owned).context("the control file names no default_version")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Names of scripts without prefix and ending: a version, or two with `--` between them.
    fn names() -> Vec<String> {
        let name = |file: PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
        let names = scripts().unwrap().into_iter().map(name);
        names
            .map(|name| name.strip_prefix("pg_querylens--").unwrap().strip_suffix(".sql").unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_version_is_the_same_everywhere() {
        let version = version().unwrap();
        let manifest = fs::read_to_string(source("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("\nversion = \"{version}\"\n")), "{version}");
        assert!(names().contains(&version), "pg_querylens--{version}.sql is missing");
    }

    /// From each version that was released to the present one, as PostgreSQL looks for a way: step by step.
    #[test]
    fn every_released_version_has_a_way_to_the_present_one() {
        let (names, present) = (names(), version().unwrap());
        let steps: Vec<(&str, &str)> = names.iter().filter_map(|name| name.split_once("--")).collect();
        for released in names.iter().filter(|name| !name.contains("--")) {
            let mut reached = vec![released.as_str()];
            let mut at = 0;
            while let Some(from) = reached.get(at).copied() {
                let next = steps.iter().filter(|(start, _)| *start == from).map(|(_, end)| *end);
                reached.extend(next.filter(|end| !reached.contains(end)).collect::<Vec<_>>());
                at += 1;
            }
            assert!(reached.contains(&present.as_str()), "no way from {released} to {present}");
        }
    }
}
