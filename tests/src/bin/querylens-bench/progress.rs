//! What a benchmark tells while it runs.

use std::{sync::OnceLock, time::Instant};

/// A line on standard error, with the time since the first one.
#[allow(clippy::print_stderr, reason = "a command-line tool speaks to people")]
pub(crate) fn say(text: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("{:>3}:{:02}  {text}", seconds / 60, seconds % 60);
}
