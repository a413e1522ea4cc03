//! Files that must not serve, each with its whole report.

use std::{collections::BTreeMap, path::Path};

use expect_test::{Expect, expect};
use sagahost_sandbox::{admission::admit, pack::append_manifest, settings::Settings};
use serde_json::json;

use crate::kit::{engine, guest, with_manifest};

const GOOD: &str = r#"{"name":"p","version":"1.0.0","contract":"0.1.0","subscriptions":[{"kind":"OrderCreated"}]}"#;

fn settings(config: &[(&str, serde_json::Value)]) -> BTreeMap<String, Settings> {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    BTreeMap::from([("misbehaving".to_owned(), Settings { config, ..Settings::default() })])
}

fn check(bytes: &[u8], expected: Expect) {
    let report = admit(bytes.into(), Path::new("p.wasm"), &engine(), &BTreeMap::new()).unwrap_err();
    expected.assert_eq(&report.to_string());
}

/// A component of the text format, with a manifest that is fine.
fn component(text: &str) -> Vec<u8> {
    append_manifest(&wat::parse_str(text).unwrap(), GOOD.as_bytes()).unwrap()
}

#[test]
fn files_that_are_no_components() {
    check(
        b"",
        expect![[r#"
        p.wasm is not admitted: 1 fault
          - it is empty
            where: the file
            do:    copy it again, under another name first, and rename it then"#]],
    );
    check(
        b"(component)",
        expect![[r#"
        p.wasm is not admitted: 1 fault
          - it is a text file, not a component
            where: the file
            do:    build the component from it and copy that"#]],
    );
    check(
        &wat::parse_str("(module)").unwrap(),
        expect![[r#"
        p.wasm is not admitted: 1 fault
          - it is a core module, not a component
            where: the file
            do:    build it with `sagahost build`, or `wasm-tools component new`"#]],
    );
    check(
        b"\x7fELF\x02\x01\xff\xff",
        expect![[r#"
        p.wasm is not admitted: 1 fault
          - it is no WebAssembly component
            where: the file
            do:    copy the component that the build made"#]],
    );
    check(
        b"\0asm\x0d\0\x01\0\x01\x7f\0asm",
        expect![[r#"
            p.wasm is not admitted: 1 fault
              - it is no valid component: unexpected end-of-file
                where: byte 14 of the file
                do:    build it again: it is damaged, or made by a newer toolchain than this host reads"#]],
    );
}

#[test]
fn components_of_another_world() {
    check(
        &component(r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#),
        expect![[r#"
            p.wasm (plugin p) is not admitted: 1 fault
              - it is a component of another world: it exports wasi:cli/run@0.2.0, not sagahost:plugin/participant
                where: exports
                do:    build it for world `plugin` of `sagahost:plugin`"#]],
    );
    check(
        &component(r#"(component (instance $i) (export "sagahost:plugin/participant@0.2.0" (instance $i)))"#),
        expect![[r#"
            p.wasm (plugin p) is not admitted: 1 fault
              - it has sagahost:plugin/participant version 0.2.0, this host serves 0.1.0
                where: exports
                do:    rebuild it with the SDK or the `wit` directory of this host's version"#]],
    );
    check(
        &component(r#"(component (instance $i) (export "sagahost:plugin/participant@0.1.0" (instance $i)))"#),
        expect![[r#"
            p.wasm (plugin p) is not admitted: 1 fault
              - its functions have other types than contract 0.1.0: instance export `sagahost:plugin/participant@0.1.0` does not have export `handle-event`
                where: imports and exports
                do:    rebuild it with the SDK or the `wit` directory of this host's version"#]],
    );
}

#[test]
fn imports_beyond_the_world() {
    check(
        &component(
            r#"(component
                (import "wasi:cli/environment@0.2.0" (instance))
                (import "wasi:clocks/wall-clock@0.2.0" (instance))
                (import "sagahost:plugin/http@0.1.0" (instance))
                (import "sagahost:plugin/counter@0.1.0" (instance))
                (import "acme:blob/blob" (instance))
                (instance $i) (export "sagahost:plugin/participant@0.1.0" (instance $i)))"#,
        ),
        expect![[r#"
            p.wasm (plugin p) is not admitted: 4 faults
              - it imports WASI, which plugins are not given: wasi:cli/environment@0.2.0, wasi:clocks/wall-clock@0.2.0
                where: imports
                do:    build it without WASI: Rust for wasm32-unknown-unknown, other toolchains with their `--stub-wasi`
              - it imports sagahost:plugin/counter@0.1.0, which contract 0.1.0 does not have
                where: imports
                do:    did you mean `counters`?
              - it imports acme:blob/blob, which this host does not offer
                where: imports
                do:    remove what needs it: a plugin can import only what world `plugin` names
              - it imports http, and its manifest asks for no grant
                where: imports
                do:    name in the manifest under `grants` where it sends requests (`http:https://HOST/PATH`), or build it for world `plugin`"#]],
    );
}

#[test]
fn a_component_without_a_manifest_or_with_two() {
    let bare =
        wat::parse_str(r#"(component (instance $i) (export "sagahost:plugin/participant@0.1.0" (instance $i)))"#)
            .unwrap();
    check(
        &bare,
        expect![[r#"
        p.wasm is not admitted: 2 faults
          - it has no manifest
            where: custom section `sagahost:manifest`
            do:    build it with the SDK, or append one: `sagahost plugins pack COMPONENT --manifest FILE`
          - its functions have other types than contract 0.1.0: instance export `sagahost:plugin/participant@0.1.0` does not have export `handle-event`
            where: imports and exports
            do:    rebuild it with the SDK or the `wit` directory of this host's version"#]],
    );
    let padded = format!("{GOOD:200}");
    check(
        &with_manifest(&with_manifest(&bare, &padded), &padded),
        expect![[r#"
            p.wasm is not admitted: 2 faults
              - it has more than one manifest
                where: custom section `sagahost:manifest`
                do:    append it once, to the component as its toolchain made it
              - its functions have other types than contract 0.1.0: instance export `sagahost:plugin/participant@0.1.0` does not have export `handle-event`
                where: imports and exports
                do:    rebuild it with the SDK or the `wit` directory of this host's version"#]],
    );
    expect!["the component has a manifest already (of plugin misbehaving, from its source): pack the file as its toolchain made it"].assert_eq(
        &append_manifest(&guest(), GOOD.as_bytes())
            .unwrap_err()
            .to_string(),
    );
}

#[test]
fn all_faults_of_a_manifest_at_once() {
    let manifest = json!({
        "name": "Payment", "version": "1", "contract": "0.2.0", "emitts": ["A"],
        "subscriptions": [
            { "kind": "OrderCreated", "rol": "pivot", "retry": { "attempts": 3 } },
            { "kind": "order created" },
            { "kind": "A", "role": "sometimes" },
        ],
    });
    let error = append_manifest(&wat::parse_str("(component)").unwrap(), manifest.to_string().as_bytes()).unwrap_err();
    expect![[r#"
        the manifest is wrong:
          - unknown field `emitts` (manifest): did you mean `emits`?
          - unknown field `rol` (manifest, subscriptions[0]): did you mean `role`?
          - unknown field `attempts` (manifest, subscriptions[0].retry): did you mean `attempts-max`?
          - unknown variant `sometimes`, expected one of `compensable`, `pivot`, `retriable`, `nothing-to-undo` (manifest, subscriptions[2]): correct the manifest
          - `Payment` is not a valid name for a participant (manifest, name): use lower-case letters, digits and hyphens, a letter first, 64 at most
          - it was built for contract 0.2.0, this host serves 0.1.0 (manifest, contract): rebuild it with the SDK or the `wit` directory of this host's version
          - `order created` is not a valid kind of event (manifest, subscriptions): use letters, digits and `._-/:`, 128 at most"#]].assert_eq(&error.to_string());
    let manifest = json!({
        "name": "Payment", "version": "", "contract": "0.2.0", "emits": ["A", "A", "B C"],
        "subscriptions": [
            { "kind": "A", "after": ["B"], "role": "retriable", "on-dead-letter": "compensate" },
            { "kind": "B", "after": ["A", "OrderCreatd"], "role": "pivot", "undo-bytes-max": 1 },
            { "kind": "OrderCreated", "retry": { "attempts-max": 0, "base-ms": 9, "cap-ms": 1 }, "deadline-ms": 0 },
        ],
        "compensate-on": ["X"], "finish-on": ["X"], "data-format": 2, "reads": [1], "grants": ["http"],
        "config": { "Limit": { "type": "integer", "default": "many", "required": true } },
    });
    let error = append_manifest(&wat::parse_str("(component)").unwrap(), manifest.to_string().as_bytes()).unwrap_err();
    expect![[r#"
        the manifest is wrong:
          - `Payment` is not a valid name for a participant (manifest, name): use lower-case letters, digits and hyphens, a letter first, 64 at most
          - the version is empty or too long (manifest, version): write one such as 1.3.0
          - it was built for contract 0.2.0, this host serves 0.1.0 (manifest, contract): rebuild it with the SDK or the `wit` directory of this host's version
          - duplicate A (manifest, emits): keep one of them
          - `B C` is not a valid kind of event (manifest, emits): use letters, digits and `._-/:`, 128 at most
          - X is in both `finish-on` and `compensate-on` (manifest, finish-on): name it in `finish-on` or in `compensate-on`
          - A is retriable, so it comes after the pivot, where nothing can be compensated (manifest, subscriptions[0].on-dead-letter): use `block` or `skip`
          - B waits for OrderCreatd, which this participant does not handle (manifest, subscriptions[1].after): did you mean `OrderCreated`?
          - B has `undo-bytes-max`, but its role says that it is never undone (manifest, subscriptions[1].undo-bytes-max): remove it, or make the role `compensable`
          - no attempt is allowed (manifest, subscriptions[2].retry.attempts-max): use 1 or more
          - `base-ms` is above `cap-ms` (manifest, subscriptions[2].retry): raise the cap or lower the base
          - a duration of 0 never lets it run (manifest, subscriptions[2].deadline-ms): use 1 or more, or none
          - `after` of A waits for itself (manifest, subscriptions): break the cycle
          - `Limit` is not a valid configuration key (manifest, config.Limit): use lower-case letters, digits and hyphens, a letter first
          - it is required and has a default (manifest, config.Limit): keep one of the two
          - its default "many" is not a valid integer (manifest, config.Limit): correct the default or the type
          - `reads` does not name data format 2, which it writes (manifest, reads): add the format that `data-format` names
          - `http` is no grant that this host knows (manifest, grants): write `http:https://HOST/PATH`, or `http:*` for what the operator grants"#]].assert_eq(&error.to_string());
}

#[test]
fn settings_that_the_manifest_does_not_declare() {
    let file = Path::new("p.wasm");
    let wrong = settings(&[("limt", json!(5)), ("label", json!(5))]);
    let report = admit(guest(), file, &engine(), &wrong).unwrap_err();
    expect![[r#"
        p.wasm (plugin misbehaving) is not admitted: 2 faults
          - the plugin has no configuration key `limt`
            where: configuration, [plugin.misbehaving.config] limt
            do:    did you mean `limit`?
          - `label` must be of type string, not 5
            where: configuration, [plugin.misbehaving.config] label
            do:    correct the value"#]]
    .assert_eq(&report.to_string());
    let right = settings(&[("limit", json!(5)), ("label", json!("five"))]);
    let admitted = admit(guest(), file, &engine(), &right).unwrap();
    let other = admit(guest(), file, &engine(), &BTreeMap::new()).unwrap();
    expect![[r#"{"label": "five", "limit": "5"}"#]].assert_eq(&format!("{:?}", admitted.plugin.config()));
    assert_ne!(admitted.plugin.behaviour().config, other.plugin.behaviour().config);
    assert_eq!(admitted.plugin.behaviour().digest, other.plugin.behaviour().digest);
}

#[test]
fn a_plugin_larger_than_the_pool_names_the_limit() {
    let limits = sagahost_sandbox::Limits { memory_bytes_max: 64 * 1024, table_elements_max: 1, ..Default::default() };
    let small = sagahost_sandbox::Engine::new(limits, None).unwrap();
    let report = admit(guest(), Path::new("p.wasm"), &small, &BTreeMap::new()).unwrap_err();
    expect![[r#"
        p.wasm (plugin misbehaving) is not admitted: 2 faults
          - it begins with 1114112 bytes of memory, 65536 are allowed
            where: core modules
            do:    raise `memory-bytes-max` in `[limits]`, or make the plugin smaller
          - it begins with 47 table elements, 1 are allowed
            where: core modules
            do:    raise `table-elements-max` in `[limits]`, or make the plugin smaller"#]]
    .assert_eq(&report.to_string());
}

#[test]
fn waivers_name_laws_that_can_be_waived_and_reasons() {
    let manifest = json!({
        "name": "payment", "version": "1", "contract": "0.1.0", "subscriptions": [{ "kind": "A" }],
        "waivers": { "restore-state": "it stays", "determinism": "it is random", "growth": " ", "order": "by customer" },
    });
    let error = append_manifest(&wat::parse_str("(component)").unwrap(), manifest.to_string().as_bytes()).unwrap_err();
    expect![[r#"
        the manifest is wrong:
          - `determinism` cannot be waived (manifest, waivers.determinism): remove it, and fix the plugin: `sagahost check` shows how it is broken
          - a waiver needs a reason (manifest, waivers.growth): say in a sentence what remains and why it may, 500 bytes at most
          - there is no law `restore-state` (manifest, waivers.restore-state): did you mean `restores-state`?"#]]
    .assert_eq(&error.to_string());
}
