use sagahost_sdk::prelude::*;

#[derive(Config)]
struct Payment {
    #[config(defualt = 5)]
    limit_cents: u64,
}

fn main() {}
