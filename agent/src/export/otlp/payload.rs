//! An encoded request, as it is sent or kept until it can be sent.

use prost::Message;
use reqwest::Url;

/// What kind of telemetry a request carries; each has an end point of its own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Exact statistics of servers, and the agent's own numbers.
    Metrics,
    /// Examples of executions, plans, findings, and what the agent has to say of its own work.
    Logs,
    /// Executions under the span of the application that sent them.
    Traces,
}

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    /// Its end point at a receiver (OpenTelemetry protocol exporter specification, "Endpoint URLs for OTLP/HTTP").
    pub(super) fn end_point(self, receiver: &Url) -> Url {
        let path = match self {
            Signal::Metrics => "/v1/metrics",
            Signal::Logs => "/v1/logs",
            Signal::Traces => "/v1/traces",
        };
        let mut url = receiver.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url
    }

    /// Its number in a kept payload.
    fn number(self) -> u8 {
        match self {
            Signal::Metrics => 1,
            Signal::Logs => 2,
            Signal::Traces => 3,
        }
    }
}

/// A request of one signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// What it carries.
    pub signal: Signal,
    /// Data points, log records or spans.
    pub items: u64,
    /// The request in protobuf, not compressed.
    pub body: Vec<u8>,
}

impl Payload {
    /// `request` with so many items.
    pub(super) fn new(signal: Signal, items: u64, request: &impl Message) -> Payload {
        Payload { signal, items, body: request.encode_to_vec() }
    }

    /// As it is kept: the signal's number, the number of items in little endian, the request.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + self.body.len());
        bytes.push(self.signal.number());
        bytes.extend(self.items.to_le_bytes());
        bytes.extend(&self.body);
        bytes
    }

    /// What [`Payload::to_bytes`] made; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Payload> {
        let (head, body) = bytes.split_first_chunk::<9>()?;
        let signal = Signal::ALL.into_iter().find(|signal| signal.number() == head[0])?;
        let [_, items @ ..] = *head;
        Some(Payload { signal, items: u64::from_le_bytes(items), body: body.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_to_be_sent() {
        for signal in Signal::ALL {
            let payload = Payload { signal, items: 300, body: vec![1, 2, 3] };
            assert_eq!(Payload::from_bytes(&payload.to_bytes()), Some(payload));
        }
        for odd in [&[][..], &[1, 0, 0], &[9; 20]] {
            assert_eq!(Payload::from_bytes(odd), None);
        }
    }
}
