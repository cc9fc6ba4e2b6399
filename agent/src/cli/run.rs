//! `querylens run` and what it shares with `querylens top`: the log and the runtime.

use std::process::ExitCode;

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, fmt};

use super::{Common, FINE, top};
use crate::{
    config::log::{self, Format, Level},
    export::console,
    runtime::service,
};

/// Run the agent
///
/// Watches until SIGTERM or SIGINT. Serves /metrics, /status and /health at 127.0.0.1:9464 unless configured otherwise.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Print the state to standard output, one line of JSON every ten seconds unless configured otherwise
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = args.common.load()?;
    if args.json {
        config.export.console.get_or_insert_default().format = console::Format::Json;
    }
    start_log(&config.log);
    runtime()?.block_on(service::serve(&config))?;
    Ok(ExitCode::from(FINE))
}

/// `querylens top`: the stages of this process, shown instead of exported.
pub(super) fn top(args: top::Args) -> anyhow::Result<ExitCode> {
    let config = args.common.load()?;
    let every = args.interval.0;
    runtime()?.block_on(async {
        let show = async |snapshots| top::run(args, snapshots, &mut std::io::stdout()).await;
        service::watch(&config, every, show).await?
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .thread_name("ql-async")
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")
}

/// Writes the agent's log to standard error. `RUST_LOG` refines the configured level.
fn start_log(config: &log::Config) {
    let level = match config.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::WARN.into());
    // Libraries speak of connections and frames; only our own words are wanted at the configured level.
    let filter =
        filter.parse_lossy(format!("warn,querylens={level},{}", std::env::var("RUST_LOG").unwrap_or_default()));
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        Format::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        Format::Json => log.json().init(),
    }
}
