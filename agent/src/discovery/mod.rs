//! Finds every PostgreSQL, MySQL and MariaDB server on this host, with nothing configured.
//!
//! A server is told by the content of its executable and by the sockets it listens on, never by names or port numbers; see
//! [`Discovery`]. Nothing here connects to a server, executes a program or waits: the caller brings the kernel's events and the
//! time, and carries out what the returned [`Change`]s ask for.

mod containers;
mod executable;
mod identity;
mod inspect;
mod process;
mod sockets;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod titles;

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::titles::SessionTitle;
use self::{
    executable::FileId,
    inspect::{Finding, Inspector},
};
use crate::model::{Instance, Problem, ServerKey, Verdict};

/// After an exec, a process is looked at after this time, ...
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// ... and again this long after the exec, ...
const SECOND_LOOK: Duration = Duration::from_millis(100);
/// ... and then at this interval if it executes a server's program, ...
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// ... or at this one if its program is unknown and large.
const UNDECIDED_INTERVAL: Duration = Duration::from_millis(500);
/// How long a process that does not execute a server's program is watched; the next full scan looks at it again.
const WATCH_TIME: Duration = Duration::from_secs(60);
/// Interval at which known servers are checked, and new processes looked for where the kernel does not report them, ...
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// ... but with very many processes at this one for each: listing one costs 1 to 2 µs.
const SWEEP_INTERVAL_PER_PROCESS: Duration = Duration::from_micros(40);
/// A scan in the background looks at so many processes at once, some 10 ms of work, ...
const SCAN_PIECE: usize = 1000;
/// ... and then lets other things be done for this time.
const SCAN_PAUSE: Duration = Duration::from_millis(20);
/// How long after it was found a server may open further sockets that are to be seen soon: after at most half the time since it was found, since
/// each look at its sockets costs milliseconds.
const YOUNG_TIME: Duration = Duration::from_secs(10);
/// Bound on watched processes. At the bound further ones are left to the next full scan.
const WATCH_LIMIT: usize = 4096;
/// Bound on the list of processes that could not be looked at. At the bound further ones are only counted.
const UNSEEN_LIMIT: usize = 1024;

/// How servers are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the host's procfs is mounted.
    pub proc_root: PathBuf,
    /// Seconds between two full scans of all processes: a safety net for events that were lost.
    #[schemars(range(min = 1, max = MAX_RESCAN_SECONDS))]
    pub rescan_interval_seconds: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config { proc_root: PathBuf::from("/proc"), rescan_interval_seconds: 60 }
    }
}

/// A day: from then on it is no safety net.
const MAX_RESCAN_SECONDS: u32 = 86_400;

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let relative = (!self.proc_root.is_absolute()).then(|| Problem::new("proc_root", "must be an absolute path"));
        let rescan =
            Problem::out_of_range("rescan_interval_seconds", &self.rescan_interval_seconds, 1..=MAX_RESCAN_SECONDS);
        relative.into_iter().chain(rescan)
    }
}

/// What changed among the servers of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A server accepts connections.
    Found(Arc<Instance>),
    /// Something about a known server changed, e.g. it listens on a further socket.
    Updated(Arc<Instance>),
    /// A server's main process ended or executes something else now.
    Gone(ServerKey),
}

/// A process that may be a server, but could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// The process; `None` stands for all that are hidden.
    pub pid: Option<u32>,
    /// Name of its command, for people only; `?` if that is unreadable too.
    pub name: String,
    /// Why, and what to do.
    pub verdict: Verdict,
}

/// What was given up at a bound, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Processes left to the next full scan because too many were watched.
    pub unwatched: u64,
    /// Verdicts on executables forgotten because there were too many.
    pub executables_forgotten: u64,
    /// Processes missing in [`Discovery::unseen`] because it was full.
    pub unseen_omitted: u64,
}

