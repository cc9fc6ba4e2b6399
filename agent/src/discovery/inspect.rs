//! From a process to a database server: puts together what executable, sockets, directories and namespaces tell.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    containers::{self, Host},
    executable::{self, Executables, FileId, Kind, Software},
    identity::{self, Features, HostId},
    process::{self, Process, Stat},
    sockets::Tables,
};
use crate::model::{Engine, Instance, ServerKey, Verdict};

/// Bound on PG_VERSION, which holds a number and a line feed.
const PG_VERSION_LIMIT: u64 = 16;

/// What a process turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    /// The main process of a server that accepts connections, and what it executes.
    Server(Arc<Instance>, FileId),
    /// Executes a server's program, but does not listen: it starts, or does something else.
    Silent,
    /// A child of a server's main process: a backend, or a worker.
    Worker,
    /// Listens on nothing, and its executable does not tell what it is.
    Undecided,
    /// No database server.
    Other,
    /// It ended meanwhile or is a kernel thread.
    Gone,
    /// It could not be looked at.
    Unseen(String, Verdict),
}

/// Looks at processes.
#[derive(Debug)]
pub(super) struct Inspector {
    proc_root: PathBuf,
    executables: Executables,
    tables: Tables,
    host: Host,
    host_id: HostId,
}

/// Which step of an inspection failed, and how.
struct Failure {
    step: &'static str,
    error: io::Error,
}

trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failure>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure { step, error })
    }
}

impl Inspector {
    pub(super) fn new(proc_root: PathBuf) -> Inspector {
        Inspector {
            host: Host::read(&proc_root),
            host_id: HostId::read(&proc_root),
            proc_root,
            executables: Executables::default(),
            tables: Tables::default(),
        }
    }

    /// Begins a round of inspections.
    pub(super) fn begin(&mut self, now: Instant) {
        self.tables.begin(now);
    }

    /// How many executables were forgotten at the bound.
    pub(super) fn forgotten(&self) -> u64 {
        self.executables.forgotten()
    }

    /// The process `pid`.
    pub(super) fn process(&self, pid: u32) -> Process {
        Process::new(&self.proc_root, pid)
    }

    /// Numbers of all processes, sorted.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        process::pids(&self.proc_root)
    }

    /// Children of `pid` that execute the same file.
    pub(super) fn workers(&self, pid: u32) -> Vec<u32> {
        let process = self.process(pid);
        let Ok(executable) = FileId::of(&process.path("exe")) else { return Vec::new() };
        let same =
            |child: &u32| FileId::of(&self.process(*child).path("exe")).is_ok_and(|own| own.is_same_file(executable));
        process.children().into_iter().filter(same).collect()
    }

    /// Whether the process still is what it was found to be.
    pub(super) fn is_alive(&self, key: ServerKey, executable: FileId) -> bool {
        let process = self.process(key.pid);
        match process.stat() {
            Ok(stat) if stat.is_dead() || stat.start_ticks != key.start_ticks => return false,
            Err(error) if process::is_gone(&error) => return false,
            _ => {}
        }
        match FileId::of(&process.path("exe")) {
            Ok(own) => own.is_same_file(executable),
            Err(error) => !process::is_gone(&error),
        }
    }

    /// Looks at a process. `is_server` tells the main processes found so far.
    pub(super) fn inspect(&mut self, pid: u32, is_server: impl Fn(u32) -> bool) -> Finding {
        let process = self.process(pid);
        match self.try_inspect(&process, is_server) {
            Ok(finding) => finding,
            Err(failure) if process::is_gone(&failure.error) => Finding::Gone,
            Err(failure) => unseen(&process, &failure),
        }
    }

    fn try_inspect(&mut self, process: &Process, is_server: impl Fn(u32) -> bool) -> Result<Finding, Failure> {
        let exe = process.path("exe");
        let (mut file, mut kind) = self.executables.identify(&exe).step("read its executable")?;
        if kind == Kind::Other {
            return Ok(Finding::Other);
        }
        let stat = process.stat().step("read its state")?;
        if stat.is_dead() {
            return Ok(Finding::Gone);
        }
        let parent = self.parent_of_same_executable(&stat, file);
        if parent.as_ref().is_some_and(|parent| is_server(parent.pid())) {
            return Ok(Finding::Worker);
        }
        let listen = self.tables.listening(process).step("read its sockets")?;
        if listen.is_empty() {
            return Ok(if kind == Kind::Undecided { Finding::Undecided } else { Finding::Silent });
        }
        if kind == Kind::Undecided {
            (file, kind) = self.executables.decide(&exe).step("read its executable")?;
        }
        let Kind::Server(software) = kind else { return Ok(Finding::Other) };
        // A child forked a moment ago still holds its parent's sockets.
        if let Some(parent) = parent
            && self.tables.listening(&parent).is_ok_and(|listen| !listen.is_empty())
        {
            return Ok(Finding::Worker);
        }

        let executable = process.own_link("exe").step("read its executable")?;
        let (version, data_dir) = version_and_data_dir(process, &software);
        let container = containers::container(process, &self.host);
        let service_instance_id = identity::service_instance_id(
            &self.host_id,
            &Features {
                engine: software.engine,
                executable: &executable,
                data_dir: data_dir.as_deref(),
                listen: &listen,
                container: container.as_ref(),
                process,
            },
        );
        let instance = Instance {
            key: ServerKey { pid: process.pid(), start_ticks: stat.start_ticks },
            engine: software.engine,
            pooler: software.pooler,
            version,
            executable,
            data_dir,
            uid: process.effective_uid().step("read its user")?,
            listen,
            container,
            service_instance_id,
        };
        // All of it must have been the same process's.
        if !self.is_alive(instance.key, file) {
            return Ok(Finding::Gone);
        }
        Ok(Finding::Server(Arc::new(instance), file))
    }

    fn parent_of_same_executable(&self, stat: &Stat, executable: FileId) -> Option<Process> {
        let parent = self.process(stat.parent);
        let same = stat.parent != 0 && FileId::of(&parent.path("exe")).is_ok_and(|own| own.is_same_file(executable));
        same.then_some(parent)
    }
}

