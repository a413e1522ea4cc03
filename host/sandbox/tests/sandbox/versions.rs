//! Stored versions, and what becomes of a manifest in the topology.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use expect_test::expect;
use sagahost_sandbox::{
    admission,
    digests::DigestStore,
    manifest::Manifest,
    members::{Override, override_faults, topology_members},
};

use crate::kit::{guest, with_manifest};

/// The guest under another manifest, appended: outer ones win.
pub fn version(version: &str, format: u32) -> Arc<[u8]> {
    let manifest = format!(
        r#"{{"name":"misbehaving","version":"{version}","contract":"0.1.0","subscriptions":[{{"kind":"Try"}}],"emits":["Done"],"data-format":{format}}}"#
    );
    with_manifest(&guest(), &manifest).into()
}

#[test]
fn digests_are_verified_and_dropped_when_nothing_refers_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let digests = DigestStore::open(dir.path()).unwrap();
    let kept = digests.put(&version("0.1.0", 1)).unwrap();
    let dropped = digests.put(&version("0.2.0", 1)).unwrap();
    assert_eq!(digests.get(&kept).unwrap().unwrap(), version("0.1.0", 1));
    assert_eq!(admission::digest(&version("0.1.0", 1)), kept);
    let needed = BTreeSet::from([kept.clone()]);
    assert_eq!(digests.retain(&needed, SystemTime::UNIX_EPOCH).unwrap(), 0, "it was admitted just now");
    assert_eq!(digests.retain(&needed, SystemTime::now() + Duration::from_secs(1)).unwrap(), 1);
    assert!(digests.get(&dropped).unwrap().is_none());
    assert!(digests.has(&kept) && !digests.has(&dropped));
    fs::write(digests.path(&kept), "something else").unwrap();
    let error = digests.get(&kept).unwrap_err().to_string().replace(&dir.path().display().to_string(), "DIR");
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn manifests_become_members_with_defaults_and_overrides() {
    let manifest = |json: &str| Manifest::parse(json.as_bytes()).unwrap();
    let payment = manifest(
        r#"{"name":"payment","version":"1.0.0","contract":"0.1.0","finish-on":["OrderCompleted"],
            "subscriptions":[{"kind":"OrderCreated","retry":{"attempts-max":3}},{"kind":"Shipped","role":"retriable"}]}"#,
    );
    let order = manifest(r#"{"name":"order","version":"1.0.0","contract":"0.1.0","subscriptions":[{"kind":"A"}]}"#);
    let over = Override { base_ms: Some(100_000), deadline_ms: Some(5), ..Override::default() };
    let overrides = BTreeMap::from([("payment".to_owned(), BTreeMap::from([("OrderCreated".to_owned(), over)]))]);
    let members = topology_members(&[(&payment, true), (&order, false)], &overrides, &[]);
    expect![[r#"
        [
            Member {
                name: "order",
                serving: false,
                unreachable: false,
                outside_effects: false,
                subscriptions: [
                    Subscription {
                        kind: "A",
                        role: Compensable,
                        when: Running,
                        after: [],
                        retry: Retry {
                            attempts_max: 5,
                            base: 200ms,
                            cap: 60s,
                        },
                        undo_retry: Retry {
                            attempts_max: 5,
                            base: 200ms,
                            cap: 60s,
                        },
                        deadline: None,
                        park_ttl: 900s,
                        on_dead_letter: Compensate,
                    },
                ],
                compensate_on: {},
                finish_on: {},
                finishes: false,
            },
            Member {
                name: "payment",
                serving: true,
                unreachable: false,
                outside_effects: false,
                subscriptions: [
                    Subscription {
                        kind: "OrderCreated",
                        role: Compensable,
                        when: Running,
                        after: [],
                        retry: Retry {
                            attempts_max: 3,
                            base: 100s,
                            cap: 100s,
                        },
                        undo_retry: Retry {
                            attempts_max: 5,
                            base: 200ms,
                            cap: 60s,
                        },
                        deadline: Some(
                            5ms,
                        ),
                        park_ttl: 900s,
                        on_dead_letter: Compensate,
                    },
                    Subscription {
                        kind: "Shipped",
                        role: Retriable,
                        when: Running,
                        after: [],
                        retry: Retry {
                            attempts_max: 5,
                            base: 200ms,
                            cap: 60s,
                        },
                        undo_retry: Retry {
                            attempts_max: 5,
                            base: 200ms,
                            cap: 60s,
                        },
                        deadline: None,
                        park_ttl: 900s,
                        on_dead_letter: Block,
                    },
                ],
                compensate_on: {},
                finish_on: {
                    "OrderCompleted",
                },
                finishes: false,
            },
        ]"#]]
    .assert_eq(&format!("{members:#?}"));
    let swapped = topology_members(&[(&payment, true), (&order, true)], &overrides, &["payment".to_owned()]);
    assert_eq!(swapped[0].name.as_str(), "payment");
    let wrong = BTreeMap::from([("payment".to_owned(), BTreeMap::from([("OrderCreatd".to_owned(), over)]))]);
    expect![[r#"[Fault { what: "payment does not subscribe to OrderCreatd", place: "configuration, [plugin.payment.on.OrderCreatd]", fix: "did you mean `OrderCreated`?" }]"#]].assert_eq(&format!(
        "{:?}",
        override_faults(&[&payment, &order], &wrong)
    ));
}
