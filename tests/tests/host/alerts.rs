//! What needs a person is told to one, as long as it is so, and that it is settled too. Invariant: a receiver that was away, or
//! a host that was killed, hears of nothing the less.

use std::{fs, path::Path, time::Duration};

use sagahost_operator::protocol::Request;
use sagahost_saga::input::Command;
use sagahost_tests::{
    events::tried,
    http_service::{HttpService, Received, Reply},
    operator::Operator,
    shop::Shop,
    wait::until,
};
use serde_json::Value;

const SECONDS: Duration = Duration::from_secs(10);

fn shop(alerts: &str) -> Shop {
    Shop::new(&["hostile"], &format!("[alerts]\ninterval = \"1s\"\n{alerts}"))
}

/// A saga whose compensation fails.
fn stuck(shop: &Shop, operator: &Operator, saga: &str) {
    shop.send(&tried(saga, "none", "stuck"));
    operator.await_saga(saga, "done", |saga| saga.steps.iter().all(|step| step.state == "done"));
    assert!(operator.cancel(saga, "a test").done);
    operator.await_status(saga, "needs-operator");
}

fn accept(operator: &Operator, saga: &str) {
    let command = Command::Resolve { by: "anna".into(), reason: "written off".into(), accept: true, participant: None };
    let done: sagahost_operator::view::Done =
        operator.ask(Request::Command { saga: saga.into(), command }).expect("the command is answered");
    assert!(done.done, "{done:?}");
}

fn codes(list: &Value) -> Vec<String> {
    let codes = list.as_array().expect("a list").iter();
    codes.map(|alert| format!("{} {} {}", alert["name"], alert["code"], alert["count"]).replace('"', "")).collect()
}

#[test]
fn a_failed_compensation_is_told_to_each_receiver_until_it_is_settled() {
    let service = HttpService::start_each(|_| Reply::status(200));
    let place = tempfile::tempdir().expect("a directory can be made");
    let mails = place.path().join("mails");
    let script = format!("/bin/cat >> {m}; echo >> {m}; [ -z \"$HOME\" ]", m = mails.display());
    let shop = shop(&format!(
        "alertmanager = \"{}\"\nwebhook = \"{}\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n\
         headers.authorization = \"Bearer s3cret\"\n",
        service.url(""),
        service.url("/hook"),
    ));
    let host = shop.start();
    let operator = Operator::of(&host);
    stuck(&shop, &operator, "o-1");
    let fires = "saga-needs-operator compensation-failed 1";
    let mail = until("a mail is written", || mails_of(&mails).into_iter().next());
    assert_eq!(codes(&mail["firing"]), [fires]);
    assert_eq!((&mail["app"], &mail["resolved"]), (&"shop".into(), &Value::Array(Vec::new())));
    let alert = &mail["firing"][0];
    assert_eq!((&alert["participant"], &alert["ids"][0]), (&"hostile".into(), &"o-1".into()));
    assert_eq!(alert["summary"], "app shop: 1 sagas need an operator: compensation-failed of hostile");
    let command = alert["command"].as_str().unwrap_or_default();
    assert!(command.starts_with("sagahost sagas list --status needs-operator --config "), "{command}");
    let hook = until("the webhook is called", || to(&service, "/hook").into_iter().next());
    assert_eq!(codes(&hook.json()["firing"]), [fires]);
    assert_eq!(hook.header("authorization"), "Bearer s3cret");
    let repeated = until("Alertmanager hears of it again", || {
        let told = to(&service, "/api/v2/alerts");
        (told.len() >= 3).then(|| told[2].json())
    });
    assert_eq!(repeated[0]["labels"]["alertname"], "sagahost-saga-needs-operator");
    assert_eq!(repeated[0]["labels"]["participant"], "hostile");
    assert_eq!((to(&service, "/hook").len(), mails_of(&mails).len()), (1, 1), "nothing is new for the others");

    accept(&operator, "o-1");
    let over = until("a mail says that it is settled", || mails_of(&mails).into_iter().nth(1));
    assert_eq!((codes(&over["firing"]), codes(&over["resolved"])), (Vec::new(), vec![fires.to_owned()]));
    host.stop(SECONDS);
}

#[test]
fn what_a_receiver_missed_it_is_told_when_it_is_back_and_by_the_next_host() {
    let service = HttpService::start_each(|_| Reply::status(503));
    let shop = shop(&format!("webhook = \"{}\"\n", service.url("/hook")));
    let host = shop.start();
    let operator = Operator::of(&host);
    stuck(&shop, &operator, "o-1");
    until("it is told in vain", || (to(&service, "/hook").len() >= 2).then_some(()));
    drop(operator);
    host.abort();
    let address = service.address.to_string();
    drop(service);
    let back = HttpService::start_at(&address, |_| Reply::status(200));
    let host = shop.start();
    let told = until("the next host tells it", || to(&back, "/hook").into_iter().next());
    assert_eq!(codes(&told.json()["firing"]), ["saga-needs-operator compensation-failed 1"]);
    host.stop(SECONDS);
}

fn to(service: &HttpService, path: &str) -> Vec<Received> {
    service.received().into_iter().filter(|request| request.path == path).collect()
}

fn mails_of(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
