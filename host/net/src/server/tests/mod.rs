//! A server on a real socket, and clients that send bytes. Invariant: what is waited for is the thing itself.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod connections;
mod ending;
mod framing;
mod tls;

use std::{
    future::Future,
    io::{Read, Write as _},
    net::TcpStream,
    pin::Pin,
    sync::mpsc::{Receiver, Sender, channel},
    task::{Context, Poll},
    thread,
    time::Instant,
};

use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;

use super::*;
use crate::Peer;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// A request came to the service: its path, and the subject of its peer.
    Request(String, Option<String>),
    /// Its future is gone, answered or not.
    Over,
}

/// Answers with the length of the body; `/early` before it is read, `/wait` when it may, `/large` with more than buffers hold.
#[derive(Clone)]
struct Probe {
    seen: Sender<Seen>,
    gate: Arc<Semaphore>,
}

struct OnDrop(Sender<Seen>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Seen::Over);
    }
}

impl Service<Request<Incoming>> for Probe {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Self { seen, gate } = self.clone();
        let path = request.uri().path().to_owned();
        let peer = request.extensions().get::<Peer>().expect("each request has one");
        let subject = peer.subject.as_ref().map(ToString::to_string);
        seen.send(Seen::Request(path.clone(), subject)).expect("the test listens");
        Box::pin(async move {
            let _over = OnDrop(seen);
            let (status, body) = match &*path {
                "/early" => (StatusCode::PAYLOAD_TOO_LARGE, Bytes::new()),
                "/large" => (StatusCode::OK, Bytes::from(vec![b'x'; 64 << 20])),
                "/panic" => panic!("as asked for"),
                _ => {
                    if path == "/wait" {
                        gate.acquire().await.expect("it is open").forget();
                    }
                    let body = request.into_body().collect().await;
                    match body {
                        Ok(body) => (StatusCode::OK, format!("{} bytes", body.to_bytes().len()).into()),
                        Err(_) => (StatusCode::BAD_REQUEST, Bytes::new()),
                    }
                }
            };
            let mut response = Response::new(Full::new(body));
            *response.status_mut() = status;
            Ok(response)
        })
    }
}

struct Host {
    serving: Serving,
    address: SocketAddr,
    seen: Receiver<Seen>,
    gate: Arc<Semaphore>,
    runtime: Runtime,
}

fn settings() -> ServerSettings {
    ServerSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        connections_max: 64,
        header_timeout: LONG,
        header_bytes_max: 16 << 10,
        write_timeout: LONG,
    }
}

fn start(settings: ServerSettings) -> Host {
    let runtime = Runtime::start().expect("threads start");
    let server = Server::bind_with(&runtime, settings, Duration::ZERO).expect("it can be bound");
    let address = server.address();
    let (sender, seen) = channel();
    let gate = Arc::new(Semaphore::new(0));
    let serving = server.serve(&runtime, Probe { seen: sender, gate: gate.clone() });
    Host { serving, address, seen, gate, runtime }
}

impl Host {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("it can be set");
        stream
    }

    fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes.as_bytes()).expect("it can be sent");
        stream
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(LONG).expect("something is seen")
    }

    /// Paths that were served so far.
    fn served(&self) -> Vec<String> {
        let paths = self.seen.try_iter().filter_map(|seen| match seen {
            Seen::Request(path, _) => Some(path),
            Seen::Over => None,
        });
        paths.collect()
    }

    fn wait_for_open(&self, open: usize) {
        let start = Instant::now();
        while self.serving.open() != open {
            assert!(start.elapsed() < LONG, "{} are open, not {open}", self.serving.open());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn request(path: &str) -> Seen {
    Seen::Request(path.to_owned(), None)
}

/// All until the server closes.
fn rest(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8(text).expect("it is text")
}

/// One answer of known length: its status, and its body.
fn answer(stream: &mut impl Read) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {head:?}"));
        head.push(byte[0].into());
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().expect("it is a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("it has a body");
    (status, String::from_utf8(body).expect("it is text"))
}

/// Of all answers in a text.
fn statuses(text: &str) -> Vec<u16> {
    let lines = text.split("HTTP/1.").skip(1);
    lines.map(|line| line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status")).collect()
}
