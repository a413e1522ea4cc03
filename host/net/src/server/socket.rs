//! A TCP connection of the server. Invariant: a peer that is known to be gone, or acknowledges nothing of what it is sent, does
//! not keep it; what was answered reaches a peer that still sends.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::timeout,
};

/// When nothing is sent for so long, or for half of the write time-out, the peer is asked whether it is there: a host without power
/// says nothing when it goes. One whose process has closed the connection says what one does that only ended its own direction;
/// its system denies it when it has forgotten the connection, after a minute on Linux.
const PROBE_AFTER_MAX: Duration = Duration::from_secs(15);
/// How often it is asked within the other half. A question or its answer can be lost, above all where thousands of connections
/// ask at once, and the system gives up at the first one without an answer that it finds at the time-out (tcp(7),
/// `TCP_USER_TIMEOUT`).
const PROBES: u32 = 5;
/// The system counts in these.
const SECOND: Duration = Duration::from_secs(1);
/// How long what a peer still sends is read and dropped behind the last answer.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

/// Shared by what reads and writes, and what watches it.
#[derive(Clone)]
pub(super) struct Socket(Arc<TcpStream>);

impl Socket {
    pub fn prepare(tcp: TcpStream, write_timeout: Duration) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        // Zero would be the system's own, which is a quarter of an hour.
        let millis = write_timeout.as_millis().clamp(1, i32::MAX as u128);
        sockopt::set_tcp_user_timeout(&tcp, u32::try_from(millis).expect("it was clamped"))?;
        sockopt::set_socket_keepalive(&tcp, true)?;
        let half = (write_timeout / 2).clamp(SECOND, PROBE_AFTER_MAX);
        sockopt::set_tcp_keepidle(&tcp, half)?;
        sockopt::set_tcp_keepintvl(&tcp, (half / PROBES).max(SECOND))?;
        Ok(Self(Arc::new(tcp)))
    }

    /// Returns when the connection was reset, or timed out. A peer that only ended its own direction may wait for its answer,
    /// and is not gone.
    pub async fn failed(&self) {
        // An error is that of a runtime that ends.
        let _ = self.0.ready(Interest::ERROR).await;
    }

    /// Behind the end of what is sent. Without this, the system answers bytes that nobody read with a reset, and a peer that
    /// is still sending its request loses the answer that refuses it.
    pub async fn drain(&self) {
        // Not in the future, which each connection has from its beginning.
        let mut dropped = vec![0; 4 << 10];
        let ended = async {
            while self.0.readable().await.is_ok() {
                match self.0.try_read(&mut dropped) {
                    Ok(1..) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => break,
                }
            }
        };
        let _ = timeout(DRAIN, ended).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[tokio::test]
    async fn a_probe_that_is_lost_ends_no_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for seconds in [10, 20, 30, 60, 600] {
            let write_timeout = Duration::from_secs(seconds);
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let Socket(tcp) = Socket::prepare(tcp, write_timeout).unwrap();
            let first = sockopt::tcp_keepidle(&*tcp).unwrap();
            let between = sockopt::tcp_keepintvl(&*tcp).unwrap();
            let gone = Duration::from_millis(sockopt::tcp_user_timeout(&*tcp).unwrap().into());
            assert!(first + 3 * between < gone, "{first:?} {between:?} {gone:?}");
            assert!(first <= PROBE_AFTER_MAX, "{first:?}");
        }
    }
}
