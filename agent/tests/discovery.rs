//! Discovery of real servers, started here and ended on drop.
//!
//! Proves: each kind of server is found as what it is, within a second of accepting connections, whatever its name, port, root directory
//! and namespaces; clients and decoys are not. Does not prove: the shapes of container runtimes, which are not to be had
//! in a test (the unit tests hold recorded ones). Other servers may run on the machine: each test looks for its own.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use querylens::{
    discovery::{Change, Config, Discovery},
    model::{Engine, Instance, Listen, Verdict},
};
use tempfile::TempDir;

/// Limit for finding a server and for noticing its end: a second, but code that is not optimised searches an executable of 26 MB
/// for nearly as long.
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 1 });
/// Limit for a server's start, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";
const MARIADB: &str = "/usr/sbin/mariadbd";

/// A server, client or decoy that is killed on drop.
struct Running(Child);

impl Running {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The process itself, or its child if it only waits for that, as `unshare --fork` does.
    fn main_pid(&self) -> u32 {
        let pid = self.pid();
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        match children.split_whitespace().next() {
            Some(child) if program.ends_with("unshare") => child.parse().unwrap(),
            _ => pid,
        }
    }

    fn kill(&mut self) {
        let pid = self.main_pid();
        // A postmaster leaves on SIGQUIT with all its children; mysqld would dump core.
        let gentle = Path::new(&format!("/proc/{pid}/cwd/PG_VERSION")).exists();
        let signal = if gentle { libc::SIGQUIT } else { libc::SIGKILL };
        // SAFETY: the child has not been waited for, nor has its own child if that is meant, so the number is theirs.
        unsafe { libc::kill(pid as libc::pid_t, signal) };
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if self.0.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.kill();
        }
    }
}

