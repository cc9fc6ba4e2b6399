//! Compressed sessions: envelopes of every kind, cut and lost in every way.

use std::io::Write as _;

use flate2::{Compression, write::ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

fn envelope(sequence: u8, packed: &[u8], unpacked: usize) -> Vec<u8> {
    let length = |length: usize| (length as u32).to_le_bytes()[..3].to_vec();
    [length(packed.len()), vec![sequence], length(unpacked), packed.to_vec()].concat()
}

fn stored(sequence: u8, content: &[u8]) -> Vec<u8> {
    envelope(sequence, content, 0)
}

fn zlib(sequence: u8, content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    envelope(sequence, &encoder.finish().unwrap(), content.len())
}

fn zstd(sequence: u8, content: &[u8]) -> Vec<u8> {
    envelope(sequence, &compress_to_vec(content, CompressionLevel::Fastest), content.len())
}

type Pack = fn(u8, &[u8]) -> Vec<u8>;
const PACKS: [Pack; 3] = [stored, zlib, zstd];

fn started() -> Session {
    Session::started(DEPRECATE | capability::COMPRESS)
}

const END_OF_ROWS: &[u8] = &[0xfe, 0, 0, 2, 0, 0, 0];

/// A result set of so many rows, as packets.
fn rows(count: usize) -> Vec<u8> {
    let rows = (0..count).map(|_| b"\x0ba row of it".as_slice());
    packets(1, &[&[1], DEFINITION].into_iter().chain(rows).chain([END_OF_ROWS]).collect::<Vec<_>>())
}

#[test]
fn every_kind_of_envelope_is_unpacked() {
    for pack in PACKS {
        let mut session = started();
        session.request(&pack(0, &query("select 'x' from a_table where a_column = 1")));
        session.response(&pack(1, &rows(100)));
        session.request(&stored(0, &query("select 2")));
        session.response(&stored(1, &packet(1, &ok(0, 3))));
        assert_eq!(session.texts(), ["select 'x' from a_table where a_column = 1", "select 2"]);
        assert_eq!(session.statements()[0].rows_sent, Some(100));
        assert_eq!(session.machine.state(), SessionState::IdleInTransaction);
        assert!(session.anomalies().is_empty());
    }
}

#[test]
fn packets_and_envelopes_need_not_end_together() {
    for pack in PACKS {
        let mut session = started();
        let (one, two) = (query("select 1 from the_first"), query("select 2 from the_second"));
        let both = [one, two].concat();
        // Sequence ids inside begin anew with an envelope that a flush made.
        session.request(&[pack(0, &both[..30]), pack(1, &both[30..])].concat());
        let answer = rows(200);
        let (head, tail) = answer.split_at(1000);
        session.response(&pack(1, head));
        session.response(&pack(2, tail));
        session.response(&pack(3, &packet(3, &ok(1, 2))));
        assert_eq!(session.texts(), ["select 1 from the_first", "select 2 from the_second"]);
        assert_eq!(session.statements()[0].bytes_out, answer.len() as u64);
        assert!(session.anomalies().is_empty());
    }
}

#[test]
fn single_bytes_give_the_same_statements() {
    for pack in PACKS {
        let mut session = started();
        for byte in pack(0, &query("select 'x' from a_table where a_column = 1")) {
            session.request(&[byte]);
        }
        for byte in pack(1, &rows(3000)) {
            session.response(&[byte]);
        }
        assert_eq!(session.texts(), ["select 'x' from a_table where a_column = 1"]);
        assert_eq!(session.statements()[0].rows_sent, Some(3000));
    }
}

#[test]
fn a_hole_within_an_envelope_becomes_one_of_known_length() {
    // A block of zstd is unpacked whole or not at all.
    for pack in [stored as Pack, zlib] {
        let mut session = started();
        // The statement is a packet by itself, so that what is lost lies within its body.
        let text =
            format!("insert into t values ('{}')", (0..9000).map(|at| (at * at % 251).to_string()).collect::<String>());
        let request = pack(0, &query(&text));
        let captured = request.len() / 2;
        session.data(Direction::Request, &request[..captured], request.len() - captured);
        session.response(&stored(1, &packet(1, &ok(1, 2))));
        let statements = session.statements();
        let [statement] = statements.as_slice() else { panic!("{} statements", statements.len()) };
        assert_eq!(statement.bytes_in, text.len() as u64 + 5);
        if let Text::Known(known) = &statement.text {
            assert!(known.truncated() && text.as_bytes().starts_with(known.raw()));
        }
        assert!(session.anomalies().is_empty());
    }
}

#[test]
fn a_hole_over_the_header_of_a_packet_loses_the_place_until_the_next_command() {
    for pack in PACKS {
        let mut session = started();
        session.request(&pack(0, &query("select many rows")));
        let response = pack(1, &rows(1000));
        session.data(Direction::Response, &response[..20], response.len() - 20);
        assert_eq!(session.machine.state(), SessionState::Unknown);
        session.request(&pack(0, &query("select 2")));
        session.response(&pack(1, &packet(1, &ok(0, 2))));
        assert_eq!(session.texts(), ["select 2"]);
        assert_eq!(session.anomalies(), [Anomaly::Desynchronised, Anomaly::Resynchronised]);
    }
}

#[test]
fn after_a_gap_the_next_command_is_found() {
    for pack in PACKS {
        let mut session = started();
        session.request(&pack(0, &query("select 1")));
        session.gap();
        session.response(&pack(9, b"some rows of the answer that was under way"));
        session.request(&pack(0, &query("select 2")));
        session.response(&pack(1, &packet(1, &ok(0, 2))));
        assert_eq!(session.texts(), ["select 2"]);
    }
}

#[test]
fn a_compressed_session_joined_late_is_followed() {
    for pack in PACKS {
        let mut session = Session::joined();
        session.response(&pack(2, &rows(10)));
        for text in ["select 1 from somewhere", "select 2 from somewhere"] {
            session.request(&pack(0, &query(text)));
            session.response(&pack(1, &rows(10)));
        }
        assert_eq!(session.texts(), ["select 1 from somewhere", "select 2 from somewhere"]);
        assert!(session.anomalies().is_empty());
    }
}

#[test]
fn a_new_session_without_compression_is_recognised_on_the_same_connection() {
    let mut session = started();
    session.gap();
    session.response(&packet(0, &greeting("9.0.0", u64::MAX)));
    session.request(&packet(1, &answer(capability::PROTOCOL_41 | capability::MYSQL)));
    session.response(&packet(2, &ok(0, 2)));
    session.request(&query("select 1"));
    session.response(&packet(1, &ok(0, 2)));
    assert_eq!(session.texts(), ["-", "select 1"]);
    assert_eq!(session.anomalies(), [Anomaly::Desynchronised, Anomaly::Resynchronised]);
}

#[test]
fn content_that_lies_about_its_length_is_cut_off() {
    for pack in [zlib as Pack, zstd] {
        // 8 MiB of spaces behind a statement, in an envelope that announces the statement alone.
        let mut content = query("select 1 from somewhere");
        let announced = content.len();
        content.resize(8 << 20, b' ');
        let mut request = pack(0, &content);
        request[4..7].copy_from_slice(&(announced as u32).to_le_bytes()[..3]);
        let mut session = started();
        session.request(&request);
        session.response(&stored(1, &packet(1, &ok(0, 2))));
        assert_eq!(session.texts(), ["select 1 from somewhere"]);
        // One that announces more than there is has lost its place.
        let mut request = pack(0, &query("select 2 from somewhere"));
        request[4] += 1;
        session.request(&request);
        assert_eq!(session.anomalies(), [Anomaly::Desynchronised]);
    }
}

#[test]
fn a_frame_that_needs_much_memory_is_a_hole() {
    // A zstd frame with a window of 64 MiB (RFC 8878, section 3.1.1.1.2): descriptor without single segment, exponent 16.
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 16 << 3][..], &[0; 100]].concat();
    let mut session = started();
    session.request(&envelope(0, &frame, 5000));
    assert_eq!(session.anomalies(), [Anomaly::Desynchronised]);
    session.request(&stored(0, &query("select 1")));
    session.response(&stored(1, &packet(1, &ok(0, 2))));
    assert_eq!(session.texts(), ["select 1"]);
}

