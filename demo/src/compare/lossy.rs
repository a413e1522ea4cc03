//! Answers that are lost: what was asked for has happened, and whoever asked does not know.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use sagahost_demo::proxy::{Fate, Proxy};

use crate::{Figures, load::orders, shop::Shop};

const ORDERS: usize = 1_000;

pub fn proxy(to: SocketAddr) -> Proxy {
    Proxy::start(to, |_| Fate::LosesOneIn(100))
}

pub fn measure(shop: &mut Shop, figures: &mut Figures) -> Result<()> {
    let repeated = shop.repeated();
    for chunk in orders("lossy", ORDERS).chunks(50) {
        shop.send(chunk.to_vec())?;
        shop.look(Duration::from_millis(20))?;
    }
    shop.settle()?;
    let lost: usize = shop.proxies.iter().map(Proxy::spoilt).sum();
    ensure!(lost > 0, "no answer was lost");
    figures.insert("answers lost, of 1,000 orders", lost.to_string());
    figures.insert("answers lost: orders sent again by clients", (shop.repeated() - repeated).to_string());
    shop.check()
}
