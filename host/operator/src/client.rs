//! Asks a running host through its socket. Invariant: a host that does not answer is distinguished from one that
//! does not run.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::protocol::{Refusal, Reply, Request};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("failed to reach the host at {}", path.display())]
    Silent { path: PathBuf, source: io::Error },
    #[error("timed out after {patience:?} waiting for the host at {}: it may still be carried out", path.display())]
    TimedOut { path: PathBuf, patience: Duration },
    #[error("the host at {} is of another version", path.display())]
    Foreign { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Refused(#[from] Refusal),
}

pub struct Client {
    path: PathBuf,
    patience: Duration,
    stream: UnixStream,
}

impl Client {
    /// None: no host serves there.
    pub fn connect(path: &Path, patience: Duration) -> Result<Option<Self>, ClientError> {
        let silent = |source| ClientError::Silent { path: path.to_owned(), source };
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
                _ => return Err(silent(error)),
            },
        };
        stream.set_read_timeout(Some(patience)).map_err(silent)?;
        stream.set_write_timeout(Some(patience)).map_err(silent)?;
        Ok(Some(Self { path: path.to_owned(), patience, stream }))
    }

    pub fn ask(&mut self, request: &Request) -> Result<serde_json::Value, ClientError> {
        let line = self.exchange(request).map_err(|source| self.unanswered(source))?;
        match serde_json::from_str(&line) {
            Ok(Reply::Ok(value)) => Ok(value),
            Ok(Reply::Refused(refusal)) => Err(refusal.into()),
            Err(source) => Err(ClientError::Foreign { path: self.path.clone(), source }),
        }
    }

    fn unanswered(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::TimedOut { path, patience: self.patience }
            }
            _ => ClientError::Silent { path, source },
        }
    }

    fn exchange(&mut self, request: &Request) -> io::Result<String> {
        let mut text = serde_json::to_vec(request).map_err(io::Error::other)?;
        text.push(b'\n');
        let sent = self.stream.write_all(&text);
        let mut line = String::new();
        let read = BufReader::new(&self.stream).read_line(&mut line);
        // A host that refuses a request before its end says why, and closes: then sending fails, and the answer counts.
        if line.ends_with('\n') {
            return Ok(line);
        }
        sent.and(read)?;
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"))
    }
}
