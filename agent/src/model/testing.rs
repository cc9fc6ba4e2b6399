//! Snapshots for the tests of what renders them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::{
    AgentStats, ByCode, Code, Collected, Container, Digest, Engine, Enrichment, Instance, InstanceSnapshot, Joined,
    KernelUse, Listen, ServerCounters, ServerKey, SessionCounts, Snapshot, StatementSnapshot, StatementStats,
    TransactionStats, WireState,
};

/// Characters that each format has to escape or replace.
pub(crate) const HOSTILE: &str = "a\"b\\c\nd\re\tf\0g\u{1b}[31mh{}=,'é";

/// A statement that was never executed; empty names are absent ones.
pub(crate) fn statement(database: &str, user: &str, fingerprint: u64, text: &str) -> StatementSnapshot {
    let named = |name: &str| Some(Arc::from(name)).filter(|name: &Arc<str>| !name.is_empty());
    let digest = Digest {
        fingerprint,
        text: text.into(),
        summary: text.into(),
        operation: text.split(' ').next().map(Arc::from),
        collection: Some("pgbench_accounts".into()),
    };
    StatementSnapshot {
        database: named(database),
        user: named(user),
        digest: Arc::new(digest),
        stats: StatementStats::default(),
    }
}

/// A statement with numbers everywhere: three successes (1, 2 and 40 ms), two failures with 42P01, one without a code.
pub(crate) fn busy_statement() -> StatementSnapshot {
    let mut row = statement("bench", "app", 0xfeed, "SELECT * FROM pgbench_accounts WHERE aid = ?");
    let stats = &mut row.stats;
    [1, 2, 40].into_iter().for_each(|millis| stats.ok.record(Duration::from_millis(millis)));
    let code = Some(Code::Sqlstate(*b"42P01"));
    [3, 5].into_iter().for_each(|millis| stats.failed.at(code).record(Duration::from_millis(millis)));
    stats.failed.at(None).record(Duration::from_secs(2));
    stats.first_byte.add(1, Duration::from_micros(400));
    (stats.rows_sent, stats.rows_affected, stats.bytes_in, stats.bytes_out) = (300, 7, 1_000, 50_000);
    (stats.prepares, stats.estimated, stats.truncated) = (4, 2, 1);
    let time = Duration::from_millis;
    stats.known = Some(Box::new(Enrichment {
        join: super::Join::Matched,
        server: Some(ServerCounters {
            calls: 6,
            exec_time: time(51),
            plan_time: time(2),
            shared_hit: 60,
            io_time: time(3),
            wal_bytes: 512,
            rows_examined: 900,
            ..ServerCounters::default()
        }),
        source: Some("pg_stat_statements"),
        ids: vec!["-77".into()],
        waits: BTreeMap::from([("Lock".into(), time(4_000))]),
        kernel: Some(KernelUse {
            on_cpu: time(1_500),
            run_queue: time(20),
            switches: 33,
            block_io: Some(time(10)),
            major_faults: 5,
            read_bytes: Some(8_192),
            written_bytes: None,
        }),
    }));
    row
}

/// Two transactions that were committed (2 and 4 ms) and one that was rolled back (30 ms), 1.5 s of waiting in them.
fn transactions() -> TransactionStats {
    let mut stats = TransactionStats { idle: Duration::from_millis(1_500), ..TransactionStats::default() };
    [2, 4].into_iter().for_each(|millis| stats.committed.record(Duration::from_millis(millis)));
    stats.rolled_back.record(Duration::from_millis(30));
    stats
}

/// The server `postgresql:5432` without sessions or statements.
pub(crate) fn server() -> InstanceSnapshot {
    let instance = Instance {
        key: ServerKey { pid: 4711, start_ticks: 99 },
        engine: Engine::Postgresql,
        pooler: None,
        version: Some("15.18".into()),
        executable: "/usr/lib/postgresql/15/bin/postgres".into(),
        data_dir: Some("/var/lib/postgresql/15/main".into()),
        uid: 105,
        listen: vec![Listen::Tcp(([127, 0, 0, 1], 5432).into()), Listen::Unix("/run/postgresql/.s.PGSQL.5432".into())],
        container: None,
        service_instance_id: uuid::Uuid::from_u128(0x1234),
    };
    InstanceSnapshot {
        instance: Arc::new(instance),
        wire: WireState { state: "visible", strategy: "boundary", reason: "symbols are there".into() },
        transport: "tcp+unix",
        sessions: SessionCounts { active: 3, idle: 5, opaque: 1, ..SessionCounts::default() },
        connects: 12,
        connect_failures: {
            let mut failures = ByCode::default();
            *failures.at(Some(Code::Sqlstate(*b"28P01"))) += 2;
            *failures.at(None) += 1;
            failures
        },
        transactions: transactions(),
        outliers: Vec::new(),
        statements: Vec::new(),
        losses: BTreeMap::from([("desynchronised", 6)]),
    }
}

/// A second server, in a container, of another engine.
pub(crate) fn other_server() -> InstanceSnapshot {
    let mut other = server();
    let mut instance = (*other.instance).clone();
    instance.key = ServerKey { pid: 4712, start_ticks: 100 };
    instance.engine = Engine::Mariadb;
    instance.service_instance_id = uuid::Uuid::from_u128(0x5678);
    instance.listen = vec![Listen::Unix("/run/mysqld/mysqld.sock".into())];
    instance.container = Some(Container {
        runtime: "docker".into(),
        id: Some("c0ffee".into()),
        pod_uid: Some("pod-1".into()),
        root: None,
    });
    other.instance = Arc::new(instance);
    other.wire = WireState { state: "hidden", strategy: "none", reason: "no symbol".into() };
    other.connect_failures = ByCode::default();
    other.losses.clear();
    other
}

/// The two servers; the first has `statements`.
pub(crate) fn with_statements(statements: Vec<StatementSnapshot>) -> Snapshot {
    let mut first = server();
    first.statements = statements;
    Snapshot {
        at: UNIX_EPOCH + Duration::from_millis(1_700_000_060_500),
        start: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        instances: vec![first, other_server()],
        collected: Default::default(),
        agent: AgentStats {
            cpu: Duration::from_millis(1_250),
            program_time: Some(Duration::from_millis(75)),
            rss_bytes: 32 << 20,
            records: 1_000,
            losses: BTreeMap::from([("ring_full_data", 4), ("truncated", 9)]),
        },
        features: vec![("ring_buffer", super::Verdict::Ok)],
        measured: std::sync::Arc::default(),
    }
}

/// Everything at once.
pub(crate) fn busy() -> Snapshot {
    let mut busy = with_statements(vec![busy_statement(), statement("bench", "app", 0xbeef, "COMMIT")]);
    let joined = Some(Joined { matched: 6, ambiguous: 2, unmatched: 1 });
    busy.collected.insert(busy.instances[0].instance.key, Collected { joined, ..Collected::default() });
    busy
}
