//! The pipeline thread: drains the ring buffer and the kernel's counters into the aggregation and answers for its state.

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
    aggregate::{self, Advice, Aggregator, Chunk, RawOutlier},
    capture::{self, Counters, Outlier, Record, RecordHeader, Ring, direction, flags, kind, segments},
    model::{self, Instance, InstanceSnapshot, Timestamp, WireState},
    wire::Direction,
};

/// Shortest pause between two looks at the ring; the longest is configured.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Bytes found at one look above which the next one comes sooner, below which later.
const BUSY_BYTES: usize = 256 << 10;
/// How often the kernel's counters are emptied at least, since its buckets hold 32 bits, and what has ended is freed.
const LOOK: Duration = Duration::from_secs(1);
/// So many times less often it is checked whether the processes of all sessions are still there.
const THOROUGH: u32 = 30;
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
    /// The executions that were seen since they were last asked for.
    Examples(oneshot::Sender<Vec<model::Record>>),
    /// The kernel should show one in so many executions that it counts; from now on those that are seen are kept.
    ShowOneIn(u32),
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
    pub(super) counters: Counters,
    pub(super) aggregator: Aggregator,
    pub(super) commands: Receiver<Command>,
    pub(super) requests: SyncSender<Request>,
    pub(super) rescan: Rescan,
    pub(super) longest_pause: Duration,
}

