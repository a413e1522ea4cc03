//! Does what the event's data says. Invariant: everything in here is wrong on purpose, except `store` and `fine`.

// The generated bindings alone, not the SDK around them: generating them here would compile the generator first.
#[path = "../../../../../plugins/sdk/src/bindings.rs"]
mod bindings;

use std::hint::black_box;

use bindings::exports::sagahost::plugin::participant::{Context, Event, Guest, Outcome, Step, UndoOutcome};
use bindings::sagahost::plugin::types::*;
use bindings::sagahost::plugin::{config, counters, log, store};

const MANIFEST: &[u8; include_bytes!("../manifest.json").len()] = include_bytes!("../manifest.json");

#[used]
#[unsafe(link_section = "sagahost:manifest")]
static SECTION: [u8; MANIFEST.len()] = *MANIFEST;

struct Misbehaving;

impl Guest for Misbehaving {
    fn handle_event(event: Event, context: Context) -> Result<Outcome, String> {
        std::panic::set_hook(Box::new(|panic| {
            let fields = [("sagahost-panic".to_owned(), "true".to_owned())];
            log::write(log::Level::Error, &panic.to_string(), &fields);
        }));
        let data = String::from_utf8(event.data).unwrap_or_default();
        let (what, rest) = data.split_once(' ').unwrap_or((&data, ""));
        Ok(match what {
            "panic" => panic!("stock is {}", rest),
            "loop" => spin(),
            "recurse" => emitting("Done", recurse(0).to_string()),
            "memory" => hoard(),
            "flood" => loop {
                log::write(log::Level::Info, "again", &[]);
            },
            "shout" => {
                log::write(log::Level::Info, &"x".repeat(1 << 20), &[]);
                emitting("Done", "1")
            }
            "error" => return Err("TypeError: nothing is undefined".to_owned()),
            "json" => emitting("Done", "{nope"),
            "kind" => emitting("Undeclared", "1"),
            "large" => emitting("Done", format!("\"{}\"", "x".repeat(1 << 20))),
            "huge" => emitting("Done", "1".repeat(8 << 20)),
            "elsewhere" => completed(Emission { saga_id: Some("other".to_owned()), ..emission("Done", "1") }),
            "start" => completed(Emission { saga_id: Some("other".to_owned()), ..emission("Started", "1") }),
            "attribute" => completed(Emission {
                attributes: rest.split(' ').map(|name| (name.to_owned(), "1".to_owned())).collect(),
                ..emission("Done", "1")
            }),
            "finish" => ending(Undo::NothingToUndo, Progress::Finished(b"done".to_vec())),
            "undo" => ending(Undo::Data(vec![0; 200]), Progress::GoingOn),
            "operations" => {
                (0..100_000).for_each(|_| counters::give("money", 1));
                emitting("Done", "1")
            }
            "reads" => {
                store::put("value", &vec![0; 200_000]);
                (0..900).for_each(|_| drop(store::get("value")));
                emitting("Done", "1")
            }
            "scans" => {
                (0..9).for_each(|key| store::put(&format!("value/{key}"), &vec![0; 200_000]));
                (0..900).for_each(|_| drop(store::scan("value/", None, u32::MAX)));
                emitting("Done", "1")
            }
            "writes" => {
                (0..900).for_each(|_| store::put("value", &vec![0; 200_000]));
                emitting("Done", "1")
            }
            "configuration" => {
                (0..1_000_000).for_each(|_| drop(config::get_all()));
                emitting("Done", "1")
            }
            // Each is nothing in the guest, and has a size in the host.
            "pairs" => completed(Emission {
                attributes: vec![(String::new(), String::new()); 300_000],
                ..emission("Done", "1")
            }),
            "events" => Outcome::Rejected(Rejection {
                problem: problem(),
                emit: vec![emission("", ""); 100_000],
                attributes: vec![],
            }),
            "fields" => {
                log::write(log::Level::Info, "", &vec![(String::new(), String::new()); 300_000]);
                emitting("Done", "1")
            }
            "absent" => {
                counters::give("absent", 1);
                emitting("Done", "1")
            }
            "broken" => {
                store::get("broken");
                emitting("Done", "1")
            }
            "key" => {
                store::put(&"k".repeat(1000), b"v");
                emitting("Done", "1")
            }
            "sees" => {
                store::put("greeting", b"hello");
                let found = store::get("greeting").unwrap_or_default();
                let seen = format!(
                    "{} {:?} {:?} {} {} {:?} {}",
                    String::from_utf8_lossy(&found),
                    config::get("limit"),
                    config::get_all(),
                    context.now_ms,
                    context.attempt,
                    &context.seed[..4],
                    std::collections::HashMap::from([(1, 1.0_f64 / 3.0)])[&1],
                );
                emitting("Done", format!("{seen:?}"))
            }
            "leak" => {
                // Memory of an earlier call would show here.
                static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
                emitting("Done", CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string())
            }
            "retry" => Outcome::Retry(Delay { problem: problem(), after_ms: Some(250) }),
            "early" => Outcome::NotYet(problem()),
            "invalid" => Outcome::Invalid(problem()),
            "reject" => Outcome::Rejected(Rejection { problem: problem(), emit: vec![], attributes: vec![] }),
            _ => emitting("Done", "1"),
        })
    }

    fn compensate(step: Step, _: Context) -> Result<UndoOutcome, String> {
        let Evidence::Done(saved) = step.evidence else { return Ok(UndoOutcome::NothingToUndo) };
        let attributes = vec![("cause".to_owned(), step.cause.code), ("format".to_owned(), saved.format.to_string())];
        let emit = vec![emission("Done", &format!("{:?}", String::from_utf8_lossy(&saved.data)))];
        Ok(UndoOutcome::Undone(Undone { emit, state: StateChange::Delete, attributes }))
    }
}

#[inline(never)]
fn spin() -> ! {
    loop {
        black_box(0);
    }
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { frame[3] + recurse(black_box(depth + 1)) }
}

#[inline(never)]
fn hoard() -> ! {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(black_box(vec![1; 1 << 20]));
    }
}

fn problem() -> Problem {
    Problem { code: "some-code".to_owned(), detail: "some detail".to_owned() }
}

fn emission(kind: &str, data: &str) -> Emission {
    Emission {
        kind: kind.to_owned(),
        data: data.as_bytes().to_vec(),
        content_type: None,
        saga_id: None,
        after_seconds: None,
        attributes: vec![],
    }
}

fn emitting(kind: &str, data: impl AsRef<str>) -> Outcome {
    completed(emission(kind, data.as_ref()))
}

fn completed(emission: Emission) -> Outcome {
    Outcome::Completed(Completion {
        emit: vec![emission],
        state: StateChange::Keep,
        undo: Undo::NothingToUndo,
        progress: Progress::GoingOn,
        attributes: vec![],
    })
}

fn ending(undo: Undo, progress: Progress) -> Outcome {
    Outcome::Completed(Completion { emit: vec![], state: StateChange::Keep, undo, progress, attributes: vec![] })
}

bindings::export_plugin!(Misbehaving);
