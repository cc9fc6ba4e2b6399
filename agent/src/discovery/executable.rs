//! What an executable is, told by its content: never by its name.
//!
//! The servers export their functions to the modules they load, so the dynamic symbol table of even a stripped build tells them
//! from their clients. Where it does not (a static build, exports hidden by a linker script), distinctive messages among the read-only data do.
//! Nothing is executed or mapped; only the parts needed are read, through /proc/PID/exe, which leads to the running file
//! also when it lies in a container or was replaced.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use memchr::{memchr, memmem, memrchr};
use object::{
    Endianness, FileKind, ReadCache,
    elf::{self, FileHeader32, FileHeader64},
    read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym},
};

use crate::model::{Engine, Pooler};

/// Functions that only the PostgreSQL server exports, in all versions from 13 to 18. pg_ctl, psql and pgbench have none of them.
const POSTGRES_EXPORTS: [&str; 3] = ["PostmasterMain", "secure_read", "secure_write"];
/// `int mysqld_main(int, char **)`, exported by mysqld since 5.5 and by mariadbd. Clients and storage tools do not have it.
const MYSQLD_EXPORT: &str = "_Z11mysqld_mainiPPc";
/// Messages that are whole C strings in each PostgreSQL server and in no other of its programs.
const POSTGRES_MESSAGES: [&str; 3] = [
    "database system is ready to accept connections",
    "received smart shutdown request",
    "invalid length of startup packet",
];
/// Help texts that are whole C strings in both mysqld 9 and mariadbd 10.11, and in none of their other programs.
const MYSQLD_MESSAGES: [&str; 3] =
    ["Chroot mysqld daemon during startup.", "Lock mysqld in memory.", "Pid file used by safe_mysqld"];
/// A function of libevent without which PgBouncer does not work (src/main.c). Few programs import it, and PgBouncer is too small to be searched
/// for its messages without such a hint.
const PGBOUNCER_IMPORT: &str = "event_base_loop";
/// Names of settings and messages that are whole C strings in PgBouncer since 1.8, and in no client of it.
const PGBOUNCER_MESSAGES: [&str; 3] = ["server_reset_query_always", "pooler error: %s", "query_wait_timeout"];
/// Messages of ProxySQL since 2.0 (lib/ProxySQL_Admin.cpp, lib/MySQL_Session.cpp). Not compared with a build of it: Debian has none.
const PROXYSQL_MESSAGES: [&str; 2] = [
    "Standard ProxySQL Admin rev. %s -- %s -- %s\n",
    "ProxySQL Error: connection is locked to hostgroup %d but trying to reach hostgroup %d",
];
/// What the strings that hold a version have in common; see [`postgres_version`] and its neighbours for the rest.
const POSTGRES_VERSION: &str = "PostgreSQL ";
const PGBOUNCER_VERSION: &str = "PgBouncer ";
const MYSQL_VERSION: &str = "MySQL ";
const MARIADB_VERSION: &str = "-MariaDB";

/// Executables below this size are not searched for messages: the smallest known server has twice as much.
const SEARCH_THRESHOLD: u64 = 4 * 1024 * 1024;
/// Bound on one symbol or string table. That of mysqld 9 has 6 MB.
const TABLE_LIMIT: u64 = 64 * 1024 * 1024;
/// Bound on the read-only data searched. That of mysqld 9 has 14 MB.
const SEARCH_LIMIT: u64 = 128 * 1024 * 1024;
/// Bound on the places looked at more closely. mysqld 9 has a thousand that mention MySQL; a forged file could have millions.
const HIT_LIMIT: usize = 100_000;
/// Piece of read-only data held at once.
const CHUNK: usize = 1024 * 1024;
/// Longest C string that is looked at; pieces overlap by as much.
const STRING_LIMIT: usize = 1024;
/// Bound on the executables remembered. At the bound all are forgotten and told again when met.
const CACHE_LIMIT: usize = 8192;

