//! Workers on chains: conflicts that are run again, assertions that fail, chains that are cut.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use sagahost_codec::Decoded;
use sagahost_manifest::host_calls::{HostCalls, PageBounds};
use sagahost_saga::{
    Saga,
    id::Direction,
    input::{Command, Status},
    outcome::{Completion, Emission, End, Outcome, Saved, StateChange, Undo, UndoOutcome, Undone},
    topology::Role,
};
use sagahost_wire::{BatchNo, StoredLetter, StreamNo};

use super::{
    bench::{Bench, KIND, at, completed, idle, partition, run, serving, settings, take},
    memory::{Memory, kept, topics},
    scripted::Handler,
};
use crate::{
    mailbox::Item,
    processor::Settings,
    stage::Staged,
    step::{Next, Part},
    values::{Kept, Values},
    worker::{ChainBounds, State},
};

fn sells() -> Arc<Handler> {
    Arc::new(|_, host: &mut dyn HostCalls| {
        host.counter_ensure("stock", 1_000).map_err(|_| "no counter").unwrap();
        take(host, "stock", 1);
        completed(Vec::new())
    })
}

fn reruns(bench: &Bench) -> u64 {
    bench.processor.stats.chains_rerun.load(Ordering::Relaxed)
}

/// Each takes what the other took: under escrow nobody is run again, whoever reads the same is.
#[test]
fn two_workers_in_one_counter_are_in_each_others_way_only_where_they_read_it() {
    let reads: Arc<Handler> = Arc::new(|_, host: &mut dyn HostCalls| {
        host.counter_ensure("stock", 1_000).map_err(|_| "no counter").unwrap();
        host.counter_read("stock").map_err(|_| "no counter").unwrap();
        take(host, "stock", 1);
        completed(Vec::new())
    });
    for (handler, expected) in [(sells(), 0), (reads, 20)] {
        let bench = Bench::new(settings(), handler);
        let mut workers = [bench.processor.worker(), bench.processor.worker()];
        for pair in 0..20 {
            (0..2).for_each(|of| bench.deliver(2 * pair + of, &format!("o-{pair}-{of}")));
            // Both run before one of them stages.
            for worker in &mut workers {
                while !matches!(worker.state, State::Stage(..)) {
                    assert!(matches!(worker.step(at(0)), Next::Again));
                }
            }
            workers.iter_mut().for_each(|worker| drop(run(worker, at(0))));
        }
        assert_eq!(bench.counter("stock"), Some(1_000 - 40), "each is taken once");
        assert_eq!(reruns(&bench), expected);
    }
}

/// From the second conflict on a chain holds what it lost over, for a bounded time.
#[test]
fn a_chain_that_loses_twice_holds_what_it_lost_over_for_reservation_max() {
    let reads: Arc<Handler> = Arc::new(|_, host: &mut dyn HostCalls| {
        host.store_get("k").map_err(|_| "no store").unwrap();
        completed(Vec::new())
    });
    let bench = Bench::new(settings(), reads);
    let others = |chain: u64| {
        let mut overlay = bench.overlay();
        overlay.put(&"till".into(), "k", Some(chain.to_string().into_bytes().into()));
        bench.stage(chain, overlay)
    };
    let mut worker = bench.processor.worker();
    bench.deliver(0, "o-1");
    for lost in 1..=2 {
        while !matches!(worker.state, State::Stage(..)) {
            worker.step(at(0));
        }
        assert!(matches!(others(100 + lost), Staged::Joined));
        worker.step(at(0));
        assert_eq!(reruns(&bench), lost);
    }
    while !matches!(worker.state, State::Stage(..)) {
        worker.step(at(0));
    }
    let Staged::Full(_, wait) = others(103) else { panic!("the chain that lost twice holds the key") };
    assert_eq!(wait.until, Some(at(0).steady.after(settings().reservation_max)));
    run(&mut worker, at(1));
    assert_eq!(reruns(&bench), 2, "the third time it is not lost again");
    assert!(matches!(others(104), Staged::Joined));
}

