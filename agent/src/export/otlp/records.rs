//! From single records to log records and spans: one resource for each server, one for the agent.

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};

use prost::Message;
use uuid::Uuid;

use super::{
    Encoded,
    request::{Builder, key_value, scope},
};
use crate::{
    export::record::{self, Event, Weight},
    model::{
        Ending, Instance, Outgoing, Record, Signal, Timestamp, WallClock,
        names::attribute as a,
        signal::{Execution, Kind, NoticeKind},
    },
};

/// All that can be told as events; `None` if there is nothing.
pub(super) fn logs(
    builder: &Builder,
    outgoing: &Outgoing,
    encoded: &mut Vec<Encoded>,
) -> Option<ExportLogsServiceRequest> {
    let observed = unix_nanos(outgoing.clock, newest(outgoing));
    let text_bytes = builder.text_bytes();
    let of = |record: &Record| {
        let event = record::event(record, text_bytes)?;
        let mut log = log_record(event, unix_nanos(outgoing.clock, record.at), observed);
        if let Signal::Execution(execution) = &record.signal
            && let Some(trace) = execution.trace
        {
            log.trace_id = trace.trace_id.0.to_vec();
            log.span_id = trace.span_id.0.to_vec();
            log.flags = u32::from(trace.flags);
        }
        add(encoded, record.origin.instance.service_instance_id, record.signal.kind(), log.encoded_len());
        Some(log)
    };
    let mut resources: Vec<ResourceLogs> = by_server(builder, &outgoing.records, of)
        .map(|(resource, log_records)| ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs { scope: Some(scope()), log_records, schema_url: String::new() }],
            schema_url: String::new(),
        })
        .collect();
    if !outgoing.notices.is_empty() {
        let notices = outgoing.notices.iter().map(|notice| {
            let body = match notice.kind {
                NoticeKind::Alert => "alert",
                NoticeKind::Feedback => "feedback",
            };
            let mut log = log_record(record::notice(notice), unix_nanos(outgoing.clock, notice.at), observed);
            log.body = key_value("", format!("{body}: {}", notice.category).into()).value;
            add(encoded, Uuid::nil(), Kind::Fact, log.encoded_len());
            log
        });
        resources.push(ResourceLogs {
            resource: Some(builder.agent_resource()),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: notices.collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        });
    }
    (!resources.is_empty()).then_some(ExportLogsServiceRequest { resource_logs: resources })
}

/// The executions whose application's span is known and was recorded, as spans of the server beneath it; `None` if there is none.
pub(super) fn traces(
    builder: &Builder,
    outgoing: &Outgoing,
    encoded: &mut Vec<Encoded>,
) -> Option<ExportTraceServiceRequest> {
    let of = |record: &Record| {
        let Signal::Execution(execution) = &record.signal else { return None };
        let span = span(builder, outgoing.clock, record, execution)?;
        add(encoded, record.origin.instance.service_instance_id, Kind::Execution, span.encoded_len());
        Some(span)
    };
    let resources: Vec<ResourceSpans> = by_server(builder, &outgoing.records, of)
        .map(|(resource, spans)| ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, schema_url: String::new() }],
            schema_url: String::new(),
        })
        .collect();
    (!resources.is_empty()).then_some(ExportTraceServiceRequest { resource_spans: resources })
}

/// What `of` makes of the records, by server in the order of their first one.
fn by_server<'a, T: 'a>(
    builder: &'a Builder,
    records: &'a [Record],
    mut of: impl FnMut(&Record) -> Option<T>,
) -> impl Iterator<Item = (Resource, Vec<T>)> + 'a {
    let mut servers: Vec<(&Instance, Vec<T>)> = Vec::new();
    for record in records {
        let Some(made) = of(record) else { continue };
        let instance = &*record.origin.instance;
        // Records of one server mostly stand together, and there are few servers.
        match servers.iter_mut().rev().find(|(known, _)| known.key == instance.key) {
            Some((_, all)) => all.push(made),
            None => servers.push((instance, vec![made])),
        }
    }
    servers.into_iter().map(|(instance, all)| (builder.server_resource(instance), all))
}

fn add(encoded: &mut Vec<Encoded>, instance: Uuid, kind: Kind, bytes: usize) {
    let bytes = bytes as u64;
    match encoded.iter_mut().rev().find(|known| (known.instance, known.kind) == (instance, kind)) {
        Some(known) => known.bytes += bytes,
        None => encoded.push(Encoded { instance, kind, bytes }),
    }
}

fn log_record(event: Event<'_>, at: u64, observed: u64) -> LogRecord {
    let severity = match event.weight {
        Weight::Info => SeverityNumber::Info,
        Weight::Warning => SeverityNumber::Warn,
        Weight::Error => SeverityNumber::Error,
    };
    LogRecord {
        time_unix_nano: at,
        observed_time_unix_nano: observed,
        severity_number: severity.into(),
        severity_text: match event.weight {
            Weight::Info => "INFO",
            Weight::Warning => "WARN",
            Weight::Error => "ERROR",
        }
        .to_owned(),
        event_name: event.name.to_owned(),
        attributes: event.attributes.into_iter().map(|(name, value)| key_value(name, value)).collect(),
        ..LogRecord::default()
    }
}

fn span(builder: &Builder, clock: WallClock, record: &Record, execution: &Execution) -> Option<Span> {
    let parent = execution.trace.filter(|trace| trace.sampled())?;
    let mut attributes = record::execution(execution, builder.text_bytes());
    attributes.push((a::DB_SYSTEM_NAME, record.origin.instance.engine.name().into()));
    attributes.extend(record.origin.database.as_deref().map(|name| (a::DB_NAMESPACE, name.into())));
    let code = if execution.ending == Ending::Ok { StatusCode::Unset } else { StatusCode::Error };
    Some(Span {
        trace_id: parent.trace_id.0.to_vec(),
        span_id: span_id(record, execution).to_vec(),
        parent_span_id: parent.span_id.0.to_vec(),
        flags: u32::from(parent.flags),
        // Semantic conventions for database spans: the summary is the name.
        name: execution.digest.summary.to_string(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: unix_nanos(clock, execution.start),
        end_time_unix_nano: unix_nanos(clock, record.at),
        attributes: attributes.into_iter().map(|(name, value)| key_value(name, value)).collect(),
        status: Some(Status { code: code.into(), message: String::new() }),
        ..Span::default()
    })
}

/// The same for the same execution, so that one that is sent twice is one.
fn span_id(record: &Record, execution: &Execution) -> [u8; 8] {
    let connection = execution.session.map_or(0, |session| session.connection);
    let mut bytes = Vec::with_capacity(48);
    bytes.extend(record.origin.instance.service_instance_id.as_bytes());
    bytes.extend(connection.to_le_bytes());
    bytes.extend(execution.start.0.to_le_bytes());
    bytes.extend(record.at.0.to_le_bytes());
    twox_hash::XxHash3_64::oneshot(&bytes).max(1).to_be_bytes()
}

fn newest(outgoing: &Outgoing) -> Timestamp {
    let records = outgoing.records.iter().map(|record| record.at);
    records.chain(outgoing.notices.iter().map(|notice| notice.at)).max().unwrap_or_default()
}

fn unix_nanos(clock: WallClock, at: Timestamp) -> u64 {
    u64::try_from(clock.unix_nanos(at)).unwrap_or(0)
}
