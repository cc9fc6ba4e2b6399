//! Captures made of recorded streams, replayed.
//!
//! Proves: whatever the link layer, the IP version, the file format, the segments and their order, a capture gives the very statements that the
//! machine gives for the stream; what is missing is counted and invents nothing; no bytes are unsafe.
//! Does not prove: that programs that capture write such files; see e2e_replay.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::HashMap;

use proptest::prelude::*;
use querylens::{
    model::{Code, Engine, Kind, Statement, Status, Timestamp},
    replay::{Choice, Coverage, Execution, replay},
    wire::{Direction, Event},
};
use querylens_tests::{
    capture::{Connection, EPOCH, Format, Frame, Link, flag, gzip},
    recorded::{Recorded, recorded},
    stream::{Input, render_event, run},
};

const PLAIN: Format = Format::Pcap { big_endian: false, nanos: true };

/// Streams of one whole connection without a loss.
fn whole() -> Vec<&'static Recorded> {
    let is_whole = |recorded: &&Recorded| {
        // Connections of the X protocol are no statements' ones: they have a test of their own.
        if recorded.path.ends_with("x-protocol.stream") {
            return false;
        }
        let (last, before) = recorded.fixture.inputs.split_last().unwrap();
        *last == Input::Close && before.iter().all(|input| matches!(input, Input::Data { missing: 0, .. }))
    };
    let whole: Vec<&Recorded> = recorded().iter().filter(is_whole).collect();
    assert!(whole.len() > 30, "only {} streams are whole", whole.len());
    whole
}

fn port(engine: Engine) -> u16 {
    if engine == Engine::Postgresql { 5432 } else { 3306 }
}

struct Replayed {
    coverage: Coverage,
    /// Rendered, with the times of the stream.
    statements: Vec<String>,
    engines: Vec<Engine>,
}

fn replayed(file: &[u8], choice: &Choice) -> Replayed {
    let (mut statements, mut engines) = (Vec::new(), Vec::new());
    let mut sink = |execution: &Execution<'_>| {
        statements.push(render(execution.statement.clone()));
        engines.push(execution.engine);
        Ok(())
    };
    let coverage = replay(file, choice, &mut sink).unwrap();
    Replayed { coverage, statements, engines }
}

fn render(mut statement: Statement) -> String {
    for at in [&mut statement.start, &mut statement.end].into_iter().chain(&mut statement.first_byte) {
        at.0 -= EPOCH;
    }
    render_event(&Event::Statement(statement))
}

/// The stream with times as coarse as the format's.
fn coarse(inputs: &[Input], format: Format) -> Vec<Input> {
    let mut inputs = inputs.to_vec();
    for input in &mut inputs {
        if let Input::Data { at, .. } = input {
            at.0 -= at.0 % format.resolution();
        }
    }
    inputs
}

fn expected(engine: Engine, inputs: &[Input]) -> Vec<String> {
    run(engine, inputs).events.iter().filter(|event| matches!(event, Event::Statement(_))).map(render_event).collect()
}

fn connection(recorded: &Recorded, link: Link, ipv6: bool, inputs: &[Input], sizes: &[usize]) -> Connection {
    let mut connection = Connection::new(link, ipv6, port(recorded.engine));
    connection.open(Timestamp(0));
    connection.stream(inputs, sizes);
    connection
}

#[test]
fn every_format_and_link_layer_gives_the_statements_of_the_stream() {
    // Each format meets each link layer, on one recording or another.
    for (number, recorded) in whole().into_iter().enumerate() {
        for (shift, format) in Format::ALL.into_iter().enumerate() {
            let link = Link::ALL[(number + shift) % Link::ALL.len()];
            let ipv6 = (number / Link::ALL.len() + shift) % 2 == 1;
            let inputs = coarse(&recorded.fixture.inputs, format);
            let connection = connection(recorded, link, ipv6, &inputs, &[1448, 700, 9]);
            let replayed = replayed(&format.file(link, &connection.frames), &Choice::default());
            let what = format!("{} {format:?} {link:?} {ipv6}", recorded.path.display());
            assert_eq!(replayed.statements, expected(recorded.engine, &inputs), "{what}");
            assert!(replayed.engines.iter().all(|engine| *engine == recorded.engine), "{what}");
            assert_eq!((replayed.coverage.connections, replayed.coverage.gaps), (1, 0), "{what}");
        }
    }
}

