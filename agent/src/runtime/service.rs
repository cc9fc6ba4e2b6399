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
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info};

use super::{Error, Runtime, Snapshots};
use crate::{
    config::Config,
    export::{
        self,
        console::{self, Format},
        prometheus,
    },
    health::{
        Status,
        http::{BindError, Page, Server, Source},
    },
    model::Snapshot,
};

/// Why the service ended or did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The stages.
    #[error(transparent)]
    Runtime(#[from] Error),
    /// The HTTP end points.
    #[error(transparent)]
    Bind(#[from] BindError),
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
    let runtime = Runtime::start(config)?;
    let snapshots = runtime.snapshots();
    let (stop, stopped) = watch::channel(());
    let mut tasks = JoinSet::new();
    if let Some(server) = server {
        let address = server.address().map_err(system("asking for the address of the HTTP end points"))?;
        info!(%address, "serving /metrics, /status and /health");
        let pages = Pages::new(config, snapshots.clone());
        tasks.spawn(server.run(Arc::new(pages), until(stopped.clone())));
    }
    let (last, last_snapshot) = watch::channel(None::<Arc<Snapshot>>);
    if let Some(console) = config.export.console.clone() {
        tasks.spawn(print(console, snapshots.clone(), last_snapshot.clone()));
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
    let runtime = Runtime::start(config)?;
    let snapshots = runtime.snapshots();
    let (sender, receiver) = watch::channel(Arc::new(snapshots.take().await?));
    let feeder = tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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

/// Prints a snapshot each interval, and the last one.
async fn print(config: console::Config, snapshots: Snapshots, mut last: watch::Receiver<Option<Arc<Snapshot>>>) {
    let mut ticks = interval(config.interval.0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let snapshot = tokio::select! {
            _ = ticks.tick() => match snapshots.take().await {
                Ok(snapshot) => Arc::new(snapshot),
                Err(error) => {
                    error!(%error, "no snapshot for the console");
                    continue;
                }
            },
            _ = last.changed() => match last.borrow_and_update().clone() {
                Some(snapshot) => {
                    write(&config, &snapshot);
                    return;
                }
                None => return,
            },
        };
        write(&config, &snapshot);
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
    fn new(config: &Config, snapshots: Snapshots) -> Pages {
        let host = export::Host::detect(&config.export);
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
