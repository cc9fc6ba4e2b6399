//! OTLP/gRPC (OTLP specification §OTLP/gRPC).

use std::time::Duration;

use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceResponse, logs_service_client::LogsServiceClient},
    metrics::v1::{ExportMetricsServiceResponse, metrics_service_client::MetricsServiceClient},
    trace::v1::{ExportTraceServiceResponse, trace_service_client::TraceServiceClient},
};
use prost::Message;
use reqwest::Url;
use tonic::{
    Code, Request, Status,
    codec::CompressionEncoding,
    metadata::{Ascii, AsciiMetadataKey, MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    Payload, Signal,
    config::{Compression, Config},
    transport::{Accepted, Failure, Pem, SetupError, headers, readable},
};
use crate::model::with_causes;

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Grpc {
    metrics: MetricsServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
    traces: TraceServiceClient<Channel>,
    url: Url,
    metadata: MetadataMap,
}

impl Grpc {
    /// Prepares the channel; it connects when it is first used.
    pub(super) fn new(config: &Config) -> Result<Grpc, SetupError> {
        let url = config.url();
        let client_error = |error: tonic::transport::Error| SetupError::Client {
            endpoint: url.to_string(),
            reason: with_causes(&error),
        };
        let mut metadata = MetadataMap::new();
        for header in headers(config, |value| value.parse::<MetadataValue<Ascii>>().ok()) {
            let (name, mut value) = header?;
            value.set_sensitive(true);
            if let Ok(name) = name.parse::<AsciiMetadataKey>() {
                metadata.insert(name, value);
            }
        }
        let mut endpoint = Endpoint::from_shared(url.to_string())
            .and_then(|endpoint| endpoint.user_agent(concat!("querylens/", env!("CARGO_PKG_VERSION"))))
            .map_err(client_error)?
            .connect_timeout(config.timeout.0)
            .timeout(config.timeout.0);
        let pem = Pem::read(config)?;
        if url.scheme() == "https" {
            let mut tls = match pem.ca {
                Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            if let Some((cert, key)) = pem.identity {
                tls = tls.identity(Identity::from_pem(cert, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(client_error)?;
        }
        let channel = endpoint.connect_lazy();
        let mut metrics = MetricsServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER);
        let mut logs = LogsServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER);
        let mut traces = TraceServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        if config.compression == Compression::Gzip {
            metrics = metrics.send_compressed(CompressionEncoding::Gzip);
            logs = logs.send_compressed(CompressionEncoding::Gzip);
            traces = traces.send_compressed(CompressionEncoding::Gzip);
        }
        Ok(Grpc { metrics, logs, traces, url, metadata })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) async fn send(&mut self, payload: &Payload) -> Result<Accepted, Failure> {
        let body = payload.body.as_slice();
        let answer = match payload.signal {
            Signal::Metrics => self.metrics.export(self.request(body)?).await.map(|answer| answer.into_inner().into()),
            Signal::Logs => self.logs.export(self.request(body)?).await.map(|answer| answer.into_inner().into()),
            Signal::Traces => self.traces.export(self.request(body)?).await.map(|answer| answer.into_inner().into()),
        };
        answer.map_err(|status| failure(&status))
    }

    /// A request with the configured metadata.
    fn request<T: Message + Default>(&self, body: &[u8]) -> Result<Request<T>, Failure> {
        let message = T::decode(body).map_err(|error| {
            let message = format!("a request that was kept cannot be read: {error}");
            Failure::Permanent { message, status: 0 }
        })?;
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        Ok(request)
    }
}

impl From<ExportMetricsServiceResponse> for Accepted {
    fn from(response: ExportMetricsServiceResponse) -> Accepted {
        let partial = response.partial_success.unwrap_or_default();
        Accepted::new(partial.rejected_data_points, &partial.error_message)
    }
}

impl From<ExportLogsServiceResponse> for Accepted {
    fn from(response: ExportLogsServiceResponse) -> Accepted {
        let partial = response.partial_success.unwrap_or_default();
        Accepted::new(partial.rejected_log_records, &partial.error_message)
    }
}

impl From<ExportTraceServiceResponse> for Accepted {
    fn from(response: ExportTraceServiceResponse) -> Accepted {
        let partial = response.partial_success.unwrap_or_default();
        Accepted::new(partial.rejected_spans, &partial.error_message)
    }
}

/// OTLP specification §Failures: which codes may be sent again.
fn failure(status: &Status) -> Failure {
    let after = retry_info(status.details());
    let said = match status.message() {
        "" => String::new(),
        message => format!(": {}", readable(message)),
    };
    let cause = std::error::Error::source(status).map(|cause| format!(" ({})", with_causes(cause))).unwrap_or_default();
    let message = format!("gRPC {:?}{said}{cause}{}", status.code(), advice(status.code()));
    let temporary = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        // Only the receiver knows whether it will recover.
        Code::ResourceExhausted => after.is_some(),
        // A cause is there only where the status was made on this side, for a connection that broke.
        _ => std::error::Error::source(status).is_some(),
    };
    let status = http_status(status.code());
    match temporary {
        true => Failure::Temporary { message, status, after },
        false => Failure::Permanent { message, status },
    }
}

/// The HTTP status that says the same, as far as it matters what to do about it (google.rpc.Code).
fn http_status(code: Code) -> u16 {
    match code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound | Code::Unimplemented => 404,
        Code::ResourceExhausted => 429,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        _ => 500,
    }
}

fn advice(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => "; check the key in `export.otlp.headers`",
        Code::Unimplemented => "; check `export.otlp.endpoint` and `export.otlp.protocol`",
        _ => "",
    }
}

/// `google.rpc.Status` as far as its details are concerned.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The pause that `RetryInfo` in `grpc-status-details-bin` asks for.
fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay.unwrap_or_default();
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(u64::try_from(delay.seconds).unwrap_or(0), nanos))
}