#[test]
fn a_compressed_file_is_the_same() {
    let recorded = whole()[0];
    let connection = connection(recorded, Link::Ethernet, false, &recorded.fixture.inputs, &[1448]);
    let file = gzip(&PLAIN.file(Link::Ethernet, &connection.frames)).unwrap();
    assert_eq!(replayed(&file, &Choice::default()).statements, expected(recorded.engine, &recorded.fixture.inputs));
}

#[test]
fn packets_cut_by_a_snapshot_length_are_chunks_with_a_missing_end() {
    for recorded in whole() {
        for kept in [24, 100, 400] {
            let mut connection = connection(recorded, Link::Raw, false, &recorded.fixture.inputs, &[usize::MAX]);
            // Raw IPv4 and TCP have 52 bytes of headers here.
            connection.frames.iter_mut().for_each(|frame| frame.cut(52 + kept));
            let mut inputs = recorded.fixture.inputs.clone();
            for input in &mut inputs {
                if let Input::Data { bytes, missing, .. } = input {
                    *missing = bytes.len().saturating_sub(kept);
                    bytes.truncate(kept);
                }
            }
            let choice = Choice { engine: Some(recorded.engine), ports: vec![port(recorded.engine)] };
            let replayed = replayed(&PLAIN.file(Link::Raw, &connection.frames), &choice);
            let path = recorded.path.display();
            assert_eq!(replayed.statements, expected(recorded.engine, &inputs), "{path} {kept}");
        }
    }
}

/// Every statement of `found` is one of `full`.
fn assert_nothing_invented(found: &[String], full: &[String], what: &str) -> usize {
    let mut left: HashMap<&str, usize> = HashMap::new();
    full.iter().for_each(|statement| *left.entry(statement).or_default() += 1);
    let same = found.iter().filter(|statement| {
        let entry = left.get_mut(statement.as_str()).filter(|left| **left > 0);
        entry.map(|left| *left -= 1).is_some()
    });
    let same = same.count();
    let other: Vec<&String> = found.iter().filter(|statement| !full.contains(statement)).collect();
    // A text may be lost, or no longer be cut into its statements, and the end of a connection may cut a statement off.
    let plain = |statement: &&String| {
        !(statement.contains(" unknown") || statement.contains("incomplete") || statement.contains("; "))
    };
    let invented: Vec<&String> = other.into_iter().filter(plain).collect();
    assert!(invented.is_empty(), "{what}: {invented:#?}\nall: {full:#?}");
    same
}

#[test]
fn a_packet_that_the_capture_lost_costs_what_it_carried_and_is_counted() {
    for recorded in whole() {
        let full = expected(recorded.engine, &recorded.fixture.inputs);
        // Executions of cursors and portals sum up fetches that may be missing.
        if ["cursors", "deprecate", "extensions", "asyncpg", "suspended"]
            .iter()
            .any(|name| recorded.path.to_string_lossy().contains(name))
        {
            continue;
        }
        let connection = connection(recorded, Link::Cooked2, true, &recorded.fixture.inputs, &[usize::MAX]);
        let carries = |frame: &Frame| frame.payload > 0;
        let places: Vec<usize> = (0..connection.frames.len()).filter(|at| carries(&connection.frames[*at])).collect();
        for lost in places.iter().skip(6).step_by(1 + places.len() / 10) {
            let mut frames = connection.frames.clone();
            frames.remove(*lost);
            let choice = Choice { engine: Some(recorded.engine), ports: Vec::new() };
            let replayed = replayed(&PLAIN.file(Link::Cooked2, &frames), &choice);
            let what = format!("{} without packet {lost}", recorded.path.display());
            assert_nothing_invented(&replayed.statements, &full, &what);
            if *lost < places[places.len() - 2] {
                assert_eq!(replayed.coverage.gaps, 1, "{what}");
                assert!(!replayed.coverage.troubles().is_empty(), "{what}");
            }
        }
    }
}

