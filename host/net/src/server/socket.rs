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

/// When nothing is sent for so long, the peer is asked whether it is there: a host without power says nothing when it goes. One
/// whose process has closed the connection says what one does that only ended its own direction; its system denies it when it
/// has forgotten the connection, after a minute on Linux.
const PROBE_AFTER: Duration = Duration::from_secs(15);
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
        sockopt::set_tcp_keepidle(&tcp, PROBE_AFTER)?;
        sockopt::set_tcp_keepintvl(&tcp, PROBE_AFTER)?;
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
