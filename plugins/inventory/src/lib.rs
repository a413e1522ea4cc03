//! Reserves the articles of a paid order. Invariant: over all sagas, stock and reservations that stand add up to the
//! opening stock; no article is sold twice.

use sagahost_sdk::{prelude::*, warn};

/// An order is paid for.
#[event(example = {
    "orderId": "o-1", "paymentId": "payment-1", "sku": "apple", "quantity": 2, "amountCents": 1998
})]
pub struct PaymentProcessed {
    pub order_id: String,
    pub sku: String,
    pub quantity: i64,
}

/// The articles are reserved.
#[event]
pub struct InventoryUpdated {
    pub order_id: String,
    pub sku: String,
    pub quantity: u64,
    pub reservation_id: String,
}

/// There are not enough of them; nothing is reserved.
#[event]
pub struct InventoryRejected {
    pub order_id: String,
    pub sku: String,
    pub code: String,
    pub detail: String,
}

/// The articles are free again.
#[event]
pub struct InventoryReleased {
    pub order_id: String,
    pub sku: String,
    pub quantity: u64,
    pub reservation_id: String,
}

/// A reservation that stands: this saga's state, and what a release has to know.
#[data]
pub struct Reservation {
    pub reservation_id: String,
    pub sku: String,
    pub quantity: u64,
}

#[derive(Config)]
pub struct Inventory {
    /// Stock of each article when it is first asked for.
    #[config(default = 1_000)]
    opening_stock: i64,
}

#[participant(emits = [InventoryUpdated, InventoryRejected, InventoryReleased], finish_on = ["OrderCompleted"])]
impl Inventory {
    #[on(PaymentProcessed, undo_bytes_max = 4096)]
    fn reserve(&self, ctx: &Context, paid: PaymentProcessed) -> Handled<Reservation> {
        if let Some(Reservation { reservation_id, .. }) = ctx.state() {
            warn!(ctx, "there is a reservation already: {reservation_id}");
            return Ok(Done::nothing_to_undo());
        }
        is_id(&paid.sku).or_invalid("SKU", "sku is empty or no id")?;
        let quantity = u64::try_from(paid.quantity).ok().filter(|quantity| *quantity > 0);
        let quantity = quantity.or_invalid("QUANTITY", format!("{} articles cannot be reserved", paid.quantity))?;

        let taken = stock(ctx, &paid.sku).ensure(self.opening_stock).take(quantity);
        taken
            .or_reject("OUT_OF_STOCK", format!("fewer than {quantity} of {} are left", paid.sku))
            .map_err(|rejection| refuse(&paid, rejection))?;

        let reservation_id = ctx.make_id("reservation");
        let PaymentProcessed { order_id, sku, .. } = paid;
        let reservation = Reservation { reservation_id: reservation_id.clone(), sku: sku.clone(), quantity };
        let updated = InventoryUpdated { order_id, sku, quantity, reservation_id };
        Ok(Done::undo_with(reservation.clone()).state(&reservation).emit(updated))
    }

    #[undo(PaymentProcessed)]
    fn release(&self, ctx: &Context, step: Step<PaymentProcessed, Reservation>) -> Compensated {
        let Reservation { reservation_id, sku, quantity } = step.done()?.clone();
        // It stands as long as this saga's state says so: a second release finds nothing.
        let stands = ctx.state::<Reservation>().is_some_and(|standing| standing.reservation_id == reservation_id);
        if !stands {
            return Err(NotUndone::NothingToUndo);
        }
        stock(ctx, &sku).give(quantity);
        let order_id = step.event.order_id;
        Ok(Undone::new().delete_state().emit(InventoryReleased { order_id, sku, quantity, reservation_id }))
    }
}

fn stock<'a>(ctx: &'a Context, sku: &str) -> sagahost_sdk::Counter<'a> {
    ctx.counter(format!("stock/{sku}"))
}

/// What can be a counter's name: some text on one line.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.contains(char::is_control)
}

fn refuse(paid: &PaymentProcessed, rejection: Rejection) -> Rejection {
    let rejected = InventoryRejected {
        order_id: paid.order_id.clone(),
        sku: paid.sku.clone(),
        code: rejection.problem.code.clone(),
        detail: rejection.problem.detail.clone(),
    };
    rejection.emit(rejected)
}

#[cfg(test)]
mod tests {
    use sagahost_sdk::testing::TestHost;

    use super::*;

    fn paid(quantity: i64) -> PaymentProcessed {
        PaymentProcessed { order_id: "o-1".into(), sku: "apple".into(), quantity }
    }

    #[test]
    fn articles_are_reserved_once_and_released_in_full() {
        let mut host = TestHost::<Inventory>::new();
        host.send(paid(3)).completed().emitted_kinds(&["InventoryUpdated"]);
        host.send(paid(3)).completed().emitted_nothing();
        assert_eq!(host.counter("stock/apple"), Some(997));
        host.undo().nothing_to_undo();
        host.undo().undone().emitted_kinds(&["InventoryReleased"]);
        assert_eq!(host.counter("stock/apple"), Some(1_000));
    }

    #[test]
    fn exactly_the_stock_is_sold() {
        let mut host = TestHost::<Inventory>::new().config("opening-stock", 5);
        host.send(paid(3)).completed();
        host.saga("saga-2").send(paid(3)).rejected("OUT_OF_STOCK").emitted(InventoryRejected {
            order_id: "o-1".into(),
            sku: "apple".into(),
            code: "OUT_OF_STOCK".into(),
            detail: "fewer than 3 of apple are left".into(),
        });
        assert_eq!(host.counter("stock/apple"), Some(2));
        host.send(paid(2)).completed();
        assert_eq!(host.counter("stock/apple"), Some(0));
    }

    #[test]
    fn a_reservation_that_never_was_releases_nothing() {
        TestHost::<Inventory>::new().undo_never_ran(paid(3)).nothing_to_undo();
    }

    #[test]
    fn what_can_never_be_reserved_is_invalid() {
        let mut host = TestHost::<Inventory>::new();
        host.send(paid(0)).invalid("QUANTITY");
        host.send(PaymentProcessed { sku: String::new(), ..paid(1) }).invalid("SKU");
        host.send_json("PaymentProcessed", "[]").invalid("MALFORMED");
    }
}
