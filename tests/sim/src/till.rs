//! A participant that only requests reach: it hands out money, and puts it back where the saga fails. Invariant: it counts what
//! it does by what it was asked, so that the account below needs to know nothing of sagas but how they ended.

use std::collections::{BTreeMap, BTreeSet};

use sagahost_journal::{Journal, Name, requests};
use sagahost_processor::request::emitted;
use sagahost_saga::{
    Saga,
    id::{Participant, SagaId},
    input::Status,
};
use sagahost_sdk::prelude::*;
use serde_json::Value;

pub const NAME: &str = "till";
const OPENING_CENTS: i64 = 1_000_000;

/// Somebody wants money.
#[event(example = {"orderId": "t-1", "ask": "t-1/0", "customerId": "c-1", "amountCents": 100})]
pub struct Withdraw {
    pub order_id: String,
    pub ask: String,
    pub customer_id: String,
    pub amount_cents: u64,
}

/// It is handed out.
#[event]
pub struct Withdrawn {
    pub order_id: String,
    pub ask: String,
}

/// It is put back.
#[event]
pub struct PutBack {
    pub order_id: String,
    pub ask: String,
}

#[data]
pub struct HandedOut {
    pub amount_cents: u64,
}

#[derive(Config)]
pub struct Till {}

#[participant(name = "till", emits = [Withdrawn, PutBack], finish_on = ["Settled"])]
impl Till {
    #[on(Withdraw)]
    fn hand_out(&self, ctx: &Context, asked: Withdraw) -> Handled<HandedOut> {
        let Withdraw { order_id, ask, customer_id, amount_cents } = asked;
        count(ctx, "ran", &ask);
        balance(ctx, &customer_id)
            .ensure(OPENING_CENTS)
            .take(amount_cents)
            .or_reject("EMPTY", format!("the till of {customer_id} does not cover {amount_cents} cents"))?;
        Ok(Done::undo_with(HandedOut { amount_cents }).emit(Withdrawn { order_id, ask }))
    }

    #[undo(Withdraw)]
    fn put_back(&self, ctx: &Context, step: Step<Withdraw, HandedOut>) -> Compensated {
        let amount_cents = step.done()?.amount_cents;
        let Withdraw { order_id, ask, customer_id, .. } = step.event;
        count(ctx, "undone", &ask);
        balance(ctx, &customer_id).give(amount_cents);
        Ok(Undone::new().emit(PutBack { order_id, ask }))
    }
}

fn balance<'a>(ctx: &'a Context, customer_id: &str) -> sagahost_sdk::Counter<'a> {
    ctx.counter(format!("till/{customer_id}"))
}

fn count(ctx: &Context, what: &str, ask: &str) {
    let (store, key) = (ctx.store(), format!("{what}/{ask}"));
    store.put(&key, &(store.get::<u64>(&key).unwrap_or(0) + 1));
}

/// What somebody asked the till for.
#[derive(Clone, Debug)]
pub struct Draw {
    pub saga: String,
    /// The saga is an order's as well, and ends as that does.
    pub of_order: bool,
    /// No other has this name.
    pub ask: String,
    pub customer: String,
    pub cents: u64,
}

/// What became of one, as whoever asked heard it.
pub struct Told<'d> {
    pub draw: &'d Draw,
    pub key: &'d str,
    pub taken_in: bool,
}

/// How the sagas of the till must end.
#[derive(Default)]
pub struct Ends {
    /// Somebody was told that it is cancelled.
    pub cancelled: BTreeSet<String>,
    /// Whether it is cancelled is not for the account to say.
    pub either: BTreeSet<String>,
}

/// Everything that is not as it must be.
pub fn faults(told: &[Told<'_>], ends: &Ends, journal: &dyn Journal) -> Vec<String> {
    let mut faults = Vec::new();
    let mut balances: BTreeMap<String, i64> = BTreeMap::new();
    let mut completed: BTreeMap<&str, bool> = BTreeMap::new();
    for Told { draw, .. } in told {
        let row = journal.saga(&SagaId::new(&draw.saga)).expect("the journal can be read");
        let status = row.and_then(|row| Saga::decode(&row.bytes).ok()).map(|saga| saga.status());
        completed.insert(&draw.saga, status == Some(Status::Completed));
        let wrong = match status {
            Some(Status::Completed | Status::Compensated) if draw.of_order => false,
            Some(Status::Completed) => ends.cancelled.contains(&draw.saga),
            Some(Status::Compensated) => !ends.cancelled.contains(&draw.saga) && !ends.either.contains(&draw.saga),
            _ => true,
        };
        if wrong {
            faults.push(format!("{} is {status:?}", draw.saga));
        }
    }
    for Told { draw, key, taken_in } in told {
        let counted = |what: &str| {
            let row = journal.store_get(&Participant::new(NAME), &format!("{what}/{}", draw.ask));
            row.expect("the journal can be read").map_or(Ok(0), |row| serde_json::from_slice::<i64>(&row.value))
        };
        let (Ok(ran), Ok(undone)) = (counted("ran"), counted("undone")) else {
            faults.push(format!("what was done for {} cannot be read", draw.ask));
            continue;
        };
        let completed = completed[&*draw.saga];
        // One that failed too often is a dead letter, and the saga may be settled without it.
        let must_run = completed && *taken_in && !ends.either.contains(&draw.saga);
        if ran > i64::from(*taken_in) || must_run && ran == 0 || undone != if completed { 0 } else { ran } {
            faults.push(format!("{draw:?} (taken in: {taken_in}) ran {ran} times, and was undone {undone} times"));
        }
        if ran > 0 {
            *balances.entry(format!("till/{}", draw.customer)).or_insert(OPENING_CENTS) -=
                i64::try_from(draw.cents).expect("amounts are small") * (ran - undone);
        }
        if *taken_in {
            faults.extend(answered(draw, requests::answer(key), ("Withdrawn", ran), journal));
            faults.extend(answered(draw, requests::undone(key), ("PutBack", undone), journal));
        }
    }
    for (owner, name, value) in journal.counters(None).expect("the journal can be read") {
        if owner.as_str() == NAME && balances.remove(&name).unwrap_or(OPENING_CENTS) != value {
            faults.push(format!("{name} is {value}"));
        }
    }
    faults.extend(balances.keys().map(|name| format!("{name} is gone")));
    faults
}

/// The row of an answer has the event that the step emitted, and there is none where it emitted nothing.
fn answered(draw: &Draw, (owner, key): Name, (kind, times): (&str, i64), journal: &dyn Journal) -> Option<String> {
    let row = journal.store_get(&owner, &key).expect("the journal can be read");
    let events = row.map(|row| emitted(&row.value).unwrap_or_default());
    let about = |data: &[u8]| serde_json::from_slice::<Value>(data).is_ok_and(|data| data["ask"] == *draw.ask);
    let right = match &events {
        None => times == 0,
        Some(events) => {
            times == 1 && matches!(&events[..], [event] if event.kind.as_str() == kind && about(&event.data))
        }
    };
    (!right).then(|| format!("{draw:?} was done or undone {times} times, and {key} is {events:?}"))
}
