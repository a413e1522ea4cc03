//! The certificate that a server shows, and whose certificates it accepts. Invariant: what was loaded stays in use until all of
//! its successor was loaded; files that cannot be loaded never end what serves.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
};
use thiserror::Error;
use tracing::{info, warn};

/// A chain has a few KiB, all authorities that a system trusts some hundred.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a server's certificate is, and whom it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM: the certificate, and then the authorities between it and one that clients trust.
    pub certificate: PathBuf,
    /// PEM, unencrypted: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// PEM: who signs the certificates of clients. A client need not have one, and then has no subject.
    pub client_ca: Option<PathBuf>,
}

impl TlsSettings {
    /// Loads all of it as a server does.
    ///
    /// # Errors
    /// A file cannot be loaded, or the key does not belong to the certificate.
    pub fn check(&self) -> Result<(), TlsError> {
        load(self).map(drop)
    }
}

/// Why a server has no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no chain and no key.
    #[error("failed to load {}: it has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// A file is not PEM.
    #[error("failed to load {what} from {}: not valid PEM", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// A file has other things in it than what was looked for.
    #[error("failed to find {what} in {}", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Certificate and key cannot be used together.
    #[error("failed to use the key {} with the certificate {}", key.display(), certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A certificate cannot sign those of clients.
    #[error("failed to use an authority of {}", path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No certificate of a client could be verified.
    #[error("failed to verify clients by {}", path.display())]
    Verifier {
        /// Which.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// There is no version of TLS.
    #[error("failed to prepare TLS")]
    Protocol {
        /// Why.
        source: rustls::Error,
    },
}

/// What is loaded, and looked for again from time to time.
pub(crate) struct Certificates {
    settings: TlsSettings,
    /// How long files are not looked at.
    every: Duration,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// What the files looked like when it was loaded.
    state: FilesState,
    looked_at: Instant,
    /// Files of which an operator knows that they cannot be loaded.
    warned_of: Option<FilesState>,
}

impl Certificates {
    pub fn load(settings: TlsSettings, every: Duration) -> Result<Self, TlsError> {
        // Before the files are read: what is replaced in between looks different the next time.
        let state = FilesState::of(&settings);
        let config = Arc::new(load(&settings)?);
        let loaded = Loaded { config, state, looked_at: Instant::now(), warned_of: None };
        Ok(Self { settings, every, loaded: Mutex::new(loaded) })
    }

    /// For the next handshake. Three small files are read on the caller's thread when they were replaced; whoever comes
    /// meanwhile waits for that.
    pub fn current(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock();
        if loaded.looked_at.elapsed() >= self.every {
            loaded.looked_at = Instant::now();
            let state = FilesState::of(&self.settings);
            if state != loaded.state {
                self.renew(&mut loaded, state);
            }
        }
        loaded.config.clone()
    }

    /// What failed is tried again each time: the reason need not be the files (too many may be open).
    fn renew(&self, loaded: &mut Loaded, state: FilesState) {
        let certificate = self.settings.certificate.display();
        match load(&self.settings) {
            Ok(config) => {
                info!(%certificate, "loaded a replaced certificate, key or client authority");
                *loaded = Loaded { config: Arc::new(config), state, looked_at: loaded.looked_at, warned_of: None };
            }
            Err(error) if loaded.warned_of.as_ref() != Some(&state) => {
                let error: &dyn std::error::Error = &error;
                warn!(%certificate, error, "failed to load replaced TLS files: those loaded before stay in use");
                loaded.warned_of = Some(state);
            }
            Err(_) => {}
        }
    }
}

/// By what a file is recognised that was replaced, or that can be read now and could not before (`ctime`).
#[derive(PartialEq, Eq)]
struct FilesState([Option<FileState>; 3]);

#[derive(PartialEq, Eq)]
struct FileState {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FilesState {
    fn of(settings: &TlsSettings) -> Self {
        let state = |path: &Path| {
            let of = fs::metadata(path).ok()?;
            Some(FileState {
                file: (of.dev(), of.ino()),
                bytes: of.size(),
                modified: (of.mtime(), of.mtime_nsec()),
                changed: (of.ctime(), of.ctime_nsec()),
            })
        };
        let TlsSettings { certificate, key, client_ca } = settings;
        Self([state(certificate), state(key), client_ca.as_deref().and_then(state)])
    }
}

fn load(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&settings.certificate)?;
    let key = key(&settings.key)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Protocol { source })?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
        certificate: settings.certificate.clone(),
        key: settings.key.clone(),
        source,
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if settings.client_ca.is_some() {
        // A session that is resumed does not verify its client again, which may have expired by then.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(path)? {
        authorities.add(certificate).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|source| TlsError::Verifier { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "a certificate";
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::Missing { path: path.to_owned(), what }),
        Ok(found) => Ok(found),
        Err(error) => Err(not_pem(path, what, error)),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|source| match source {
        pem::Error::NoItemsFound => {
            TlsError::Missing { path: path.to_owned(), what: "an unencrypted private key (PKCS#8, SEC1 or PKCS#1)" }
        }
        error => not_pem(path, "a private key", error),
    })
}

fn not_pem(path: &Path, what: &'static str, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        // Its own text is a list of numbers.
        pem::Error::MissingSectionEnd { .. } => TlsError::Missing { path, what: "the end of a section (`-----END`)" },
        source => TlsError::Pem { path, what, source },
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::TooLong { path: path.to_owned() });
    }
    Ok(text)
}