/// Keeps the list of servers.
///
/// - [`scan`](Discovery::scan) looks at all processes: at start, or when events were lost. `tick` does the same now and then, in pieces.
/// - [`process_started`](Discovery::process_started) and [`process_ended`](Discovery::process_ended) take the kernel's events.
///   A server listens only some time after its exec, so it is watched until it does.
/// - [`tick`](Discovery::tick) does what is due; call it no later than [`next_tick`](Discovery::next_tick).
///
/// Where no events come, new processes are found by listing /proc at an interval that bounds the cost.
#[derive(Debug)]
pub struct Discovery {
    config: Config,
    inspector: Inspector,
    known: BTreeMap<u32, Known>,
    watched: HashMap<u32, Watched>,
    unseen: BTreeMap<u32, Unseen>,
    /// Why not all processes are listed, if so.
    hidden: Option<Unseen>,
    counters: Counters,
    /// Processes seen by the last listing, sorted.
    listed: Vec<u32>,
    /// Processes that the scan under way has yet to look at.
    unscanned: Vec<u32>,
    last_event: Option<Instant>,
    next_check: Instant,
    next_sweep: Instant,
    next_scan: Instant,
    next_piece: Instant,
}

/// A server.
#[derive(Debug)]
struct Known {
    instance: Arc<Instance>,
    executable: FileId,
    found: Instant,
    /// When it was looked at last.
    looked: Instant,
}

impl Known {
    /// Whether it is time to look for further sockets of a young server.
    fn may_open_sockets(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.found);
        age < YOUNG_TIME && now.saturating_duration_since(self.looked) >= age / 2
    }
}

/// A process that may become a server.
#[derive(Clone, Copy, Debug)]
struct Watched {
    since: Instant,
    due: Instant,
    origin: Origin,
}

/// Why a process is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The kernel reports exec: until the next report it executes what it executes now.
    Event,
    /// It was new in a listing: it may yet execute something else, as scripts that start servers do.
    Listing,
}

impl Discovery {
    /// Knows no server yet: begin with [`scan`](Discovery::scan).
    pub fn new(config: Config) -> Discovery {
        let now = Instant::now();
        Discovery {
            inspector: Inspector::new(config.proc_root.clone()),
            config,
            known: BTreeMap::new(),
            watched: HashMap::new(),
            unseen: BTreeMap::new(),
            hidden: None,
            counters: Counters::default(),
            listed: Vec::new(),
            unscanned: Vec::new(),
            last_event: None,
            next_check: now,
            next_sweep: now,
            next_scan: now,
            next_piece: now,
        }
    }

    /// Looks at all processes, before it returns.
    pub fn scan(&mut self, now: Instant) -> Vec<Change> {
        self.inspector.begin(now);
        let mut changes = Vec::new();
        self.begin_scan(now, &mut changes);
        self.continue_scan(usize::MAX, now, &mut changes);
        changes
    }

    /// The kernel reports that process `pid` (a thread group, not a thread) executed a program.
    pub fn process_started(&mut self, pid: u32, now: Instant) {
        self.last_event = Some(now);
        if self.known.contains_key(&pid) {
            // A server's process executes something else: look at once.
            self.next_check = now;
        }
        self.watched.remove(&pid);
        self.watch(pid, now, Origin::Event);
    }

    /// The kernel reports that process `pid` (a thread group, not a thread) ended.
    pub fn process_ended(&mut self, pid: u32) -> Vec<Change> {
        self.watched.remove(&pid);
        self.unseen.remove(&pid);
        self.known.remove(&pid).map(|known| Change::Gone(known.instance.key)).into_iter().collect()
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Instant) -> Vec<Change> {
        self.inspector.begin(now);
        let mut changes = Vec::new();
        if now >= self.next_scan {
            self.begin_scan(now, &mut changes);
        } else if now >= self.next_check {
            self.check_known(now, false, &mut changes);
        }
        if now >= self.next_piece {
            self.continue_scan(SCAN_PIECE, now, &mut changes);
        }
        if now >= self.next_sweep {
            self.sweep(now);
        }
        let due: Vec<u32> =
            self.watched.iter().filter(|(_, watched)| watched.due <= now).map(|(pid, _)| *pid).collect();
        for pid in due {
            let finding = self.inspect(pid);
            if matches!(finding, Finding::Silent) {
                // `mysqld --daemonize` forks after its exec, and the child becomes the server.
                for child in self.inspector.workers(pid) {
                    self.watch(child, now, Origin::Event);
                }
            }
            self.reschedule(pid, &finding, now);
            self.settle(pid, finding, now, &mut changes);
        }
        changes
    }

