//! Encryption of connections over TCP.

use std::{path::PathBuf, sync::Arc};

use mysql_async::{ClientIdentity, SslOpts};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject},
};

use crate::collect::config::{Tls, TlsMode};

/// How much a certificate must prove.
#[derive(Debug)]
enum Verifier {
    /// Nothing: the connection is encrypted, whoever the server is.
    Anyone(Arc<CryptoProvider>),
    /// That a trusted authority signed it, for whatever name.
    Authority(Arc<WebPkiServerVerifier>),
    /// That too, and that it is for the name connected to.
    Name(Arc<WebPkiServerVerifier>),
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        match self {
            Verifier::Anyone(_) => Ok(ServerCertVerified::assertion()),
            Verifier::Name(verifier) => verify(verifier),
            Verifier::Authority(verifier) => match verify(verifier) {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                verified => verified,
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Verifier::Anyone(provider) => {
                verify_tls12_signature(message, cert, dss, &provider.signature_verification_algorithms)
            }
            Verifier::Authority(verifier) | Verifier::Name(verifier) => {
                verifier.verify_tls12_signature(message, cert, dss)
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Verifier::Anyone(provider) => {
                verify_tls13_signature(message, cert, dss, &provider.signature_verification_algorithms)
            }
            Verifier::Authority(verifier) | Verifier::Name(verifier) => {
                verifier.verify_tls13_signature(message, cert, dss)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Verifier::Anyone(provider) => provider.signature_verification_algorithms.supported_schemes(),
            Verifier::Authority(verifier) | Verifier::Name(verifier) => verifier.supported_verify_schemes(),
        }
    }
}

/// Certificates of the authorities to trust: those configured, else the system's.
fn authorities(tls: &Tls) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(file) = &tls.ca_file else { return Ok(rustls_native_certs::load_native_certs().certs) };
    let failed = |error: pem::Error| format!("ca_file {}: {error}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).map_err(failed)?;
    certificates.collect::<Result<Vec<_>, _>>().map_err(failed)
}

/// The configuration of PostgreSQL's connections.
pub(super) fn for_postgres(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verified = || -> Result<Arc<WebPkiServerVerifier>, String> {
        let mut roots = RootCertStore::empty();
        let (trusted, _) = roots.add_parsable_certificates(authorities(tls)?);
        if trusted == 0 {
            return Err("there is no authority to trust: set `ca_file`".to_owned());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build();
        verifier.map_err(|error| format!("the authorities to trust: {error}"))
    };
    let verifier = match tls.mode {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Verifier::Anyone(Arc::clone(&provider)),
        TlsMode::VerifyCa => Verifier::Authority(verified()?),
        TlsMode::VerifyFull => Verifier::Name(verified()?),
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS: {error}"))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else { return Ok(builder.with_no_client_auth()) };
    let failed = |file: &PathBuf, error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let chain =
        CertificateDer::pem_file_iter(cert).and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>());
    let chain = chain.map_err(|error| failed(cert, &error))?;
    let own_key = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
    builder.with_client_auth_cert(chain, own_key).map_err(|error| failed(cert, &error))
}

/// The options of MySQL's connections; `None` for unencrypted ones.
pub(super) fn for_mysql(tls: &Tls) -> Result<Option<SslOpts>, String> {
    // The client takes the process's provider. One that is there already is the same.
    let _ = ring::default_provider().install_default();
    let trust = match tls.mode {
        TlsMode::Disable => return Ok(None),
        TlsMode::Prefer | TlsMode::Require => false,
        TlsMode::VerifyCa | TlsMode::VerifyFull => true,
    };
    let roots = if trust { authorities(tls)? } else { Vec::new() };
    let identity = tls.cert_file.clone().zip(tls.key_file.clone());
    let identity = identity.map(|(cert, key)| ClientIdentity::new(cert.into(), key.into()));
    Ok(Some(
        SslOpts::default()
            .with_root_certs(roots.into_iter().map(|root| root.to_vec().into()).collect())
            // The verifier that is made even where nothing is verified must not be empty.
            .with_disable_built_in_roots(trust)
            .with_danger_accept_invalid_certs(!trust)
            .with_client_identity(identity),
    ))
}
