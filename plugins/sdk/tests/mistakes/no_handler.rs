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
    fn charge(&self) {}
}

fn main() {}
