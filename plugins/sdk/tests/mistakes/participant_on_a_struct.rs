use sagahost_sdk::prelude::*;

#[event]
struct OrderCreated {
    order_id: String,
}

#[data]
struct Charge {
    amount_cents: u64,
}

#[participant]
struct Payment {}

fn main() {}
