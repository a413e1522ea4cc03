use sagahost_sdk::prelude::*;

#[event]
fn order_created() {}

fn main() {}
