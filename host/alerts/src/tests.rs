//! What is sent to whom, and when.

use std::time::Duration;

use expect_test::expect;
use sagahost_saga::id::Time;

use crate::{
    look::Alert,
    receivers::{Receiver, alertmanager},
    settings::AlertSettings,
    told::{News, Told},
};

fn alert(code: &str, count: u64) -> Alert {
    Alert {
        name: "saga-needs-operator",
        participant: Some("payment".into()),
        code: code.into(),
        count,
        ids: vec!["o-1".into()],
        command: "sagahost sagas list --status needs-operator".into(),
    }
}

fn settings() -> AlertSettings {
    AlertSettings {
        alertmanager: Some("http://a".parse().expect("it is a URL")),
        webhook: Some("http://w".parse().expect("it is a URL")),
        command: vec!["/bin/true".into()],
        ..AlertSettings::default()
    }
}

/// `amc`: who of the three hears of it.
fn heard(news: &News) -> String {
    let hears = |receiver: &Receiver| receiver.hears(&settings(), news);
    Receiver::ALL.iter().filter(|receiver| hears(receiver)).map(|receiver| &receiver.name()[..1]).collect()
}

#[test]
fn what_fires_is_told_until_it_was_received_and_that_it_ended_too() {
    let mut told = Told::default();
    assert_eq!(heard(&told.news(&[])), "", "nothing needs anybody");
    let one = [alert("compensation-failed", 3)];
    assert_eq!(heard(&told.news(&one)), "awc");
    assert_eq!(heard(&told.news(&one)), "awc", "nobody has acknowledged it");
    told.knows(told.news(&one));
    assert_eq!(heard(&told.news(&one)), "a", "it still is so, which Alertmanager must hear");
    assert_eq!(heard(&told.news(&[alert("compensation-failed", 5)])), "a");
    assert_eq!(heard(&told.news(&[alert("compensation-failed", 6)])), "awc", "twice as many");
    assert_eq!(heard(&told.news(&[one[0].clone(), alert("blocked", 1)])), "awc");
    let over = told.news(&[]);
    assert_eq!((heard(&over), over.resolved.len()), ("awc".to_owned(), 1));
    told.knows(over);
    assert_eq!(heard(&told.news(&[])), "");
}

#[test]
fn alertmanager_hears_how_long_each_lasts() {
    let news = News { firing: vec![alert("blocked", 2)], resolved: vec![alert("stuck", 1)], is_new: true };
    let told = alertmanager("shop", &news, Time(1_700_000_000_000), Duration::from_secs(15));
    expect![[r#"
        [
          {
            "annotations": {
              "command": "sagahost sagas list --status needs-operator",
              "ids": "o-1",
              "summary": "app shop: 2 sagas need an operator: blocked of payment"
            },
            "endsAt": "2023-11-14T22:14:20.000Z",
            "labels": {
              "alertname": "sagahost-saga-needs-operator",
              "app": "shop",
              "code": "blocked",
              "participant": "payment"
            }
          },
          {
            "annotations": {
              "command": "sagahost sagas list --status needs-operator",
              "ids": "o-1",
              "summary": "app shop: 1 sagas need an operator: stuck of payment"
            },
            "endsAt": "2023-11-14T22:13:20.000Z",
            "labels": {
              "alertname": "sagahost-saga-needs-operator",
              "app": "shop",
              "code": "stuck",
              "participant": "payment"
            }
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&told).expect("it is JSON"));
}
