//! Takes the money of an order through a payment gateway. Invariant: a charge that may stand is taken back before its saga is
//! compensated, also where nobody knows whether the gateway ever heard of it.

use sagahost_sdk::{
    http::{Outgoing, Response},
    prelude::*,
};

/// A customer ordered something.
#[event(example = {
    "orderId": "o-1", "customerId": "c-1", "sku": "apple", "quantity": 2, "amountCents": 1998, "currency": "EUR"
})]
pub struct OrderCreated {
    pub order_id: String,
    pub customer_id: String,
    pub sku: String,
    pub quantity: i64,
    pub amount_cents: i64,
    pub currency: String,
}

/// The money is taken.
#[event]
pub struct PaymentProcessed {
    pub order_id: String,
    pub payment_id: String,
    pub sku: String,
    pub quantity: i64,
    pub amount_cents: i64,
}

/// The payment was declined; no money moved.
#[event]
pub struct PaymentFailed {
    pub order_id: String,
    pub code: String,
    pub detail: String,
}

/// The money went back.
#[event]
pub struct PaymentRefunded {
    pub order_id: String,
    pub payment_id: String,
    pub amount_cents: i64,
}

/// A charge that stands at the gateway: what a refund has to know.
#[data]
pub struct Charge {
    pub payment_id: String,
}

/// What the gateway says of a charge.
#[data]
struct Charged {
    id: String,
}

/// Why it says no.
#[data]
#[derive(Default)]
struct Declined {
    code: String,
    detail: String,
}

#[derive(Config)]
pub struct PaymentGateway {
    /// Where the gateway is, without a slash at the end.
    gateway: String,
}

#[participant(
    http = ["*"],
    emits = [PaymentProcessed, PaymentFailed, PaymentRefunded],
    compensate_on = ["InventoryRejected"],
    finish_on = ["OrderCompleted"]
)]
impl PaymentGateway {
    #[on(OrderCreated, undo_bytes_max = 4096, deadline_ms = 600_000)]
    fn charge(&self, ctx: &Context, order: OrderCreated) -> Handled<Charge> {
        check(&order)?;
        let wanted = json!({
            "reference": order.order_id, "customer": order.customer_id,
            "amountCents": order.amount_cents, "currency": order.currency,
        });
        let response = ctx.http().post(format!("{}/charges", self.gateway)).json(&wanted).send()?;
        match response.status {
            200 | 201 => {
                let payment_id = response.json::<Charged>()?.id;
                let processed = PaymentProcessed {
                    order_id: order.order_id,
                    payment_id: payment_id.clone(),
                    sku: order.sku,
                    quantity: order.quantity,
                    amount_cents: order.amount_cents,
                };
                Ok(Done::undo_with(Charge { payment_id }).note("customer", order.customer_id).emit(processed))
            }
            402 => Err(decline(&order, &response).into()),
            400 => Err(Fail::invalid("NOT_TAKEN", response.text())),
            _ => Err(later(&response).into()),
        }
    }

    #[undo(OrderCreated)]
    fn refund(&self, ctx: &Context, step: Step<OrderCreated, Charge>) -> Compensated {
        let order = &step.event;
        let refunds = ctx.http().post(format!("{}/refunds", self.gateway));
        let payment_id = match &step.evidence {
            Evidence::NeverRan => return Err(NotUndone::NothingToUndo),
            Evidence::Done(charge) => taken_back(refunds.json(&json!({ "charge": charge.payment_id })))?,
            // It was asked, and what became of that is not known, or is not all: by its key it is taken back whether it stands,
            // comes yet, or never does.
            Evidence::Uncertain => {
                let asked = ctx.http().made();
                let settled = |response: &Response| matches!(response.status, 400 | 402);
                match asked.first() {
                    Some(made) if made.response.as_ref().is_some_and(settled) => return Err(NotUndone::NothingToUndo),
                    Some(made) => taken_back(refunds.json(&json!({ "key": made.key })))?,
                    None => return Err(NotUndone::stuck("UNKNOWN", "nobody knows any more what was asked")),
                }
            }
        };
        let Some(payment_id) = payment_id else { return Err(NotUndone::NothingToUndo) };
        let (order_id, amount_cents) = (order.order_id.clone(), order.amount_cents);
        Ok(Undone::new().emit(PaymentRefunded { order_id, payment_id, amount_cents }))
    }
}

/// What no attempt could ever charge.
fn check(order: &OrderCreated) -> Result<(), Fail> {
    let is_id = |text: &str| (1..=128).contains(&text.len()) && !text.contains(char::is_control);
    (order.amount_cents > 0).or_invalid("AMOUNT", format!("{} cents cannot be taken", order.amount_cents))?;
    (order.quantity > 0).or_invalid("QUANTITY", format!("{} articles cannot be paid for", order.quantity))?;
    is_id(&order.customer_id).or_invalid("CUSTOMER", "customerId is empty or no id")
}

/// The charge that does not stand any more. None: there was none, and there will be none.
fn taken_back(refund: Outgoing<'_>) -> Result<Option<String>, NotUndone> {
    let response = refund.send()?;
    match response.status {
        200 | 201 => Ok(Some(response.json::<Charged>()?.id)),
        204 => Ok(None),
        400 | 404 | 422 => Err(NotUndone::stuck("NOT_REFUNDED", response.text())),
        _ => Err(later(&response).into()),
    }
}

