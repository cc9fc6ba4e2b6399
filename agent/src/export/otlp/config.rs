//! Configuration of an OTLP receiver.

use std::{
    borrow::Cow, collections::BTreeMap, fmt, num::NonZeroUsize, ops::RangeInclusive, path::PathBuf, str::FromStr,
};

use reqwest::{Url, header::HeaderName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Signal;
use crate::model::{HumanDuration, Problem, Secret, names::attribute as a};

/// An OTLP receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `http` (protobuf) or `grpc`. Default: http.
    pub protocol: Protocol,
    /// URL without the path of the signal: `/v1/metrics`, `/v1/logs` or `/v1/traces` is added with `http`. Default: http://127.0.0.1:4318 for http, :4317 for
    /// grpc.
    pub endpoint: Option<Endpoint>,
    /// Headers of every request, e.g. `api-key: { env: NEW_RELIC_LICENSE_KEY }`. Their values are secrets.
    pub headers: BTreeMap<HeaderKey, Secret>,
    /// Attributes added to every resource, or put in place of the agent's own, e.g. `deployment.environment.name: production`.
    pub resource: Resource,
    /// What is sent: `metrics` are exact statistics, `logs` are examples and findings, `traces` are executions under their application's span.
    pub signals: Vec<Signal>,
    /// How often metrics are sent. Default: 15s.
    pub interval: HumanDuration,
    /// Time for one attempt, from connecting to the whole answer. Default: 10s.
    pub timeout: HumanDuration,
    /// `gzip` or `none`. Default: gzip.
    pub compression: Compression,
    /// Largest request before compression; larger ones are split. Some receivers refuse more than 10^6 bytes. Default: 1000000.
    #[serde(deserialize_with = "request_bytes")]
    #[schemars(range(min = 65536))]
    pub max_request_bytes: NonZeroUsize,
    /// Statements with series of their own, for each server; the rest is counted in `_other`. Default: 1000.
    #[schemars(range(min = 0, max = MAX_STATEMENTS))]
    pub max_statements: usize,
    /// Bytes of a statement's text in `db.query.text`; 0 leaves the attribute out. Default: 4095.
    #[schemars(range(min = 0, max = MAX_TEXT_BYTES))]
    pub query_text_bytes: usize,
    /// What happens after temporary failures.
    pub retry: Retry,
    /// Certificates.
    pub tls: Tls,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            protocol: Protocol::Http,
            endpoint: None,
            headers: BTreeMap::new(),
            resource: Resource::default(),
            signals: Signal::ALL.to_vec(),
            interval: HumanDuration::from_secs(15),
            timeout: HumanDuration::from_secs(10),
            compression: Compression::Gzip,
            max_request_bytes: const { NonZeroUsize::new(1_000_000).expect("it is not zero") },
            max_statements: 1000,
            query_text_bytes: 4095,
            retry: Retry::default(),
            tls: Tls::default(),
        }
    }
}

/// More often than this costs more than it tells; less often, receivers take the host for gone.
const INTERVALS: RangeInclusive<HumanDuration> = HumanDuration::from_secs(1)..=HumanDuration::from_secs(3_600);
/// Between a slow network and a receiver that never answers.
const TIMEOUTS: RangeInclusive<HumanDuration> = HumanDuration::from_millis(100)..=HumanDuration::from_secs(600);
/// As [`TIMEOUTS`], for pauses; no pause at all would press a receiver that is overloaded.
const PAUSES: RangeInclusive<HumanDuration> = HumanDuration::from_millis(10)..=HumanDuration::from_secs(600);
/// The agent remembers no more.
const MAX_STATEMENTS: usize = 1_000_000;
/// Receivers cut or refuse longer attributes.
const MAX_TEXT_BYTES: usize = 65_536;

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let Retry { initial, max, elapsed } = &self.retry;
        let pauses = (initial > max).then(|| Problem::new("retry.initial", "must not be longer than `max`"));
        let pair = self.tls.cert_file.is_some() == self.tls.key_file.is_some();
        [
            Problem::out_of_range("interval", &self.interval, INTERVALS),
            Problem::out_of_range("timeout", &self.timeout, TIMEOUTS),
            Problem::out_of_range("max_statements", &self.max_statements, 0..=MAX_STATEMENTS),
            Problem::out_of_range("query_text_bytes", &self.query_text_bytes, 0..=MAX_TEXT_BYTES),
            Problem::out_of_range("retry.initial", initial, PAUSES).or(pauses),
            Problem::out_of_range("retry.max", max, PAUSES),
            Problem::out_of_range("retry.elapsed", elapsed, HumanDuration::default()..=*INTERVALS.end()),
            (!pair).then(|| Problem::new("tls", "needs both `cert_file` and `key_file`, or neither")),
        ]
        .into_iter()
        .flatten()
    }

    /// A name for what is kept for this receiver: the same as long as requests go to the same place in the same way.
    pub fn name(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
        };
        format!("{:016x}", twox_hash::XxHash3_64::oneshot(format!("{protocol} {}", self.url()).as_bytes()))
    }

    /// The URL that requests go to, without the path of the signal.
    pub(super) fn url(&self) -> Url {
        let endpoint = self.endpoint.clone().unwrap_or_else(|| Endpoint::local(self.protocol));
        endpoint.0
    }
}