impl Pipeline {
    /// Runs until it is told to finish, or nobody is left who could tell it.
    pub(super) fn run(self) {
        let Pipeline { longest_pause, mut ring, counters, aggregator, commands, requests, rescan } = self;
        ring.prefer_this_thread();
        let mut state = State {
            aggregator,
            counters,
            departed: Vec::new(),
            now: Timestamp::default(),
            records: 0,
            undecodable: 0,
            looked: Instant::now(),
            looks: 0,
        };
        let mut finish: Option<oneshot::Sender<Answer>> = None;
        let mut pause = longest_pause;
        loop {
            let began = Instant::now();
            let (count, bytes) = ring.drain(BATCH, |record| {
                state.record(&record, &commands, |notice| {
                    if requests.try_send(Request::Notice(notice)).is_err() {
                        rescan.request();
                    }
                });
            });
            if ring.undecodable > 0 && state.undecodable == 0 {
                error!("records of an unknown form in the ring buffer: the eBPF programs are of another build");
            }
            state.records += count as u64;
            state.undecodable = ring.undecodable;
            if count == 0
                && let Some(reply) = finish.take()
            {
                state.take();
                state.aggregator.settle(true);
                // Whoever asked may have gone away meanwhile.
                let _ = reply.send(state.answer());
                return;
            }
            if state.looked.elapsed() >= LOOK {
                state.look();
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
    counters: Counters,
    /// Servers that are gone, with their last numbers.
    departed: Vec<(Instant, InstanceSnapshot)>,
    /// The newest record's time.
    now: Timestamp,
    records: u64,
    undecodable: u64,
    /// When what is done once in a while was done.
    looked: Instant,
    /// How often.
    looks: u32,
}

impl State {
    fn record(&mut self, record: &Record<'_>, commands: &Receiver<Command>, mut notify: impl FnMut(Notice)) {
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
                let chunk = chunk(header);
                match header.kind {
                    kind::ELIDED => self.aggregator.data(&chunk, segments(record.payload)),
                    _ => self.aggregator.data(&chunk, [(record.payload, header.true_len as usize)]),
                }
                self.heed(notify);
            }
            kind::OUTLIER => {
                if let Some(outlier) = Outlier::read(record.payload) {
                    let raw = RawOutlier {
                        conn: header.conn,
                        process: header.tgid,
                        group: header.group,
                        hash: header.hash,
                        begin: Timestamp(outlier.begin),
                        end: Timestamp(outlier.end),
                        ending: capture::ending(&outlier, self.aggregator.is_postgresql(header.target)),
                        rows: outlier.rows_sent + outlier.rows_affected,
                    };
                    self.aggregator.outlier(header.target, &raw);
                }
            }
            kind::CLOSE => {
                self.aggregator.close(header.conn, self.now, header.flags & flags::COUNTED != 0);
                self.counters.end(header.session, header.conn);
            }
            kind::EXIT => {
                if let Some((conn, session)) = self.aggregator.exit(header.tgid, self.now) {
                    self.counters.end(session, conn);
                }
                notify(Notice::Ended(header.tgid));
            }
            _ => notify(Notice::Started(header.tgid)),
        }
    }

    /// Does what the aggregation advises.
    fn heed(&mut self, mut notify: impl FnMut(Notice)) {
        for advice in self.aggregator.advice() {
            match advice {
                Advice::SeekBoundary(slot) => notify(Notice::Encrypted(slot)),
                Advice::Instruct { row, hash, policy } => self.counters.instruct(row, hash, policy),
                Advice::Name { name, hash } => self.counters.name(name, hash),
                Advice::Regroup { session, conn, group } => self.counters.regroup(session, conn, group),
            }
        }
    }

    /// Empties the kernel's counters.
    fn take(&mut self) {
        // Two borrows: what is counted goes to the aggregation, which also knows the engines.
        let State { aggregator, counters, .. } = self;
        let aggregator = std::cell::RefCell::new(aggregator);
        counters
            .take(|slot| aggregator.borrow().is_postgresql(slot), |counted| aggregator.borrow_mut().counted(counted));
    }

    /// What is done once in a while.
    fn look(&mut self) {
        self.take();
        self.aggregator.settle(false);
        self.counters.sweep(self.looks.is_multiple_of(THOROUGH), |_| false);
        self.looks = self.looks.wrapping_add(1);
        self.looked = Instant::now();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add { slot, instance, wire } => self.aggregator.add(slot, instance, wire),
            Command::Update { slot, instance } => self.aggregator.update(slot, instance),
            Command::Serves { process, user, database } => self.aggregator.serves(process, user, database),
            Command::Rewire { slot, wire } => {
                self.aggregator.rewire(slot, wire);
                self.counters.sweep(false, |session| session.slot == slot);
            }
            Command::Remove { slot } => {
                self.take();
                self.aggregator.settle(false);
                self.counters.sweep(false, |session| session.slot == slot);
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
            Command::Reconcile { slot, open } => {
                self.aggregator.reconcile(slot, &open, self.now);
                self.counters.sweep(false, |session| session.slot == slot && !open.contains(&session.conn));
            }
            Command::Examples(reply) => {
                // Whoever asked may have gone away meanwhile.
                let _ = reply.send(self.aggregator.take_examples());
            }
            Command::ShowOneIn(one_in) => {
                // What is on its way still stands for as many as before; that is some milliseconds.
                self.aggregator.keep_examples(one_in);
                if let Err(error) = self.counters.sample(one_in) {
                    error!(%error, "the kernel shows as many executions as before");
                }
            }
            Command::Snapshot(reply) | Command::Finish(reply) => {
                self.take();
                self.aggregator.resolve();
                // Whoever asked may have gone away meanwhile.
                let _ = reply.send(self.answer());
            }
        }
    }

    fn answer(&mut self) -> Answer {
        let sessions = self.counters.sessions();
        let followed: Vec<_> = sessions.iter().map(|session| (session.slot, session.conn, session.state)).collect();
        let mut instances = self.aggregator.snapshot(&followed);
        instances.extend(self.departed.iter().map(|(_, snapshot)| snapshot.clone()));
        Answer { instances, records: self.records, undecodable: self.undecodable }
    }
}

fn chunk(header: &RecordHeader) -> Chunk {
    let request = match header.flags {
        flags if flags & flags::KEYED != 0 => Some(aggregate::Request::Executes { hash: header.hash, row: header.row }),
        flags if flags & flags::NAMELESS != 0 => Some(aggregate::Request::Nameless { name: header.hash }),
        _ if header.hash != 0 => Some(aggregate::Request::Prepares { hash: header.hash }),
        _ => None,
    };
    Chunk {
        slot: header.target,
        conn: header.conn,
        process: header.tgid,
        family: header.family,
        direction: match header.direction {
            direction::REQUEST => Direction::Request,
            _ => Direction::Response,
        },
        at: Timestamp(header.at),
        seq: header.seq,
        session: header.session,
        group: header.group,
        counted: header.flags & flags::COUNTED != 0,
        sampled: header.flags & flags::SAMPLED != 0,
        request,
    }
}
