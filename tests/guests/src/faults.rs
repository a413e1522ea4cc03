//! The faults by name. Invariant: each is reached after a counter was taken and a key was written, so that every test of
//! a fault is also one of what vanishes with it.

use std::{hint::black_box, time::Duration};

use sagahost_sdk::{Level, prelude::*};

use crate::{HostileDone, HostileEcho, HostileRefused, HostileTried, HostileUndone, Taken};

const CODE: &str = "HOSTILE";
const MIB: usize = 1024 * 1024;
/// Of the values `large/NNNN`, as JSON the largest that may be: and of these so many at once.
const LARGE: usize = 256 * 1024 - 2;
const FILLED: u32 = 40;

/// Goes wrong in handling an event. `NAME:N` are a name and a number.
pub fn run(fault: &str, ctx: &Context, tried: &HostileTried, taken: Taken) -> Handled<Taken> {
    let id = || tried.id.clone();
    let done = Done::undo_with(taken.clone());
    let ordinary = done.clone().emit(HostileDone { id: id(), attempt: ctx.attempt() });
    let (name, number) = parse(fault);
    match name {
        "none" => Ok(ordinary),

        // Ways to end a call without an answer.
        "panic" => panic!("hostile: a panic on purpose, in attempt {}", ctx.attempt()),
        "panic-once" => {
            assert!(ctx.attempt() > 1, "hostile: a panic on purpose, in the first attempt only");
            Ok(ordinary)
        }
        "panic-until" => {
            assert!(ctx.attempt() >= number, "hostile: a panic on purpose, in attempt {}", ctx.attempt());
            Ok(ordinary)
        }
        "panic-tenth" => {
            assert!(!tried.id.ends_with('0'), "hostile: a panic on purpose, for every tenth event");
            Ok(ordinary)
        }
        "unreachable" => unreachable(),
        "loop" => spin(),
        "recurse" => Ok(ordinary.note("depth", recurse(0))),
        "recurse-in-memory" => Ok(ordinary.note("depth", recurse_in_memory(0))),
        "memory" => Ok(ordinary.note("bytes", eat())),
        "guest-error" => Err(Fail::crash("hostile: an error that nobody caught")),

        // The other answers.
        "retry" => Err(Fail::retry(CODE, "always again")),
        "retry-after" => Err(Delay::new(CODE, "again later").after(Duration::from_millis(number.into())).into()),
        "retry-until" if ctx.attempt() < number => Err(Fail::retry(CODE, format!("not before attempt {number}"))),
        "retry-until" => Ok(ordinary),
        "not-yet" => Err(Fail::not_yet(CODE, "waits for another event")),
        "invalid" => Err(Fail::invalid(CODE, "never")),
        "reject" => Err(Rejection::new(CODE, "refused on purpose").emit(HostileRefused { id: id() }).into()),
        "large-problem" => Err(Fail::invalid(CODE, "x".repeat(MIB))),

        // In its own time: this many million turns.
        "busy" => {
            (0..u64::from(number) * 1_000_000).for_each(|turn| _ = black_box(turn));
            Ok(ordinary)
        }

        // Too much.
        "log-flood" => {
            (0..100_000).for_each(|line| ctx.log(Level::Info, &format!("line {line}"), &[("flood", "true")]));
            Ok(ordinary)
        }
        "log-bytes" => {
            (0..100).for_each(|_| ctx.log(Level::Info, &"x".repeat(MIB), &[]));
            Ok(ordinary)
        }
        "large-payload" => Ok(done.emit(HostileDone { id: "x".repeat(2 * MIB), attempt: ctx.attempt() })),
        "large-outcome" => {
            Ok((0..8)
                .fold(done, |done, _| done.emit(HostileDone { id: "x".repeat(800 * 1024), attempt: ctx.attempt() })))
        }
        "many-emissions" => {
            let event = || HostileDone { id: id(), attempt: ctx.attempt() };
            Ok((0..number.max(10_000)).fold(done, |done, _| done.emit(event())))
        }
        "large-undo" => Ok(Done::undo_with(Taken { ballast: "x".repeat(2 * MIB), ..taken })),
        "large-state" => Ok(ordinary.state(&"x".repeat(2 * MIB))),
        "large-store" => {
            ctx.store().put("large", &"x".repeat(2 * MIB));
            Ok(ordinary)
        }
        "long-key" => {
            ctx.store().put(&"k".repeat(MIB), &0);
            Ok(ordinary)
        }
        "many-keys" => {
            (0..100_000).for_each(|key| ctx.store().put(&format!("key/{key}"), &key));
            Ok(ordinary)
        }
        // Much within what each single call of the host allows.
        "put-values" => {
            put_large(ctx, 0..900);
            Ok(ordinary)
        }
        "get-values" => {
            let found = (0..900).filter(|value| ctx.store().get_bytes(&large(*value)).is_some()).count();
            Ok(ordinary.note("found", found))
        }
        "scan-values" => Ok(ordinary.note("found", count_large(ctx))),
        "scan-again" => {
            (0..900).for_each(|_| drop(black_box(ctx.store().scan::<String>("large/", None, u32::MAX))));
            Ok(ordinary)
        }
        "many-counters" => {
            (0..990).for_each(|counter| drop(ctx.counter(format!("{counter}/{}", "n".repeat(500))).ensure(1)));
            Ok(ordinary)
        }
        "config-again" => {
            (0..1_000_000).for_each(|_| drop(black_box(ctx.config("fault"))));
            Ok(ordinary)
        }
        "many-notes" => Ok((0..10_000).fold(ordinary, |done, note| done.note(format!("note-{note}"), note))),

        // Wrong.
        "invalid-json" => Ok(done.emit(Emission::raw("HostileDone", "application/json", "{\"id\": "))),
        "unknown-kind" => Ok(done.emit(Emission::raw("HostileUnheardOf", "application/json", "{}"))),
        "empty-kind" => Ok(done.emit(Emission::raw("", "application/json", "{}"))),
        "other-saga" => Ok(done.emit(in_saga(HostileDone { id: id(), attempt: ctx.attempt() }, &tried.id))),
        "reserved-attribute" => Ok(done.emit(with_attribute(id(), "ce_id", "forged"))),
        "reserved-header" => Ok(done.emit(with_attribute(id(), "sagahost-handled", "forged"))),
        "bad-attribute" => Ok(done.emit(with_attribute(id(), "Upper Case", "refused"))),
        "finishes" => Ok(ordinary.finish(&json!({"finished": "without a word in the manifest"}))),
        "missing-counter" => Ok(ordinary.note("taken", ctx.counter("no-such-counter").take(1))),
        "overflow" => Ok(ordinary.note("next", black_box(u64::MAX) + u64::from(number.max(1)))),
        "counter-overflow" => {
            ctx.counter("tokens").give(u64::MAX);
            Ok(ordinary)
        }

        // Unusual, and right.
        "fill" => {
            put_large(ctx, number * FILLED..(number + 1) * FILLED);
            Ok(ordinary)
        }
        "count" if count_large(ctx) == number => Ok(ordinary),
        "count" => Err(Fail::invalid(CODE, format!("there are {} values", count_large(ctx)))),
        "echo" => Ok(ordinary.state(&format!("attempt {}", ctx.attempt())).emit(echo(ctx, tried))),
        "binary" => Ok(done.emit(Emission::raw("HostileDone", "application/octet-stream", [0, 159, 146, 150]))),
        "delayed" => Ok(done.emit(
            Emission::from(HostileDone { id: id(), attempt: ctx.attempt() }).after(Duration::from_secs(number.into())),
        )),
        "starts" => Ok(ordinary.emit(in_saga(HostileTried { id: id(), ..HostileTried::default() }, &tried.id))),
        "nothing-to-undo" => {
            Ok(Done::nothing_to_undo().emit(HostileDone { id: tried.id.clone(), attempt: ctx.attempt() }))
        }
        // The topic that it comes back on makes it run again: bounded by hops alone.
        "explode" => Ok(ordinary
            .emit(in_saga(HostileTried { fault: Some("explode".into()), ..tried.clone() }, &ctx.make_id("explosion")))),
        _ => Err(Fail::invalid("UNKNOWN_FAULT", format!("no fault is called `{fault}`"))),
    }
}

