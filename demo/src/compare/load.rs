//! What an order costs, many at once and alone.

use std::time::{Duration, Instant};

use anyhow::Result;
use sagahost_demo::{
    figures::quantile,
    process::{cpu_seconds, loopback_bytes, resident_bytes},
    workload::{self, Order, Shape},
};

use crate::{Figures, shop::Shop};

const WARM_UP: usize = 300;
const ALONE: usize = 200;

pub fn orders(prefix: &str, count: usize) -> Vec<Order> {
    let shape = Shape { customers: 500, articles: 300, prefix: prefix.to_owned(), ..Shape::of(count) };
    workload::orders(&shape).collect()
}

pub fn burst(shop: &mut Shop, count: usize, figures: &mut Figures) -> Result<()> {
    shop.send(orders("warm", WARM_UP))?;
    shop.settle()?;
    let (cpu, bytes, began) = (shop.of_processes(cpu_seconds)?, loopback_bytes()?, Instant::now());
    for chunk in orders("load", count).chunks(250) {
        shop.send(chunk.to_vec())?;
        shop.look(Duration::from_millis(1))?;
    }
    shop.settle()?;
    let took = began.elapsed().as_secs_f64();
    let (hosts, broker) = shop.of_processes(cpu_seconds)?;
    let each = |all: f64| all / count as f64;
    figures.insert("orders a second", format!("{:.0}", count as f64 / took));
    figures.insert("processor time of hosts, us an order", format!("{:.0}", 1e6 * each(hosts - cpu.0)));
    if shop.broker.is_some() {
        figures.insert("processor time of the broker, us an order", format!("{:.0}", 1e6 * each(broker - cpu.1)));
    }
    figures.insert("bytes over the network, kB an order", format!("{:.1}", each(loopback_bytes()? - bytes) / 1e3));
    let (hosts, broker) = shop.of_processes(resident_bytes)?;
    figures.insert("memory of hosts, MB", format!("{:.0}", hosts / 1e6));
    if shop.broker.is_some() {
        figures.insert("memory of the broker, MB", format!("{:.0}", broker / 1e6));
    }
    shop.check()
}

pub fn one_at_a_time(shop: &mut Shop, figures: &mut Figures) -> Result<()> {
    let mut took = Vec::new();
    for order in orders("alone", ALONE) {
        let id = order.order_id.clone();
        shop.send(vec![order])?;
        let known = loop {
            shop.look(Duration::from_micros(200))?;
            let known = shop.known[&id];
            if let Some(ended) = known.ended {
                break ended - known.sent;
            }
        };
        took.push(known.as_secs_f64() * 1e3);
    }
    figures.insert("one at a time: median, ms", format!("{:.1}", quantile(&took, 0.5)));
    figures.insert("one at a time: p99, ms", format!("{:.1}", quantile(&took, 0.99)));
    shop.check()
}
