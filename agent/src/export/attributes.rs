//! What every exit says about a server, a statement and a failure, under the names of the catalogue.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use crate::model::{
    self, Code, Collected, Digest, Instance, Listen, Measured, SessionCounts, SessionState, StatementSnapshot,
    names::{Metric, attribute as a},
};

use super::Host;

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Whole number.
    Number(i64),
    /// Number.
    Float(f64),
    /// Yes or no.
    Flag(bool),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Value<'a> {
        Value::Text(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Value::Float(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Value::Flag(flag)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Value::Number(number.into())
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Value::Number(number.into())
    }
}

/// Attributes with their names, in the order in which they are emitted.
pub(super) type Attributes<'a> = Vec<(&'static str, Value<'a>)>;

/// Points of metrics that a database keeps itself, by the metric's name.
pub(super) fn collected(collected: &Collected) -> HashMap<&'static str, Vec<(Attributes<'_>, model::Value)>> {
    let mut metrics: HashMap<_, Vec<_>> = HashMap::new();
    for point in collected.points.values().flat_map(|points| points.iter()) {
        let attributes = point.attributes.iter().map(|(name, value)| (*name, Value::from(&**value))).collect();
        metrics.entry(point.metric.name).or_default().push((attributes, point.value));
    }
    metrics
}

/// Where a server is reached: the first TCP socket, else the first Unix socket (semantic conventions, server.address). A wildcard
/// address is replaced by the host's name, since it is no address that anyone could use.
pub(super) fn endpoint<'a>(instance: &'a Instance, host: &'a Host) -> Attributes<'a> {
    let tcp = instance.listen.iter().find_map(|listen| match listen {
        Listen::Tcp(address) => Some(address),
        Listen::Unix(_) => None,
    });
    if let Some(address) = tcp {
        let name = match &host.name {
            Some(name) if address.ip().is_unspecified() => name.as_str().into(),
            _ => address.ip().to_string().into(),
        };
        return vec![(a::SERVER_ADDRESS, name), (a::SERVER_PORT, address.port().into())];
    }
    let unix = instance.listen.iter().find_map(|listen| match listen {
        Listen::Unix(path) => Some(path),
        Listen::Tcp(_) => None,
    });
    unix.map(|path| (a::SERVER_ADDRESS, path.to_string_lossy().into())).into_iter().collect()
}

/// What is known about a server beside its identity and endpoint.
pub(super) fn facts(instance: &Instance) -> Attributes<'_> {
    let container = instance.container.as_ref();
    let name = instance.executable.file_name();
    let optional = [
        (a::SERVICE_VERSION, instance.version.as_deref().map(Value::from)),
        (a::PROCESS_PID, Some(instance.key.pid.into())),
        (a::PROCESS_EXECUTABLE_NAME, name.map(|name| name.to_string_lossy().into())),
        (a::PROCESS_EXECUTABLE_PATH, Some(instance.executable.to_string_lossy().into())),
        (a::DATA_DIRECTORY, instance.data_dir.as_ref().map(|path| path.to_string_lossy().into())),
        (a::CONTAINER_RUNTIME, container.map(|container| container.runtime.as_str().into())),
        (a::CONTAINER_ID, container.and_then(|container| container.id.as_deref()).map(Value::from)),
        (a::K8S_POD_UID, container.and_then(|container| container.pod_uid.as_deref()).map(Value::from)),
    ];
    optional.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Attributes of all points of a statement, beside `db.system.name`. Its text is not among them: it is long and the fingerprint stands for it.
pub(super) fn statement(row: &StatementSnapshot) -> Attributes<'_> {
    let names = [(a::DB_NAMESPACE, &row.database), (a::USER_NAME, &row.user)];
    let names = names.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?.into())));
    names.chain(digest(&row.digest)).collect()
}

/// Attributes of a statement alone, without its text.
pub(super) fn digest(digest: &Digest) -> Attributes<'_> {
    let optional = [
        (a::DB_OPERATION_NAME, digest.operation.as_deref().map(Value::from)),
        (a::DB_COLLECTION_NAME, digest.collection.as_deref().map(Value::from)),
        (a::DB_QUERY_SUMMARY, Some((&*digest.summary).into())),
        (a::QUERY_FINGERPRINT, Some(digest.hex().into())),
    ];
    optional.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A metric of the agent's own parts with all its points.
pub(super) type Family<'a> = (&'static Metric, Vec<(Attributes<'a>, f64)>);

/// What the agent's parts tell of themselves, by metric, in the order of their names.
pub(super) fn families(measured: &[Measured]) -> Vec<Family<'_>> {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for point in measured {
        let attributes = point.attributes.iter().map(|(name, value)| (*name, Value::from(value.as_ref()))).collect();
        let family = families.entry(point.metric.name).or_insert_with(|| (point.metric, Vec::new()));
        family.1.push((attributes, point.value));
    }
    families.into_values().collect()
}

/// Attributes of a failure.
pub(super) fn failure<'a>(code: Option<Code>) -> Attributes<'a> {
    let status = code.map(|code| (a::DB_RESPONSE_STATUS_CODE, code.to_string().into()));
    status.into_iter().chain([(a::ERROR_TYPE, Code::error_type(code).into())]).collect()
}

/// The longest prefix of `text` that has at most `bytes` bytes and ends at a character.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// What a session does, as a value of `querylens.session.state`.
pub(super) fn session_state(state: SessionState) -> &'static str {
    match state {
        SessionState::Active => "active",
        SessionState::Idle => "idle",
        SessionState::IdleInTransaction => "idle_in_transaction",
        SessionState::IdleInFailedTransaction => "idle_in_failed_transaction",
        SessionState::Starting => "starting",
        SessionState::Unknown => "unknown",
        SessionState::Opaque(_) => "opaque",
    }
}

/// Sessions by state, under the values of `querylens.session.state`.
pub(super) fn sessions(counts: &SessionCounts) -> [(&'static str, u64); 7] {
    let SessionCounts { active, idle, idle_in_transaction, idle_in_failed_transaction, starting, unknown, opaque } =
        *counts;
    [
        ("active", active),
        ("idle", idle),
        ("idle_in_transaction", idle_in_transaction),
        ("idle_in_failed_transaction", idle_in_failed_transaction),
        ("starting", starting),
        ("unknown", unknown),
        ("opaque", opaque),
    ]
}
