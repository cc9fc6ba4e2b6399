//! Listening sockets of a process: the sockets among its file descriptors, looked up in the tables of its own network namespace.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::process::Process;
use crate::model::Listen;

/// `TCP_LISTEN` of linux/tcp_states.h, as /proc/net/tcp writes it.
const TCP_LISTEN: &str = "0A";
/// `__SO_ACCEPTCON` of linux/net.h: a Unix socket on which listen() was called.
const SO_ACCEPTCON: u32 = 0x0001_0000;
/// Bound on the Unix sockets read of one namespace: 64 MiB of text, some 500,000 sockets.
const UNIX_TABLE_LIMIT: u64 = 64 * 1024 * 1024;

/// Listening sockets of one network namespace, by inode.
type Table = HashMap<u64, Listen>;

/// Reading a namespace's tables takes the kernel milliseconds, since it walks its whole hash table of connections (3 ms for 262,144
/// empty buckets), so they are kept: for so many times the duration of reading them, ...
const KEEP_FACTOR: u32 = 50;
/// ... but at least and at most for this time, which adds to the time until a server is found.
const KEEP: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(300);

/// Tables of the network namespaces met lately.
#[derive(Debug, Default)]
pub(super) struct Tables {
    by_namespace: HashMap<PathBuf, Kept>,
    now: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    table: Table,
    until: Instant,
}

impl Tables {
    /// Forgets the tables that are too old at `now`.
    pub(super) fn begin(&mut self, now: Instant) {
        self.now = Some(now);
        self.by_namespace.retain(|_, kept| kept.until > now);
    }

    /// Where `process` accepts connections, sorted. Relative paths of Unix sockets are resolved at its working directory.
    pub(super) fn listening(&mut self, process: &Process) -> io::Result<Vec<Listen>> {
        let inodes = open_inodes(process)?;
        if inodes.is_empty() {
            return Ok(Vec::new());
        }
        let namespace = process.namespace("net")?;
        let kept = match self.by_namespace.entry(namespace) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let begin = Instant::now();
                let table = read_tables(process)?;
                let keep = (begin.elapsed() * KEEP_FACTOR).clamp(*KEEP.start(), *KEEP.end());
                entry.insert(Kept { table, until: self.now.unwrap_or(begin) + keep })
            }
        };
        let found: BTreeSet<Listen> =
            inodes.iter().filter_map(|inode| kept.table.get(inode)).map(|listen| absolute(listen, process)).collect();
        Ok(found.into_iter().collect())
    }
}

/// PostgreSQL's `unix_socket_directories` and mysqld's `--socket` may be relative to the data directory, where both servers work.
fn absolute(listen: &Listen, process: &Process) -> Listen {
    match listen {
        Listen::Unix(path) if path.is_relative() && !path.as_os_str().as_bytes().starts_with(b"@") => {
            match process.own_link("cwd") {
                Ok(directory) => Listen::Unix(directory.join(path)),
                Err(_) => listen.clone(),
            }
        }
        _ => listen.clone(),
    }
}

/// Inodes of the sockets that a process holds open.
pub(super) fn open_inodes(process: &Process) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(process.path("fd"))?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let inode = target.as_os_str().as_bytes().strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
        inodes.extend(inode.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok()));
    }
    Ok(inodes)
}