/// An assertion that fails costs the saga and the input that it met, and nothing else.
#[test]
fn a_broken_invariant_quarantines_one_saga() {
    let calls: Arc<AtomicU32> = Arc::default();
    let counted = calls.clone();
    let handler: Arc<Handler> = Arc::new(move |call, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        assert!(!call.event.key.id.is_empty() && *call.event.data != *b"{\"n\":1}", "an assertion that fails");
        completed(Vec::new())
    });
    let bench = Bench::new(settings(), handler);
    let (mut worker, mut committer) = (bench.processor.worker(), bench.processor.committer(&bench.at));
    (0..3).for_each(|offset| bench.deliver(offset, &format!("o-{offset}")));
    run(&mut worker, at(0));
    let why = bench.journal.held.lock().quarantined.clone();
    assert_eq!(why.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["o-1"]);
    assert!(why.values().all(|why| why.contains("an assertion that fails")), "{why:?}");

    // What was built beside it is built again: the records come once more, that of the saga is kept aside.
    run(&mut committer, at(0));
    run(&mut committer, at(500));
    bench.processor.stage.source_follows();
    (0..3).for_each(|offset| bench.deliver(offset, &format!("o-{offset}")));
    run(&mut worker, at(500));
    run(&mut committer, at(600));
    let held = bench.journal.held.lock();
    assert_eq!(held.sagas.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["o-0", "o-2"]);
    let letters: Vec<_> =
        held.letters.iter().map(|letter| (&*letter.code, letter.saga.as_ref().unwrap().as_str())).collect();
    assert_eq!(letters, [("saga-quarantined", "o-1")]);
    assert_eq!(held.positions[&partition()].next, 3, "its partition goes on");
    assert_eq!(calls.load(Ordering::Relaxed), 3 + 2, "nothing of it is called any more");
}

/// What goes beyond the bound is published, and comes back as a record.
#[test]
fn a_chain_is_cut_at_chain_steps_max() {
    for (max, called) in [(2, 2), (64, 5)] {
        let calls: Arc<AtomicU32> = Arc::default();
        let counted = calls.clone();
        let handler: Arc<Handler> = Arc::new(move |_, _| {
            let more = counted.fetch_add(1, Ordering::Relaxed) < 4;
            completed(more.then(|| emission(0)).into_iter().collect())
        });
        let bench =
            Bench::new(Settings { chain: ChainBounds { steps_max: max, ..settings().chain }, ..settings() }, handler);
        bench.deliver(0, "o-1");
        run(&mut bench.processor.worker(), at(0));
        assert_eq!(calls.load(Ordering::Relaxed), called, "chain-steps-max = {max}");
        let sealed = bench.sealed(at(1_000)).unwrap();
        assert_eq!(topics(&sealed.write.outbox), vec!["sold"; called.min(4) as usize], "for everybody else");
        let handled =
            |record: &&sagahost_wire::Outgoing| record.headers.iter().any(|(name, _)| name == "sagahost-handled");
        let fused = sealed.write.outbox.iter().filter(handled).count();
        assert_eq!(fused, called as usize - 1, "those that ran in the chain are marked");
    }
}

fn bytes_max(bytes_max: usize) -> Settings {
    Settings { chain: ChainBounds { bytes_max, ..settings().chain }, ..settings() }
}

/// Each step fits by itself: a plugin must not fail since it was fused into a long chain.
#[test]
fn a_chain_fuses_no_more_when_it_is_full_whatever_fills_it() {
    type Fill = fn(&mut dyn HostCalls, u32) -> usize;
    let fills: [(&str, Fill); 5] = [
        ("puts", |host, call| host.store_put(&format!("k/{call}"), vec![0; 1_000]).map_or(0, |()| 0)),
        ("gets", |host, call| host.store_get(&format!("old/{call}")).unwrap_or_default().map_or(0, |_| 0)),
        ("scans", |host, call| {
            let after = format!("old/{call}");
            let page = host.store_scan("old/", Some(&after), PageBounds { entries: 1, bytes: 2_000 });
            assert_eq!(page.unwrap_or_default().len(), 1);
            0
        }),
        ("counters", |host, call| {
            (0..6).for_each(|of| drop(host.counter_ensure(&format!("{call}/{of}"), 1)));
            0
        }),
        ("emissions", |_, _| 1_000),
    ];
    for (what, fill) in fills {
        for (max, called) in [(3_000, 3), (1 << 20, 8)] {
            let calls: Arc<AtomicU32> = Arc::default();
            let counted = calls.clone();
            let handler: Arc<Handler> = Arc::new(move |_, host| {
                let call = counted.fetch_add(1, Ordering::Relaxed);
                let size = fill(host, call);
                completed((call < 7).then(|| emission(size)).into_iter().collect())
            });
            let journal: Arc<Memory> = Arc::default();
            let old = |key: u32| (("till".into(), format!("old/{key}")), kept(&[0; 1_000]));
            journal.held.lock().store.extend((0..10).map(old));
            let bench = Bench::on(journal, bytes_max(max), handler);
            bench.deliver(0, "o-1");
            run(&mut bench.processor.worker(), at(0));
            assert_eq!(calls.load(Ordering::Relaxed), called, "{what}, chain-bytes-max = {max}");
            let sealed = bench.sealed(at(1_000)).unwrap();
            assert_eq!(sealed.write.outbox.len(), called.min(7) as usize, "{what}: the rest comes back as a record");
        }
    }
}

