//! Everything that talks to the outside: processors, end points, exporters. Made anew when the configuration changes, while the stages go on.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tracing::{error, info};

use super::{
    ExportLosses, Snapshots,
    exit::{Deliverer, Feeder, Orders, Store},
    keeping::Keeping,
    pages::Pages,
    service::{ServiceError, ticks},
    signals::{ExitState, Outlet, Signals, States, WAITING, WORDS},
};
use crate::{
    config::Config,
    export::{
        self,
        console::{self, Format},
        file, otlp,
    },
    health::{Status, http::Server},
    model::{Outgoing, Snapshot},
    processors::breaker::Gate,
};

/// What outlives a change of the configuration.
pub(super) struct Lasting {
    pub(super) snapshots: Snapshots,
    pub(super) gate: Gate,
    pub(super) keeping: Keeping,
    /// What the processors have learnt.
    pub(super) states: States,
    /// What waits, by the name of its receiver.
    pub(super) stores: BTreeMap<String, Store>,
}

/// What can fail, done before anything is started: the HTTP address, certificates, headers.
pub(super) struct Prepared {
    config: Config,
    host: export::Host,
    server: Option<Server>,
    receivers: Vec<(otlp::Encoder, otlp::Sender)>,
}

impl Prepared {
    /// Takes the address and reads what the exporters need.
    pub(super) async fn new(config: &Config) -> Result<Prepared, ServiceError> {
        let server = match config.health.enabled {
            true => Some(Server::bind(&config.health).await?),
            false => None,
        };
        let host = export::Host::detect(&config.export);
        let duration = config.export.operation_duration_name;
        let receivers = config.export.otlp.iter().enumerate().map(|(index, otlp)| {
            otlp::receiver(otlp, duration, host.clone()).map_err(|error| ServiceError::Otlp { index, error })
        });
        let receivers = receivers.collect::<Result<_, _>>()?;
        Ok(Prepared { config: config.clone(), host, server, receivers })
    }

    /// Starts the tasks.
    pub(super) fn start(self, lasting: &mut Lasting) -> Result<Outside, ServiceError> {
        let Prepared { config, host, server, receivers } = self;
        let (stop, stopped) = watch::channel(());
        let (last, last_snapshot) = watch::channel(None::<Arc<Snapshot>>);
        let (fed, feeders_done) = watch::channel(());
        let (words, heard) = mpsc::channel(WORDS);
        let mut tasks = JoinSet::new();
        let snapshots = &lasting.snapshots;
        if let Some(server) = server {
            let address = server.address().map_err(|error| ServiceError::System {
                what: "asking for the address of the HTTP end points",
                error,
            })?;
            info!(%address, "serving /metrics, /status and /health");
            let pages = Pages::new(&config, host, snapshots.clone());
            tasks.spawn(server.run(Arc::new(pages), until(stopped.clone())));
        }
        if let Some(console) = config.export.console.clone() {
            tasks.spawn(print(console, snapshots.clone(), last_snapshot.clone()));
        }
        let mut outlets = Vec::new();
        let mut stores = BTreeMap::new();
        let mut feeders = JoinSet::new();
        for (receiver, ((encoder, sender), otlp)) in receivers.into_iter().zip(&config.export.otlp).enumerate() {
            let name = otlp.name();
            let folder = config.state.directory.join("spool").join(&name);
            let store = stores.get(&name).or_else(|| lasting.stores.get(&name)).cloned();
            let store = store.unwrap_or_else(|| Store::open(Some(&folder), &config.export.spool));
            stores.insert(name, store.clone());
            let (records, waiting) = mpsc::channel(WAITING);
            let (orders, ordered) = watch::channel(Orders::default());
            let (state, seen) = watch::channel(ExitState::default());
            outlets.push(Outlet { records, state: Some(seen), orders: Some(orders) });
            let feeder = Feeder {
                every: otlp.interval.0,
                encoder,
                store: store.clone(),
                snapshots: snapshots.clone(),
                records: waiting,
                words: words.clone(),
                orders: ordered.clone(),
                state: state.clone(),
                failing: false,
                told: BTreeMap::new(),
            };
            feeders.spawn(feeder.run(last_snapshot.clone()));
            let (exported, orders) = (snapshots.exported.clone(), ordered);
            let deliverer = Deliverer { receiver, sender, store, exported, words: words.clone(), orders, state };
            tasks.spawn(deliverer.run(feeders_done.clone()));
        }
        if let Some(file) = &config.export.file {
            let (records, waiting) = mpsc::channel(WAITING);
            outlets.push(Outlet { records, state: None, orders: None });
            feeders.spawn(write_records(file::Exporter::new(file), waiting, snapshots.exported.clone()));
        }
        lasting.stores = stores;
        let one_in = config.capture.record_one_in;
        snapshots.show_one_in(one_in);
        let signals = Signals::new(
            &config.processors,
            lasting.gate.clone(),
            one_in,
            snapshots.clone(),
            lasting.keeping.clone(),
            (outlets, heard),
            std::mem::take(&mut lasting.states),
        );
        let (end_signals, signals_stopped) = watch::channel(());
        let signals = tokio::spawn(signals.run(signals_stopped));
        Ok(Outside { stop, last, fed, end_signals, signals, feeders, tasks })
    }
}

