//! Serves operators' requests on the socket, in a thread of its own. Invariant: no client can hold up another or the
//! host: connections and requests are bounded in number, requests in size and in time; who sends nothing has no turn.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, oneshot},
    task, time,
};
use tracing::warn;

use super::{
    connections::Connections,
    conversation::{Conversation, refuse_at_once},
    desk::Desk,
    protocol::Why,
    socket::Place,
};

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
    let settings = Arc::new(desk.settings.admin.clone());
    let connections = Arc::new(Mutex::new(Connections::new(settings.connections_max, settings.requests_bytes_max)));
    let desk = Arc::new(desk);
    let turns = Arc::new(Semaphore::new(settings.requests_at_once_max));
    let owner = listener
        .local_addr()
        .ok()
        .and_then(|address| address.as_pathname().and_then(|path| fs::metadata(path).ok()))
        .map(|metadata| metadata.uid());
    loop {
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
        let entered = connections.lock().enter();
        match entered {
            Some((number, ended)) => {
                let (desk, settings) = (desk.clone(), settings.clone());
                let (turns, connections) = (turns.clone(), connections.clone());
                let conversation = Conversation { number, connections, turns, desk, settings };
                task::spawn(conversation.hold(stream, ended));
            }
            None => {
                let most = settings.connections_max;
                let text = format!("{most} requests wait for their answers, as many as the host takes: try again");
                refuse_at_once(&stream, Why::Unavailable, text);
            }
        }
        // What this one has sent is read before another takes its place.
        task::yield_now().await;
    }
}

/// The socket's mode says it too, but only since a moment after it was made.
fn allowed(stream: &UnixStream, owner: Option<u32>) -> bool {
    let Ok(peer) = stream.peer_cred() else { return false };
    peer.uid() == 0 || owner.is_none_or(|owner| peer.uid() == owner)
}
