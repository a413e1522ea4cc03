//! One connection, from its acceptance to its end. Invariant: each wait for its peer has a bound; nothing that the peer sends or
//! fails to send ends more than this connection.

use std::{
    convert::Infallible,
    error::Error,
    future::{Future as _, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use http_body_util::{Either, Empty};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_service::Service;
use tracing::{debug, warn};

use super::{ServerSettings, framing, occurrences::Troubles, socket::Socket};
use crate::{
    peer::{self, Peer},
    tls::Certificates,
};

const HEADERS_MAX: usize = 100;
/// A time that is added to a clock must not overflow it.
const HEADER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Of one direction of one connection; no smaller than the head of a request.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// What all connections of a server share.
pub(super) struct Shared {
    http: http1::Builder,
    header_timeout: Duration,
    certificates: Option<Certificates>,
    pub troubles: Troubles,
}

impl Shared {
    pub fn new(settings: &ServerSettings, certificates: Option<Certificates>) -> Self {
        let header_timeout = settings.header_timeout.min(HEADER_TIMEOUT_MAX);
        let mut http = http1::Builder::new();
        // A client that has ended its own direction may wait for its answer; see `Socket::failed` for those that are gone.
        http.half_close(true)
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_headers(HEADERS_MAX)
            .max_header_size(settings.header_bytes_max)
            .max_buf_size(settings.header_bytes_max.max(BUFFER_BYTES_MAX));
        Self { http, header_timeout, certificates, troubles: Troubles::default() }
    }
}

/// Returns when the connection is at its end. `ending`: no further exchange, when it changes.
pub(super) async fn serve<S, B>(
    shared: Arc<Shared>,
    service: S,
    socket: Socket,
    address: SocketAddr,
    mut ending: watch::Receiver<Option<Duration>>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let Some(certificates) = &shared.certificates else {
        let peer = Peer { address, subject: None };
        return exchanges(&shared, service, socket.clone(), &socket, peer, ending).await;
    };
    let shakes = Box::pin(shake_hands(&shared, certificates, socket.clone()));
    let stream = tokio::select! {
        shaken = shakes => shaken,
        _ = ending.changed() => return,
    };
    let accepted = stream.and_then(|stream| {
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let subject = shown.map(peer::subject).transpose().map_err(io::Error::other)?.flatten();
        Ok((stream, Peer { address, subject }))
    });
    match accepted {
        // In a place of its own, which connections without TLS do not have.
        Ok((stream, peer)) => Box::pin(exchanges(&shared, service, stream, &socket, peer, ending)).await,
        Err(error) => {
            debug!(%address, %error, "no TLS with a client");
            // Who only looks whether a port is open leaves without a word.
            if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
                && let Some(count) = shared.troubles.handshakes.count()
            {
                warn!(count, last = %address, %error, "failed to set up TLS with clients");
            }
        }
    }
}

async fn shake_hands(shared: &Shared, certificates: &Certificates, socket: Socket) -> io::Result<TlsStream<Socket>> {
    let handshake = TlsAcceptor::from(certificates.current()).accept(socket);
    timeout(shared.header_timeout, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// `io` is `socket`, or TLS over it.
async fn exchanges<I, S, B>(
    shared: &Arc<Shared>,
    service: S,
    io: I,
    socket: &Socket,
    peer: Peer,
    mut ending: watch::Receiver<Option<Duration>>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let address = peer.address;
    let body_expected = Arc::new(AtomicBool::new(false));
    let service = guarded(shared.clone(), service, peer, body_expected.clone());
    let mut connection = shared.http.serve_connection(TokioIo::new(io), service);
    let mut failed = pin!(socket.failed());
    let ended = tokio::select! {
        // A request that has arrived is served before the end is looked at.
        biased;
        ended = &mut connection => Some(ended),
        () = failed.as_mut() => return,
        _ = ending.changed() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            let idle = poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context).is_ready())).await;
            if idle {
                // Nothing that it would lose is on the way.
                return;
            }
            tokio::select! {
                ended = &mut connection => ended,
                () = failed => return,
            }
        }
    };
    let mut unread = body_expected.load(Ordering::Relaxed);
    if let Err(error) = ended {
        debug!(%address, %error, "a connection ended");
        if error.is_parse() {
            unread = true;
            refuse(shared, address, &error.to_string());
        }
        // At the end of its time hyper lets a connection go without a word, and TLS has one. Whoever takes nothing gets none.
        let mut io = connection.into_parts().io.into_inner();
        let _ = timeout(shared.header_timeout, io.shutdown()).await;
    }
    if unread {
        socket.drain().await;
    }
}

/// The service behind what this server itself refuses. `body_expected`: whether a part of the last request may not be read.
fn guarded<S, B>(
    shared: Arc<Shared>,
    service: S,
    peer: Peer,
    body_expected: Arc<AtomicBool>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Either<Empty<B::Data>, B>>,
    Error = Infallible,
    Future: Send,
> + Unpin
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    // Boxed, so that the connection can be moved when it is over.
    let service = Box::new(TowerToHyperService::new(service));
    service_fn(move |mut request: Request<Incoming>| {
        body_expected.store(!request.body().is_end_stream(), Ordering::Relaxed);
        let fault = framing::fault(&request);
        if let Some(fault) = fault {
            refuse(&shared, peer.address, fault);
        }
        request.extensions_mut().insert(peer.clone());
        let answer = fault.is_none().then(|| service.call(request));
        async move {
            match answer {
                Some(answer) => Ok(answer.await?.map(Either::Right)),
                None => Ok(bad_request()),
            }
        }
    })
}

fn refuse(shared: &Shared, address: SocketAddr, why: &str) {
    debug!(%address, why, "refused a request");
    if let Some(count) = shared.troubles.requests.count() {
        warn!(count, last = %address, why, "refused requests that are not valid HTTP");
    }
}

/// Nothing behind it on the connection is believed.
fn bad_request<L: Default, R>() -> Response<Either<L, R>> {
    let mut response = Response::new(Either::Left(L::default()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
