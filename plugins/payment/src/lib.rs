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
    iso.or_invalid("CURRENCY", format!("`{}` is no currency code such as EUR", order.currency))?;
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
    use sagahost_sdk::testing::TestHost;

    use super::*;

    fn order(amount_cents: i64) -> OrderCreated {
        OrderCreated {
            order_id: "o-1".into(),
            customer_id: "c-1".into(),
            sku: "apple".into(),
            quantity: 2,
            amount_cents,
            currency: "EUR".into(),
        }
    }

    #[test]
    fn an_order_is_charged_once_and_refunded_in_full() {
        let mut host = TestHost::<Payment>::new();
        host.send(order(3_000)).completed().emitted_kinds(&["PaymentProcessed"]).noted("customer", "c-1");
        assert_eq!(host.counter("balance/c-1"), Some(997_000));
        host.send(order(3_000)).completed().emitted_nothing();
        assert_eq!(host.counter("balance/c-1"), Some(997_000));
        host.undo().nothing_to_undo();
        host.undo().undone().emitted_kinds(&["PaymentRefunded"]);
        assert_eq!(host.counter("balance/c-1"), Some(1_000_000));
        assert_eq!(host.state::<Charge>(), None);
    }

    #[test]
    fn the_payment_id_is_the_same_on_every_attempt() {
        let id = |attempt| {
            let mut host = TestHost::<Payment>::new();
            let done = host.attempt(attempt).send(order(1)).completed();
            done.emissions()[0].clone()
        };
        assert_eq!(id(1), id(2));
    }

    #[test]
    fn an_amount_above_the_limit_is_declined() {
        let mut host = TestHost::<Payment>::new().config("limit-cents", 2_999);
        host.send(order(3_000)).rejected("LIMIT_EXCEEDED").emitted(PaymentFailed {
            order_id: "o-1".into(),
            code: "LIMIT_EXCEEDED".into(),
            detail: "3000 cents are above the limit of 2999".into(),
        });
        host.send(order(2_999)).completed();
    }

    #[test]
    fn an_empty_balance_is_declined_and_stays_as_it_was() {
        let mut host = TestHost::<Payment>::new().config("opening-balance-cents", 5_000);
        host.send(order(3_000)).completed();
        host.saga("saga-2").send(order(3_000)).rejected("INSUFFICIENT").emitted_kinds(&["PaymentFailed"]);
        assert_eq!(host.counter("balance/c-1"), Some(2_000));
        host.send(order(2_000)).completed();
    }

    #[test]
    fn a_charge_that_never_ran_moves_no_money() {
        TestHost::<Payment>::new().undo_never_ran(order(3_000)).nothing_to_undo();
    }

    #[test]
    fn what_can_never_be_charged_is_invalid() {
        let mut host = TestHost::<Payment>::new();
        host.send(order(0)).invalid("AMOUNT");
        host.send(order(-1)).invalid("AMOUNT");
        host.send(OrderCreated { quantity: 0, ..order(1) }).invalid("QUANTITY");
        host.send(OrderCreated { currency: "euros".into(), ..order(1) }).invalid("CURRENCY");
        host.send_json("OrderCancelled", "{}").invalid("UNKNOWN_KIND");
        let detail = host.send_json("OrderCreated", r#"{"orderId": "o-1", "customerId": 7}"#).invalid("MALFORMED");
        assert_eq!(
            detail,
            "failed to read OrderCreated: at customerId: invalid type: integer `7`, expected a string at line 1 column 34"
        );
    }
}
