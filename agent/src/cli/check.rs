//! `querylens check`: what is wrong with a configuration file.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use crate::{
    config::{self, Diagnostics, Host, Loaded},
    model::printable,
};

/// Exit code for a configuration that the agent would refuse.
const UNUSABLE: u8 = 2;

/// Check a configuration file and tell everything that is wrong with it
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file to check; without one /etc/querylens/querylens.yaml, if it exists
    pub file: Option<PathBuf>,
    /// Print the problems as a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Checks the file; exit code 0 if the agent would start with it, 2 if not.
pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let loaded = config::load(args.file.as_deref(), &Host);
    if args.json {
        json(&loaded, out)?
    } else {
        text(&loaded, out)?
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

fn json(loaded: &Result<Loaded, Diagnostics>, out: &mut dyn Write) -> anyhow::Result<()> {
    let problems = loaded.as_ref().err().map_or(&[][..], |diagnostics| &diagnostics.0);
    serde_json::to_writer_pretty(&mut *out, problems)?;
    Ok(writeln!(out)?)
}
