use sagahost_sdk::prelude::*;

#[event]
struct OrderCreated {
    order_id: String,
}

#[data]
struct Charge {
    amount_cents: u64,
}

#[derive(Config)]
struct Payment {}

#[participant]
impl Payment {
    #[on(OrderCreated)]
    fn charge(&self, _: &Context, _: OrderCreated) -> Handled {
        Ok(Done::nothing_to_undo())
    }

    #[undo(OrderCreated)]
    fn refund(&self, _: &Context, _: Step<OrderCreated, Charge>) -> Compensated {
        Ok(Undone::new())
    }
}

fn main() {}
