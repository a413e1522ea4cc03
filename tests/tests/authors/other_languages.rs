//! The payment plugin in C, in place of the one in Rust. Invariant: no saga can tell one from the other, and what one
//! of them did the other undoes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use payment::Payment;
use sagahost::host::Host;
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_saga::input::Command as OperatorCommand;
use sagahost_sandbox::{admission::digest, pack};
use sagahost_testkit::{MockHost, Sent, json, protocol::Happened};
use sagahost_tests::{
    binary::Site,
    built,
    faulty::Death,
    plugin_files::{as_built, await_view, drop_in},
    shop::{PATIENCE, Shop, THREE},
    wait::until,
};
use serde_json::Value;
use wit_bindgen_core::{Files, wit_parser::Resolve};

const STOP: Duration = Duration::from_secs(10);

/// `SAGAHOST_UPDATE=1 cargo test -p sagahost-tests --test authors bindings` writes them anew.
#[test]
fn the_bindings_for_c_match_the_contract() {
    let mut resolve = Resolve::default();
    let package = resolve.push_path(built::root().join("wit/plugin.wit")).unwrap().0;
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files).unwrap();
    assert_eq!(files.iter().count(), 3, "a header, a source and an object");
    let dir = built::root().join("plugins/payment-c/bindings");
    for (name, generated) in files.iter() {
        let path = dir.join(name);
        if std::env::var_os("SAGAHOST_UPDATE").is_some() {
            fs::write(&path, generated).unwrap();
        }
        assert!(
            fs::read(&path).unwrap_or_default() == generated,
            "plugins/payment-c/bindings/{name} differs from wit/plugin.wit; \
             write it anew with `SAGAHOST_UPDATE=1 cargo test -p sagahost-tests --test authors bindings`"
        );
    }
}

#[test]
fn the_build_says_what_to_install() {
    let mut build = Command::new(built::root().join("plugins/payment-c/build"));
    let ended = build.env("CLANG", "clang-of-nowhere").output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&ended.stderr),
        "build: there is no clang-of-nowhere here; install it: apt-get install clang lld\n"
    );
}

#[test]
fn both_declare_the_same_and_the_one_in_c_keeps_all_laws() {
    let in_c = fs::read(built::payment_c()).unwrap();
    let manifest = |bytes: &[u8]| serde_json::to_value(pack::manifest_of(bytes).unwrap()).unwrap();
    assert_eq!(manifest(&in_c), manifest(&as_built("payment")));

    let checked = Site::new(&[], "").run(&["check", built::payment_c().to_str().unwrap(), "--strict"]);
    assert_eq!(checked.code, 0, "{checked:?}");
}

/// Every byte of it left out, replaced and followed by the end.
const BODY: &str = r#" {"orderId":"o-1","customerId":"c-\u00e9\"","sku":"\ud834\udd1e",
    "quantity":2,"amountCents":1998,"currency":"EUR","more":{"a":[-1.5e3,null,[{}],true],"b":"\\\ud800\n"}} "#;
const OTHER_BYTES: &str = "\"\\{}[],:019-+.eEuU \n\u{1}\u{7f}é";

fn bodies() -> Vec<String> {
    let places: Vec<usize> = BODY.char_indices().map(|(at, _)| at).collect();
    let around = |at: usize| (&BODY[..at], &BODY[at + 1..]);
    let mut bodies = vec![BODY.to_owned()];
    bodies.extend(places.iter().map(|at| BODY[..*at].to_owned()));
    bodies.extend(places.iter().map(|at| around(*at)).map(|(before, after)| format!("{before}{after}")));
    for other in OTHER_BYTES.chars() {
        bodies.extend(places.iter().map(|at| around(*at)).map(|(before, after)| format!("{before}{other}{after}")));
    }
    bodies
}