/// Identity of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl FileId {
    fn new(metadata: &Metadata) -> FileId {
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
        }
    }

    /// Identity of the file that `path` leads to.
    pub(super) fn of(path: &Path) -> io::Result<FileId> {
        fs::metadata(path).map(|metadata| FileId::new(&metadata))
    }

    /// Whether both are the same file, even if it was touched in between.
    pub(super) fn is_same_file(self, other: FileId) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A database server's software.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Software {
    pub(super) engine: Engine,
    pub(super) pooler: Option<Pooler>,
    /// As compiled in; `None` where it is not found or not unique.
    pub(super) version: Option<String>,
}

/// What an executable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A database server.
    Server(Arc<Software>),
    /// Exports nothing that tells, but is large enough to be a server; its messages have not been searched.
    Undecided,
    /// Anything else.
    Other,
}

/// Executables told so far.
#[derive(Debug, Default)]
pub(super) struct Executables {
    kinds: HashMap<FileId, Kind>,
    forgotten: u64,
}

impl Executables {
    /// What the executable at `path` is, by its symbols; costs one system call if it is known.
    pub(super) fn identify(&mut self, path: &Path) -> io::Result<(FileId, Kind)> {
        let id = FileId::of(path)?;
        if let Some(kind) = self.kinds.get(&id) {
            return Ok((id, kind.clone()));
        }
        self.examine(path, by_symbols)
    }

    /// Decides on an executable that [`Executables::identify`] left undecided, by its messages: reads all its read-only data.
    pub(super) fn decide(&mut self, path: &Path) -> io::Result<(FileId, Kind)> {
        self.examine(path, by_messages)
    }

    /// How many executables were forgotten at the bound.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn examine(&mut self, path: &Path, method: fn(&File) -> Option<Kind>) -> io::Result<(FileId, Kind)> {
        let file = File::open(path)?;
        // The process may have executed another file since `identify` looked: what counts is what was opened.
        let id = FileId::new(&file.metadata()?);
        let kind = method(&file).unwrap_or(Kind::Other);
        if self.kinds.len() >= CACHE_LIMIT {
            self.forgotten += self.kinds.len() as u64;
            self.kinds.clear();
        }
        self.kinds.insert(id, kind.clone());
        Ok((id, kind))
    }
}

fn by_symbols(file: &File) -> Option<Kind> {
    let image = Image::read(file)?;
    let exports = |name: &str| image.exports.contains(name);
    if POSTGRES_EXPORTS.into_iter().all(exports) {
        return Some(Survey::of(file, &image.read_only, [POSTGRES_VERSION]).server(Engine::Postgresql));
    }
    if exports(MYSQLD_EXPORT) {
        return Some(Survey::of(file, &image.read_only, [MYSQL_VERSION, MARIADB_VERSION]).mysqld());
    }
    let size = file.metadata().ok()?.size();
    Some(if size >= SEARCH_THRESHOLD || image.may_be_pgbouncer { Kind::Undecided } else { Kind::Other })
}

fn by_messages(file: &File) -> Option<Kind> {
    let image = Image::read(file)?;
    // Most large programs that listen are no servers: one message of each is enough to see that.
    let firsts = [POSTGRES_MESSAGES[0], MYSQLD_MESSAGES[0], PGBOUNCER_MESSAGES[0], PROXYSQL_MESSAGES[0]];
    let first = Survey::of(file, &image.read_only, firsts);
    let all_of = |messages: &[&'static str], versions: &[&'static str]| {
        first.messages.contains(messages[0]).then_some(())?;
        let wanted = messages.iter().chain(versions).copied();
        let survey = Survey::of(file, &image.read_only, wanted);
        messages.iter().all(|message| survey.messages.contains(message)).then_some(survey)
    };
    all_of(&POSTGRES_MESSAGES, &[POSTGRES_VERSION])
        .map(|survey| survey.server(Engine::Postgresql))
        .or_else(|| all_of(&MYSQLD_MESSAGES, &[MYSQL_VERSION, MARIADB_VERSION]).map(|survey| survey.mysqld()))
        .or_else(|| all_of(&PGBOUNCER_MESSAGES, &[PGBOUNCER_VERSION]).map(|survey| survey.pooler(Pooler::PgBouncer)))
        .or_else(|| all_of(&PROXYSQL_MESSAGES, &[]).map(|survey| survey.pooler(Pooler::ProxySql)))
}