#[test]
fn a_capture_that_begins_in_the_middle_finds_its_place() {
    let recorded = recorded().iter().find(|recorded| recorded.path.ends_with("psql-basic-0.stream")).unwrap();
    let full = expected(recorded.engine, &recorded.fixture.inputs);
    for (port, choice) in [
        (5432, Choice::default()),
        (7777, Choice::default()),
        (7777, Choice { engine: Some(Engine::Postgresql), ports: vec![7777] }),
    ] {
        let mut connection = Connection::new(Link::Null, false, port);
        connection.open(Timestamp(0));
        connection.stream(&recorded.fixture.inputs, &[usize::MAX]);
        let query =
            connection.frames.iter().position(|frame| frame.bytes.windows(3).any(|part| part == b"Q\0\0")).unwrap();
        let replayed = replayed(&PLAIN.file(Link::Null, &connection.frames[query..]), &choice);
        assert_eq!(replayed.coverage.joined_late, 1, "port {port}");
        assert_eq!(replayed.statements, full[1..], "port {port}: all but the login");
    }
}

#[test]
fn ends_that_are_used_again_are_another_connection() {
    let recorded = whole()[0];
    let full = expected(recorded.engine, &recorded.fixture.inputs);
    // The first one has no end in the capture.
    let open = &recorded.fixture.inputs[..recorded.fixture.inputs.len() - 1];
    let mut first = connection(recorded, Link::Ethernet, false, open, &[1000]);
    let mut second = Connection::new(Link::Ethernet, false, port(recorded.engine));
    second.next = [77, 78];
    second.open(Timestamp(0));
    second.stream(&recorded.fixture.inputs, &[1000]);
    first.frames.extend(second.frames);
    let replayed = replayed(&PLAIN.file(Link::Ethernet, &first.frames), &Choice::default());
    assert_eq!(replayed.coverage.connections, 2);
    assert_eq!(replayed.statements[replayed.statements.len() - full.len()..], full);
    assert!(replayed.statements.len() >= 2 * full.len() - 1);
}

/// Attempts to connect: kind, status and code of what a capture gives.
fn attempts(frames: &[Frame], choice: &Choice) -> (Coverage, Vec<(Kind, Status, Option<Code>)>) {
    let mut found = Vec::new();
    let mut sink = |execution: &Execution<'_>| {
        let Statement { kind, status, code, .. } = execution.statement;
        found.push((*kind, *status, *code));
        Ok(())
    };
    let coverage = replay(PLAIN.file(Link::Ethernet, frames).as_slice(), choice, &mut sink).unwrap();
    (coverage, found)
}

#[test]
fn attempts_that_get_no_connection_are_told() {
    let mut refused = Connection::new(Link::Ethernet, false, 5432);
    refused.segment(Direction::Request, Timestamp(0), flag::SYN, &[], 0);
    refused.segment(Direction::Response, Timestamp(9), flag::RST | flag::ACK, &[], 0);
    let (coverage, found) = attempts(&refused.frames, &Choice::default());
    assert_eq!(found, [(Kind::Connect, Status::Error, None)]);
    assert_eq!((coverage.refused, coverage.unanswered), (1, 0));

    let mut unanswered = Connection::new(Link::Ethernet, true, 3306);
    for second in [0, 1, 3] {
        unanswered.next[0] = 5;
        unanswered.segment(Direction::Request, Timestamp(second * 1_000_000_000), flag::SYN, &[], 0);
    }
    let (coverage, found) = attempts(&unanswered.frames, &Choice::default());
    assert_eq!(found, [(Kind::Connect, Status::Incomplete, None)]);
    assert_eq!((coverage.refused, coverage.unanswered), (0, 1));

    // Of another program's port nothing is told, unless the user names it.
    let mut other = Connection::new(Link::Ethernet, false, 8080);
    other.segment(Direction::Request, Timestamp(0), flag::SYN, &[], 0);
    other.segment(Direction::Response, Timestamp(9), flag::RST | flag::ACK, &[], 0);
    let (coverage, found) = attempts(&other.frames, &Choice::default());
    assert_eq!((found.len(), coverage.foreign), (0, 1));
    let named = Choice { engine: Some(Engine::Mariadb), ports: vec![8080] };
    assert_eq!(attempts(&other.frames, &named).1.len(), 1);
}

