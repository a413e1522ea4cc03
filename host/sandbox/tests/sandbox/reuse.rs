//! Several calls in one instance, as the law checker makes them and plugins with `isolation = "reuse"` have them; and fuel.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use sagahost_manifest::settings::{Isolation, Settings};
use sagahost_saga::outcome::{Completion, Outcome};
use sagahost_sandbox::{End, Engine, Limits, Plugin, Ran, admission};

use crate::kit::{Memory, call, guest, plugin};

fn emitted(ran: Ran) -> String {
    match ran.end.unwrap() {
        End::Outcome(Outcome::Completed(Completion { emit, .. })) => {
            String::from_utf8_lossy(&emit[0].data).into_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn metered() -> Arc<Plugin> {
    let engine = Engine::metered(Limits { budget_ms: 60_000, instances_max: 2, ..Limits::default() }).unwrap();
    admission::admit(guest(), Path::new("misbehaving.wasm"), &engine, &BTreeMap::new()).unwrap().plugin
}

#[test]
fn a_static_outlives_a_call_in_a_used_instance_only() {
    let plugin = plugin();
    let leak = call("leak");
    let fresh = || emitted(plugin.run(&leak, Box::new(Memory::default())));
    assert_eq!([fresh(), fresh()], ["0", "0"]);
    let mut instance = plugin.instance().unwrap();
    let mut used = || emitted(instance.run(&plugin, &leak, Box::new(Memory::default())).unwrap());
    assert_eq!([used(), used(), used()], ["0", "1", "2"]);
}

#[test]
fn each_call_of_a_used_instance_has_limits_of_its_own() {
    let plugin = plugin();
    let mut instance = plugin.instance().unwrap();
    // Together they make more calls of the store than one may.
    for _ in 0..=plugin.limits().store_ops_max {
        let ran = instance.run(&plugin, &call("sees"), Box::new(Memory::default())).unwrap();
        assert!(matches!(ran.end.unwrap(), End::Outcome(Outcome::Completed(_))));
    }
}

#[test]
fn an_instance_that_trapped_is_not_called_again() {
    let plugin = plugin();
    let mut instance = plugin.instance().unwrap();
    assert!(instance.run(&plugin, &call("panic 3"), Box::new(Memory::default())).is_some());
    assert!(!instance.lives());
    assert!(instance.run(&plugin, &call("fine"), Box::new(Memory::default())).is_none());
}

#[test]
fn fuel_is_counted_by_an_engine_of_its_own_and_the_same_each_time() {
    let fuel = |plugin: &Plugin, what: &str| plugin.run(&call(what), Box::new(Memory::default())).fuel;
    let metered = metered();
    let once = fuel(&metered, "fine");
    assert!(once.is_some_and(|fuel| fuel > 0));
    assert_eq!(once, fuel(&metered, "fine"));
    assert!(fuel(&metered, "operations") > once);
    let mut instance = metered.instance().unwrap();
    let mut used = || instance.run(&metered, &call("fine"), Box::new(Memory::default())).unwrap().fuel;
    assert!(used() < once, "the instance is made already");
    assert_eq!(fuel(&plugin(), "fine"), None);
}

/// Slow calls take turns on the processors. (Where one is kept, the last of these calls never begins.)
#[test]
fn an_instance_between_calls_keeps_no_turn() {
    let more_than_turns = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    let instances_max = u32::try_from(more_than_turns).unwrap() + 1;
    let engine = Engine::new(Limits { budget_ms: 100, instances_max, ..Limits::default() }, None).unwrap();
    let plugin = admission::admit(guest(), Path::new("misbehaving.wasm"), &engine, &BTreeMap::new()).unwrap().plugin;
    let mut used = Vec::new();
    for _ in 0..more_than_turns {
        let mut instance = plugin.instance().unwrap();
        let ran = instance.run(&plugin, &call("loop"), Box::new(Memory::default())).unwrap();
        assert!(matches!(ran.end.unwrap(), End::Outcome(Outcome::Unknown { .. })));
        used.push(instance);
    }
}

fn reusing() -> Arc<Plugin> {
    let engine = Engine::new(Limits { budget_ms: 1_000, instances_max: 2, ..Limits::default() }, None).unwrap();
    let reuse = Settings { isolation: Isolation::Reuse, ..Settings::default() };
    let settings = BTreeMap::from([("misbehaving".to_owned(), reuse)]);
    admission::admit_stored(guest(), Path::new("misbehaving.wasm"), &engine, &settings).unwrap().plugin
}

#[test]
fn a_plugin_that_keeps_its_instances_sees_what_it_left_and_loses_it_with_a_trap() {
    let plugin = reusing();
    let leaks = || emitted(plugin.run(&call("leak"), Box::new(Memory::default())));
    assert_eq!([leaks(), leaks()], ["0", "1"]);
    let ran = plugin.run(&call("panic 3"), Box::new(Memory::default()));
    assert!(matches!(ran.end.unwrap(), End::Outcome(Outcome::Unknown { .. })));
    assert_eq!(leaks(), "0", "another one");
}

/// Those that stay have places of their own, and where there is none a call has a fresh instance.
#[test]
fn more_calls_at_once_than_instances_may_stay_are_made_all_the_same() {
    let plugin = reusing();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let ran = plugin.run(&call("fine"), Box::new(Memory::default()));
                    assert!(matches!(ran.end.unwrap(), End::Outcome(Outcome::Completed(_))));
                }
            });
        }
    });
}
