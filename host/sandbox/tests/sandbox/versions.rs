//! Stored versions, the code cache, and what becomes of a manifest in the topology.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use expect_test::expect;
use sagahost_sandbox::{
    Engine, Limits,
    admission::{self, admit},
    digests::DigestStore,
    manifest::Manifest,
    members::{Override, override_faults, topology_members},
};

use crate::kit::{guest, with_manifest};

/// The guest under another manifest, appended: outer ones win.
fn version(version: &str, format: u32) -> Arc<[u8]> {
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
fn compiled_code_is_kept_and_a_damaged_file_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let engine = Engine::new(Limits { instances_max: 2, ..Limits::default() }, Some(dir.path())).unwrap();
        admit(guest(), Path::new("p.wasm"), &engine, &BTreeMap::new()).unwrap_or_else(|report| panic!("{report}"));
    };
    let file = || {
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        (files[0].clone(), fs::read(&files[0]).unwrap())
    };
    start();
    let (path, compiled) = file();
    start();
    assert_eq!(file().1, compiled);
    let mut damaged = compiled.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for bytes in [&damaged[..], &compiled[..100], b""] {
        fs::write(&path, bytes).unwrap();
        start();
        assert_eq!(file().1, compiled, "compiled again");
    }
}

#[test]
fn compiled_code_goes_when_nobody_wants_its_version_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(Limits { instances_max: 2, ..Limits::default() }, Some(dir.path())).unwrap();
    let compile = |bytes| admit(bytes, Path::new("p.wasm"), &engine, &BTreeMap::new()).unwrap().plugin.digest().clone();
    let (kept, dropped) = (compile(version("0.1.0", 1)), compile(version("0.2.0", 1)));
    // A host that was killed while it wrote, one of another version, and somebody's own file.
    for name in [format!("{dropped}-0.cwasm.7.new"), format!("{dropped}-1.cwasm"), "notes-1.cwasm".to_owned()] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let forget = |since| engine.forget_compiled(|digest| *digest == *kept, since).unwrap();
    assert_eq!(forget(SystemTime::UNIX_EPOCH), 0, "it was compiled just now");
    assert_eq!(forget(SystemTime::now() + Duration::from_secs(1)), 3);
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: BTreeSet<bool> = names.map(|name| name.starts_with(&*kept) || name == "notes-1.cwasm").collect();
    assert_eq!(left, BTreeSet::from([true]));
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
