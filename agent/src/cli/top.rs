//! `querylens top`: what the databases of this host do now, live.

mod app;
mod draw;
#[cfg(test)]
mod tests;
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
    time::MissedTickBehavior,
};

use crate::{
    export::console,
    health::status::Status,
    model::{HumanDuration, Snapshot, duration::ParseError},
};
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
    let interval: HumanDuration = text.parse().map_err(|error: ParseError| error.to_string())?;
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

/// Statements in a table: the first twenty make up nearly all of the time on most servers.
const PLAIN_STATEMENTS: usize = 20;
/// Columns of a table: nobody knows how wide what comes after the pipe is; longer texts are cut.
const PLAIN_WIDTH: usize = 240;

async fn print(mut source: Source, mut signals: Signals, mut out: &mut (dyn Write + Send)) -> io::Result<()> {
    let mut views = Views::default();
    loop {
        let snapshot = tokio::select! {
            snapshot = source.next() => snapshot,
            () = signals.any() => None,
        };
        let Some(snapshot) = snapshot else { return Ok(()) };
        let view = views.next(&snapshot);
        writeln!(out, "querylens  {}\n{}", view.agent.cost(), view.agent.losses())?;
        console::table(&snapshot, PLAIN_STATEMENTS, PLAIN_WIDTH, &mut out)?;
        writeln!(out)?;
        out.flush()?;
    }
}

async fn show(mut source: Source, mut signals: Signals, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let mut app = App::default();
    let mut views = Views::default();
    let mut input = Input::start();
    loop {
        terminal.draw(|frame| draw::draw(frame, &app))?;
        tokio::select! {
            snapshot = source.next() => match snapshot {
                Some(snapshot) => app.update(Arc::new(views.next(&snapshot))),
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

/// The newest snapshot, once per interval.
struct Source {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    ticks: tokio::time::Interval,
    last: Option<Arc<Snapshot>>,
}

impl Source {
    fn new(snapshots: watch::Receiver<Arc<Snapshot>>, interval: Duration) -> Source {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Source { snapshots, ticks, last: None }
    }

    /// The next snapshot; `None` when there will be no more. May be cancelled: nothing is lost.
    async fn next(&mut self) -> Option<Arc<Snapshot>> {
        loop {
            self.ticks.tick().await;
            if self.snapshots.has_changed().is_err() {
                return None;
            }
            let now = self.snapshots.borrow_and_update().clone();
            if !self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &now)) {
                self.last = Some(now.clone());
                return Some(now);
            }
        }
    }
}

/// Views of snapshots that follow each other.
#[derive(Default)]
struct Views {
    before: Option<Status>,
}

impl Views {
    fn next(&mut self, snapshot: &Snapshot) -> View {
        let now = Status::new(snapshot, None);
        let view = View::new(self.before.as_ref(), &now);
        self.before = Some(now);
        view
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
