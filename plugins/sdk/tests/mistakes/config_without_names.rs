use sagahost_sdk::prelude::*;

#[derive(Config)]
struct Payment(u64);

fn main() {}
