//! The end of a stream, and of a quarantine: no look by the clock, only the signal.

use std::{sync::Arc, time::Duration};

use sagahost_saga::id::SagaId;

use super::bench::{Bench, at, idle, run, settings};
use crate::{
    drain::Drain,
    step::{Next, Now, Part, Steady},
};

/// A part that does nothing.
struct Reads;

impl Part for Reads {
    fn step(&mut self, _: Now) -> Next {
        Next::Again
    }
}

#[test]
fn a_drain_is_told_of_each_thing_that_it_waits_for() {
    let bench = Bench::new(settings(), idle());
    let reads = bench.processor.feeding.by(Reads);
    bench.deliver(0, "o-1");
    let until = Steady(Duration::from_secs(60));
    let mut drain = bench.processor.drain(until);
    let waits = |drain: &mut Drain, for_what: &str| {
        let wait = run(drain, at(0)).unwrap_or_else(|| panic!("it does not wait for {for_what}"));
        assert_eq!(wait.until, Some(until), "no look in between");
        wait
    };
    let reading = waits(&mut drain, "the reader");
    drop(reads);
    assert_ne!(reading.signal.seen(), reading.seen);
    let working = waits(&mut drain, "the worker");
    run(&mut bench.processor.worker(), at(0));
    assert_ne!(working.signal.seen(), working.seen);
    let journaling = waits(&mut drain, "the journal");
    let sealed = bench.sealed(at(0)).expect("a drain hurries it");
    bench.finish(&sealed);
    assert_ne!(journaling.signal.seen(), journaling.seen);
    assert!(run(&mut drain, at(0)).is_none(), "everything is out");
    assert!(drain.drained);
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    let bench = Bench::new(settings(), idle());
    bench.deliver(0, "o-1");
    let mut drain = bench.processor.drain(at(10).steady);
    assert!(run(&mut drain, at(9)).is_some());
    assert!(run(&mut drain, at(10)).is_none());
    assert!(!drain.drained);
}

/// What was kept aside a moment ago is in the open batch.
#[test]
fn a_release_waits_for_the_batch_that_has_what_was_kept_aside() {
    let bench = Bench::new(settings(), idle());
    let saga = SagaId::new("o-1");
    bench.processor.stage.quarantine(&saga, "a test".to_owned());
    let mut overlay = bench.overlay();
    overlay.put(&"till".into(), "k", Some(Arc::from(*b"v")));
    bench.joins(1, overlay);
    let mut release = bench.processor.releases(bench.at.identity.epoch).of(&saga);
    let wait = run(&mut release, at(0)).expect("the batch is open");
    assert!(wait.until.is_some_and(|until| until > at(1_000).steady), "no look in between");
    bench.commit(at(0));
    assert_ne!(wait.signal.seen(), wait.seen);
    assert!(run(&mut release, at(0)).is_none());
    assert!(matches!(release.released, Some(Ok(0))));
}
