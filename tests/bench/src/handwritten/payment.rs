//! Takes the money of an order, and gives it back. Invariant: balances and charges that stand add up to the opening balances.

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OptionalExtension as _, params};
use sagahost_bench::OPENING_BALANCE_CENTS;
use sagahost_demo::workload::LIMIT_CENTS;
use serde::{Deserialize, Serialize};

use crate::engine::{Event, Service};

pub struct Payments;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    order_id: &'a str,
    customer_id: &'a str,
    sku: &'a str,
    quantity: i64,
    amount_cents: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rejected<'a> {
    order_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Processed<'a> {
    order_id: &'a str,
    payment_id: &'a str,
    sku: &'a str,
    quantity: i64,
    amount_cents: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    order_id: &'a str,
    code: &'a str,
    detail: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refunded<'a> {
    order_id: &'a str,
    payment_id: &'a str,
    amount_cents: i64,
}

impl Service for Payments {
    const NAME: &'static str = "payment";
    const TOPICS: &'static [&'static str] = &["order-created", "inventory-rejected"];
    const SCHEMA: &'static str = "create table if not exists balances (customer text primary key, cents integer not null) without rowid; \
                                  create table if not exists charges (id text primary key, customer text not null, \
                                  cents integer not null, status text not null) without rowid;";

    fn handle(db: &Connection, topic: &str, data: &[u8], again: bool, out: &mut Vec<Event>) -> Result<()> {
        match topic {
            "order-created" => charge(db, &serde_json::from_slice(data)?, again, out),
            _ => {
                let Rejected { order_id } = serde_json::from_slice(data)?;
                refund(db, order_id, again, out)
            }
        }
    }
}

fn charge(db: &Connection, order: &Created<'_>, again: bool, out: &mut Vec<Event>) -> Result<()> {
    let Created { order_id, customer_id, sku, quantity, amount_cents } = *order;
    if !again {
        let taken = amount_cents <= i64::try_from(LIMIT_CENTS)? && {
            db.prepare_cached("insert or ignore into balances values (?1, ?2)")?
                .execute(params![customer_id, OPENING_BALANCE_CENTS])?;
            db.prepare_cached("update balances set cents = cents - ?2 where customer = ?1 and cents >= ?2")?
                .execute(params![customer_id, amount_cents])?
                == 1
        };
        let status = if taken { "stands" } else { "declined" };
        db.prepare_cached("insert into charges values (?1, ?2, ?3, ?4)")?.execute(params![
            order_id,
            customer_id,
            amount_cents,
            status
        ])?;
        return say(order_id, sku, quantity, amount_cents, taken, out);
    }
    let status: String = db
        .prepare_cached("select status from charges where id = ?1")?
        .query_row([order_id], |row| row.get(0))
        .context("its id was seen")?;
    say(order_id, sku, quantity, amount_cents, status != "declined", out)
}

fn say(order_id: &str, sku: &str, quantity: i64, amount_cents: i64, taken: bool, out: &mut Vec<Event>) -> Result<()> {
    out.push(if taken {
        let processed = Processed { order_id, payment_id: &payment_id(order_id), sku, quantity, amount_cents };
        Event::new("payment-processed", "PaymentProcessed", order_id, &processed)?
    } else {
        let detail = format!("{amount_cents} cents cannot be taken");
        let failed = Failed { order_id, code: "DECLINED", detail: &detail };
        Event::new("payment-failed", "PaymentFailed", order_id, &failed)?
    });
    Ok(())
}

fn refund(db: &Connection, order_id: &str, again: bool, out: &mut Vec<Event>) -> Result<()> {
    let stands = if again { "refunded" } else { "stands" };
    let charge: Option<(String, i64)> = db
        .prepare_cached("select customer, cents from charges where id = ?1 and status = ?2")?
        .query_row([order_id, stands], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((customer, amount_cents)) = charge else { return Ok(()) };
    if !again {
        db.prepare_cached("update balances set cents = cents + ?2 where customer = ?1")?
            .execute(params![customer, amount_cents])?;
        db.prepare_cached("update charges set status = 'refunded' where id = ?1")?.execute([order_id])?;
    }
    let refunded = Refunded { order_id, payment_id: &payment_id(order_id), amount_cents };
    out.push(Event::new("payment-refunded", "PaymentRefunded", order_id, &refunded)?);
    Ok(())
}

fn payment_id(order_id: &str) -> String {
    format!("payment-{order_id}")
}
