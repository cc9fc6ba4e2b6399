//! The commands, one file each.

pub mod check;
mod discover;
mod doctor;
mod format;
pub mod replay;
mod run;
mod table;
pub mod top;

use std::{io, path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::config::{self, Choice, Config, Host};

/// Everything is fine.
const FINE: u8 = 0;
/// It works, but something is missing that could be there.
const DEGRADED: u8 = 1;
/// It does not work.
const UNUSABLE: u8 = 2;

/// Zero-config database observability from the kernel up
///
/// Finds every PostgreSQL, MySQL and MariaDB server on this host and times every statement, with nothing configured per database.
#[derive(Debug, clap::Parser)]
#[command(name = "querylens", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(run::Args),
    Discover(discover::Args),
    Top(top::Args),
    Doctor(doctor::Args),
    Check(check::Args),
    Replay(replay::Args),
}

/// Options of all commands that look at the host.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Common {
    /// Configuration file; without one /etc/querylens/querylens.yaml, if it exists, else the defaults
    #[arg(long, value_name = "FILE", env = "QUERYLENS_CONFIG")]
    config: Option<PathBuf>,
    /// Attach strategy, instead of the configuration's
    #[arg(long, value_name = "STRATEGY")]
    capture: Option<Choice>,
}

impl Common {
    fn load(&self) -> anyhow::Result<Config> {
        let mut config = config::load(self.config.as_deref(), &Host)?.config;
        if let Some(strategy) = self.capture {
            config.capture.strategy = strategy;
        }
        Ok(config)
    }
}

/// Runs the command line that the process was started with.
///
/// Exit codes: 0 fine, 1 degraded, 2 unusable (also for wrong arguments).
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = &mut io::stdout().lock();
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Top(args) => run::top(args),
        Command::Discover(args) => discover::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Check(args) => check::run(args, out),
        Command::Replay(args) => replay::run(&args, out, &mut io::stderr()),
    };
    match result {
        Ok(code) => code,
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("querylens: {error:#}\n"));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
