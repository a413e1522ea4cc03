//! Reserves the articles of a paid order. Invariant: stock and reservations add up to the opening stock.

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension as _, params};
use sagahost_bench::OPENING_STOCK;
use serde::{Deserialize, Serialize};

use crate::engine::{Event, Service};

pub struct Inventory;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Processed<'a> {
    order_id: &'a str,
    sku: &'a str,
    quantity: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Updated<'a> {
    order_id: &'a str,
    sku: &'a str,
    quantity: i64,
    reservation_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rejected<'a> {
    order_id: &'a str,
    sku: &'a str,
    code: &'a str,
    detail: &'a str,
}

impl Service for Inventory {
    const NAME: &'static str = "inventory";
    const TOPICS: &'static [&'static str] = &["payment-processed"];
    const SCHEMA: &'static str = "create table if not exists stock (sku text primary key, available integer not null) without rowid; \
                                  create table if not exists reservations (id text primary key, sku text not null, \
                                  quantity integer not null) without rowid;";

    fn handle(db: &Connection, _topic: &str, data: &[u8], again: bool, out: &mut Vec<Event>) -> Result<()> {
        let Processed { order_id, sku, quantity } = serde_json::from_slice(data)?;
        let reserved = if again {
            db.prepare_cached("select 1 from reservations where id = ?1")?
                .query_row([order_id], |_| Ok(()))
                .optional()?
                .is_some()
        } else {
            reserve(db, order_id, sku, quantity)?
        };
        out.push(if reserved {
            let updated = Updated { order_id, sku, quantity, reservation_id: &format!("reservation-{order_id}") };
            Event::new("inventory-updated", "InventoryUpdated", order_id, &updated)?
        } else {
            let detail = format!("fewer than {quantity} of {sku} are left");
            let rejected = Rejected { order_id, sku, code: "OUT_OF_STOCK", detail: &detail };
            Event::new("inventory-rejected", "InventoryRejected", order_id, &rejected)?
        });
        Ok(())
    }
}

fn reserve(db: &Connection, order_id: &str, sku: &str, quantity: i64) -> Result<bool> {
    db.prepare_cached("insert or ignore into stock values (?1, ?2)")?.execute(params![sku, OPENING_STOCK])?;
    let taken = db
        .prepare_cached("update stock set available = available - ?2 where sku = ?1 and available >= ?2")?
        .execute(params![sku, quantity])?;
    if taken == 1 {
        db.prepare_cached("insert into reservations values (?1, ?2, ?3)")?.execute(params![order_id, sku, quantity])?;
    }
    Ok(taken == 1)
}
