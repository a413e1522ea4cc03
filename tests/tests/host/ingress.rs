//! The way in over HTTP: what each request is answered, who may ask, and what becomes of it when clients and hosts go away.
//! Invariant: one key is one saga, money and stock are conserved, and what was answered is so.

use std::{net::SocketAddr, thread, time::Duration};

use expect_test::{Expect, expect};
use sagahost::host::Host;
use sagahost_operator::protocol::Request;
use sagahost_saga::input::Command;
use sagahost_tests::{
    events::tried,
    http_client::{Answer, Asked, Connection},
    operator::Operator,
    shop::{Shop, THREE},
    wait::until,
};
use serde_json::{Value, json};

const SECONDS: Duration = Duration::from_secs(10);
const ORDERS: &str = "[http]\nlisten = \"127.0.0.1:0\"\n[http.route.\"POST /orders\"]\nkind = \"OrderCreated\"\n\
                      saga-id = \"/orderId\"\n";

fn shop(more: &str) -> Shop {
    Shop::new(&THREE, &format!("{ORDERS}{more}"))
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

    fn post(&self, path: &str, body: &Value) -> Asked {
        Asked::new(self.address, "POST", path).json(body)
    }

    fn order(&self, id: &str, cents: i64, quantity: i64) -> Asked {
        self.post("/orders", &order(id, cents, quantity))
    }

    fn get(&self, path: &str) -> Asked {
        Asked::new(self.address, "GET", path)
    }

    fn operator(&self) -> Operator {
        Operator::of(&self.host)
    }
}

fn order(id: &str, cents: i64, quantity: i64) -> Value {
    json!({
        "orderId": id, "customerId": "c-1", "sku": "apple", "quantity": quantity, "amountCents": cents, "currency": "EUR",
    })
}

#[track_caller]
fn check(answer: &Answer, expect: Expect) {
    expect.assert_eq(&answer.said());
}

#[test]
fn each_order_is_answered_as_it_ends() {
    let shop = shop("");
    let site = Site::start(&shop);
    let completed = site.order("o-1", 500, 2).send();
    check(&completed, expect!["200 completed"]);
    let result = completed.json();
    assert_eq!((&result["orderId"], &result["status"]), (&"o-1".into(), &"completed".into()));
    assert_eq!(completed.header("location"), "/sagas/o-1");
    let declined = site.order("o-2", 100_001, 1).send();
    check(&declined, expect!["409 compensated LIMIT_EXCEEDED"]);
    let problem = declined.json();
    assert_eq!((&problem["cause"]["participant"], &problem["sagaId"]), (&"payment".into(), &"o-2".into()));
    check(&site.order("o-3", 500, 100_000).send(), expect!["409 compensated OUT_OF_STOCK"]);
    let soon = site.order("o-4", 500, 1).with("prefer", "respond-async").send().said();
    assert!(["202 running", "200 completed"].contains(&&*soon), "{soon}: either is true");
    until("it is completed", || (site.get("/sagas/o-4").send().said() == "200 completed").then_some(()));
    until("each request is an event for everybody", || (shop.read(&["order-created"]).len() == 4).then_some(()));
    let operator = site.operator();
    let saga = operator.saga("o-1").expect("it is there");
    let taken =
        saga.timeline.iter().filter(|line| line.what == "event" && line.kind.as_deref() == Some("OrderCreated"));
    assert_eq!(taken.count(), 1, "it is taken in once: {saga:#?}");
    let journal = site.host.journal();
    assert_eq!(shop.counters(&*journal)[&("inventory".into(), "stock/apple".into())], 1_000 - 3);
    site.host.stop(SECONDS);
}

