//! A host as a participant: asked for steps over HTTP, and to undo them. Invariant: what it says of a step is so, however
//! often and in which order it is asked; and two hosts end an order as one does.

use std::{net::SocketAddr, time::Duration};

use expect_test::{Expect, expect};
use sagahost::host::Host;
use sagahost_tests::{
    http_client::{Answer, Asked},
    operator::{Operator, attempts},
    shop::Shop,
    wait::until,
};
use serde_json::{Value, json};

const SECONDS: Duration = Duration::from_secs(10);
const ROUTES: &str = "
[http]
listen = \"LISTEN\"
[http.route.\"POST /payments\"]
participant = \"payment\"
[http.route.\"POST /payments/cancel\"]
undo = \"payment\"
[http.route.\"POST /inventory\"]
participant = \"inventory\"
saga-id = \"/orderId\"
[http.route.\"POST /inventory/release\"]
undo = \"inventory\"
";

/// Payments and stock, at that address.
fn shop(listen: &str) -> Shop {
    Shop::new(&["payment", "inventory"], &ROUTES.replace("LISTEN", listen))
}

struct Site {
    host: Host,
    address: SocketAddr,
}

impl Site {
    fn start(shop: &Shop) -> Self {
        let host = shop.start();
        let address = host.http_address().expect("it serves HTTP");
        Self { host, address }
    }

    fn charge(&self, id: &str, cents: i64) -> Asked {
        Asked::new(self.address, "POST", "/payments").with("ce-sagaid", id).json(&order(id, cents))
    }

    fn undo(&self, path: &str, id: &str) -> Asked {
        Asked::new(self.address, "POST", path).json(&json!({ "sagaId": id }))
    }

    fn counter(&self, shop: &Shop, participant: &str, name: &str) -> Option<i64> {
        shop.counters(&*self.host.journal()).get(&(participant.to_owned(), name.to_owned())).copied()
    }
}

fn order(id: &str, cents: i64) -> Value {
    json!({
        "orderId": id, "customerId": "c-1", "sku": "apple", "quantity": 1, "amountCents": cents, "currency": "EUR",
    })
}

#[track_caller]
fn check(answer: &Answer, expect: Expect) {
    expect.assert_eq(&answer.said());
}

/// Kinds of the events that an answer brings.
fn kinds(answer: &Answer) -> Vec<String> {
    let events = answer.json();
    let of = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
    events.as_array().expect("a batch").iter().map(of).collect()
}

#[test]
fn a_step_is_done_once_and_undone_once() {
    let shop = shop("127.0.0.1:0");
    let site = Site::start(&shop);
    let done = site.charge("o-1", 500).send();
    check(&done, expect!["200 completed"]);
    assert_eq!(done.header("content-type"), "application/cloudevents-batch+json");
    assert_eq!(kinds(&done), ["PaymentProcessed"]);
    let again = site.charge("o-1", 500).send();
    assert_eq!((again.said(), &again.body), (done.said(), &done.body), "the answer is repeated");
    check(&site.charge("o-1", 501).send(), expect!["422 uncertain key-reused"]);
    assert_eq!(site.counter(&shop, "payment", "balance/c-1"), Some(1_000_000 - 500));
    // What it emits is the caller's: the participant beside it takes nothing in, and no topic has it.
    assert!(shop.read(&["payment-processed"]).is_empty());
    let processed = &done.json()[0];
    let mut reserve = Asked::new(site.address, "POST", "/inventory").json(&processed["data"]);
    check(&reserve.send(), expect!["200 completed"]);
    assert_eq!(site.counter(&shop, "inventory", "stock/apple"), Some(999));

    let undone = site.undo("/payments/cancel", "o-1").send();
    check(&undone, expect!["200 undone"]);
    assert_eq!(kinds(&undone), ["PaymentRefunded"]);
    check(&site.undo("/payments/cancel", "o-1").send(), expect!["200 undone"]);
    check(&site.undo("/inventory/release", "o-1").send(), expect!["200 undone"]);
    assert_eq!(site.counter(&shop, "payment", "balance/c-1"), Some(1_000_000));
    assert_eq!(site.counter(&shop, "inventory", "stock/apple"), Some(1_000));
    check(&site.charge("o-1", 500).send(), expect!["409 compensated cancelled"]);
    reserve = reserve.with("idempotency-key", "another");
    check(&reserve.send(), expect!["409 compensated cancelled"]);
    site.host.stop(SECONDS);
}

#[test]
fn what_is_declined_invalid_or_unknown() {
    let shop = shop("127.0.0.1:0");
    let site = Site::start(&shop);
    let declined = site.charge("o-1", 100_001).send();
    check(&declined, expect!["422 rejected LIMIT_EXCEEDED"]);
    assert_eq!(declined.json()["events"][0]["type"], "PaymentFailed");
    check(&site.charge("o-1", 100_001).send(), expect!["422 rejected LIMIT_EXCEEDED"]);
    check(&site.undo("/payments/cancel", "o-1").send(), expect!["200 nothing-to-undo"]);
    let malformed = site.charge("o-2", 1).json(&json!({ "orderId": "o-2" }));
    check(&malformed.send(), expect!["400 invalid MALFORMED"]);
    let kind = |kind: &str| site.charge("o-3", 1).with("ce-type", kind).send();
    check(&kind("Nonsense"), expect!["503 retry nobody-handles"]);
    let nameless = Asked::new(site.address, "POST", "/payments").json(&order("o-3", 1));
    check(&nameless.send(), expect!["400 missing-saga-id"]);
    check(&site.charge("o-3", 1).with("ce-sagaid", "%ff").send(), expect!["400 invalid-header"]);
    let undo = |body: &Value| Asked::new(site.address, "POST", "/payments/cancel").json(body).send();
    check(&undo(&json!({})), expect!["400 invalid-undo"]);
    check(&undo(&json!({ "sagaId": "" })), expect!["400 invalid-undo"]);
    site.host.stop(SECONDS);
}

/// A cancel of a step that it never saw is remembered.
#[test]
fn a_step_that_was_called_off_before_it_was_asked_for_does_not_run() {
    let shop = shop("127.0.0.1:0");
    let site = Site::start(&shop);
    check(&site.undo("/payments/cancel", "o-1").send(), expect!["200 nothing-to-undo"]);
    check(&site.charge("o-1", 500).send(), expect!["409 compensated cancelled"]);
    check(&site.charge("o-1", 500).send(), expect!["409 compensated cancelled"]);
    check(&site.undo("/payments/cancel", "o-1").send(), expect!["200 nothing-to-undo"]);
    assert_eq!(site.counter(&shop, "payment", "balance/c-1").unwrap_or(1_000_000), 1_000_000);
    site.host.stop(SECONDS);
}

/// The step ends, and nothing of it can be undone any more.
#[test]
fn an_end_is_an_event_too() {
    let shop = shop("127.0.0.1:0");
    let site = Site::start(&shop);
    check(&site.charge("o-1", 500).send(), expect!["200 completed"]);
    let ended = site.charge("o-1", 0).with("ce-type", "OrderCompleted").json(&json!({ "orderId": "o-1" }));
    let ended = ended.with("idempotency-key", "end");
    check(&ended.send(), expect!["200 completed"]);
    check(&ended.send(), expect!["200 completed"]);
    check(&ended.with("idempotency-key", "end-again").send(), expect!["200 completed"]);
    check(&site.charge("o-1", 500).with("idempotency-key", "late").send(), expect!["409 rejected saga-over"]);
    check(&site.undo("/payments/cancel", "o-1").send(), expect!["500 stuck too-late"]);
    site.host.stop(SECONDS);
}

/// Orders at one host, payments and stock at another.
fn orders(payments: SocketAddr) -> Shop {
    let mut shop = Shop::new(&["order"], "");
    let write = |name: &str, manifest: Value| {
        std::fs::write(shop.dir.path().join(format!("{name}.json")), manifest.to_string()).expect("it can be written");
    };
    let retry = json!({ "base-ms": 20, "cap-ms": 200, "attempts-max": 1000 });
    write(
        "payment",
        json!({
            "name": "payment", "version": "1.0.0",
            "subscriptions": [
                { "kind": "OrderCreated", "undo-bytes-max": 4096, "retry": retry },
                { "kind": "OrderCompleted", "role": "nothing-to-undo", "retry": retry },
            ],
            "emits": ["PaymentProcessed", "PaymentFailed", "PaymentRefunded"], "finish-on": ["OrderCompleted"],
        }),
    );
    write(
        "inventory",
        json!({
            "name": "inventory", "version": "1.0.0",
            "subscriptions": [{ "kind": "PaymentProcessed", "undo-bytes-max": 4096, "retry": retry }],
            "emits": ["InventoryUpdated", "InventoryRejected", "InventoryReleased"], "finish-on": ["OrderCompleted"],
        }),
    );
    let participant = |name: &str, path: &str, undo: &str| {
        format!(
            "[participant.{name}]\nmanifest = \"{name}.json\"\nurl = \"http://{payments}{path}\"\n\
             undo-url = \"http://{payments}{undo}\"\ntimeout = \"2s\"\n"
        )
    };
    shop.configure(&format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[http.route.\"POST /orders\"]\nkind = \"OrderCreated\"\nsaga-id = \"/orderId\"\n{}{}",
        participant("payment", "/payments", "/payments/cancel"),
        participant("inventory", "/inventory", "/inventory/release"),
    ));
    shop
}

#[test]
fn a_host_takes_part_in_the_sagas_of_another() {
    let there = shop("127.0.0.1:0");
    let participants = Site::start(&there);
    let here = orders(participants.address);
    let site = Site::start(&here);
    let ask = |id: &str, cents: i64, quantity: i64| {
        let mut order = order(id, cents);
        order["quantity"] = quantity.into();
        Asked::new(site.address, "POST", "/orders").json(&order)
    };
    check(&ask("paid", 500, 2).send(), expect!["200 completed"]);
    check(&ask("declined", 100_001, 1).send(), expect!["409 compensated LIMIT_EXCEEDED"]);
    check(&ask("out-of-stock", 500, 100_000).send(), expect!["409 compensated OUT_OF_STOCK"]);
    assert_eq!(participants.counter(&there, "payment", "balance/c-1"), Some(1_000_000 - 500));
    assert_eq!(participants.counter(&there, "inventory", "stock/apple"), Some(998));
    let operator = Operator::of(&site.host);
    let refunded = operator.saga("out-of-stock").expect("it is there");
    assert_eq!(attempts(&refunded, "payment"), ["handle completed", "compensate undone"]);
    assert_eq!(here.read(&["payment-processed"]).len(), 2, "what they emit is published by whoever asked");

    // The participants' host is killed and comes back at the same address; orders wait for it.
    let address = participants.address;
    participants.host.abort();
    let mut waiting = ask("later", 500, 1).with("prefer", "wait=50").begin();
    until("it waits", || operator.saga("later").filter(|saga| saga.status == "running"));
    let mut there = there;
    there.configure(&ROUTES.replace("LISTEN", &address.to_string()));
    let participants = Site::start(&there);
    check(&waiting.answer().expect("it is answered"), expect!["200 completed"]);
    assert_eq!(participants.counter(&there, "payment", "balance/c-1"), Some(1_000_000 - 1_000));
    assert_eq!(participants.counter(&there, "inventory", "stock/apple"), Some(997));
    drop(operator);
    site.host.stop(SECONDS);
    participants.host.stop(SECONDS);
}

const PRINCIPALS: &str = "
[http.principal.web]
token-sha256 = \"671391faf68e509ca4ec48ccb0690453e9b82c2fa48273703233d60b52b9640d\"
[http.principal.back]
token-sha256 = \"41e6b600b6112825b5432c4e0e07d9a53ec48610afad04b303b35e6d00ec5229\"
";

/// Each token is its principal's name with `-token` behind it.
#[test]
fn nobody_asks_for_steps_in_the_sagas_of_others_or_undoes_them() {
    let shop = Shop::new(
        &["payment"],
        &format!(
            "[http]\nlisten = \"127.0.0.1:0\"\n[http.route.\"POST /payments\"]\nparticipant = \"payment\"\n\
         [http.route.\"POST /payments/cancel\"]\nundo = \"payment\"\n{PRINCIPALS}"
        ),
    );
    let site = Site::start(&shop);
    let of = |asked: Asked, who: &str| asked.with("authorization", &format!("Bearer {who}-token")).send();
    check(&of(site.charge("o-1", 500), "web"), expect!["200 completed"]);
    check(&of(site.undo("/payments/cancel", "o-1"), "back"), expect!["404 stuck no-such-saga"]);
    check(&of(site.charge("o-1", 500), "back"), expect!["404 invalid no-such-saga"]);
    check(&of(site.undo("/payments/cancel", "o-1"), "web"), expect!["200 undone"]);
    // A cancel that comes first takes the saga's id, too.
    check(&of(site.undo("/payments/cancel", "o-2"), "web"), expect!["200 nothing-to-undo"]);
    check(&of(site.undo("/payments/cancel", "o-2"), "web"), expect!["200 nothing-to-undo"]);
    check(&of(site.charge("o-2", 500), "web"), expect!["409 compensated cancelled"]);
    check(&of(site.undo("/payments/cancel", "o-2"), "web"), expect!["200 nothing-to-undo"]);
    check(&of(site.undo("/payments/cancel", "o-2"), "back"), expect!["404 stuck no-such-saga"]);
    check(&of(site.charge("o-2", 500).with("idempotency-key", "of-back"), "back"), expect!["404 invalid no-such-saga"]);
    site.host.stop(SECONDS);
}
