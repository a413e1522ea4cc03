//! A service at a URL in the place of the payment plugin: the same orders end the same, whatever becomes of its answers.
//! Invariant: an order is charged at most once, and each attempt of a call has the same key and the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use expect_test::expect;
use parking_lot::Mutex;
use sagahost::host::{Host, StopReport};
use sagahost_operator::{
    plugin_view::{PluginLine, PluginsView},
    protocol::Request,
};
use sagahost_tests::{
    binary, built,
    events::event,
    http_service::{HttpService, Received, Reply},
    operator::{Operator, attempts},
    shop::Shop,
    wait::until,
};
use sagahost_wire::Outgoing;
use serde_json::{Value, json};

const LIMIT: i64 = 100_000;
const SECONDS: Duration = Duration::from_secs(10);

/// Takes and gives back money. It remembers what it answered to a key, and each order that was called off.
#[derive(Default)]
struct Payments {
    answered: BTreeMap<String, Reply>,
    /// Cents by order; a charge that was given back is 0.
    charged: BTreeMap<String, i64>,
    called_off: BTreeSet<String>,
    /// How often money moved.
    moved: usize,
}

impl Payments {
    fn answer(&mut self, request: &Received) -> Reply {
        let key = request.header("idempotency-key").to_owned();
        if let Some(known) = self.answered.get(&key) {
            return known.clone();
        }
        let reply = match serde_json::from_slice::<Value>(&request.body) {
            Ok(order) if request.path == "/payments" && order["orderId"].is_string() => self.charge(&order),
            Ok(step) if request.path == "/payments/cancel" => self.refund(&step),
            _ => Reply::problem(400, "not-an-order", "that is no order"),
        };
        self.answered.insert(key, reply.clone());
        reply
    }

    fn charge(&mut self, order: &Value) -> Reply {
        let (id, cents) = (order["orderId"].as_str().unwrap_or_default(), order["amountCents"].as_i64().unwrap_or(0));
        if self.called_off.contains(id) {
            return Reply::problem(422, "called-off", "it was called off before it came");
        }
        if cents > LIMIT {
            let failed = json!({ "orderId": id, "code": "LIMIT_EXCEEDED", "detail": "too much" });
            let event =
                json!({ "specversion": "1.0", "type": "PaymentFailed", "source": "/pay", "id": "1", "data": failed });
            let body = json!({ "code": "LIMIT_EXCEEDED", "detail": "too much", "events": [event] });
            return Reply::json(422, &body).with("content-type", "application/problem+json");
        }
        self.charged.insert(id.to_owned(), cents);
        self.moved += 1;
        let processed = json!({
            "orderId": id, "paymentId": format!("p-{id}"), "sku": order["sku"], "quantity": order["quantity"],
            "amountCents": cents,
        });
        Reply::event(201, "PaymentProcessed", &processed)
    }

    fn refund(&mut self, step: &Value) -> Reply {
        self.called_off.insert(step["sagaId"].as_str().unwrap_or_default().to_owned());
        match self.charged.get_mut(step["sagaId"].as_str().unwrap_or_default()) {
            Some(cents) if *cents > 0 => {
                let refunded = json!({ "orderId": step["sagaId"], "paymentId": step["undo"]["data"]["paymentId"], "amountCents": cents });
                *cents = 0;
                self.moved += 1;
                Reply::event(200, "PaymentRefunded", &refunded).with("sagahost-outcome", "undone")
            }
            _ => Reply::status(404).with("sagahost-outcome", "nothing-to-undo"),
        }
    }
}

struct Site {
    shop: Shop,
    service: HttpService,
    payments: Arc<Mutex<Payments>>,
}

/// `spoil`: what becomes of the payments' answer to the nth request (from 0 on).
fn site(more: &str, mut spoil: impl FnMut(usize, &Received, Reply) -> Reply + Send + 'static) -> Site {
    let payments = Arc::<Mutex<Payments>>::default();
    let answering = payments.clone();
    let mut count = 0;
    let service = HttpService::start(move |request| {
        let reply = answering.lock().answer(request);
        count += 1;
        spoil(count - 1, request, reply)
    });
    let shop = shop_with(&service.url(""), more);
    Site { shop, service, payments }
}

