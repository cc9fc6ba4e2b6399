//! What passing a hook costs by itself, measured with a program that does nothing.
//!
//! The kernel's statistics tell the time *inside* programs. They miss what leads there (the trap of a uprobe, the call from a tracepoint) and
//! contain part of what counting itself takes (reading the clock). Both are measured here and corrected:
//!
//! - `passing`: how much longer the passed code takes with an empty program attached, with statistics *off*;
//! - `counting`: the time that statistics, when on, show for a run of the empty program.
//!
//! A run of a real program then costs `passing + (time shown - counting)`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use querylens_tests::{
    bpf::{Empty, Program, RunStatistics},
    cpu,
};
use serde_json::{Value, json};

use crate::statistics::{median, rounded};

/// Kinds of hooks that cost differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// A uprobe on an instruction that the kernel emulates.
    Function,
    /// A uprobe at the return of a function.
    Return,
    /// A tracepoint of the socket layer, and every other one that is passed as rarely.
    Socket,
    /// `sys_exit`: it also sends every system call the slow way.
    Syscall,
}

impl Hook {
    /// The hook of a program of the agent, by the type and the name that the kernel shows (names cut to 15 bytes).
    pub(crate) fn of(program: &Program) -> Hook {
        const RETURN: &str = "boundary_read_return";
        match program.is_probe {
            true if program.name.len() > "boundary_read".len() && RETURN.starts_with(&program.name) => Hook::Return,
            true => Hook::Function,
            false if program.name.starts_with("syscall") => Hook::Syscall,
            false => Hook::Socket,
        }
    }
}

/// The costs of all hooks, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calibration {
    function: f64,
    at_return: f64,
    socket: f64,
    syscall: f64,
    counting: f64,
}

impl Calibration {
    /// Measures them, in about two seconds.
    pub(crate) fn measure() -> Result<Calibration> {
        let (binary, offset) = probed_offset()?;
        let at = |at_return| Empty::at_function(&binary, offset, at_return);
        let bare = time(|| probed())?;
        let entry = at(false)?;
        let with_entry = time(|| probed())?;
        // As the agent has it: both at the same place, where one trap serves the two.
        let exit = at(true)?;
        let with_both = time(|| probed())?;
        check_uncounted(&entry)?;
        let counting = counting(&entry, || {
            probed();
        })?;
        drop((entry, exit));
        let socket = tracepoint(c"sock_recv_length", receive_nothing()?)?;
        let syscall = tracepoint(c"sys_exit", || {
            // SAFETY: getppid has no preconditions.
            unsafe { libc::syscall(libc::SYS_getppid) };
        })?;
        Ok(Calibration {
            function: with_entry - bare,
            at_return: with_both - with_entry,
            socket: socket.max(0.0),
            syscall: syscall.max(0.0),
            counting,
        })
    }

    /// What passing a hook takes, in nanoseconds, with statistics off and an empty program.
    pub(crate) fn passing(&self, hook: Hook) -> f64 {
        match hook {
            Hook::Function => self.function,
            Hook::Return => self.at_return,
            Hook::Socket => self.socket,
            Hook::Syscall => self.syscall,
        }
    }

    /// What the statistics themselves add to the time that they show of a run, in nanoseconds.
    pub(crate) fn counting(&self) -> f64 {
        self.counting
    }

    /// For the raw figures.
    pub(crate) fn json(&self) -> Value {
        json!({
            "uprobe_ns": rounded(self.function, 1),
            "uretprobe_ns": rounded(self.at_return, 1),
            "socket_tracepoint_ns": rounded(self.socket, 1),
            "sys_exit_ns": rounded(self.syscall, 1),
            "statistics_ns": rounded(self.counting, 1),
        })
    }

    /// For people.
    pub(crate) fn sentence(&self) -> String {
        let Calibration { function, at_return, socket, syscall, counting } = self;
        format!(
            "Passing a hook with an empty program took {socket:.0} ns (socket tracepoint), {syscall:.0} ns (sys_exit), {function:.0} ns \
             (uprobe), {at_return:.0} ns (uretprobe); of the time shown, {counting:.0} ns a run are the statistics and are taken off."
        )
    }
}