/// The rows of what is not taken in, and of what comes twice.
#[test]
fn what_is_wrong_or_comes_twice_is_said() {
    let shop = shop(
        "key = \"optional\"\n[http.route.\"POST /strict\"]\nkind = \"OrderCreated\"\nsaga-id = \"/orderId\"\nkey = \"required\"\n",
    );
    let site = Site::start(&shop);
    let keyed = |id: &str, key: &str| site.order(id, 500, 1).with("idempotency-key", key);
    check(&keyed("o-1", "k-1").send(), expect!["200 completed"]);
    check(&keyed("o-1", "\"k-1\"").send(), expect!["200 completed"]);
    check(&site.order("o-1", 501, 1).with("idempotency-key", "k-1").send(), expect!["422 key-reused"]);
    check(&keyed("o-2", "k-1").send(), expect!["422 key-reused"]);
    let exists = keyed("o-1", "k-2").send();
    check(&exists, expect!["409 saga-exists"]);
    assert_eq!(exists.header("location"), "/sagas/o-1");
    check(&keyed("o-2", &"k".repeat(256)).send(), expect!["400 invalid-key"]);
    check(&keyed("o-2", "a b").send(), expect!["400 invalid-key"]);
    check(&site.post("/strict", &order("o-2", 1, 1)).send(), expect!["400 key-required"]);
    check(&site.post("/orders", &json!({ "id": 1 })).send(), expect!["400 missing-saga-id"]);
    check(&site.post("/orders", &json!({ "orderId": "" })).send(), expect!["400 missing-saga-id"]);
    check(&site.post("/orders", &json!({ "orderId": "x".repeat(2000) })).send(), expect!["400 invalid-saga-id"]);
    let post = || Asked::new(site.address, "POST", "/orders");
    let json = || post().with("content-type", "application/json");
    check(&json().body(b"{\"orderId\":").send(), expect!["400 invalid-json"]);
    check(&json().body(b"\xff").send(), expect!["400 invalid-json"]);
    check(&json().with("content-length", "0").send(), expect!["400 invalid-json"]);
    check(&post().body(b"{}").send(), expect!["415 not-json"]);
    check(&post().with("content-type", "text/plain").body(b"{}").send(), expect!["415 not-json"]);
    check(&post().with("content-type", "application/cloudevents+json").body(b"{}").send(), expect!["415 not-json"]);
    check(&site.get("/orders").send(), expect!["405 other-method"]);
    assert_eq!(site.get("/orders").send().header("allow"), "POST");
    check(&site.post("/nowhere", &json!({})).send(), expect!["404 no-such-route"]);
    check(&site.get("/sagas/nobody").send(), expect!["404 no-such-saga"]);
    check(&site.get("/sagas/%ff").send(), expect!["404 no-such-saga"]);
    check(&site.get("/sagas/nobody/events").send(), expect!["404 no-such-saga"]);
    let journal = site.host.journal();
    assert!(journal.saga(&"o-2".into()).expect("it can be read").is_none(), "nothing of it is there");
    assert!(site.operator().letters().is_empty(), "a conflict is an answer, never a dead letter");
    site.host.stop(SECONDS);
}

#[test]
fn bodies_have_bounds() {
    let bounds = "body-bytes-max = 1000\nbodies-bytes-max = 1500\nbody-timeout = \"3s\"\n";
    let shop = Shop::new(&THREE, &ORDERS.replace("[http.route", &format!("{bounds}[http.route")));
    let site = Site::start(&shop);
    let long = site.post("/orders", &json!({ "orderId": "o-1", "note": "x".repeat(1000) }));
    check(&long.send(), expect!["413 body-too-large"]);
    let mut slow = site.order("o-1", 500, 1).send_part(120);
    let answer = slow.answer().expect("it is answered");
    check(&answer, expect!["408 body-timeout"]);
    // While one is being read, there is no room for another.
    let large = site.post("/orders", &json!({ "orderId": "o-2", "note": "x".repeat(900) }));
    let mut first = until("there is no room", || {
        // Either of the two may be the one that has none.
        let first = large.send_part(1_000);
        (large.send().said() == "503 full").then_some(first)
    });
    check(&first.answer().expect("it is answered"), expect!["408 body-timeout"]);
    assert!(large.send().status < 500, "room returns");
    assert!(site.host.journal().saga(&"o-1".into()).expect("it can be read").is_none());
    site.host.stop(SECONDS);
}

#[test]
fn of_many_that_ask_with_one_key_one_begins_and_all_hear_the_same() {
    let shop = shop("");
    let site = Site::start(&shop);
    let asked = site.order("o-1", 500, 2);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| asked.send())).collect();
        threads.into_iter().map(|thread| thread.join().expect("it is answered")).collect()
    });
    for answer in &answers {
        assert_eq!((answer.said(), &answer.body), ("200 completed".to_owned(), &answers[0].body));
    }
    // Two sagas under one key: whichever was faster.
    let two = ["o-2", "o-3"].map(|id| site.order(id, 500, 1).with("idempotency-key", "k"));
    let mut said: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = two.iter().map(|asked| scope.spawn(|| asked.send().said())).collect();
        threads.into_iter().map(|thread| thread.join().expect("it is answered")).collect()
    });
    said.sort();
    assert_eq!(said, ["200 completed", "422 key-reused"]);
    let journal = site.host.journal();
    assert_eq!(shop.counters(&*journal)[&("inventory".into(), "stock/apple".into())], 1_000 - 3);
    site.host.stop(SECONDS);
}