/// How requests travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OTLP/HTTP with binary protobuf.
    #[default]
    Http,
    /// OTLP/gRPC.
    Grpc,
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// With gzip.
    #[default]
    Gzip,
    /// Not at all.
    None,
}

/// What happens after failures that the OTLP specification calls retryable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Pause after the first failure; doubles with each, and is spread by chance. Default: 1s.
    pub initial: HumanDuration,
    /// Longest pause. Default: 10s.
    pub max: HumanDuration,
    /// Time after which an export is given up. The next one carries its counts. Default: 30s.
    pub elapsed: HumanDuration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            initial: HumanDuration::from_secs(1),
            max: HumanDuration::from_secs(10),
            elapsed: HumanDuration::from_secs(30),
        }
    }
}

/// Certificates for `https` end points.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate chain that the agent shows; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// URL of a receiver: http or https, with a host, without credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(Url);

impl Endpoint {
    /// Where a receiver on this host listens (OpenTelemetry protocol exporter specification).
    fn local(protocol: Protocol) -> Endpoint {
        let url = match protocol {
            Protocol::Http => "http://127.0.0.1:4318",
            Protocol::Grpc => "http://127.0.0.1:4317",
        };
        #[expect(clippy::unwrap_used, reason = "both are valid, as a test shows")]
        url.parse().unwrap()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        // The text is not repeated: it may hold a password.
        let example = "write it as in `https://otlp.example.com:4318`";
        let url = Url::parse(text).map_err(|error| format!("the end point is not a URL ({error}); {example}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("the end point holds credentials; put them into `headers`, and {example}"));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("the end point's scheme is `{}` and not http or https; {example}", url.scheme()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("the end point has a query or a fragment; {example}"));
        }
        Ok(Endpoint(url))
    }
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Endpoint, String> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.0.into()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri", "pattern": "^https?://[^@?#]+$" })
    }
}

/// Name of a header; lower case, since gRPC allows no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderKey(String);

/// Headers that the protocols set themselves.
const OWN_HEADERS: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

impl HeaderKey {
    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HeaderKey {
    type Error = String;

    fn try_from(text: String) -> Result<HeaderKey, String> {
        let name = HeaderName::try_from(&text).map_err(|_| format!("`{text}` cannot be the name of a header"))?;
        let name = name.as_str();
        if OWN_HEADERS.contains(&name) || name.starts_with("grpc-") || name.ends_with("-bin") {
            return Err(format!("the header `{name}` belongs to the protocol and cannot be set"));
        }
        Ok(HeaderKey(name.to_owned()))
    }
}

impl From<HeaderKey> for String {
    fn from(key: HeaderKey) -> String {
        key.0
    }
}

impl JsonSchema for HeaderKey {
    fn schema_name() -> Cow<'static, str> {
        "HeaderKey".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" })
    }
}

/// Attributes added to every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Resource(BTreeMap<String, String>);

impl Resource {
    /// Name and value of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl TryFrom<BTreeMap<String, String>> for Resource {
    type Error = String;

