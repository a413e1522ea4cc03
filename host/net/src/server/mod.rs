//! Serves HTTP. Invariant: whatever clients do, the server keeps accepting; connections, and what each may send, wait and keep,
//! are bounded; and `end` returns within its time.

mod connection;
mod framing;
mod occurrences;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::Duration,
};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tower_service::Service;
use tracing::{debug, error, warn};

pub use self::occurrences::Occurrences;
use self::{connection::Shared, socket::Socket};
use crate::{
    Runtime,
    tls::{Certificates, TlsError, TlsSettings},
};

/// Connections that the system keeps until they are accepted (Linux: no more than `net.core.somaxconn`, 4,096 where nothing was
/// changed). Whoever comes when it is full tries again after one second, two, four …: of ten thousand at once some came 50 s late.
const BACKLOG: i32 = 4096;
/// How often the files of a certificate are looked at, at most.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(60);
/// How long nothing is accepted when the system has no file or memory left for a connection; doubled up to the most.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// For connections that are cut: a service that blocks its thread cannot be.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a server may use, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where clients connect; with port 0 the system chooses one.
    pub listen: SocketAddr,
    /// None: plain HTTP.
    pub tls: Option<TlsSettings>,
    /// Open at once, those in a TLS handshake among them; who comes beyond is closed at once.
    pub connections_max: usize,
    /// Of the TLS handshake; then from the handshake, or the end of the last exchange, to the end of a request's head. So a
    /// connection that idles ends after it, too.
    pub header_timeout: Duration,
    /// Of a request's head, its first line too; and of the trailers behind its body.
    pub header_bytes_max: usize,
    /// A peer that acknowledges nothing of what it is sent, or has no room for it, is gone after this.
    pub write_timeout: Duration,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address is taken.
    #[error(
        "failed to listen on {address}: another process listens there; stop it (`ss -ltnp` shows it) or choose another address"
    )]
    InUse {
        /// Which.
        address: SocketAddr,
        /// As the system has it.
        source: io::Error,
    },
    /// The system refuses the address.
    #[error("failed to listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate, its key or the clients' authority cannot be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Bound to its address, and not serving yet: clients wait in the system's queue.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    connections_max: usize,
    write_timeout: Duration,
}

impl Server {
    /// Loads the certificate, and takes the address.
    ///
    /// # Errors
    /// A file of TLS cannot be loaded, or the address cannot be listened on.
    pub fn bind(runtime: &Runtime, settings: ServerSettings) -> Result<Self, ServerError> {
        Self::bind_with(runtime, settings, CERTIFICATES_EVERY)
    }

    fn bind_with(
        runtime: &Runtime,
        mut settings: ServerSettings,
        certificates_every: Duration,
    ) -> Result<Self, ServerError> {
        let certificates = settings.tls.take().map(|tls| Certificates::load(tls, certificates_every)).transpose()?;
        let address = settings.listen;
        let (listener, address) = listen(runtime, address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::InUse { address, source },
            _ => ServerError::Listen { address, source },
        })?;
        let connections_max = settings.connections_max.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            listener,
            address,
            shared: Arc::new(Shared::new(&settings, certificates)),
            room: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            write_timeout: settings.write_timeout,
        })
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Each request has its [`crate::Peer`] among its extensions. When a client is known to be gone, the future of its request
    /// is dropped.
    pub fn serve<S, B>(self, runtime: &Runtime, service: S) -> Serving
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let (end, ending) = watch::channel(None);
        let (kept_until_ended, ended) = mpsc::channel();
        let (room, connections_max) = (self.room.clone(), self.connections_max);
        runtime.spawn(async move {
            self.accept(service, ending).await;
            drop(kept_until_ended);
        });
        Serving { end, ended, room, connections_max }
    }

    /// Returns when no connection is left.
    async fn accept<S, B>(self, service: S, mut ending: watch::Receiver<Option<Duration>>)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        let mut pause = PAUSE;
        loop {
            tokio::select! {
                biased;
                _ = ending.changed() => break,
                Some(ended) = connections.join_next() => self.look_at(ended),
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, address)) => {
                        pause = PAUSE;
                        if let Some((socket, place)) = self.admit(tcp, address) {
                            let (shared, service, ending) = (self.shared.clone(), service.clone(), ending.clone());
                            connections.spawn(async move {
                                connection::serve(shared, service, socket, address, ending).await;
                                drop(place);
                            });
                        }
                    }
                    Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection ended before it was accepted"),
                    Err(error) => {
                        self.wait_after(&error, pause, ending.clone()).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                },
            }
        }
        // Without a word when its owner has gone.
        let within = ending.borrow().unwrap_or_default();
        self.finish(connections, within).await;
    }

    /// A socket that is not returned is closed.
    fn admit(&self, tcp: TcpStream, address: SocketAddr) -> Option<(Socket, OwnedSemaphorePermit)> {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            debug!(%address, "refused a connection: no more may be open");
            if let Some(count) = self.shared.troubles.connections.count() {
                let most = self.connections_max;
                warn!(count, last = %address, "refused connections: {most} are open, and no more may be");
            }
            return None;
        };
        let socket = Socket::prepare(tcp, self.write_timeout);
        let socket = socket.inspect_err(|error| debug!(%address, %error, "a connection ended as it was accepted"));
        Some((socket.ok()?, place))
    }

    async fn wait_after(&self, error: &io::Error, pause: Duration, mut ending: watch::Receiver<Option<Duration>>) {
        debug!(%error, "failed to accept a connection");
        if let Some(count) = self.shared.troubles.accepts.count() {
            warn!(count, %error, "failed to accept connections: it is tried again");
        }
        let _ = timeout(pause, ending.wait_for(Option::is_some)).await;
    }

    async fn finish(self, mut connections: JoinSet<()>, within: Duration) {
        let Self { listener, shared, .. } = self;
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(within, all).await.is_err() && !connections.is_empty() {
            warn!(count = connections.len(), "cut connections that did not end within {within:?}");
            connections.shutdown().await;
        }
        drop(shared);
    }

    fn look_at(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic())
            && let Some(count) = self.shared.troubles.panics.count()
        {
            error!(count, "connections ended because what served them panicked");
        }
    }
}

/// A server that serves. When it is dropped, all of its connections are cut.
pub struct Serving {
    end: watch::Sender<Option<Duration>>,
    /// Disconnected when no connection is left.
    ended: mpsc::Receiver<Infallible>,
    room: Arc<Semaphore>,
    connections_max: usize,
}

impl Serving {
    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.connections_max - self.room.available_permits()
    }

    /// Accepts nobody any more, lets each connection finish the exchange that it is in, and closes idle ones at once; what is
    /// left after `within` is cut. Blocks until then: for a thread that is none of the runtime's.
    pub fn end(self, within: Duration) {
        self.end.send_replace(Some(within));
        // No runtime is needed for this, which may have ended before.
        let _ = self.ended.recv_timeout(within.saturating_add(FAREWELL));
    }
}

fn listen(runtime: &Runtime, address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    let _entered = runtime.handle().enter();
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

/// Each of these takes a connection out of the queue, so that the next can be asked for at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
