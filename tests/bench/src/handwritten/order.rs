//! Opens an order, completes it or cancels it. Invariant: an order ends once.

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::engine::{Event, Service};

pub struct Orders;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    order_id: &'a str,
    customer_id: &'a str,
    amount_cents: i64,
    currency: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Updated<'a> {
    order_id: &'a str,
    reservation_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    order_id: &'a str,
    code: &'a str,
    #[serde(borrow)]
    detail: std::borrow::Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Completed<'a> {
    order_id: &'a str,
    customer_id: &'a str,
    amount_cents: i64,
    currency: &'a str,
    reservation_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cancelled<'a> {
    order_id: &'a str,
    reason: &'a str,
    detail: &'a str,
}

impl Service for Orders {
    const NAME: &'static str = "order";
    const TOPICS: &'static [&'static str] =
        &["order-created", "payment-failed", "inventory-updated", "inventory-rejected"];
    // Topics are read in any order: a reservation that is there before its order waits for it ("early").
    const SCHEMA: &'static str = "create table if not exists orders (id text primary key, status text not null, \
                                  customer text, amount integer, currency text, reservation text) without rowid;";

    fn handle(db: &Connection, topic: &str, data: &[u8], again: bool, out: &mut Vec<Event>) -> Result<()> {
        match topic {
            "order-created" => open(db, &serde_json::from_slice(data)?, again, out),
            "inventory-updated" => complete(db, &serde_json::from_slice(data)?, again, out),
            _ => cancel(db, &serde_json::from_slice(data)?, again, out),
        }
    }
}

fn open(db: &Connection, created: &Created<'_>, again: bool, out: &mut Vec<Event>) -> Result<()> {
    let Created { order_id, customer_id, amount_cents, currency } = *created;
    if !again {
        db.prepare_cached(
            "insert into orders (id, status, customer, amount, currency) values (?1, 'open', ?2, ?3, ?4) \
             on conflict (id) do update set customer = ?2, amount = ?3, currency = ?4, \
             status = case status when 'early' then 'completed at once' else status end",
        )?
        .execute(params![order_id, customer_id, amount_cents, currency])?;
    }
    announce(db, order_id, "completed at once", out)
}

fn complete(db: &Connection, updated: &Updated<'_>, again: bool, out: &mut Vec<Event>) -> Result<()> {
    let Updated { order_id, reservation_id } = *updated;
    if !again {
        db.prepare_cached(
            "insert into orders (id, status, reservation) values (?1, 'early', ?2) \
             on conflict (id) do update set reservation = ?2, status = 'completed'",
        )?
        .execute([order_id, reservation_id])?;
    }
    announce(db, order_id, "completed", out)
}

/// If that is how it stands.
fn announce(db: &Connection, order_id: &str, status: &str, out: &mut Vec<Event>) -> Result<()> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let order: Option<(String, i64, String, String)> = db
        .prepare_cached("select customer, amount, currency, reservation from orders where id = ?1 and status = ?2")?
        .query_row([order_id, status], row)
        .optional()?;
    let Some((customer_id, amount_cents, currency, reservation_id)) = order else { return Ok(()) };
    let completed = Completed {
        order_id,
        customer_id: &customer_id,
        amount_cents,
        currency: &currency,
        reservation_id: &reservation_id,
    };
    out.push(Event::new("order-completed", "OrderCompleted", order_id, &completed)?);
    Ok(())
}

fn cancel(db: &Connection, failed: &Failed<'_>, again: bool, out: &mut Vec<Event>) -> Result<()> {
    let Failed { order_id, code, detail } = failed;
    if !again {
        db.prepare_cached(
            "insert into orders (id, status) values (?1, 'cancelled') on conflict (id) do update set status = 'cancelled'",
        )?
        .execute([order_id])?;
    }
    let cancelled = Cancelled { order_id, reason: code, detail };
    out.push(Event::new("order-cancelled", "OrderCancelled", order_id, &cancelled)?);
    Ok(())
}
