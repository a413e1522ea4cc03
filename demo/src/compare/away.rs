//! Who is killed, stays away and comes back; and what becomes of orders that come meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sagahost_demo::{process::Host, workload::Order};

use crate::{
    Figures,
    load::orders,
    shop::{Setup, Shop},
};

/// Orders a second that come meanwhile, and for some seconds before and behind.
const RATE: u64 = 20;
const BESIDE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Payments,
    Leading,
    Broker,
}

impl Who {
    pub const ALL: [Self; 3] = [Self::Payments, Self::Leading, Self::Broker];

    pub fn is_part_of(self, setup: &Setup) -> bool {
        match self {
            // Of one host all are killed together.
            Self::Payments => setup.is_apart(),
            Self::Leading => true,
            Self::Broker => !setup.is_http(),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Payments => "the host of payments",
            Self::Leading => "the host of orders",
            Self::Broker => "the broker",
        }
    }

    /// Names of its figures.
    fn figures(self) -> [&'static str; 3] {
        match self {
            Self::Payments => [
                "payments away: orders ended meanwhile",
                "payments away: orders sent again by clients",
                "payments away: all ended, s after its return",
            ],
            Self::Leading => [
                "orders away: orders ended meanwhile",
                "orders away: orders sent again by clients",
                "orders away: all ended, s after its return",
            ],
            Self::Broker => [
                "broker away: orders ended meanwhile",
                "broker away: orders sent again by clients",
                "broker away: all ended, s after its return",
            ],
        }
    }

    /// None: the broker.
    fn host(self, shop: &mut Shop) -> Option<&mut Host> {
        match self {
            Self::Payments => {
                let place = shop.host_of("payment");
                Some(&mut shop.hosts[place])
            }
            Self::Leading => Some(&mut shop.hosts[0]),
            Self::Broker => None,
        }
    }

    fn kill(self, shop: &mut Shop) -> Result<()> {
        if let Some(host) = self.host(shop) {
            return host.kill();
        }
        shop.broker.as_ref().context("a broker")?.kill();
        Ok(())
    }

    fn restart(self, shop: &mut Shop) -> Result<()> {
        match self.host(shop) {
            Some(host) => host.start(),
            None => shop.broker.as_ref().context("a broker")?.restart(),
        }
    }
}

pub fn measure(shop: &mut Shop, who: Who, seconds: u64, figures: &mut Figures) -> Result<()> {
    let away = Duration::from_secs(seconds);
    let count = RATE * (seconds + 2 * BESIDE.as_secs());
    let prefix = format!("{who:?}").to_lowercase();
    let mut coming = orders(&prefix, usize::try_from(count)?).into_iter();
    pass(shop, &mut coming, BESIDE)?;
    let repeated = shop.repeated();
    who.kill(shop)?;
    let before = shop.ended();
    pass(shop, &mut coming, away)?;
    let meanwhile = shop.ended() - before;
    who.restart(shop)?;
    let back = Instant::now();
    pass(shop, &mut coming, BESIDE)?;
    shop.settle()?;
    let [ended, again, all] = who.figures();
    figures.insert(ended, format!("{meanwhile} of {}", RATE * seconds));
    figures.insert(again, (shop.repeated() - repeated).to_string());
    let of_before = |order: &Order| shop.known[&order.order_id].sent < back;
    let last =
        shop.orders.iter().filter(|order| of_before(order)).filter_map(|order| shop.known[&order.order_id].ended);
    let last = last.max().map_or(0.0, |last| last.saturating_duration_since(back).as_secs_f64());
    figures.insert(all, format!("{last:.1}"));
    shop.check()
}

/// Orders come at their rate.
fn pass(shop: &mut Shop, coming: &mut impl Iterator<Item = Order>, time: Duration) -> Result<()> {
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < time {
        let due = (began.elapsed().as_secs_f64() * RATE as f64) as u64;
        let more: Vec<Order> = coming.by_ref().take(usize::try_from(due - sent)?).collect();
        sent = due;
        if !more.is_empty() {
            shop.send(more)?;
        }
        shop.look(Duration::from_millis(10))?;
    }
    Ok(())
}
