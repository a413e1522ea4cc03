//! Points for completed orders: a participant that is dropped into a shop which has run for a while. Invariant: an order
//! and a registration give points once.

use sagahost_sdk::prelude::*;

/// An order is done.
#[event(example = {
    "orderId": "o-1", "customerId": "c-1", "amountCents": 1998, "currency": "EUR", "reservationId": "reservation-1"
})]
pub struct OrderCompleted {
    pub order_id: String,
    pub customer_id: String,
    pub amount_cents: u64,
}

/// A customer registered, perhaps long ago.
#[event(example = {"customerId": "c-1"})]
pub struct CustomerRegistered {
    pub customer_id: String,
}

/// Points were given.
#[event]
pub struct PointsGranted {
    pub customer_id: String,
    pub points: u64,
}

#[derive(Config)]
pub struct Loyalty {
    /// Points for becoming a customer.
    #[config(default = 100)]
    welcome_points: u64,
    /// An order gives one point for each of this many cents.
    #[config(default = 100)]
    cents_per_point: u64,
}

#[participant(emits = [PointsGranted])]
impl Loyalty {
    #[on(OrderCompleted, role = nothing_to_undo)]
    fn reward(&self, ctx: &Context, order: OrderCompleted) -> Handled {
        Ok(grant(ctx, order.customer_id, order.amount_cents / self.cents_per_point.max(1)))
    }

    #[on(CustomerRegistered, role = nothing_to_undo, from = earliest)]
    fn welcome(&self, ctx: &Context, registered: CustomerRegistered) -> Handled {
        Ok(grant(ctx, registered.customer_id, self.welcome_points))
    }
}

fn grant(ctx: &Context, customer_id: String, points: u64) -> Done {
    ctx.counter(format!("points/{customer_id}")).ensure(0).give(points);
    Done::nothing_to_undo().emit(PointsGranted { customer_id, points })
}

#[cfg(test)]
mod tests {
    use sagahost_testkit::MockHost;

    use super::*;

    #[test]
    fn an_order_and_a_registration_give_points_once() {
        let mut host = MockHost::native::<Loyalty>();
        host.saga_id_at("/orderId").config("cents-per-point", 50);
        let order = OrderCompleted { order_id: "o-1".into(), customer_id: "c-1".into(), amount_cents: 199 };
        host.send(order).completed().emitted("PointsGranted", json!({"customerId": "c-1", "points": 3}));
        host.send_again().no_effect();
        host.saga_id_at("/customerId").send(CustomerRegistered { customer_id: "c-1".into() }).completed();
        assert_eq!(host.counter_value("points/c-1"), 103);
    }
}
