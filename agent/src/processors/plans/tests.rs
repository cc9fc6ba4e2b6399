#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::{
    model::{
        StatementStats, WallClock,
        signal::{Change, PlanId},
    },
    processors::{privacy, testing},
};

const SECOND: u64 = 1_000_000_000;

fn extractor() -> PlanExtractor {
    PlanExtractor::new(Config::default(), Gate::new(privacy::Config::default(), b"key"))
}

fn process(extractor: &mut PlanExtractor, second: u64, records: Vec<Record>) -> Vec<Record> {
    let mut batch = Batch::new(WallClock::default());
    records.into_iter().for_each(|record| batch.push(record));
    extractor.process(Timestamp(second * SECOND), &mut batch, &mut Effects::default());
    batch.into_parts().0
}

fn read(engine: Engine, text: &str) -> Option<Plan> {
    let server = testing::server(engine, 1);
    let mut records = process(&mut extractor(), 1, vec![testing::plan(&server, Timestamp(SECOND), 10, text)]);
    (!records.is_empty()).then(|| match records.swap_remove(0).signal {
        Signal::Plan(plan) => *plan,
        _ => panic!("no plan"),
    })
}

fn findings(records: &[Record]) -> Vec<&Finding> {
    let found = records.iter().filter_map(|record| match &record.signal {
        Signal::Finding(finding) => Some(finding.as_ref()),
        _ => None,
    });
    found.collect()
}

/// A join with everything that can be wrong with it, as executed by PostgreSQL.
const BAD: &str = r#"[{"Query Text": "select secret-4711", "Plan": {"Node Type": "Sort", "Startup Cost": 99000.5, "Total Cost": 99500.0, "Plan Rows": 50,
"Plan Width": 12, "Actual Rows": 90000, "Actual Loops": 1, "Sort Key": ["o.total DESC", "((o.note)::text || 'secret-4712'::text)"],
"Sort Method": "external merge", "Sort Space Used": 50000, "Sort Space Type": "Disk", "Shared Hit Blocks": 500, "Shared Read Blocks": 1500,
"Temp Written Blocks": 6250, "Plans": [{"Node Type": "Nested Loop", "Parent Relationship": "Outer", "Join Type": "Inner", "Startup Cost": 0.42,
"Total Cost": 98000.0, "Plan Rows": 50, "Plan Width": 12, "Actual Rows": 90000, "Actual Loops": 1, "Plans": [{"Node Type": "Seq Scan",
"Parent Relationship": "Outer", "Parallel Aware": false, "Relation Name": "customers", "Schema": "public", "Alias": "c", "Startup Cost": 0.0,
"Total Cost": 20000.0, "Plan Rows": 50, "Plan Width": 4, "Actual Rows": 90000, "Actual Loops": 1,
"Filter": "((country = 'secret-4713'::text) AND (created_at > '2024-01-01'::date))", "Rows Removed by Filter": 2910000},
{"Node Type": "Index Scan", "Parent Relationship": "Inner", "Scan Direction": "Forward", "Index Name": "orders_customer_idx",
"Relation Name": "orders", "Alias": "o", "Startup Cost": 0.42, "Total Cost": 8.44, "Plan Rows": 1, "Plan Width": 12, "Actual Rows": 1,
"Actual Loops": 90000, "Index Cond": "(customer_id = c.id)", "Filter": "(status = ANY ('{secret-4714,secret-4715}'::text[]))",
"Unheard Of": "secret-4716"}]}]}, "Planning Time": 0.2}]"#;