/// It may say more another time.
fn later(response: &Response) -> Delay {
    let delay = Delay::new("GATEWAY", format!("it answered {}: {}", response.status, response.text()));
    let seconds = response.header("retry-after").and_then(|seconds| seconds.parse().ok());
    seconds.map_or(delay.clone(), |seconds: u32| Delay { after_ms: Some(seconds.saturating_mul(1000)), ..delay })
}

fn decline(order: &OrderCreated, response: &Response) -> Rejection {
    let Declined { code, detail } = response.json().unwrap_or_default();
    let code = if code.is_empty() { "DECLINED".to_owned() } else { code };
    let failed = PaymentFailed { order_id: order.order_id.clone(), code: code.clone(), detail: detail.clone() };
    Rejection::new(code, detail).emit(failed).note("customer", &order.customer_id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sagahost_testkit::{MockHost, Status};

    use super::*;

    const CHARGES: &str = "https://gateway.example/v1/charges";
    const REFUNDS: &str = "https://gateway.example/v1/refunds";

    fn order(order_id: &str, amount_cents: i64) -> OrderCreated {
        OrderCreated {
            order_id: order_id.into(),
            customer_id: "c-1".into(),
            sku: "apple".into(),
            quantity: 2,
            amount_cents,
            currency: "EUR".into(),
        }
    }

    fn host() -> MockHost {
        let mut host = MockHost::native::<PaymentGateway>();
        host.saga_id_at("/orderId").config("gateway", "https://gateway.example/v1");
        host
    }

    #[test]
    fn an_order_is_charged_once_and_refunded() {
        let mut host = host();
        host.http("POST", CHARGES).answers(201, json!({"id": "ch-1"}));
        host.http("POST", REFUNDS).answers(201, json!({"id": "ch-1"}));
        host.send(order("o-1", 3_000))
            .completed()
            .emitted("PaymentProcessed", json!({"orderId": "o-1", "paymentId": "ch-1", "amountCents": 3_000}));
        host.send_again().no_effect();
        host.compensate("o-1").undone().emitted("PaymentRefunded", json!({"paymentId": "ch-1"}));
        let asked: Vec<_> = host.requests().into_iter().map(|request| (request.url, request.body)).collect();
        let charge = json!({"reference": "o-1", "customer": "c-1", "amountCents": 3_000, "currency": "EUR"});
        assert_eq!(asked, [(CHARGES.to_owned(), charge), (REFUNDS.to_owned(), json!({"charge": "ch-1"}))]);
    }

    #[test]
    fn a_declined_order_is_not_looked_for_again() {
        let mut host = host();
        host.http("POST", CHARGES).answers(402, json!({"code": "LIMIT", "detail": "too much"}));
        host.send(order("o-1", 3_000)).rejected("LIMIT").emitted_kinds(&["PaymentFailed"]).saga_is(Status::Compensated);
        assert_eq!(host.requests().len(), 1);
    }

    #[test]
    fn an_answer_that_is_lost_is_asked_for_again_under_the_same_key() {
        let mut host = host();
        host.http("POST", CHARGES).loses_answer().answers(201, json!({"id": "ch-1"}));
        host.send(order("o-1", 3_000)).retried("timeout");
        host.advance(Duration::from_secs(60)).completed().emitted("PaymentProcessed", json!({"paymentId": "ch-1"}));
        let keys: Vec<_> = host.requests().into_iter().map(|request| (request.key, request.attempt)).collect();
        assert_eq!((keys.len(), &keys[0].0, keys[1].1), (2, &keys[1].0, 2));
    }

    #[test]
    fn a_charge_that_nobody_heard_of_is_taken_back_by_its_key() {
        let mut host = host();
        host.http("POST", CHARGES).loses_answer().answers(201, json!({"id": "ch-1"}));
        host.http("POST", REFUNDS).answers(201, json!({"id": "ch-1"}));
        host.send(order("o-1", 3_000)).retried("timeout");
        host.compensate("o-1").undone().emitted("PaymentRefunded", json!({"paymentId": "ch-1"}));
        let requests = host.requests();
        assert_eq!(requests[1].body, json!({ "key": requests[0].key }));
    }

    #[test]
    fn a_gateway_that_is_away_costs_no_attempt() {
        let mut host = host();
        for _ in 0..10 {
            host.http("POST", CHARGES).is_unreachable_once();
        }
        host.http("POST", CHARGES).answers(201, json!({"id": "ch-1"}));
        host.send(order("o-1", 3_000)).saga_is(Status::Running);
        host.advance(Duration::from_secs(300)).emitted("PaymentProcessed", json!({"paymentId": "ch-1"}));
        assert_eq!(host.requests().len(), 11);
        assert!(host.dead_letters().is_empty());
    }

    #[test]
    fn a_refund_that_is_refused_needs_a_person() {
        let mut host = host();
        host.http("POST", CHARGES).answers(201, json!({"id": "ch-1"}));
        host.http("POST", REFUNDS).answers(422, "the charge is settled");
        host.send(order("o-1", 3_000)).completed();
        host.compensate("o-1").stuck("NOT_REFUNDED");
        host.saga("o-1").needs_operator();
    }
}
