//! Time of the whole chain of processors for a signal, and of each processor alone, on signals made of recorded traffic (tests/wire).
//!
//! The recorded streams are played through the protocol machines and the normaliser. Each statement is an example, as the kernel's samples are, and each that
//! differs by server, database, user and text is a row of statistics. Rows and examples repeat with other users until there are as many as a busy host sends;
//! a hundredth of them are states of sessions, numbers of servers, and plans.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    collections::HashMap,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use querylens::{
    model::{
        Batch, Digest, Ending, Engine, Instance, Kind, Record, ServerKey, SessionState, Signal, Statement,
        StatementStats, Status, Text, Timestamp, WallClock,
        names::metric,
        signal::{Activity, Execution, Fact, Interval, Origin, Peer, Plan, PlanSource, PlanText, Sampling, Seen},
    },
    processors::{Chain, Config, Effects, Stage, breaker::Gate, chain::Surroundings},
    sql::Normaliser,
    wire::{Event, machine},
};

use stream::{Fixture, Input};

#[allow(unreachable_pub, reason = "a module of another crate, which exports it")]
#[path = "../../tests/src/stream.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod stream;

/// Signals of a batch.
const SIGNALS: usize = 10_000;
/// Time between two batches.
const INTERVAL: Duration = Duration::from_secs(10);
const SERVERS: [(Engine, &str); 3] =
    [(Engine::Postgresql, "postgres"), (Engine::Mariadb, "mariadb"), (Engine::Mysql, "mysql")];
const PLAN: &str = r#"[{"Plan": {"Node Type": "Nested Loop", "Join Type": "Inner", "Startup Cost": 0.5, "Total Cost": 120.5, "Plan Rows": 12,
"Plan Width": 40, "Plans": [{"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Relation Name": "customers", "Schema": "public",
"Startup Cost": 0.0, "Total Cost": 20.0, "Plan Rows": 3, "Plan Width": 8, "Filter": "(country = 'DE'::text)"}, {"Node Type": "Index Scan",
"Parent Relationship": "Inner", "Index Name": "orders_customer", "Relation Name": "orders", "Startup Cost": 0.4, "Total Cost": 8.4,
"Plan Rows": 4, "Plan Width": 32, "Index Cond": "(customer_id = customers.id)"}]}}]"#;

fn server(engine: Engine, number: u32) -> Arc<Instance> {
    Arc::new(Instance {
        key: ServerKey { pid: number, start_ticks: 0 },
        engine,
        pooler: None,
        version: None,
        executable: PathBuf::new(),
        data_dir: None,
        uid: 0,
        listen: Vec::new(),
        container: None,
        service_instance_id: uuid::Uuid::from_u128(u128::from(number) + 1),
    })
}

/// A statement with its database and its user.
type Spoken = (Statement, Option<Arc<str>>, Option<Arc<str>>);

/// The statements of all recorded streams of an engine, with whose they are.
fn statements(engine: Engine, folder: &str) -> Vec<Spoken> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/wire").join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "stream"));
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let mut machine = machine(engine);
        let mut out = Vec::new();
        for input in Fixture::parse(&fs::read_to_string(&path).unwrap()).unwrap().inputs {
            let Input::Data { direction, at, bytes, .. } = input else { continue };
            machine.data(direction, at, &bytes, bytes.len(), &mut out);
            for event in out.drain(..) {
                if let Event::Statement(statement) = event
                    && statement.kind != Kind::Connect
                {
                    let info = machine.info();
                    all.push((statement, info.database.clone(), info.user.clone()));
                }
            }
        }
    }
    all
}

