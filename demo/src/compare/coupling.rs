//! What each host has to know of the others, and what it takes to add one more participant.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use sagahost_demo::workload::counters_of;
use serde_json::json;

use crate::{
    Figures,
    load::orders,
    shop::{Shop, asks, install, manifest},
};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn loyalty(shop: &mut Shop, figures: &mut Figures) -> Result<()> {
    figures.insert("addresses in the configurations", addresses(shop)?.to_string());
    let began = Instant::now();
    let said = match (shop.setup.is_apart(), shop.setup.is_http()) {
        (false, _) => {
            install(shop.dir.path(), "shop", &["loyalty"], &shop.plugins)?;
            "one file dropped in"
        }
        (true, false) => {
            shop.add_host("points", "loyalty")?;
            shop.hosts.last_mut().expect("it is there").start()?;
            "a host of its own; no other is touched"
        }
        (true, true) => {
            let at = shop.add_host("points", "loyalty")?;
            shop.hosts.last_mut().expect("it is there").start()?;
            let subscriptions = json!([{ "kind": "OrderCompleted", "role": "nothing-to-undo" }]);
            manifest(shop.dir.path(), "loyalty", &subscriptions, &["PointsGranted"])?;
            let leading = &mut shop.hosts[0];
            let text = fs::read_to_string(&leading.config)?;
            fs::write(&leading.config, format!("{text}{}", asks("loyalty", at)))?;
            leading.kill()?;
            leading.start()?;
            "a host of its own; at the host of orders an address, a manifest and a restart"
        }
    };
    figures.insert("to add `loyalty`", said.to_owned());
    let mut number = 0;
    while !gives_points(shop)? {
        ensure!(began.elapsed() < PATIENCE, "loyalty gives no points");
        shop.send(orders(&format!("loyal{number}"), 1))?;
        shop.settle()?;
        number += 1;
    }
    figures.insert("`loyalty` gives points, s after it was begun", format!("{:.1}", began.elapsed().as_secs_f64()));
    Ok(())
}

fn gives_points(shop: &Shop) -> Result<bool> {
    for host in &shop.hosts {
        let counters = counters_of(&host.ask(&["plugins", "counters"])?);
        if counters.keys().any(|(participant, _)| participant == "loyalty") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Of other hosts and of brokers.
fn addresses(shop: &Shop) -> Result<usize> {
    let mut count = 0;
    for host in &shop.hosts {
        let text = fs::read_to_string(&host.config)?;
        count += text.lines().filter(|line| line.contains("url = \"http://") || line.starts_with("bootstrap")).count();
    }
    Ok(count)
}
