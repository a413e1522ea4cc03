//! Books the delivery of a paid order, and is there to fail: for some orders its first attempt crashes, some addresses
//! it refuses. Invariant: which orders those are depends on the order id alone, so a run can be repeated and counted.

use sagahost_sdk::prelude::*;

/// An order is paid for.
#[event(example = {
    "orderId": "o-1", "paymentId": "payment-1", "sku": "apple", "quantity": 2, "amountCents": 1998
})]
pub struct PaymentProcessed {
    pub order_id: String,
}

/// A carrier will take it.
#[event]
pub struct ShipmentBooked {
    pub order_id: String,
    pub shipment_id: String,
}

/// No carrier goes there: the order is cancelled and its money goes back.
#[event]
pub struct ShipmentRefused {
    pub order_id: String,
    pub code: String,
    pub detail: String,
}

/// The carrier was sent away.
#[event]
pub struct ShipmentCancelled {
    pub order_id: String,
    pub shipment_id: String,
}

/// What a cancellation has to know.
#[data]
pub struct Booking {
    pub shipment_id: String,
}

#[derive(Config)]
pub struct Shipping {
    /// Of 1,000 orders, this many crash the first attempt.
    #[config(default = 20)]
    crash_permille: u64,
    /// Of 1,000 orders, this many cannot be delivered.
    #[config(default = 20)]
    refuse_permille: u64,
}

#[participant(emits = [ShipmentBooked, ShipmentRefused, ShipmentCancelled], finish_on = ["OrderCompleted"])]
impl Shipping {
    #[on(PaymentProcessed)]
    fn book(&self, ctx: &Context, paid: PaymentProcessed) -> Handled<Booking> {
        let order_id = paid.order_id;
        match self.fate(&order_id) {
            Fate::Crash if ctx.attempt() == 1 => panic!("the label printer is out of paper (order {order_id})"),
            Fate::Refuse => {
                let rejection = Rejection::new("UNDELIVERABLE", format!("no carrier goes where {order_id} should go"));
                let Problem { code, detail } = rejection.problem.clone();
                Err(rejection.emit(ShipmentRefused { order_id, code, detail }).into())
            }
            Fate::Crash | Fate::Book => {
                let shipment_id = ctx.make_id("shipment");
                let booking = Booking { shipment_id: shipment_id.clone() };
                Ok(Done::undo_with(booking).emit(ShipmentBooked { order_id, shipment_id }))
            }
        }
    }

    #[undo(PaymentProcessed)]
    fn cancel(&self, _: &Context, step: Step<PaymentProcessed, Booking>) -> Compensated {
        let Booking { shipment_id } = step.done()?.clone();
        Ok(Undone::new().emit(ShipmentCancelled { order_id: step.event.order_id, shipment_id }))
    }
}

/// What becomes of an order here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Book,
    Crash,
    Refuse,
}

impl Shipping {
    fn fate(&self, order_id: &str) -> Fate {
        let drawn = permille(order_id);
        if drawn < self.refuse_permille {
            Fate::Refuse
        } else if drawn < self.refuse_permille + self.crash_permille {
            Fate::Crash
        } else {
            Fate::Book
        }
    }
}

/// 0 to 999, evenly over the ids: FNV-1a, mixed, since ids that differ in the last digit must fall apart.
pub fn permille(order_id: &str) -> u64 {
    let hash = order_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ (mixed >> 32)) % 1000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sagahost_testkit::MockHost;

    use super::*;

    fn paid() -> PaymentProcessed {
        PaymentProcessed { order_id: "o-1".into() }
    }

    fn host(crash_permille: u64, refuse_permille: u64) -> MockHost {
        let mut host = MockHost::native::<Shipping>();
        host.config("crash-permille", crash_permille).config("refuse-permille", refuse_permille);
        host
    }

    #[test]
    fn a_shipment_is_booked_and_cancelled() {
        let mut host = host(0, 0);
        host.saga("o-1").send(paid()).completed().emitted_kinds(&["ShipmentBooked"]);
        host.compensate("o-1").undone().emitted_kinds(&["ShipmentCancelled"]);
        host.compensate("o-2");
        host.saga("o-2").send(paid()).nothing_to_undo();
    }

    #[test]
    fn an_address_is_refused() {
        host(0, 1000).send(paid()).rejected("UNDELIVERABLE").emitted_kinds(&["ShipmentRefused"]);
    }

    #[test]
    fn a_first_attempt_crashes_and_the_second_does_not() {
        // The example of the manifest must not crash, so an order that does is looked for.
        let crashes = |order: &String| permille(order) < permille("o-1");
        let order_id = (2..).map(|number| format!("o-{number}")).find(crashes).expect("half of them do");
        let mut host = host(permille("o-1"), 0);
        let panicked = format!("it panicked: the label printer is out of paper (order {order_id})");
        host.send(PaymentProcessed { order_id }).trapped(&panicked).emitted_nothing();
        host.advance(Duration::from_secs(1)).completed().emitted_kinds(&["ShipmentBooked"]);
    }

    #[test]
    fn fates_are_drawn_evenly() {
        let shipping = Shipping { crash_permille: 20, refuse_permille: 20 };
        let fates: Vec<Fate> = (1..=10_000).map(|order| shipping.fate(&format!("order-{order}"))).collect();
        let count = |fate| fates.iter().filter(|f| **f == fate).count();
        assert!((150..=250).contains(&count(Fate::Crash)), "{}", count(Fate::Crash));
        assert!((150..=250).contains(&count(Fate::Refuse)), "{}", count(Fate::Refuse));
    }
}
