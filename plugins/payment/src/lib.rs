//! Takes the money of an order from the customer's balance. Invariant: over all sagas, balances and charges that stand
//! add up to the opening balances.

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

/// A charge that stands: this saga's state, and what a refund has to know.
#[data]
pub struct Charge {
    pub payment_id: String,
    pub customer_id: String,
    pub amount_cents: u64,
}

#[derive(Config)]
pub struct Payment {
    /// A larger amount is declined.
    #[config(default = 100_000)]
    limit_cents: u64,
    /// Opening balance of each customer.
    #[config(default = 1_000_000)]
    opening_balance_cents: i64,
    /// A customer whose account is closed: no refund gets there, and a person decides.
    closed_account: Option<String>,
}

#[participant(
    emits = [PaymentProcessed, PaymentFailed, PaymentRefunded],
    compensate_on = ["InventoryRejected"],
    finish_on = ["OrderCompleted"]
)]
impl Payment {
    #[on(OrderCreated, undo_bytes_max = 4096)]
    fn charge(&self, ctx: &Context, order: OrderCreated) -> Handled<Charge> {
        if let Some(charge) = ctx.state::<Charge>() {
            warn!(ctx, "it is charged already, with {}", charge.payment_id);
            return Ok(Done::nothing_to_undo());
        }
        let amount_cents = check(&order)?;
        let declined = |rejection: Rejection| decline(&order, rejection);
        (amount_cents <= self.limit_cents)
            .or_reject("LIMIT_EXCEEDED", format!("{amount_cents} cents are above the limit of {}", self.limit_cents))
            .map_err(declined)?;
        balance(ctx, &order.customer_id)
            .ensure(self.opening_balance_cents)
            .take(amount_cents)
            .or_reject(
                "INSUFFICIENT",
                format!("the balance of {} does not cover {amount_cents} cents", order.customer_id),
            )
            .map_err(declined)?;

        let payment_id = ctx.make_id("payment");
        let charge = Charge { payment_id: payment_id.clone(), customer_id: order.customer_id, amount_cents };
        Ok(Done::undo_with(charge.clone()).state(&charge).note("customer", charge.customer_id).emit(PaymentProcessed {
            order_id: order.order_id,
            payment_id,
            sku: order.sku,
            quantity: order.quantity,
            amount_cents: order.amount_cents,
        }))
    }

    #[undo(OrderCreated)]
    fn refund(&self, ctx: &Context, step: Step<OrderCreated, Charge>) -> Compensated {
        let charge = step.done()?;
        // The charge stands as long as this saga's state says so: a second refund finds nothing.
        let stands = ctx.state::<Charge>().is_some_and(|standing| standing.payment_id == charge.payment_id);
        if !stands {
            return Err(NotUndone::NothingToUndo);
        }
        (self.closed_account.as_ref() != Some(&charge.customer_id))
            .or_stuck("ACCOUNT_CLOSED", format!("the account of {} takes no refund", charge.customer_id))?;
        balance(ctx, &charge.customer_id).give(charge.amount_cents);
        Ok(Undone::new().delete_state().emit(PaymentRefunded {
            order_id: step.event.order_id.clone(),
            payment_id: charge.payment_id.clone(),
            amount_cents: step.event.amount_cents,
        }))
    }
}

fn balance<'a>(ctx: &'a Context, customer_id: &str) -> sagahost_sdk::Counter<'a> {
    ctx.counter(format!("balance/{customer_id}"))
}

/// What can be a counter's name and a note: some text on one line.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.contains(char::is_control)
}

/// What no attempt could ever charge. Returns the amount.
fn check(order: &OrderCreated) -> Result<u64, Fail> {
    let iso = order.currency.len() == 3 && order.currency.bytes().all(|letter| letter.is_ascii_uppercase());
    iso.or_invalid("CURRENCY", format!("`{}` is not a currency code such as EUR", order.currency))?;
    (order.quantity > 0).or_invalid("QUANTITY", format!("{} articles cannot be paid for", order.quantity))?;
    is_id(&order.customer_id).or_invalid("CUSTOMER", "customerId is empty or no id")?;
    let amount = u64::try_from(order.amount_cents).ok().filter(|amount| *amount > 0);
    amount.or_invalid("AMOUNT", format!("{} cents cannot be taken", order.amount_cents))
}

