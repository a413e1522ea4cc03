//! Serves operators' requests on the socket, in a thread of its own. Invariant: no client can hold up another or the
//! host: requests are bounded in size, in time and in number.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, oneshot},
    task, time,
};
use tracing::{debug, warn};

use super::{
    desk::Desk,
    protocol::{Refusal, Reply, Request, Why},
    socket::Place,
};
use crate::settings::AdminSettings;

/// Why the socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("failed to create the directory of the admin socket")]
    Place { source: io::Error },
    #[error("failed to start the admin socket's runtime")]
    Runtime { source: io::Error },
    #[error("failed to listen on {}: another host serves there; give this one an admin.socket of its own", path.display())]
    Taken { path: PathBuf },
    #[error("failed to listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("failed to start thread admin")]
    Thread { source: io::Error },
}

/// A served socket; it is removed when this is dropped.
pub struct Server {
    place: Place,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(desk: Desk) -> Result<Self, ServerError> {
        let place = Place::make(&desk.settings).map_err(|source| ServerError::Place { source })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(desk.settings.admin.requests_at_once_max)
            .build()
            .map_err(|source| ServerError::Runtime { source })?;
        let listener = {
            let _entered = runtime.enter();
            listen(&place.path)?
        };
        let (stop, stopped) = oneshot::channel();
        let spawned = thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, desk) => {}
                    _ = stopped => {}
                }
            });
            // A request that is still answered must not hold up the host's end.
            runtime.shutdown_timeout(Duration::from_millis(500));
        });
        let thread = spawned.map_err(|source| ServerError::Thread { source })?;
        Ok(Self { place, stop: Some(stop), thread: Some(thread) })
    }

    pub fn path(&self) -> &Path {
        &self.place.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.place.remove();
        if let Some(stop) = self.stop.take() {
            // Fails only when the thread has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the admin thread panicked");
        }
    }
}

/// Whoever holds the journal's lock may remove a socket that nobody serves.
fn listen(path: &Path) -> Result<UnixListener, ServerError> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServerError::Taken { path: path.to_owned() });
    }
    let bound = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bound().map_err(|source| ServerError::Listen { path: path.to_owned(), source })
}

async fn serve(listener: UnixListener, desk: Desk) {
    let settings = desk.settings.admin.clone();
    let desk = Arc::new(desk);
    let at_once = Arc::new(Semaphore::new(settings.requests_at_once_max));
    let owner = listener
        .local_addr()
        .ok()
        .and_then(|address| address.as_pathname().and_then(|path| fs::metadata(path).ok()))
        .map(|metadata| metadata.uid());
    loop {
        let Ok(turn) = at_once.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "failed to accept an operator's connection");
                time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !allowed(&stream, owner) {
            warn!("another user's connection to the admin socket was refused");
            continue;
        }
        let (desk, settings) = (desk.clone(), settings.clone());
        task::spawn(async move {
            if let Err(error) = converse(stream, desk, &settings).await {
                debug!(%error, "an operator's connection ended");
            }
            drop(turn);
        });
    }
}

/// The socket's mode says it too, but only since a moment after it was made.
fn allowed(stream: &UnixStream, owner: Option<u32>) -> bool {
    let Ok(peer) = stream.peer_cred() else { return false };
    peer.uid() == 0 || owner.is_none_or(|owner| peer.uid() == owner)
}

async fn converse(stream: UnixStream, desk: Arc<Desk>, settings: &AdminSettings) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    loop {
        let wait = settings.request_timeout;
        let Some(line) = time::timeout(wait, line(&mut from, settings.request_bytes_max)).await?? else {
            return Ok(());
        };
        let too_long = line.len() > settings.request_bytes_max;
        let reply = if too_long {
            refused(Why::Invalid, format!("a request has at most {} bytes", settings.request_bytes_max))
        } else {
            time::timeout(wait, answer(desk.clone(), line))
                .await
                .unwrap_or_else(|_| refused(Why::TimedOut, timed_out(wait)))
        };
        let mut text = serde_json::to_vec(&reply).map_err(io::Error::other)?;
        text.push(b'\n');
        time::timeout(wait, to.write_all(&text)).await??;
        if too_long {
            return Ok(());
        }
    }
}

/// None: the client has no more. A longer one than allowed is cut off behind that.
async fn line(from: &mut BufReader<tokio::net::unix::OwnedReadHalf>, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(bytes_max as u64 + 1).read_until(b'\n', &mut line).await?;
    Ok((!line.is_empty()).then_some(line))
}

async fn answer(desk: Arc<Desk>, line: Vec<u8>) -> Reply {
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => return refused(Why::Invalid, format!("failed to read the request: {error}")),
    };
    let answered = task::spawn_blocking(move || desk.reply(request)).await;
    answered.unwrap_or_else(|error| refused(Why::Failed, format!("the request failed in the host: {error}")))
}

fn timed_out(wait: Duration) -> String {
    format!("timed out after {wait:?}: it may still be carried out; check `sagahost status` and the host's log")
}

fn refused(why: Why, text: String) -> Reply {
    Reply::Refused(Refusal::new(why, text))
}
