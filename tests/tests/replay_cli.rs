//! What `querylens replay` prints, and how it ends, pinned as files below tests/cli/replay.
//!
//! `UPDATE_EXPECT=1 cargo test -p querylens-tests --test replay_cli` rewrites them; read the difference before committing it.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{fs, path::PathBuf, process::ExitCode};

use querylens::{
    cli::replay::{Args, Rank, run},
    model::{Engine, Timestamp},
    wire::Direction,
};
use querylens_tests::{
    capture::{Connection, Format, Link, flag},
    recorded::recorded,
};

const PLAIN: Format = Format::Pcap { big_endian: false, nanos: true };

fn args(file: PathBuf) -> Args {
    Args { file, json: false, raw_text: false, limit: 20, order: Rank::Total, engine: None, port: Vec::new() }
}

/// Everything that is printed, with the way it ends; the file is called FILE.
fn printed(file: &[u8], change: impl Fn(&mut Args)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capture");
    fs::write(&path, file).unwrap();
    let mut args = args(path.clone());
    change(&mut args);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let end = match run(&args, &mut out, &mut err) {
        Ok(code) if code == ExitCode::SUCCESS => "exit code 0\n".to_owned(),
        Ok(code) => {
            assert_eq!(code, ExitCode::from(1));
            "exit code 1\n".to_owned()
        }
        Err(error) => format!("querylens: {error:#}\n"),
    };
    let mut all = String::from_utf8(out).unwrap();
    for (title, text) in [("standard error", String::from_utf8(err).unwrap()), ("end", end)] {
        if !text.is_empty() {
            all.push_str(&format!("--- {title}\n{text}"));
        }
    }
    all.replace(path.to_str().unwrap(), "FILE")
}

#[track_caller]
fn assert_prints(name: &str, file: &[u8], change: impl Fn(&mut Args)) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("cli/replay/{name}.txt"));
    let printed = printed(file, change);
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        fs::write(&path, &printed).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(printed == expected, "{} differs; it prints:\n{printed}", path.display());
}

/// One connection of each engine, a refused one, one of the X protocol and one that is no database.
fn connections() -> Vec<Connection> {
    let mut all = Vec::new();
    for (number, name) in ["psql-basic-0", "cancel-0", "refused-role-0", "text", "refused-password"].iter().enumerate()
    {
        for recorded in recorded().iter().filter(|recorded| recorded.path.file_stem().unwrap() == *name) {
            let port = if recorded.engine == Engine::Postgresql { 5432 } else { 3306 };
            let mut connection =
                Connection::new(Link::Ethernet, false, port + u16::from(recorded.engine == Engine::Mariadb));
            connection.client_port += number as u16;
            connection.open(Timestamp(0));
            connection.stream(&recorded.fixture.inputs, &[1448]);
            all.push(connection);
        }
    }
    let mut refused = Connection::new(Link::Ethernet, false, 5432);
    refused.client_port = 50_001;
    refused.segment(Direction::Request, Timestamp(0), flag::SYN, &[], 0);
    refused.segment(Direction::Response, Timestamp(31_500), flag::RST | flag::ACK, &[], 0);
    let mut http = Connection::new(Link::Ethernet, false, 80);
    http.open(Timestamp(0));
    http.segment(Direction::Request, Timestamp(1), flag::ACK, b"GET / HTTP/1.1\r\n\r\n", 0);
    let mut x = Connection::new(Link::Ethernet, false, 33_060);
    x.open(Timestamp(0));
    x.segment(Direction::Response, Timestamp(1), flag::ACK, &[5, 0, 0, 0, 11, 8, 5, 26, 0], 0);
    all.extend([refused, http, x]);
    all
}

fn everything() -> Vec<u8> {
    let frames: Vec<_> = connections().into_iter().flat_map(|connection| connection.frames).collect();
    PLAIN.file(Link::Ethernet, &frames)
}

fn postgresql() -> Vec<u8> {
    let [connection, ..] = connections().try_into().unwrap_or_else(|all: Vec<Connection>| [all[0].clone()]);
    PLAIN.file(Link::Ethernet, &connection.frames)
}

#[test]
fn the_ranked_digest() {
    assert_prints("everything", &everything(), |args| args.limit = 4);
    assert_prints("by_errors", &everything(), |args| (args.limit, args.order) = (1, Rank::Errors));
}

#[test]
fn lines_of_json() {
    assert_prints("json", &postgresql(), |args| args.json = true);
    assert_prints("json_everything", &everything(), |args| args.json = true);
}

#[test]
fn texts_as_captured_only_on_request() {
    let literal = "synthetic one";
    let [plain, raw] = [false, true].map(|raw| {
        let json = printed(&postgresql(), |args| (args.json, args.raw_text) = (true, raw));
        let text = printed(&postgresql(), |args| args.raw_text = raw);
        (json.contains(literal), text.contains(literal))
    });
    assert_eq!((plain, raw), ((false, false), (true, true)));
}

#[test]
fn files_that_cannot_be_read_or_not_to_their_end() {
    assert_prints("empty", b"", |_| {});
    assert_prints("foreign", b"#!/bin/sh\necho no capture\n", |_| {});
    assert_prints("header_cut", &postgresql()[..20], |_| {});
    assert_prints("only_header", &postgresql()[..24], |_| {});
    let file = postgresql();
    assert_prints("cut_short", &file[..file.len() - 7], |args| args.limit = 0);
    assert_prints("cut_short_json", &file[..1200], |args| args.json = true);
    let mut damaged = PLAIN.file(Link::Ethernet, &connections()[0].frames);
    // The captured length of the third packet: behind the file's header and two packets of 16 and 66 bytes.
    damaged[24 + 2 * (16 + 66) + 11] = 0x7f;
    assert_prints("damaged", &damaged, |args| args.limit = 0);
    let ng = Format::Pcapng { big_endian: true, section: 0 }.file(Link::Ethernet, &connections()[0].frames);
    assert_prints("pcapng_cut_short", &ng[..ng.len() - 30], |args| args.limit = 0);
    // LINKTYPE_IEEE802_11.
    let mut radio = postgresql();
    radio[20] = 105;
    assert_prints("unknown_link", &radio, |_| {});
}

#[test]
fn a_file_that_is_not_there() {
    let missing = args(PathBuf::from("no/such/file.pcap"));
    let error = run(&missing, &mut Vec::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(format!("{error:#}"), "no/such/file.pcap: cannot be opened: No such file or directory (os error 2)");
}