/// What the ELF headers and the dynamic symbol table tell.
struct Image {
    /// Those of the wanted names that the file itself defines.
    exports: BTreeSet<&'static str>,
    /// Offset and size of the parts that hold constants.
    read_only: Vec<(u64, u64)>,
    /// Imports what PgBouncer does.
    may_be_pgbouncer: bool,
}

impl Image {
    /// `None` for anything but a well-formed ELF file.
    fn read(file: &File) -> Option<Image> {
        let cache = ReadCache::new(file);
        match FileKind::parse(&cache).ok()? {
            FileKind::Elf32 => Image::parse::<FileHeader32<Endianness>>(&cache),
            FileKind::Elf64 => Image::parse::<FileHeader64<Endianness>>(&cache),
            _ => None,
        }
    }

    fn parse<Elf: FileHeader<Endian = Endianness>>(data: &ReadCache<&File>) -> Option<Image> {
        let header = Elf::parse(data).ok()?;
        let endian = header.endian().ok()?;
        // Counts beyond 16 bits, which only such headers allow, would let a forged file demand gigabytes.
        let sections = match header.e_shnum(endian) {
            0 => &[][..],
            _ => header.section_headers(endian, data).ok()?,
        };
        let mut image = Image { exports: BTreeSet::new(), read_only: Vec::new(), may_be_pgbouncer: false };
        let mut symbols_seen = false;
        for section in sections {
            let flags = section.sh_flags(endian);
            if section.sh_type(endian) == elf::SHT_DYNSYM {
                // There is one at most (gABI, "Section Types"); reading more would let a forged file fill the memory.
                if std::mem::replace(&mut symbols_seen, true) {
                    continue;
                }
                let strings = sections.get(section.sh_link(endian) as usize)?;
                image.collect_exports::<Elf>(endian, data, section, strings)?;
            } else if section.sh_type(endian) == elf::SHT_PROGBITS
                && flags.contains(elf::SHF_ALLOC)
                && !flags.contains(elf::SHF_WRITE)
                && !flags.contains(elf::SHF_EXECINSTR)
            {
                image.read_only.extend(section.file_range(endian));
            }
        }
        if image.read_only.is_empty() && header.e_phnum(endian) != elf::PN_XNUM {
            // The section headers were stripped off; the loader needs none. Older linkers put constants beside the code.
            let segments = header.program_headers(endian, data).ok()?;
            let readable = |avoid| {
                let wanted = move |segment: &&Elf::ProgramHeader| {
                    segment.p_type(endian) == elf::PT_LOAD && !segment.p_flags(endian).intersects(avoid)
                };
                segments.iter().filter(wanted).map(|segment| segment.file_range(endian)).collect::<Vec<_>>()
            };
            image.read_only = readable(elf::PF_W | elf::PF_X);
            if image.read_only.is_empty() {
                image.read_only = readable(elf::PF_W);
            }
        }
        Some(image)
    }

    fn collect_exports<Elf: FileHeader<Endian = Endianness>>(
        &mut self,
        endian: Endianness,
        data: &ReadCache<&File>,
        symbols: &Elf::SectionHeader,
        strings: &Elf::SectionHeader,
    ) -> Option<()> {
        if symbols.sh_size(endian).into() > TABLE_LIMIT || strings.sh_size(endian).into() > TABLE_LIMIT {
            return None;
        }
        let strings = strings.data(endian, data).ok()?;
        for symbol in symbols.data_as_array::<Elf::Sym, _>(endian, data).ok()? {
            let Some(tail) = strings.get(symbol.st_name(endian) as usize..) else { continue };
            let is = |name: &str| tail.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
            if symbol.is_undefined(endian) {
                self.may_be_pgbouncer |= is(PGBOUNCER_IMPORT);
                continue;
            }
            self.exports.extend(POSTGRES_EXPORTS.into_iter().chain([MYSQLD_EXPORT]).find(|name| is(name)));
        }
        Some(())
    }
}

