//! An OTLP receiver as an exit: what is to be told goes into its spool, and from there to the receiver as fast as that takes it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{error, info, warn};

use super::{
    ExportLosses, Snapshots, service,
    signals::{ExitState, Word},
};
use crate::{
    export::{
        otlp::{Encoder, Payload, Report, Sender, Signal},
        spool::{self, Priority, Spool},
    },
    model::{Outgoing, Snapshot},
};

/// How long the request that is on its way at the end may take, and then once more the delivery of the rest: the agent ends within ten seconds.
const LAST_DELIVERY: Duration = Duration::from_secs(4);
/// Requests that are taken out of the spool at once, and bytes from which on no more are.
const TAKEN: usize = 64;
const TAKEN_BYTES: usize = 8 << 20;
/// Pause after a failure of the receiver, beside those within the attempt itself, and of the disk.
const PAUSE: Duration = Duration::from_secs(1);

/// What an exit should do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Orders {
    /// Send nothing until then.
    pub(super) pause_until: Option<Instant>,
    /// Send nothing until the configuration has changed.
    pub(super) stopped: bool,
    /// Make no larger requests.
    pub(super) max_request_bytes: Option<usize>,
}

/// A spool and the word that something was put in; shared by who fills and who empties it, and kept when the exits are made anew.
#[derive(Clone, Debug)]
pub(super) struct Store {
    spool: Arc<Mutex<Spool>>,
    filled: Arc<Notify>,
}

impl Store {
    /// The spool in `folder`, or one in memory where that cannot be used or is not wanted.
    pub(super) fn open(folder: Option<&Path>, config: &spool::Config) -> Store {
        let on_disk = folder.filter(|_| config.enabled).and_then(|folder| match Spool::open(folder, config) {
            Ok(spool) => Some(spool),
            Err(error) => {
                warn!(folder = %folder.display(), %error, "what waits for this receiver is kept in memory alone");
                None
            }
        });
        let spool = on_disk.unwrap_or_else(|| Spool::memory(config));
        Store { spool: Arc::new(Mutex::new(spool)), filled: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts into the spool what is to be told.
pub(super) struct Feeder {
    pub(super) every: Duration,
    pub(super) encoder: Encoder,
    pub(super) store: Store,
    pub(super) snapshots: Snapshots,
    pub(super) records: mpsc::Receiver<Arc<Outgoing>>,
    pub(super) words: mpsc::Sender<Word>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) state: watch::Sender<ExitState>,
    /// The disk takes nothing; told once.
    pub(super) failing: bool,
    pub(super) told: BTreeMap<&'static str, u64>,
}

impl Feeder {
    /// Runs until there is a last snapshot, and takes what the processors sent before their end.
    pub(super) async fn run(mut self, mut last: watch::Receiver<Option<Arc<Snapshot>>>) {
        let mut ticks = service::ticks(self.every);
        loop {
            tokio::select! {
                biased;
                // The last one first: at the end, a tick would ask stages that are gone.
                changed = last.changed() => {
                    let snapshot = last.borrow_and_update().clone();
                    if let (Ok(()), Some(snapshot)) = (changed, snapshot) {
                        self.metrics(&snapshot);
                    }
                    break;
                }
                Some(outgoing) = self.records.recv() => self.records(&outgoing),
                _ = ticks.tick() => match self.snapshots.take().await {
                    Ok(snapshot) => self.metrics(&snapshot),
                    Err(error) => error!(%error, "no snapshot to export"),
                },
            }
        }
        while let Some(outgoing) = self.records.recv().await {
            self.records(&outgoing);
        }
    }

    fn metrics(&mut self, snapshot: &Snapshot) {
        self.limit();
        let (payloads, encoded) = self.encoder.metrics(snapshot);
        let _ = self.words.try_send(Word::Encoded(encoded));
        self.put(payloads);
    }

    fn records(&mut self, outgoing: &Outgoing) {
        self.limit();
        let (payloads, encoded) = self.encoder.records(outgoing);
        let _ = self.words.try_send(Word::Encoded(encoded));
        self.put(payloads);
    }

    fn limit(&mut self) {
        if let Some(bytes) = self.orders.borrow().max_request_bytes {
            self.encoder.limit(bytes);
        }
    }

    fn put(&mut self, payloads: Vec<Payload>) {
        if payloads.is_empty() {
            return;
        }
        let mut spool = self.store.lock();
        let mut failure = None;
        for payload in payloads {
            let priority = if payload.signal == Signal::Metrics { Priority::Exact } else { Priority::Example };
            failure = spool.push(priority, payload.to_bytes()).err().or(failure);
        }
        let (fill, losses) = (spool.fill(), spool.losses());
        drop(spool);
        let failed = failure.is_some();
        match failure {
            Some(error) if !self.failing => error!(%error, "the disk takes nothing: what waits is kept in memory"),
            None if self.failing => info!("the disk takes what waits again"),
            _ => {}
        }
        self.failing = failed;
        self.state.send_modify(|state| state.fill = fill);
        for (cause, count) in losses {
            let told = self.told.entry(cause).or_default();
            if count > *told {
                error!(cause, requests = count - *told, "requests that waited were lost");
                self.snapshots.exported.add([(cause, count - *told)]);
                *told = count;
            }
        }
        self.store.filled.notify_one();
    }
}

/// Brings to the receiver what waits in the spool.
pub(super) struct Deliverer {
    pub(super) receiver: usize,
    pub(super) sender: Sender,
    pub(super) store: Store,
    pub(super) exported: ExportLosses,
    pub(super) words: mpsc::Sender<Word>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) state: watch::Sender<ExitState>,
}

impl Deliverer {
    /// Runs until the `feeder` has ended, and tries for a short time to deliver the rest.
    pub(super) async fn run(mut self, mut feeder: watch::Receiver<()>) {
        let mut waiting = false;
        loop {
            // Nothing is ever sent: the sender's end is the signal.
            tokio::select! {
                biased;
                _ = feeder.changed() => break,
                () = self.ready(waiting) => {}
            }
            // What is on its way is not cut off: the receiver might have taken it, and would get it twice.
            let mut step = std::pin::pin!(self.step());
            tokio::select! {
                biased;
                more = &mut step => waiting = !more,
                _ = feeder.changed() => {
                    let _ = timeout(LAST_DELIVERY, step).await;
                    break;
                }
            }
        }
        let _ = timeout(LAST_DELIVERY, self.empty()).await;
        self.report_left();
    }

