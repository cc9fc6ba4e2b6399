//! The agent's process.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    bpf, http, layout,
    process::{Launch, Process, User, sleep, wait_for},
    servers::free_port,
    status::Status,
};

/// Where the agent serves its status with nothing configured.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// How to start the agent.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// The binary; `target/release/querylens` if not said.
    pub binary: Option<PathBuf>,
    /// Arguments behind `run`.
    pub arguments: Vec<String>,
    /// Its configuration, to which an address of its own for its HTTP end points is added; without one it runs as installed.
    pub configuration: Option<String>,
    /// As whom, if not as this process's user.
    pub user: Option<User>,
    /// Where it keeps its state, if that is to outlive it; else in a directory of its own.
    pub state: Option<PathBuf>,
}

impl AgentOptions {
    /// With `--capture STRATEGY` (auto, boundary, socket), and an HTTP address that no other agent has. It watches and asks no database, so that nothing
    /// moves but the load.
    pub fn capture(strategy: &str) -> AgentOptions {
        let arguments = vec!["--capture".into(), strategy.into()];
        let configuration = Some("collect:\n  enabled: false\n".to_owned());
        AgentOptions { arguments, configuration, ..AgentOptions::default() }
    }

    /// Asks databases, too, more often than usual, which may cost them more than usual; `settings` are further lines below `collect`.
    pub fn collecting(settings: &str) -> AgentOptions {
        let intervals = "  activity_interval: 500ms\n  statements_interval: 1s\n  server_interval: 1s\n  tables_interval: 2s\n  settings_interval: 1s\n  max_cpu_percent: 100\n";
        AgentOptions { configuration: Some(format!("collect:\n{intervals}{settings}")), ..AgentOptions::default() }
    }
}

/// The running agent; ended on drop.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    binary: PathBuf,
    address: SocketAddr,
    dir: TempDir,
}

impl Agent {
    /// The binary under test.
    pub fn binary() -> PathBuf {
        layout::target().join("release/querylens")
    }

    /// Starts `querylens run` and waits until it is ready.
    pub fn start(options: AgentOptions) -> Result<Agent> {
        let mut agent = Agent::spawn(options)?;
        let address = agent.address;
        wait_for("the agent's /health/ready", Duration::from_secs(30), || {
            agent.process.check_running()?;
            Ok(matches!(http::get(address, "/health/ready"), Ok((200, _))).then_some(()))
        })
        .with_context(|| format!("the agent says:\n{}", agent.stderr()))?;
        Ok(agent)
    }

    /// Starts `querylens run` without waiting for anything.
    pub fn spawn(options: AgentOptions) -> Result<Agent> {
        let binary = options.binary.unwrap_or_else(Agent::binary);
        ensure!(binary.exists(), "{} is not built: cargo build --release -p querylens", binary.display());
        let dir = tempfile::Builder::new().prefix("querylens-agent-").tempdir()?;
        let mut launch = Launch::new(&binary).arg("run").log(&dir.path().join("stderr"));
        let mut address = DEFAULT_ADDRESS;
        if let Some(configuration) = &options.configuration {
            address.set_port(free_port()?);
            let file = dir.path().join("querylens.yaml");
            fs::write(&file, format!("health:\n  listen: {address}\n{configuration}"))?;
            launch = launch.arg("--config").arg(&file);
        }
        // Another agent would answer in its place.
        ensure!(http::get(address, "/health/live").is_err(), "something else serves {address}: end it first");
        let state = options.state.unwrap_or_else(|| dir.path().join("state"));
        let socket = dir.path().join("admin.sock");
        launch = launch.arg("--set").arg(format!("state.directory={}", state.display()));
        launch = launch.arg("--set").arg(format!("health.admin_socket={}", socket.display()));
        launch = launch.args(&options.arguments);
        if let Some(user) = options.user {
            user.own(dir.path())?;
            launch = launch.user(user);
        }
        // Like an init system: it may drain.
        let process = launch.on_parent_death(libc::SIGTERM).start()?;
        Ok(Agent { process, binary, address, dir })
    }