/// The signals of one interval that ends at zero.
fn signals() -> Vec<Record> {
    let mut normaliser = Normaliser::default();
    let mut digests: HashMap<(Engine, u64), Arc<Digest>> = HashMap::new();
    let (mut examples, mut rows): (Vec<Record>, Vec<Record>) = (Vec::new(), Vec::new());
    for (number, (engine, folder)) in SERVERS.into_iter().enumerate() {
        let instance = server(engine, number as u32);
        let mut stats: HashMap<u64, (Origin, StatementStats)> = HashMap::new();
        for (statement, database, user) in statements(engine, folder) {
            let Text::Known(text) = &statement.text else { continue };
            let digest = Arc::new(normaliser.digest(engine, text.raw(), text.truncated()));
            let digest = digests.entry((engine, digest.fingerprint)).or_insert(digest).clone();
            let origin = Origin { instance: instance.clone(), database, user };
            let row =
                &mut stats.entry(digest.fingerprint).or_insert_with(|| (origin.clone(), StatementStats::default())).1;
            let ending = match statement.status {
                Status::Ok => Ending::Ok,
                Status::Error => Ending::Failed(statement.code),
                Status::Incomplete => Ending::Incomplete,
            };
            match ending {
                Ending::Ok => (0..30).for_each(|_| row.ok.record(statement.duration())),
                _ => row.failed.at(statement.code).record(statement.duration()),
            }
            // Failures are rare on a real server; the recordings have many.
            if ending != Ending::Ok && examples.len() % 200 != 0 {
                continue;
            }
            let execution = Execution {
                digest,
                session: Some(Peer { connection: 1 + examples.len() as u64 % 50, process: 1 }),
                ordinal: None,
                start: Timestamp(0),
                duration: statement.duration(),
                ending,
                rows: statement.rows_sent.unwrap_or(0),
                application: Some("backend".into()),
                trace: None,
                plan: None,
                seen: Seen::default(),
                sampling: Sampling { weight: 1024.0, rule: None },
                situation: None,
            };
            examples.push(Record::new(Timestamp(0), origin, Signal::Execution(Box::new(execution))));
        }
        rows.extend(stats.into_iter().map(|(fingerprint, (origin, stats))| {
            let digest = digests[&(engine, fingerprint)].clone();
            let interval = Interval { digest, length: INTERVAL, stats, load: None, pace: None, maintenance: false };
            Record::new(Timestamp(0), origin, Signal::Interval(Box::new(interval)))
        }));
    }
    let others = others(&examples);
    let users: Vec<Arc<str>> = (0..20).map(|number| format!("app_{number}").into()).collect();
    let mut all: Vec<Record> = Vec::with_capacity(SIGNALS);
    for at in 0.. {
        if all.len() >= SIGNALS {
            break;
        }
        let repeat = |list: &[Record]| {
            let mut record = list[at % list.len()].clone();
            record.origin.user = Some(users[at / list.len() % users.len()].clone());
            record
        };
        all.push(repeat(&rows));
        all.push(repeat(&examples));
        if at % 50 == 0 {
            all.push(repeat(&others));
        }
    }
    all.truncate(SIGNALS);
    all
}

/// States of sessions, numbers of servers, and a plan.
fn others(examples: &[Record]) -> Vec<Record> {
    let origin = examples[0].origin.clone();
    let Signal::Execution(example) = &examples[0].signal else { panic!("examples are executions") };
    let activity = Activity {
        session: Peer { connection: 1, process: 1 },
        state: SessionState::Active,
        wait: None,
        digest: Some(example.digest.clone()),
        lasting: Duration::from_millis(3),
        application: Some("backend".into()),
        client: None,
    };
    let fact = Fact {
        metric: &metric::SERVER_CONNECTS,
        value: 5.0,
        attributes: vec![("db.system.name", "postgresql".into())],
    };
    let plan = Plan {
        digest: example.digest.clone(),
        source: PlanSource::AutoExplain,
        text: PlanText::new(PLAN),
        duration: None,
        masked: None,
        id: None,
        facts: None,
        change: None,
        sampling: Sampling::default(),
    };
    let activity = || Signal::Activity(Box::new(activity.clone()));
    let fact = || Signal::Fact(Box::new(fact.clone()));
    let signals = [activity(), fact(), activity(), fact(), Signal::Plan(Box::new(plan))];
    signals.into_iter().map(|signal| Record::new(Timestamp(0), origin.clone(), signal)).collect()
}

fn chain(order: &[Stage]) -> Chain {
    let mut config = Config { order: order.to_vec(), ..Config::default() };
    // All that a processor can do, though nothing has to be left out.
    config.cost_control.enabled = true;
    config.error_monitor.enabled = true;
    let gate = Gate::new(config.circuit_breaker.clone());
    Chain::new(&config, Surroundings { gate, random: [1; 32], kernel_one_in: 1024, stopwatch: None })
}

fn pipeline(criterion: &mut Criterion) {
    let signals = signals();
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(signals.len() as u64));
    let orders =
        std::iter::once(("chain", Stage::ORDER.to_vec())).chain(Stage::ORDER.map(|stage| (stage.name(), vec![stage])));
    for (name, order) in orders {
        let mut chain = chain(&order);
        let mut now = Timestamp(0);
        group.bench_function(name, |bencher| {
            let setup = || {
                now = now + INTERVAL;
                let mut batch = Batch::new(WallClock::at(now, 1_800_000_000_000_000_000));
                for record in &signals {
                    let mut record = record.clone();
                    record.at = now;
                    if let Signal::Execution(execution) = &mut record.signal {
                        execution.start = Timestamp(now.0.saturating_sub(execution.duration.as_nanos() as u64));
                    }
                    batch.push(record);
                }
                (now, batch)
            };
            // What is left is dropped outside of the measured time, as it is in the agent: by the exporter.
            let process = |(now, mut batch): (Timestamp, Batch)| {
                let mut effects = Effects::default();
                chain.process(now, &mut batch, &mut effects);
                assert_eq!(batch.ledger().accepted, batch.len() as u64 + batch.ledger().discards());
                black_box((batch, effects))
            };
            bencher.iter_batched(setup, process, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = pipeline
}
criterion_main!(benches);
