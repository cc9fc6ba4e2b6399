//! OTLP, gRPC or HTTP with protobuf: metrics, logs and traces.
//!
//! `request` and `records` build, `split` cuts to size, `transport` sends once, `retry` decides when to try again. The [`Encoder`] makes payloads out of
//! what there is to tell, the [`Sender`] brings them to the receiver; what lies between them, a queue or a spool, is the caller's.

mod config;
mod grpc;
mod http;
mod payload;
mod records;
mod request;
mod retry;
mod sender;
mod split;
#[cfg(test)]
mod tests;
mod transport;

use std::time::Duration;

use tokio::time::Instant;

use prost::Message;
use uuid::Uuid;

use crate::model::{Outgoing, Snapshot, signal::Kind};

use super::{Host, OperationDurationName};

pub use config::{Compression, Config, Endpoint, HeaderKey, Protocol, Resource, Retry, Tls};
pub use payload::{Payload, Signal};
pub use request::Builder;
pub use sender::{Answer, Report, Sender, Stats};
pub use transport::SetupError;

/// Longest that the agent waits for anything, whatever a receiver asks for or a configuration allows.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// So much time from now, at most [`LONGEST_WAIT`].
fn later(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST_WAIT)
}

/// Makes requests for one receiver.
#[derive(Debug)]
pub struct Encoder {
    builder: Builder,
    signals: Vec<Signal>,
    max_request_bytes: usize,
}

impl Encoder {
    /// For the receiver of `config`.
    pub fn new(config: &Config, duration: OperationDurationName, host: Host) -> Encoder {
        Encoder {
            builder: Builder::new(config, duration, host),
            signals: config.signals.clone(),
            max_request_bytes: config.max_request_bytes.get(),
        }
    }

    /// Requests of at most so many bytes from now on: the receiver refused larger ones.
    pub fn limit(&mut self, bytes: usize) {
        self.max_request_bytes = self.max_request_bytes.min(bytes);
    }

    /// The metrics of `snapshot`, in as many requests as their size needs, and how large they are.
    pub fn metrics(&mut self, snapshot: &Snapshot) -> (Vec<Payload>, Vec<Encoded>) {
        if !self.signals.contains(&Signal::Metrics) {
            return (Vec::new(), Vec::new());
        }
        let request = self.builder.request(snapshot);
        let servers = snapshot.instances.iter().map(|server| (server.instance.service_instance_id, Kind::Interval));
        // The last resource is the agent.
        let whose = servers.chain([(Uuid::nil(), Kind::Fact)]);
        let encoded = request.resource_metrics.iter().zip(whose).map(|(resource, (instance, kind))| Encoded {
            instance,
            kind,
            bytes: resource.encoded_len() as u64,
        });
        let encoded = encoded.collect();
        let parts = split::split(request, self.max_request_bytes);
        (parts.iter().map(|part| Payload::new(Signal::Metrics, split::points(part), part)).collect(), encoded)
    }

    /// Single records, as logs and as spans, in as many requests as their size needs, and how large they are.
    pub fn records(&self, outgoing: &Outgoing) -> (Vec<Payload>, Vec<Encoded>) {
        let (mut payloads, mut encoded) = (Vec::new(), Vec::new());
        if self.signals.contains(&Signal::Logs)
            && let Some(request) = records::logs(&self.builder, outgoing, &mut encoded)
        {
            let parts = split::split(request, self.max_request_bytes);
            payloads.extend(parts.iter().map(|part| Payload::new(Signal::Logs, split::log_records(part), part)));
        }
        if self.signals.contains(&Signal::Traces)
            && let Some(request) = records::traces(&self.builder, outgoing, &mut encoded)
        {
            let parts = split::split(request, self.max_request_bytes);
            payloads.extend(parts.iter().map(|part| Payload::new(Signal::Traces, split::spans(part), part)));
        }
        (payloads, encoded)
    }
}

/// How large something is in protobuf before compression, which is what receivers bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Whose it is; nil for the agent's own.
    pub instance: Uuid,
    /// What it is.
    pub kind: Kind,
    /// How many bytes.
    pub bytes: u64,
}

/// Both ends for the receiver of `config`. To be called inside the runtime.
pub fn receiver(config: &Config, duration: OperationDurationName, host: Host) -> Result<(Encoder, Sender), SetupError> {
    Ok((Encoder::new(config, duration, host), Sender::new(config)?))
}
