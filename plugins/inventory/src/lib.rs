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
    use sagahost_testkit::{MockHost, Sent, Status};

    use super::*;

    fn paid(order_id: &str, quantity: i64) -> PaymentProcessed {
        PaymentProcessed { order_id: order_id.into(), sku: "apple".into(), quantity }
    }

    fn host() -> MockHost {
        let mut host = MockHost::native::<Inventory>();
        host.saga_id_at("/orderId").config("opening-stock", 5);
        host
    }

    #[test]
    fn articles_are_reserved_once_and_released_in_full() {
        let mut host = host();
        host.send(paid("o-1", 3))
            .completed()
            .emitted("InventoryUpdated", json!({"orderId": "o-1", "sku": "apple", "quantity": 3}));
        host.send_again().no_effect();
        assert_eq!(host.counter_value("stock/apple"), 2);
        host.compensate("o-1").undone().emitted("InventoryReleased", json!({"orderId": "o-1", "quantity": 3}));
        assert_eq!(host.counter_value("stock/apple"), 5);
        assert_eq!(host.saga("o-1").is(Status::Compensated).state::<Reservation>(), None);
    }

    #[test]
    fn a_second_payment_of_one_saga_reserves_nothing() {
        let mut host = host();
        host.send(paid("o-1", 3)).completed();
        host.send(paid("o-1", 1)).completed().emitted_nothing();
        assert_eq!(host.counter_value("stock/apple"), 2);
        host.compensate("o-1").undone().emitted_kinds(&["InventoryReleased"]);
        assert_eq!(host.counter_value("stock/apple"), 5);
    }

    #[test]
    fn exactly_the_stock_is_sold() {
        let mut host = host();
        host.send(paid("o-1", 3)).completed();
        host.send(paid("o-2", 3)).rejected("OUT_OF_STOCK").emitted_event(InventoryRejected {
            order_id: "o-2".into(),
            sku: "apple".into(),
            code: "OUT_OF_STOCK".into(),
            detail: "fewer than 3 of apple are left".into(),
        });
        assert_eq!(host.counter_value("stock/apple"), 2);
        host.send(paid("o-3", 2)).completed();
        assert_eq!(host.counter_value("stock/apple"), 0);
    }

    #[test]
    fn a_reservation_that_never_was_releases_nothing() {
        let mut host = host();
        host.counter("stock/apple", 5).compensate("o-1");
        host.send(paid("o-1", 3)).nothing_to_undo().emitted_nothing();
        assert_eq!(host.counter_value("stock/apple"), 5);
    }

    #[test]
    fn a_reservation_is_kept_once_its_order_is_completed() {
        let mut host = host();
        host.send(paid("o-1", 3)).completed();
        host.send(Sent::json("OrderCompleted", json!({"orderId": "o-1"}))).nothing_ran();
        host.compensate("o-1").nothing_ran();
        assert_eq!(host.counter_value("stock/apple"), 2);
    }

    #[test]
    fn what_can_never_be_reserved_is_invalid() {
        let mut host = host();
        host.send(paid("o-1", 0)).invalid("QUANTITY");
        host.send(PaymentProcessed { sku: String::new(), ..paid("o-2", 1) }).invalid("SKU");
        host.saga("o-3").send(Sent::text("PaymentProcessed", "[]")).invalid("MALFORMED");
    }
}
