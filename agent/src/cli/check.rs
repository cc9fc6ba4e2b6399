//! `querylens check`: what is wrong with a configuration, and what is in effect.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::Overrides;
use crate::{
    config::{self, Diagnostics, Host, Loaded},
    model::printable,
};

/// Exit code for a configuration that the agent would refuse.
const UNUSABLE: u8 = 2;

/// Check a configuration and tell everything that is wrong with it
///
/// The file is checked with its drop-ins and profiles, as the agent would load it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// The file to check; without one /etc/querylens/querylens.yaml, if it exists
    pub file: Option<PathBuf>,
    /// What the command line sets.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Print the settings in effect, each with where it came from; secrets are masked
    #[arg(long)]
    pub print: bool,
    /// Print the problems, or with --print the settings, as a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Checks the configuration; exit code 0 if the agent would start with it, 2 if not.
pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let loaded = config::load(&args.overrides.over(args.file), &Host);
    match &loaded {
        Ok(Loaded { config, origins, .. }) if args.print && args.json => json(&origins.settings(config)?, out)?,
        Ok(Loaded { config, origins, .. }) if args.print => out.write_all(origins.yaml(config)?.as_bytes())?,
        _ if args.json => json(loaded.as_ref().err().map_or(&[][..], |diagnostics| &diagnostics.0), out)?,
        _ => text(&loaded, out)?,
    }
    Ok(if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(UNUSABLE) })
}

fn text(loaded: &Result<Loaded, Diagnostics>, out: &mut dyn Write) -> io::Result<()> {
    match loaded {
        Ok(Loaded { file: Some(file), .. }) => writeln!(out, "{}: fine", printable(&file.to_string_lossy())),
        Ok(Loaded { file: None, .. }) => {
            writeln!(out, "{}: does not exist, the defaults apply", config::DEFAULT_PATH)
        }
        Err(diagnostics) => writeln!(out, "{diagnostics}"),
    }
}

fn json<T: serde::Serialize>(items: &[T], out: &mut dyn Write) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, items)?;
    Ok(writeln!(out)?)
}