/// What was found among the constants of an executable.
#[derive(Debug, Default)]
struct Survey {
    messages: BTreeSet<&'static str>,
    postgres_versions: BTreeSet<String>,
    mysql_versions: BTreeSet<String>,
    mariadb_versions: BTreeSet<String>,
    pgbouncer_versions: BTreeSet<String>,
    hits: usize,
}

impl Survey {
    /// Searches the given parts of the file for strings that hold one of `wanted`; what cannot be read is as if it were not there.
    fn of(file: &File, parts: &[(u64, u64)], wanted: impl IntoIterator<Item = &'static str>) -> Survey {
        let mut survey = Survey::default();
        let needles: Vec<_> = wanted.into_iter().map(|needle| (needle, memmem::Finder::new(needle))).collect();
        let mut budget = SEARCH_LIMIT;
        let mut chunk = vec![0; CHUNK];
        for &(offset, size) in parts {
            let size = size.min(budget);
            budget -= size;
            let mut done = 0;
            while done < size {
                let wanted = (size - done).min(CHUNK as u64) as usize;
                let Ok(read) = file.read_at(&mut chunk[..wanted], offset.saturating_add(done)) else { break };
                if read == 0 {
                    break;
                }
                survey.search(&chunk[..read], &needles);
                if done + read as u64 >= size {
                    break;
                }
                // A string that this piece's end cuts lies whole in the next.
                done += read.saturating_sub(STRING_LIMIT).max(1) as u64;
            }
        }
        survey
    }

    fn search(&mut self, chunk: &[u8], needles: &[(&'static str, memmem::Finder<'static>)]) {
        for (needle, finder) in needles {
            for at in finder.find_iter(chunk) {
                self.hits += 1;
                if self.hits > HIT_LIMIT {
                    return;
                }
                if let Some(string) = c_string(chunk, at) {
                    self.consider(needle, string);
                }
            }
        }
    }

    fn consider(&mut self, needle: &'static str, string: &str) {
        match needle {
            POSTGRES_VERSION => self.postgres_versions.extend(postgres_version(string)),
            MYSQL_VERSION => self.mysql_versions.extend(mysql_version(string)),
            PGBOUNCER_VERSION => self.pgbouncer_versions.extend(pgbouncer_version(string)),
            MARIADB_VERSION => self.mariadb_versions.extend(mariadb_version(string)),
            message => {
                if string == message {
                    self.messages.insert(message);
                }
            }
        }
    }

    /// mysqld or mariadbd: only the latter carries its name in its version.
    fn mysqld(&self) -> Kind {
        self.server(if self.mariadb_versions.is_empty() { Engine::Mysql } else { Engine::Mariadb })
    }

    fn server(&self, engine: Engine) -> Kind {
        let versions = match engine {
            Engine::Postgresql => &self.postgres_versions,
            Engine::Mysql => &self.mysql_versions,
            Engine::Mariadb => &self.mariadb_versions,
        };
        Kind::Server(Arc::new(Software { engine, pooler: None, version: only(versions) }))
    }

    fn pooler(&self, pooler: Pooler) -> Kind {
        let (engine, version) = match pooler {
            Pooler::PgBouncer => (Engine::Postgresql, only(&self.pgbouncer_versions)),
            // It is compiled in, but in no form that would tell it from other strings.
            Pooler::ProxySql => (Engine::Mysql, None),
        };
        Kind::Server(Arc::new(Software { engine, pooler: Some(pooler), version }))
    }
}

/// The one version found: two different ones would make each a guess.
fn only(versions: &BTreeSet<String>) -> Option<String> {
    versions.first().filter(|_| versions.len() == 1).cloned()
}