/// The user and group of this name, or those of nobody where there is none: the packages of the bare servers make no user.
fn user(name: &str) -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let named = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    named.map_or((65534, 65534), |fields| (fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// A directory that belongs to `name` and that everybody may enter.
fn directory_of(name: &str) -> TempDir {
    let directory = tempfile::Builder::new().prefix("querylens-discovery-").tempdir_in("/tmp").unwrap();
    let (uid, gid) = user(name);
    chown(directory.path(), Some(uid), Some(gid)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `program` as the user `name`.
fn as_user(name: &str, program: impl AsRef<Path>) -> Command {
    let (uid, gid) = user(name);
    let mut command = Command::new(program.as_ref());
    command.uid(uid).gid(gid).current_dir("/").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn spawn(command: &mut Command, log: &Path) -> Running {
    let log = fs::File::create(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Running(command.spawn().unwrap())
}

/// A fresh PostgreSQL cluster.
struct Cluster {
    directory: TempDir,
    bin: PathBuf,
    port: u16,
}

impl Cluster {
    fn new(bin: impl Into<PathBuf>) -> Cluster {
        let cluster = Cluster { directory: directory_of("postgres"), bin: bin.into(), port: free_port() };
        run(as_user("postgres", cluster.bin.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(cluster.data()));
        cluster
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn socket(&self) -> PathBuf {
        self.path().join(format!(".s.PGSQL.{}", self.port))
    }

    fn arguments(&self, addresses: &str) -> Vec<String> {
        let setting = |setting: String| ["-c".to_owned(), setting];
        let mut arguments = vec!["-D".to_owned(), self.data().display().to_string()];
        arguments.extend(setting("fsync=off".to_owned()));
        arguments.extend(setting(format!("port={}", self.port)));
        arguments.extend(setting(format!("listen_addresses={addresses}")));
        arguments.extend(setting(format!("unix_socket_directories={}", self.path().display())));
        arguments
    }

    fn spawn(&self, addresses: &str) -> Running {
        self.spawn_as(&self.bin.join("postgres"), addresses)
    }

    fn spawn_as(&self, program: &Path, addresses: &str) -> Running {
        spawn(as_user("postgres", program).args(self.arguments(addresses)), &self.path().join("log"))
    }

    /// As `spawn`, but within `wrapper`, a program that runs as root and takes a command.
    fn spawn_in(&self, wrapper: &[&str], addresses: &str) -> Running {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).args(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command.arg(self.bin.join("postgres")).args(self.arguments(addresses)).current_dir("/");
        spawn(&mut command, &self.path().join("log"))
    }

    fn listens_at(&self) -> [Listen; 2] {
        [Listen::Tcp(([127, 0, 0, 1], self.port).into()), Listen::Unix(self.socket())]
    }
}

/// Runs a discovery in real time.
struct Watch {
    discovery: Discovery,
}

impl Watch {
    fn new() -> Watch {
        let mut discovery = Discovery::new(Config::default());
        discovery.scan(Instant::now());
        Watch { discovery }
    }

    /// Runs until `wanted` says so of a change, at most for `limit`.
    fn until<T>(&mut self, limit: Duration, mut wanted: impl FnMut(&Change) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            let now = Instant::now();
            if let Some(found) = self.discovery.tick(now).iter().find_map(&mut wanted) {
                return Some(found);
            }
            let sleep = self.discovery.next_tick().saturating_duration_since(now);
            std::thread::sleep(sleep.clamp(Duration::from_millis(1), Duration::from_millis(20)));
        }
        None
    }

    /// The server whose data directory lies beneath `directory`, when it listens in all `places` places. It must be told
    /// within the limit after `accepts` first says that it accepts connections.
    fn server(
        &mut self,
        directory: &Path,
        places: usize,
        accepts: impl Fn() -> bool + Send + 'static,
    ) -> Arc<Instance> {
        let accepting = std::thread::spawn(move || {
            let end = Instant::now() + START_LIMIT;
            while !accepts() {
                assert!(Instant::now() < end, "the server does not start");
                std::thread::sleep(Duration::from_millis(2));
            }
            Instant::now()
        });
        let mut first = None;
        let mut last = None;
        let complete = |change: &Change| match change {
            Change::Found(instance) | Change::Updated(instance)
                if instance.data_dir.as_ref().is_some_and(|data| data.starts_with(directory)) =>
            {
                first.get_or_insert_with(Instant::now);
                last = Some(instance.clone());
                (instance.listen.len() >= places).then(|| instance.clone())
            }
            _ => None,
        };
        let instance = self.until(START_LIMIT, complete);
        let accepting = accepting.join().unwrap();
        let instance = instance.unwrap_or_else(|| panic!("no such server was found; last seen: {last:?}"));
        let delay = first.unwrap().saturating_duration_since(accepting);
        assert!(delay < LIMIT, "found {delay:?} after it accepted connections");
        instance
    }

    fn gone(&mut self, instance: &Instance) {
        let gone = self.until(LIMIT, |change| (*change == Change::Gone(instance.key)).then_some(()));
        assert!(gone.is_some(), "the end of {} was not noticed within {LIMIT:?}", instance.label());
    }
}

fn accepts_tcp(port: u16) -> impl Fn() -> bool + Send + 'static {
    move || TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn accepts_unix(path: PathBuf) -> impl Fn() -> bool + Send + 'static {
    move || UnixStream::connect(&path).is_ok()
}

/// What `program --version` says, from the first digit to the next blank.
fn version_of(program: &Path) -> String {
    let output = String::from_utf8(Command::new(program).arg("--version").output().unwrap().stdout).unwrap();
    let from = output.find(|c: char| c.is_ascii_digit()).unwrap();
    output[from..].split_whitespace().next().unwrap().to_owned()
}

/// Where `cargo xtask setup` unpacks servers that the machine's packages do not have.
fn unpacked(name: &str) -> Option<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let path = checkout.join(target).join("servers").join(name);
    if !path.exists() {
        eprintln!("SKIPPED: nothing is tested with {name}, which is not in {}: run cargo xtask setup", path.display());
        return None;
    }
    Some(path)
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn postgresql_is_found_with_all_its_properties() {
    let cluster = Cluster::new(POSTGRES);
    let mut watch = Watch::new();
    let mut running = cluster.spawn("127.0.0.1,::1");
    let instance = watch.server(cluster.path(), 3, accepts_tcp(cluster.port));
    assert_eq!(instance.key.pid, running.pid());
    assert_eq!(instance.engine, Engine::Postgresql);
    assert_eq!(instance.version, Some(version_of(&cluster.bin.join("postgres"))));
    assert_eq!(instance.executable, cluster.bin.join("postgres"));
    assert_eq!(instance.data_dir, Some(cluster.data()));
    assert_eq!(instance.uid, user("postgres").0);
    let [v4, unix] = cluster.listens_at();
    assert_eq!(instance.listen, [v4, Listen::Tcp(format!("[::1]:{}", cluster.port).parse().unwrap()), unix]);
    assert_eq!(instance.container, None);

    // Three clients: their backends are workers, they themselves are nothing.
    let clients: Vec<Running> = (0..3)
        .map(|at| {
            let mut client = as_user("postgres", cluster.bin.join("psql"));
            client.args(["-X", "-h", "127.0.0.1", "-p", &cluster.port.to_string(), "-c", "select pg_sleep(60)"]);
            spawn(&mut client, &cluster.path().join(format!("psql{at}")))
        })
        .collect();
    let end = Instant::now() + START_LIMIT;
    let by_ps = loop {
        let output = Command::new("ps").args(["--ppid", &running.pid().to_string(), "-o", "pid="]).output().unwrap();
        let pids: Vec<u32> =
            String::from_utf8(output.stdout).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        // checkpointer, writer, walwriter, autovacuum and logical replication launchers, and the three.
        if pids.len() >= 8 {
            break pids;
        }
        assert!(Instant::now() < end, "{pids:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(watch.discovery.backends(running.pid()), by_ps);
    let other = watch.until(Duration::from_secs(2), |change| match change {
        Change::Found(instance) if instance.data_dir.as_ref().is_some_and(|data| data.starts_with(cluster.path())) => {
            Some(instance.clone())
        }
        _ => None,
    });
    assert_eq!(other, None, "backends and clients are no servers");
    assert!(!watch.discovery.open_sockets(running.pid()).unwrap().is_empty());

    drop(clients);
    running.kill();
    watch.gone(&instance);
    // The next one at the same place is the same to whoever reads metrics.
    let _running = cluster.spawn("127.0.0.1");
    let again = watch.server(cluster.path(), 2, accepts_tcp(cluster.port));
    assert_ne!(again.key, instance.key);
    assert_eq!(again.service_instance_id, instance.service_instance_id);
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn the_kernels_events_suffice() {
    let cluster = Cluster::new(POSTGRES);
    let mut watch = Watch::new();
    let mut running = cluster.spawn("127.0.0.1");
    watch.discovery.process_started(running.pid(), Instant::now());
    let instance = watch.server(cluster.path(), 2, accepts_tcp(cluster.port));
    assert_eq!(instance.key.pid, running.pid());
    running.kill();
    assert_eq!(watch.discovery.process_ended(running.pid()), [Change::Gone(instance.key)]);
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn a_killed_postmaster_is_gone() {
    let cluster = Cluster::new(POSTGRES);
    let mut watch = Watch::new();
    let running = cluster.spawn("127.0.0.1");
    let instance = watch.server(cluster.path(), 2, accepts_tcp(cluster.port));
    // SAFETY: the child has not been waited for, so its number is its own. It stays as a zombie until `running` is dropped.
    unsafe { libc::kill(running.pid() as libc::pid_t, libc::SIGKILL) };
    watch.gone(&instance);
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn a_server_with_only_a_unix_socket_is_found() {
    let cluster = Cluster::new(POSTGRES);
    let mut watch = Watch::new();
    let _running = cluster.spawn("");
    let instance = watch.server(cluster.path(), 1, accepts_unix(cluster.socket()));
    assert_eq!(instance.listen, [Listen::Unix(cluster.socket())]);
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn a_renamed_and_deleted_executable_is_still_a_server() {
    let cluster = Cluster::new(POSTGRES);
    let program = cluster.path().join("web browser (new)");
    fs::copy(cluster.bin.join("postgres"), &program).unwrap();
    let mut watch = Watch::new();
    let running = cluster.spawn_as(&program, "127.0.0.1");
    let first = watch.server(cluster.path(), 2, accepts_tcp(cluster.port));
    assert_eq!(first.executable, program);

    // As a package upgrade does it. Another agent, started now, must see the same.
    fs::remove_file(&program).unwrap();
    let mut discovery = Discovery::new(Config::default());
    discovery.scan(Instant::now());
    let second = discovery.instances().find(|instance| instance.key.pid == running.pid()).unwrap();
    assert_eq!(*second, first);
    assert_eq!(second.version, Some(version_of(&cluster.bin.join("postgres"))));
}

/// Copies an executable without its section headers, which programs need to run no more than to be debugged: no symbol can be
/// found in it then.
fn copy_without_sections(from: &Path, to: &Path) {
    let mut bytes = fs::read(from).unwrap();
    assert_eq!(bytes[4], 2, "a 64-bit file");
    // e_shoff; e_shnum and e_shstrndx.
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    fs::write(to, bytes).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn servers_without_symbols_are_found_by_their_messages() {
    let cluster = Cluster::new(POSTGRES);
    let program = cluster.path().join("p");
    copy_without_sections(&cluster.bin.join("postgres"), &program);
    let mut watch = Watch::new();
    let _running = cluster.spawn_as(&program, "127.0.0.1");
    let instance = watch.server(cluster.path(), 2, accepts_tcp(cluster.port));
    assert_eq!(instance.version, Some(version_of(&cluster.bin.join("postgres"))));

    let directory = directory_of("mysql");
    let program = directory.path().join("m");
    copy_without_sections(Path::new(MARIADB), &program);
    let mariadb = MariaDb::new(directory);
    let _running = mariadb.spawn(&program);
    let instance = watch.server(mariadb.directory.path(), 2, accepts_tcp(mariadb.port));
    check_mysqld(&instance, Engine::Mariadb, mariadb.port, &mariadb.socket(), &mariadb.data());
    assert!(version_of(Path::new(MARIADB)).starts_with(instance.version.as_deref().unwrap()));
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn other_major_versions_are_found() {
    for major in ["14", "16", "17", "18"] {
        let Some(tree) = unpacked(&format!("postgresql-{major}")) else { continue };
        // Beneath root's own directories the server's user may not be allowed to run it.
        let copy = directory_of("postgres");
        run(Command::new("cp").args(["-a", "--"]).arg(tree.join(".")).arg(copy.path()));
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for strip in [false, true] {
            if strip {
                run(Command::new("strip").arg(copy.path().join("bin/postgres")));
            }
            let cluster = Cluster::new(copy.path().join("bin"));
            let mut watch = Watch::new();
            let _running = cluster.spawn("127.0.0.1");
            let instance = watch.server(cluster.path(), 2, accepts_tcp(cluster.port));
            assert_eq!(instance.version, Some(version_of(&cluster.bin.join("postgres"))));
            assert!(instance.version.as_ref().unwrap().starts_with(major));
        }
    }
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn servers_in_namespaces_are_found() {
    let (here, there) = (Cluster::new(POSTGRES), Cluster::new(POSTGRES));
    // The same port on the same address twice: only the network namespace tells them apart.
    let there = Cluster { port: here.port, ..there };
    let mut watch = Watch::new();
    let _here = here.spawn("127.0.0.1");
    let first = watch.server(here.path(), 2, accepts_tcp(here.port));
    let script = r#"ip link set lo up && exec "$@""#;
    let _there = there.spawn_in(&["unshare", "--net", "sh", "-c", script, "sh"], "127.0.0.1");
    let second = watch.server(there.path(), 2, accepts_unix(there.socket()));
    assert_eq!(second.listen, there.listens_at());
    assert_eq!(first.listen[0], second.listen[0]);
    assert_ne!(first.service_instance_id, second.service_instance_id);
    assert_eq!(first.container, None);
    assert_eq!(second.container.as_ref().unwrap().runtime, "namespace");

    let inner = Cluster::new(POSTGRES);
    let wrapper = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut running = inner.spawn_in(&wrapper, "127.0.0.1");
    let instance = watch.server(inner.path(), 2, accepts_tcp(inner.port));
    assert_ne!(instance.key.pid, 1, "numbers are those of the agent's namespace");
    assert_eq!(instance.container.as_ref().unwrap().runtime, "namespace");
    assert_eq!(instance.data_dir, Some(inner.data()));
    running.kill();
    watch.gone(&instance);
}

/// What the tests do with MariaDB and MySQL alike.
fn check_mysqld(instance: &Instance, engine: Engine, port: u16, socket: &Path, data: &Path) {
    assert_eq!(instance.engine, engine);
    assert_eq!(instance.listen, [Listen::Tcp(([127, 0, 0, 1], port).into()), Listen::Unix(socket.to_owned())]);
    assert_eq!(instance.data_dir.as_deref(), Some(data));
}

/// A fresh MariaDB data directory.
struct MariaDb {
    directory: TempDir,
    port: u16,
}

impl MariaDb {
    fn new(directory: TempDir) -> MariaDb {
        let mariadb = MariaDb { directory, port: free_port() };
        run(as_user("mysql", "/usr/bin/mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", mariadb.data().display())));
        mariadb
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s.sock")
    }

    fn spawn(&self, program: &Path) -> Running {
        let mut server = as_user("mysql", program);
        server.args(["--no-defaults", "--bind-address=127.0.0.1", "--innodb-flush-method=nosync"]);
        server.args([
            format!("--datadir={}", self.data().display()),
            format!("--socket={}", self.socket().display()),
            format!("--port={}", self.port),
        ]);
        spawn(&mut server, &self.directory.path().join("log"))
    }
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn mariadb_is_found() {
    let mariadb = MariaDb::new(directory_of("mysql"));
    let mut watch = Watch::new();
    let mut running = mariadb.spawn(Path::new(MARIADB));
    let instance = watch.server(mariadb.directory.path(), 2, accepts_tcp(mariadb.port));
    check_mysqld(&instance, Engine::Mariadb, mariadb.port, &mariadb.socket(), &mariadb.data());
    assert_eq!((instance.key.pid, instance.uid), (running.pid(), user("mysql").0));
    // The distribution's suffix is added at run time.
    let version = instance.version.clone().unwrap();
    assert!(version.ends_with("-MariaDB"), "{version}");
    assert!(version_of(Path::new(MARIADB)).starts_with(&version), "{version}");
    assert_eq!(instance.container, None);
    running.kill();
    watch.gone(&instance);
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn mysql_in_a_chroot_is_found() {
    let Some(root) = unpacked("mysql") else { return };
    let root = root.canonicalize().unwrap();
    fs::create_dir_all(root.join("tmp")).unwrap();
    let directory = tempfile::Builder::new().prefix("querylens-discovery-").tempdir_in(root.join("tmp")).unwrap();
    // No user of this machine.
    chown(directory.path(), Some(1999), Some(1999)).unwrap();
    let inside = Path::new("/tmp").join(directory.path().file_name().unwrap());
    let port = free_port();
    let mysqld = |arguments: &[&str]| {
        let mut command = Command::new("chroot");
        command.arg("--userspec=1999:1999").arg(&root).arg("/usr/sbin/mysqld").args(["--no-defaults"]).args(arguments);
        command.args([
            "--secure-file-priv=NULL".to_owned(),
            format!("--datadir={}/data", inside.display()),
            format!("--tmpdir={}", inside.display()),
            "--innodb-redo-log-capacity=8M".to_owned(),
        ]);
        command
    };
    run(&mut mysqld(&["--initialize-insecure"]));
    let mut watch = Watch::new();
    let socket = inside.join("s.sock");
    let mut running = spawn(
        &mut mysqld(&[
            "--mysqlx=OFF",
            "--bind-address=127.0.0.1",
            &format!("--port={port}"),
            &format!("--socket={}", socket.display()),
        ]),
        &directory.path().join("log"),
    );
    let instance = watch.server(&inside, 2, accepts_tcp(port));
    check_mysqld(&instance, Engine::Mysql, port, &socket, &inside.join("data"));
    assert_eq!((instance.key.pid, instance.uid), (running.pid(), 1999));
    assert_eq!(instance.executable, Path::new("/usr/sbin/mysqld"));
    let container = instance.container.as_ref().unwrap();
    assert_eq!((container.runtime.as_str(), container.root.as_deref()), ("chroot", Some(&*root)));
    let output = Command::new("chroot").arg(&root).args(["/usr/sbin/mysqld", "--version"]).output().unwrap();
    let version = instance.version.as_deref().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("Ver {version}")), "{version} is not in {said}");
    running.kill();
    watch.gone(&instance);
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn decoys_are_not_servers() {
    let directory = tempfile::tempdir().unwrap();
    let named_postgres = |content: &str| {
        let path = directory.path().join(format!("{content}-dir/postgres"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let python = PathBuf::from(String::from_utf8(python.stdout).unwrap().trim());
    let listen = "import socket, time\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\ntime.sleep(60)\n";

    // A script, a whole interpreter and a tool, all named after the server; the first two listen.
    let script = named_postgres("script");
    fs::write(&script, format!("#!{}\n{listen}", python.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let interpreter = named_postgres("interpreter");
    std::os::unix::fs::symlink(&python, &interpreter).unwrap();
    let sleep = named_postgres("sleep");
    fs::copy("/bin/sleep", &sleep).unwrap();
    let safe = directory.path().join("mysqld_safe");
    fs::write(&safe, "#!/bin/sh\nsleep 60 & wait\n").unwrap();
    fs::set_permissions(&safe, fs::Permissions::from_mode(0o755)).unwrap();

    let mut discovery = Discovery::new(Config::default());
    let mut decoys = Vec::new();
    for mut command in [
        Command::new(&script),
        {
            let mut command = Command::new(&interpreter);
            command.args(["-c", listen]);
            command
        },
        {
            let mut command = Command::new(&sleep);
            command.arg("60");
            command
        },
        Command::new(&safe),
    ] {
        decoys.push(spawn(command.process_group(0), &directory.path().join("log")));
    }
    let listening = |pid: u32| {
        let sockets = Discovery::new(Config::default()).open_sockets(pid).unwrap_or_default();
        !sockets.is_empty()
    };
    let end = Instant::now() + START_LIMIT;
    while !decoys[..2].iter().all(|decoy| listening(decoy.pid())) {
        assert!(Instant::now() < end, "the decoys do not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    discovery.scan(Instant::now());
    let mut watch = Watch { discovery };
    watch.until(Duration::from_secs(2), |_| None::<()>);
    for decoy in &decoys {
        let pid = decoy.pid();
        assert!(watch.discovery.instances().all(|instance| instance.key.pid != pid), "{pid}");
    }
    // The shell's own child.
    for decoy in &decoys {
        // SAFETY: the group was made for this child and ends with it.
        unsafe { libc::kill(-(decoy.pid() as libc::pid_t), libc::SIGKILL) };
    }
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn without_privileges_servers_are_told_as_unseen() {
    let cluster = Cluster::new(POSTGRES);
    let mut watch = Watch::new();
    let running = cluster.spawn("127.0.0.1");
    watch.server(cluster.path(), 2, accepts_tcp(cluster.port));
    let pid = running.pid();
    let (found, unseen) = std::thread::spawn(move || {
        // SAFETY: the raw system call changes only this thread, which ends here; glibc's wrapper would change all.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, -1, 65_534, -1) }, 0);
        let mut discovery = Discovery::new(Config::default());
        discovery.scan(Instant::now());
        let found = discovery.instances().any(|instance| instance.key.pid == pid);
        (found, discovery.unseen().find(|unseen| unseen.pid == Some(pid)).cloned())
    })
    .join()
    .unwrap();
    assert!(!found);
    let unseen = unseen.unwrap();
    assert_eq!(unseen.name, "postgres");
    assert!(matches!(&unseen.verdict, Verdict::Denied(why) if why.contains("CAP_SYS_PTRACE")), "{unseen:?}");
}
