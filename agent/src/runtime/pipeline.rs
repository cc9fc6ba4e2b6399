//! The pipeline thread: drains the ring buffer into the aggregation and answers for its state.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use hashbrown::HashSet;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{Rescan, servers::Request};
use crate::{
    aggregate::{Advice, Aggregator, Chunk},
    capture::{Record, Ring, direction, kind, segments},
    model::{Instance, InstanceSnapshot, Timestamp, WireState},
    wire::Direction,
};

/// Shortest pause between two looks at the ring; the longest is configured.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Bytes found at one look above which the next one comes sooner, below which later.
const BUSY_BYTES: usize = 256 << 10;
/// Records handled between two looks at the commands.
const BATCH: usize = 16_384;
/// How long a server that is gone stays in snapshots, so that its last numbers are exported.
const LINGER: Duration = Duration::from_secs(60);
/// Bound on servers that are gone and still in snapshots, for one that is restarted in a loop; the oldest makes room, and the log says so.
const MAX_DEPARTED: usize = 32;

/// What other threads ask of the pipeline.
pub(super) enum Command {
    /// A server's records will come under this slot.
    Add { slot: u32, instance: Arc<Instance>, wire: WireState },
    /// What is known of a server has changed.
    Update { slot: u32, instance: Arc<Instance> },
    /// Whose session a process serves, in case its connection is older than the agent.
    Serves { process: u32, user: Arc<str>, database: Arc<str> },
    /// Another strategy captures a server from now on.
    Rewire { slot: u32, wire: WireState },
    /// A server is gone.
    Remove { slot: u32 },
    /// The sockets that a server has open now.
    Reconcile { slot: u32, open: HashSet<u64> },
    /// The servers at this moment.
    Snapshot(oneshot::Sender<Answer>),
    /// Drain what is in the ring, answer like [`Command::Snapshot`], end.
    Finish(oneshot::Sender<Answer>),
}

/// Answer to [`Command::Snapshot`].
pub(super) struct Answer {
    pub(super) instances: Vec<InstanceSnapshot>,
    /// Records read so far.
    pub(super) records: u64,
    /// Records that could not be decoded.
    pub(super) undecodable: u64,
}

/// What the pipeline tells the servers thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice {
    /// A process runs another executable.
    Started(u32),
    /// A process of a watched server ended.
    Ended(u32),
    /// A server has encrypted sessions.
    Encrypted(u32),
}

pub(super) struct Pipeline {
    pub(super) ring: Ring,
    pub(super) aggregator: Aggregator,
    pub(super) commands: Receiver<Command>,
    pub(super) requests: SyncSender<Request>,
    pub(super) rescan: Rescan,
    pub(super) longest_pause: Duration,
}

impl Pipeline {
    /// Runs until it is told to finish, or nobody is left who could tell it.
    pub(super) fn run(self) {
        let Pipeline { longest_pause, mut ring, aggregator, commands, requests, rescan } = self;
        ring.prefer_this_thread();
        let mut state =
            State { aggregator, departed: Vec::new(), now: Timestamp::default(), records: 0, undecodable: 0 };
        let mut finish: Option<oneshot::Sender<Answer>> = None;
        let mut pause = longest_pause;
        loop {
            let began = Instant::now();
            let (count, bytes) = ring.drain(BATCH, |record| {
                let notice = state.record(&record, &commands);
                if let Some(notice) = notice
                    && requests.try_send(Request::Notice(notice)).is_err()
                {
                    rescan.request();
                }
            });
            if ring.undecodable > 0 && state.undecodable == 0 {
                error!("records of an unknown form in the ring buffer: the eBPF programs are of another build");
            }
            state.records += count as u64;
            state.undecodable = ring.undecodable;
            if count == 0
                && let Some(reply) = finish.take()
            {
                // Whoever asked may have gone away meanwhile.
                let _ = reply.send(state.answer());
                return;
            }
            pause = match bytes {
                0 => longest_pause.min(pause * 2),
                bytes if bytes > BUSY_BYTES => SHORTEST_PAUSE.max(pause / 2),
                _ => pause,
            };
            // A full batch means that more is waiting.
            let wanted = if count == BATCH || finish.is_some() { Duration::ZERO } else { pause };
            let wait = ring.rest(began.elapsed(), wanted);
            match commands.recv_timeout(wait) {
                Ok(Command::Finish(reply)) => finish = Some(reply),
                Ok(command) => state.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if finish.is_none() => return,
                Err(RecvTimeoutError::Disconnected) => {}
            }
            state.departed.retain(|(since, _)| since.elapsed() < LINGER);
        }
    }
}

struct State {
    aggregator: Aggregator,
    /// Servers that are gone, with their last numbers.
    departed: Vec<(Instant, InstanceSnapshot)>,
    /// The newest record's time.
    now: Timestamp,
    records: u64,
    undecodable: u64,
}

impl State {
    fn record(&mut self, record: &Record<'_>, commands: &Receiver<Command>) -> Option<Notice> {
        let header = &record.header;
        self.now = Timestamp(header.at);
        match header.kind {
            kind::DATA | kind::ELIDED => {
                // A server's slot is announced before its first record, but possibly after the last look at the commands.
                if !self.aggregator.knows(header.target) {
                    while let Ok(command) = commands.try_recv() {
                        self.obey(command);
                    }
                }
                let chunk = Chunk {
                    slot: header.target,
                    conn: header.conn,
                    process: header.tgid,
                    family: header.family,
                    direction: match header.direction {
                        direction::REQUEST => Direction::Request,
                        _ => Direction::Response,
                    },
                    at: self.now,
                    seq: header.seq,
                };
                let advice = match header.kind {
                    kind::ELIDED => self.aggregator.data(&chunk, segments(record.payload)),
                    _ => self.aggregator.data(&chunk, [(record.payload, header.true_len as usize)]),
                };
                advice.map(|Advice::SeekBoundary(slot)| Notice::Encrypted(slot))
            }
            kind::CLOSE => {
                self.aggregator.close(header.conn, self.now);
                None
            }
            kind::EXIT => {
                self.aggregator.exit(header.tgid, self.now);
                Some(Notice::Ended(header.tgid))
            }
            _ => Some(Notice::Started(header.tgid)),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add { slot, instance, wire } => self.aggregator.add(slot, instance, wire),
            Command::Update { slot, instance } => self.aggregator.update(slot, instance),
            Command::Serves { process, user, database } => self.aggregator.serves(process, user, database),
            Command::Rewire { slot, wire } => self.aggregator.rewire(slot, wire),
            Command::Remove { slot } => {
                if let Some(mut snapshot) = self.aggregator.remove(slot) {
                    let reason = "the server has ended".to_owned();
                    snapshot.wire = WireState { state: "gone", strategy: "none", reason };
                    if self.departed.len() == MAX_DEPARTED {
                        let (_, oldest) = self.departed.remove(0);
                        warn!(server = %oldest.instance.label(), "too many servers have ended: the last numbers of this one may not be exported");
                    }
                    self.departed.push((Instant::now(), snapshot));
                }
            }
            Command::Reconcile { slot, open } => self.aggregator.reconcile(slot, &open, self.now),
            Command::Snapshot(reply) | Command::Finish(reply) => {
                // Whoever asked may have gone away meanwhile.
                let _ = reply.send(self.answer());
            }
        }
    }

    fn answer(&self) -> Answer {
        let mut instances = self.aggregator.snapshot();
        instances.extend(self.departed.iter().map(|(_, snapshot)| snapshot.clone()));
        Answer { instances, records: self.records, undecodable: self.undecodable }
    }
}
