//! Processes that never outlive whoever started them.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Set by the signal handler of [`end_on_signals`].
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM make every wait of this crate fail, so that the stack unwinds and each guard ends what it started.
pub fn end_on_signals() {
    extern "C" fn remember(_signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, remember as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// Fails if a signal has asked for the end.
pub fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps, unless a signal asks for the end.
pub fn sleep(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        check_interrupted()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}

/// Asks `question` every 20 ms until it has an answer; fails at the end of `patience` or if asking fails.
pub fn wait_for<T>(what: &str, patience: Duration, mut question: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_regardless(what, patience, || check_interrupted().and_then(|()| question()))
}

/// The same for what must happen even though a signal asks for the end: cleaning up.
fn wait_regardless<T>(what: &str, patience: Duration, mut question: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("waited {patience:?} for {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// An operating-system user by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: libc::uid_t,
    /// Its primary group.
    pub gid: libc::gid_t,
}

impl User {
    /// The unprivileged user that every Linux has.
    pub const NOBODY: User = User { uid: 65534, gid: 65534 };

    /// The user of this name, or [`User::NOBODY`] where there is none.
    pub fn named_or_nobody(name: &str) -> User {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
        let ids = entry.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
        ids.map_or(User::NOBODY, |(uid, gid)| User { uid, gid })
    }

    /// Gives a file or directory to this user.
    pub fn own(self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to user {} (root needed)", path.display(), self.uid))
    }
}

/// The network namespace that a process runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The one of this process.
    #[default]
    Host,
    /// A new one, in which nothing but its own 127.0.0.1 exists.
    Own,
    /// That of another process.
    Of(u32),
}

/// What to start, as whom and where.
#[derive(Debug)]
pub struct Launch {
    command: Command,
    user: Option<User>,
    root: Option<PathBuf>,
    network: Network,
    on_parent_death: libc::c_int,
    log: Option<PathBuf>,
    stdout: Option<PathBuf>,
}

impl Launch {
    /// `program` as this user, here.
    pub fn new(program: impl AsRef<OsStr>) -> Launch {
        let mut command = Command::new(program);
        // Whoever it runs as may enter this directory.
        command.current_dir("/");
        let network = Network::Host;
        Launch { command, user: None, root: None, network, on_parent_death: libc::SIGKILL, log: None, stdout: None }
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Launch {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Launch {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.command.env(name, value);
        self
    }

    /// As whom; without supplementary groups.
    pub fn user(mut self, user: User) -> Launch {
        self.user = Some(user);
        self
    }

    /// In a root directory of its own; program and arguments are paths within it.
    pub fn chroot(mut self, root: &Path) -> Launch {
        self.root = Some(root.to_owned());
        self
    }

    /// In which network.
    pub fn network(mut self, network: Network) -> Launch {
        self.network = network;
        self
    }

    /// The signal that the kernel sends it when the thread that started it ends; SIGKILL if not said.
    pub fn on_parent_death(mut self, signal: libc::c_int) -> Launch {
        self.on_parent_death = signal;
        self
    }

    /// File that takes standard error, and standard output unless that has a file of its own.
    pub fn log(mut self, file: &Path) -> Launch {
        self.log = Some(file.to_owned());
        self
    }

    /// File that takes standard output.
    pub fn stdout(mut self, file: &Path) -> Launch {
        self.stdout = Some(file.to_owned());
        self
    }

    /// Starts it in a session of its own: Ctrl-C reaches only whoever must clean up, and the scheduler's autogroups (sched(7)) share the
    /// processors among servers and load generators as if each had been started by init. In one session they would starve PostgreSQL,
    /// whose backends begin sessions of their own.
    pub fn start(mut self) -> Result<Process> {
        let program = self.command.get_program().to_string_lossy().into_owned();
        let name = program.rsplit('/').next().unwrap_or(&program).to_owned();
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(log) = &self.log {
            let file = File::options().create(true).append(true).open(log);
            let file = file.with_context(|| format!("cannot write {}", log.display()))?;
            self.command.stdout(file.try_clone()?).stderr(file);
        }
        if let Some(stdout) = &self.stdout {
            let file = File::create(stdout).with_context(|| format!("cannot write {}", stdout.display()))?;
            self.command.stdout(file);
        }
        let namespace = match self.network {
            Network::Of(pid) => {
                let path = format!("/proc/{pid}/ns/net");
                Some(File::open(&path).with_context(|| format!("cannot open {path}"))?)
            }
            Network::Host | Network::Own => None,
        };
        let root = self.root.as_ref().map(|root| CString::new(root.as_os_str().as_bytes())).transpose()?;
        let (user, own_network, signal) = (self.user, self.network == Network::Own, self.on_parent_death);
        let enter = move || {
            // SAFETY: no arguments.
            if unsafe { libc::setsid() } < 0 {
                return Err(io::Error::last_os_error());
            }
            match &namespace {
                // SAFETY: the descriptor is open; the call concerns only the child.
                Some(namespace) => check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?,
                None if own_network => own_network_namespace()?,
                None => {}
            }
            if let Some(root) = &root {
                // SAFETY: both paths are C strings that live long enough.
                check(unsafe { libc::chroot(root.as_ptr()) })?;
                // SAFETY: as above.
                check(unsafe { libc::chdir(c"/".as_ptr()) })?;
            }
            if let Some(user) = user {
                // SAFETY: no groups are passed.
                check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
                // SAFETY: plain numbers.
                check(unsafe { libc::setgid(user.gid) })?;
                // SAFETY: plain numbers.
                check(unsafe { libc::setuid(user.uid) })?;
            }
            // Last: a change of user would clear it, see prctl(2).
            // SAFETY: plain numbers.
            check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })
        };
        // SAFETY: `enter` only makes system calls, allocates nothing and takes no lock.
        unsafe { self.command.pre_exec(enter) };
        let child = self.command.spawn().with_context(|| format!("cannot start {program}"))?;
        Ok(Process { child, name, log: self.log, stdout: self.stdout })
    }

    /// Runs it to the end and returns its standard output; if it fails, the error has what it said.
    pub fn run(mut self, patience: Duration) -> Result<String> {
        let dir = tempfile::tempdir()?;
        let log = self.log.take().unwrap_or_else(|| dir.path().join("stderr"));
        let process = self.log(&log).stdout(&dir.path().join("stdout")).start()?;
        process.finish(patience)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling process into a new network namespace and brings up its loopback interface.
fn own_network_namespace() -> io::Result<()> {
    // SAFETY: concerns only the child that calls it.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    // SAFETY: an all-zero ifreq is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: plain numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) })
}

/// A running process; killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: Option<PathBuf>,
    stdout: Option<PathBuf>,
}

impl Process {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was started as, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it wrote to its log so far.
    pub fn log(&self) -> String {
        let text = self.log.as_ref().map(fs::read).transpose().ok().flatten();
        String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
    }

    /// How it ended, if it did.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Fails, with the end of its log, if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.status()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.last_words()),
        }
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child is not yet waited for, so its number is not given to another process.
        unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        wait_for(&self.end_of(), patience, || self.status())
    }

    /// Sends `signal` and waits for the end; kills what has not ended at the end of `patience`, and says so.
    pub fn end(&mut self, signal: libc::c_int, patience: Duration) -> Result<ExitStatus> {
        if self.status()?.is_none() {
            self.signal(signal);
        }
        let ended = wait_regardless(&self.end_of(), patience, || self.status());
        ended.inspect_err(|_| self.kill_group()).with_context(|| self.last_words())
    }

    fn end_of(&self) -> String {
        format!("the end of {} (pid {})", self.name, self.pid())
    }

    /// Waits for its successful end and returns its standard output.
    pub fn finish(mut self, patience: Duration) -> Result<String> {
        let status = self.wait(patience)?;
        let output = self.stdout.as_ref().map(fs::read).transpose()?.unwrap_or_default();
        let output = String::from_utf8_lossy(&output).into_owned();
        if !status.success() {
            bail!("{} failed: {status}\n{output}{}", self.name, self.last_words());
        }
        Ok(output)
    }

    /// Whether it was ended by `signal`.
    pub fn ended_by(status: ExitStatus, signal: libc::c_int) -> bool {
        status.signal() == Some(signal)
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn kill_group(&self) {
        // SAFETY: it leads a group of its own, which exists at least as long as it is not waited for.
        unsafe { libc::killpg(self.pid() as libc::pid_t, libc::SIGKILL) };
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}
