//! The SDK's sources, carried by this binary. Invariant: they are all files of the crates listed here but their tests (a
//! test holds the list against the directories).

/// Directories of the crates, as in the repository.
pub const MEMBERS: &[&str] =
    &["host/manifest", "host/saga", "plugins/sdk", "plugins/sdk/macros", "plugins/sdk/testkit"];

/// The repository's workspace.
pub const ROOT: &str = include_str!("../../../Cargo.toml");
/// Versions that work together.
pub const LOCK: &str = include_str!("../../../Cargo.lock");

macro_rules! carried {
    ($($path:literal,)*) => {
        &[$(($path, include_str!(concat!("../../../", $path)))),*]
    };
}

/// Path in the repository, and text.
pub const SOURCES: &[(&str, &str)] = carried![
    "host/manifest/Cargo.toml",
    "host/manifest/src/allowance.rs",
    "host/manifest/src/answer.rs",
    "host/manifest/src/check.rs",
    "host/manifest/src/counter.rs",
    "host/manifest/src/graph.rs",
    "host/manifest/src/host_calls.rs",
    "host/manifest/src/http.rs",
    "host/manifest/src/law.rs",
    "host/manifest/src/lib.rs",
    "host/manifest/src/limits.rs",
    "host/manifest/src/manifest.rs",
    "host/manifest/src/members.rs",
    "host/manifest/src/report.rs",
    "host/manifest/src/sends.rs",
    "host/manifest/src/settings.rs",
    "host/manifest/src/smoke.rs",
    "host/saga/Cargo.toml",
    "host/saga/src/check.rs",
    "host/saga/src/compensation.rs",
    "host/saga/src/deadlines.rs",
    "host/saga/src/drive.rs",
    "host/saga/src/emission.rs",
    "host/saga/src/ending.rs",
    "host/saga/src/event.rs",
    "host/saga/src/format.rs",
    "host/saga/src/format/v2.rs",
    "host/saga/src/forward.rs",
    "host/saga/src/history.rs",
    "host/saga/src/id.rs",
    "host/saga/src/input.rs",
    "host/saga/src/letters.rs",
    "host/saga/src/lib.rs",
    "host/saga/src/mutation.rs",
    "host/saga/src/notation.rs",
    "host/saga/src/on.rs",
    "host/saga/src/operator.rs",
    "host/saga/src/outcome.rs",
    "host/saga/src/parked.rs",
    "host/saga/src/receive.rs",
    "host/saga/src/saga.rs",
    "host/saga/src/sends.rs",
    "host/saga/src/step.rs",
    "host/saga/src/topology.rs",
    "host/saga/src/view.rs",
    "plugins/sdk/Cargo.toml",
    "plugins/sdk/macros/Cargo.toml",
    "plugins/sdk/macros/src/arguments.rs",
    "plugins/sdk/macros/src/config.rs",
    "plugins/sdk/macros/src/event.rs",
    "plugins/sdk/macros/src/lib.rs",
    "plugins/sdk/macros/src/manifest.rs",
    "plugins/sdk/macros/src/participant.rs",
    "plugins/sdk/macros/src/shape.rs",
    "plugins/sdk/macros/src/words.rs",
    "plugins/sdk/src/arena.rs",
    "plugins/sdk/src/bindings.rs",
    "plugins/sdk/src/config.rs",
    "plugins/sdk/src/context.rs",
    "plugins/sdk/src/contract.rs",
    "plugins/sdk/src/event.rs",
    "plugins/sdk/src/guest.rs",
    "plugins/sdk/src/host.rs",
    "plugins/sdk/src/http.rs",
    "plugins/sdk/src/lib.rs",
    "plugins/sdk/src/log.rs",
    "plugins/sdk/src/outcome.rs",
    "plugins/sdk/src/participant.rs",
    "plugins/sdk/testkit/Cargo.toml",
    "plugins/sdk/testkit/src/answer.rs",
    "plugins/sdk/testkit/src/code.rs",
    "plugins/sdk/testkit/src/convert.rs",
    "plugins/sdk/testkit/src/engine/chain.rs",
    "plugins/sdk/testkit/src/engine/chores.rs",
    "plugins/sdk/testkit/src/engine/mod.rs",
    "plugins/sdk/testkit/src/engine/outside.rs",
    "plugins/sdk/testkit/src/engine/report.rs",
    "plugins/sdk/testkit/src/golden.rs",
    "plugins/sdk/testkit/src/http.rs",
    "plugins/sdk/testkit/src/lib.rs",
    "plugins/sdk/testkit/src/mock_host.rs",
    "plugins/sdk/testkit/src/native.rs",
    "plugins/sdk/testkit/src/pipe.rs",
    "plugins/sdk/testkit/src/plugin.rs",
    "plugins/sdk/testkit/src/protocol.rs",
    "plugins/sdk/testkit/src/saga.rs",
    "plugins/sdk/testkit/src/timeline.rs",
    "plugins/sdk/testkit/src/values.rs",
];
