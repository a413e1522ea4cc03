use sagahost_sdk::prelude::*;

#[derive(Config)]
enum Payment {
    Strict,
    Lenient,
}

fn main() {}