/// Goes wrong in a compensation.
pub fn undo(fault: &str, ctx: &Context, step: &Step<HostileTried, Taken>) -> Compensated {
    let undone = Undone::new();
    let ordinary = undone.clone().emit(HostileUndone { id: step.event.id.clone(), attempt: ctx.attempt() });
    let (name, number) = parse(fault);
    match name {
        "none" => Ok(ordinary),
        "panic" => panic!("hostile: a panic on purpose, in the compensation"),
        "panic-once" => {
            assert!(ctx.attempt() > 1, "hostile: a panic on purpose, in the first compensation only");
            Ok(ordinary)
        }
        "unreachable" => unreachable(),
        "loop" => spin(),
        "guest-error" => Err(NotUndone::crash("hostile: an error that nobody caught")),
        "stuck" => Err(NotUndone::stuck(CODE, "no attempt will help")),
        // Whatever an operator can change: the configuration says `none` in the end.
        "stuck-until-configured" if ctx.config("undo-fault").as_deref() != Some("none") => {
            Err(NotUndone::stuck(CODE, "set undo-fault to none, then retry"))
        }
        "stuck-until-configured" => Ok(ordinary),
        "retry" => Err(NotUndone::retry(CODE, "always again")),
        "retry-until" if ctx.attempt() < number => Err(NotUndone::retry(CODE, format!("not before attempt {number}"))),
        "retry-until" => Ok(ordinary),
        "nothing-to-undo" => Err(NotUndone::NothingToUndo),
        "invalid-json" => Ok(undone.emit(Emission::raw("HostileUndone", "application/json", "{"))),
        "unknown-kind" => Ok(undone.emit(Emission::raw("HostileUnheardOf", "application/json", "{}"))),
        _ => Err(NotUndone::stuck("UNKNOWN_FAULT", format!("no fault is called `{fault}`"))),
    }
}

