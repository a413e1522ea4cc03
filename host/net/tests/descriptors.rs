//! A process of its own, because what it takes is taken from all of it.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    convert::Infallible,
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sagahost_net::{Runtime, Server, ServerSettings};
use tower_service::Service;

#[derive(Clone)]
struct Hello;

impl Service<Request<Incoming>> for Hello {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        Box::pin(async { Ok(Response::new(Full::new(Bytes::from_static(b"hello")))) })
    }
}

/// Of this process, in ticks of 10 ms.
fn processor_time() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_server_without_files_waits_for_them() {
    let limit = Rlimit { current: Some(128), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let runtime = Runtime::start().unwrap();
    let settings = ServerSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        connections_max: 64,
        header_timeout: Duration::from_secs(20),
        header_bytes_max: 16 << 10,
        write_timeout: Duration::from_secs(20),
    };
    let server = Server::bind(&runtime, settings).unwrap();
    let address = server.address();
    let serving = server.serve(&runtime, Hello);
    let before = processor_time();
    let mut taken: Vec<File> = Vec::new();
    let full = loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(full.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
    // One for the client; the system connects it, and the server cannot accept it.
    taken.pop();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!((error.kind(), serving.open()), (ErrorKind::WouldBlock, 0));
    drop(taken);
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("hello"), "{text}");
    let ticks = processor_time() - before;
    assert!(ticks < 50, "it took {ticks} ticks to wait for a second");
    serving.end(Duration::from_secs(20));
}
