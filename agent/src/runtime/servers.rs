//! The servers thread: keeps track of which servers run, has each of them captured, and tells the pipeline.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use hashbrown::HashSet;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{
    Rescan,
    collect::Collection,
    pipeline::{Command, Notice},
};
use crate::{
    capture::{Control, Losses},
    discovery::{Change, Discovery, SessionTitle},
    model::{Engine, Instance, ServerKey},
};

/// How often the open sockets of servers that serve many sessions from one process are compared with the sessions followed. A PostgreSQL
/// session ends with its process; a MySQL session that the server itself closes ends without any event.
const RECONCILE: Duration = Duration::from_secs(30);
/// Longest sleep, so that losses and rescans are seen.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What other threads ask of the servers thread.
pub(super) enum Request {
    /// From the pipeline.
    Notice(Notice),
    /// Detach everything and end.
    Stop,
    /// Losses in the kernel and run time of the programs.
    Costs(oneshot::Sender<Costs>),
}

/// What the kernel's side lost and cost so far.
pub(super) struct Costs {
    pub(super) losses: Losses,
    pub(super) program_time: Option<Duration>,
}

struct Known {
    slot: u32,
    instance: Arc<Instance>,
    /// The strategy was changed because of encrypted sessions; that is done once.
    at_boundary: bool,
}

pub(super) struct Servers {
    pub(super) control: Control,
    pub(super) discovery: Discovery,
    pub(super) requests: Receiver<Request>,
    pub(super) pipeline: SyncSender<Command>,
    pub(super) rescan: Rescan,
    /// Who asks the servers, if anybody does.
    pub(super) collection: Option<Collection>,
}

