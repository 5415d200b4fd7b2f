//! TLS: a certificate and its key, read again when their files change.

use crate::files::{self, Written};
use std::{
    fs,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// PEM files of a certificate with its chain, and of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those it hangs on.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What was read of them.
pub(crate) struct Tls {
    files: TlsFiles,
    acceptor: RwLock<TlsAcceptor>,
    written: RwLock<[Option<Written>; 2]>,
}

impl Tls {
    pub(crate) fn open(files: TlsFiles) -> io::Result<Tls> {
        let written = RwLock::new(files.written());
        Ok(Tls { acceptor: RwLock::new(files.read()?), written, files })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads them again where they have changed. What cannot be read changes nothing.
    pub(crate) fn refresh(&self) {
        let written = self.files.written();
        let mut known = self.written.write().unwrap_or_else(PoisonError::into_inner);
        if *known == written {
            return;
        }
        *known = written;
        match self.files.read() {
            Ok(acceptor) => {
                *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!("the certificate was read again");
            }
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }
}

impl TlsFiles {
    fn written(&self) -> [Option<Written>; 2] {
        [&self.cert, &self.key].map(|path| files::written(path))
    }

    fn read(&self) -> io::Result<TlsAcceptor> {
        let bad = |path: &PathBuf, detail: String| io::Error::new(ErrorKind::InvalidData, format!("{}: {detail}", path.display()));
        let (cert, key) = (fs::read(&self.cert), fs::read(&self.key));
        let cert = cert.map_err(|error| bad(&self.cert, error.to_string()))?;
        let key = key.map_err(|error| bad(&self.key, error.to_string()))?;
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&cert).collect::<Result<_, _>>().map_err(|error| bad(&self.cert, error.to_string()))?;
        if chain.is_empty() {
            return Err(bad(&self.cert, "no certificate in PEM".to_string()));
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| bad(&self.key, error.to_string()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| bad(&self.cert, error.to_string()))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
