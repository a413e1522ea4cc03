//! Opens an order, completes it or cancels it. Invariant: every order that was announced ends with one OrderCompleted
//! or one OrderCancelled, never with both.

use sagahost_sdk::{prelude::*, warn};

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

/// The articles of an order are reserved: it is paid for and can be delivered.
#[event(example = {"orderId": "o-1", "sku": "apple", "quantity": 2, "reservationId": "reservation-1"})]
pub struct InventoryUpdated {
    pub order_id: String,
    pub reservation_id: Option<String>,
}

/// The order is done.
#[event]
pub struct OrderCompleted {
    pub order_id: String,
    pub customer_id: String,
    pub amount_cents: i64,
    pub currency: String,
    pub reservation_id: Option<String>,
}

/// The order will not happen.
#[event]
pub struct OrderCancelled {
    pub order_id: String,
    pub reason: String,
    pub detail: String,
}

/// This saga's order.
#[data]
pub struct Order {
    pub status: Status,
    pub customer_id: String,
    pub amount_cents: i64,
    pub currency: String,
}

/// Where it stands.
#[data]
#[derive(Copy, Eq)]
pub enum Status {
    Open,
    Completed,
    Cancelled,
}

/// There is nothing to take back; the cancellation is announced.
#[data]
pub struct Opened {}

/// It has no configuration.
#[derive(Config)]
pub struct Orders {}

#[participant(
    emits = [OrderCompleted, OrderCancelled],
    compensate_on = ["PaymentFailed", "InventoryRejected"],
    finishes,
    waive(restores_state = "a cancelled order stays on record, so that it is neither completed nor cancelled again")
)]
impl Orders {
    #[on(OrderCreated, undo_bytes_max = 64)]
    fn open(&self, ctx: &Context, created: OrderCreated) -> Handled<Opened> {
        if let Some(Order { status, .. }) = ctx.state() {
            warn!(ctx, "the order exists already and is {status:?}");
            return Ok(Done::nothing_to_undo());
        }
        is_id(&created.order_id).or_invalid("ORDER_ID", "orderId is empty or no id")?;
        is_id(&created.customer_id).or_invalid("CUSTOMER", "customerId is empty or no id")?;
        let customer = created.customer_id.clone();
        Ok(Done::undo_with(Opened {}).state(&Order::of(created, Status::Open)).note("customer", customer))
    }

    /// Also for an order that failed before it could be opened: whoever sent it waits for an answer.
    #[undo(OrderCreated)]
    fn cancel(&self, ctx: &Context, step: Step<OrderCreated, Opened>) -> Compensated {
        if let Some(Order { status: Status::Completed | Status::Cancelled, .. }) = ctx.state() {
            return Err(NotUndone::NothingToUndo);
        }
        let Cause { code, detail, .. } = step.cause;
        let cancelled = OrderCancelled { order_id: step.event.order_id.clone(), reason: code, detail };
        Ok(Undone::new().state(&Order::of(step.event, Status::Cancelled)).emit(cancelled))
    }

    #[on(InventoryUpdated, role = nothing_to_undo, after = [OrderCreated])]
    fn complete(&self, ctx: &Context, updated: InventoryUpdated) -> Handled {
        let order: Order = ctx.state().or_not_yet("NOT_OPEN", "the order is not there yet")?;
        match order.status {
            Status::Open => {}
            Status::Completed => return Ok(Done::nothing_to_undo()),
            Status::Cancelled => Err(Fail::invalid("CANCELLED", "the order was cancelled before"))?,
        }
        let InventoryUpdated { order_id, reservation_id } = updated;
        let result = json!({"orderId": order_id, "status": "completed", "reservationId": reservation_id});
        let completed = OrderCompleted {
            order_id,
            customer_id: order.customer_id.clone(),
            amount_cents: order.amount_cents,
            currency: order.currency.clone(),
            reservation_id,
        };
        let order = Order { status: Status::Completed, ..order };
        Ok(Done::nothing_to_undo().state(&order).emit(completed).finish(&result))
    }
}