/// The string around `at`, if it is NUL-terminated and begins after a NUL: so compilers of C lay out literals, and those of Rust
/// and Go do not, which keeps programs that merely know these strings (such as this one) apart.
fn c_string(chunk: &[u8], at: usize) -> Option<&str> {
    let begin = memrchr(0, &chunk[at.saturating_sub(STRING_LIMIT)..at])? + 1 + at.saturating_sub(STRING_LIMIT);
    let end = memchr(0, &chunk[at..chunk.len().min(at + STRING_LIMIT)])? + at;
    std::str::from_utf8(&chunk[begin..end]).ok()
}

/// `PG_VERSION_STR`: `PostgreSQL 15.18 (Debian ...) on x86_64-pc-linux-gnu, compiled by gcc ...`, or `18beta1`, `19devel`.
fn postgres_version(string: &str) -> Option<String> {
    let rest = string.strip_prefix(POSTGRES_VERSION)?;
    let (version, rest) = rest.split_once(' ')?;
    let (_, platform) = if rest.starts_with("on ") { ("", rest) } else { rest.split_once(") ")? };
    let whole = platform.starts_with("on ") && platform.contains(", compiled by ");
    (whole && version.starts_with(|first: char| first.is_ascii_digit())).then(|| version.to_owned())
}

/// `MySQL 8.4.3`, as InnoDB stamps its redo log (`LOG_HEADER_CREATOR_CURRENT`), or `MySQL 8.0.36-28` in Percona Server.
fn mysql_version(string: &str) -> Option<String> {
    let version = string.strip_prefix(MYSQL_VERSION)?;
    let (numbers, patch) = version.split_once('-').unwrap_or((version, "0"));
    (is_release(numbers) && patch.bytes().all(|byte| byte.is_ascii_digit())).then(|| version.to_owned())
}

/// `MYSQL_SERVER_VERSION`: `10.11.14-MariaDB`, or `10.6.16-11-MariaDB` of the enterprise edition.
fn mariadb_version(string: &str) -> Option<String> {
    let numbers = string.strip_suffix(MARIADB_VERSION)?;
    let (numbers, patch) = numbers.split_once('-').unwrap_or((numbers, "0"));
    (is_release(numbers) && patch.bytes().all(|byte| byte.is_ascii_digit())).then(|| string.to_owned())
}

/// `PACKAGE_STRING`: `PgBouncer 1.18.0`, followed by a line feed where `--version` prints it.
fn pgbouncer_version(string: &str) -> Option<String> {
    let version = string.strip_prefix(PGBOUNCER_VERSION)?.trim_end();
    is_release(version).then(|| version.to_owned())
}