/// The median over many batches of the CPU time that a call of `work` takes, in nanoseconds: being interrupted does not count.
fn time(mut work: impl FnMut()) -> Result<f64> {
    const BATCHES: u32 = 101;
    const CALLS: u32 = 2000;
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        let start = cpu::thread_time()?;
        for _ in 0..CALLS {
            work();
        }
        batches.push((cpu::thread_time()? - start).as_nanos() as f64 / f64::from(CALLS));
    }
    median(&mut batches).context("no batch was timed")
}

/// Fails if `program` has been counted although nobody here holds statistics: then others have them on, and timing it would time them too.
fn check_uncounted(program: &Empty) -> Result<()> {
    ensure!(program.cost()?.0 == 0, "the kernel's run statistics are on already: sysctl kernel.bpf_stats_enabled=0");
    Ok(())
}

/// How much longer `work`, which passes the tracepoint once, takes with an empty program there, in nanoseconds.
fn tracepoint(name: &std::ffi::CStr, mut work: impl FnMut()) -> Result<f64> {
    let bare = time(&mut work)?;
    let Ok(program) = Empty::at_tracepoint(name) else {
        // Not on this kernel; then no strategy uses it either.
        return Ok(0.0);
    };
    let with = time(&mut work)?;
    check_uncounted(&program)?;
    let statistics = RunStatistics::enable()?;
    let (before, _) = program.cost()?;
    work();
    let (after, _) = program.cost()?;
    drop(statistics);
    ensure!(after > before, "the calibrating loop does not pass {name:?}");
    Ok(with - bare)
}

/// The time that the statistics show for a run of the empty program.
fn counting(program: &Empty, mut work: impl FnMut()) -> Result<f64> {
    const CALLS: u32 = 100_000;
    let _statistics = RunStatistics::enable()?;
    let (runs_before, time_before) = program.cost()?;
    for _ in 0..CALLS {
        work();
    }
    let (runs, time) = program.cost()?;
    let runs = runs - runs_before;
    ensure!(runs >= u64::from(CALLS), "{CALLS} calls of the probed function, but {runs} runs of its program");
    Ok((time - time_before).as_nanos() as f64 / runs as f64)
}

/// Receives from a socket in which nothing is: fails at once, behind the tracepoint.
fn receive_nothing() -> Result<impl FnMut()> {
    let (socket, other) = std::os::unix::net::UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    let mut buffer = [0u8; 8];
    Ok(move || {
        let _kept_open = &other;
        let _ = std::io::Read::read(&mut &socket, &mut buffer);
    })
}

/// A function that begins like those that the agent probes: with an instruction that the kernel emulates.
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
extern "C" fn probed() {
    std::arch::naked_asm!("push rbp", "pop rbp", "ret")
}

/// The same, where `nop` is what the kernel emulates.
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
extern "C" fn probed() {
    std::arch::naked_asm!("nop", "ret")
}

/// This executable, and where in its file [`probed`] begins (proc_pid_maps(5)).
fn probed_offset() -> Result<(PathBuf, u64)> {
    let address = probed as *const () as u64;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let offset = maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
        let (start, end, offset) = (hexadecimal(start)?, hexadecimal(end)?, hexadecimal(fields.nth(1)?)?);
        (start..end).contains(&address).then(|| address - start + offset)
    });
    Ok((std::env::current_exe()?, offset.context("this process does not map its own code")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn programs_have_their_hooks() {
        let hook = |name: &str, is_probe| {
            Hook::of(&Program { id: 1, name: name.to_owned(), is_probe, runs: 0, time: Duration::ZERO })
        };
        assert_eq!(hook("boundary_read", true), Hook::Function);
        assert_eq!(hook("boundary_read_r", true), Hook::Return);
        assert_eq!(hook("boundary_write", true), Hook::Function);
        assert_eq!(hook("socket_send", false), Hook::Socket);
        assert_eq!(hook("syscall_exit", false), Hook::Syscall);
        assert_eq!(hook("process_fork", false), Hook::Socket);
    }

    #[test]
    fn the_probed_function_lies_in_this_executable() {
        let (binary, offset) = probed_offset().unwrap();
        assert!(binary.exists() && offset > 0);
        assert!(offset < binary.metadata().unwrap().len());
    }

    #[test]
    #[ignore = "needs root and eBPF; run by cargo xtask test"]
    fn hooks_cost_something_and_a_trap_more_than_a_call() {
        let calibration = Calibration::measure().unwrap();
        assert!(calibration.passing(Hook::Function) > calibration.passing(Hook::Socket), "{calibration:?}");
        assert!(calibration.counting() > 0.0, "{calibration:?}");
    }
}
