//! A network between a host and a service that loses things, byte by byte. Invariant: it changes no byte that it hands on.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Whole,
    /// The request arrives, and no answer comes back.
    NoAnswer,
    /// So many bytes of what comes back.
    CutAfter(usize),
    /// What comes back comes so late.
    Late(Duration),
    /// Not even the request arrives.
    Refused,
    /// Of the answers on this connection, and on others like it, one in so many is lost, and the connection ends with it.
    LosesOneIn(usize),
}

pub struct Proxy {
    pub address: SocketAddr,
    spoilt: Arc<AtomicUsize>,
}

impl Proxy {
    /// `fate`: of the nth connection, from 0 on.
    pub fn start(to: SocketAddr, fate: impl Fn(usize) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (spoilt, answers) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counted = spoilt.clone();
        thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let fate = fate(number);
                let spoils = !matches!(fate, Fate::Whole | Fate::LosesOneIn(_));
                counted.fetch_add(usize::from(spoils), Ordering::Relaxed);
                let (counted, answers) = (counted.clone(), answers.clone());
                // What comes back at once is an answer.
                let loses = move || {
                    let Fate::LosesOneIn(many) = fate else { return false };
                    let lost = answers.fetch_add(1, Ordering::Relaxed) % many == many - 1;
                    counted.fetch_add(usize::from(lost), Ordering::Relaxed);
                    lost
                };
                thread::spawn(move || carry(&client, to, fate, loses));
            }
        });
        Self { address, spoilt }
    }

    /// Connections that were not handed on whole, and answers that were lost.
    pub fn spoilt(&self) -> usize {
        self.spoilt.load(Ordering::Relaxed)
    }
}

fn carry(client: &TcpStream, to: SocketAddr, fate: Fate, loses: impl Fn() -> bool) {
    if fate == Fate::Refused {
        return;
    }
    let Ok(service) = TcpStream::connect(to) else { return };
    if client.set_nodelay(true).and_then(|()| service.set_nodelay(true)).is_err() {
        return;
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            copy(client, &service, usize::MAX, || false);
            let _ = service.shutdown(Shutdown::Write);
        });
        let most = match fate {
            Fate::Whole | Fate::Refused | Fate::LosesOneIn(_) => usize::MAX,
            Fate::NoAnswer => 0,
            Fate::CutAfter(bytes) => bytes,
            Fate::Late(wait) => {
                thread::sleep(wait);
                usize::MAX
            }
        };
        if most == 0 {
            // It has answered by then.
            let _ = (&service).read(&mut [0; 1]);
        }
        copy(&service, client, most, loses);
        let _ = client.shutdown(Shutdown::Both);
        let _ = service.shutdown(Shutdown::Both);
    });
}

/// `ends`: before what was read is handed on.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut most: usize, ends: impl Fn() -> bool) {
    let mut bytes = [0; 16 << 10];
    while most > 0 {
        let room = bytes.len().min(most);
        match from.read(&mut bytes[..room]) {
            Ok(read) if read > 0 && !ends() && to.write_all(&bytes[..read]).is_ok() => most -= read,
            Ok(_) | Err(_) => return,
        }
    }
}