#[test]
fn a_plan_of_postgresql_is_read_as_a_whole() {
    let plan = read(Engine::Postgresql, BAD).unwrap();
    let facts = plan.facts.unwrap();
    assert_eq!((&*facts.operation, facts.nodes, facts.depth), ("Sort", 4, 3));
    assert_eq!((facts.cost, facts.startup_cost, facts.rows, facts.width), (99500.0, 99000.5, 50.0, 12));
    assert!(facts.has_seq_scan && facts.has_nested_loop && facts.has_sort && facts.spills && !facts.has_hash_join);
    assert_eq!(facts.seq_scan_rows, 3_000_000.0);
    assert_eq!((facts.shared_hit, facts.shared_read, facts.temp_written), (500, 1500, 6250));
    assert_eq!((facts.actual_rows, facts.estimate_error), (Some(90_000.0), 1800.0));
    assert!(plan.text.raw().is_empty());
    let masked = plan.masked.unwrap();
    assert!(!masked.contains("secret") && !masked.contains("2024") && !masked.contains("Unheard Of"), "{masked}");
    let masked: Value = serde_json::from_str(&masked).unwrap();
    let scan = &masked[0]["Plan"]["Plans"][0]["Plans"][0];
    assert_eq!(scan["Filter"], "((country = ?::text) and (created_at > ?::date))", "{scan}");
    assert_eq!(scan["Rows Removed by Filter"], 2_910_000);
}

#[test]
fn what_could_be_better_is_said_with_evidence_and_once() {
    let mut extractor = extractor();
    let server = testing::instance(1);
    let plan = || testing::plan(&server, Timestamp(SECOND), 10, BAD);
    let records = process(&mut extractor, 1, vec![plan()]);
    let found = findings(&records);
    let topics: Vec<Topic> = found.iter().map(|finding| finding.topic).collect();
    for topic in [Topic::MissingIndex, Topic::StaleStatistics, Topic::Spill, Topic::NestedLoop] {
        assert!(topics.contains(&topic), "{topic:?} of {topics:?}");
    }
    let index = found.iter().find(|finding| finding.topic == Topic::MissingIndex).unwrap();
    let objects: Vec<&str> = index.objects.iter().map(|object| &**object).collect();
    assert_eq!(objects, ["public.customers", "country", "created_at"]);
    assert_eq!(index.severity, Severity::Critical);
    assert_eq!(index.evidence, [("rows_read", 3_000_000.0), ("rows_kept", 90_000.0)]);
    assert!(findings(&process(&mut extractor, 2, vec![plan()])).is_empty());
    assert_eq!(findings(&process(&mut extractor, 3700, vec![plan()])).len(), found.len());
}

#[test]
fn a_function_around_a_column_is_no_missing_index() {
    let bad = r#"{"Plan": {"Node Type": "Seq Scan", "Relation Name": "users", "Plan Rows": 5000, "Actual Rows": 1, "Actual Loops": 1,
"Rows Removed by Filter": 999999, "Filter": "(lower((email)::text) = 'ann'::text)"}}"#;
    let server = testing::instance(1);
    let records = process(&mut extractor(), 1, vec![testing::plan(&server, Timestamp(SECOND), 10, bad)]);
    let topics: Vec<Topic> = findings(&records).iter().map(|finding| finding.topic).collect();
    assert_eq!(topics, [Topic::FunctionOnColumn, Topic::StaleStatistics]);
    // The same table read as a whole for half of its rows is no fault at all.
    let good = bad.replace("\"Actual Rows\": 1,", "\"Actual Rows\": 999999,").replace("5000", "999999");
    let records = process(&mut extractor(), 1, vec![testing::plan(&server, Timestamp(SECOND), 10, &good)]);
    assert!(findings(&records).is_empty());
}