/// JSON that no serialiser writes, right or wrong.
fn oddities() -> Vec<String> {
    let right = r#""orderId":"o-1","customerId":"c-1","quantity":2,"amountCents":1998,"currency":"EUR""#;
    let deep = |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(900), close.repeat(900));
    let skus = [r#""\u0000""#, r#""\uD7FF\uE000\uFFFF""#, r#""\uDBFF\uDFFF""#, r#""\uD834""#, r#""\uD834\u0041""#]
        .into_iter()
        .chain([
            r#""\uDD1E\uD834""#,
            r#""\uD834\uD834""#,
            r#""\u00g0""#,
            r#""\u00"#,
            r#""\"#,
            r#""\/\b\f\r\a""#,
            "\"\t\"",
        ])
        .chain(["\"\u{d7ff}\u{e000}\u{ffff}\u{10ffff}\u{800}\u{7ff}\""]);
    let numbers =
        ["-0", "01", "-", "+1", "1.", ".5", "1e", "1e+", "1E-2", "9223372036854775807", "9223372036854775808"]
            .into_iter()
            .chain(["-9223372036854775808", "-9223372036854775809", "100000000000000000000", "0x1", "1_0", "NaN"]);
    let ignored = [
        deep("[", "", "]"),
        deep(r#"{"a":"#, "7", "}"),
        deep("[", "", "}"),
        deep("[{\"a\":[", "1,2", "]}]"),
        "1".repeat(400),
        "[1,]".to_owned(),
        "{\"a\":1,}".to_owned(),
        "{\"a\"}".to_owned(),
        "{1:2}".to_owned(),
        "[1 2]".to_owned(),
        "tru".to_owned(),
        "nulll".to_owned(),
        "\"\\x\"".to_owned(),
    ];
    let with = |more: &str| format!("{{{right},{more}}}");
    let mut oddities: Vec<String> = skus.map(|sku| with(&format!(r#""sku":{sku}"#))).collect();
    oddities.extend(numbers.clone().map(|number| with(&format!(r#""sku":"a","more":{number}"#))));
    oddities.extend(numbers.map(|number| {
        let quantity = format!(r#""quantity":{number}"#);
        with(r#""sku":"a""#).replace(r#""quantity":2"#, &quantity)
    }));
    oddities.extend(ignored.map(|more| with(&format!(r#""sku":"a","more":{more}"#))));
    oddities.extend(
        [r#""sku":"a","sku":"a""#, r#""sku":"a","\u0073ku":"b""#, r#""\u0073ku":"a""#, r#""sku":"a","x":1,"x":2"#]
            .map(with),
    );
    let whole = with(r#""sku":"a""#);
    oddities.extend([
        format!("{whole}{whole}"),
        format!("{whole}\0"),
        format!("\u{feff}{whole}"),
        format!("[{whole}]"),
    ]);
    oddities
}

/// What rules and numbers turn on, in an order that is right otherwise.
fn edges() -> Vec<Value> {
    let right = json!({
        "orderId": "o-1", "customerId": "c-1", "sku": "apple", "quantity": 2, "amountCents": 1_998, "currency": "EUR"
    });
    let numbers = [json!(i64::MIN), json!(-1), json!(0), json!(i64::MAX), json!(u64::MAX), json!(1.0), json!(1e300)];
    let lengths = [0, 1, 128, 129, 505, 70_000].map(|length| json!("x".repeat(length)));
    let texts = ["\u{80}", "\u{9f}", "\u{a0}", "a\nb", "\u{0}", "EUr", "€", "\u{1f600}\"\\/\u{8}\u{c}\t\u{1f}"];
    let others = [json!(null), json!(true), json!([]), json!({}), json!([right])];
    let values: Vec<Value> = numbers.into_iter().chain(lengths).chain(texts.map(Value::from)).chain(others).collect();
    let fields = right.as_object().unwrap();
    let with = |name: &String, value: &Value| {
        let mut order = fields.clone();
        order.insert(name.clone(), value.clone());
        Value::Object(order)
    };
    let limits = [100_000, 100_001, 999_999].map(|cents| with(&"amountCents".to_owned(), &json!(cents)));
    let replaced = fields.keys().flat_map(|name| values.iter().map(move |value| with(name, value)));
    limits.into_iter().chain(replaced).chain([json!([]), json!(null), json!("text"), json!(7)]).collect()
}

/// Where the two may differ: in how their readers word a fault of JSON.
fn without_words(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("code").is_some_and(|code| code == "MALFORMED") {
                fields.remove("detail");
            }
            fields.values_mut().for_each(without_words);
        }
        Value::Array(items) => items.iter_mut().for_each(without_words),
        Value::String(text) if text.contains("failed to read OrderCreated: ") => *text = "malformed".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn told(happened: &Happened) -> Value {
    let mut told = serde_json::to_value(happened).unwrap();
    without_words(&mut told);
    told
}

/// What happened, and how many attempts ended as `completed`.
fn same(hosts: &mut [MockHost; 2], what: &str, act: impl Fn(&mut MockHost) -> Happened) -> usize {
    let [in_rust, in_c] = hosts.each_mut().map(act);
    assert_eq!(told(&in_rust), told(&in_c), "{what}");
    in_c.attempts.iter().filter(|attempt| attempt.outcome == "completed").count()
}

#[test]
fn the_same_events_have_the_same_outcomes() {
    let mut hosts = [MockHost::native::<Payment>(), MockHost::components_in(built::sagahost(), [built::payment_c()])];
    for host in &mut hosts {
        host.config("opening-balance-cents", 1_000_000_000);
    }
    let edges = edges().into_iter().map(|order| order.to_string());
    let mut completed = 0;
    for (number, body) in bodies().into_iter().chain(oddities()).chain(edges).enumerate() {
        let saga = format!("s-{number}");
        let send = |id: &str| {
            let sent = Sent::text("OrderCreated", &*body).in_saga(&saga).with_id(format!("{id}-{number}"));
            move |host: &mut MockHost| host.send(sent.clone()).happened().clone()
        };
        completed += same(&mut hosts, &body, send("first"));
        if number % 7 == 0 {
            same(&mut hosts, &format!("a second time: {body}"), send("second"));
            same(&mut hosts, &format!("undone: {body}"), |host| host.compensate(&saga).happened().clone());
        }
    }
    assert!(completed > 500, "{completed} were charged");
    let sent = Sent { content_type: Some("text/plain".to_owned()), ..Sent::text("OrderCreated", BODY) };
    same(&mut hosts, "no JSON", |host| host.send(sent.clone().in_saga("other").with_id("other")).happened().clone());
}

/// Where a string is read, and where it is skipped. (Records of JSON that are no UTF-8 never reach a plugin.)
#[test]
fn bytes_that_are_no_text_do_not_trap_the_one_in_c() {
    let wrong: [&[u8]; 9] = [
        b"\x80",
        b"\xc1\xbf",
        b"\xc3",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",
    ];
    let site = Site::new(&[], "");
    let plugin = built::payment_c().to_str().unwrap();
    for bytes in wrong {
        let head: &[u8] =
            br#"{"orderId":"o-1","sku":"a","quantity":1,"amountCents":1,"currency":"EUR","customerId":"c"#;
        let read = [head, bytes, br#""}"#].concat();
        let skipped = [head, &br#"","more":""#[..], bytes, br#""}"#].concat();
        for data in [read, skipped] {
            let case = json!([{"kind": "OrderCreated", "base64": STANDARD.encode(&data)}]).to_string();
            let checked = site.run(&["check", plugin, "--law", "malformed", "--case", &case]);
            assert_eq!(checked.code, 0, "{}: {checked:?}", data.escape_ascii());
        }
    }
}

fn some_orders(prefix: &str, count: usize) -> Vec<Order> {
    orders(&Shape { customers: 20, articles: 10, prefix: prefix.to_owned(), ..Shape::of(count) }).collect()
}

fn plugins(shop: &Shop) -> PathBuf {
    shop.dir.path().join("plugins")
}

fn in_c() -> Vec<u8> {
    fs::read(built::payment_c()).unwrap()
}

fn put(dir: &Path, payment: &[u8]) {
    drop_in(dir, "payment.wasm", payment);
}

fn await_payment(host: &Host, bytes: &[u8]) {
    let digest = digest(bytes);
    await_view(host, "the payment plugin that was dropped in", |view| {
        let serves = |state: &str| matches!(state, "serving" | "probation");
        view.plugins.iter().any(|line| line.name == "payment" && *line.digest == *digest && serves(&line.state))
    });
}

#[test]
fn it_serves_the_reference_load_in_place_of_the_other() {
    let shop = Shop::new(&THREE, "");
    put(&plugins(&shop), &in_c());
    let orders = some_orders("o", 600);
    let host = shop.start();
    await_payment(&host, &in_c());
    shop.produce(&orders);
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    shop.assert_right(&orders, &*host.journal());
    assert!(ends.completed.len() > 400, "{} completed", ends.completed.len());
    let published = |topic: &str| shop.read(&[topic]).len();
    assert!(published("payment-failed") >= 600 / 11, "amounts above the limit are declined");
    assert!(published("payment-refunded") > 0, "an order that is out of stock is refunded");
    assert!(host.journal().letter_groups().unwrap().is_empty());
    assert_eq!(host.stop(STOP), Default::default());
}

#[test]
fn each_replaces_the_other_under_load_and_nothing_is_lost_or_doubled() {
    const RELOADS: usize = 10;
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"10ms\"\n");
    let orders = some_orders("o", 1_000);
    let languages = [in_c(), as_built("payment")];
    let host = shop.start();
    for (reload, portion) in orders.chunks(orders.len() / RELOADS).enumerate() {
        shop.produce(portion);
        put(&plugins(&shop), &languages[reload % 2]);
        await_payment(&host, &languages[reload % 2]);
    }
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    shop.assert_right(&orders, &*host.journal());
    let plugins = host.live().plugins().plugins;
    let calls = languages.map(|bytes| {
        let digest = digest(&bytes);
        plugins.iter().find(|line| *line.digest == *digest).map_or(0, |line| line.calls)
    });
    assert!(calls.iter().all(|calls| *calls > 0), "both served: {calls:?}");
    assert!(host.journal().letter_groups().unwrap().is_empty());
    assert_eq!(host.stop(STOP), Default::default());
}

#[test]
fn what_one_charged_the_other_refunds() {
    for [first, second] in [[as_built("payment"), in_c()], [in_c(), as_built("payment")]] {
        let shop = Shop::new(&["order", "payment"], "[watch]\nsettle = \"10ms\"\n");
        put(&plugins(&shop), &first);
        let order = some_orders("o", 1);
        let host = shop.start();
        await_payment(&host, &first);
        shop.produce(&order);
        until("it is paid", || (!shop.read(&["payment-processed"]).is_empty()).then_some(()));
        put(&plugins(&shop), &second);
        await_payment(&host, &second);
        let cancel = OperatorCommand::Cancel { by: "anna".to_owned(), reason: "a test".to_owned() };
        host.live().command(&order[0].order_id.as_str().into(), cancel).unwrap();
        until("it is refunded", || (!shop.read(&["payment-refunded"]).is_empty()).then_some(()));
        shop.await_ends(&order, &Death::never(), PATIENCE);
        shop.assert_right(&order, &*host.journal());
        host.stop(STOP);
    }
}
