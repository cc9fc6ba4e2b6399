//! Recorded streams of real servers against the protocol machines.
//!
//! Proves: each fixture decodes to its expected lines, whatever the chunks; damaged streams neither panic nor invent a text.
//! Does not prove: that the recordings are representative; the end-to-end tests count against a live server.
//!
//! `UPDATE_EXPECT=1 cargo test -p querylens-tests --test wire` rewrites the expected lines; read the difference before committing it.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{collections::HashSet, fs, io::Read as _};

use proptest::prelude::*;
use querylens::{
    model::{Engine, Text, Timestamp},
    wire::Direction,
};
use querylens_tests::{
    recorded::{Recorded, recorded},
    stream::{Fixture, Input, request_stretches, run, split},
};

fn statements(engine: Engine, inputs: &[Input]) -> Vec<String> {
    let lines = run(engine, inputs).render().into_iter();
    lines.filter(|line| line.starts_with("statement ") || line.starts_with("transaction ")).collect()
}

/// Every known text must have been sent, in one piece.
fn assert_texts_were_sent(engine: Engine, inputs: &[Input]) -> Result<(), TestCaseError> {
    let outcome = run(engine, inputs);
    let mut stretches = request_stretches(inputs);
    stretches.extend(stretches.iter().flat_map(|stretch| unpacked(stretch)).collect::<Vec<_>>());
    let mut seen = HashSet::new();
    for statement in outcome.statements() {
        let Text::Known(text) = &statement.text else { continue };
        if seen.insert(text.raw()) {
            let finder = memchr::memmem::Finder::new(text.raw());
            let sent = stretches.iter().any(|stretch| finder.find(stretch).is_some());
            prop_assert!(sent, "never sent: {:?}", text.raw().escape_ascii().to_string());
        }
    }
    Ok(())
}

/// What MySQL's protocol compression may hide in a stretch: all that unpacks, wherever it begins.
fn unpacked(stretch: &[u8]) -> Vec<Vec<u8>> {
    const LIMIT: usize = 1 << 20;
    let mut found = Vec::new();
    for at in memchr::memmem::find_iter(stretch, b"x\x9c").chain(memchr::memmem::find_iter(stretch, b"x\x01")) {
        let mut content = Vec::with_capacity(LIMIT);
        let mut zlib = flate2::Decompress::new(true);
        // What came out before an error counts.
        let _ = zlib.decompress_vec(&stretch[at..], &mut content, flate2::FlushDecompress::None);
        found.push(content);
    }
    for at in memchr::memmem::find_iter(stretch, b"\x28\xb5\x2f\xfd") {
        let mut content = Vec::new();
        if let Ok(zstd) = ruzstd::decoding::StreamingDecoder::new(&stretch[at..]) {
            let _ = zstd.take(LIMIT as u64).read_to_end(&mut content);
        }
        found.push(content);
    }
    found
}