/// Orders wait for the payment plugin, which an operator has paused.
fn paused(site: &Site) -> Operator {
    let operator = site.operator();
    change(&operator, sagahost_operator::PluginAction::Pause { by: "anna".into(), reason: "a test".into() });
    operator
}

fn change(operator: &Operator, action: sagahost_operator::PluginAction) {
    let done: sagahost_operator::view::Done =
        operator.ask(Request::ChangePlugin { plugin: "payment".into(), action }).expect("it is carried out");
    assert!(done.done, "{done:?}");
}

fn resumed(operator: &Operator) {
    change(operator, sagahost_operator::PluginAction::Resume { by: "anna".into() });
}

#[test]
fn a_client_that_goes_away_cancels_nothing_and_one_that_was_cut_begins_nothing() {
    let shop = shop("");
    let site = Site::start(&shop);
    let operator = paused(&site);
    let journal = site.host.journal();
    let there = |id: &str| journal.saga(&id.into()).expect("it can be read").is_some();
    drop(site.order("o-1", 500, 1).send_part(150));
    let waiting = site.order("o-2", 500, 1).begin();
    until("it is taken in", || there("o-2").then_some(()));
    drop(waiting);
    let mut also = site.order("o-3", 500, 1).begin();
    until("it is taken in", || there("o-3").then_some(()));
    resumed(&operator);
    operator.await_status("o-2", "completed");
    check(&also.answer().expect("it is answered"), expect!["200 completed"]);
    assert!(!there("o-1"));
    site.host.stop(SECONDS);
}

#[test]
fn who_waits_when_the_host_stops_hears_that_it_runs_and_attaches_to_the_next_one() {
    let shop = shop("");
    let site = Site::start(&shop);
    let operator = paused(&site);
    let order = site.order("o-1", 500, 1);
    let mut waiting = order.begin();
    let journal = site.host.journal();
    until("it is taken in", || journal.saga(&"o-1".into()).expect("it can be read"));
    let mut events = site.get("/sagas/o-1/events").begin();
    assert_eq!(events.head().expect("it is answered").0, 200);
    assert!(events.chunk().is_some());
    drop((operator, journal));
    let stopping = thread::spawn(move || site.host.stop(SECONDS));
    let answer = waiting.answer().expect("it is answered");
    check(&answer, expect!["202 running"]);
    assert_eq!(answer.header("location"), "/sagas/o-1");
    while events.chunk().is_some() {}
    assert!(!stopping.join().expect("it stops").cut_off);

    let site = Site::start(&shop);
    let operator = site.operator();
    let mut waiting = order.at(site.address).begin();
    resumed(&operator);
    check(&waiting.answer().expect("it is answered"), expect!["200 completed"]);
    drop(operator);
    site.host.stop(SECONDS);
}

#[test]
fn a_host_that_was_killed_knows_the_key() {
    let shop = shop("");
    let site = Site::start(&shop);
    drop(paused(&site));
    let order = site.order("o-1", 500, 1);
    check(&order.clone().with("prefer", "respond-async").send(), expect!["202 running"]);
    site.host.abort();
    let site = Site::start(&shop);
    let operator = site.operator();
    let mut waiting = order.clone().at(site.address).begin();
    check(&site.order("o-1", 501, 1).send(), expect!["422 key-reused"]);
    resumed(&operator);
    check(&waiting.answer().expect("it is answered"), expect!["200 completed"]);
    assert_eq!(shop.read(&["order-created"]).len(), 1, "it was published once");
    drop(operator);
    site.host.stop(SECONDS);
}

#[test]
fn while_it_runs_the_same_key_waits_with_it_or_conflicts() {
    let shop = shop("concurrent = \"conflict\"\n");
    let site = Site::start(&shop);
    let operator = paused(&site);
    let order = site.order("o-1", 500, 1);
    check(&order.clone().with("prefer", "wait=0").send(), expect!["202 running"]);
    check(&order.send(), expect!["409 running request-in-progress"]);
    let cancelled = operator.cancel("o-2", "a test");
    assert!(cancelled.done);
    check(&site.order("o-2", 500, 1).send(), expect!["409 compensated cancelled"]);
    resumed(&operator);
    operator.await_status("o-1", "completed");
    check(&order.send(), expect!["200 completed"]);
    site.host.stop(SECONDS);
}