/// What can be a note: some text on one line.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.contains(char::is_control)
}

impl Order {
    fn of(created: OrderCreated, status: Status) -> Self {
        let OrderCreated { customer_id, amount_cents, currency, .. } = created;
        Self { status, customer_id, amount_cents, currency }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sagahost_testkit::{self as testkit, MockHost};

    use super::*;

    fn created() -> OrderCreated {
        OrderCreated {
            order_id: "o-1".into(),
            customer_id: "c-1".into(),
            sku: "apple".into(),
            quantity: 2,
            amount_cents: 1998,
            currency: "EUR".into(),
        }
    }

    fn updated() -> InventoryUpdated {
        InventoryUpdated { order_id: "o-1".into(), reservation_id: Some("r-1".into()) }
    }

    fn host() -> MockHost {
        let mut host = MockHost::native::<Orders>();
        host.saga_id_at("/orderId");
        host
    }

    #[test]
    fn an_order_is_opened_and_completed_once() {
        let mut host = host();
        host.send(created()).completed().emitted_nothing().noted("customer", "c-1");
        host.send(updated()).completed().emitted_kinds(&["OrderCompleted"]).emitted_event(OrderCompleted {
            order_id: "o-1".into(),
            customer_id: "c-1".into(),
            amount_cents: 1998,
            currency: "EUR".into(),
            reservation_id: Some("r-1".into()),
        });
        let result = json!({"orderId": "o-1", "status": "completed", "reservationId": "r-1"});
        host.saga("o-1").is(testkit::Status::Completed).finished(result);
        host.send_again().no_effect();
        host.send(updated()).nothing_ran();
        host.compensate("o-1").refused("too late");
    }

    #[test]
    fn an_order_is_cancelled_once() {
        let mut host = host();
        host.send(created()).completed();
        let cancelled = OrderCancelled {
            order_id: "o-1".into(),
            reason: "cancelled".into(),
            detail: "by test: the test says so".into(),
        };
        host.compensate("o-1").undone().emitted_kinds(&["OrderCancelled"]).emitted_event(cancelled);
        host.compensate("o-1").nothing_ran();
        host.send(updated()).nothing_ran();
    }

    #[test]
    fn an_order_that_was_never_opened_is_cancelled_all_the_same() {
        let mut host = host();
        host.compensate("o-1");
        host.send(created()).undone().emitted("OrderCancelled", json!({"orderId": "o-1", "reason": "cancelled"}));
        host.send(OrderCreated { amount_cents: 1, ..created() }).nothing_ran().emitted_nothing();
    }

    #[test]
    fn a_reservation_waits_for_its_order() {
        let mut host = host();
        host.send(updated()).nothing_ran().saga_is(testkit::Status::Waiting);
        host.send(created()).completed().emitted_kinds(&["OrderCompleted"]).saga_is(testkit::Status::Completed);
    }

    #[test]
    fn a_second_order_of_one_saga_changes_nothing() {
        let mut host = host();
        host.send(created()).completed();
        host.send(OrderCreated { amount_cents: 1, ..created() }).completed().emitted_nothing();
        assert_eq!(host.saga("o-1").state::<Order>().map(|order| order.amount_cents), Some(1998));
        host.compensate("o-1").undone().emitted_kinds(&["OrderCancelled"]);
    }

    #[test]
    fn an_order_without_an_id_is_invalid() {
        host().saga("o-1").send(OrderCreated { order_id: String::new(), ..created() }).invalid("ORDER_ID");
    }

    #[test]
    fn an_order_that_nobody_answers_is_cancelled_at_its_deadline() {
        let mut host = host();
        host.saga_deadline(Duration::from_secs(60)).send(created()).completed();
        host.advance(Duration::from_secs(59)).no_effect();
        host.advance(Duration::from_secs(1)).emitted("OrderCancelled", json!({"reason": "saga-deadline"}));
    }
}
