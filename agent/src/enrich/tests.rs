#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::model::{KernelUse, SeenStatement, ServerCounters, ServerStatement, Standing, testing};

fn digest(fingerprint: u64) -> Arc<Digest> {
    Arc::new(Digest { fingerprint, ..Digest::command() })
}

fn name(text: &str) -> Option<Arc<str>> {
    (text != "-").then(|| text.into())
}

/// A row on the wire: database, user, fingerprint, executions.
fn row(database: &str, user: &str, fingerprint: u64, executions: u64) -> StatementSnapshot {
    let mut stats = StatementStats::default();
    (0..executions).for_each(|_| stats.ok.record(Duration::from_millis(1)));
    StatementSnapshot { database: name(database), user: name(user), digest: digest(fingerprint), stats }
}

/// A statement by the server's count: database, user, fingerprint, identity, calls.
fn counted(database: &str, user: &str, fingerprint: u64, id: &str, calls: u64) -> ServerStatement {
    ServerStatement {
        database: name(database),
        user: name(user),
        id: id.into(),
        digest: digest(fingerprint),
        total: ServerCounters { calls, shared_hit: calls * 10, ..ServerCounters::default() },
        p95: None,
        p99: None,
    }
}

fn seen(database: &str, user: &str, fingerprint: u64, seconds: u64) -> SeenStatement {
    let time = Duration::from_secs(seconds);
    SeenStatement {
        database: name(database),
        user: name(user),
        digest: digest(fingerprint),
        waits: BTreeMap::from([("Lock".into(), time)]),
        kernel: Some(KernelUse { on_cpu: time, ..KernelUse::default() }),
    }
}

/// The rows of a server with these, joined.
fn join(
    rows: Vec<StatementSnapshot>,
    statements: Vec<ServerStatement>,
    seen: Vec<SeenStatement>,
) -> (Vec<StatementSnapshot>, Option<Joined>) {
    let mut server = InstanceSnapshot { statements: rows, ..testing::busy().instances.remove(0) };
    let standing = Standing { question: Question::Statements, rung: "pg_stat_statements", above: Vec::new() };
    let collected = Collected {
        statements: statements.into(),
        seen: seen.into(),
        standings: [standing].into(),
        ..Collected::default()
    };
    let joined = enrich(&mut server, &collected);
    (server.statements, joined)
}

fn calls(row: &StatementSnapshot) -> Option<u64> {
    row.stats.known.as_ref().unwrap().server.map(|server| server.calls)
}

#[test]
fn each_user_and_database_has_its_own() {
    let rows = vec![row("a", "ann", 7, 3), row("a", "bob", 7, 4), row("b", "ann", 7, 5), row("a", "ann", 8, 6)];
    let statements =
        vec![counted("a", "ann", 7, "1", 3), counted("a", "bob", 7, "1", 4), counted("b", "ann", 7, "1", 5)];
    let (rows, joined) = join(rows, statements, vec![seen("a", "bob", 7, 2)]);
    assert_eq!(joined, Some(Joined { matched: 12, ambiguous: 0, unmatched: 6 }));
    assert_eq!(rows.iter().map(calls).collect::<Vec<_>>(), [Some(3), Some(4), Some(5), None]);
    let bob = rows[1].stats.known.as_ref().unwrap();
    assert_eq!((bob.join, bob.source, &bob.ids[..]), (Join::Matched, Some("pg_stat_statements"), &["1".into()][..]));
    assert_eq!((bob.waits["Lock"], bob.kernel.unwrap().on_cpu), (Duration::from_secs(2), Duration::from_secs(2)));
    assert_eq!(rows[0].stats.known.as_ref().unwrap().kernel, None);
}

#[test]
fn what_the_server_tells_apart_further_is_summed_up() {
    let statements = vec![counted("a", "ann", 7, "2", 3), counted("a", "ann", 7, "1", 4)];
    let (rows, _) = join(vec![row("a", "ann", 7, 7)], statements, Vec::new());
    let known = rows[0].stats.known.as_ref().unwrap();
    assert_eq!((known.server.unwrap().calls, known.server.unwrap().shared_hit), (7, 70));
    assert_eq!(known.ids, ["1".into(), "2".into()]);
}

