//! Asks services. Invariant: nothing is sent twice, no redirect is followed, no proxy is used that nobody named, and an answer
//! is read no further than its bounds.

use std::{error::Error, future::poll_fn, net::IpAddr, sync::Arc, time::Duration};

use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use thiserror::Error;
use tower_service::Service as _;
use tracing::warn;

use crate::resolver::{Forbidden, Resolver};

/// A service may close a connection that idles at any time, and then nobody knows whether what is sent just now arrived.
const IDLE: Duration = Duration::from_secs(1);
const IDLE_CONNECTIONS_MAX: usize = 64;
const UNREACHABLE: &str = "unreachable";

#[derive(Debug, Error)]
#[error("failed to prepare TLS")]
pub struct ClientError {
    source: rustls::Error,
}

/// Of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From finding the service to the last byte of its answer.
    pub timeout: Duration,
    /// To find it and to connect, of that.
    pub connect_timeout: Duration,
    /// Of its answer.
    pub body_bytes_max: usize,
}

/// Why no answer came, and whether the request can have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No byte of the request was handed to a connection.
    Unsent { code: &'static str, what: String },
    /// It may have arrived.
    Sent { code: &'static str, what: String },
}

/// With connections that are kept for a moment.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    connector: Connector,
    bounds: Bounds,
}

type Connector = HttpsConnector<HttpConnector<Resolver>>;

impl Client {
    /// Trusts whom the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` say otherwise).
    ///
    /// # Errors
    /// TLS cannot be prepared.
    pub fn new(bounds: Bounds) -> Result<Self, ClientError> {
        Self::with(bounds, Resolver::new())
    }

    /// One that asks only addresses which are `allowed`. (A URL that has an address for a host is looked at by nobody here.)
    ///
    /// # Errors
    /// TLS cannot be prepared.
    pub fn guarded(
        bounds: Bounds,
        allowed: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Result<Self, ClientError> {
        Self::with(bounds, Resolver::guarded(Arc::new(allowed)))
    }

    fn with(bounds: Bounds, resolver: Resolver) -> Result<Self, ClientError> {
        let mut trusted = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            warn!(%error, "failed to read some of the certificates that this system trusts");
        }
        trusted.add_parsable_certificates(found.certs);
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| ClientError { source })?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(bounds.connect_timeout));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let connector = connector.wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .http1_max_headers(128)
            .http1_max_buf_size(64 << 10)
            .build(connector.clone());
        Ok(Self { http, connector, bounds })
    }

    /// Can it be connected to? Nothing is sent.
    ///
    /// # Errors
    /// It cannot, within its time.
    pub async fn reach(&self, url: &Uri) -> Result<(), String> {
        let mut connector = self.connector.clone();
        let connected = async {
            poll_fn(|context| connector.poll_ready(context)).await?;
            connector.call(url.clone()).await
        };
        match tokio::time::timeout(self.bounds.connect_timeout, connected).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(with_causes(&*error)),
            Err(_) => Err(format!("no connection within {:?}", self.bounds.connect_timeout)),
        }
    }

    /// # Errors
    /// No whole answer came, within the bounds.
    pub async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Failed> {
        self.ask_within(request, self.bounds.timeout).await
    }

    /// As `ask`, with less time.
    ///
    /// # Errors
    /// No whole answer came, within the bounds.
    pub async fn ask_within(&self, mut request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, Failed> {
        let connection = capture_connection(&mut request);
        let Bounds { connect_timeout, body_bytes_max, .. } = self.bounds;
        let exchange = async {
            let response = self.http.request(request.map(Full::new)).await;
            let response = response.map_err(|error| lost(&error, connection.connection_metadata().is_none()))?;
            let (head, body) = response.into_parts();
            let body =
                Limited::new(body, body_bytes_max).collect().await.map_err(|error| cut(&*error, body_bytes_max))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let connects = async {
            tokio::time::sleep(connect_timeout).await;
            if connection.connection_metadata().is_some() {
                std::future::pending::<()>().await;
            }
        };
        let unsent = || Failed::Unsent { code: UNREACHABLE, what: format!("no connection within {connect_timeout:?}") };
        tokio::select! {
            biased;
            answer = tokio::time::timeout(timeout, exchange) => answer.unwrap_or_else(|_| {
                let what = format!("no whole answer within {timeout:?}");
                Err(if connection.connection_metadata().is_some() { Failed::Sent { code: "timeout", what } } else { unsent() })
            }),
            () = connects => Err(unsent()),
        }
    }
}

/// `unconnected`: it never had a connection.
fn lost(error: &legacy::Error, unconnected: bool) -> Failed {
    let what = with_causes(error);
    if !error.is_connect() && !unconnected {
        return Failed::Sent { code: "no-answer", what };
    }
    let code = if Forbidden::is_behind(error) { "forbidden-address" } else { UNREACHABLE };
    Failed::Unsent { code, what }
}

fn cut(error: &(dyn Error + 'static), bytes_max: usize) -> Failed {
    if error.is::<LengthLimitError>() {
        return Failed::Sent { code: "answer-too-long", what: format!("its answer has more than {bytes_max} bytes") };
    }
    Failed::Sent { code: "answer-cut", what: format!("its answer ended in the middle: {}", with_causes(error)) }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text += ": ";
        text += &next.to_string();
        cause = next.source();
    }
    text
}

/// For people: what is behind the `?` may be a secret.
pub fn without_query(url: &Uri) -> String {
    let text = url.to_string();
    match text.split_once('?') {
        Some((shown, _)) => format!("{shown}?(hidden)"),
        None => text,
    }
}