fn honest(_: usize, _: &Received, reply: Reply) -> Reply {
    reply
}

fn shop_with(url: &str, more: &str) -> Shop {
    let mut shop = Shop::new(&["order", "inventory"], "");
    let manifest = json!({
        "name": "payment", "version": "3.1.0",
        "subscriptions": [{ "kind": "OrderCreated", "undo-bytes-max": 4096, "retry": { "base-ms": 20, "cap-ms": 200 } }],
        "emits": ["PaymentProcessed", "PaymentFailed", "PaymentRefunded"],
        "compensate-on": ["InventoryRejected"], "finish-on": ["OrderCompleted"],
    });
    std::fs::write(shop.dir.path().join("payment.json"), manifest.to_string()).expect("it can be written");
    shop.configure(&format!(
        "[participant.payment]\nmanifest = \"payment.json\"\nurl = \"{url}/payments\"\nundo-url = \"{url}/payments/cancel\"\n\
         headers.authorization = \"Bearer s3cret\"\n{more}"
    ));
    shop
}

fn created(id: &str, cents: i64, quantity: i64) -> Outgoing {
    let data = json!({
        "orderId": id, "customerId": "c-1", "sku": "apple", "quantity": quantity, "amountCents": cents, "currency": "EUR",
    });
    event("OrderCreated", id, &format!("{id}-created"), &data)
}

impl Site {
    fn start(&self) -> (Host, Operator) {
        let host = self.shop.start();
        let operator = Operator::of(&host);
        (host, operator)
    }

    fn order(&self, id: &str, cents: i64, quantity: i64) {
        self.shop.send(&created(id, cents, quantity));
    }

    fn charged(&self, id: &str) -> Option<i64> {
        self.payments.lock().charged.get(id).copied()
    }

    /// The requests for one order's charge.
    fn charges(&self) -> Vec<Received> {
        self.service.received().into_iter().filter(|request| request.path == "/payments").collect()
    }
}

fn plugins(operator: &Operator) -> PluginsView {
    operator.ask(Request::Plugins).expect("plugins can be listed")
}

/// Two attempts of one call.
fn assert_same(first: &Received, again: &Received) {
    let without_number = |request: &Received| {
        let mut request = request.clone();
        let number = request.headers.remove("sagahost-attempt");
        (request, number)
    };
    let ((first, number), (again, other)) = (without_number(first), without_number(again));
    assert_eq!(first, again);
    assert_ne!(number, other);
}

