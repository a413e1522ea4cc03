//! A mock host in another process: the installed `sagahost mock --stdio`. Invariant: no process outlives its test, and
//! a host that cannot be started says what to do.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::protocol::{Done, LINE_BYTES_MAX, PROTOCOL, Reply, Request};

const BINARY: &str = "SAGAHOST";

pub(crate) struct Pipe {
    child: Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

/// What is to be started where a test names nothing.
pub(crate) fn installed() -> OsString {
    env::var_os(BINARY).unwrap_or_else(|| OsString::from("sagahost"))
}

impl Pipe {
    pub(crate) fn start(binary: &OsStr, files: &[PathBuf]) -> Result<Self, String> {
        let spawned = Command::new(binary)
            .args(["mock", "--stdio"])
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|error| {
            format!(
                "failed to start {}: {error}\nA test of a compiled plugin needs the installed host: put `sagahost` into \
                 PATH, or set {BINARY} to its path. MockHost::native needs neither.",
                binary.to_string_lossy()
            )
        })?;
        let requests = child.stdin.take();
        let replies = BufReader::new(child.stdout.take().ok_or("the host has no output")?);
        let mut pipe = Self { child, requests, replies };
        match pipe.ask(&Request::Hello { protocol: PROTOCOL }) {
            Reply::Ok(done) if matches!(*done, Done::Hello(_)) => Ok(pipe),
            Reply::Ok(other) => Err(format!("{} answered something else: {other:?}", binary.to_string_lossy())),
            Reply::Error(why) => Err(why),
        }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        self.exchange(request).unwrap_or_else(Reply::Error)
    }

    fn exchange(&mut self, request: &Request) -> Result<Reply, String> {
        let mut line = serde_json::to_vec(request).map_err(|error| format!("failed to write a request: {error}"))?;
        line.push(b'\n');
        let requests = self.requests.as_mut().ok_or("the mock host has already ended")?;
        let sent = requests.write_all(&line).and_then(|()| requests.flush());
        sent.map_err(|error| format!("the mock host ended: {error}"))?;
        let mut line = Vec::new();
        let max = LINE_BYTES_MAX as u64;
        let read = self.replies.by_ref().take(max).read_until(b'\n', &mut line);
        match read {
            Ok(0) => Err("the mock host ended without an answer".to_owned()),
            Ok(_) => serde_json::from_slice(&line).map_err(|error| {
                format!("the mock host answered what this testkit cannot read ({error}); are both of one version?")
            }),
            Err(error) => Err(format!("failed to read the answer of the mock host: {error}")),
        }
    }
}

impl Drop for Pipe {
    /// Its input ends, so it ends; one that does not is killed.
    fn drop(&mut self) {
        drop(self.requests.take());
        let mut rest = Vec::new();
        let ended = self.replies.by_ref().take(1024).read_to_end(&mut rest);
        if ended.is_err() || !rest.is_empty() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
