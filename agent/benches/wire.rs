//! Statements and bytes of result rows per second through the protocol machines, on streams recorded from real servers (tests/wire).
//!
//! Each stream is played up to its last connection attempt or preparation; what follows, up to the last statement, is played again and
//! again on the same machine, in the chunks in which it was recorded.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, path::PathBuf, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use querylens::{
    model::{Engine, Kind, Timestamp},
    wire::{Direction, Event, Machine, machine},
};

use stream::{Fixture, Input};

#[allow(unreachable_pub, reason = "a module of another crate, which exports it")]
#[path = "../../tests/src/stream.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod stream;

/// What a recording measures, and its streams by engine.
const STATEMENTS: [(&str, &[(Engine, &str)]); 3] = [
    (
        "simple",
        &[
            (Engine::Postgresql, "postgres/pgbench-simple-0"),
            (Engine::Mariadb, "mariadb/sysbench-text"),
            (Engine::Mysql, "mysql/text"),
        ],
    ),
    ("extended", &[(Engine::Postgresql, "postgres/pgbench-extended-0")]),
    (
        "prepared",
        &[
            (Engine::Postgresql, "postgres/pgbench-prepared-0"),
            (Engine::Mariadb, "mariadb/sysbench-ps"),
            (Engine::Mysql, "mysql/sysbench-ps"),
        ],
    ),
];
const ROWS: &[(Engine, &str)] = &[(Engine::Postgresql, "postgres/rows-0")];

/// A machine in the middle of a session, and the chunks to play on it.
struct Loop {
    machine: Box<dyn Machine>,
    chunks: Vec<(Direction, u64, Vec<u8>)>,
    now: u64,
    span: u64,
    out: Vec<Event>,
}

impl Loop {
    fn new(engine: Engine, name: &str) -> Loop {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/wire").join(name).with_extension("stream");
        let inputs = Fixture::parse(&fs::read_to_string(&path).unwrap()).unwrap().inputs;
        let mut machine = machine(engine);
        let (mut begin, mut end) = (0, 0);
        let mut out = Vec::new();
        for (index, input) in inputs.iter().enumerate() {
            let Input::Data { direction, at, bytes, .. } = input else { continue };
            machine.data(*direction, *at, bytes, bytes.len(), &mut out);
            for event in out.drain(..) {
                let Event::Statement(statement) = event else { continue };
                end = index + 1;
                if matches!(statement.kind, Kind::Connect | Kind::Prepare) {
                    begin = index + 1;
                }
            }
        }
        let chunks: Vec<(Direction, u64, Vec<u8>)> = inputs[begin..end]
            .iter()
            .filter_map(|input| match input {
                Input::Data { direction, at, bytes, .. } => Some((*direction, at.0, bytes.clone())),
                Input::Gap | Input::Close => None,
            })
            .collect();
        let (first, now) = (chunks[0].1, chunks[chunks.len() - 1].1);
        Loop { machine, chunks, now, span: now - first + 1000, out }
    }

    /// Plays the chunks once, later than the time before; returns the number of statements.
    fn play(&mut self) -> usize {
        let mut statements = 0;
        let shift = self.now - self.chunks[0].1;
        for (direction, at, bytes) in &self.chunks {
            self.machine.data(*direction, Timestamp(shift + at), bytes, bytes.len(), &mut self.out);
            statements += self.out.iter().filter(|event| matches!(event, Event::Statement(_))).count();
            self.out.clear();
        }
        self.now += self.span;
        statements
    }

    /// Bytes of its responses.
    fn response_bytes(&self) -> usize {
        let responses = self.chunks.iter().filter(|(direction, ..)| *direction == Direction::Response);
        responses.map(|(.., bytes)| bytes.len()).sum()
    }
}

fn statements(criterion: &mut Criterion) {
    for (shape, streams) in STATEMENTS {
        let mut group = criterion.benchmark_group(format!("statements {shape}"));
        for (engine, name) in streams {
            let mut session = Loop::new(*engine, name);
            let count = session.play();
            assert!(count > 0, "{name}: no statement to repeat");
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(engine.name(), |bencher| {
                bencher.iter(|| assert_eq!(session.play(), count));
            });
        }
        group.finish();
    }
}

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    for (engine, name) in ROWS {
        let mut session = Loop::new(*engine, name);
        let count = session.play();
        group.throughput(Throughput::Bytes(session.response_bytes() as u64));
        group.bench_function(engine.name(), |bencher| {
            bencher.iter(|| assert_eq!(session.play(), count));
        });
    }
    group.finish();
}

criterion_group! {
    name = wire;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = statements, rows
}
criterion_main!(wire);