fn read_tables(process: &Process) -> io::Result<Table> {
    let mut table = Table::new();
    for name in ["net/tcp", "net/tcp6"] {
        match File::open(process.path(name)) {
            Ok(file) => parse_tcp(BufReader::new(file), &mut table)?,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match File::open(process.path("net/unix")) {
        Ok(file) => parse_unix(BufReader::new(file.take(UNIX_TABLE_LIMIT)), &mut table)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(table)
}

/// Reads /proc/net/tcp or tcp6 only as far as the listening sockets go: the kernel lists them before all others
/// (`tcp_seq_start`, net/ipv4/tcp_ipv4.c), so a hundred thousand connections cost nothing.
fn parse_tcp(reader: impl BufRead, table: &mut Table) -> io::Result<()> {
    for line in reader.lines().skip(1) {
        let line = line?;
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if fields.get(3) != Some(&TCP_LISTEN) {
            break;
        }
        let address = fields.get(1).and_then(|text| parse_address(text));
        let inode = fields.get(9).and_then(|text| text.parse().ok());
        if let (Some(address), Some(inode)) = (address, inode) {
            table.insert(inode, Listen::Tcp(address));
        }
    }
    Ok(())
}

/// Parses e.g. `0100007F:1538`. The address is printed as 32-bit words in the byte order of the machine; the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| -> Option<[u8; 4]> {
        Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut octets = [0; 16];
            octets.copy_from_slice(words.as_flattened());
            IpAddr::from(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads the listening sockets of /proc/net/unix. Paths may hold spaces and need not be UTF-8.
fn parse_unix(mut reader: impl BufRead, table: &mut Table) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if let Some((inode, path)) = parse_unix_line(&line) {
            table.insert(inode, Listen::Unix(path));
        }
    }
}

/// `Num RefCount Protocol Flags Type St Inode Path`: the first six have fixed width, the inode is padded.
fn parse_unix_line(line: &[u8]) -> Option<(u64, PathBuf)> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut rest = line;
    let mut field = || {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (field, after) = rest.split_at(end);
        rest = after;
        std::str::from_utf8(field).ok()
    };
    let flags = field().and_then(|_| field()).and_then(|_| field()).and_then(|_| field())?;
    if u32::from_str_radix(flags, 16).ok()? & SO_ACCEPTCON == 0 {
        return None;
    }
    let inode = field().and_then(|_| field()).and_then(|_| field())?.parse().ok()?;
    // Exactly one space before the path, which may begin with one itself.
    let path = rest.strip_prefix(b" ").filter(|path| !path.is_empty())?;
    Some((inode, Path::new(OsStr::from_bytes(path)).to_path_buf()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tcp(text: &str) -> Vec<(u64, String)> {
        let mut table = Table::new();
        parse_tcp(text.as_bytes(), &mut table).unwrap();
        let mut found: Vec<_> = table.into_iter().map(|(inode, listen)| (inode, listen.to_string())).collect();
        found.sort();
        found
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_tcp_sockets_are_read_up_to_the_first_connection() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 31337 1 ffff8b4 100 0 0 10 0\n   \
            1: 00000000:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31338 1 ffff8b4 100 0 0 10 0\n   \
            2: 0100007F:1538 0100007F:C3D2 01 00000000:00000000 00:00000000 00000000   105        0 31339 1 ffff8b4 20 4 30 10 -1\n   \
            3: 0100007F:1539 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 31340 1 ffff8b4 100 0 0 10 0\n";
        assert_eq!(tcp(text), [(31337, "tcp:127.0.0.1:5432".to_owned()), (31338, "tcp:0.0.0.0:3306".to_owned())]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn ipv6_addresses_are_four_words_in_machine_order() {
        for (text, expected) in [
            ("00000000000000000000000000000000:0CEA", "[::]:3306"),
            ("00000000000000000000000001000000:1538", "[::1]:5432"),
            ("0000000000000000FFFF00000100007F:1538", "[::ffff:127.0.0.1]:5432"),
            ("B80D0120000000006745230089ABCDEF:1538", "[2001:db8::23:4567:efcd:ab89]:5432"),
            ("000080FE00000000FF005450ADDEBEFE:FFFF", "[fe80::5054:ff:febe:dead]:65535"),
        ] {
            assert_eq!(parse_address(text).unwrap().to_string(), expected);
        }
        for text in ["", ":", "0100007F", "0100007F:", "0100007:1538", "0100007F:15388", "XX00007F:1538"] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }

    #[test]
    fn damaged_tcp_tables_are_safe() {
        assert!(tcp("").is_empty());
        assert!(tcp("header\n\n").is_empty());
        assert!(tcp("header\n 0: nonsense 0 0A\n").is_empty());
    }

    #[test]
    fn only_listening_unix_sockets_with_a_name_count() {
        let text = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            ffff8b4a: 00000002 00000000 00010000 0001 01 20001 /var/run/postgresql/.s.PGSQL.5432\n\
            ffff8b4b: 00000003 00000000 00000000 0001 03 20002 /var/run/postgresql/.s.PGSQL.5432\n\
            ffff8b4c: 00000002 00000000 00000000 0002 01 20003 /run/systemd/notify\n\
            ffff8b4d: 00000002 00000000 00010000 0001 01    77 @mysql\n\
            ffff8b4e: 00000002 00000000 00010000 0001 01 20005 /tmp/with  two spaces/\xff.sock\n\
            ffff8b4f: 00000002 00000000 00010000 0001 01 20006\n\
            ffff8b50: 00000002 00000000 00010000 0001 01 20007 ./.s.PGSQL.9\n";
        let mut table = Table::new();
        parse_unix(&text[..], &mut table).unwrap();
        let unix = |path: &[u8]| Listen::Unix(PathBuf::from(OsStr::from_bytes(path)));
        let expected = Table::from([
            (20001, unix(b"/var/run/postgresql/.s.PGSQL.5432")),
            (77, unix(b"@mysql")),
            (20005, unix(b"/tmp/with  two spaces/\xff.sock")),
            (20007, unix(b"./.s.PGSQL.9")),
        ]);
        assert_eq!(table, expected);
    }

    #[test]
    fn sockets_of_this_very_process_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a socket");
        let v4 = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = std::net::TcpListener::bind("[::1]:0").ok();
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let process = Process::new(Path::new("/proc"), std::process::id());
        let found = Tables::default().listening(&process).unwrap();
        assert!(found.is_sorted());
        assert!(found.contains(&Listen::Tcp(v4.local_addr().unwrap())), "{found:?}");
        if let Some(v6) = v6 {
            assert!(found.contains(&Listen::Tcp(v6.local_addr().unwrap())), "{found:?}");
        }
        assert!(found.contains(&Listen::Unix(path)), "{found:?}");
        drop(unix);
    }
}
