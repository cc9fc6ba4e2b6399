//! One attempt to send one request, over either protocol.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use super::{
    Answer, Payload,
    config::{Config, HeaderKey, Protocol},
    grpc::Grpc,
    http::Http,
};
use crate::model::Secret;

/// Why a receiver cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A certificate or key cannot be read.
    #[error("cannot read {path} (config key `export.otlp.tls.{key}`): {error}", path = path.display())]
    File {
        /// Key below `tls`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Only one half of the agent's own certificate is configured.
    #[error("`export.otlp.tls` needs both `cert_file` and `key_file`, or neither")]
    HalfIdentity,
    /// A header's value is no text that a header can hold, or its secret was not read.
    #[error("the header `{name}` of `export.otlp.headers` {reason}")]
    Header {
        /// Name of the header.
        name: String,
        /// Why, without the value.
        reason: &'static str,
    },
    /// The client could not be built, mostly for a certificate that is none.
    #[error(
        "the connection to {endpoint} cannot be set up: {reason}; check `export.otlp.endpoint` and `export.otlp.tls`"
    )]
    Client {
        /// The URL.
        endpoint: String,
        /// Why.
        reason: String,
    },
}

/// The receiver took a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Points that it refused nevertheless.
    pub(super) rejected: u64,
    /// Why, or a warning without refused points.
    pub(super) message: String,
}

impl Accepted {
    pub(super) fn new(rejected: i64, message: &str) -> Accepted {
        Accepted { rejected: u64::try_from(rejected).unwrap_or(0), message: readable(message) }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Sending it again may help.
    Temporary {
        /// What happened.
        message: String,
        /// HTTP status, or that which stands for the gRPC code; 0 without an answer.
        status: u16,
        /// The pause that the receiver asks for.
        after: Option<Duration>,
    },
    /// Sending it again will not help.
    Permanent {
        /// What happened.
        message: String,
        /// As above.
        status: u16,
    },
}

impl Failure {
    pub(super) fn temporary(message: String) -> Failure {
        Failure::Temporary { message, status: 0, after: None }
    }

    /// What the receiver said to a request of so many bytes, in numbers.
    pub(super) fn answer(&self, bytes: usize) -> Answer {
        let (status, retry_after) = match self {
            Failure::Temporary { status, after, .. } => (*status, *after),
            Failure::Permanent { status, .. } => (*status, None),
        };
        Answer { status, retry_after, rejected: 0, bytes }
    }

    pub(super) fn message(&self) -> &str {
        match self {
            Failure::Temporary { message, .. } | Failure::Permanent { message, .. } => message,
        }
    }
}

/// Text from outside as it may stand in a log: one line, bounded.
pub(super) fn readable(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(256).collect();
    text.trim().to_owned()
}

/// Either protocol.
#[derive(Debug)]
pub(super) enum Transport {
    Http(Http),
    Grpc(Box<Grpc>),
}

impl Transport {
    pub(super) fn new(config: &Config) -> Result<Transport, SetupError> {
        Ok(match config.protocol {
            Protocol::Http => Transport::Http(Http::new(config)?),
            Protocol::Grpc => Transport::Grpc(Grpc::new(config)?.into()),
        })
    }

    /// Sends once, without a time limit of its own.
    pub(super) async fn send(&mut self, payload: &Payload) -> Result<Accepted, Failure> {
        match self {
            Transport::Http(http) => http.send(payload).await,
            Transport::Grpc(grpc) => grpc.send(payload).await,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Http(http) => write!(f, "OTLP receiver {}", http.url()),
            Transport::Grpc(grpc) => write!(f, "OTLP receiver {}", grpc.url()),
        }
    }
}

/// PEM files of `tls`, read.
pub(super) struct Pem {
    /// Authorities to trust.
    pub(super) ca: Option<Vec<u8>>,
    /// The agent's own certificate chain and key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Pem {
    pub(super) fn read(config: &Config) -> Result<Pem, SetupError> {
        let read =
            |key, path: &PathBuf| fs::read(path).map_err(|error| SetupError::File { key, path: path.clone(), error });
        let tls = &config.tls;
        Ok(Pem {
            ca: tls.ca_file.as_ref().map(|path| read("ca_file", path)).transpose()?,
            identity: match (&tls.cert_file, &tls.key_file) {
                (Some(cert), Some(key)) => Some((read("cert_file", cert)?, read("key_file", key)?)),
                (None, None) => None,
                _ => return Err(SetupError::HalfIdentity),
            },
        })
    }
}

/// Headers as `parse` makes them; their values never get into an error.
pub(super) fn headers<'a, V>(
    config: &'a Config,
    parse: impl Fn(&str) -> Option<V> + 'a,
) -> impl Iterator<Item = Result<(&'a str, V), SetupError>> + 'a {
    config.headers.iter().map(move |(name, value): (&HeaderKey, &Secret)| {
        let name = name.as_str();
        let error = |reason| SetupError::Header { name: name.to_owned(), reason };
        let value = value.expose().ok_or_else(|| error("has a secret that was not read"))?;
        let value = parse(value).ok_or_else(|| error("has a value with characters that no header can hold"))?;
        Ok((name, value))
    })
}
