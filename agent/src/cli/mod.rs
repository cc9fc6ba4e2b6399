//! The commands, one file each.

mod admin;
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

use crate::config::{self, Choice, Config, Host, Profile, Wanted};

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
    Admin(admin::Args),
    Replay(replay::Args),
}

/// Options of all commands that look at the host.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Common {
    /// Configuration file; without one /etc/querylens/querylens.yaml, if it exists, else the defaults
    #[arg(long, value_name = "FILE", env = "QUERYLENS_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// Attach strategy, instead of the configuration's
    #[arg(long, value_name = "STRATEGY")]
    capture: Option<Choice>,
}

impl Common {
    /// What configuration is wanted.
    fn wanted(&self) -> Wanted {
        let mut wanted = self.overrides.over(self.config.clone());
        wanted.settings.extend(self.capture.map(|strategy| format!("capture.strategy={strategy}")));
        wanted
    }

    fn load(&self) -> anyhow::Result<Config> {
        Ok(config::load(&self.wanted(), &Host)?.config)
    }
}

/// What the command line sets of the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overrides {
    /// Shipped settings for a purpose, instead of the configuration's; several are separated by commas, the stronger last
    #[arg(long, value_name = "PROFILE", value_delimiter = ',', env = "QUERYLENS_PROFILE")]
    pub profile: Vec<Profile>,
    /// A setting, over all files: e.g. `--set log.level=debug`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Overrides {
    /// These over the configuration in `file`.
    fn over(&self, file: Option<PathBuf>) -> Wanted {
        let names: Vec<&str> = self.profile.iter().map(|profile| profile.name()).collect();
        let profiles = (!names.is_empty()).then(|| format!("profiles=[{}]", names.join(", ")));
        Wanted { file, settings: profiles.into_iter().chain(self.set.iter().cloned()).collect() }
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
        Command::Admin(args) => admin::run(&args, out),
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