    /// Runs another command of the agent to its end: its exit status, standard output and standard error.
    pub fn command(arguments: &[&str]) -> Result<(ExitStatus, String, String)> {
        let dir = tempfile::tempdir()?;
        let (out, err) = (dir.path().join("out"), dir.path().join("err"));
        let mut process = Launch::new(Agent::binary()).args(arguments).stdout(&out).log(&err).start()?;
        let status = process.wait(Duration::from_secs(60))?;
        Ok((status, fs::read_to_string(out)?, fs::read_to_string(err)?))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where it serves its HTTP end points, unless its configuration has changed since.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its configuration file, where it has one.
    pub fn configuration(&self) -> PathBuf {
        self.dir.path().join("querylens.yaml")
    }

    /// Its admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// What it wrote to standard output and standard error so far.
    pub fn stderr(&self) -> String {
        self.process.log()
    }

    /// Its status now.
    pub fn status(&self) -> Result<Status> {
        let (code, body) = http::get(self.address, "/status")?;
        ensure!(code == 200, "GET /status: {code} {body}");
        Status::parse(&body)
    }

    /// Its metrics now, as Prometheus reads them.
    pub fn metrics(&self) -> Result<String> {
        let (code, body) = http::get(self.address, "/metrics")?;
        ensure!(code == 200, "GET /metrics: {code} {body}");
        Ok(body)
    }

    /// Its status once no count has moved for 600 ms: everything that was under way has arrived.
    pub fn settled(&self) -> Result<Status> {
        const PAUSE: Duration = Duration::from_millis(200);
        const QUIET: u32 = 3;
        let mut last = self.status()?;
        let mut quiet = 0;
        // Statements of others may go on for ever; then the last status is as good as any.
        for _ in 0..100 {
            sleep(PAUSE)?;
            let now = self.status()?;
            quiet = if now.executions() == last.executions() { quiet + 1 } else { 0 };
            last = now;
            if quiet == QUIET {
                break;
            }
        }
        Ok(last)
    }

    /// Waits until it has found the server with this main process and sees its wire.
    pub fn wait_visible(&self, pid: u32) -> Result<Status> {
        let mut last = None;
        wait_for("the agent to find the server and see its wire", Duration::from_secs(10), || {
            let status = self.status()?;
            let visible = status.instance(pid).is_some_and(|instance| instance.wire.state == "visible");
            last = Some(status.clone());
            Ok(visible.then_some(status))
        })
        .with_context(|| format!("server {pid}, last status {last:#?}\n{}", self.stderr()))
    }

    /// Waits until the servers that it has found are old news to it: at new ones it looks more often, for the first ten seconds.
    pub fn wait_steady(&self) -> Result<()> {
        sleep(Duration::from_secs(11))
    }

    /// Asks it to end, waits for that, and checks that nothing of it is left.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let status = self.process.end(libc::SIGTERM, Duration::from_secs(15))?;
        check_nothing_left(self.pid(), &self.binary)?;
        Ok(status)
    }

    /// Kills it as a crash would, and checks that the kernel has taken away everything of it.
    pub fn kill(mut self) -> Result<()> {
        self.process.end(libc::SIGKILL, Duration::from_secs(15))?;
        check_nothing_left(self.pid(), &self.binary)
    }
}

/// Fails if anything of the ended agent is left.
///
/// An eBPF link that is not pinned lives as long as somebody holds a descriptor of it (bpf(2)), so what could remain are another process
/// that holds one, pins below /sys/fs/bpf, and events in uprobe_events of tracefs.
fn check_nothing_left(pid: u32, binary: &Path) -> Result<()> {
    if Path::new(&format!("/proc/{pid}")).exists() {
        bail!("process {pid} is still there");
    }
    let holders = bpf_holders(binary)?;
    ensure!(holders.is_empty(), "eBPF objects of the agent are still held by {holders:?}");
    for events in ["/sys/kernel/tracing/uprobe_events", "/sys/kernel/debug/tracing/uprobe_events"] {
        let events = fs::read_to_string(events).unwrap_or_default();
        ensure!(!events.contains("querylens"), "uprobe events are left:\n{events}");
    }
    ensure!(!contains_name(Path::new("/sys/fs/bpf"), "querylens"), "pinned objects are left below /sys/fs/bpf");
    Ok(())
}

/// Processes of this executable that hold an eBPF program or link.
fn bpf_holders(binary: &Path) -> Result<BTreeSet<u32>> {
    let mut holders = BTreeSet::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let is_agent = fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == binary);
        if is_agent && bpf::objects(pid) > 0 {
            holders.insert(pid);
        }
    }
    Ok(holders)
}

fn contains_name(dir: &Path, name: &str) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        entry.file_name().to_string_lossy().contains(name) || (is_dir && contains_name(&entry.path(), name))
    })
}

/// Whether this kernel has what a capture strategy needs; where not, says so on standard error, since whoever asks will skip something.
#[allow(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn kernel_supports(strategy: &str) -> bool {
    // The answer must not come from the agent under test: the kernel's own type information names its tracepoints.
    let needed: &[u8] = match strategy {
        "socket" => b"btf_trace_sock_send_length\0",
        _ => return true,
    };
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let supported = types.windows(needed.len()).any(|window| window == needed);
    if !supported {
        eprintln!(
            "SKIPPED: this kernel has not the tracepoints of capture strategy `{strategy}` (Linux 6.3 and later have)"
        );
    }
    supported
}