/// The states in which nothing is known for good.
#[test]
fn a_saga_that_needs_an_operator_is_a_failure_of_the_server() {
    let route = ORDERS.replace("OrderCreated", "HostileTried").replace("/orderId", "/id");
    let shop = Shop::new(&["hostile"], &route);
    let site = Site::start(&shop);
    let tried = |id: &str, undo: &str| site.post("/orders", &json!({ "id": id, "fault": "none", "undoFault": undo }));
    check(&tried("o-1", "stuck").with("prefer", "wait=0").send(), expect!["202 running"]);
    let operator = site.operator();
    operator.await_saga("o-1", "done", |saga| saga.steps.iter().all(|step| step.state == "done"));
    assert!(operator.cancel("o-1", "a test").done);
    operator.await_status("o-1", "needs-operator");
    check(&tried("o-1", "stuck").send(), expect!["500 needs-operator needs-operator"]);
    check(&site.get("/sagas/o-1").send(), expect!["200 needs-operator"]);
    let accept = Command::Resolve { by: "anna".into(), reason: "x".into(), accept: true, participant: None };
    let done: sagahost_operator::view::Done =
        operator.ask(Request::Command { saga: "o-1".into(), command: accept }).expect("it is answered");
    assert!(done.done);
    operator.await_status("o-1", "compensated");
    let accepted = tried("o-1", "stuck").send();
    check(&accepted, expect!["500 compensated cancelled"]);
    assert_eq!(accepted.json()["steps"][0]["participant"], "hostile");
    // Its record cannot be used: whoever waits hears it.
    let journal = site.host.journal();
    let epoch = journal.identity().epoch;
    journal.quarantine(epoch, &"o-1".into(), "a test").expect("it is quarantined");
    check(&site.get("/sagas/o-1").send(), expect!["500 needs-operator quarantined"]);
    drop((operator, journal));
    site.host.stop(SECONDS);
}