fn emission(bytes: usize) -> Emission {
    Emission {
        kind: KIND.into(),
        data: format!("\"{}\"", "x".repeat(bytes)).into_bytes().into(),
        content_type: None,
        saga: None,
        after: None,
        attributes: Vec::new(),
    }
}

/// A compensation is one chain, whatever it undoes: what does not fit waits for another, and costs no attempt.
#[test]
fn a_compensation_goes_on_in_another_chain_when_one_is_full() {
    for (max, chains) in [(1_000, 4), (1 << 20, 1)] {
        let handler: Arc<Handler> = Arc::new(|call, host| {
            host.store_put(&format!("k/{}", call.step_id), vec![0; 1_000]).map_err(|_| "no store").unwrap();
            match call.direction {
                Direction::Forward => undoable(),
                Direction::Undo => End::Undo(UndoOutcome::Undone(Undone {
                    emit: Vec::new(),
                    state: StateChange::Keep,
                    attributes: Vec::new(),
                })),
            }
        });
        let mut serving = serving(handler, 1);
        serving.topology.members[0].subscriptions[0].role = Role::Compensable;
        let bench = Bench::with(Arc::default(), bytes_max(max), serving, None);
        let mut worker = bench.processor.worker();
        for offset in 0..4 {
            bench.deliver(offset, "o-1");
            run(&mut worker, at(0));
        }
        let command = Command::Cancel { reason: "a test".to_owned(), by: "a test".to_owned() };
        let mut item = Item::Operator { command, queued: None, reply: None, receipt: None };
        let mut ran = 0;
        while bench.saga("o-1").status() != Status::Compensated {
            assert!(ran < 10, "it makes progress");
            bench.processor.inbox.post(&"o-1".into(), item);
            run(&mut worker, at(100_000 * ran));
            ran += 1;
            item = Item::Due { deadlines: false };
        }
        assert_eq!(ran, chains, "chain-bytes-max = {max}");
        assert!(bench.sealed(at(1_000_000)).unwrap().write.letters.is_empty());
    }
}

/// One step, undone.
fn ended() -> Arc<Saga> {
    let handler: Arc<Handler> = Arc::new(|call, _| match call.direction {
        Direction::Forward => undoable(),
        Direction::Undo => End::Undo(UndoOutcome::NothingToUndo),
    });
    let mut serving = serving(handler, 1);
    serving.topology.members[0].subscriptions[0].role = Role::Compensable;
    let bench = Bench::with(Arc::default(), settings(), serving, None);
    let mut worker = bench.processor.worker();
    bench.deliver(0, "o-1");
    run(&mut worker, at(0));
    let command = Command::Cancel { reason: "a test".to_owned(), by: "a test".to_owned() };
    let item = Item::Operator { command, queued: None, reply: None, receipt: None };
    bench.processor.inbox.post(&"o-1".into(), item);
    run(&mut worker, at(0));
    let saga = bench.saga("o-1");
    assert!(saga.status().terminal());
    saga
}

