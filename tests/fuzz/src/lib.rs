//! What the two targets for protocol machines share: an input as a sequence of things that happen on a connection.

use querylens::{
    model::{Engine, Text, Timestamp},
    wire::{Direction, Event, machine},
};

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
pub fn check(engine: Engine, input: &[u8]) {
    let operations = operations(input);
    let whole = run(engine, &operations, <[u8]>::len);
    // Each statement takes a message of its own; what waits for the end of a connection was sent too.
    assert!(whole.len() <= input.len(), "{} statements of {} bytes", whole.len(), input.len());
    let parts = [1, 3, 7].map(|size| run(engine, &operations, |_| size));
    for part in parts {
        assert_eq!(whole, part);
    }
}
