//! OTLP/gRPC (OTLP specification §OTLP/gRPC).

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
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
    config::{Compression, Config},
    transport::{Accepted, Failure, Pem, SetupError, headers, readable},
};
use crate::model::with_causes;

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Grpc {
    client: MetricsServiceClient<Channel>,
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
        let mut client = MetricsServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(MAX_ANSWER);
        if config.compression == Compression::Gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        Ok(Grpc { client, url, metadata })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) async fn send(&mut self, request: &ExportMetricsServiceRequest) -> Result<Accepted, Failure> {
        let mut request = Request::new(request.clone());
        *request.metadata_mut() = self.metadata.clone();
        match self.client.export(request).await {
            Ok(response) => Ok(response.into_inner().into()),
            Err(status) => Err(failure(&status)),
        }
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
    match temporary {
        true => Failure::Temporary { message, after },
        false => Failure::Permanent { message },
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