    /// When [`tick`](Discovery::tick) has something to do next.
    pub fn next_tick(&self) -> Instant {
        let mut planned = self.next_check.min(self.next_sweep).min(self.next_scan);
        if !self.unscanned.is_empty() {
            planned = planned.min(self.next_piece);
        }
        self.watched.values().map(|watched| watched.due).fold(planned, Instant::min)
    }

    /// Servers known now, by process id.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.known.values().map(|known| &known.instance)
    }

    /// Processes that could not be looked at, by process id.
    pub fn unseen(&self) -> impl Iterator<Item = &Unseen> {
        self.hidden.iter().chain(self.unseen.values())
    }

    /// What was given up at a bound.
    pub fn counters(&self) -> Counters {
        Counters { executables_forgotten: self.inspector.forgotten(), ..self.counters }
    }

    /// Processes that work for the main process `pid`: a postmaster's backends and auxiliary processes, sorted.
    pub fn backends(&self, pid: u32) -> Vec<u32> {
        self.inspector.workers(pid)
    }

    /// Whose session the PostgreSQL backend `pid` serves, if its title tells.
    pub fn session(&self, pid: u32) -> Option<SessionTitle> {
        titles::parse(&self.inspector.process(pid).command_line().ok()?)
    }

    /// Inodes of all sockets that process `pid` holds open, connections included; `None` if they cannot be read.
    pub fn open_sockets(&self, pid: u32) -> Option<HashSet<u64>> {
        sockets::open_inodes(&self.inspector.process(pid)).ok()
    }

    fn rescan_interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.rescan_interval_seconds.max(1)))
    }

    fn inspect(&mut self, pid: u32) -> Finding {
        let known = &self.known;
        self.inspector.inspect(pid, |parent| known.contains_key(&parent))
    }

    /// All processes; notes it where they cannot all be seen.
    fn list(&mut self) -> Option<Vec<u32>> {
        let pids = match self.inspector.pids() {
            Ok(pids) => pids,
            Err(error) => {
                let verdict = inspect::cannot_list(&self.config.proc_root, &error);
                self.hidden = Some(Unseen { pid: None, name: "all processes".to_owned(), verdict });
                return None;
            }
        };
        self.hidden = inspect::hides_processes(&pids).then(|| Unseen {
            pid: None,
            name: "processes of other users".to_owned(),
            verdict: Verdict::Denied(format!(
                "{} is mounted with hidepid: run the agent as root or with CAP_SYS_PTRACE",
                self.config.proc_root.display()
            )),
        });
        Some(pids)
    }

    /// Begins a scan of all processes; those it is to look at are put on a list.
    fn begin_scan(&mut self, now: Instant, changes: &mut Vec<Change>) {
        self.next_scan = now + self.rescan_interval();
        self.next_piece = now;
        self.check_known(now, true, changes);
        let Some(pids) = self.list() else { return };
        self.unseen.retain(|pid, _| pids.binary_search(pid).is_ok());
        self.unscanned = pids.iter().copied().filter(|pid| !self.known.contains_key(pid)).collect();
        self.listed = pids;
    }

    /// Looks at the next processes of the scan, at most `count`.
    fn continue_scan(&mut self, count: usize, now: Instant, changes: &mut Vec<Change>) {
        self.next_piece = now + SCAN_PAUSE;
        let rest = self.unscanned.len().saturating_sub(count);
        for pid in self.unscanned.split_off(rest) {
            if self.known.contains_key(&pid) {
                continue;
            }
            let finding = self.inspect(pid);
            if matches!(finding, Finding::Silent) {
                self.watch(pid, now, Origin::Event);
            }
            self.settle(pid, finding, now, changes);
        }
    }

    /// Drops servers that ended; renews what is known of the young, or of all.
    fn check_known(&mut self, now: Instant, renew_all: bool, changes: &mut Vec<Change>) {
        self.next_check = now + CHECK_INTERVAL;
        let (mut renew, mut ended) = (Vec::new(), Vec::new());
        let inspector = &self.inspector;
        self.known.retain(|pid, known| {
            let alive = inspector.is_alive(known.instance.key, known.executable);
            if !alive {
                changes.push(Change::Gone(known.instance.key));
                ended.push(*pid);
            } else if renew_all || known.may_open_sockets(now) {
                known.looked = now;
                renew.push(*pid);
            }
            alive
        });
        for pid in ended {
            // The process may have executed another server, or its number may be another's already.
            self.watch(pid, now, Origin::Listing);
        }
        for pid in renew {
            // A server that shuts down no longer listens, and one may fail to be read for a moment: neither is news.
            if let finding @ Finding::Server(..) = self.inspect(pid) {
                self.settle(pid, finding, now, changes);
            }
        }
    }

    /// Where the kernel does not report exec: watches the processes that are new since the last listing.
    fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + CHECK_INTERVAL;
        let interval = self.rescan_interval();
        if self.last_event.is_some_and(|event| now.saturating_duration_since(event) < interval) {
            return;
        }
        let Some(pids) = self.list() else { return };
        for pid in &pids {
            if self.listed.binary_search(pid).is_err() && !self.known.contains_key(pid) {
                self.watch(*pid, now, Origin::Listing);
                // It may have listened for a while already.
                if let Some(watched) = self.watched.get_mut(pid) {
                    watched.due = now;
                }
            }
        }
        let count = u32::try_from(pids.len()).unwrap_or(u32::MAX);
        self.next_sweep = now + CHECK_INTERVAL.max(SWEEP_INTERVAL_PER_PROCESS.saturating_mul(count));
        self.listed = pids;
    }

    fn watch(&mut self, pid: u32, now: Instant, origin: Origin) {
        if self.watched.len() >= WATCH_LIMIT && !self.watched.contains_key(&pid) {
            self.counters.unwatched += 1;
            return;
        }
        self.watched.entry(pid).or_insert(Watched { since: now, due: now + FIRST_LOOK, origin });
    }

    /// Decides when to look at a watched process again, if ever.
    fn reschedule(&mut self, pid: u32, finding: &Finding, now: Instant) {
        let Some(watched) = self.watched.get_mut(&pid) else { return };
        let age = now.saturating_duration_since(watched.since);
        let interval = match finding {
            // It may recover from a crash for many minutes before it listens; there are few of these.
            Finding::Silent if age >= WATCH_TIME => CHECK_INTERVAL,
            Finding::Silent => LOOK_INTERVAL,
            Finding::Undecided if age < WATCH_TIME => UNDECIDED_INTERVAL,
            Finding::Other if watched.origin == Origin::Listing && age < WATCH_TIME => CHECK_INTERVAL,
            _ => {
                self.watched.remove(&pid);
                return;
            }
        };
        let second_look = watched.since + SECOND_LOOK;
        watched.due = if now < second_look { second_look } else { now + interval };
    }

    /// Takes a finding into the lists.
    fn settle(&mut self, pid: u32, finding: Finding, now: Instant, changes: &mut Vec<Change>) {
        if !matches!(finding, Finding::Unseen(..)) {
            self.unseen.remove(&pid);
        }
        match finding {
            Finding::Server(instance, executable) => {
                self.watched.remove(&pid);
                match self.known.entry(pid) {
                    Entry::Vacant(entry) => {
                        entry.insert(Known { instance: instance.clone(), executable, found: now, looked: now });
                        changes.push(Change::Found(instance));
                    }
                    Entry::Occupied(mut entry) => {
                        let known = entry.get_mut();
                        if known.instance.key != instance.key || !known.executable.is_same_file(executable) {
                            changes.push(Change::Gone(known.instance.key));
                            *known = Known { instance: instance.clone(), executable, found: now, looked: now };
                            changes.push(Change::Found(instance));
                        } else if known.instance != instance {
                            known.instance = instance.clone();
                            changes.push(Change::Updated(instance));
                        }
                    }
                }
            }
            Finding::Unseen(name, verdict) => {
                if self.unseen.len() >= UNSEEN_LIMIT && !self.unseen.contains_key(&pid) {
                    self.counters.unseen_omitted += 1;
                } else {
                    self.unseen.insert(pid, Unseen { pid: Some(pid), name, verdict });
                }
            }
            Finding::Silent | Finding::Worker | Finding::Undecided | Finding::Other | Finding::Gone => {}
        }
    }
}
