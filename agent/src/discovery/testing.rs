//! Small ELF files and process directories for unit tests, so that these need neither servers nor privileges.

#![allow(clippy::unwrap_used)]

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Builds a 64-bit ELF file for this machine's byte order with a dynamic symbol table and constants.
#[derive(Clone, Default)]
pub(super) struct Elf {
    exports: Vec<String>,
    imports: Vec<String>,
    constants: Vec<u8>,
    size: u64,
    without_sections: bool,
}

impl Elf {
    pub(super) fn new() -> Elf {
        Elf { constants: vec![0], ..Elf::default() }
    }

    pub(super) fn exports(mut self, names: &[&str]) -> Elf {
        self.exports.extend(names.iter().map(ToString::to_string));
        self
    }

    pub(super) fn imports(mut self, names: &[&str]) -> Elf {
        self.imports.extend(names.iter().map(ToString::to_string));
        self
    }

    /// C string literals.
    pub(super) fn strings(mut self, strings: &[&str]) -> Elf {
        for string in strings {
            self.constants.extend_from_slice(string.as_bytes());
            self.constants.push(0);
        }
        self
    }

    pub(super) fn padded(mut self, size: u64) -> Elf {
        self.size = size;
        self
    }

    pub(super) fn without_sections(mut self) -> Elf {
        self.without_sections = true;
        self
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let mut names = vec![0];
        let mut symbols = vec![0; 24];
        let all = self.exports.iter().map(|name| (name, 3u16)).chain(self.imports.iter().map(|name| (name, 0)));
        for (name, section) in all {
            symbols.extend((names.len() as u32).to_ne_bytes());
            symbols.extend([0x12, 0]);
            symbols.extend(section.to_ne_bytes());
            symbols.extend(0x1000u64.to_ne_bytes());
            symbols.extend(16u64.to_ne_bytes());
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        // Header, one program header, contents, section headers.
        let contents = 64 + 56;
        let sections: [(u32, u64, u32, &[u8]); 3] =
            [(11, 2, 2, &symbols), (3, 2, 0, &names), (1, 2, 0, &self.constants)];
        let mut body = Vec::new();
        let mut headers = vec![0; 64];
        for (kind, flags, link, content) in sections {
            let offset = contents + body.len() as u64;
            headers.extend(0u32.to_ne_bytes());
            headers.extend(kind.to_ne_bytes());
            headers.extend(flags.to_ne_bytes());
            headers.extend(offset.to_ne_bytes());
            headers.extend(offset.to_ne_bytes());
            headers.extend((content.len() as u64).to_ne_bytes());
            headers.extend(link.to_ne_bytes());
            headers.extend(0u32.to_ne_bytes());
            headers.extend(8u64.to_ne_bytes());
            headers.extend(if kind == 11 { 24u64 } else { 0 }.to_ne_bytes());
            body.extend_from_slice(content);
            body.resize(body.len().next_multiple_of(8), 0);
        }
        let mut file = b"\x7fELF".to_vec();
        file.extend([2, if cfg!(target_endian = "little") { 1 } else { 2 }, 1, 0]);
        file.extend([0; 8]);
        file.extend(3u16.to_ne_bytes());
        file.extend(62u16.to_ne_bytes());
        file.extend(1u32.to_ne_bytes());
        file.extend(0u64.to_ne_bytes());
        file.extend(64u64.to_ne_bytes());
        let section_offset = if self.without_sections { 0 } else { contents + body.len() as u64 };
        file.extend(section_offset.to_ne_bytes());
        file.extend(0u32.to_ne_bytes());
        for half in [64, 56, 1, 64, if self.without_sections { 0 } else { 4u16 }, 0] {
            file.extend(half.to_ne_bytes());
        }
        // PT_LOAD, readable.
        file.extend(1u32.to_ne_bytes());
        file.extend(4u32.to_ne_bytes());
        for word in [contents, contents, contents, body.len() as u64, body.len() as u64, 0x1000] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(body);
        if !self.without_sections {
            file.extend(headers);
        }
        file.resize(file.len().max(self.size as usize), 0);
        file
    }
}

/// A made-up /proc. All its processes share one network namespace.
pub(super) struct Proc {
    directory: tempfile::TempDir,
    listening: RefCell<BTreeSet<u16>>,
}

/// A process in it, to be completed and then created.
pub(super) struct Fake<'a> {
    proc: &'a Proc,
    pid: u32,
    parent: u32,
    start_ticks: u64,
    ports: Vec<u16>,
}

