//! `querylens top`: what the databases of this host do now, live.

mod app;
mod draw;
mod format;
mod plain;
mod view;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use ratatui::{DefaultTerminal, crossterm::event};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use crate::model::{HumanDuration, Snapshot};
use app::{App, Next};
use view::View;

/// Watch what the databases of this host do, live
///
/// In a terminal: ? shows the keys. Into a file or a pipe: a table per interval.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) common: super::Common,
    /// How often to refresh, e.g. 1s or 500ms
    #[arg(long, default_value = "1s", value_parser = interval)]
    pub interval: HumanDuration,
    /// Print tables even if standard output is a terminal
    #[arg(long)]
    pub plain: bool,
}

/// Faster than that, people see no more, and the agent's own work would show in what it measures.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<HumanDuration, String> {
    let interval: HumanDuration =
        text.parse().map_err(|error: crate::model::duration::ParseError| error.to_string())?;
    if interval.0 < SHORTEST_INTERVAL {
        return Err(format!("must be at least {}", HumanDuration(SHORTEST_INTERVAL)));
    }
    Ok(interval)
}

/// Shows `snapshots` until the user quits, a signal asks to end, or whoever takes them has ended.
pub async fn run(
    args: Args,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<ExitCode> {
    let signals = Signals::new().context("cannot wait for signals")?;
    let source = Source::new(snapshots, args.interval.0);
    if args.plain || !io::stdout().is_terminal() {
        match print(source, signals, out).await {
            // Whoever read has seen enough, e.g. `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result.context("cannot write the table")?,
        }
    } else {
        let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
        let result = show(source, signals, &mut terminal).await;
        let restored = ratatui::try_restore();
        result.context("cannot draw")?;
        restored.context("cannot give the terminal back; `reset` does")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn print(mut source: Source, mut signals: Signals, out: &mut (dyn Write + Send)) -> io::Result<()> {
    let mut app = App::default();
    loop {
        tokio::select! {
            view = source.next() => match view {
                Some(view) => app.update(view),
                None => return Ok(()),
            },
            () = signals.any() => return Ok(()),
        }
        plain::write(&app, out)?;
    }
}

async fn show(mut source: Source, mut signals: Signals, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let mut app = App::default();
    let mut input = Input::start();
    loop {
        terminal.draw(|frame| draw::draw(frame, &app))?;
        tokio::select! {
            view = source.next() => match view {
                Some(view) => app.update(view),
                None => return Ok(()),
            },
            event = input.events.recv() => match event {
                Some(Ok(event::Event::Key(key))) if key.is_press() || key.is_repeat() => {
                    if app.key(key) == Next::Quit {
                        return Ok(());
                    }
                }
                // Anything else, as a new size, is a reason to draw.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = signals.any() => return Ok(()),
        }
    }
}

/// A view per interval, of the newest snapshot.
struct Source {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    ticks: tokio::time::Interval,
    before: Option<Arc<Snapshot>>,
}

impl Source {
    fn new(snapshots: watch::Receiver<Arc<Snapshot>>, interval: Duration) -> Source {
        let mut ticks = tokio::time::interval_at(Instant::now(), interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Source { snapshots, ticks, before: None }
    }

    /// The next view; `None` when there will be no more snapshots. Can be cancelled: a lost call loses nothing.
    async fn next(&mut self) -> Option<Arc<View>> {
        loop {
            self.ticks.tick().await;
            if self.snapshots.has_changed().is_err() {
                return None;
            }
            let now = self.snapshots.borrow_and_update().clone();
            if self.before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &now)) {
                continue;
            }
            let view = View::new(self.before.as_deref(), &now);
            self.before = Some(now);
            return Some(Arc::new(view));
        }
    }
}

/// The signals that ask to end. Without a handler they would leave the terminal in raw mode.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    async fn any(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Reads the terminal's events on a thread of its own, since that blocks.
struct Input {
    events: mpsc::Receiver<io::Result<event::Event>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Events that may wait while a frame is drawn; then the thread waits too, and the terminal keeps them.
const WAITING_EVENTS: usize = 64;
/// How long the thread may outlive the display.
const POLL: Duration = Duration::from_millis(50);

impl Input {
    fn start() -> Input {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let event = match event::poll(POLL) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                let last = event.is_err();
                if sender.blocking_send(event).is_err() || last {
                    return;
                }
            }
        });
        Input { events, stop, thread: Some(thread) }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.events.close();
        if let Some(thread) = self.thread.take() {
            // It must not read a key that is meant for the shell. Its panic, if any, was shown when it happened.
            let _ = thread.join();
        }
    }
}
