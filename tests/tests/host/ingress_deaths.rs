//! Clients that order over HTTP from a host that is killed again and again. Invariant: each repeats its request under its key until
//! it hears of its order, and then every order has ended once, as each client was answered.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use sagahost_demo::{
    requests::Requests,
    workload::{Order, Shape, orders},
};
use sagahost_tests::{
    built,
    http_client::Asked,
    shop::{Shop, THREE},
    wait::until,
};

/// `SAGAHOST_ORDERS=5000` for more.
const ORDERS: usize = 400;
const DEATHS: usize = 4;

fn count() -> usize {
    std::env::var("SAGAHOST_ORDERS").ok().and_then(|count| count.parse().ok()).unwrap_or(ORDERS)
}

/// The real binary, in a process of its own.
struct Process(Child);

impl Process {
    fn start(shop: &Shop, address: SocketAddr) -> Self {
        let mut command = Command::new(built::sagahost());
        command.args(["run", "--config"]).arg(shop.dir.path().join("sagahost.toml"));
        command.env("XDG_STATE_HOME", built::state()).env("RUST_LOG", "warn");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the binary starts");
        let mut process = Self(child);
        until("the host answers", || {
            let ended = process.0.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "the host ended: {ended:?}");
            Asked::new(address, "GET", "/openapi.json").try_send()
        });
        process
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn orders_over_http_survive_hosts_that_are_killed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    drop(listener);
    let shop = Shop::new(
        &THREE,
        &format!(
            "[http]\nlisten = \"{address}\"\n[http.route.\"POST /orders\"]\nkind = \"OrderCreated\"\nsaga-id = \"/orderId\"\n"
        ),
    );
    let count = count();
    let orders: Vec<Order> = orders(&Shape { customers: count, articles: 20, ..Shape::of(count) }).collect();
    let mut process = Process::start(&shop, address);
    let requests = Requests::new(&format!("http://{address}/orders"), 256).expect("a client can be made");
    let mut under_way = 0;
    for death in 0..=DEATHS {
        let part = orders.len() * death / (DEATHS + 1)..orders.len() * (death + 1) / (DEATHS + 1);
        orders[part].iter().for_each(|order| requests.send(order).expect("an order is JSON"));
        if death < DEATHS {
            process.kill();
            under_way += usize::from(!shop.ends().is_empty() && shop.ends().len() < orders.len());
            process = Process::start(&shop, address);
        }
    }
    assert!(under_way > 0, "no host was killed in the middle of it");
    let answers = until("every client is answered", || {
        Some(requests.answers()).filter(|answers| answers.by_order.len() == orders.len())
    });
    assert!(answers.repeated > 0, "no client had to ask again");
    for order in &orders {
        let said = Asked::new(address, "GET", &format!("/sagas/{}", order.order_id)).send().said();
        let expected = if answers.by_order[&order.order_id] == 200 { "200 completed" } else { "200 compensated" };
        assert_eq!(said, expected, "{}", order.order_id);
    }
    // What is journaled is published by the next host at the latest.
    until("every end is published", || (shop.ends().len() == orders.len()).then_some(()));
    process.kill();
    let ends = shop.ends();
    assert_eq!(answers.faults(|order| ends.completed.contains_key(order)), Vec::<String>::new());
    assert_eq!(shop.read(&["order-created"]).len(), orders.len(), "each request is one event");
    shop.assert_right(&orders, &*shop.journal().expect("the journal opens"));
}
