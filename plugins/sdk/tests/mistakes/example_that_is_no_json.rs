use sagahost_sdk::prelude::*;

#[event(example = {orderId: "o-1"})]
struct OrderCreated {
    order_id: String,
}

fn main() {}
