//! The only threads, channels, clock and signals: wires the stages and takes them apart again.
//!
//! Two threads of their own do the work that must not wait for anything else: the *pipeline* (ring buffer → machines → statistics)
//! and the *servers* thread (processes → servers → hooks). Everything that talks to the outside lives on the tokio runtime and asks
//! them for snapshots.

mod admin;
mod chains;
mod clock;
mod collect;
mod exit;
mod gate;
mod intervals;
mod keeping;
mod outside;
mod pages;
mod pipeline;
mod servers;
pub mod service;
mod signals;
pub mod survey;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, SyncSender},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use crate::{
    aggregate::Aggregator,
    capture::{self, Control, Features},
    config::Config,
    discovery::Discovery,
    health::cost::Cost,
    model::{Activity, AgentStats, Instance, Record, Snapshot},
    processors::breaker,
};
use collect::Collection;
use pipeline::{Answer, Command, Pipeline};
use servers::{Costs, Request, Servers};
use signals::Board;

/// Commands and requests that may wait. Beyond them a notice of the pipeline is replaced by a full scan of the process table.
const QUEUE: usize = 4096;
/// How long the threads may take to answer before the agent is called stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Asks for a full scan of the process table, because events were lost.
#[derive(Clone, Default)]
struct Rescan(Arc<AtomicBool>);

