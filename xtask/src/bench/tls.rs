//! A certificate authority for one run: a key and a certificate for 127.0.0.1 that nobody else ever holds.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::error::{Error, Explain, Result};

/// The server's side of TLS.
pub(crate) struct Tls {
    /// Accepts connections to 127.0.0.1.
    pub(crate) acceptor: TlsAcceptor,
    authority: String,
}

impl Tls {
    /// A new authority and a certificate that it vouches for.
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Keywheel bench");
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);

        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;

        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(Error::from)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        // What the services bench stands for offer.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), authority: authority.pem() })
    }

    /// Writes the roots that a process under measurement trusts: those of a real bundle, because reading
    /// them is part of every cold start, and this run's own.
    pub(crate) fn write_bundle(&self, real: &Path, to: &Path) -> Result<()> {
        let roots = std::fs::read_to_string(real).explain(format_args!("reading {}", real.display()))?;
        std::fs::write(to, format!("{roots}\n{}", self.authority))
            .explain(format_args!("writing {}", to.display()))
    }
}