#[test]
fn a_saga_that_ended_stays_in_memory_until_the_journal_holds_its_end() {
    let (ended, runs) = (ended(), Arc::new(Saga::new("o-2".into(), at(0).wall)));
    let mut values = Values::new(1 << 20, StreamNo(0), BatchNo(0));
    let write = |values: &mut Values, id: &str, saga: &Arc<Saga>, batch| {
        values.write_saga(&id.into(), (saga.clone(), &saga.encode()), Kept::default(), &[], BatchNo(batch));
    };
    write(&mut values, "o-1", &ended, 2);
    write(&mut values, "o-2", &runs, 2);
    values.journaled(BatchNo(1));
    assert!(values.saga(&"o-1".into()).is_some() && values.saga_drops() == 0);
    // A late event changes it once more.
    write(&mut values, "o-1", &ended, 3);
    values.journaled(BatchNo(2));
    let held = values.saga(&"o-1".into()).expect("its last change is not in the journal");
    assert_eq!(held.saga, Some(ended), "kept as its record, and read again");
    values.journaled(BatchNo(3));
    assert!(values.saga(&"o-1".into()).is_none() && values.saga(&"o-2".into()).is_some());
    assert_eq!((values.saga_drops(), values.drops()), (1, 0), "nothing else is read again for that");
}

fn undoable() -> End {
    match completed(Vec::new()) {
        End::Outcome(Outcome::Completed(completion)) => {
            let undo = Undo::Data(Saved { data: Arc::from(*b"1"), format: 1 });
            End::Outcome(Outcome::Completed(Completion { undo, ..completion }))
        }
        other => other,
    }
}

#[test]
fn a_worker_without_work_waits_for_a_sign_alone() {
    let bench = Bench::new(settings(), idle());
    let mut worker = bench.processor.worker();
    let wait = run(&mut worker, at(0)).unwrap();
    assert_eq!(wait.until, None);
    bench.deliver(0, "o-1");
    assert_ne!(wait.signal.seen(), wait.seen);
}

/// What comes for a saga that may have no more steps is kept aside: its saga is neither copied nor written for it, and
/// nobody is called. It is taken in when a person sends it again and there is room.
#[test]
fn what_a_saga_has_no_room_for_is_kept_aside_whole() {
    let calls: Arc<AtomicU32> = Arc::default();
    let counted = calls.clone();
    let handler: Arc<Handler> = Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        completed(Vec::new())
    });
    let mut small = serving(handler.clone(), 1);
    small.topology.bounds.steps_per_saga_max = 1;
    let bench = Bench::with(Arc::default(), settings(), small, None);
    let mut worker = bench.processor.worker();
    (0..2).for_each(|offset| bench.deliver(offset, "o-1"));
    run(&mut worker, at(0));
    bench.commit(at(1_000));
    assert_eq!(bench.journal.held.lock().letters.len(), 1, "of the first one the saga knows");

    (2..52).for_each(|offset| bench.deliver(offset, "o-1"));
    bench.deliver_as(52, 0, "o-1");
    run(&mut worker, at(1_000));
    let sealed = bench.sealed(at(2_000)).unwrap();
    assert_eq!(sealed.write.sagas.len(), 0, "the saga is as it was");
    bench.finish(&sealed);
    let letters = bench.journal.held.lock().letters.clone();
    let aside = &letters[1..];
    assert_eq!(aside.len(), 50, "one for each, and none for the event that is known");
    assert!(aside.iter().all(|letter| letter.code == "too-many-steps" && letter.letter.is_none()));
    assert!(aside.iter().all(|letter| letter.saga == Some("o-1".into())), "they keep its record");
    assert_eq!(bench.journal.held.lock().positions[&partition()].next, 53);
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    bench.processor.serving.store(Arc::new(serving(handler, 1)));
    (0..2).for_each(|_| bench.processor.inbox.post(&"o-1".into(), sent_again(&bench, &aside[0])));
    run(&mut worker, at(2_000));
    assert_eq!(calls.load(Ordering::Relaxed), 2, "once, however often it is sent again");
}

fn sent_again(bench: &Bench, letter: &StoredLetter) -> Item {
    let Decoded { event, formerly } = bench.processor.serving.load().codec.decode_letter(letter).unwrap();
    Item::Redelivery { event, formerly, letter: Box::new(letter.clone()), receipt: None, reply: None }
}