#[test]
fn what_is_no_database_is_counted_and_left_alone() {
    let talk = |port: u16, parts: &[(Direction, &[u8])]| {
        let mut connection = Connection::new(Link::Ethernet, false, port);
        connection.open(Timestamp(0));
        for (number, (direction, bytes)) in parts.iter().enumerate() {
            connection.segment(*direction, Timestamp(number as u64), flag::ACK, bytes, 0);
        }
        connection.close(Timestamp(99));
        attempts(&connection.frames, &Choice::default())
    };
    let (request, response) = (Direction::Request, Direction::Response);
    let http: &[(Direction, &[u8])] = &[(request, b"GET / HTTP/1.1\r\n\r\n"), (response, b"HTTP/1.1 200 OK\r\n\r\n")];
    for port in [80, 3306, 5432] {
        let (coverage, found) = talk(port, http);
        assert_eq!((found.len(), coverage.foreign, coverage.connections), (0, 1, 0), "port {port}");
    }
    let ssh: &[(Direction, &[u8])] = &[(response, b"SSH-2.0-OpenSSH_9.2\r\n"), (request, b"SSH-2.0-x\r\n")];
    assert_eq!(talk(22, ssh).0.foreign, 1);
    let x: &[(Direction, &[u8])] = &[(response, &[5, 0, 0, 0, 11, 8, 5, 26, 0]), (request, &[1, 0, 0, 0, 1])];
    for port in [33_060, 4444] {
        let (coverage, found) = talk(port, x);
        assert_eq!((found.len(), coverage.x_protocol, coverage.connections), (0, 1, 0), "port {port}");
    }
    assert_eq!(talk(5432, &[]).0.silent, 1);
}

/// A way in which a network and a capture can disturb the order of packets.
#[derive(Clone, Debug)]
struct Disorder {
    sizes: Vec<usize>,
    /// Packets that come again later: which one, how much later.
    again: Vec<(prop::sample::Index, usize)>,
    /// Packets that change places: which one, how far it moves.
    moved: Vec<(prop::sample::Index, usize)>,
    /// Segments that are sent again with the bytes before them: which one, how many bytes.
    overlap: Vec<prop::sample::Index>,
}

fn disorder() -> impl Strategy<Value = Disorder> {
    let sizes = prop::collection::vec(prop_oneof![1..30usize, 30..3000usize], 1..6);
    let moves = || prop::collection::vec((any::<prop::sample::Index>(), 1..8usize), 0..12);
    let overlap = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (sizes, moves(), moves(), overlap).prop_map(|(sizes, again, moved, overlap)| Disorder {
        sizes,
        again,
        moved,
        overlap,
    })
}

/// Packets between the opening handshake and the end.
fn disturb(connection: &mut Connection, disorder: &Disorder) {
    let middle = 3..connection.frames.len() - 3;
    if middle.len() < 2 {
        return;
    }
    for index in &disorder.overlap {
        let at = middle.start + index.index(middle.len());
        let mut whole = connection.frames[at].clone();
        let Some(before) = connection.frames[..at].iter().rev().find(|frame| is_before(frame, &whole)).cloned() else {
            continue;
        };
        // One segment with the bytes of both, as a sender makes it when it sends again.
        let header = whole.bytes.len() - whole.payload;
        let payload = [&before.bytes[before.bytes.len() - before.payload..], &whole.bytes[header..]].concat();
        whole.bytes.truncate(header);
        whole.bytes[24..28].copy_from_slice(&before.bytes[24..28]);
        whole.bytes.extend(&payload);
        let length = (whole.bytes.len() as u16).to_be_bytes();
        whole.bytes[2..4].copy_from_slice(&length);
        (whole.payload, whole.true_len) = (payload.len(), whole.bytes.len() as u32);
        connection.frames.insert(at + 1, whole);
    }
    let middle = 3..connection.frames.len() - 3;
    for (index, later) in &disorder.again {
        let at = middle.start + index.index(middle.len());
        let copy = connection.frames[at].clone();
        let to = (at + later).min(middle.end);
        connection.frames.insert(to, copy);
    }
    for (index, distance) in &disorder.moved {
        let at = middle.start + index.index(middle.len());
        let to = (at + distance).min(middle.end - 1);
        // No capture holds a packet back for long, and what is late by a second counts as lost.
        let late =
            connection.frames[at..=to].iter().any(|frame| frame.at.abs_diff(connection.frames[at].at) > 50_000_000);
        if !late {
            connection.frames[at..=to].rotate_left(1);
        }
    }
}

