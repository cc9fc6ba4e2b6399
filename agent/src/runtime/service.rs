//! The agent as a service: stages, end points, exporters, signals.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

use super::{Error, Runtime, Snapshots};
use crate::{
    config::Config,
    export::{
        self,
        console::{self, Format},
        otlp, prometheus,
    },
    health::{
        Status,
        http::{BindError, Page, Server, Source},
    },
    model::Snapshot,
};

/// How long the last export may take.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// Why the service ended or did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The stages.
    #[error(transparent)]
    Runtime(#[from] Error),
    /// The HTTP end points.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An OTLP exporter.
    #[error("export.otlp[{index}]: {error}")]
    Otlp {
        /// Place in the configuration's list.
        index: usize,
        /// What is wrong.
        #[source]
        error: otlp::SetupError,
    },
    /// The operating system refused something basic.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        #[source]
        error: io::Error,
    },
}

/// Runs until SIGTERM or SIGINT; then the hooks are detached, what was recorded is counted and exported a last time.
pub async fn serve(config: &Config) -> Result<(), ServiceError> {
    let system = |what: &'static str| move |error| ServiceError::System { what, error };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("waiting for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("waiting for SIGINT"))?;
    // Taken first: a second agent must not get as far as attaching anything.
    let server = match config.health.enabled {
        true => Some(Server::bind(&config.health).await?),
        false => None,
    };
    let (duration, host) = (config.export.operation_duration_name, export::Host::detect(&config.export));
    let exporters = config.export.otlp.iter().enumerate().map(|(index, otlp)| {
        otlp::Exporter::new(otlp, duration, host.clone())
            .map(|exporter| (otlp.interval.0, exporter))
            .map_err(|error| ServiceError::Otlp { index, error })
    });
    let exporters = exporters.collect::<Result<Vec<_>, _>>()?;
    let runtime = Runtime::start(config, true)?;
    let snapshots = runtime.snapshots();
    let (stop, stopped) = watch::channel(());
    let mut tasks = JoinSet::new();
    if let Some(server) = server {
        let address = server.address().map_err(system("asking for the address of the HTTP end points"))?;
        info!(%address, "serving /metrics, /status and /health");
        let pages = Pages::new(config, host, snapshots.clone());
        tasks.spawn(server.run(Arc::new(pages), until(stopped.clone())));
    }
    let (last, last_snapshot) = watch::channel(None::<Arc<Snapshot>>);
    if let Some(console) = config.export.console.clone() {
        tasks.spawn(print(console, snapshots.clone(), last_snapshot.clone()));
    }
    for (every, exporter) in exporters {
        tasks.spawn(push(every, exporter, snapshots.clone(), last_snapshot.clone()));
    }
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: ending"),
        _ = interrupt.recv() => info!("SIGINT: ending"),
    }
    let snapshot = runtime.stop().await?;
    last.send_replace(Some(Arc::new(snapshot)));
    drop(stop);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a task of the agent failed");
        }
    }
    info!("ended");
    Ok(())
}

/// Starts the stages and shows them with `show`, which gets a snapshot each `every`.
pub async fn watch<T>(
    config: &Config,
    every: Duration,
    show: impl AsyncFnOnce(watch::Receiver<Arc<Snapshot>>) -> T,
) -> Result<T, ServiceError> {
    // Only what costs the databases nothing.
    let runtime = Runtime::start(config, false)?;
    let snapshots = runtime.snapshots();
    let (sender, receiver) = watch::channel(Arc::new(snapshots.take().await?));
    let feeder = tokio::spawn(async move {
        let mut ticks = ticks(every);
        loop {
            ticks.tick().await;
            let Ok(snapshot) = snapshots.take().await else { return };
            if sender.send(Arc::new(snapshot)).is_err() {
                return;
            }
        }
    });
    let shown = show(receiver).await;
    feeder.abort();
    runtime.stop().await?;
    Ok(shown)
}

async fn until(mut stopped: watch::Receiver<()>) {
    // Nothing is ever sent: the sender's end is the signal.
    while stopped.changed().await.is_ok() {}
}

