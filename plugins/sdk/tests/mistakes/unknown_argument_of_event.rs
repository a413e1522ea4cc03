use sagahost_sdk::prelude::*;

#[event(exampel = {"orderId": "o-1"})]
struct OrderCreated {
    order_id: String,
}

fn main() {}
