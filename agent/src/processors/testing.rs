//! Records for the tests of the processors.

use std::{sync::Arc, time::Duration};

use crate::model::{
    Digest, Ending, Engine, Instance, Record, ServerKey, SessionState, Signal, StatementStats, Timestamp,
    names::metric,
    signal::{
        Activity, Blocking, Execution, Fact, Finding, Interval, Origin, Peer, Plan, PlanSource, PlanText, Sampling,
        Seen, Severity, Topic, Wait,
    },
};

/// A PostgreSQL server; the same number is the same server.
pub(crate) fn instance(number: u64) -> Arc<Instance> {
    server(Engine::Postgresql, number)
}

/// A server of an engine.
pub(crate) fn server(engine: Engine, number: u64) -> Arc<Instance> {
    Arc::new(Instance {
        key: ServerKey { pid: number as u32, start_ticks: number },
        engine,
        pooler: None,
        version: None,
        executable: "/usr/bin/server".into(),
        data_dir: None,
        uid: 0,
        listen: Vec::new(),
        container: None,
        service_instance_id: uuid::Uuid::from_u128(u128::from(number) + 1000),
    })
}

/// A normalised statement.
pub(crate) fn digest(fingerprint: u64, text: &str) -> Arc<Digest> {
    Arc::new(Digest {
        fingerprint,
        text: text.into(),
        summary: "SELECT orders".into(),
        operation: Some("SELECT".into()),
        collection: Some("orders".into()),
    })
}

fn statement(fingerprint: u64) -> Arc<Digest> {
    digest(fingerprint, &format!("select * from orders{fingerprint} where id=?"))
}

fn record(instance: &Arc<Instance>, at: Timestamp, signal: Signal) -> Record {
    let origin = Origin { instance: instance.clone(), database: Some("shop".into()), user: Some("app".into()) };
    Record::new(at, origin, signal)
}

/// Statistics of executions of 1 ms, 2 ms, ... up to ten, over and over.
pub(crate) fn interval(instance: &Arc<Instance>, at: Timestamp, fingerprint: u64, executions: u64) -> Record {
    let mut stats = StatementStats::default();
    (0..executions).for_each(|number| stats.ok.record(Duration::from_millis(number % 10 + 1)));
    interval_of(instance, at, fingerprint, stats)
}

/// These statistics.
pub(crate) fn interval_of(instance: &Arc<Instance>, at: Timestamp, fingerprint: u64, stats: StatementStats) -> Record {
    let interval = Interval {
        digest: statement(fingerprint),
        length: Duration::from_secs(10),
        stats,
        load: None,
        pace: None,
        maintenance: false,
    };
    record(instance, at, Signal::Interval(Box::new(interval)))
}

/// An execution that ended well at `at`.
pub(crate) fn execution(instance: &Arc<Instance>, at: Timestamp, fingerprint: u64, duration: Duration) -> Record {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let execution = Execution {
        digest: statement(fingerprint),
        session: Some(Peer { connection: 7, process: 70 }),
        ordinal: None,
        start: Timestamp(at.0.saturating_sub(nanos)),
        duration,
        ending: Ending::Ok,
        rows: 1,
        application: Some("backend".into()),
        trace: None,
        plan: None,
        seen: Seen::default(),
        sampling: Sampling::default(),
        situation: None,
    };
    record(instance, at, Signal::Execution(Box::new(execution)))
}

/// A plan as the server wrote it.
pub(crate) fn plan(instance: &Arc<Instance>, at: Timestamp, fingerprint: u64, text: &str) -> Record {
    let plan = Plan {
        digest: statement(fingerprint),
        source: PlanSource::AutoExplain,
        text: PlanText::new(text),
        duration: None,
        masked: None,
        id: None,
        facts: None,
        change: None,
        sampling: Sampling::default(),
    };
    record(instance, at, Signal::Plan(Box::new(plan)))
}

/// A session that waits for the client.
pub(crate) fn activity(instance: &Arc<Instance>, at: Timestamp) -> Record {
    let activity = Activity {
        session: Peer { connection: 7, process: 70 },
        state: SessionState::Idle,
        wait: Some(Wait { class: "Client".into(), event: "ClientRead".into() }),
        digest: Some(statement(10)),
        lasting: Duration::from_secs(1),
        application: Some("backend".into()),
        client: None,
    };
    record(instance, at, Signal::Activity(Box::new(activity)))
}

/// A session that waits for process `blocker`.
pub(crate) fn blocking(instance: &Arc<Instance>, at: Timestamp, blocker: u32) -> Record {
    let blocking = Blocking {
        blocked: Peer { connection: 7, process: 70 },
        blocker: Peer { connection: 0, process: blocker },
        blocked_digest: Some(statement(10)),
        blocker_digest: None,
        lock: Some("ShareLock".into()),
        relation: Some("orders".into()),
        waited: Duration::from_secs(1),
        depth: 1,
    };
    record(instance, at, Signal::Blocking(Box::new(blocking)))
}

/// A number of a server.
pub(crate) fn fact(instance: &Arc<Instance>, at: Timestamp, value: f64) -> Record {
    let fact = Fact {
        metric: &metric::SERVER_CONNECTS,
        value,
        attributes: vec![("querylens.session.state", "active".into())],
    };
    record(instance, at, Signal::Fact(Box::new(fact)))
}

/// A conclusion.
pub(crate) fn finding(instance: &Arc<Instance>, at: Timestamp) -> Record {
    let finding = Finding {
        topic: Topic::Spill,
        severity: Severity::High,
        digest: Some(statement(10)),
        plan: None,
        objects: vec!["Sort".into()],
        evidence: vec![("disk_kilobytes", 40_000.0)],
    };
    record(instance, at, Signal::Finding(Box::new(finding)))
}

/// A plan of PostgreSQL, with literals in a condition.
pub(crate) const PLAN: &str = r#"[{"Plan": {"Node Type": "Index Scan", "Parallel Aware": false, "Index Name": "orders_pkey",
"Relation Name": "orders", "Schema": "public", "Alias": "o", "Startup Cost": 0.42, "Total Cost": 8.44, "Plan Rows": 1, "Plan Width": 97,
"Index Cond": "(id = 4711)", "Filter": "((email)::text = 'ann@example.com'::text)"}}]"#;

/// One record of each kind, all of the first second.
pub(crate) fn one_of_each() -> Vec<Record> {
    let (instance, at) = (instance(1), Timestamp(1_000_000_000));
    let mut shown = plan(&instance, at, 10, PLAN);
    if let Signal::Plan(plan) = &mut shown.signal {
        plan.masked = Some("{}".into());
    }
    vec![
        interval(&instance, at, 10, 100),
        execution(&instance, at, 10, Duration::from_millis(3)),
        shown,
        activity(&instance, at),
        blocking(&instance, at, 80),
        fact(&instance, at, 3.0),
        finding(&instance, at),
    ]
}

/// The fingerprint of the statement of an execution or interval; 0 for anything else.
pub(crate) fn fingerprint(record: &Record) -> u64 {
    match &record.signal {
        Signal::Execution(execution) => execution.digest.fingerprint,
        Signal::Interval(interval) => interval.digest.fingerprint,
        _ => 0,
    }
}
