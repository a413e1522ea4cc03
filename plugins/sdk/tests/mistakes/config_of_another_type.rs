use sagahost_sdk::prelude::*;

#[derive(Config)]
struct Payment {
    currencies: Vec<String>,
}

fn main() {}