#[test]
fn each_fixture_decodes_to_its_expected_lines() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1");
    let mut failures = String::new();
    for Recorded { path, engine, fixture } in recorded() {
        let lines = run(*engine, &fixture.inputs).render();
        if lines != fixture.expected {
            if update {
                fs::write(path, Fixture { expected: lines, ..fixture.clone() }.format()).unwrap();
                continue;
            }
            failures.push_str(&format!("\n{}\n", path.display()));
            let rows = lines.len().max(fixture.expected.len());
            for row in 0..rows {
                let (want, got) = (fixture.expected.get(row), lines.get(row));
                if want != got {
                    failures.push_str(&format!("  {row}: expected {want:?}\n  {row}: decoded  {got:?}\n"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn the_format_reads_back_what_it_writes() {
    for Recorded { path, fixture, .. } in recorded() {
        assert_eq!(Fixture::parse(&fixture.format()).unwrap(), *fixture, "{}", path.display());
    }
}

#[test]
fn single_bytes_give_the_same_statements() {
    for Recorded { path, engine, fixture } in recorded() {
        let total = total_bytes(&fixture.inputs);
        let every_byte: Vec<usize> = (0..total).collect();
        let parts = split(&fixture.inputs, &every_byte);
        assert_eq!(statements(*engine, &fixture.inputs), statements(*engine, &parts), "{}", path.display());
    }
}

fn total_bytes(inputs: &[Input]) -> usize {
    inputs.iter().map(|input| if let Input::Data { bytes, .. } = input { bytes.len() } else { 0 }).sum()
}

/// Damage to one event of a stream. `place` picks the event, `inside` the byte.
#[derive(Clone, Debug)]
enum Damage {
    Gap { place: prop::sample::Index },
    LostWithGap { place: prop::sample::Index },
    LostSilently { place: prop::sample::Index },
    Truncated { place: prop::sample::Index, inside: prop::sample::Index },
    Flipped { place: prop::sample::Index, inside: prop::sample::Index, byte: u8 },
    StartsHere { place: prop::sample::Index },
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        index().prop_map(|place| Damage::Gap { place }),
        index().prop_map(|place| Damage::LostWithGap { place }),
        index().prop_map(|place| Damage::LostSilently { place }),
        (index(), index()).prop_map(|(place, inside)| Damage::Truncated { place, inside }),
        (index(), index(), any::<u8>()).prop_map(|(place, inside, byte)| Damage::Flipped { place, inside, byte }),
        index().prop_map(|place| Damage::StartsHere { place }),
    ]
}

fn apply(damage: &Damage, inputs: &mut Vec<Input>) {
    if inputs.is_empty() {
        return;
    }
    match damage {
        Damage::Gap { place } => inputs.insert(place.index(inputs.len()), Input::Gap),
        Damage::LostWithGap { place } => {
            let place = place.index(inputs.len());
            inputs[place] = Input::Gap;
        }
        Damage::LostSilently { place } => {
            let place = place.index(inputs.len());
            inputs.remove(place);
        }
        Damage::Truncated { place, inside } => {
            let place = place.index(inputs.len());
            if let Input::Data { bytes, missing, .. } = &mut inputs[place]
                && !bytes.is_empty()
            {
                let keep = inside.index(bytes.len());
                *missing += bytes.len() - keep;
                bytes.truncate(keep);
            }
        }
        Damage::Flipped { place, inside, byte } => {
            let place = place.index(inputs.len());
            if let Input::Data { bytes, .. } = &mut inputs[place]
                && !bytes.is_empty()
            {
                let inside = inside.index(bytes.len());
                bytes[inside] = *byte;
            }
        }
        Damage::StartsHere { place } => {
            let place = place.index(inputs.len());
            inputs.drain(..place);
        }
    }
}

fn arbitrary_inputs() -> impl Strategy<Value = Vec<Input>> {
    let data = (
        any::<bool>(),
        0u64..50,
        prop::collection::vec(any::<u8>(), 0..80),
        prop_oneof![4 => Just(0usize), 1 => any::<usize>()],
    )
        .prop_map(|(request, at, bytes, missing)| Input::Data {
            direction: if request { Direction::Request } else { Direction::Response },
            at: Timestamp(at),
            bytes,
            missing,
        });
    let input = prop_oneof![20 => data, 1 => Just(Input::Gap), 1 => Just(Input::Close)];
    prop::collection::vec(input, 0..30)
}

fn engines() -> impl Strategy<Value = Engine> {
    prop::sample::select(vec![Engine::Postgresql, Engine::Mysql, Engine::Mariadb])
}

proptest! {
    // Each case plays every recording, so fewer of them.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_statements(cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..40)) {
        for Recorded { path, engine, fixture } in recorded() {
            let total = total_bytes(&fixture.inputs);
            let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(total.max(1))).collect();
            let parts = split(&fixture.inputs, &cuts);
            prop_assert_eq!(statements(*engine, &fixture.inputs), statements(*engine, &parts), "{}", path.display());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_a_damaged_stream_gives_the_same_statements(
        which: prop::sample::Index,
        damages in prop::collection::vec(damage(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let Recorded { path, engine, fixture } = which.get(recorded());
        let mut inputs = fixture.inputs.clone();
        damages.iter().for_each(|damage| apply(damage, &mut inputs));
        let total = total_bytes(&inputs);
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(total.max(1))).collect();
        let parts = split(&inputs, &cuts);
        prop_assert_eq!(statements(*engine, &inputs), statements(*engine, &parts), "{}", path.display());
    }

    #[test]
    fn damaged_streams_never_invent_a_text(which: prop::sample::Index, damages in prop::collection::vec(damage(), 1..6)) {
        let Recorded { engine, fixture, .. } = which.get(recorded());
        let mut inputs = fixture.inputs.clone();
        damages.iter().for_each(|damage| apply(damage, &mut inputs));
        assert_texts_were_sent(*engine, &inputs)?;
    }

    #[test]
    fn arbitrary_bytes_are_safe(engine in engines(), inputs in arbitrary_inputs()) {
        assert_texts_were_sent(engine, &inputs)?;
    }

    #[test]
    fn arbitrary_bytes_after_a_recording_are_safe(which: prop::sample::Index, cut: prop::sample::Index, rest in arbitrary_inputs()) {
        let Recorded { engine, fixture, .. } = which.get(recorded());
        let mut inputs = fixture.inputs[..cut.index(fixture.inputs.len().max(1))].to_vec();
        inputs.extend(rest);
        assert_texts_were_sent(*engine, &inputs)?;
    }
}