fn parse(fault: &str) -> (&str, u32) {
    match fault.split_once(':') {
        Some((name, number)) => (name, number.parse().unwrap_or(0)),
        None => (fault, 0),
    }
}

fn large(number: u32) -> String {
    format!("large/{number:04}")
}

fn put_large(ctx: &Context, numbers: std::ops::Range<u32>) {
    let value = "x".repeat(LARGE);
    numbers.for_each(|number| ctx.store().put(&large(number), &value));
}

/// Page by page: an empty one is the end.
fn count_large(ctx: &Context) -> u32 {
    let (mut count, mut last) = (0, None);
    loop {
        let page = ctx.store().scan::<String>("large/", last.as_deref(), u32::MAX);
        let Some((key, _)) = page.last() else { return count };
        count += page.len() as u32;
        last = Some(key.clone());
    }
}

fn echo(ctx: &Context, tried: &HostileTried) -> HostileEcho {
    HostileEcho {
        id: tried.id.clone(),
        attempt: ctx.attempt(),
        step_id: ctx.step_id().to_owned(),
        idempotency_key: ctx.idempotency_key().to_owned(),
        now_ms: ctx.now_ms(),
        budget_ms: ctx.budget_ms(),
        seed: ctx.seed().to_vec(),
        made_id: ctx.make_id("hostile"),
        event_id: ctx.event().id.clone(),
        source: ctx.event().source.clone(),
        time_ms: ctx.event().time_ms,
        attributes: ctx.event().attributes.clone(),
        state: ctx.state(),
        tokens: ctx.counter("tokens").read(),
    }
}

fn in_saga(event: impl Into<Emission>, id: &str) -> Emission {
    event.into().in_saga(format!("other-{id}"))
}

fn with_attribute(id: String, name: &str, value: &str) -> Emission {
    Emission::from(HostileDone { id, attempt: 0 }).attribute(name, value)
}

/// A trap without a word.
fn unreachable() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Exhausts the stack of WebAssembly itself.
fn recurse(depth: u64) -> u64 {
    if black_box(true) { recurse(depth + 1).wrapping_mul(3) ^ depth } else { depth }
}

/// Exhausts the stack that the compiler keeps in the guest's memory: its frames are large.
fn recurse_in_memory(depth: u64) -> u64 {
    let frame = black_box([depth; 1024]);
    if black_box(true) { recurse_in_memory(depth + 1) + frame[1] } else { depth }
}

fn eat() -> usize {
    let mut eaten = Vec::new();
    while black_box(true) {
        eaten.push(black_box(vec![1_u8; MIB]));
    }
    eaten.len()
}