fn decline(order: &OrderCreated, rejection: Rejection) -> Rejection {
    let failed = PaymentFailed {
        order_id: order.order_id.clone(),
        code: rejection.problem.code.clone(),
        detail: rejection.problem.detail.clone(),
    };
    rejection.emit(failed).note("customer", &order.customer_id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sagahost_testkit::{MockHost, Sent, Status};

    use super::*;

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
        let mut host = MockHost::native::<Payment>();
        host.saga_id_at("/orderId").config("opening-balance-cents", 5_000);
        host
    }

    #[test]
    fn an_order_is_charged_once_and_refunded_in_full() {
        let mut host = host();
        host.send(order("o-1", 3_000))
            .completed()
            .emitted("PaymentProcessed", json!({"orderId": "o-1", "sku": "apple", "quantity": 2, "amountCents": 3_000}))
            .noted("customer", "c-1");
        host.send_again().no_effect();
        assert_eq!(host.counter_value("balance/c-1"), 2_000);
        host.compensate("o-1").undone().emitted("PaymentRefunded", json!({"orderId": "o-1", "amountCents": 3_000}));
        assert_eq!(host.counter_value("balance/c-1"), 5_000);
        assert_eq!(host.saga("o-1").is(Status::Compensated).state::<Charge>(), None);
    }

    #[test]
    fn a_refund_to_a_closed_account_waits_for_a_person() {
        let mut host = host();
        host.config("closed-account", "c-1");
        host.send(order("o-1", 3_000)).completed();
        host.compensate("o-1").stuck("ACCOUNT_CLOSED").emitted_nothing();
        assert_eq!(host.counter_value("balance/c-1"), 2_000);
    }

    #[test]
    fn a_second_order_of_one_saga_is_not_charged() {
        let mut host = host();
        host.send(order("o-1", 3_000)).completed();
        host.send(order("o-1", 1_000)).completed().emitted_nothing();
        assert_eq!(host.counter_value("balance/c-1"), 2_000);
        assert!(host.log()[0].message.starts_with("it is charged already"));
        host.compensate("o-1").undone().emitted_kinds(&["PaymentRefunded"]);
        assert_eq!(host.counter_value("balance/c-1"), 5_000);
    }

    #[test]
    fn the_payment_id_is_the_same_on_every_attempt() {
        let id = |deaths| {
            let mut host = host();
            host.plugin("payment").dies_handling(1..=deaths);
            host.send(order("o-1", 1));
            host.advance(Duration::from_secs(60));
            host.saga("o-1").state::<Charge>().map(|charge| charge.payment_id)
        };
        assert!(id(0).is_some());
        assert_eq!(id(0), id(2));
    }

    #[test]
    fn an_amount_above_the_limit_is_declined() {
        let mut host = host();
        host.config("limit-cents", 2_999);
        host.send(order("o-1", 3_000)).rejected("LIMIT_EXCEEDED").emitted_event(PaymentFailed {
            order_id: "o-1".into(),
            code: "LIMIT_EXCEEDED".into(),
            detail: "3000 cents are above the limit of 2999".into(),
        });
        host.send(order("o-2", 2_999)).completed();
    }

    #[test]
    fn an_empty_balance_is_declined_and_stays_as_it_was() {
        let mut host = host();
        host.send(order("o-1", 3_000)).completed();
        host.send(order("o-2", 3_000))
            .rejected("INSUFFICIENT")
            .emitted_kinds(&["PaymentFailed"])
            .noted("customer", "c-1");
        assert_eq!(host.counter_value("balance/c-1"), 2_000);
        host.send(order("o-3", 2_000)).completed();
    }

    #[test]
    fn a_charge_that_never_ran_moves_no_money() {
        let mut host = host();
        host.counter("balance/c-1", 100);
        host.compensate("o-1");
        host.send(order("o-1", 50)).nothing_to_undo().emitted_nothing();
        assert_eq!(host.counter_value("balance/c-1"), 100);
    }

    #[test]
    fn a_charge_is_kept_once_its_order_is_completed() {
        let mut host = host();
        host.send(order("o-1", 3_000)).completed();
        host.send(Sent::json("OrderCompleted", json!({"orderId": "o-1"}))).nothing_ran();
        host.compensate("o-1").nothing_ran();
        assert_eq!(host.counter_value("balance/c-1"), 2_000);
    }

    #[test]
    fn a_rejection_by_inventory_refunds() {
        let mut host = host();
        host.send(order("o-1", 3_000)).completed();
        host.send(Sent::json("InventoryRejected", json!({"orderId": "o-1"}))).undone();
        assert_eq!(host.counter_value("balance/c-1"), 5_000);
    }

    #[test]
    fn what_can_never_be_charged_is_invalid() {
        let mut host = host();
        host.send(order("o-1", 0)).invalid("AMOUNT").dead_letter("AMOUNT");
        host.send(order("o-2", -1)).invalid("AMOUNT");
        host.send(OrderCreated { quantity: 0, ..order("o-3", 1) }).invalid("QUANTITY");
        host.send(OrderCreated { currency: "euros".into(), ..order("o-4", 1) }).invalid("CURRENCY");
        host.send(OrderCreated { customer_id: String::new(), ..order("o-5", 1) }).invalid("CUSTOMER");
        let malformed = Sent::text("OrderCreated", r#"{"orderId": "o-6", "customerId": 7}"#);
        assert_eq!(
            host.saga("o-6").send(malformed).invalid("MALFORMED").detail(),
            "failed to read OrderCreated: at customerId: invalid type: integer `7`, expected a string at line 1 column 34"
        );
    }
}