const PRINCIPALS: &str = "
[http.principal.web]
token-sha256 = \"671391faf68e509ca4ec48ccb0690453e9b82c2fa48273703233d60b52b9640d\"
routes = [\"POST /orders\"]
[http.principal.back]
token-sha256 = [\"41e6b600b6112825b5432c4e0e07d9a53ec48610afad04b303b35e6d00ec5229\"]
[http.principal.desk]
token-sha256 = \"6122302bcd3f8ce89bcc5c9198be780e54d4d4a74110b2b88ddf5abb6ccb17a8\"
routes = []
sagas = \"all\"
";

/// Each token is its principal's name with `-token` behind it.
#[test]
fn each_principal_sees_its_own_sagas_and_asks_what_it_may() {
    let [web, back, desk] = ["web", "back", "desk"].map(|name| format!("Bearer {name}-token"));
    let shop =
        shop(&format!("[http.route.\"POST /more\"]\nkind = \"OrderCreated\"\nsaga-id = \"/orderId\"\n{PRINCIPALS}"));
    let site = Site::start(&shop);
    let of = |asked: Asked, who: &str| asked.with("authorization", who).send();
    let refused = site.order("o-1", 500, 1).send();
    check(&refused, expect!["401 unauthorized"]);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    check(&of(site.order("o-1", 500, 1), "Bearer nobody"), expect!["401 unauthorized"]);
    check(&of(site.order("o-1", 500, 1), &web), expect!["200 completed"]);
    check(&of(site.post("/more", &order("o-2", 500, 1)), &web), expect!["403 not-granted"]);
    check(&of(site.order("o-2", 500, 1), &desk), expect!["403 not-granted"]);
    // The same key of another principal is another request.
    check(&of(site.order("o-1", 500, 1), &back), expect!["409 saga-exists"]);
    check(&of(site.order("o-2", 500, 1).with("idempotency-key", "o-1"), &back), expect!["200 completed"]);
    let mut seen = Vec::new();
    for who in [&web, &back, &desk] {
        for id in ["o-1", "o-2"] {
            let of_saga = of(site.get(&format!("/sagas/{id}")), who).said();
            assert_eq!(
                of(site.get(&format!("/sagas/{id}/events")), who).status,
                of_saga[..3].parse::<u16>().expect("a status")
            );
            seen.push(of_saga);
        }
    }
    let (yes, no) = ("200 completed", "404 no-such-saga");
    assert_eq!(seen, [yes, no, no, yes, yes, yes]);
    check(&site.get("/openapi.json").send(), expect!["401 unauthorized"]);
    let described = |who: &str| of(site.get("/openapi.json"), who).json()["paths"].to_string();
    assert!(described(&back).contains("/more"));
    assert!(!described(&web).contains("/more"), "what it may not ask for is not described");
    site.host.stop(SECONDS);
}

#[test]
fn a_page_of_another_site_begins_nothing() {
    let shop = shop("");
    let site = Site::start(&shop);
    let order = || site.order("o-1", 500, 1);
    check(&order().with("origin", "https://evil.example").send(), expect!["403 foreign-origin"]);
    check(&order().with("origin", "null").send(), expect!["403 foreign-origin"]);
    check(&order().with("host", "evil.example").send(), expect!["403 foreign-host"]);
    check(&order().with("content-type", "application/x-www-form-urlencoded").send(), expect!["415 not-json"]);
    check(&Asked::new(site.address, "OPTIONS", "/orders").send(), expect!["405 other-method"]);
    let elsewhere = Asked::new(site.address, "POST", "http://evil.example/orders").json(&json!({ "orderId": "o-1" }));
    check(&elsewhere.send(), expect!["400 two-hosts"]);
    let own = format!("http://{}", site.address);
    check(&order().with("origin", &own).send(), expect!["200 completed"]);
    site.host.stop(SECONDS);
}

#[test]
fn a_saga_is_followed_by_version_and_by_events() {
    let shop = shop("");
    let site = Site::start(&shop);
    let operator = paused(&site);
    check(&site.order("o/1", 500, 1).with("prefer", "wait=0").send(), expect!["202 running"]);
    let path = "/sagas/o%2F1";
    let first = site.get(path).send();
    check(&first, expect!["200 running"]);
    let document = first.json();
    assert_eq!((&document["sagaId"], &document["status"]), (&"o/1".into(), &"running".into()));
    let version = first.header("etag").to_owned();
    let known = site.get(path).with("if-none-match", &version);
    check(&known.send(), expect!["304 running"]);
    check(&known.clone().with("prefer", "wait=1").send(), expect!["304 running"]);

    let mut events = site.get(&format!("{path}/events")).begin();
    let (status, headers) = events.head().expect("it is answered");
    assert_eq!((status, headers["content-type"].as_str()), (200, "text/event-stream"));
    let mut polling = known.with("prefer", "wait=30").begin();
    resumed(&operator);
    let changed = polling.answer().expect("it is answered");
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), version);
    let lines = read_events(&mut events);
    let created = lines[0].0.split_once('.').expect("the saga, and the place").0.to_owned();
    let id = |place: usize| format!("{created}.{place}");
    let ids = |lines: &[(String, String)]| lines.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&lines), (0..lines.len()).map(id).collect::<Vec<_>>(), "each once, in order");
    assert!(lines.last().is_some_and(|(_, line)| line.contains("\"status\":\"completed\"")), "{lines:?}");
    let last = lines.len() - 1;
    let from = |last: &str| site.get(&format!("{path}/events")).with("last-event-id", last);
    let follows = |last: &str| {
        let mut rest = from(last).begin();
        rest.head();
        ids(&read_events(&mut rest))
    };
    assert_eq!(follows(&id(last - 2)), [id(last - 1), id(last)]);
    assert_eq!(from(&id(last)).send().status, 204, "nothing follows");
    assert_eq!(follows(&format!("1.{last}")), ids(&lines), "that was another saga under this id");
    site.host.stop(SECONDS);
}

/// To the end: place and data of each.
fn read_events(events: &mut Connection) -> Vec<(String, String)> {
    let mut text = String::new();
    while let Some(chunk) = events.chunk() {
        text += &String::from_utf8_lossy(&chunk);
    }
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    text.split("\n\n").filter_map(|block| Some((field(block, "id:")?, field(block, "data:")?))).collect()
}