#[test]
fn a_connection_older_than_the_agent_is_joined_if_only_one_fits() {
    let one = || vec![counted("a", "ann", 7, "1", 3)];
    let (rows, joined) = join(vec![row("-", "-", 7, 3)], one(), Vec::new());
    assert_eq!((joined.unwrap().matched, calls(&rows[0])), (3, Some(3)));
    // Two users.
    let two = vec![counted("a", "ann", 7, "1", 3), counted("a", "bob", 7, "1", 3)];
    let (rows, joined) = join(vec![row("-", "-", 7, 3)], two, Vec::new());
    assert_eq!((joined.unwrap().ambiguous, calls(&rows[0])), (3, None));
    // Somebody has the better claim.
    let (rows, joined) = join(vec![row("-", "-", 7, 3), row("a", "ann", 7, 1)], one(), Vec::new());
    assert_eq!(joined, Some(Joined { matched: 1, ambiguous: 3, unmatched: 0 }));
    assert_eq!((calls(&rows[0]), calls(&rows[1])), (None, Some(3)));
}

#[test]
fn digests_without_a_user_belong_to_the_only_user_or_to_nobody() {
    let digests = || vec![counted("shop", "-", 7, "ab", 9)];
    let (rows, joined) = join(vec![row("shop", "ann", 7, 9)], digests(), Vec::new());
    assert_eq!((joined.unwrap().matched, calls(&rows[0])), (9, Some(9)));
    let (rows, joined) = join(vec![row("shop", "ann", 7, 5), row("shop", "bob", 7, 4)], digests(), Vec::new());
    assert_eq!((joined.unwrap().ambiguous, calls(&rows[0]), rows.len()), (9, None, 2));
}

#[test]
fn spellings_that_postgresql_counts_as_one_are_joined_if_only_one_was_used() {
    let spelled = |text: &str, fingerprint| Arc::new(Digest { text: text.into(), ..(*digest(fingerprint)).clone() });
    let commits = || vec![ServerStatement { digest: spelled("commit", 70), ..counted("a", "ann", 70, "1", 9) }];
    let end = |executions| StatementSnapshot { digest: spelled("end", 71), ..row("a", "ann", 71, executions) };
    let (rows, joined) = join(vec![end(9)], commits(), Vec::new());
    assert_eq!((joined.unwrap().matched, calls(&rows[0]), rows.len()), (9, Some(9), 1));
    let commit = StatementSnapshot { digest: spelled("commit", 70), ..row("a", "ann", 70, 4) };
    let (rows, joined) = join(vec![end(5), commit], commits(), Vec::new());
    assert_eq!((joined.unwrap().ambiguous, calls(&rows[0]), calls(&rows[1])), (9, None, None));
}

#[test]
fn what_only_the_server_knows_is_a_row_without_executions() {
    let statements = vec![counted("a", "ann", 7, "1", 3), counted("a", "ann", 8, "2", 0)];
    let (rows, joined) = join(Vec::new(), statements, Vec::new());
    assert_eq!((rows.len(), rows[0].stats.executions(), calls(&rows[0])), (1, 0, Some(3)));
    assert_eq!(joined, Some(Joined::default()));
}

#[test]
fn a_server_that_tells_nothing_leaves_the_wire_as_it_is() {
    let (rows, joined) = join(vec![row("a", "ann", 7, 3)], Vec::new(), Vec::new());
    assert_eq!(joined, None);
    assert!(rows[0].stats.known.is_none());
}

#[test]
fn commands_are_no_statements() {
    let rows = vec![row("a", "ann", Digest::COMMAND, 3), row("a", "ann", Digest::OTHER, 4)];
    let (_, joined) = join(rows, vec![counted("a", "ann", 7, "1", 3)], Vec::new());
    assert_eq!(joined, Some(Joined { matched: 0, ambiguous: 0, unmatched: 4 }));
}