impl Servers {
    /// Runs until it is stopped; ending detaches all hooks.
    pub(super) fn run(mut self) {
        let mut known: HashMap<ServerKey, Known> = HashMap::new();
        let mut next_slot = 0u32;
        let mut lost_processes = 0u64;
        let mut reconciled = Instant::now();
        let changes = self.discovery.scan(Instant::now());
        self.apply(changes, &mut known, &mut next_slot);
        loop {
            let sleep = self.discovery.next_tick().saturating_duration_since(Instant::now()).min(LONGEST_SLEEP);
            match self.requests.recv_timeout(sleep) {
                Ok(Request::Notice(Notice::Started(pid))) => self.discovery.process_started(pid, Instant::now()),
                Ok(Request::Notice(Notice::Ended(pid))) => {
                    let changes = self.discovery.process_ended(pid);
                    self.apply(changes, &mut known, &mut next_slot);
                }
                Ok(Request::Notice(Notice::Encrypted(slot))) => self.go_to_boundary(slot, &mut known),
                Ok(Request::Costs(reply)) => {
                    let costs = Costs { losses: self.control.losses(), program_time: self.control.program_time() };
                    // Whoever asked may have gone away meanwhile.
                    let _ = reply.send(costs);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.control.flush_log();
            let lost = self.control.losses().get("ring_full_process").copied().unwrap_or(0);
            let mut changes = self.discovery.tick(Instant::now());
            if lost > lost_processes || self.rescan.take() {
                // Some process began or ended unnoticed.
                lost_processes = lost;
                changes.extend(self.discovery.scan(Instant::now()));
            }
            self.apply(changes, &mut known, &mut next_slot);
            if reconciled.elapsed() >= RECONCILE {
                reconciled = Instant::now();
                self.reconcile(&known);
            }
        }
    }

    fn apply(&mut self, changes: Vec<Change>, known: &mut HashMap<ServerKey, Known>, next_slot: &mut u32) {
        for change in changes {
            match change {
                Change::Found(instance) => {
                    let slot = *next_slot;
                    *next_slot += 1;
                    // The pipeline must know the slot before the first record comes.
                    let plan = self.control.plan(&instance);
                    self.tell(Command::Add { slot, instance: Arc::clone(&instance), wire: plan.clone() });
                    // Before, so that the first record finds them; after, for those that began meanwhile.
                    self.tell_sessions(&instance);
                    let (pid, discovery) = (instance.key.pid, &self.discovery);
                    let wire = self.control.watch(slot, &instance, || discovery.backends(pid));
                    self.tell_sessions(&instance);
                    if wire.state == "visible" {
                        info!(server = %instance.label(), pid, strategy = wire.strategy, reason = %wire.reason, "server found");
                    } else {
                        warn!(server = %instance.label(), pid, reason = %wire.reason, "server found, but its wire is not visible");
                    }
                    if wire != plan {
                        self.tell(Command::Rewire { slot, wire });
                    }
                    if let Some(collection) = &self.collection {
                        collection.found(&instance);
                    }
                    known.insert(instance.key, Known { slot, instance, at_boundary: false });
                }
                Change::Updated(instance) => {
                    if let Some(server) = known.get_mut(&instance.key) {
                        let (pid, discovery) = (instance.key.pid, &self.discovery);
                        self.control.update(server.slot, &instance, || discovery.backends(pid));
                        server.instance = Arc::clone(&instance);
                        let slot = server.slot;
                        if let Some(collection) = &self.collection {
                            collection.updated(&instance);
                        }
                        self.tell(Command::Update { slot, instance });
                    }
                }
                Change::Gone(key) => {
                    if let Some(server) = known.remove(&key) {
                        info!(server = %server.instance.label(), pid = key.pid, "server gone");
                        if let Some(collection) = &self.collection {
                            collection.gone(key);
                        }
                        self.control.unwatch(server.slot);
                        self.tell(Command::Remove { slot: server.slot });
                    }
                }
            }
        }
    }

    /// Encrypted sessions are in the clear at the server's own boundary only.
    fn go_to_boundary(&mut self, slot: u32, known: &mut HashMap<ServerKey, Known>) {
        let Some(server) = known.values_mut().find(|server| server.slot == slot && !server.at_boundary) else { return };
        server.at_boundary = true;
        let (instance, pid) = (Arc::clone(&server.instance), server.instance.key.pid);
        let discovery = &self.discovery;
        self.tell_sessions(&instance);
        let reason = "sessions of this server are encrypted; its own I/O functions see them in the clear";
        match self.control.watch_boundary(slot, &instance, reason, || discovery.backends(pid)) {
            Some(wire) => {
                info!(server = %instance.label(), pid, strategy = wire.strategy, reason = %wire.reason, "strategy changed");
                self.tell(Command::Rewire { slot, wire });
            }
            None => warn!(
                server = %instance.label(),
                pid,
                "encrypted sessions are not visible: uprobes at the server's I/O functions are not possible or not wanted"
            ),
        }
    }

    /// Sessions that are older than the agent's look at them have said who they are already; a PostgreSQL backend's title still tells.
    fn tell_sessions(&self, instance: &Instance) {
        if instance.engine != Engine::Postgresql || instance.pooler.is_some() {
            return;
        }
        for process in self.discovery.backends(instance.key.pid) {
            if let Some(SessionTitle { user, database }) = self.discovery.session(process) {
                self.tell(Command::Serves { process, user: user.into(), database: database.into() });
            }
        }
    }

    fn reconcile(&self, known: &HashMap<ServerKey, Known>) {
        // A backend of PostgreSQL ends with its connection.
        let many_a_process = |instance: &Instance| instance.engine != Engine::Postgresql || instance.pooler.is_some();
        for server in known.values().filter(|server| many_a_process(&server.instance)) {
            if let Some(open) = self.discovery.open_sockets(server.instance.key.pid) {
                self.tell(Command::Reconcile { slot: server.slot, open: open.into_iter().collect::<HashSet<u64>>() });
            }
        }
    }

    fn tell(&self, command: Command) {
        // The pipeline ends after this thread; if it is gone, so is the agent.
        let _ = self.pipeline.send(command);
    }
}
