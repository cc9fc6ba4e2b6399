//! Single records as log records and spans.

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    logs::v1::LogRecord,
    trace::v1::Span,
};

use super::*;
use crate::model::{
    Ending, Record, Timestamp, TraceParent, WallClock,
    signal::{Execution, Kind, Notice, NoticeKind, Origin, Peer, Sampling, Seen, Signal as Observed},
};

const SECOND: u64 = 1_000_000_000;

fn execution(number: u64, ending: Ending, trace: Option<&str>) -> Record {
    let snapshot = testing::busy();
    let row = &snapshot.instances[0].statements[0];
    let origin = Origin {
        instance: Arc::clone(&snapshot.instances[0].instance),
        database: Some("shop".into()),
        user: Some("app".into()),
    };
    let at = Timestamp(number * SECOND);
    let execution = Execution {
        digest: Arc::clone(&row.digest),
        session: Some(Peer { connection: 77, process: 4242 }),
        ordinal: None,
        start: Timestamp(at.0 - SECOND / 4),
        duration: Duration::from_millis(250),
        ending,
        rows: 3,
        application: Some("checkout".into()),
        trace: trace.and_then(|trace| TraceParent::parse(trace.as_bytes())),
        plan: None,
        seen: Seen::default(),
        sampling: Sampling { weight: 1024.0, rule: Some("default".into()) },
        situation: None,
    };
    Record::new(at, origin, Observed::Execution(Box::new(execution)))
}

fn outgoing(records: Vec<Record>) -> Outgoing {
    let notice = Notice {
        at: Timestamp(9 * SECOND),
        kind: NoticeKind::Feedback,
        category: "pii_detection",
        severity: "warning",
        instance: None,
        subject: "statement",
        value: 2.0,
        limit: 0.0,
        remediation: "look at the application",
        suppressed: 4,
    };
    Outgoing { clock: WallClock::at(Timestamp(0), 1_700_000_000 * SECOND as i64), records, notices: vec![notice] }
}

fn encode(config: &Config, outgoing: &Outgoing) -> (Vec<Payload>, Vec<Encoded>) {
    Encoder::new(config, OperationDurationName::Server, host()).records(outgoing)
}

fn logs(payloads: &[Payload]) -> Vec<(BTreeMap<String, String>, LogRecord)> {
    let mut all = Vec::new();
    for payload in payloads.iter().filter(|payload| payload.signal == Signal::Logs) {
        let request = ExportLogsServiceRequest::decode(&*payload.body).unwrap();
        assert_eq!(payload.items, split::log_records(&request));
        for resource in request.resource_logs {
            let of = texts(&resource.resource.unwrap().attributes);
            all.extend(
                resource.scope_logs.into_iter().flat_map(|scope| scope.log_records).map(|log| (of.clone(), log)),
            );
        }
    }
    all
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &any_value::Value| match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let entry = |of: &KeyValue| (of.key.clone(), text(of.value.as_ref().unwrap().value.as_ref().unwrap()));
    attributes.iter().map(entry).collect()
}

#[test]
fn an_execution_is_a_log_record_with_its_weight() {
    let code = crate::model::Code::Sqlstate(*b"40001");
    let records = vec![execution(5, Ending::Ok, None), execution(6, Ending::Failed(Some(code)), None)];
    let (payloads, encoded) = encode(&Config::default(), &outgoing(records));
    assert_eq!(payloads.len(), 1, "no span without a trace");
    let logs = logs(&payloads);
    let (resource, log) = &logs[0];
    assert_eq!((&*resource["service.name"], &*resource["host.name"]), ("postgresql", "db7"));
    assert_eq!((log.event_name.as_str(), log.severity_text.as_str()), ("db.server.query_sample", "INFO"));
    assert_eq!(log.time_unix_nano, 1_700_000_005 * SECOND);
    let said = texts(&log.attributes);
    for (name, value) in [
        ("db.namespace", "shop"),
        ("user.name", "app"),
        ("db.system.name", "postgresql"),
        ("querylens.query.duration", "0.25"),
        ("querylens.query.rows", "3"),
        ("sampling.weight", "1024"),
        ("sampling.rule", "default"),
        ("querylens.session.application", "checkout"),
        ("querylens.session.process", "4242"),
        ("querylens.query.fingerprint", "000000000000feed"),
    ] {
        assert_eq!(said.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(said.contains_key("db.query.text") && !said.contains_key("error.type"), "{said:?}");
    assert_eq!((&*texts(&logs[1].1.attributes)["error.type"], &*logs[1].1.severity_text), ("40001", "ERROR"));

    let (agent, notice) = &logs[2];
    assert_eq!((&*agent["service.name"], notice.event_name.as_str()), ("querylens", "querylens.feedback"));
    assert_eq!(texts(&notice.attributes)["feedback.category"], "pii_detection");
    let kinds: Vec<Kind> = encoded.iter().map(|part| part.kind).collect();
    assert_eq!(kinds, [Kind::Execution, Kind::Fact]);
    let sum: u64 = encoded.iter().map(|part| part.bytes).sum();
    assert!(sum as usize > payloads[0].body.len() / 2 && sum as usize <= payloads[0].body.len(), "{sum}");
}

#[test]
fn an_execution_of_a_recorded_trace_is_a_span_beneath_the_application() {
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let records = vec![execution(5, Ending::Incomplete, Some(sampled)), execution(6, Ending::Ok, Some(unsampled))];
    let outgoing = outgoing(records);
    let (payloads, _) = encode(&Config::default(), &outgoing);
    let traces = payloads.iter().find(|payload| payload.signal == Signal::Traces).unwrap();
    let request = ExportTraceServiceRequest::decode(&*traces.body).unwrap();
    let spans: Vec<&Span> = request.resource_spans.iter().flat_map(|of| &of.scope_spans[0].spans).collect();
    let [span] = spans[..] else { panic!("{spans:?}") };
    assert_eq!(span.trace_id, u128::from_str_radix("4bf92f3577b34da6a3ce929d0e0e4736", 16).unwrap().to_be_bytes());
    assert_eq!(span.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, SECOND / 4);
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    assert!(span.span_id.len() == 8 && span.span_id != [0; 8]);
    let (again, _) = encode(&Config::default(), &outgoing);
    assert_eq!(again, payloads, "what is sent twice is the same span");
    assert_eq!(logs(&payloads)[1].1.trace_id, span.trace_id);
}

#[test]
fn only_the_signals_that_are_wanted_are_encoded_and_no_request_is_too_large() {
    let records: Vec<Record> = (1..2000).map(|number| execution(number, Ending::Ok, None)).collect();
    let config = Config { max_request_bytes: (64 << 10).try_into().unwrap(), ..Config::default() };
    let (payloads, _) = encode(&config, &outgoing(records.clone()));
    assert!(payloads.len() > 3 && payloads.iter().all(|payload| payload.body.len() <= 64 << 10));
    assert_eq!(payloads.iter().map(|payload| payload.items).sum::<u64>(), 2000);
    assert_eq!(logs(&payloads).len(), 2000);
    let metrics_only = Config { signals: vec![Signal::Metrics], ..Config::default() };
    assert!(encode(&metrics_only, &outgoing(records)).0.is_empty());
    let logs_only = Config { signals: vec![Signal::Logs], ..Config::default() };
    let mut encoder = Encoder::new(&logs_only, OperationDurationName::Server, host());
    assert!(encoder.metrics(&testing::busy()).0.is_empty());
}
