//! A client of HTTP/1.1, byte by byte: what it sends is what the test says, also what no library would. Invariant: each answer is
//! read to its end, or the connection's.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use crate::shop::PATIENCE;

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status, `Sagahost-Outcome`, and the code of a problem: `409 compensated LIMIT_EXCEEDED`.
    pub fn said(&self) -> String {
        let code = if self.header("content-type") == "application/problem+json" {
            self.json()["code"].as_str().unwrap_or_default().to_owned()
        } else {
            String::new()
        };
        let outcome = self.header("sagahost-outcome");
        format!("{} {outcome} {code}", self.status).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// A request that is being made.
#[derive(Clone, Debug)]
pub struct Asked {
    pub address: SocketAddr,
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        let line = format!("{method} {path} HTTP/1.1");
        Self { address, line, headers: vec![("host".to_owned(), address.to_string())], body: Vec::new() }
    }

    /// To another server.
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self.with("host", &address.to_string()) }
    }

    /// Another value for a header that it has.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn json(self, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), ..self.with("content-type", "application/json") }
    }

    pub fn body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        if !self.body.is_empty() {
            bytes.extend(format!("content-length: {}\r\n", self.body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// On a connection of its own.
    #[track_caller]
    pub fn send(&self) -> Answer {
        let mut connection = Connection::to(self.address);
        connection.write(&self.bytes());
        connection.answer().unwrap_or_else(|| panic!("{} was not answered", self.line))
    }

    /// None: the connection cannot be made, or ends without an answer.
    pub fn try_send(&self) -> Option<Answer> {
        let stream = TcpStream::connect(self.address).ok()?;
        let mut connection = Connection::of(stream);
        connection.0.get_mut().write_all(&self.bytes()).ok()?;
        connection.answer()
    }

    /// Of its bytes only so many; then the connection is the caller's.
    pub fn send_part(&self, bytes: usize) -> Connection {
        let mut connection = Connection::to(self.address);
        let all = self.bytes();
        connection.write(&all[..bytes.min(all.len())]);
        connection
    }

    /// The whole of it; the answer is the caller's to read.
    pub fn begin(&self) -> Connection {
        self.send_part(usize::MAX)
    }
}

pub struct Connection(BufReader<TcpStream>);

impl Connection {
    #[track_caller]
    pub fn to(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("it can have a time-out");
        Self(BufReader::new(stream))
    }

    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("the connection is open");
    }

    #[track_caller]
    pub fn ask(&mut self, asked: &Asked) -> Answer {
        self.write(&asked.bytes());
        self.answer().expect("it is answered")
    }

    /// A line, without its end. None: the connection has ended.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
        }
    }

    /// Status and headers.
    pub fn head(&mut self) -> Option<(u16, BTreeMap<String, String>)> {
        let line = self.line()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { return Some((status, headers)) };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }

    pub fn answer(&mut self) -> Option<Answer> {
        let (status, headers) = self.head()?;
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let mut body = Vec::new();
        match length {
            Some(length) => {
                body = vec![0; length];
                self.0.read_exact(&mut body).ok()?;
            }
            None if headers.contains_key("transfer-encoding") => {
                while let Some(chunk) = self.chunk() {
                    body.extend(chunk);
                }
            }
            None if matches!(status, 204 | 304) => {}
            None => drop(self.0.read_to_end(&mut body)),
        }
        Some(Answer { status, headers, body: String::from_utf8(body).ok()? })
    }

    /// Of a chunked body. None: it has ended.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut chunk = vec![0; size];
        self.0.read_exact(&mut chunk).ok()?;
        self.line()?;
        (size > 0).then_some(chunk)
    }
}
