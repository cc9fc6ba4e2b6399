//! The agent as a service: starts everything, obeys signals, takes up changes of the configuration.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use super::{
    Error, Runtime,
    admin::Desk,
    keeping::Keeping,
    outside::{Lasting, Outside, Prepared},
};
use crate::{
    config::{Config, Diagnostics, Loaded, Stamp, Wanted},
    export::otlp,
    health::{
        admin::Socket,
        audit::{Act, Audit},
        http::BindError,
    },
    model::Snapshot,
    processors::breaker::Gate,
};

/// How often it is looked whether the configuration's files have changed.
const LOOK_AT_FILES: Duration = Duration::from_secs(5);

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

/// How the configuration is loaded again.
pub struct Reload {
    /// Where it comes from.
    pub wanted: Wanted,
    /// Loads it as it was loaded at the start.
    pub load: Box<dyn Fn() -> Result<Loaded, Diagnostics> + Send>,
    /// Takes up the settings of the log.
    pub log: Box<dyn Fn(&crate::config::log::Config) + Send>,
}

/// Runs until SIGTERM or SIGINT; then the hooks are detached, what was recorded is counted and exported a last time.
pub async fn serve(loaded: Loaded, reload: Reload) -> Result<(), ServiceError> {
    let (ask, asked) = mpsc::channel(1);
    let mut events = Events::new(reload.wanted.clone(), asked)?;
    let shown = Arc::new(Mutex::new(shown(&loaded)));
    let config = loaded.config;
    // Before the stages: a second agent must not get as far as attaching anything.
    let prepared = Prepared::new(&config).await?;
    let gate = Gate::new(config.processors.circuit_breaker.clone());
    let runtime = Runtime::start(&config, Some(&gate))?;
    let keeping = Keeping::open(&config.state);
    let states = keeping.load();
    let mut lasting = Lasting { snapshots: runtime.snapshots(), gate, keeping, states, stores: Default::default() };
    let mut outside = prepared.start(&mut lasting)?;
    let audit = Arc::new(Audit::open(&config.state.directory));
    audit.note(Act::Started, "done", None, "");
    let (end_admin, admin_stopped) = watch::channel(());
    let desk = Desk {
        snapshots: lasting.snapshots.clone(),
        gate: lasting.gate.clone(),
        audit: Arc::clone(&audit),
        config: Arc::clone(&shown),
        reload: ask,
        handle: Handle::current(),
    };
    let admin = open_desk(config.health.admin_socket.as_deref(), desk, admin_stopped);
    let mut current = config;
    loop {
        match events.next().await {
            Event::End(signal) => {
                info!("{signal}: ending");
                break;
            }
            Event::Reload(why) => {
                let Some(wanted) = acceptable(&reload, &current, why, &audit) else { continue };
                outside = match exchange(outside, &current, wanted.config.clone(), &mut lasting).await {
                    Ok((outside, taken)) => {
                        audit.note(Act::Reload, if taken { "taken up" } else { "refused" }, None, why);
                        if taken {
                            (reload.log)(&wanted.config.log);
                            *shown.lock().unwrap_or_else(PoisonError::into_inner) = self::shown(&wanted);
                            current = wanted.config;
                            info!("the new configuration is in effect");
                        }
                        outside
                    }
                    // Neither the new nor the old one can be started: the address, a certificate is gone.
                    Err(error) => {
                        runtime.stop().await?;
                        return Err(error);
                    }
                };
            }
        }
    }
    outside.end_processors().await;
    let snapshot = runtime.stop().await?;
    outside.end(Some(snapshot)).await;
    audit.note(Act::Ended, "done", None, "");
    drop(end_admin);
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    info!("ended");
    Ok(())
}