/// MySQL's first format, and MariaDB's.
const MYSQL: &str = r#"{"query_block": {"select_id": 1, "cost_info": {"query_cost": "120.50"}, "ordering_operation": {"using_filesort": true,
"nested_loop": [{"table": {"table_name": "c", "access_type": "ALL", "rows_examined_per_scan": 50000, "rows_produced_per_join": 500,
"filtered": "1.00", "cost_info": {"read_cost": "100.0", "prefix_cost": "110.5"}, "attached_condition": "(`shop`.`c`.`country` = 'secret-1')"}},
{"table": {"table_name": "o", "access_type": "ref", "key": "customer_idx", "rows_examined_per_scan": 3, "filtered": "100.00",
"used_columns": ["id", "secret-column"], "ref": ["shop.c.id"]}}]}}}"#;
const MYSQL_TREE: &str = r#"{"query": "/* select#1 */ select secret-1", "json_schema_version": "2.0", "query_plan": {"operation": "Sort: secret-1",
"access_type": "sort", "sort_fields": ["o.total"], "estimated_rows": 500.0, "estimated_total_cost": 120.5, "inputs": [{"operation":
"Nested loop inner join", "access_type": "join", "join_type": "inner join", "join_algorithm": "nested_loop", "estimated_rows": 500.0, "inputs":
[{"operation": "Filter: (c.country = 'secret-2')", "access_type": "filter", "condition": "(c.country = 'secret-2')", "inputs":
[{"operation": "Table scan on c", "access_type": "table", "table_name": "c", "estimated_rows": 50000.0, "actual_rows": 50000.0, "actual_loops": 1}]},
{"operation": "Index lookup on o using customer_idx (customer_id = c.id)", "access_type": "index", "index_access_type": "index_lookup",
"table_name": "o", "index_name": "customer_idx", "lookup_condition": "customer_id = c.id", "estimated_rows": 3.0}]}]}}"#;
const MARIADB: &str = r#"{"query_block": {"select_id": 1, "cost": 0.5, "filesort": {"sort_key": "o.total desc", "temporary_table":
{"nested_loop": [{"table": {"table_name": "c", "access_type": "ALL", "loops": 1, "rows": 50000, "r_loops": 1, "r_rows": 50000, "filtered": 100,
"r_filtered": 1, "attached_condition": "c.country = 'secret-1'"}}, {"table": {"table_name": "o", "access_type": "ref", "key": "customer_idx",
"rows": 3}}]}}}}"#;

#[test]
fn plans_of_mysql_in_both_formats_and_of_mariadb() {
    for (engine, text, operation, nodes) in [
        (Engine::Mysql, MYSQL, "query block", 5),
        (Engine::Mysql, MYSQL_TREE, "sort", 5),
        (Engine::Mariadb, MARIADB, "query block", 6),
    ] {
        let plan = read(engine, text).unwrap_or_else(|| panic!("{operation} is not read"));
        let facts = plan.facts.unwrap();
        assert_eq!((&*facts.operation, facts.nodes), (operation, nodes), "{text}");
        assert!(facts.has_seq_scan && facts.has_nested_loop && facts.has_sort, "{facts:?}");
        assert_eq!(facts.seq_scan_rows, 50_000.0, "{text}");
        let masked = plan.masked.unwrap();
        assert!(!masked.contains("secret"), "{masked}");
        assert!(masked.contains("customer_idx"), "{masked}");
    }
    // What MySQL estimates of the rows thrown away is enough for a recommendation.
    let server = testing::server(Engine::Mysql, 1);
    let records = process(&mut extractor(), 1, vec![testing::plan(&server, Timestamp(SECOND), 10, MYSQL)]);
    let found = findings(&records);
    assert_eq!(found[0].topic, Topic::MissingIndex);
    assert_eq!(found[0].objects.iter().map(|object| &**object).collect::<Vec<_>>(), ["c", "country"]);
}

#[test]
fn identity_is_the_structure_and_nothing_else() {
    let id = |text: &str| read(Engine::Postgresql, text).unwrap().id.unwrap();
    let plan = testing::PLAN;
    let same = [
        plan.replace("8.44", "99.9").replace("\"Plan Rows\": 1", "\"Plan Rows\": 12345"),
        plan.replace("4711", "4712"),
        plan.replace("ann@example.com", "bob"),
        plan.replace("\"Alias\": \"o\"", "\"Alias\": \"x\""),
        plan.replace("\"Plan Width\": 97", "\"Plan Width\": 97, \"Actual Rows\": 3, \"Actual Loops\": 1"),
    ];
    for other in same {
        assert_eq!(id(plan), id(&other), "{other}");
    }
    let different = [
        plan.replace("Index Scan", "Index Only Scan"),
        plan.replace("orders_pkey", "orders_idx"),
        plan.replace("\"Relation Name\": \"orders\"", "\"Relation Name\": \"items\""),
        plan.replace("\"Schema\": \"public\"", "\"Schema\": \"other\""),
        plan.replace("(id = 4711)", "(id > 4711)"),
        plan.replace("\"Parallel Aware\": false", "\"Parallel Aware\": true"),
    ];
    for other in different {
        assert_ne!(id(plan), id(&other), "{other}");
    }
}

