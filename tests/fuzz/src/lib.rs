//! What the targets hold. Inputs that failed once are in `seeds`; `tests/tests/fuzz_seeds.rs` replays them without a fuzzer.

use agent_ebpf::{HEADER_LEN, decode, segments};
use querylens::{
    model::{Engine, Text, Timestamp},
    replay::{Choice, profile::Profile, replay},
    sql::Normaliser,
    wire::{Direction, Event, machine},
};

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("wire_postgres", wire_postgres),
    ("wire_mysql", wire_mysql),
    ("sql_normalise", sql_normalise),
    ("pcap", pcap),
    ("record", record),
];

/// The PostgreSQL machine: whatever happens on a connection, and however its bytes are cut.
pub fn wire_postgres(input: &[u8]) {
    check(Engine::Postgresql, input);
}

/// The MySQL machine: whatever happens on a connection, and however its bytes are cut.
pub fn wire_mysql(input: &[u8]) {
    check(Engine::Mysql, input);
}

/// Texts of statements, of every engine: a normalised text is bounded and normalises to itself.
pub fn sql_normalise(input: &[u8]) {
    /// `sql` cuts a normalised text at 8 KiB; what marks the cut comes on top.
    const BOUND: usize = (8 << 10) + 64;
    let Some((first, text)) = input.split_first() else { return };
    let engine = [Engine::Postgresql, Engine::Mysql, Engine::Mariadb][usize::from(first & 0x7f) % 3];
    let mut normaliser = Normaliser::default();
    let digest = normaliser.digest(engine, text, first & 0x80 != 0);
    assert!(digest.text.len() <= BOUND, "{} bytes", digest.text.len());
    assert!(digest.summary.len() <= 255, "{} bytes", digest.summary.len());
    if &*digest.text == "<unparsable>" || digest.text.ends_with(" ...") {
        return;
    }
    let again = normaliser.digest(engine, digest.text.as_bytes(), false);
    assert_eq!((&digest.text, digest.fingerprint), (&again.text, again.fingerprint));
}

/// Capture files: whatever the bytes, a replay ends, and what it says of statements holds together.
pub fn pcap(file: &[u8]) {
    let mut profile = Profile::new(true);
    let mut executions = 0u64;
    let coverage = replay(file, &Choice::default(), &mut |execution| {
        executions += 1;
        let statement = execution.statement;
        assert!(statement.start <= statement.end);
        assert!(statement.first_byte.is_none_or(|first| first <= statement.end));
        profile.add(execution);
        Ok(())
    });
    if let Ok(coverage) = coverage {
        assert!(coverage.packets > 0 || executions == 0);
        let _ = (coverage.troubles(), coverage.left_alone());
    }
}

/// Records as they lie in the ring buffer: whatever the bytes, decoding gives what lies within them.
pub fn record(bytes: &[u8]) {
    let Ok(record) = decode(bytes) else { return };
    assert!(record.payload.len() + HEADER_LEN <= bytes.len());
    assert_eq!(record.payload.len(), record.header.captured as usize);
    let mut carried = 0;
    for (captured, true_len) in segments(record.payload) {
        assert!(captured.len() <= true_len);
        carried += captured.len() + 4;
    }
    assert!(carried <= record.payload.len());
}

/// Bytes of one operation: kind, time step, length (two bytes), missing.
const OPERATION: usize = 5;

/// Something that happens on a connection.
#[derive(Clone, Copy, Debug)]
enum Operation<'a> {
    Data { direction: Direction, at: Timestamp, bytes: &'a [u8], missing: usize },
    Gap(Timestamp),
    Close(Timestamp),
}

/// Reads an input: operations, each followed by the bytes that it carries.
fn operations(mut input: &[u8]) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    let mut now = 0;
    while let Some(([kind, step, low, high, missing], rest)) = input.split_first_chunk::<OPERATION>() {
        input = rest;
        now += u64::from(*step);
        let at = Timestamp(now);
        operations.push(match kind & 7 {
            6 => Operation::Gap(at),
            7 => Operation::Close(at),
            kind => {
                let length = usize::from(u16::from_le_bytes([*low, *high])).min(input.len());
                let (bytes, rest) = input.split_at(length);
                input = rest;
                let direction = if kind & 1 == 0 { Direction::Request } else { Direction::Response };
                // Mostly nothing is missing; up to what a message of the largest size lacks.
                let missing = if *missing < 192 { 0 } else { 1usize << (missing & 31) };
                Operation::Data { direction, at, bytes, missing }
            }
        });
    }
    operations
}

/// What a machine says, a line an event, with the bytes of its texts.
fn run(engine: Engine, operations: &[Operation<'_>], cut: impl Fn(&[u8]) -> usize) -> Vec<String> {
    let mut machine = machine(engine);
    let mut events = Vec::new();
    for operation in operations {
        match *operation {
            Operation::Gap(at) => machine.gap(at, &mut events),
            Operation::Close(at) => machine.close(at, &mut events),
            Operation::Data { direction, at, mut bytes, missing } => {
                // The same read or write in parts: the same direction and time.
                while bytes.len() > 1 {
                    let (part, rest) = bytes.split_at(cut(bytes).clamp(1, bytes.len()));
                    if rest.is_empty() {
                        break;
                    }
                    machine.data(direction, at, part, part.len(), &mut events);
                    bytes = rest;
                }
                machine.data(direction, at, bytes, bytes.len() + missing, &mut events);
            }
        }
    }
    events.iter().filter_map(statement).collect()
}

fn statement(event: &Event) -> Option<String> {
    let Event::Statement(statement) = event else { return None };
    assert!(statement.start <= statement.end, "{statement:?}");
    let text = match &statement.text {
        Text::Known(text) => text.raw().escape_ascii().to_string(),
        Text::Unknown | Text::None => String::new(),
    };
    Some(format!("{statement:?} {text}"))
}

/// Feeds an input whole, byte by byte and in parts: the statements are the same.
fn check(engine: Engine, input: &[u8]) {
    let operations = operations(input);
    let whole = run(engine, &operations, <[u8]>::len);
    // Each statement takes a message of its own; what waits for the end of a connection was sent too.
    assert!(whole.len() <= input.len(), "{} statements of {} bytes", whole.len(), input.len());
    let parts = [1, 3, 7].map(|size| run(engine, &operations, |_| size));
    for part in parts {
        assert_eq!(whole, part);
    }
}
