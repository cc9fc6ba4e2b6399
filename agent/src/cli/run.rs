//! `querylens run` and what it shares with `querylens top`: the log and the runtime.

use std::process::ExitCode;

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

use super::{Common, FINE, top};
use crate::{
    config::{
        self, Host,
        log::{self, Format, Level},
    },
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
    let wanted = args.common.wanted();
    let load = {
        let (wanted, json) = (wanted.clone(), args.json);
        move || {
            let mut loaded = config::load(&wanted, &Host)?;
            if json {
                loaded.config.export.console.get_or_insert_default().format = console::Format::Json;
            }
            Ok(loaded)
        }
    };
    let loaded = load()?;
    let level = start_log(&loaded.config.log);
    let log = move |config: &log::Config| {
        if let Err(error) = level.modify(|filter| *filter = filter_of(config)) {
            tracing::error!(%error, "the log's level stays as it is");
        }
    };
    let reload = service::Reload { wanted, load: Box::new(load), log: Box::new(log) };
    runtime()?.block_on(service::serve(loaded, reload))?;
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

/// What of the log is written. `RUST_LOG` refines the configured level.
fn filter_of(config: &log::Config) -> EnvFilter {
    let level = match config.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::WARN.into());
    // Libraries speak of connections and frames; only our own words are wanted at the configured level.
    filter.parse_lossy(format!("warn,querylens={level},{}", std::env::var("RUST_LOG").unwrap_or_default()))
}

/// Writes the agent's log to standard error. What is given changes its level; its form stays.
fn start_log(config: &log::Config) -> reload::Handle<EnvFilter, Registry> {
    let (filter, level) = reload::Layer::new(filter_of(config));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let log = tracing_subscriber::registry().with(filter);
    match config.format {
        Format::Text => log.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).init(),
        Format::Json => log.with(lines.json()).init(),
    }
    level
}