#[test]
fn what_is_no_plan_goes_and_is_counted() {
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let huge = format!("[{{\"Plan\": {{\"Node Type\": \"{}\"}}}}]", "x".repeat(2 << 20));
    for text in ["", "no json", "[]", "{}", "[{\"Plan\": 3}]", "null", MYSQL, &deep, &huge] {
        assert!(read(Engine::Postgresql, text).is_none(), "{:.60}", text);
    }
    assert!(read(Engine::Mysql, testing::PLAN).is_none());
}

#[test]
fn a_change_of_plan_is_told_and_a_statement_with_two_plans_is_not_told_each_time() {
    let mut extractor = extractor();
    let server = testing::instance(1);
    let other = testing::PLAN.replace("Index Scan", "Index Only Scan");
    let mut change = |second, text: &str| {
        let records =
            process(&mut extractor, second, vec![testing::plan(&server, Timestamp(second * SECOND), 10, text)]);
        match &records[0].signal {
            Signal::Plan(plan) => plan.change,
            _ => panic!("no plan"),
        }
    };
    let first = read(Engine::Postgresql, testing::PLAN).unwrap().id.unwrap();
    let second = read(Engine::Postgresql, &other).unwrap().id.unwrap();
    assert_eq!(change(1, testing::PLAN), None);
    assert_eq!(change(2, testing::PLAN), None);
    assert_eq!(change(3, &other), Some(Change { previous: first }));
    assert_eq!(change(4, testing::PLAN), None);
    assert_eq!(change(5, &other), None);
    // It has been the second one for long: going back is a change.
    assert_eq!(change(1000, testing::PLAN), Some(Change { previous: second }));
    let execution = testing::execution(&server, Timestamp(1001 * SECOND), 10, Duration::from_millis(1));
    let records = process(&mut extractor, 1001, vec![execution; 4]);
    let marks = records.iter().map(|record| match &record.signal {
        Signal::Execution(execution) => (execution.plan, execution.seen.plan_change),
        _ => panic!("no execution"),
    });
    let expected = [true, true, true, false].map(|marked| (Some(first), marked));
    assert_eq!(marks.collect::<Vec<(Option<PlanId>, bool)>>(), expected);
}

/// Draws durations that are distributed as those of statements are: their logarithm normally.
struct Durations {
    random: fastrand::Rng,
}

impl Durations {
    fn normal(&mut self) -> f64 {
        let (one, other) = (1.0 - self.random.f64(), self.random.f64());
        (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * other).cos()
    }

    /// An interval of `count` executions around a median of so many milliseconds; a share of them is so many times slower.
    fn interval(&mut self, second: u64, count: u64, median: f64, sigma: f64, slow: (f64, f64)) -> Record {
        let mut stats = StatementStats::default();
        for _ in 0..count {
            let factor = if self.random.f64() < slow.0 { slow.1 } else { 1.0 };
            let millis = median * factor * (sigma * self.normal()).exp();
            stats.ok.record(Duration::from_secs_f64(millis / 1e3));
        }
        testing::interval_of(&testing::instance(1), Timestamp(second * SECOND), 10, stats)
    }
}

/// What happens to a statement half way.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Nothing,
    /// Another plan, so many times slower.
    Flip(f64),
    /// The same plan, so many times slower.
    Slower(f64),
    /// Half of the executions so many times slower.
    Skew(f64),
}