/// The configuration as it is now, if it can be taken up and says something new. What only a restart can change stays as it is.
fn acceptable(reload: &Reload, current: &Config, why: &'static str, audit: &Audit) -> Option<Loaded> {
    let mut loaded = match (reload.load)() {
        Ok(wanted) => wanted,
        Err(diagnostics) => {
            error!("{why}: the new configuration is not taken up, the old one stays in effect:\n{diagnostics}");
            audit.note(Act::Reload, "refused", None, why);
            return None;
        }
    };
    let wanted = &mut loaded.config;
    let mut waiting = Vec::new();
    let mut keep = |section: &'static str, changed: bool| {
        if changed {
            waiting.push(section);
        }
    };
    keep("discovery", wanted.discovery != current.discovery);
    keep("capture", wanted.capture != current.capture);
    keep("aggregate", wanted.aggregate != current.aggregate);
    keep("collect", wanted.collect != current.collect);
    keep("state", wanted.state != current.state);
    keep("health.admin_socket", wanted.health.admin_socket != current.health.admin_socket);
    keep("processors.circuit_breaker", wanted.processors.circuit_breaker != current.processors.circuit_breaker);
    if !waiting.is_empty() {
        warn!("{why}: these sections take effect after a restart: {}", waiting.join(", "));
    }
    wanted.discovery = current.discovery.clone();
    wanted.capture = current.capture.clone();
    wanted.aggregate = current.aggregate.clone();
    wanted.collect = current.collect.clone();
    wanted.state = current.state.clone();
    wanted.health.admin_socket = current.health.admin_socket.clone();
    wanted.processors.circuit_breaker = current.processors.circuit_breaker.clone();
    if *wanted == *current {
        info!("{why}: nothing that can be taken up now has changed");
        return None;
    }
    Some(loaded)
}

/// Ends what talks to the outside and starts it anew with `wanted`, or with `current` again if that cannot be; whether `wanted` was taken up.
async fn exchange(
    mut outside: Outside,
    current: &Config,
    wanted: Config,
    lasting: &mut Lasting,
) -> Result<(Outside, bool), ServiceError> {
    lasting.states = outside.end_processors().await;
    outside.end(None).await;
    match Prepared::new(&wanted).await {
        Ok(prepared) => Ok((prepared.start(lasting)?, true)),
        Err(error) => {
            error!("the new configuration cannot be taken up, the old one stays in effect: {error}");
            Ok((Prepared::new(current).await?.start(lasting)?, false))
        }
    }
}

/// The effective configuration, as the admin socket shows it.
fn shown(loaded: &Loaded) -> String {
    loaded.origins.yaml(&loaded.config).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

/// Opens the admin socket. Without it the agent does its work all the same.
fn open_desk(path: Option<&Path>, desk: Desk, stopped: watch::Receiver<()>) -> Option<JoinHandle<()>> {
    let path = path?;
    match Socket::bind(path) {
        Ok(socket) => {
            info!(path = %path.display(), "serving the admin socket");
            Some(tokio::spawn(socket.run(Arc::new(desk), stopped)))
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "no admin socket (config key `health.admin_socket`)");
            None
        }
    }
}

/// What the service waits for.
struct Events {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    wanted: Wanted,
    stamp: Stamp,
    look: Interval,
    asked: mpsc::Receiver<()>,
}

enum Event {
    End(&'static str),
    Reload(&'static str),
}

impl Events {
    fn new(wanted: Wanted, asked: mpsc::Receiver<()>) -> Result<Events, ServiceError> {
        let on = |kind, what: &'static str| signal(kind).map_err(|error| ServiceError::System { what, error });
        Ok(Events {
            terminate: on(SignalKind::terminate(), "waiting for SIGTERM")?,
            interrupt: on(SignalKind::interrupt(), "waiting for SIGINT")?,
            hang_up: on(SignalKind::hangup(), "waiting for SIGHUP")?,
            stamp: Stamp::of(&wanted),
            wanted,
            look: ticks(LOOK_AT_FILES),
            asked,
        })
    }

    async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return Event::End("SIGTERM"),
                _ = self.interrupt.recv() => return Event::End("SIGINT"),
                _ = self.hang_up.recv() => {
                    self.stamp = Stamp::of(&self.wanted);
                    return Event::Reload("SIGHUP");
                }
                Some(()) = self.asked.recv() => {
                    self.stamp = Stamp::of(&self.wanted);
                    return Event::Reload("the admin socket");
                }
                _ = self.look.tick() => {
                    let stamp = Stamp::of(&self.wanted);
                    if stamp != self.stamp {
                        self.stamp = stamp;
                        return Event::Reload("a file of the configuration has changed");
                    }
                }
            }
        }
    }
}

/// Starts the stages and shows them with `show`, which gets a snapshot each `every`.
pub async fn watch<T>(
    config: &Config,
    every: Duration,
    show: impl AsyncFnOnce(watch::Receiver<Arc<Snapshot>>) -> T,
) -> Result<T, ServiceError> {
    // Only what costs the databases nothing.
    let runtime = Runtime::start(config, None)?;
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

pub(super) fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