/// A pooler has no data. Else both from the working directory: a postmaster (`ChangeToDataDir`) as well as mysqld and mariadbd (`my_setwd`) enter the data
/// directory before they listen, wherever options or configuration files said it is, and never leave it.
fn version_and_data_dir(process: &Process, software: &Software) -> (Option<String>, Option<PathBuf>) {
    if software.pooler.is_some() {
        return (software.version.clone(), None);
    }
    let directory = || process.own_link("cwd").ok();
    match software.engine {
        Engine::Postgresql => {
            let catalog = process::read_foreign(&process.path("cwd/PG_VERSION"), PG_VERSION_LIMIT)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(|text| text.trim().to_owned())
                .filter(|text| text.starts_with(|first: char| first.is_ascii_digit()));
            let data_dir = catalog.as_ref().and_then(|_| directory());
            let version = match (software.version.clone(), catalog) {
                // A server refuses a foreign data directory, so one of the two was misread.
                (Some(version), Some(catalog)) => executable::accepts_catalog(&version, &catalog).then_some(version),
                (version, catalog) => version.or(catalog),
            };
            (version, data_dir)
        }
        Engine::Mysql | Engine::Mariadb => {
            // The schema `mysql` and InnoDB's system tablespace are there in all versions; the latter may be kept elsewhere.
            let is_data_dir =
                ["cwd/mysql", "cwd/ibdata1"].iter().any(|name| process.path(name).symlink_metadata().is_ok());
            (software.version.clone(), directory().filter(|_| is_data_dir))
        }
    }
}

/// A process that could not be looked at, unless it is a kernel thread: these have nothing to see.
fn unseen(process: &Process, failure: &Failure) -> Finding {
    let name = match process.stat() {
        Ok(stat) if stat.kernel_thread || stat.is_dead() => return Finding::Gone,
        Ok(stat) => stat.name,
        Err(error) if process::is_gone(&error) => return Finding::Gone,
        Err(_) => "?".to_owned(),
    };
    let Failure { step, error } = failure;
    let verdict = match error.kind() {
        io::ErrorKind::PermissionDenied => Verdict::Denied(format!(
            "may not {step} ({error}): run the agent as root or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
        )),
        _ => Verdict::Broken(format!("could not {step}: {error}")),
    };
    Finding::Unseen(name, verdict)
}

/// Whether processes of others are hidden: process 1 exists in every pid namespace.
pub(super) fn hides_processes(pids: &[u32]) -> bool {
    pids.first() != Some(&1)
}

/// Why no process at all can be listed.
pub(super) fn cannot_list(proc_root: &Path, error: &io::Error) -> Verdict {
    let reason = format!("{}: cannot list processes: {error}; mount procfs there", proc_root.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => Verdict::Denied(reason),
        _ => Verdict::Broken(reason),
    }
}