#[test]
fn the_routes_are_described() {
    let shop = shop(
        "[http.route.\"POST /payments\"]\nparticipant = \"payment\"\n[http.route.\"POST /payments/cancel\"]\nundo = \"payment\"\n",
    );
    let site = Site::start(&shop);
    let document = site.get("/openapi.json").send().json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths: Vec<&String> = document["paths"].as_object().expect("paths").keys().collect();
    assert_eq!(paths, ["/orders", "/payments", "/payments/cancel", "/sagas/{sagaId}", "/sagas/{sagaId}/events"]);
    let example = &document["paths"]["/orders"]["post"]["requestBody"]["content"]["application/json"]["example"];
    assert!(example["orderId"].is_string(), "{example}");
    site.host.stop(SECONDS);
}

/// It is not taken in, and the same request may be sent again.
#[test]
fn a_body_that_comes_while_the_host_stops_is_refused() {
    let shop = shop("");
    let site = Site::start(&shop);
    let whole = site.order("o-1", 500, 1);
    let mut half = whole.send_part(150);
    // Another one is answered: so the first one's head was read.
    check(&site.order("o-2", 500, 1).send(), expect!["200 completed"]);
    site.host.stop(SECONDS);
    let answer = half.answer().expect("it is answered");
    check(&answer, expect!["503 stopping"]);
}

/// A record from elsewhere, and a request, for one saga.
#[test]
fn requests_and_records_meet_in_one_saga() {
    let shop = Shop::new(&["hostile"], &ORDERS.replace("OrderCreated", "HostileTried").replace("/orderId", "/id"));
    let site = Site::start(&shop);
    shop.send(&tried("o-1", "none", "none"));
    let operator = site.operator();
    operator.await_saga("o-1", "done", |saga| saga.steps.iter().any(|step| step.state == "done"));
    let same = site.post("/orders", &json!({ "id": "o-1", "fault": "none", "undoFault": "none" }));
    check(&same.send(), expect!["409 saga-exists"]);
    drop(operator);
    site.host.stop(SECONDS);
}

/// A certificate authority of the test's own, a server and a client that it knows: `NAME.pem` and `NAME.key`.
fn certificates(dir: &std::path::Path) {
    let openssl = |line: &str| {
        let output = std::process::Command::new("openssl").args(line.split(' ')).current_dir(dir).output();
        let output = output.expect("openssl is there");
        assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey rsa:2048 -nodes";
    openssl(&format!("req {key} -x509 -days 30 -subj /CN=authority -keyout ca.key -out ca.pem"));
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").expect("it can be written");
    for (name, subject) in [("server", "/CN=127.0.0.1"), ("desk", "/O=Shop/CN=desk")] {
        openssl(&format!("req {key} -subj {subject} -keyout {name}.key -out {name}.csr"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out {name}.pem"
        ));
    }
}

/// What is answered over TLS. `client`: further words for the client.
fn over_tls(address: SocketAddr, dir: &std::path::Path, client: &str, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut command = std::process::Command::new("openssl");
    command.args(format!("s_client -quiet -verify_return_error -CAfile ca.pem -connect {address}").split(' '));
    command.args(client.split_whitespace()).current_dir(dir);
    let piped = std::process::Stdio::piped;
    let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().expect("openssl is there");
    let mut input = child.stdin.take().expect("it has one");
    input.write_all(request.as_bytes()).expect("it reads");
    let mut said = String::new();
    child.stdout.take().expect("it has one").read_to_string(&mut said).expect("it is text");
    drop(input);
    child.wait().expect("it ends");
    said.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_certificate_says_who_asks() {
    let mut shop = shop("");
    certificates(shop.dir.path());
    shop.configure(&format!(
        "{ORDERS}[http.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient-ca = \"ca.pem\"\n\
         [http.principal.desk]\ncert-subject = \"CN=desk,O=Shop\"\n[http.principal.server]\ncert-subject = \"CN=other\"\n"
    ));
    let site = Site::start(&shop);
    let body = order("o-1", 500, 1).to_string();
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let ask = |client: &str| over_tls(site.address, shop.dir.path(), client, &request);
    assert_eq!(ask("-cert desk.pem -key desk.key"), "HTTP/1.1 200 OK");
    assert_eq!(ask(""), "HTTP/1.1 401 Unauthorized", "nobody says who asks");
    assert_eq!(ask("-cert server.pem -key server.key"), "HTTP/1.1 401 Unauthorized", "it is known, and no principal");
    // Without TLS nothing is understood.
    assert_eq!(site.order("o-2", 500, 1).try_send(), None);
    site.host.stop(SECONDS);
}
