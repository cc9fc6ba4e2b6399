//! Certificates: whom the exporter trusts, and how it shows itself.

use std::{fs, sync::Once};

use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::*;

/// An authority, and a certificate and key for 127.0.0.1 that it signed, as PEM.
struct Authority {
    ca: String,
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        Authority { ca: ca.pem(), cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// A receiver that shows the authority's certificate and wants one from its clients.
async fn listen(receiver: Receiver, protocol: Protocol, authority: &Authority) -> SocketAddr {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    if protocol == Protocol::Grpc {
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&authority.cert, &authority.key))
            .client_ca_root(Certificate::from_pem(&authority.ca));
        let service = MetricsServiceServer::new(receiver).accept_compressed(CompressionEncoding::Gzip);
        let server = tonic::transport::Server::builder().tls_config(tls).unwrap().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        return address;
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca.as_bytes()).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder(roots.into()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(authority.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(authority.key.as_bytes()).unwrap();
    let tls = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let router = Router::new().route("/v1/metrics", post(http)).with_state(receiver);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        fs::write(&path, pem).unwrap();
        Some(path)
    };
    let ca_file = write("ca.pem", &authority.ca);
    let cert_file = write("cert.pem", &authority.cert);
    let key_file = write("key.pem", &authority.key);
    let strange_ca = write("stranger.pem", &stranger.ca);
    let good = Tls { ca_file, cert_file, key_file };
    for protocol in [Protocol::Http, Protocol::Grpc] {
        for (what, tls, arrives) in [
            ("all is well", good.clone(), true),
            ("the system's authorities do not know the receiver", Tls { ca_file: None, ..good.clone() }, false),
            ("a strange authority", Tls { ca_file: strange_ca.clone(), ..good.clone() }, false),
            ("no certificate of its own", Tls { cert_file: None, key_file: None, ..good.clone() }, false),
        ] {
            let receiver = Receiver::default();
            let address = listen(receiver.clone(), protocol, &authority).await;
            let mut config = Config { tls, ..config(protocol, address) };
            config.endpoint = Some(format!("https://{address}").parse().unwrap());
            config.retry.elapsed = HumanDuration::from_millis(30);
            let report = exporter(&config).export(&testing::busy()).await;
            assert_eq!(receiver.requests().len(), usize::from(arrives), "{protocol:?}, {what}: {report:?}");
            assert_eq!(report.errors.is_empty(), arrives, "{protocol:?}, {what}: {report:?}");
            if what == "a strange authority" {
                assert!(report.errors[0].contains("invalid peer certificate"), "{report:?}");
            }
        }
    }
}
