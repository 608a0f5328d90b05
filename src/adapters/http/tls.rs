//! TLS on a listener: the certificate, and how it is renewed while connections go on.

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead from it to the authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// What changes when a file is written or replaced.
type Version = Option<(u64, u64, i64, i64, u64)>;

fn version(path: &Path) -> Version {
    let found = fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.mtime(),
        found.mtime_nsec(),
        found.len(),
    ))
}

impl TlsFiles {
    fn versions(&self) -> [Version; 2] {
        [version(&self.certificate), version(&self.key)]
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file, without its content.
    fn load(&self) -> io::Result<CertifiedKey> {
        let failed = |path: &Path, error: &dyn fmt::Display| {
            io::Error::other(format!("{}: {error}", path.display()))
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(&self.certificate, &error))?;
        if chain.is_empty() {
            return Err(failed(&self.certificate, &"has no certificate"));
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| failed(&self.key, &error))?;
        // This fails too when the key is that of another certificate.
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| failed(&self.key, &error))
    }
}

/// The certificate in use.
struct Current(RwLock<Arc<CertifiedKey>>);

/// Leaves the key out.
impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

/// Reads the files again whenever they change. Connections keep the certificate that they began
/// with; files that cannot be used change nothing.
async fn renew(files: TlsFiles, mut seen: [Version; 2], current: std::sync::Weak<Current>) {
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let Some(current) = current.upgrade() else {
            return;
        };
        let (looked_at, before) = (files.clone(), seen);
        let changed = tokio::task::spawn_blocking(move || {
            let versions = looked_at.versions();
            (versions != before).then(|| (versions, looked_at.load()))
        });
        let Ok(Some((versions, loaded))) = changed.await else {
            continue;
        };
        seen = versions;
        match loaded {
            Ok(key) => {
                *current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!(certificate = %files.certificate.display(), "certificate renewed");
            }
            Err(error) => {
                tracing::warn!(%error, "the new certificate is not used; the old one stays");
            }
        }
    }
}

/// Makes what a listener accepts TLS connections with, and keeps its certificate up to date for as
/// long as that exists.
///
/// # Errors
///
/// Returns an error when the files cannot be used.
pub fn acceptor(files: &TlsFiles) -> io::Result<TlsAcceptor> {
    let versions = files.versions();
    let current = Arc::new(Current(RwLock::new(Arc::new(files.load()?))));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(current.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tokio::spawn(renew(files.clone(), versions, Arc::downgrade(&current)));
    Ok(TlsAcceptor::from(Arc::new(config)))
}
