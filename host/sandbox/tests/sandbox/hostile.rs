//! The hostile participant, which is written with the SDK: what it cannot prevent ends as it does without.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::{Arc, OnceLock},
};

use expect_test::expect;
use sagahost_saga::{
    event::Event,
    outcome::{Call, Outcome},
};
use sagahost_sandbox::{End, Engine, Plugin, admission::admit, crate_build::build};

use crate::{
    building::request,
    kit::{Memory, call, crate_dir, engine, impatient_engine},
};

fn hostile(engine: &Arc<Engine>) -> Arc<Plugin> {
    static BYTES: OnceLock<Arc<[u8]>> = OnceLock::new();
    let built = || {
        let out = tempfile::tempdir().unwrap();
        let request = request(&crate_dir().join("../../tests/guests"), out.path());
        let built = build(&request, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"));
        std::fs::read(&built[0].file).unwrap().into()
    };
    let bytes = BYTES.get_or_init(built).clone();
    let admitted = admit(bytes, Path::new("hostile.wasm"), engine, &BTreeMap::new());
    admitted.unwrap_or_else(|report| panic!("{report}")).plugin
}

/// The code of the crash, or the kind of outcome.
fn end(hostile: &Plugin, fault: &str) -> String {
    let event = call(&format!(r#"{{"id":"h-1","fault":"{fault}"}}"#)).event;
    let event = Event { kind: "HostileTried".into(), content_type: "application/json".into(), ..event };
    let call = Call { participant: "hostile".into(), event, ..call("") };
    match hostile.run(&call, Box::new(Memory::default())).end.unwrap() {
        End::Outcome(Outcome::Unknown { crash, .. }) => crash.code,
        End::Outcome(Outcome::Completed(_)) => "completed".to_owned(),
        End::Outcome(Outcome::Rejected(_)) => "rejected".to_owned(),
        End::Outcome(Outcome::Retry(_)) => "retry".to_owned(),
        End::Outcome(Outcome::NotYet(_)) => "not yet".to_owned(),
        End::Outcome(Outcome::Invalid(_)) => "invalid".to_owned(),
        End::Outcome(Outcome::Unreadable { .. } | Outcome::Unsent(_)) | End::Undo(_) => {
            panic!("{fault} was not called")
        }
    }
}

#[test]
fn each_fault_has_its_end() {
    let faults = "none panic unreachable loop recurse recurse-in-memory memory guest-error retry not-yet invalid reject \
                  large-problem log-flood log-bytes large-payload large-outcome large-undo large-state large-store \
                  long-key many-keys many-notes invalid-json unknown-kind empty-kind other-saga reserved-attribute \
                  reserved-header bad-attribute finishes overflow binary starts";
    let patient = hostile(&engine());
    let impatient = hostile(&impatient_engine());
    let told = faults.split_whitespace().fold(String::new(), |mut told, fault| {
        let plugin = if fault == "loop" { &impatient } else { &patient };
        let _ = writeln!(told, "{fault}: {}", end(plugin, fault));
        told
    });
    expect![[r#"
        none: completed
        panic: trap
        unreachable: trap
        loop: deadline
        recurse: stack
        recurse-in-memory: stack
        memory: memory
        guest-error: guest-error
        retry: retry
        not-yet: not yet
        invalid: invalid
        reject: rejected
        large-problem: invalid
        log-flood: log-limit
        log-bytes: log-limit
        large-payload: payload-limit
        large-outcome: payload-limit
        large-undo: payload-limit
        large-state: payload-limit
        large-store: payload-limit
        long-key: payload-limit
        many-keys: store-limit
        many-notes: payload-limit
        invalid-json: bad-outcome
        unknown-kind: bad-outcome
        empty-kind: bad-outcome
        other-saga: bad-outcome
        reserved-attribute: bad-outcome
        reserved-header: bad-outcome
        bad-attribute: bad-outcome
        finishes: bad-outcome
        overflow: trap
        binary: completed
        starts: completed
    "#]]
    .assert_eq(&told);
}
