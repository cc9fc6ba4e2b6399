//! OTLP/HTTP with binary protobuf (OTLP specification §OTLP/HTTP).

use std::{io::Write, time::SystemTime};

use flate2::{Compression as Level, write::GzEncoder};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use reqwest::{
    Certificate, Client, Identity, StatusCode, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};

use super::{
    Payload,
    config::{Compression, Config},
    retry::retry_after,
    transport::{Accepted, Failure, Pem, SetupError, headers, readable},
};
use crate::model::with_causes;

/// Most bytes of an answer that are read; a real one has less than a hundred.
const MAX_ANSWER: usize = 64 << 10;

/// Statuses after which the same request may be sent again (OTLP specification §Retryable Response Codes).
const RETRYABLE: [StatusCode; 4] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    url: Url,
    gzip: bool,
}

impl Http {
    pub(super) fn new(config: &Config) -> Result<Http, SetupError> {
        // reqwest is built without a cryptography provider, so that only one is linked. That another part of the process was first is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = config.url();
        let client_error =
            |error: reqwest::Error| SetupError::Client { endpoint: url.to_string(), reason: with_causes(&error) };

        let mut map = HeaderMap::new();
        for header in headers(config, |value| HeaderValue::from_str(value).ok()) {
            let (name, mut value) = header?;
            value.set_sensitive(true);
            if let Ok(name) = HeaderName::try_from(name) {
                map.insert(name, value);
            }
        }
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let gzip = config.compression == Compression::Gzip;
        if gzip {
            map.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let mut client = Client::builder()
            .user_agent(concat!("querylens/", env!("CARGO_PKG_VERSION")))
            .default_headers(map)
            .connect_timeout(config.timeout.0)
            // A redirect would carry the headers' secrets to wherever it points.
            .redirect(redirect::Policy::none());
        let pem = Pem::read(config)?;
        if let Some(ca) = pem.ca {
            client = client.tls_certs_only(Certificate::from_pem_bundle(&ca).map_err(client_error)?);
        }
        if let Some((mut cert, key)) = pem.identity {
            cert.push(b'\n');
            cert.extend(key);
            client = client.identity(Identity::from_pem(&cert).map_err(client_error)?);
        }
        let client = client.build().map_err(client_error)?;
        Ok(Http { client, url, gzip })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) async fn send(&mut self, payload: &Payload) -> Result<Accepted, Failure> {
        let body = self.encode(&payload.body)?;
        let sent = self.client.post(payload.signal.end_point(&self.url)).body(body).send().await;
        // The specification asks to send again where the connection failed or ended without an answer.
        let failed = |error: reqwest::Error| Failure::temporary(with_causes(&error.without_url()));
        let mut response = sent.map_err(failed)?;
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| retry_after(value, SystemTime::now()));

        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if answer.len() + chunk.len() > MAX_ANSWER {
                break;
            }
            answer.extend_from_slice(&chunk);
        }
        if status.is_success() {
            // It was taken; that some receivers answer with JSON or nothing does not change that. The answers of all signals have the same numbers on the wire.
            return Ok(ExportMetricsServiceResponse::decode(&*answer).map(Accepted::from).unwrap_or_default());
        }
        let message = format!("HTTP {status}: {}{}", said(&answer), advice(status));
        let number = status.as_u16();
        match RETRYABLE.contains(&status) {
            true => Err(Failure::Temporary { message, status: number, after }),
            false => Err(Failure::Permanent { message, status: number }),
        }
    }

    fn encode(&self, plain: &[u8]) -> Result<Vec<u8>, Failure> {
        if !self.gzip {
            return Ok(plain.to_vec());
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Level::fast());
        let encoded = encoder.write_all(plain).and_then(|()| encoder.finish());
        encoded.map_err(|error| {
            let message = format!("the request cannot be compressed: {error}");
            Failure::Permanent { message, status: 0 }
        })
    }
}

/// `google.rpc.Status`, which failures carry as their body (OTLP specification §Failures).
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The receiver's reason: protobuf as specified, or the text that proxies and some receivers send.
fn said(answer: &[u8]) -> String {
    match RpcStatus::decode(answer) {
        Ok(status) if !status.message.is_empty() => readable(&status.message),
        _ => readable(&String::from_utf8_lossy(answer)),
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; check the key in `export.otlp.headers`",
        StatusCode::NOT_FOUND => {
            "; check `export.otlp.endpoint`, to which the path of the signal is added, and `export.otlp.signals`"
        }
        StatusCode::PAYLOAD_TOO_LARGE => "; lower `export.otlp.max_request_bytes`",
        status if status.is_redirection() => "; redirects are not followed: put the target into `export.otlp.endpoint`",
        _ => "",
    }
}