impl Proc {
    pub(super) fn new() -> Proc {
        let proc = Proc { directory: tempfile::tempdir().unwrap(), listening: RefCell::default() };
        fs::create_dir_all(proc.root().join("sys/kernel")).unwrap();
        fs::write(proc.root().join("sys/kernel/hostname"), "host\n").unwrap();
        let init = proc.file("bin/init", &Elf::new().build());
        proc.process(1, &init).create();
        proc
    }

    /// What takes the place of /proc.
    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// A file outside of all process directories.
    pub(super) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.root().join("files").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A process that runs `executable`.
    pub(super) fn process(&self, pid: u32, executable: &Path) -> Fake<'_> {
        let directory = self.root().join(pid.to_string());
        for name in ["fd", "ns", "task/1"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        let net = self.root().join("net");
        fs::create_dir_all(&net).unwrap();
        for (link, target) in [("exe", executable), ("root", Path::new("/")), ("net", &net)] {
            symlink(target, directory.join(link)).unwrap();
        }
        for (kind, number) in [("mnt", 1), ("pid", 2), ("net", 3)] {
            symlink(format!("{kind}:[{number}]"), directory.join("ns").join(kind)).unwrap();
        }
        fs::write(directory.join("status"), "Name:\tx\nUid:\t0\t70\t70\t70\n").unwrap();
        fs::write(directory.join("cgroup"), "0::/\n").unwrap();
        Fake { proc: self, pid, parent: 1, start_ticks: 100 + u64::from(pid), ports: Vec::new() }
    }

    /// The process executes another file.
    pub(super) fn execute(&self, pid: u32, executable: &Path) {
        let link = self.root().join(pid.to_string()).join("exe");
        fs::remove_file(&link).unwrap();
        symlink(executable, link).unwrap();
    }

    /// The process begins to listen on a TCP port of 127.0.0.1.
    pub(super) fn listen(&self, pid: u32, port: u16) {
        self.listening.borrow_mut().insert(port);
        let mut table = "  sl  local_address rem_address   st\n".to_owned();
        for (at, port) in self.listening.borrow().iter().enumerate() {
            let address = u32::from_ne_bytes([127, 0, 0, 1]);
            table += &format!("{at}: {address:08X}:{port:04X} 00000000:0000 0A 0:0 0:0 0 70 0 {port} 1 0 100\n");
        }
        fs::write(self.root().join("net/tcp"), table).unwrap();
        self.inherit(pid, port);
    }

    /// The process holds the socket that listens on `port`. The socket's inode is the port.
    pub(super) fn inherit(&self, pid: u32, port: u16) {
        let link = self.root().join(format!("{pid}/fd/{port}"));
        symlink(format!("socket:[{port}]"), link).unwrap();
    }

    /// The process forked `children`.
    pub(super) fn children(&self, pid: u32, children: &str) {
        fs::write(self.root().join(format!("{pid}/task/1/children")), children).unwrap();
    }

    /// The process ends.
    pub(super) fn end(&self, pid: u32) {
        fs::remove_dir_all(self.root().join(pid.to_string())).unwrap();
    }
}

impl Fake<'_> {
    pub(super) fn parent(mut self, parent: u32) -> Self {
        self.parent = parent;
        self
    }

    pub(super) fn start_ticks(mut self, start_ticks: u64) -> Self {
        self.start_ticks = start_ticks;
        self
    }

    pub(super) fn cwd(self, path: &Path) -> Self {
        symlink(path, self.path("cwd")).unwrap();
        self
    }

    pub(super) fn cgroup(self, path: &str) -> Self {
        fs::write(self.path("cgroup"), format!("0::{path}\n")).unwrap();
        self
    }

    pub(super) fn listens(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// It runs from now on.
    pub(super) fn create(self) {
        let stat = format!(
            "{} (some name) S {} 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {} 0 0",
            self.pid, self.parent, self.start_ticks
        );
        fs::write(self.path("stat"), stat).unwrap();
        for port in &self.ports {
            self.proc.listen(self.pid, *port);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.proc.root().join(self.pid.to_string()).join(name)
    }
}