    /// Until nothing waits, or the receiver takes no more.
    async fn empty(&mut self) {
        while !self.held_back() && self.step().await {}
    }

    /// Says what a receiver that is away has not got.
    fn report_left(&self) {
        let left = self.store.lock().take(TAKEN, TAKEN_BYTES).ok().flatten();
        match left {
            None => {}
            Some(left) if left.on_disk() => {
                info!(receiver = self.receiver, "what the receiver has not got waits on disk for the next start");
            }
            Some(_) => error!(
                receiver = self.receiver,
                "the last export did not end within {LAST_DELIVERY:?}: what was counted since the one before is lost"
            ),
        }
    }

    /// Waits until something may be sent; `waiting`: there was nothing to send, or the receiver did not take it.
    async fn ready(&mut self, waiting: bool) {
        let Orders { pause_until, stopped, .. } = *self.orders.borrow_and_update();
        if stopped {
            // Only a new configuration helps.
            return std::future::pending().await;
        }
        if let Some(until) = pause_until.filter(|until| *until > Instant::now()) {
            return sleep_until(until).await;
        }
        let down = self.state.borrow().down;
        match waiting {
            false => {}
            true if down => sleep(PAUSE).await,
            true => self.store.filled.notified().await,
        }
    }

    fn held_back(&self) -> bool {
        let orders = *self.orders.borrow();
        orders.stopped || orders.pause_until.is_some_and(|until| until > Instant::now())
    }

    /// Sends what waits, as much as goes at once. False if nothing waits or the receiver is away.
    async fn step(&mut self) -> bool {
        let taken = match self.store.lock().take(TAKEN, TAKEN_BYTES) {
            Ok(taken) => taken,
            Err(error) => {
                error!(%error, "what waits on disk cannot be read");
                None
            }
        };
        let Some(taken) = taken else { return false };
        let payloads: Vec<Option<Payload>> = taken.entries.iter().map(|entry| Payload::from_bytes(entry)).collect();
        let unreadable = payloads.iter().filter(|payload| payload.is_none()).count() as u64;
        // What another version wrote in another form cannot be sent by this one.
        let whole: Vec<Payload> = payloads.iter().flatten().cloned().collect();
        let report = self.sender.send(&whole).await;
        let all = report.settled == whole.len();
        let settled = match all {
            true => payloads.len(),
            false => nth_present(&payloads, report.settled),
        };
        if all && unreadable > 0 {
            error!(requests = unreadable, "requests that waited are of another version and were lost");
            self.exported.add([("spool_unreadable", unreadable)]);
        }
        if let Err(error) = self.store.lock().settle(&taken, settled) {
            error!(%error, "what was delivered may be delivered again after a restart");
        }
        let away = report.away;
        self.report(report);
        !away
    }

    fn report(&mut self, report: Report) {
        report.warnings.iter().for_each(|warning| warn!("{warning}"));
        let before = self.state.borrow().down;
        let down = report.away;
        // A receiver that is away is told when it goes and when it comes.
        if !down || !before {
            report.errors.iter().for_each(|error| error!("{error}"));
        }
        if before && !down {
            info!(receiver = self.receiver, "the receiver takes what waited");
        }
        self.state.send_if_modified(|state| std::mem::replace(&mut state.down, down) != down);
        self.exported.add(report.stats.losses());
        for answer in report.answers {
            let _ = self.words.try_send(Word::Answered { receiver: self.receiver, answer });
        }
    }
}

/// Place of the present payload number `count`: before it, all are settled.
fn nth_present(payloads: &[Option<Payload>], count: usize) -> usize {
    let present = payloads.iter().enumerate().filter(|(_, payload)| payload.is_some());
    present.map(|(at, _)| at).nth(count).unwrap_or(payloads.len())
}