/// The running tasks.
pub(super) struct Outside {
    stop: watch::Sender<()>,
    last: watch::Sender<Option<Arc<Snapshot>>>,
    fed: watch::Sender<()>,
    end_signals: watch::Sender<()>,
    signals: JoinHandle<States>,
    feeders: JoinSet<()>,
    tasks: JoinSet<()>,
}

impl Outside {
    /// Ends the processors, while the stages still run; gives what they have learnt.
    pub(super) async fn end_processors(&mut self) -> States {
        self.end_signals.send_replace(());
        (&mut self.signals).await.unwrap_or_else(|error| {
            error!(%error, "the processors failed");
            States::new()
        })
    }

    /// Exports `last`, if the stages have ended, and what waits; then ends everything.
    pub(super) async fn end(mut self, last: Option<Snapshot>) {
        match last {
            Some(snapshot) => {
                self.last.send_replace(Some(Arc::new(snapshot)));
            }
            None => drop(self.last),
        }
        join(&mut self.feeders).await;
        drop(self.fed);
        drop(self.stop);
        join(&mut self.tasks).await;
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a task of the agent failed");
        }
    }
}

async fn until(mut stopped: watch::Receiver<()>) {
    // Nothing is ever sent: the sender's end is the signal.
    while stopped.changed().await.is_ok() {}
}

/// Writes until the processors have ended.
async fn write_records(mut file: file::Exporter, mut records: mpsc::Receiver<Arc<Outgoing>>, exported: ExportLosses) {
    let mut failing = false;
    while let Some(outgoing) = records.recv().await {
        match file.write(&outgoing) {
            Ok(()) if failing => {
                failing = false;
                info!("the file takes records again");
            }
            Ok(()) => {}
            Err(error) => {
                exported.add([("file_failed", (outgoing.records.len() + outgoing.notices.len()) as u64)]);
                if !std::mem::replace(&mut failing, true) {
                    error!(%error, "records cannot be written (config key `export.file.path`)");
                }
            }
        }
    }
}

async fn print(config: console::Config, snapshots: Snapshots, mut last: watch::Receiver<Option<Arc<Snapshot>>>) {
    let mut ticks = ticks(config.interval.0);
    loop {
        tokio::select! {
            // The last one first: at the end, a tick would ask stages that are gone.
            biased;
            _ = last.changed() => {
                if let Some(snapshot) = &*last.borrow_and_update() {
                    write(&config, snapshot);
                }
                return;
            }
            _ = ticks.tick() => match snapshots.take().await {
                Ok(snapshot) => write(&config, &snapshot),
                Err(error) => error!(%error, "no snapshot to export"),
            },
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
