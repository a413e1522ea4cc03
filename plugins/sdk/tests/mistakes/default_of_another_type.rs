use sagahost_sdk::prelude::*;

#[derive(Config)]
struct Payment {
    #[config(default = "many")]
    limit_cents: u64,
}

fn main() {}