    fn try_from(attributes: BTreeMap<String, String>) -> Result<Resource, String> {
        for name in attributes.keys() {
            if name.is_empty() {
                return Err("an attribute has an empty name".to_owned());
            }
            if name == a::SERVICE_INSTANCE_ID {
                return Err(format!("`{name}` tells servers apart and cannot be set for all of them"));
            }
        }
        Ok(Resource(attributes))
    }
}

/// Least bound that a single point always fits into.
const LEAST_REQUEST_BYTES: usize = 64 << 10;

fn request_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<NonZeroUsize, D::Error> {
    let bytes = NonZeroUsize::deserialize(deserializer)?;
    if bytes.get() < LEAST_REQUEST_BYTES {
        let reason = format!("max_request_bytes is {bytes}, but at least {LEAST_REQUEST_BYTES} are needed");
        return Err(serde::de::Error::custom(reason));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(json: &str) -> Result<Config, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn requests_go_to_the_path_of_the_signal() {
        for (json, url) in [
            ("{}", "http://127.0.0.1:4318/v1/metrics"),
            (r#"{"endpoint":"https://otlp.nr-data.net"}"#, "https://otlp.nr-data.net/v1/metrics"),
            (r#"{"endpoint":"https://x:1/otlp/"}"#, "https://x:1/otlp/v1/metrics"),
        ] {
            let config = read(json).unwrap();
            assert_eq!(Signal::Metrics.end_point(&config.url()).as_str(), url, "{json}");
            let logs = url.replace("/v1/metrics", "/v1/logs");
            assert_eq!(Signal::Logs.end_point(&config.url()).as_str(), logs, "{json}");
        }
        for (json, url) in [
            (r#"{"protocol":"grpc"}"#, "http://127.0.0.1:4317/"),
            (r#"{"endpoint":"https://x:4317","protocol":"grpc"}"#, "https://x:4317/"),
        ] {
            assert_eq!(read(json).unwrap().url().as_str(), url, "{json}");
        }
    }

    #[test]
    fn what_is_kept_stays_with_its_receiver() {
        let name = |json| read(json).unwrap().name();
        assert_eq!(name("{}"), name(r#"{"interval":"30s","endpoint":"http://127.0.0.1:4318/"}"#));
        assert_ne!(name("{}"), name(r#"{"protocol":"grpc"}"#));
        assert_ne!(name("{}"), name(r#"{"endpoint":"http://127.0.0.1:4319"}"#));
    }

    #[test]
    fn wrong_values_are_refused_with_their_reason() {
        for (json, reason) in [
            (r#"{"endpoint":"otlp.nr-data.net"}"#, "not a URL"),
            (r#"{"endpoint":"ftp://x"}"#, "scheme is `ftp`"),
            (r#"{"endpoint":"https://x/?key=1"}"#, "a query"),
            (r#"{"headers":{"a b":"x"}}"#, "`a b` cannot be the name"),
            (r#"{"headers":{"Content-Type":"x"}}"#, "`content-type` belongs to the protocol"),
            (r#"{"headers":{"grpc-timeout":"x"}}"#, "`grpc-timeout` belongs to the protocol"),
            (r#"{"resource":{"service.instance.id":"x"}}"#, "tells servers apart"),
            (r#"{"max_request_bytes":100}"#, "at least 65536"),
            (r#"{"timeout":10}"#, "a duration with a unit"),
            (r#"{"protocol":"thrift"}"#, "unknown variant `thrift`"),
            (r#"{"url":"x"}"#, "unknown field `url`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let error = read(r#"{"endpoint":"https://user:hunter2@x"}"#).unwrap_err();
        assert!(error.contains("holds credentials") && !error.contains("hunter2"), "{error}");
        let config = read(r#"{"headers":{"API-Key":"hunter2"}}"#).unwrap();
        assert_eq!(config.headers.keys().next().unwrap().as_str(), "api-key");
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_default_reads_back() {
        let text = serde_json::to_string(&Config::default()).unwrap();
        assert_eq!(read(&text).unwrap(), Config::default());
        assert_eq!(read("{}").unwrap(), Config::default());
    }
}