/// Whether `a` carries the bytes right before those of `b`; raw IPv4 without options.
fn is_before(a: &Frame, b: &Frame) -> bool {
    let word = |frame: &Frame, at: usize| u32::from_be_bytes(*frame.bytes[at..].first_chunk().unwrap());
    a.bytes[20..24] == b.bytes[20..24] && word(a, 24).wrapping_add(a.payload as u32) == word(b, 24)
}

fn without_times(line: &str) -> String {
    let is_time = |word: &str| ["start=", "first=", "end=", "estimated"].iter().any(|name| word.starts_with(name));
    line.split(' ').filter(|word| !is_time(word)).collect::<Vec<_>>().join(" ")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn any_disorder_gives_the_statements_of_the_stream(which: prop::sample::Index, disorder in disorder()) {
        let whole = whole();
        let recorded = *which.get(&whole);
        let mut connection = connection(recorded, Link::Raw, false, &recorded.fixture.inputs, &disorder.sizes);
        disturb(&mut connection, &disorder);
        let replayed = replayed(&PLAIN.file(Link::Raw, &connection.frames), &Choice::default());
        prop_assert_eq!(replayed.coverage.gaps, 0);
        let (mut found, mut wanted) = (replayed.statements, expected(recorded.engine, &recorded.fixture.inputs));
        if !disorder.overlap.is_empty() {
            // Bytes that first came with later ones came later.
            found.iter_mut().chain(&mut wanted).for_each(|line| *line = without_times(line));
        }
        prop_assert_eq!(found, wanted, "{}", recorded.path.display());
    }

    #[test]
    fn any_connections_side_by_side_give_the_statements_of_each(
        which in prop::collection::vec(any::<prop::sample::Index>(), 2..5),
        turns in prop::collection::vec(0..5usize, 1..50),
    ) {
        let whole = whole();
        let mut all = Vec::new();
        let mut waiting = Vec::new();
        for (number, which) in which.iter().enumerate() {
            let recorded = *which.get(&whole);
            let mut connection = Connection::new(Link::Raw, false, port(recorded.engine));
            connection.client_port += number as u16;
            connection.open(Timestamp(0));
            connection.stream(&recorded.fixture.inputs, &[1448]);
            all.extend(expected(recorded.engine, &recorded.fixture.inputs));
            waiting.push(connection.frames.into_iter());
        }
        let mut frames = Vec::new();
        for turn in turns.iter().cycle() {
            let count = waiting.len();
            let next = (0..count).find_map(|skip| waiting[(turn + skip) % count].next());
            match next {
                Some(frame) => frames.push(frame),
                None => break,
            }
        }
        let mut found = replayed(&PLAIN.file(Link::Raw, &frames), &Choice::default()).statements;
        found.sort();
        all.sort();
        prop_assert_eq!(found, all);
    }

    #[test]
    fn any_damage_is_safe(which: prop::sample::Index, format in prop::sample::select(Format::ALL.to_vec()), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut: prop::sample::Index) {
        let whole = whole();
        let recorded = *which.get(&whole);
        let connection = connection(recorded, Link::Vlan, true, &recorded.fixture.inputs, &[300]);
        let mut file = format.file(Link::Vlan, &connection.frames);
        for (place, value) in &changes {
            let at = place.index(file.len());
            file[at] = *value;
        }
        file.truncate(cut.index(file.len()) + 1);
        let _ = replay(file.as_slice(), &Choice::default(), &mut |_| Ok(()));
    }
}
