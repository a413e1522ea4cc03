//! One connection: request after request, each answered before the next one is read. Invariant: a request has a turn only
//! from its last byte to its answer; until then, and behind it, the connection may be closed for another one.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, oneshot},
    task,
    time::{self, Instant},
};
use tracing::debug;

use super::{
    connections::{ConnectionNo, Connections, Phase},
    desk::Desk,
    protocol::{Refusal, Reply, Request, Why},
};
use crate::settings::AdminSettings;

/// For the word that the time of a request is over.
const LAST_WORD: Duration = Duration::from_secs(1);

pub(super) struct Conversation {
    pub(super) number: ConnectionNo,
    pub(super) connections: Arc<Mutex<Connections>>,
    /// Requests answered at one time.
    pub(super) turns: Arc<Semaphore>,
    pub(super) desk: Arc<Desk>,
    pub(super) settings: Arc<AdminSettings>,
}

/// What was read of a request.
enum Received {
    Whole(Vec<u8>),
    TooLong,
    /// Other requests have all the bytes that there are.
    NoRoom,
    /// The client has no more.
    Closed,
}

impl Conversation {
    /// Until the client closes it, falls silent, or must make room for another.
    pub(super) async fn hold(self, stream: UnixStream, ended: oneshot::Receiver<Phase>) {
        let (from, mut to) = stream.into_split();
        let mut from = BufReader::new(from);
        let ended = tokio::select! {
            biased;
            ended = self.converse(&mut from, &mut to) => ended,
            phase = ended => {
                let text = "other connections needed the room, and this one had waited longest: try again";
                // Behind a part of an answer it would be read as the rest of that.
                if phase.is_ok_and(|phase| phase != Phase::Receiving) {
                    refuse_at_once(to.as_ref(), Why::Unavailable, text.to_owned());
                }
                Ok(())
            }
        };
        if let Err(error) = ended {
            debug!(%error, "an operator's connection ended");
        }
        self.connections.lock().leave(self.number);
    }

    async fn converse(&self, from: &mut BufReader<OwnedReadHalf>, to: &mut OwnedWriteHalf) -> io::Result<()> {
        loop {
            self.turn_to(Phase::Idle, 0);
            let wait = self.settings.idle_timeout;
            match time::timeout(wait, from.fill_buf()).await {
                Ok(Ok([])) => return Ok(()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    refuse_at_once(to.as_ref(), Why::TimedOut, format!("no request came within {wait:?}"));
                    return Ok(());
                }
            }
            let until = Instant::now() + self.settings.request_timeout;
            self.turn_to(Phase::Sending, 0);
            let received = time::timeout_at(until, self.receive(from)).await;
            let (reply, last) = match received {
                Ok(Ok(Received::Whole(line))) => (self.answer(line, until).await, false),
                Ok(Ok(Received::Closed)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Received::TooLong)) => (self.too_long(), true),
                Ok(Ok(Received::NoRoom)) => (self.no_room(), true),
                Err(_) => (self.too_slow(), true),
            };
            let mut text = serde_json::to_vec(&reply).map_err(io::Error::other)?;
            text.push(b'\n');
            self.turn_to(Phase::Receiving, text.len());
            time::timeout_at(until + LAST_WORD, to.write_all(&text)).await??;
            if last {
                return Ok(());
            }
        }
    }

    fn turn_to(&self, phase: Phase, bytes: usize) {
        self.connections.lock().turn_to(self.number, phase, bytes);
    }

    /// A line. What is longer than allowed is not read to its end.
    async fn receive(&self, from: &mut BufReader<OwnedReadHalf>) -> io::Result<Received> {
        let mut line = Vec::new();
        loop {
            let chunk = from.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(if line.is_empty() { Received::Closed } else { Received::Whole(line) });
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            if line.len() + taken > self.settings.request_bytes_max {
                return Ok(Received::TooLong);
            }
            if !self.connections.lock().hold(self.number, line.len() + taken) {
                return Ok(Received::NoRoom);
            }
            line.extend_from_slice(&chunk[..taken]);
            from.consume(taken);
            if end.is_some() {
                return Ok(Received::Whole(line));
            }
        }
    }

    /// A turn lasts as long as the desk is busy with it, also where nobody waits for the answer any more.
    async fn answer(&self, line: Vec<u8>, until: Instant) -> Reply {
        self.turn_to(Phase::Answering, line.len());
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(error) => return refused(Why::Invalid, format!("failed to read the request: {error}")),
        };
        let Ok(Ok(turn)) = time::timeout_at(until, self.turns.clone().acquire_owned()).await else {
            return self.no_turn();
        };
        let desk = self.desk.clone();
        let answered = task::spawn_blocking(move || {
            let reply = desk.reply(request);
            drop(turn);
            reply
        });
        match time::timeout_at(until, answered).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => refused(Why::Failed, format!("the request failed in the host: {error}")),
            Err(_) => self.unanswered(),
        }
    }

    fn too_long(&self) -> Reply {
        refused(Why::Invalid, format!("a request has at most {} bytes", self.settings.request_bytes_max))
    }

    fn no_room(&self) -> Reply {
        let most = self.settings.requests_bytes_max;
        refused(
            Why::Unavailable,
            format!("requests that wait for their answers have all of the {most} bytes: try again"),
        )
    }

    fn too_slow(&self) -> Reply {
        let wait = self.settings.request_timeout;
        refused(Why::TimedOut, format!("the request was not complete within {wait:?}: nothing was done"))
    }

    fn no_turn(&self) -> Reply {
        let (most, wait) = (self.settings.requests_at_once_max, self.settings.request_timeout);
        let text = format!("{most} other requests were being answered for {wait:?}: nothing was done, try again");
        refused(Why::Unavailable, text)
    }

    fn unanswered(&self) -> Reply {
        let wait = self.settings.request_timeout;
        let text = "it may still be carried out; check `sagahost status` and the host's log";
        refused(Why::TimedOut, format!("timed out after {wait:?}: {text}"))
    }
}

/// Without waiting: a client that has read nothing has room for it.
pub(super) fn refuse_at_once(to: &UnixStream, why: Why, text: String) {
    let said = serde_json::to_vec(&refused(why, text)).map(|mut line| {
        line.push(b'\n');
        to.try_write(&line)
    });
    if let Ok(Err(error)) = said {
        debug!(%error, "failed to tell an operator's connection why it ends");
    }
}

fn refused(why: Why, text: String) -> Reply {
    Reply::Refused(Refusal::new(why, text))
}
