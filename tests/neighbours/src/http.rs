//! The little of HTTP that the cases need. Invariant: one request at a time on a connection, and an answer is read to its end.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(100);

/// Lines of the configuration: orders begin sagas at a free port.
pub fn config(more: &str) -> Result<(SocketAddr, String)> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let text = format!(
        "[http]\nlisten = \"{address}\"\n{more}[http.route.\"POST /orders\"]\nkind = \"OrderCreated\"\nsaga-id = \"/orderId\"\n\
         [plugin.payment.config]\nopening-balance-cents = 1000000000\n[plugin.inventory.config]\nopening-stock = 1000000\n"
    );
    Ok((address, text))
}

pub fn order(id: &str) -> String {
    format!(
        "{{\"orderId\":\"{id}\",\"customerId\":\"c-{id}\",\"sku\":\"apple\",\"quantity\":1,\"amountCents\":500,\"currency\":\"EUR\"}}"
    )
}

/// As many sockets as the system allows.
pub fn allow_sockets() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // What the system refuses is met when a socket is made.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    maximum.or(current).unwrap_or(u64::MAX)
}

pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// From an address of its own, of which this machine has many: each has only so many ports.
    pub fn from(source: u8, to: SocketAddr) -> Result<Self> {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)))?;
        connect(&socket, &to)?;
        Self::of(TcpStream::from(socket))
    }

    pub fn to(address: SocketAddr) -> Result<Self> {
        Self::of(TcpStream::connect(address)?)
    }

    fn of(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::with_capacity(512, stream)))
    }

    pub fn write(&mut self, text: &str) -> Result<()> {
        Ok(self.0.get_mut().write_all(text.as_bytes())?)
    }

    /// `headers`: whole lines.
    pub fn ask(&mut self, headers: &str, body: &str) -> Result<()> {
        self.write(&format!(
            "POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        ))
    }

    /// The status.
    pub fn answer(&mut self) -> Result<u16> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("the connection has ended")?.parse()?;
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some(_) => {}
                None => break,
            }
        }
        self.0.read_exact(&mut vec![0; length])?;
        Ok(status)
    }

    /// Has the other side closed it?
    pub fn is_closed(&mut self) -> Result<bool> {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true)?;
        let closed = match stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        stream.set_nonblocking(false)?;
        Ok(closed)
    }
}
