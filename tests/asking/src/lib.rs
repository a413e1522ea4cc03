//! A participant that asks others over HTTP, and can be told to do it wrong. Invariant: without a fault it keeps all laws.

use sagahost_sdk::{
    http::{Outgoing, Response},
    prelude::*,
};

#[event(example = {"orderId": "o-1", "cents": 100})]
pub struct Ordered {
    order_id: String,
    cents: u64,
}

#[derive(Config)]
pub struct Asking {
    /// Which mistake it makes.
    #[config(default = "")]
    fault: String,
}

const URL: &str = "https://till.example/v1/bookings";

#[participant(http = ["https://till.example/v1"])]
impl Asking {
    #[on(Ordered)]
    fn book(&self, ctx: &Context, ordered: Ordered) -> Handled<String> {
        (ordered.order_id.len() <= 128).or_invalid("ORDER", "the order's id is too long")?;
        let cents = ordered.cents;
        let booking = match self.fault.as_str() {
            "asks-the-time" => json!({ "order": ordered.order_id, "cents": cents, "at": ctx.now_ms() }),
            "counts-attempts" => json!({ "order": ordered.order_id, "cents": cents, "attempt": ctx.attempt() }),
            _ => json!({ "order": ordered.order_id, "cents": cents }),
        };
        self.sent(ctx.http().post(URL).json(&booking))?;
        // A second one, so that each of several is tried.
        self.sent(ctx.http().put(format!("{URL}/seen")).json(&json!({ "cents": cents })))?;
        Ok(Done::undo_with(ordered.order_id))
    }

    #[undo(Ordered)]
    fn cancel(&self, ctx: &Context, step: Step<Ordered, String>) -> Compensated {
        let order = match &step.evidence {
            Evidence::NeverRan => return Err(NotUndone::NothingToUndo),
            Evidence::Done(order) => order.clone(),
            Evidence::Uncertain if self.fault == "never-looks" => step.done()?.clone(),
            Evidence::Uncertain if ctx.http().made().is_empty() => return Err(NotUndone::NothingToUndo),
            Evidence::Uncertain => step.event.order_id.clone(),
        };
        if self.fault == "wants-a-response" && step.evidence == Evidence::Uncertain {
            let first = ctx.http().made().remove(0);
            assert!(first.response.expect("it was answered").is_success());
        }
        ctx.http().delete(format!("{URL}/cancelled")).json(&json!({ "order": order })).send()?;
        Ok(Undone::new())
    }
}

impl Asking {
    fn sent(&self, request: Outgoing<'_>) -> Result<Response, Fail> {
        match request.send() {
            Err(failure) if self.fault == "takes-it-for-granted" => panic!("{failure}"),
            answer => Ok(answer?),
        }
    }
}