/// The next snapshot to export: one each tick, and the last one with `true`. `None` when there will be none any more.
async fn next(
    ticks: &mut Interval,
    snapshots: &Snapshots,
    last: &mut watch::Receiver<Option<Arc<Snapshot>>>,
) -> Option<(Arc<Snapshot>, bool)> {
    loop {
        tokio::select! {
            // The last one first: at the end, a tick would ask stages that are gone.
            biased;
            _ = last.changed() => return last.borrow_and_update().clone().map(|snapshot| (snapshot, true)),
            _ = ticks.tick() => match snapshots.take().await {
                Ok(snapshot) => return Some((Arc::new(snapshot), false)),
                Err(error) => error!(%error, "no snapshot to export"),
            },
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn print(config: console::Config, snapshots: Snapshots, mut last: watch::Receiver<Option<Arc<Snapshot>>>) {
    let mut ticks = ticks(config.interval.0);
    while let Some((snapshot, end)) = next(&mut ticks, &snapshots, &mut last).await {
        write(&config, &snapshot);
        if end {
            return;
        }
    }
}

async fn push(
    every: Duration,
    mut exporter: otlp::Exporter,
    snapshots: Snapshots,
    mut last: watch::Receiver<Option<Arc<Snapshot>>>,
) {
    let mut ticks = ticks(every);
    while let Some((snapshot, end)) = next(&mut ticks, &snapshots, &mut last).await {
        // At the end there is no time to wait for a receiver that is away.
        let report = match end {
            false => Some(exporter.export(&snapshot).await),
            true => timeout(LAST_EXPORT, exporter.export(&snapshot)).await.ok(),
        };
        match report {
            Some(report) => {
                report.warnings.iter().for_each(|warning| warn!("{warning}"));
                report.errors.iter().for_each(|error| error!("{error}"));
                snapshots.exported.add(report.stats.losses());
            }
            None => error!(
                "the last export did not end within {LAST_EXPORT:?}: what was counted since the one before is lost"
            ),
        }
        if end {
            return;
        }
    }
}

fn write(config: &console::Config, snapshot: &Snapshot) {
    /// Width of a table that goes into a file.
    const FILE_WIDTH: usize = 200;
    let mut out = io::stdout().lock();
    let result = match config.format {
        Format::Json => console::json_line(&Status::new(snapshot, Some(config.top)), &mut out),
        Format::Table => {
            let terminal = io::stdout().is_terminal().then(crossterm_width).flatten();
            console::table(snapshot, config.top, terminal.unwrap_or(FILE_WIDTH), &mut out)
        }
    };
    if let Err(error) = result.and_then(|()| out.flush()) {
        error!(%error, "writing to standard output");
    }
}

fn crossterm_width() -> Option<usize> {
    ratatui::crossterm::terminal::size().ok().map(|(width, _)| usize::from(width))
}

/// What the HTTP end points show.
struct Pages {
    snapshots: Snapshots,
    /// The threads that render pages wait for snapshots on this runtime.
    handle: Handle,
    prometheus: Option<Mutex<prometheus::Exporter>>,
}

impl Pages {
    fn new(config: &Config, host: export::Host, snapshots: Snapshots) -> Pages {
        let exporter = config.export.prometheus.enabled.then(|| {
            let duration = config.export.operation_duration_name;
            Mutex::new(prometheus::Exporter::new(config.export.prometheus.clone(), duration, host))
        });
        Pages { snapshots, handle: Handle::current(), prometheus: exporter }
    }

    fn take(&self) -> Result<Snapshot, Error> {
        self.handle.block_on(self.snapshots.take())
    }
}

impl Source for Pages {
    fn metrics(&self, accept: &str) -> Option<Page> {
        let exporter = self.prometheus.as_ref()?;
        let snapshot = self.take().ok()?;
        let format = prometheus::Format::negotiate(accept);
        let body = exporter.lock().unwrap_or_else(PoisonError::into_inner).render(&snapshot, format);
        Some(Page { content_type: format.content_type(), body })
    }

    fn status(&self, top: Option<usize>) -> Option<Status> {
        self.take().ok().map(|snapshot| Status::new(&snapshot, top))
    }

    fn dead(&self) -> Vec<String> {
        self.take().err().map(|error| error.to_string()).into_iter().collect()
    }

    fn unready(&self) -> Vec<String> {
        self.dead()
    }
}
