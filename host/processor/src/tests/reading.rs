//! The reader: how much is read ahead, what is below a position, what was parked.

use std::{collections::BTreeMap, sync::Arc};

use sagahost_journal::SagaKey;
use sagahost_saga::id::SagaId;
use sagahost_transport::{Assignment, Polled};
use sagahost_wire::BatchNo;

use super::{
    bench::{Bench, at, idle, partition, run, serving, settings},
    scripted::Script,
};
use crate::{
    mailbox::{Item, Task},
    processor::Settings,
    read_ahead::ReadAhead,
    reader::Reader,
    schedule::Turn,
    step::{Next, Part},
};

fn reader(bench: &Bench, script: &Script) -> Reader {
    bench.processor.reader(Box::new(script.clone()), vec![Assignment::new(partition(), 0)], &bench.at)
}

fn brings(bench: &Bench, script: &Script, offsets: std::ops::Range<i64>) {
    let records = offsets.map(|offset| Polled::Record(bench.record(offset, &format!("o-{offset}"))));
    script.0.lock().brings.extend(records);
}

/// So many steps, or fewer where it has nothing to do.
fn steps(reader: &mut Reader, now: u64) {
    for _ in 0..1_000 {
        if !matches!(reader.step(at(now)), Next::Again) {
            return;
        }
    }
}

/// One event is handled.
fn handle(bench: &Bench) {
    let taken = bench.processor.inbox.mailboxes.take(0, at(0));
    let Turn::Run(Task::Saga(saga, Item::Delivery { receipt: Some(receipt), .. })) = taken else {
        panic!("an event waits")
    };
    bench.processor.stage.skipped(&receipt, at(0));
    bench.processor.inbox.mailboxes.done(&saga);
    bench.processor.stage.busy(-1);
}

#[test]
fn reading_pauses_at_queue_events_max_and_resumes_when_the_partition_has_room() {
    let read_ahead = ReadAhead { events_max: 10, ..settings().read_ahead };
    let bench = Bench::new(Settings { read_ahead, ..settings() }, idle());
    let script = Script::default();
    let mut reader = reader(&bench, &script);
    brings(&bench, &script, 0..30);
    steps(&mut reader, 0);
    let queued = || bench.processor.inbox.mailboxes.queued();
    assert_eq!(queued(), 10, "no more than that is read ahead");
    assert!(script.0.lock().paused);
    for left in (7..10).rev() {
        handle(&bench);
        steps(&mut reader, 0);
        assert_eq!(queued(), left, "above half of what it may hold reading waits");
    }
    assert!(script.0.lock().polled_while_paused > 0, "a source that is paused is polled: it may have other news");
    handle(&bench);
    steps(&mut reader, 10);
    assert_eq!(queued(), 10);
    while queued() > 0 {
        handle(&bench);
        steps(&mut reader, 20);
    }
    assert_eq!(bench.processor.stage.positions()[&partition()].next, 30, "nothing was left out");
}

/// Rule 13: what keeps old records from running again is the position, whatever else has been forgotten.
#[test]
fn records_below_the_position_are_dropped_unread() {
    let bench = Bench::new(settings(), idle());
    let script = Script::default();
    let mut reader = reader(&bench, &script);
    brings(&bench, &script, 0..5);
    steps(&mut reader, 0);
    (0..5).for_each(|_| handle(&bench));
    brings(&bench, &script, 0..7);
    steps(&mut reader, 10);
    assert_eq!(bench.processor.inbox.mailboxes.queued(), 2, "the five were handled before");
    let stats = &bench.processor.stats;
    assert_eq!(stats.records_skipped.load(std::sync::atomic::Ordering::Relaxed), 5);
}

/// What parked before a switch, and in the moments of it, is woken.
#[test]
fn what_is_parked_is_woken_at_a_switch_and_again_when_the_open_batch_is_journaled() {
    let bench = Bench::new(settings(), idle());
    let mut parked = bench.processor.parked();
    let queued = || bench.processor.inbox.mailboxes.queued();
    bench.journal.held.lock().parked = vec![(SagaKey(1), SagaId::new("before"))];
    run(&mut parked, at(0));
    assert_eq!(queued(), 1, "the host begins");
    bench.processor.inbox.empty();
    run(&mut parked, at(0));
    assert_eq!(queued(), 0, "nobody has come");
    let mut overlay = bench.overlay();
    overlay.put(&"till".into(), "k", Some(Arc::from(*b"v")));
    bench.joins(1, overlay);
    bench.processor.switch().serve(serving(idle(), 2));
    let wait = run(&mut parked, at(0)).unwrap();
    assert_eq!(queued(), 1);
    bench.processor.inbox.empty();
    // It parked in the chain that is in the open batch.
    bench.journal.held.lock().parked.push((SagaKey(2), SagaId::new("meanwhile")));
    bench.commit(at(0));
    assert_ne!(wait.signal.seen(), wait.seen, "it is told");
    run(&mut parked, at(0));
    assert_eq!(queued(), 2);
    bench.processor.inbox.empty();
    run(&mut parked, at(0));
    assert_eq!(queued(), 0, "once is enough");
}

/// What parked in an hour does not come back into memory at once.
#[test]
fn what_is_parked_is_woken_page_by_page_while_there_is_room() {
    let bench = Bench::new(settings(), idle());
    let mut parked = bench.processor.parked();
    let queued = || bench.processor.inbox.mailboxes.queued();
    let saga = |number: i64| (SagaKey(number), SagaId::new(format!("o-{number}")));
    bench.journal.held.lock().parked = (1..=2_500).map(saga).collect();
    let wait = run(&mut parked, at(0)).unwrap();
    assert_eq!((queued(), wait.until), (1_000, Some(at(25).steady)), "the workers have more than enough");
    run(&mut parked, at(1_000));
    assert_eq!(queued(), 1_000);
    bench.processor.inbox.empty();
    run(&mut parked, at(2_000));
    assert_eq!(queued(), 1_000);
    bench.processor.inbox.empty();
    assert_eq!(run(&mut parked, at(3_000)).unwrap().until, None);
    assert_eq!(queued(), 500, "the last ones");

    bench.processor.inbox.empty();
    bench.processor.stage.restart(BatchNo(0), BatchNo(0), &BTreeMap::new(), None);
    run(&mut parked, at(4_000));
    assert_eq!(queued(), 1_000, "all that waited was void");
}