/// Feeds an hour of intervals of ten seconds and gives the topics of what was found.
fn hour(seed: u64, happens: Happens) -> Vec<Topic> {
    let mut durations = Durations { random: fastrand::Rng::with_seed(seed) };
    let mut extractor = extractor();
    let server = testing::instance(1);
    let flipped = testing::PLAN.replace("Index Scan", "Seq Scan");
    let median = 0.2 * 1.15f64.powf(durations.random.f64() * 40.0);
    let sigma = 0.2 + 0.8 * durations.random.f64();
    let rate = 3 + durations.random.u64(0..60);
    let mut topics = Vec::new();
    for step in 0..360u64 {
        let second = 10 * step + 10;
        let after = step >= 180;
        let mut records = Vec::new();
        if step == 0 {
            records.push(testing::plan(&server, Timestamp(second * SECOND), 10, testing::PLAN));
        }
        let (mut factor, mut slow) = (1.0, (0.0, 1.0));
        match happens {
            Happens::Flip(times) if after => {
                factor = times;
                if step == 180 {
                    records.push(testing::plan(&server, Timestamp(second * SECOND), 10, &flipped));
                }
            }
            Happens::Slower(times) if after => factor = times,
            Happens::Skew(times) if after => slow = (0.5, times),
            _ => {}
        }
        records.push(durations.interval(second, rate, median * factor, sigma, slow));
        let records = process(&mut extractor, second, records);
        topics.extend(findings(&records).iter().map(|finding| finding.topic));
    }
    topics
}

#[test]
fn regressions_are_found_and_told_apart() {
    let mut found = [0; 3];
    for seed in 0..200 {
        let times = 2.0 + (seed % 20) as f64 * 0.4;
        let cases = [
            (Happens::Flip(times), Topic::PlanRegression),
            (Happens::Slower(times), Topic::SamePlanSlower),
            (Happens::Skew(4.0 + times * 4.0), Topic::ParameterSkew),
        ];
        for ((happens, topic), found) in cases.into_iter().zip(&mut found) {
            *found += u32::from(hour(seed, happens).contains(&topic));
        }
    }
    // Of 200 each.
    assert!(found[0] >= 190, "recall of changed plans: {} of 200", found[0]);
    assert!(found[1] >= 190, "recall of slower statements: {} of 200", found[1]);
    assert!(found[2] >= 150, "recall of parameter skew: {} of 200", found[2]);
}

#[test]
fn stable_statements_raise_no_alarm() {
    let false_alarms = (1000..2000).filter(|seed| !hour(*seed, Happens::Nothing).is_empty()).count();
    assert!(false_alarms <= 10, "{false_alarms} of 1000 statements, an hour each");
}

#[test]
fn a_faster_plan_is_an_improvement_and_no_regression() {
    let improved = (0..50).filter(|seed| hour(*seed, Happens::Flip(0.25)) == [Topic::Improvement]).count();
    assert!(improved >= 48, "{improved} of 50");
}

#[test]
fn history_survives_a_restart() {
    let mut durations = Durations { random: fastrand::Rng::with_seed(3) };
    let mut before = extractor();
    let server = testing::instance(1);
    process(&mut before, 1, vec![testing::plan(&server, Timestamp(SECOND), 10, testing::PLAN)]);
    for step in 1..20 {
        process(&mut before, step * 10, vec![durations.interval(step * 10, 50, 2.0, 0.5, (0.0, 1.0))]);
    }
    let moment = Moment { now: Timestamp(200 * SECOND), clock: WallClock::at(Timestamp(200 * SECOND), 1 << 60) };
    let kept = before.export_state(moment).unwrap().unwrap();
    let mut after = extractor();
    after.import_state(moment, kept).unwrap();
    // The plan is known, so that it is no change; and what is slower now is slower than before the restart.
    let records = process(&mut after, 210, vec![testing::plan(&server, Timestamp(210 * SECOND), 10, testing::PLAN)]);
    assert!(matches!(&records[0].signal, Signal::Plan(plan) if plan.change.is_none()));
    let mut topics = Vec::new();
    for step in 22..30 {
        let records = process(&mut after, step * 10, vec![durations.interval(step * 10, 50, 6.0, 0.5, (0.0, 1.0))]);
        topics.extend(findings(&records).iter().map(|finding| finding.topic));
    }
    assert_eq!(topics, [Topic::SamePlanSlower]);
}
