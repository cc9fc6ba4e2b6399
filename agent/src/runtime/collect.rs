//! Starts and ends the collectors, one task a server, on the asynchronous runtime.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{runtime::Handle, sync::watch, task::AbortHandle};

use super::gate::Breaker;
use crate::{
    collect::{self, Collector},
    config::Config,
    enrich::enrich,
    model::{Activity, Collected, Instance, InstanceSnapshot, ServerKey},
    processors::breaker,
};

/// The collectors of all servers. Any thread may use it.
#[derive(Clone)]
pub(super) struct Collection {
    handle: Handle,
    config: Arc<collect::Config>,
    proc_root: PathBuf,
    breaker: Breaker,
    /// Watches the host.
    watch: AbortHandle,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// One a server that runs.
    running: HashMap<ServerKey, Running>,
    /// Fingerprints of everything that any collector has asked, some dozens an engine. They outlive the servers, whose last numbers are still shown.
    own: HashSet<u64>,
}

/// The collector of one server.
struct Running {
    instance: Arc<Instance>,
    task: AbortHandle,
    answers: watch::Receiver<Collected>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collection {
    /// Asks nobody yet. Every question passes the circuit breaker. Must be called on the asynchronous runtime.
    pub(super) fn new(config: &Config, circuits: breaker::Gate) -> Collection {
        let (handle, breaker) = (Handle::current(), Breaker::new(config, circuits));
        Collection {
            config: Arc::new(config.collect.clone()),
            proc_root: config.discovery.proc_root.clone(),
            watch: handle.spawn(breaker.clone().watch()).abort_handle(),
            breaker,
            handle,
            state: Arc::default(),
        }
    }

    /// Servers whose circuits were forgotten for want of room.
    pub(super) fn circuits_forgotten(&self) -> u64 {
        self.breaker.forgotten()
    }

    /// A server runs.
    pub(super) fn found(&self, instance: &Arc<Instance>) {
        let (config, gate) = (Arc::clone(&self.config), Arc::new(self.breaker.clone()));
        let (collector, answers) = Collector::new(Arc::clone(instance), config, self.proc_root.clone(), gate);
        let task = self.handle.spawn(collector.run()).abort_handle();
        let running = Running { instance: Arc::clone(instance), task, answers };
        self.lock().running.insert(instance.key, running);
    }

    /// Something about a server has changed. Who is logged in stays so; others may find a new way.
    pub(super) fn updated(&self, instance: &Arc<Instance>) {
        let begin_anew = self.lock().running.get(&instance.key).is_some_and(|running| {
            running.instance.listen != instance.listen && running.answers.borrow().login.is_none()
        });
        if begin_anew {
            self.found(instance);
        }
    }

    /// A server is gone.
    pub(super) fn gone(&self, key: ServerKey) {
        let mut state = self.lock();
        if let Some(running) = state.running.remove(&key) {
            let own = Arc::clone(&running.answers.borrow().own);
            state.own.extend(own.iter());
        }
    }

    /// Ends all connections.
    pub(super) fn stop(&self) {
        self.watch.abort();
        self.lock().running.clear();
    }

    /// What the servers said, joined with `servers`. The agent's own statements are left out of these: they are nobody's load.
    pub(super) fn collected(&self, servers: &mut [InstanceSnapshot]) -> HashMap<ServerKey, Collected> {
        let mut state = self.lock();
        let mut collected: HashMap<ServerKey, Collected> =
            state.running.iter().map(|(key, running)| (*key, running.answers.borrow().clone())).collect();
        for one in collected.values() {
            state.own.extend(one.own.iter());
        }
        for server in servers.iter_mut() {
            server.statements.retain(|row| !state.own.contains(&row.digest.fingerprint));
        }
        join(servers, &mut collected);
        collected
    }

    /// The latest look at the sessions of each server.
    pub(super) fn activity(&self) -> Vec<(Arc<Instance>, Arc<Activity>)> {
        let state = self.lock();
        let latest =
            |running: &Running| (Arc::clone(&running.instance), Arc::clone(&running.answers.borrow().activity));
        state.running.values().map(latest).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to the statements of `servers` what the servers said of them.
pub(super) fn join(servers: &mut [InstanceSnapshot], collected: &mut HashMap<ServerKey, Collected>) {
    for server in servers {
        if let Some(collected) = collected.get_mut(&server.instance.key) {
            collected.joined = enrich(server, collected);
        }
    }
}
