//! What a plugin may use at most. Invariant: every bound of the sandbox stands here, with a default that suits the
//! largest guest languages that were measured, and each can be set by the operator (table `[limits]`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What an entry, a host call or a log line counts beside its own bytes. (A test of the sandbox compares it with what
/// lists of them take in memory.)
pub const ENTRY_BYTES: usize = 64;

/// Sizes are bytes unless the name says otherwise. "Per call" means per attempt: each runs in an instance of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Limits {
    /// Running time of one call, in milliseconds of wall time; waiting for a free instance does not count.
    pub budget_ms: u32,
    /// All linear memories of one instance together.
    pub memory_bytes_max: usize,
    /// The largest table of one instance, in elements. (Engines of scripting languages need thousands.)
    pub table_elements_max: usize,
    /// The wasm stack of one call. Deeper recursion ends the call.
    pub stack_bytes_max: usize,

    /// Data of one emitted event, and the result of a finished saga. Stays below Kafka's 1,000,000 with room for
    /// headers.
    pub payload_bytes_max: usize,
    /// What a call returns altogether: all events, state, undo data and attributes.
    pub outcome_bytes_max: usize,
    /// A participant's state in one saga.
    pub state_bytes_max: usize,
    /// Undo data of one step; a subscription's `undo-bytes-max` can only be stricter.
    pub undo_bytes_max: usize,
    /// Attributes of one event or outcome, in number …
    pub attributes_max: usize,
    /// … and names and values together.
    pub attributes_bytes_max: usize,
    /// Saga ids, kinds and content types that a plugin makes.
    pub id_bytes_max: usize,
    /// Code and detail of a problem; the rest is cut off.
    pub problem_bytes_max: usize,

    /// What the host holds for one call: keys, values, pages, counters, log lines and configuration that pass between it and
    /// the guest, with `ENTRY_BYTES` for each, and what the call returns.
    pub call_bytes_max: usize,
    /// Calls of `store` and `counters` within one call.
    pub store_ops_max: usize,
    /// Names of keys and counters.
    pub store_key_bytes_max: usize,
    pub store_value_bytes_max: usize,
    /// Entries of one `store.scan`.
    pub store_scan_max: u32,
    /// Keys and values of one `store.scan`, with `ENTRY_BYTES` for each; a page is cut short there, though never to nothing.
    pub store_scan_bytes_max: usize,

    /// Requests of one attempt.
    pub sends_max: usize,
    /// One request, with its headers.
    pub request_bytes_max: usize,
    /// One response, with its headers.
    pub response_bytes_max: usize,

    /// Lines written through `log` within one call.
    pub log_lines_max: usize,
    /// Bytes written through `log` within one call.
    pub log_bytes_max: usize,

    /// Instances at one time, over all plugins. More calls wait.
    pub instances_max: u32,
    /// A plugin file.
    pub component_bytes_max: usize,
    /// Memory that compiling a plugin may take.
    pub compile_memory_bytes_max: usize,
    /// Time of a processor that compiling a plugin may take, in seconds; five times as long on a clock.
    pub compile_seconds_max: u32,
    /// Core instances of one component (Python needs 38).
    pub core_instances_max: u32,
    /// Linear memories of one component.
    pub memories_max: u32,
    /// Tables of one component.
    pub tables_max: u32,
    /// The host's own book-keeping for one instance of a component.
    pub instance_bytes_max: usize,
    /// How much of an instance's memory is cleared and kept for the next call instead of being given back.
    pub keep_resident_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget_ms: 1000,
            memory_bytes_max: 64 * MIB,
            table_elements_max: 20_000,
            stack_bytes_max: 512 * KIB,
            payload_bytes_max: 900 * KIB,
            outcome_bytes_max: 4 * MIB,
            state_bytes_max: 256 * KIB,
            undo_bytes_max: 64 * KIB,
            attributes_max: 64,
            attributes_bytes_max: 16 * KIB,
            id_bytes_max: 256,
            problem_bytes_max: 4 * KIB,
            call_bytes_max: 16 * MIB,
            store_ops_max: 1000,
            store_key_bytes_max: 512,
            store_value_bytes_max: 256 * KIB,
            store_scan_max: 1000,
            store_scan_bytes_max: MIB,
            sends_max: 8,
            request_bytes_max: MIB,
            response_bytes_max: MIB,
            log_lines_max: 200,
            log_bytes_max: 64 * KIB,
            instances_max: 32,
            component_bytes_max: 256 * MIB,
            compile_memory_bytes_max: 1024 * MIB,
            compile_seconds_max: 300,
            core_instances_max: 64,
            memories_max: 4,
            tables_max: 8,
            instance_bytes_max: 4 * MIB,
            keep_resident_bytes: MIB,
        }
    }
}

impl Limits {
    pub fn budget(&self) -> Duration {
        Duration::from_millis(u64::from(self.budget_ms))
    }

    /// What is wrong with a set of limits, as `(field, reason)`; empty: nothing.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, field, reason: &str| {
            if !ok {
                faults.push((field, reason.to_owned()));
            }
        };
        check(self.budget_ms > 0, "budget-ms", "must be at least 1");
        check(self.instances_max > 0, "instances-max", "must be at least 1");
        check(self.instances_max <= 1000, "instances-max", "must be at most 1000");
        check(self.memory_bytes_max >= 64 * KIB, "memory-bytes-max", "must be at least one page, 65536");
        check(self.memory_bytes_max <= 4096 * MIB, "memory-bytes-max", "must be at most 4 GiB");
        check(self.stack_bytes_max >= 64 * KIB, "stack-bytes-max", "must be at least 65536");
        check(self.stack_bytes_max <= MIB, "stack-bytes-max", "must be at most 1048576 (threads have 2 MiB)");
        check(
            self.outcome_bytes_max >= self.payload_bytes_max,
            "outcome-bytes-max",
            "must not be less than payload-bytes-max",
        );
        check(self.compile_seconds_max > 0, "compile-seconds-max", "must be at least 1");
        check(
            self.compile_memory_bytes_max >= 64 * MIB,
            "compile-memory-bytes-max",
            "must be at least 67108864: the compiler itself needs as much",
        );
        check(self.core_instances_max > 0, "core-instances-max", "must be at least 1");
        let entry = self.store_key_bytes_max.saturating_add(self.store_value_bytes_max).saturating_add(ENTRY_BYTES);
        check(
            self.outcome_bytes_max >= entry,
            "outcome-bytes-max",
            "must have room for an entry of the store: store-key-bytes-max + store-value-bytes-max + 64",
        );
        check(
            self.store_scan_bytes_max >= entry,
            "store-scan-bytes-max",
            "must have room for one entry: store-key-bytes-max + store-value-bytes-max + 64",
        );
        for (bytes, reason) in [
            (self.outcome_bytes_max, "must not be less than outcome-bytes-max"),
            (self.store_scan_bytes_max, "must not be less than store-scan-bytes-max"),
            (self.log_bytes_max, "must not be less than log-bytes-max"),
            (
                self.request_bytes_max.saturating_add(self.response_bytes_max),
                "must not be less than request-bytes-max and response-bytes-max together",
            ),
        ] {
            check(self.call_bytes_max >= bytes, "call-bytes-max", reason);
        }
        faults
    }
}
