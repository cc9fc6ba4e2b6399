//! `cargo xtask fuzz`: the targets of tests/fuzz, without cargo-fuzz: a nightly compiler and libFuzzer are all it takes.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::{
    command::{cargo, command, host, run as execute, target_variable},
    layout,
    setup::{self, Purpose},
};

/// Arguments of the verb.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Targets to run; all of them if none is named.
    #[arg(value_parser = PossibleValuesParser::new(TARGETS.iter().map(|target| target.name)))]
    names: Vec<String>,
    /// How long each of them runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

struct Target {
    name: &'static str,
    /// Most bytes of an input: what it takes to reach every bound that depends on length, and no more, since long ones are slow.
    max_len: u32,
}

const TARGETS: &[Target] = &[
    Target { name: "wire_postgres", max_len: 16 << 10 },
    Target { name: "wire_mysql", max_len: 16 << 10 },
    Target { name: "sql_normalise", max_len: 16 << 10 },
    Target { name: "pcap", max_len: 64 << 10 },
    Target { name: "record", max_len: 8 << 10 },
];

/// Coverage as libFuzzer wants it (the flags of cargo-fuzz, `src/project.rs`), and the address sanitizer.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address --cfg fuzzing -Ccodegen-units=4";

/// The verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(&[Purpose::Build, Purpose::Fuzz], false)?;
    let dir = layout::target().join("fuzz");
    let corpus = dir.join("corpus");
    execute(
        cargo().args(["run", "--quiet", "--locked", "--package=querylens-tests", "--example=seeds", "--"]).arg(&corpus),
    )?;
    let host = host()?;
    // For this target alone: the eBPF programs and build scripts are compiled as ever.
    let mut build = command("cargo");
    build.args(["+nightly", "build", "--release", "--locked", "--bins", "--manifest-path=tests/fuzz/Cargo.toml"]);
    build.arg(format!("--target={host}")).arg("--target-dir").arg(&dir);
    execute(build.env(target_variable(&host, "RUSTFLAGS"), RUSTFLAGS))?;
    let programs = dir.join(&host).join("release");
    let mut failed = Vec::new();
    for target in
        TARGETS.iter().filter(|target| options.names.is_empty() || options.names.iter().any(|n| n == target.name))
    {
        eprintln!("\n=== {}", target.name);
        if let Err(error) = fuzz(target, options.seconds, &programs.join(target.name), &corpus.join(target.name), &dir)
        {
            eprintln!("{error:#}");
            failed.push(target.name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}; the inputs are in {}", failed.join(", "), dir.join("artifacts").display());
    }
    Ok(())
}

/// Runs one target; what it finds new goes into the corpus, what it fails on beside it.
fn fuzz(target: &Target, seconds: u32, program: &Path, corpus: &Path, dir: &Path) -> Result<()> {
    let artifacts = dir.join("artifacts").join(target.name);
    // Inputs that failed once.
    let kept = layout::checkout().join("tests/fuzz/seeds").join(target.name);
    for folder in [corpus, &artifacts, &kept] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut fuzzer = command(program);
    fuzzer.args([corpus, &kept]);
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={}", target.max_len));
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    execute(fuzzer.args(["-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1", "-print_funcs=0"]))
}
