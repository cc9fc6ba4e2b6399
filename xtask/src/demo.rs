//! `cargo xtask demo`: sets up, builds, and hands over to the demo itself (tests/src/bin/querylens-demo).

use std::os::unix::process::CommandExt;

use anyhow::{Result, bail};

use crate::{
    command::{cargo, is_root, run as execute},
    layout,
    setup::{self, Purpose},
};

/// Arguments of the verb.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long the load runs.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// End with one line of JSON on standard output; everything else goes to standard error.
    #[arg(long)]
    json: bool,
}

/// The verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !is_root() {
        bail!("the demo needs root: it loads eBPF programs and starts servers as other users");
    }
    setup::ensure(&[Purpose::Build, Purpose::Test], false)?;
    let packages = ["--package=querylens", "--package=querylens-tests", "--bin=querylens", "--bin=querylens-demo"];
    execute(cargo().args(["build", "--release"]).args(packages))?;
    let mut demo = std::process::Command::new(layout::target().join("release/querylens-demo"));
    demo.arg(format!("--seconds={}", options.seconds));
    if options.json {
        demo.arg("--json");
    }
    // In place of this process: signals and the exit code need nobody in between.
    Err(anyhow::Error::new(demo.exec()).context("cannot start the demo"))
}
