//! A refund that fails: who hears of it, and what settles it. Invariant: once it is settled, the money is where it was.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use sagahost_demo::workload::Order;

use crate::{Figures, shop::Shop};

const CUSTOMER: &str = "c-closed";
/// A line in the table `[plugin.payment.config]`.
pub const CLOSED: &str = "closed-account = \"c-closed\"\n";
const LETTER: [&str; 2] = ["--code", "compensation-failed"];
const PATIENCE: Duration = Duration::from_secs(60);

/// What a host tells operators is appended to a file.
pub fn alerts(app: &Path) -> String {
    let mut text = "[alerts]\ninterval = \"1s\"\n".to_owned();
    let _ = writeln!(text, "command = [\"/usr/bin/tee\", \"-a\", \"{}\"]", app.with_extension("alerts").display());
    text
}

pub fn measure(shop: &mut Shop, figures: &mut Figures) -> Result<()> {
    let sent = Instant::now();
    shop.send(vec![Order {
        order_id: "refund-1".to_owned(),
        customer_id: CUSTOMER.to_owned(),
        sku: "cathedral".to_owned(),
        quantity: 1_000_000,
        amount_cents: 900,
        currency: "EUR".to_owned(),
    }])?;
    while !told(shop) {
        ensure!(sent.elapsed() < PATIENCE, "nobody hears of a refund that fails");
        shop.look(Duration::from_millis(5))?;
    }
    let told = sent.elapsed();
    let began = Instant::now();
    let payments = shop.host_of("payment");
    let config = &shop.hosts[payments].config;
    let text = fs::read_to_string(config)?;
    fs::write(config, text.replace(CLOSED, ""))?;
    shop.hosts[payments].ask(&["config", "reload"])?;
    let (mut commands, mut redriven) = (1, 0);
    // Whoever has the plugin first: others would only be refused again.
    let mut order: Vec<usize> = (0..shop.hosts.len()).collect();
    order.sort_by_key(|host| *host != payments);
    for host in order {
        let host = &shop.hosts[host];
        if has_letter(&host.ask(&[&["dead-letters", "list", "--each"][..], &LETTER].concat())?) {
            host.ask(&[&["dead-letters", "redrive"][..], &LETTER, &["--by", "anna"]].concat())?;
            (commands, redriven) = (commands + 1, redriven + 1);
        }
    }
    ensure!(redriven > 0, "no host has a dead letter of the refund");
    shop.settle()?;
    shop.check()?;
    let settled = began.elapsed();
    figures.insert(
        "a refund fails: an operator hears of it, s after the order was sent",
        format!("{:.1}", told.as_secs_f64()),
    );
    figures.insert("a refund fails: hosts that need a command", redriven.to_string());
    figures.insert("a refund fails: commands that settle it", commands.to_string());
    figures.insert(
        "a refund fails: the money is back, s after the first command",
        format!("{:.1}", settled.as_secs_f64()),
    );
    Ok(())
}

fn told(shop: &Shop) -> bool {
    let said = |config: &Path| fs::read_to_string(config.with_extension("alerts")).unwrap_or_default();
    shop.hosts.iter().any(|host| said(&host.config).contains("\"compensation-failed\""))
}

fn has_letter(list: &serde_json::Value) -> bool {
    list.as_array().is_some_and(|letters| !letters.is_empty())
}
