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
    #[on(Charge)]
    fn charge(&self, _: &Context, _: Charge) -> Handled<Charge> {
        Ok(Done::undo_with(Charge { amount_cents: 5 }))
    }

    #[undo(Charge)]
    fn refund(&self, _: &Context, _: Step<Charge, Charge>) -> Compensated {
        Ok(Undone::new())
    }
}

fn main() {}
