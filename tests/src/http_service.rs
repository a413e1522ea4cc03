//! A service at a URL, byte by byte: what it is sent is kept, and what it answers is what the test says, also what no library
//! would send. Invariant: each request is answered by one thread, so that one that stalls holds up nobody.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// What it does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// The connection ends without a word.
    HangUp,
    /// Of an answer, so many bytes; then the connection ends.
    Cut(Box<Reply>, usize),
    After(Duration, Box<Reply>),
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::status(status).with("content-type", "application/json").body(body.to_string().into_bytes())
    }

    /// One event, whole.
    pub fn event(status: u16, kind: &str, data: &serde_json::Value) -> Self {
        let event =
            serde_json::json!({ "specversion": "1.0", "type": kind, "source": "/tests", "id": "1", "data": data });
        Self::json(status, &event).with("content-type", "application/cloudevents+json")
    }

    pub fn problem(status: u16, code: &str, detail: &str) -> Self {
        let problem = serde_json::json!({ "type": format!("https://example.com/{code}"), "detail": detail });
        Self::json(status, &problem).with("content-type", "application/problem+json")
    }

    pub fn with(self, name: &str, value: &str) -> Self {
        let Self::Answer { status, mut headers, body } = self else { return self };
        headers.retain(|(other, _)| other != name);
        headers.push((name.to_owned(), value.to_owned()));
        Self::Answer { status, headers, body }
    }

    fn body(self, body: Vec<u8>) -> Self {
        let Self::Answer { status, headers, .. } = self else { return self };
        Self::Answer { status, headers, body }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self::Answer { status, headers, body } = self else { return Vec::new() };
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("HTTP/1.1 {status} Tested\r\n{headers}content-length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body.clone()].concat()
    }
}

type Answering = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

pub struct HttpService {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    open: Arc<Mutex<bool>>,
    accepts: Option<JoinHandle<()>>,
}

impl HttpService {
    /// One request after the other is answered.
    pub fn start(answer: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0", answer)
    }

    /// All of them at once.
    pub fn start_each(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_each_at("127.0.0.1:0", answer)
    }

    pub fn start_each_at(address: &str, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::bound(address, Arc::new(answer))
    }

    /// Where another one was.
    pub fn start_at(address: &str, answer: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        let answer = Mutex::new(answer);
        Self::bound(address, Arc::new(move |request: &Received| (*answer.lock())(request)))
    }

    fn bound(address: &str, answering: Answering) -> Self {
        let listener = TcpListener::bind(address).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (received, open): (Arc<Mutex<Vec<Received>>>, _) = (Arc::default(), Arc::new(Mutex::new(true)));
        let (kept, is_open) = (received.clone(), open.clone());
        let accepts = thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if !*is_open.lock() {
                    return;
                }
                let (kept, answering) = (kept.clone(), answering.clone());
                thread::spawn(move || serve(&connection, &kept, &answering));
            }
        });
        Self { address, received, open, accepts: Some(accepts) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

/// The port is free for another one.
impl Drop for HttpService {
    fn drop(&mut self) {
        *self.open.lock() = false;
        // It waits for a connection, and sees then that it is to end.
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.accepts.take().map(JoinHandle::join);
        }
    }
}

fn serve(connection: &TcpStream, kept: &Mutex<Vec<Received>>, answering: &Answering) {
    let mut reader = BufReader::new(connection);
    while let Some(request) = read(&mut reader) {
        kept.lock().push(request.clone());
        let reply = answering(&request);
        if !write(connection, &reply) {
            return;
        }
    }
}

fn write(mut connection: &TcpStream, reply: &Reply) -> bool {
    match reply {
        Reply::Answer { .. } => connection.write_all(&reply.bytes()).is_ok(),
        Reply::HangUp => false,
        Reply::Cut(whole, bytes) => {
            let whole = whole.bytes();
            let _ = connection.write_all(&whole[..*bytes.min(&whole.len())]);
            false
        }
        Reply::After(wait, reply) => {
            thread::sleep(*wait);
            write(connection, reply)
        }
    }
}

/// None: the other side has ended.
fn read(reader: &mut BufReader<&TcpStream>) -> Option<Received> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        Some(line.trim_end().to_owned())
    };
    let path = line()?.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let text = line()?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(Some(0), |text| text.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Received { path, headers, body })
}