#[test]
fn orders_are_paid_declined_and_refunded_by_a_service() {
    let site = site("", honest);
    let (host, operator) = site.start();
    site.order("paid", 500, 1);
    site.order("declined", LIMIT + 1, 1);
    site.order("out-of-stock", 500, 1_000_000);
    let paid = operator.await_status("paid", "completed");
    assert_eq!(attempts(&paid, "payment"), ["handle completed"]);
    let declined = operator.await_status("declined", "compensated");
    assert!(declined.cause.is_some_and(|cause| cause.contains("LIMIT_EXCEEDED")), "{:?}", declined.timeline);
    let refunded = operator.await_status("out-of-stock", "compensated");
    assert_eq!(attempts(&refunded, "payment"), ["handle completed", "compensate undone"]);
    assert_eq!(["paid", "declined", "out-of-stock"].map(|id| site.charged(id)), [Some(500), None, Some(0)]);
    for topic in ["payment-processed", "payment-failed", "payment-refunded"] {
        until(&format!("what the service emits is in {topic}"), || {
            (!site.shop.read(&[topic]).is_empty()).then_some(())
        });
    }
    let undo = site.service.received().into_iter().find(|request| request.path == "/payments/cancel");
    let undo = undo.expect("one was refunded").json();
    assert_eq!(undo["evidence"], "done");
    assert_eq!(undo["undo"]["data"]["paymentId"], "p-out-of-stock", "what it answered comes back");
    assert_eq!(undo["cause"]["participant"], "inventory");
    let charge = &site.charges()[0];
    assert_eq!(charge.header("authorization"), "Bearer s3cret");
    assert_eq!(charge.header("ce-type"), "OrderCreated");
    let page = operator.saga("paid").expect("it is there");
    assert!(!format!("{page:?}").contains("s3cret"));
    assert_eq!(operator.letters(), []);
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

/// The service charged, and its answer is lost on the way, in one manner or another.
#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key_and_the_same_bytes() {
    type Spoil = fn(Reply) -> Reply;
    let manners: [(&str, Spoil); 6] = [
        ("no answer", |_| Reply::HangUp),
        ("cut in its head", |reply| Reply::Cut(Box::new(reply), 20)),
        ("cut in its body", |reply| Reply::Cut(Box::new(reply), 150)),
        ("too late", |reply| Reply::After(Duration::from_secs(2), Box::new(reply))),
        ("of a gateway", |_| Reply::status(504)),
        ("still running", |_| Reply::status(409)),
    ];
    for (manner, spoil) in manners {
        let site = site("timeout = \"500ms\"\n", move |n, _, reply| if n == 0 { spoil(reply) } else { reply });
        let (host, operator) = site.start();
        site.order("o-1", 500, 1);
        let saga = operator.await_status("o-1", "completed");
        let calls = site.charges();
        assert_eq!(calls.len(), 2, "{manner}");
        assert_same(&calls[0], &calls[1]);
        assert_eq!(site.payments.lock().moved, 1, "{manner}");
        assert_eq!(attempts(&saga, "payment").len(), 2, "{manner}: {:?}", saga.timeline);
        assert_eq!(host.stop(SECONDS), StopReport::default());
    }
}