impl Rescan {
    fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What exporters lost, by cause, all of them together.
#[derive(Clone, Default)]
struct ExportLosses(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl ExportLosses {
    fn add(&self, losses: impl IntoIterator<Item = (&'static str, u64)>) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        losses.into_iter().for_each(|(cause, count)| *sums.entry(cause).or_default() += count);
    }

    fn get(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can be captured here.
    #[error("cannot observe this host: {0}")]
    Capture(#[from] capture::Error),
    /// A thread could not be started.
    #[error("starting a thread: {0}")]
    Thread(#[from] io::Error),
    /// A thread does not answer.
    #[error("the {0} thread does not answer; this is a defect in the agent, its log tells more")]
    Stuck(&'static str),
}

/// The running stages.
pub struct Runtime {
    start: SystemTime,
    features: Features,
    exported: ExportLosses,
    board: Board,
    commands: SyncSender<Command>,
    requests: SyncSender<Request>,
    collection: Option<Collection>,
    pipeline: JoinHandle<()>,
    servers: JoinHandle<()>,
}

/// Takes snapshots; cheap to clone.
#[derive(Clone)]
pub struct Snapshots {
    start: SystemTime,
    features: Features,
    exported: ExportLosses,
    board: Board,
    commands: SyncSender<Command>,
    requests: SyncSender<Request>,
    collection: Option<Collection>,
}

impl Runtime {
    /// Loads the programs and starts the threads. Servers that run already are found within the first moments; where `gate` lets them be asked, they are,
    /// unless the configuration wants none asked.
    pub fn start(config: &Config, gate: Option<&breaker::Gate>) -> Result<Runtime, Error> {
        let gate = gate.filter(|_| config.collect.enabled);
        let collection = gate.map(|gate| Collection::new(config, gate.clone()));
        let (control, ring, counters) = Control::open(&config.capture).map_err(|refused| refused.error)?;
        let features = control.features().clone();
        let rescan = Rescan::default();
        let (commands, command_queue) = mpsc::sync_channel(QUEUE);
        let (requests, request_queue) = mpsc::sync_channel(QUEUE);
        let pipeline = Pipeline {
            ring,
            counters,
            aggregator: Aggregator::new(config.aggregate.clone(), capture::text_hash),
            commands: command_queue,
            requests: requests.clone(),
            rescan: rescan.clone(),
            longest_pause: config.capture.poll_interval.0,
        };
        let servers = Servers {
            control,
            discovery: Discovery::new(config.discovery.clone()),
            requests: request_queue,
            pipeline: commands.clone(),
            rescan,
            collection: collection.clone(),
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        Ok(Runtime {
            start: SystemTime::now(),
            features,
            exported: ExportLosses::default(),
            board: Board::default(),
            commands,
            requests,
            collection,
            pipeline: thread("ql-pipeline").spawn(move || pipeline.run())?,
            servers: thread("ql-servers").spawn(move || servers.run())?,
        })
    }

    /// A handle that takes snapshots.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots {
            start: self.start,
            features: self.features.clone(),
            exported: self.exported.clone(),
            board: self.board.clone(),
            commands: self.commands.clone(),
            requests: self.requests.clone(),
            collection: self.collection.clone(),
        }
    }

    /// Detaches all hooks, drains what the kernel has recorded and gives the last snapshot.
    pub async fn stop(self) -> Result<Snapshot, Error> {
        let snapshots = self.snapshots();
        let costs = snapshots.costs().await?;
        let collection = self.collection.as_ref();
        let mut collected = collection.map(|collection| collection.collected(&mut [])).unwrap_or_default();
        if let Some(collection) = collection {
            collection.stop();
        }
        let _ = self.requests.send(Request::Stop);
        let joined = |thread: JoinHandle<()>| tokio::task::spawn_blocking(move || thread.join());
        let _ = joined(self.servers).await;
        let answer = snapshots.ask(Command::Finish).await?;
        let _ = joined(self.pipeline).await;
        let mut snapshot = snapshots.assemble(answer, costs);
        collect::join(&mut snapshot.instances, &mut collected);
        Ok(Snapshot { collected, ..snapshot })
    }
}

impl Snapshots {
    /// Everything at this moment.
    pub async fn take(&self) -> Result<Snapshot, Error> {
        let costs = self.costs().await?;
        let answer = self.ask(Command::Snapshot).await?;
        Ok(self.assemble(answer, costs))
    }

    /// The executions that were seen since they were last asked for.
    async fn examples(&self) -> Result<Vec<Record>, Error> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.try_send(Command::Examples(reply)).is_ok();
        in_time(sent, answer).await.ok_or(Error::Stuck("pipeline"))
    }

    /// The latest look at who waits for whom, by server; empty where no server is asked.
    fn blocking(&self) -> Vec<(Arc<Instance>, Arc<Activity>)> {
        self.collection.as_ref().map(Collection::activity).unwrap_or_default()
    }

    /// The kernel should show one in so many executions that it counts. A full queue costs the change, not more: it is asked for again.
    fn show_one_in(&self, one_in: u32) {
        if self.commands.try_send(Command::ShowOneIn(one_in)).is_err() {
            tracing::warn!(one_in, "the pipeline is busy: the kernel shows as many executions as before");
        }
    }

    async fn ask(&self, command: fn(oneshot::Sender<Answer>) -> Command) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.try_send(command(reply)).is_ok();
        in_time(sent, answer).await.ok_or(Error::Stuck("pipeline"))
    }

    async fn costs(&self) -> Result<Costs, Error> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.try_send(Request::Costs(reply)).is_ok();
        in_time(sent, answer).await.ok_or(Error::Stuck("servers"))
    }

    fn assemble(&self, answer: Answer, costs: Costs) -> Snapshot {
        let mut losses = costs.losses;
        losses.insert("undecodable", answer.undecodable);
        losses.extend(self.exported.get());
        losses.extend(self.collection.iter().map(|collection| ("circuits_forgotten", collection.circuits_forgotten())));
        let mut agent =
            AgentStats { program_time: costs.program_time, records: answer.records, losses, ..AgentStats::default() };
        match Cost::read() {
            Ok(cost) => cost.store(&mut agent),
            Err(error) => tracing::warn!(%error, "the agent's own cost could not be read"),
        }
        let mut instances = answer.instances;
        let collection = self.collection.as_ref();
        let collected = collection.map(|collection| collection.collected(&mut instances)).unwrap_or_default();
        Snapshot {
            at: SystemTime::now(),
            start: self.start,
            instances,
            collected,
            agent,
            features: self.features.rows().map(|(name, verdict)| (name, verdict.clone())).to_vec(),
            measured: self.board.read(),
        }
    }
}

async fn in_time<T>(sent: bool, answer: oneshot::Receiver<T>) -> Option<T> {
    match sent {
        true => tokio::time::timeout(ANSWER_LIMIT, answer).await.ok()?.ok(),
        false => None,
    }
}
