//! Answers that are lost: what was asked for has happened, and whoever asked does not know.

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

use anyhow::{Result, ensure};

use crate::{Figures, load::orders, shop::Shop};

/// One in so many.
const LOST: usize = 100;
const ORDERS: usize = 1_000;

/// Hands requests on, and now and then ends a connection where an answer would come.
pub struct Proxy {
    pub address: SocketAddr,
    lost: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (lost, answers) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counted = lost.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (counted, answers) = (counted.clone(), answers.clone());
                thread::spawn(move || carry(&client, to, &answers, &counted));
            }
        });
        Self { address, lost }
    }
}

fn carry(client: &TcpStream, to: SocketAddr, answers: &AtomicUsize, lost: &AtomicUsize) {
    let Ok(service) = TcpStream::connect(to) else { return };
    let quick = client.set_nodelay(true).and_then(|()| service.set_nodelay(true));
    if quick.is_err() {
        return;
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            copy(client, &service, || false);
            let _ = service.shutdown(Shutdown::Write);
        });
        let loses = || answers.fetch_add(1, Ordering::Relaxed) % LOST == LOST - 1;
        copy(&service, client, || loses() && lost.fetch_add(1, Ordering::Relaxed) < usize::MAX);
        let _ = client.shutdown(Shutdown::Both);
        let _ = service.shutdown(Shutdown::Both);
    });
}

/// `ends`: before what was read is handed on.
fn copy(mut from: &TcpStream, mut to: &TcpStream, ends: impl Fn() -> bool) {
    let mut bytes = [0; 16 << 10];
    loop {
        match from.read(&mut bytes) {
            Ok(read) if read > 0 && !ends() && to.write_all(&bytes[..read]).is_ok() => {}
            Ok(_) | Err(_) => return,
        }
    }
}

pub fn measure(shop: &mut Shop, figures: &mut Figures) -> Result<()> {
    let repeated = shop.repeated();
    for chunk in orders("lossy", ORDERS).chunks(50) {
        shop.send(chunk.to_vec())?;
        shop.look(Duration::from_millis(20))?;
    }
    shop.settle()?;
    let lost: usize = shop.proxies.iter().map(|proxy| proxy.lost.load(Ordering::Relaxed)).sum();
    ensure!(lost > 0, "no answer was lost");
    figures.insert("answers lost, of 1,000 orders", lost.to_string());
    figures.insert("answers lost: orders sent again by clients", (shop.repeated() - repeated).to_string());
    shop.check()
}