#[test]
fn nothing_is_kept_between_two_envelopes() {
    for pack in PACKS {
        let mut session = started();
        session.request(&pack(0, &query("select 'x' from a_table where a_column = 1")));
        session.response(&pack(1, &rows(100)));
        assert!(format!("{:?}", session.machine).contains("Unpacker(0 bytes to come, 0 unpacked)"));
    }
}

/// Guarantees: however the bytes come, content counts up to the same place.
#[test]
fn damaged_content_gives_the_same_statements_in_any_parts() {
    let request = zlib(0, &query("select 'x' from a_table where a_column = 1"));
    // Several results that hardly compress, so that the decoder is far ahead of what it gives out.
    let mut random = 1u32;
    let mut row = || {
        let mut bytes = vec![200];
        bytes.extend((0..200).map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        }));
        bytes
    };
    let result = |rows: &[Vec<u8>]| {
        let rows = rows.iter().map(Vec::as_slice);
        packets(1, &[&[1], DEFINITION].into_iter().chain(rows).chain([END_OF_ROWS]).collect::<Vec<_>>())
    };
    let rows: Vec<_> = (0..200).map(|_| row()).collect();
    let small = zlib(1, &result(&rows[..3]));
    let large = zlib(1, &[result(&rows), result(&rows[..2])].concat());
    for (request, response, is_request) in
        [(&request, &small, true), (&request, &small, false), (&request, &large, false)]
    {
        let damaged = if is_request { request } else { response };
        for at in (7..damaged.len()).step_by(1 + damaged.len() / 500) {
            let mut bytes = damaged.clone();
            bytes[at] ^= 0x55;
            let run = |size: usize| {
                let mut session = started();
                let (request, response) = if is_request { (&bytes, response) } else { (request, &bytes) };
                for (direction, bytes) in [(Direction::Request, request), (Direction::Response, response)] {
                    session.now += 10;
                    for part in bytes.chunks(size) {
                        session.machine.data(direction, Timestamp(session.now), part, part.len(), &mut session.events);
                    }
                }
                session.close();
                session.statements().iter().map(|statement| format!("{statement:?}")).collect::<Vec<_>>()
            };
            assert_eq!(run(usize::MAX), run(13), "byte {at} of {}, request {is_request}", damaged.len());
        }
    }
}