/// Three numbers.
fn is_release(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('.').collect();
    numbers.len() == 3
        && numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a PostgreSQL server of `version` works on a data directory of `catalog`, the content of its PG_VERSION: `15`, or `9.6` of old.
pub(super) fn accepts_catalog(version: &str, catalog: &str) -> bool {
    version.strip_prefix(catalog).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::{super::testing::Elf, *};

    fn identify(bytes: &[u8]) -> (Kind, Kind) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut executables = Executables::default();
        let (id, by_symbols) = executables.identify(file.path()).unwrap();
        assert_eq!(executables.identify(file.path()).unwrap(), (id, by_symbols.clone()), "the verdict is remembered");
        (by_symbols, executables.decide(file.path()).unwrap().1)
    }

    fn server(engine: Engine, version: Option<&str>) -> Kind {
        Kind::Server(Arc::new(Software { engine, pooler: None, version: version.map(ToOwned::to_owned) }))
    }

    fn pooler(engine: Engine, pooler: Pooler, version: Option<&str>) -> Kind {
        Kind::Server(Arc::new(Software { engine, pooler: Some(pooler), version: version.map(ToOwned::to_owned) }))
    }

    const POSTGRES_15: &str = "PostgreSQL 15.20 (Debian 15.20-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc (Debian 12.2.0-14+deb12u1) 12.2.0, 64-bit";

    #[test]
    fn exported_symbols_tell_servers() {
        let postgres = Elf::new().exports(&["main", "PostmasterMain", "secure_read", "secure_write"]);
        let (kind, _) = identify(&postgres.clone().strings(&[POSTGRES_15, "PostgreSQL %s"]).build());
        assert_eq!(kind, server(Engine::Postgresql, Some("15.20")));
        let (kind, _) = identify(&postgres.build());
        assert_eq!(kind, server(Engine::Postgresql, None));

        let mysqld = Elf::new().exports(&["main", "_Z11mysqld_mainiPPc"]);
        let (kind, _) = identify(&mysqld.clone().strings(&["MySQL 9.7.4", "MySQL Clone", "MySQL 5.x"]).build());
        assert_eq!(kind, server(Engine::Mysql, Some("9.7.4")));
        let (kind, _) = identify(&mysqld.strings(&["MySQL 5.6 / 5.7 compatible", "10.11.19-MariaDB"]).build());
        assert_eq!(kind, server(Engine::Mariadb, Some("10.11.19-MariaDB")));
    }

    #[test]
    fn imported_and_similar_symbols_do_not() {
        let module = Elf::new().imports(&["PostmasterMain", "secure_read", "secure_write", "_Z11mysqld_mainiPPc"]);
        assert_eq!(identify(&module.build()).0, Kind::Other);
        let client = Elf::new().exports(&["PostmasterMainX", "pqsecure_read", "secure_write", "secure_read"]);
        assert_eq!(identify(&client.build()).0, Kind::Other);
    }

    #[test]
    fn messages_decide_on_builds_without_symbols() {
        let postgres: Vec<&str> = POSTGRES_MESSAGES.into_iter().chain([POSTGRES_15]).collect();
        let build = Elf::new().strings(&postgres).padded(SEARCH_THRESHOLD).build();
        assert_eq!(identify(&build), (Kind::Undecided, server(Engine::Postgresql, Some("15.20"))));

        let mysqld: Vec<&str> = MYSQLD_MESSAGES.into_iter().chain(["MySQL 8.0.36-28"]).collect();
        let build = Elf::new().strings(&mysqld).padded(SEARCH_THRESHOLD).build();
        assert_eq!(identify(&build), (Kind::Undecided, server(Engine::Mysql, Some("8.0.36-28"))));

        let build = Elf::new().strings(&mysqld).without_sections().padded(SEARCH_THRESHOLD).build();
        assert_eq!(identify(&build), (Kind::Undecided, server(Engine::Mysql, Some("8.0.36-28"))));

        let build = Elf::new().strings(&postgres[1..]).padded(SEARCH_THRESHOLD).build();
        assert_eq!(identify(&build), (Kind::Undecided, Kind::Other));
    }

    #[test]
    fn poolers_are_told_by_their_messages() {
        let strings: Vec<&str> = PGBOUNCER_MESSAGES.into_iter().chain(["PgBouncer 1.18.0", "PgBouncer"]).collect();
        let build = Elf::new().imports(&[PGBOUNCER_IMPORT]).strings(&strings);
        let found = pooler(Engine::Postgresql, Pooler::PgBouncer, Some("1.18.0"));
        assert_eq!(identify(&build.build()), (Kind::Undecided, found));
        let build = Elf::new().imports(&[PGBOUNCER_IMPORT]).strings(&strings[1..]);
        assert_eq!(identify(&build.build()), (Kind::Undecided, Kind::Other));
        assert_eq!(
            identify(&Elf::new().strings(&strings).build()).0,
            Kind::Other,
            "too small to be searched without a hint"
        );

        let build = Elf::new().strings(&PROXYSQL_MESSAGES).padded(SEARCH_THRESHOLD);
        assert_eq!(identify(&build.build()), (Kind::Undecided, pooler(Engine::Mysql, Pooler::ProxySql, None)));
        let build = Elf::new().strings(&PROXYSQL_MESSAGES[..1]).padded(SEARCH_THRESHOLD);
        assert_eq!(identify(&build.build()).1, Kind::Other);
    }

    /// This program holds all the messages, as any other that looks for servers may.
    #[test]
    fn a_program_that_knows_the_messages_is_not_a_server() {
        let mut executables = Executables::default();
        let this = std::env::current_exe().unwrap();
        assert_eq!(executables.decide(&this).unwrap().1, Kind::Other);
    }

    #[test]
    fn strings_across_pieces_are_found_once() {
        for shift in [CHUNK - 40, CHUNK - STRING_LIMIT, CHUNK - 1, CHUNK, 2 * CHUNK - STRING_LIMIT - 20] {
            let filler = "x".repeat(shift);
            let build = Elf::new()
                .exports(&["PostmasterMain", "secure_read", "secure_write"])
                .strings(&[&filler, POSTGRES_15])
                .build();
            assert_eq!(identify(&build).0, server(Engine::Postgresql, Some("15.20")), "{shift}");
        }
    }

    #[test]
    fn a_file_full_of_matches_is_given_up() {
        let filler = POSTGRES_VERSION.repeat(2 * HIT_LIMIT);
        let build = Elf::new().exports(&POSTGRES_EXPORTS).strings(&[&filler, POSTGRES_15]).build();
        assert_eq!(identify(&build).0, server(Engine::Postgresql, None));
    }

    #[test]
    fn contradicting_versions_are_no_version() {
        let build = Elf::new().exports(&["_Z11mysqld_mainiPPc"]).strings(&["MySQL 8.0.36", "MySQL 8.4.3"]).build();
        assert_eq!(identify(&build).0, server(Engine::Mysql, None));
    }

    #[test]
    fn versions_are_read_as_the_server_writes_them() {
        for (string, expected) in [
            (POSTGRES_15, Some("15.20")),
            ("PostgreSQL 18beta1 on x86_64-linux, compiled by gcc-12.2.0, 64-bit", Some("18beta1")),
            ("PostgreSQL 19devel on aarch64-unknown-linux-gnu, compiled by clang 18, 64-bit", Some("19devel")),
            ("PostgreSQL 9.6.24 on x86_64-pc-linux-gnu, compiled by gcc", Some("9.6.24")),
            ("PostgreSQL 15.20 (Debian 15.20-0+deb12u1)", None),
            ("PostgreSQL %s on %s, compiled by %s", None),
            ("PostgreSQL extension on x, compiled by y", None),
        ] {
            assert_eq!(postgres_version(string).as_deref(), expected, "{string}");
        }
        for (string, expected) in [
            ("MySQL 9.7.4", Some("9.7.4")),
            ("MySQL 8.0.36-28", Some("8.0.36-28")),
            ("MySQL 5.6 / 5.7 compatible", None),
            ("MySQL 8.0", None),
            ("MySQL 8..3", None),
        ] {
            assert_eq!(mysql_version(string).as_deref(), expected, "{string}");
        }
        for (string, expected) in [
            ("10.11.14-MariaDB", Some("10.11.14-MariaDB")),
            ("10.6.16-11-MariaDB", Some("10.6.16-11-MariaDB")),
            ("5.5.5-10.11.14-MariaDB", None),
            ("x-MariaDB", None),
        ] {
            assert_eq!(mariadb_version(string).as_deref(), expected, "{string}");
        }
    }

    #[test]
    fn catalogs_belong_to_their_major_version() {
        assert!(accepts_catalog("15.20", "15"));
        assert!(accepts_catalog("18beta1", "18"));
        assert!(accepts_catalog("9.6.24", "9.6"));
        assert!(!accepts_catalog("15.20", "1"));
        assert!(!accepts_catalog("15.20", "16"));
        assert!(!accepts_catalog("9.6.24", "9.5"));
    }

    #[test]
    fn what_is_not_elf_is_not_a_server() {
        for bytes in [&b""[..], b"#!/bin/sh\nexec mysqld\n", b"\x7fELF", &[0xff; 4096]] {
            assert_eq!(identify(bytes).0, Kind::Other);
        }
    }

    #[test]
    fn forged_headers_cannot_demand_memory() {
        let good = Elf::new().exports(&["PostmasterMain", "secure_read", "secure_write"]).build();
        // Every header byte in turn damaged: no panic, no large allocation, whatever the verdict.
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = 0xff;
            identify(&bad);
        }
    }
}
