//! A plugin that asks a desk outside of every host to book what is paid, and the desk. Invariant: under one key there is one
//! request; what is booked stands until it is called off, and nothing stands that was called off, whichever came first.

use std::collections::{BTreeMap, BTreeSet};

use sagahost_manifest::http::{Answer, Request, Response};
use sagahost_saga::id::SagaId;
use sagahost_sdk::prelude::*;

use crate::courier::Booked;

pub const NAME: &str = "agent";
const BOOKINGS: &str = "https://desk.example/bookings";
const CANCELLED: &str = "https://desk.example/cancelled";
/// Of the agent's store: how many bookings of its steps stand.
pub const COUNT: &str = "count";

/// The money is taken.
#[event(example = {"orderId": "o-1"})]
pub struct PaymentProcessed {
    pub order_id: String,
}

#[data]
pub struct Booking {
    key: String,
}

#[derive(Config)]
pub struct Agent {}

#[participant(name = "agent", http = ["https://desk.example"])]
impl Agent {
    #[on(PaymentProcessed)]
    fn book(&self, ctx: &Context, paid: PaymentProcessed) -> Handled<Booking> {
        // It may have changed by the time the desk has answered.
        let _ = counted(ctx);
        let response = ctx.http().post(BOOKINGS).json(&json!({ "order": paid.order_id })).send()?;
        match response.status {
            201 => {
                ctx.store().put(COUNT, &(counted(ctx) + 1));
                Ok(Done::undo_with(Booking { key: response.text() }))
            }
            402 => Err(Fail::reject("CALLED_OFF", "it was called off before")),
            status => Err(Fail::retry("DESK", format!("it answered {status}"))),
        }
    }

    #[undo(PaymentProcessed)]
    fn call_off(&self, ctx: &Context, step: Step<PaymentProcessed, Booking>) -> Compensated {
        let key = match &step.evidence {
            Evidence::NeverRan => return Err(NotUndone::NothingToUndo),
            Evidence::Done(booking) => booking.key.clone(),
            Evidence::Uncertain => match ctx.http().made().first() {
                Some(made) => made.key.clone(),
                None => return Err(NotUndone::stuck("UNKNOWN", "nobody knows what was asked")),
            },
        };
        ctx.http().post(CANCELLED).json(&key).send()?;
        if matches!(step.evidence, Evidence::Done(_)) {
            ctx.store().put(COUNT, &(counted(ctx) - 1));
        }
        Ok(Undone::new())
    }
}

fn counted(ctx: &Context) -> i64 {
    ctx.store().get(COUNT).unwrap_or_default()
}

/// What the desk has in its books.
#[derive(Default)]
pub struct Desk {
    /// By key.
    bookings: BTreeMap<String, (SagaId, Booked)>,
    called_off: BTreeSet<String>,
    /// What was asked under a key, and what was answered.
    answers: BTreeMap<String, (Request, Response)>,
    pub faults: Vec<String>,
}

impl Desk {
    pub fn answer(&mut self, saga: &SagaId, key: &str, request: &Request) -> Answer {
        if let Some((known, response)) = self.answers.get(key) {
            if !known.is_same(request) {
                self.faults.push(format!("{saga}: another request came under a key"));
            }
            // What it was told since changes nothing of what was done; but a key that was called off is that for good.
            return Ok(response.clone());
        }
        let (status, body) = if request.url == BOOKINGS { self.book(saga, key) } else { self.call_off(&request.body) };
        let response = Response { status, headers: Vec::new(), body };
        self.answers.insert(key.to_owned(), (request.clone(), response.clone()));
        Ok(response)
    }

    fn book(&mut self, saga: &SagaId, key: &str) -> (u16, Vec<u8>) {
        if self.called_off.contains(key) {
            return (402, Vec::new());
        }
        self.bookings.insert(key.to_owned(), (saga.clone(), Booked::Standing));
        (201, key.as_bytes().to_vec())
    }

    fn call_off(&mut self, body: &[u8]) -> (u16, Vec<u8>) {
        let key: String = serde_json::from_slice(body).expect("the agent names a key");
        if let Some((_, booked)) = self.bookings.get_mut(&key) {
            *booked = Booked::CalledOff;
        }
        self.called_off.insert(key);
        (200, Vec::new())
    }

    /// Of a saga, all that was ever booked.
    pub fn of(&self, saga: &SagaId) -> Vec<Booked> {
        self.bookings.values().filter(|(of, _)| of == saga).map(|(_, booked)| *booked).collect()
    }

    pub fn standing(&self) -> usize {
        self.bookings.values().filter(|(_, booked)| *booked == Booked::Standing).count()
    }
}