/// Attempts are for calls that may have happened.
#[test]
fn a_service_that_is_away_costs_no_attempt_however_long() {
    let site = site("", honest);
    let address = site.service.address.to_string();
    let Site { shop, service, payments } = site;
    drop(service);
    let site = Site { shop, service: HttpService::start(|_| Reply::HangUp), payments };
    let (host, operator) = site.start();
    site.order("o-1", 500, 1);
    let unsent = operator.await_saga("o-1", "tried often", |saga| attempts(saga, "payment").len() >= 5);
    assert!(attempts(&unsent, "payment").iter().all(|attempt| attempt == "handle unsent"), "{:?}", unsent.timeline);
    let line = until("it is said to be unreachable", || {
        plugins(&operator).plugins.into_iter().find(|line| line.name == "payment" && line.state == "unreachable")
    });
    assert!(line.note.is_some_and(|note| note.starts_with("does not answer, its events park: ")));
    let answering = site.payments.clone();
    let back = HttpService::start_at(&address, move |request| answering.lock().answer(request));
    let saga = operator.await_status("o-1", "completed");
    assert_eq!(attempts(&saga, "payment").last().map(String::as_str), Some("handle completed"));
    assert_eq!((back.received().len(), site.charged("o-1")), (1, Some(500)));
    assert!(plugins(&operator).plugins.iter().any(|line| line.name == "payment" && line.state == "serving"));
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

/// Somebody answers, who is not the service: nothing of that says anything of the step.
#[test]
fn an_answer_of_somebody_else_is_waited_out_and_named() {
    let site = site("", |n, _, reply| match n {
        0 => Reply::status(404),
        1 => Reply::status(401),
        2 => Reply::status(302).with("location", "/elsewhere"),
        _ => reply,
    });
    let (host, operator) = site.start();
    site.order("o-1", 500, 1);
    let saga = operator.await_status("o-1", "completed");
    assert_eq!(attempts(&saga, "payment"), ["handle unsent", "handle unsent", "handle unsent", "handle completed"]);
    let told = format!("{:?}", saga.timeline);
    for words in ["misdirected", "look at its `url`", "look at its `headers`", "write that address as its `url`"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(site.charges().len(), 4, "nobody followed");
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

/// It was not known whether it left, so it counts as one that did.
#[test]
fn a_host_that_dies_while_a_call_is_out_makes_it_again_under_its_key() {
    let site =
        site("", |n, _, reply| if n == 0 { Reply::After(Duration::from_secs(1), Box::new(reply)) } else { reply });
    let (host, operator) = site.start();
    site.order("o-1", 500, 1);
    until("the call is out", || (site.charges().len() == 1).then_some(()));
    let saga = operator.saga("o-1").expect("it is journaled before the call leaves");
    assert_eq!(saga.steps.iter().filter(|step| step.participant == "payment").count(), 1);
    drop(operator);
    host.abort();

    let (host, operator) = site.start();
    let saga = operator.await_status("o-1", "completed");
    let calls = site.charges();
    assert_same(&calls[0], &calls[1]);
    assert_eq!((calls.len(), site.payments.lock().moved), (2, 1));
    assert_eq!(attempts(&saga, "payment"), ["handle uncertain", "handle completed"]);
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

#[test]
fn a_stop_waits_for_calls_that_are_out_and_lets_none_leave_any_more() {
    let site = site("calls-at-once-max = 1\n", |_, _, reply| Reply::After(Duration::from_millis(700), Box::new(reply)));
    let (host, _) = site.start();
    site.order("first", 500, 1);
    until("a call is out", || (site.charges().len() == 1).then_some(()));
    site.order("second", 500, 1);
    until("another one waits", || host.journal().saga(&"second".into()).ok().flatten().map(drop));
    let begun = Instant::now();
    assert_eq!(host.stop(SECONDS), StopReport::default());
    assert!(begun.elapsed() < SECONDS);
    assert_eq!(site.charges().len(), 1, "what waited for its turn did not leave");

    let (host, operator) = site.start();
    let first = operator.await_status("first", "completed");
    assert_eq!(attempts(&first, "payment"), ["handle completed"], "its answer was journaled");
    let second = operator.await_status("second", "completed");
    assert_eq!(attempts(&second, "payment").last().map(String::as_str), Some("handle completed"));
    assert_eq!(site.payments.lock().moved, 2);
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

#[test]
fn no_more_calls_are_out_than_the_service_may_get() {
    let (out, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (seen, high) = (out.clone(), most.clone());
    let service = SlowService::start(move || {
        high.fetch_max(seen.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        seen.fetch_sub(1, Ordering::SeqCst);
    });
    let shop = shop_with(&service.0.url(""), "calls-at-once-max = 3\n");
    let host = shop.start();
    let operator = Operator::of(&host);
    for n in 0..20 {
        shop.send(&created(&format!("o-{n}"), 500, 1));
    }
    for n in 0..20 {
        let saga = operator.await_saga(&format!("o-{n}"), "answered", |saga| attempts(saga, "payment").len() == 1);
        assert_eq!(attempts(&saga, "payment"), ["handle rejected"], "{:?}", saga.timeline);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    host.stop(SECONDS);
}

/// One that answers several at once.
struct SlowService(HttpService);

impl SlowService {
    fn start(work: impl Fn() + Send + Sync + 'static) -> Self {
        let work = Arc::new(work);
        Self(HttpService::start_each(move |_| {
            work();
            Reply::status(422)
        }))
    }
}

#[test]
fn a_service_whose_manifest_is_wrong_is_refused_and_the_others_serve() {
    let site = site("", honest);
    let manifest = site.shop.dir.path().join("payment.json");
    std::fs::write(&manifest, r#"{"name": "payments", "version": "1", "finishes": true, "subscriptions": []}"#)
        .expect("it can be written");
    let (host, operator) = site.start();
    let view = plugins(&operator);
    let refused = view.refused.iter().find(|report| report.file.ends_with("payment.json")).expect("it is refused");
    let told = format!("{refused}");
    assert!(told.contains("[participant.payment]") && told.contains("cannot end sagas"), "{told}");
    assert!(view.plugins.iter().any(|line| line.name == "inventory" && line.state == "serving"));
    host.stop(SECONDS);
}

/// As a plugin's file, and like that without a restart.
#[test]
fn another_manifest_is_in_force_while_the_host_runs() {
    let site = site("[watch]\nsettle = \"50ms\"\nrescan = \"200ms\"\n", honest);
    let (host, operator) = site.start();
    let file = site.shop.dir.path().join("payment.json");
    let text = std::fs::read_to_string(&file).expect("it is there").replace("3.1.0", "3.2.0");
    std::fs::write(site.shop.dir.path().join("next"), text).expect("it can be written");
    std::fs::rename(site.shop.dir.path().join("next"), &file).expect("it can be renamed");
    until("the next version serves", || {
        let serves = |line: &PluginLine| line.name == "payment" && line.version == "3.2.0" && line.state != "stored";
        plugins(&operator).plugins.iter().any(serves).then_some(())
    });
    site.order("o-1", 500, 1);
    let saga = operator.await_status("o-1", "completed");
    assert!(saga.steps.iter().any(|step| step.participant == "payment" && step.version == "3.2.0"), "{:?}", saga.steps);
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

/// Each mistake that a service can make, and the law that finds it.
#[test]
fn a_service_is_held_to_what_it_owes() {
    type Slip = Box<dyn Fn(&Received, Reply) -> Reply + Send>;
    let random = |reply: Reply| {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let data = json!({ "orderId": "o", "paymentId": COUNT.fetch_add(1, Ordering::SeqCst) });
        if matches!(reply, Reply::Answer { status: 201, .. }) {
            Reply::event(201, "PaymentProcessed", &data)
        } else {
            reply
        }
    };
    let slips: [(&str, Slip); 6] = [
        ("", Box::new(|_: &Received, reply| reply)),
        ("twice, at-once", Box::new(move |_: &Received, reply| random(reply))),
        (
            "cancel-twice",
            Box::new({
                let seen = Mutex::new(BTreeSet::new());
                move |request: &Received, reply| {
                    let again = !seen.lock().insert(request.header("idempotency-key").to_owned());
                    if again && request.path.ends_with("/cancel") { Reply::status(410) } else { reply }
                }
            }),
        ),
        (
            "cancel-first",
            Box::new(|request: &Received, reply| {
                let unknown = request.path.ends_with("/cancel") && matches!(reply, Reply::Answer { status: 404, .. });
                if unknown && request.json()["evidence"] == "uncertain" { Reply::status(404) } else { reply }
            }),
        ),
        (
            "call-after-cancel",
            Box::new(|_: &Received, reply| match reply {
                Reply::Answer { status: 422, .. } => Reply::event(201, "PaymentProcessed", &json!({})),
                reply => reply,
            }),
        ),
        (
            "rubbish",
            Box::new(|_: &Received, reply| match reply {
                Reply::Answer { status: 400, .. } => Reply::status(500),
                reply => reply,
            }),
        ),
    ];
    let site = binary::Site::new(&[], "");
    let manifest = json!({
        "name": "payment", "version": "1",
        "subscriptions": [{ "kind": "OrderCreated", "example": { "orderId": "{saga}", "amountCents": 5, "sku": "a", "quantity": 1 } }],
        "emits": ["PaymentProcessed", "PaymentFailed", "PaymentRefunded"],
    });
    std::fs::write(site.file("payment.json"), manifest.to_string()).expect("it can be written");
    for (law, slip) in slips {
        let mut payments = Payments::default();
        let service = HttpService::start(move |request| {
            let reply = payments.answer(request);
            slip(request, reply)
        });
        let (url, undo_url) = (service.url("/payments"), service.url("/payments/cancel"));
        let words = ["check", "--url", &url, "--undo-url", &undo_url, "--manifest", "payment.json"];
        let ended = site.run(&words);
        let told = format!("{}{}", ended.out, ended.err);
        if law.is_empty() {
            assert_eq!(ended.code, 0, "{told}");
            assert_eq!(told.matches("  pass ").count(), 6, "{told}");
        } else {
            assert_eq!(ended.code, 8, "{law}: {told}");
            assert!(told.contains(&format!("it breaks {law}\n")), "{law}: {told}");
        }
    }
}

/// Who serves is who is asked: a table of the configuration alone makes no service of a plugin.
#[test]
fn a_plugin_that_serves_under_the_name_of_a_service_goes_on() {
    let service = HttpService::start(|_| Reply::status(422));
    let shop = shop_with(&service.url(""), "");
    built::copy(&["payment"], &shop.dir.path().join("plugins"));
    std::fs::rename(shop.dir.path().join("payment.json"), shop.dir.path().join("later.json")).expect("it is there");
    let host = shop.start();
    let operator = Operator::of(&host);
    std::fs::rename(shop.dir.path().join("later.json"), shop.dir.path().join("payment.json")).expect("it is there");
    until("its manifest is refused", || {
        let refused = plugins(&operator).refused;
        refused
            .iter()
            .any(|report| report.faults.iter().any(|fault| fault.what.contains("that one serves")))
            .then_some(())
    });
    shop.send(&created("o-1", 500, 1));
    let saga = operator.await_status("o-1", "completed");
    assert_eq!(attempts(&saga, "payment"), ["handle completed"]);
    shop.send(&created("o-2", 500, 1_000_000));
    let saga = operator.await_status("o-2", "compensated");
    assert_eq!(attempts(&saga, "payment"), ["handle completed", "compensate undone"]);
    assert_eq!(service.received(), []);
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

/// Whatever a service is away for, its step's deadline runs.
#[test]
fn a_step_that_waits_for_a_service_ends_at_its_deadline() {
    let nowhere = HttpService::start(|_| Reply::HangUp);
    let url = nowhere.url("");
    drop(nowhere);
    let shop = shop_with(&url, "[plugin.payment.on.OrderCreated]\ndeadline = \"3s\"\n");
    let host = shop.start();
    let operator = Operator::of(&host);
    shop.send(&created("o-1", 500, 1));
    let saga = operator.await_status("o-1", "compensated");
    assert!(saga.cause.as_ref().is_some_and(|cause| cause.contains("step-deadline")), "{:?}", saga.cause);
    let ran = attempts(&saga, "payment");
    assert!(ran.iter().filter(|attempt| *attempt == "handle unsent").count() >= 5, "{ran:?}");
    assert_eq!(ran.last().map(String::as_str), Some("compensate nothing-to-undo"), "it was never asked for anything");
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

/// More than a record can carry would stop the publication of everything.
#[test]
fn an_answer_that_no_record_could_carry_is_no_answer() {
    let large = json!({ "orderId": "o-1", "paymentId": "x".repeat(1_500_000) });
    let site = site("", move |n, _, reply| if n == 0 { Reply::event(201, "PaymentProcessed", &large) } else { reply });
    let (host, operator) = site.start();
    site.order("o-1", 500, 1);
    let saga = operator.await_status("o-1", "completed");
    assert_eq!(attempts(&saga, "payment"), ["handle uncertain", "handle completed"]);
    assert!(format!("{:?}", saga.timeline).contains("payload-bytes-max"));
    assert_eq!(host.stop(SECONDS), StopReport::default());
}

/// It looks whether it knows the key, and then takes its time.
#[test]
fn a_service_that_is_asked_twice_at_once_must_not_do_it_twice() {
    let payments = Arc::<Mutex<Payments>>::default();
    let service = HttpService::start_each(move |request| {
        let known = payments.lock().answered.get(request.header("idempotency-key")).cloned();
        std::thread::sleep(Duration::from_millis(200));
        let number = payments.lock().moved + 1;
        let reply = known.unwrap_or_else(|| {
            payments.lock().moved = number;
            Reply::event(201, "PaymentProcessed", &json!({ "orderId": "o", "paymentId": number }))
        });
        payments.lock().answered.insert(request.header("idempotency-key").to_owned(), reply.clone());
        reply
    });
    let site = binary::Site::new(&[], "");
    let manifest = json!({
        "name": "payment", "version": "1", "emits": ["PaymentProcessed"],
        "subscriptions": [{ "kind": "OrderCreated", "role": "nothing-to-undo", "example": { "orderId": "{saga}" } }],
    });
    std::fs::write(site.file("payment.json"), manifest.to_string()).expect("it can be written");
    let ended = site.run(&["check", "--url", &service.url("/payments"), "--manifest", "payment.json"]);
    let told = format!("{}{}", ended.out, ended.err);
    assert_eq!(ended.code, 8, "{told}");
    assert!(told.contains("it breaks at-once, rubbish\n"), "{told}");
}

#[test]
fn what_is_wrong_with_a_service_is_told_with_its_line_and_no_secret_is_shown() {
    let right = "[participant.payment]\nmanifest = \"payment.json\"\nurl = \"https://pay/x?code=s3cret\"\n\
                 [participant.payment.headers]\nx-functions-key = \"s3cret\"\naccept = \"text/plain\"\n\
                 [alerts]\nwebhook = \"https://hooks/T/B?token=s3cret\"\n";
    let site = binary::Site::new(&[], right);
    let shown = site.run(&["config", "show"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(!shown.out.contains("s3cret") && shown.out.contains("text/plain"), "{}", shown.out);
    assert!(shown.out.contains("https://pay/x?(hidden)") && shown.out.contains("(hidden)"), "{}", shown.out);
    let wrong = "[participant.Payment]\n[participant.a]\nmanifest = \"a.json\"\nurl = \"https://u:s3cret@pay/x\"\n\
                 [participant.b]\nmanifest = \"b.json\"\nurl = \"https://pay:84430/x\"\nundo-url = \"pay/x\"\n\
                 rejected = [200]\nheaders = { Host = \"x\", idempotency-key = \"k\", x-a = \"1\", X-A = \"2\" }\n\
                 [participant.c]\nmanifest = \"b.json\"\nurl = \"ftp://pay/x\"\n\
                 [participant.d]\nmanifest = \"b.json\"\nurl = \"https://pay/x\"\n[alerts]\ncommand = [\"mail\"]\n";
    let site = binary::Site::new(&[], wrong);
    let told = site.run(&["config", "check"]);
    assert_eq!(told.code, 2, "{told:?}");
    assert!(!told.err.contains("s3cret"), "{}", told.err);
    expect![[r#"
        sagahost.toml: [participant.Payment] needs manifest = "FILE" and url = "https://…": what Payment handles, and where it is
        sagahost.toml:1: participant.Payment: is not a valid participant name: lower-case letters, digits and hyphens, a letter first
        sagahost.toml:4: participant.a.url: has a user or a password in it: use `headers`, where secrets can be elsewhere
        sagahost.toml:7: participant.b.url: `pay:84430` is no host with a port: write "https://HOST/PATH"
        sagahost.toml:8: participant.b.undo-url: `pay/x` is not a URL (invalid format): write "https://HOST/PATH"
        sagahost.toml:9: participant.b.rejected: 200 is no status that can mean it: 400 to 499
        sagahost.toml:10: participant.b.headers.Host: is the host's own
        sagahost.toml:10: participant.b.headers.X-A: is written twice: upper and lower case are the same header
        sagahost.toml:10: participant.b.headers.idempotency-key: is the host's own
        sagahost.toml:13: participant.c.url: `ftp` is not spoken here: write "https://HOST/PATH"
        sagahost.toml:18: alerts.command: `mail` is looked for nowhere: write the whole path of the program, ["/usr/bin/…", …]
    "#]].assert_eq(&told.err);
}
