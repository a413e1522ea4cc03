//! What is told of what happened: behind the commit, and of what counts alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use sagahost_saga::{
    id::{Direction, Kind, SagaId},
    input::Status,
    outcome::Emission,
};
use sagahost_wire::BatchNo;

use super::{
    bench::{Bench, KIND, at, completed, partition, run, settings, take},
    memory::Commit,
};
use crate::{
    facts::{Batch, HostCall, Input, Reader},
    step::Now,
};

#[derive(Default)]
struct Watcher {
    batches: Mutex<Vec<Batch>>,
    out: Mutex<Vec<BatchNo>>,
    anew: AtomicUsize,
}

impl Reader for Watcher {
    fn journaled(&self, batch: &Batch) {
        self.batches.lock().push(batch.clone());
    }
    fn began_anew(&self) {
        self.anew.fetch_add(1, Ordering::Relaxed);
    }
    fn published(&self, batch: BatchNo, _: Now) {
        self.out.lock().push(batch);
    }
    fn quarantined(&self, _: &SagaId) {}
    fn reads_calls(&self) -> bool {
        true
    }
}

/// Each sale takes one, and says so.
fn shop() -> (Bench, Arc<Watcher>) {
    let sell = |_: &_, host: &mut dyn sagahost_manifest::host_calls::HostCalls| {
        host.counter_ensure("stock", 1).map_err(|_| "no counter").unwrap();
        take(host, "stock", 1);
        completed(vec![Emission {
            kind: "Noted".into(),
            data: Arc::from(*b"{}"),
            content_type: None,
            saga: None,
            after: None,
            attributes: Vec::new(),
        }])
    };
    let (bench, watcher) = (Bench::new(settings(), Arc::new(sell)), Arc::new(Watcher::default()));
    bench.processor.facts.read_by(watcher.clone());
    (bench, watcher)
}

#[test]
fn a_chain_is_told_when_it_is_journaled() {
    let (bench, watcher) = shop();
    bench.deliver(0, "o-1");
    run(&mut bench.processor.worker(), at(0));
    assert_eq!(*watcher.batches.lock(), []);
    run(&mut bench.processor.committer(&bench.at), at(5));
    let batches = watcher.batches.lock();
    assert_eq!((batches.len(), batches[0].number, batches[0].at), (1, BatchNo(1), at(5)));
    let [chain] = &batches[0].chains[..] else { panic!("{batches:?}") };
    let Input::Event { kind, at: place, .. } = &chain.input else { panic!("{chain:?}") };
    assert_eq!((kind, place), (&Kind::new(KIND), &Some((partition(), 0))));
    assert_eq!((chain.status, chain.reruns), (Status::Running, 0));
    let [attempt] = &chain.attempts[..] else { panic!("{chain:?}") };
    assert_eq!((attempt.direction, attempt.attempt, attempt.outcome), (Direction::Forward, 1, "completed"));
    assert!(attempt.kept && attempt.took == Duration::from_millis(1) && &*attempt.by.version == "1.0");
    let name = || "stock".to_owned();
    let ensured = HostCall::CounterEnsure { name: name(), initial: 1 };
    assert_eq!(attempt.calls, [ensured, HostCall::CounterTake { name: name(), amount: 1, taken: true }]);
    let [emitted] = &chain.emitted[..] else { panic!("{chain:?}") };
    assert_eq!((emitted.kind.as_str(), emitted.fused, &*emitted.topic), ("Noted", false, "noted"));
}

#[test]
fn what_is_thrown_away_is_not_told() {
    let (bench, watcher) = shop();
    bench.journal.held.lock().commits.push_back(Commit::Fails);
    bench.deliver(0, "o-1");
    run(&mut bench.processor.worker(), at(0));
    let mut committer = bench.processor.committer(&bench.at);
    run(&mut committer, at(0));
    assert_eq!(*watcher.batches.lock(), [], "it is void");
    run(&mut committer, at(10_000));
    bench.processor.stage.source_follows();
    bench.deliver(0, "o-1");
    run(&mut bench.processor.worker(), at(10_000));
    run(&mut committer, at(10_000));
    let chains: Vec<_> = watcher.batches.lock().iter().flat_map(|batch| batch.chains.clone()).collect();
    assert_eq!(chains.len(), 1, "{chains:?}");
}

/// Whoever waits for one of its sagas looks again.
#[test]
fn a_batch_of_which_nobody_is_told_is_said_to_be_possible() {
    let (bench, watcher) = shop();
    bench.journal.held.lock().commits.push_back(Commit::Lies);
    bench.deliver(0, "o-1");
    run(&mut bench.processor.worker(), at(0));
    let mut committer = bench.processor.committer(&bench.at);
    run(&mut committer, at(0));
    assert_eq!((watcher.batches.lock().len(), watcher.anew.load(Ordering::Relaxed)), (0, 0));
    run(&mut committer, at(10_000));
    assert_eq!((watcher.batches.lock().len(), watcher.anew.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(bench.saga("o-1").steps().count(), 1, "it is journaled");
}

/// Two sales of the last one, side by side: who is second runs again, and that is told with it.
#[test]
fn a_chain_that_ran_again_is_told_once() {
    let (bench, watcher) = shop();
    bench.deliver(0, "o-1");
    bench.deliver(1, "o-2");
    let (mut one, mut other) = (bench.processor.worker(), bench.processor.worker());
    // Each is run, and neither staged.
    for worker in [&mut one, &mut other] {
        while !matches!(worker.state, crate::worker::State::Stage(..)) {
            crate::step::Part::step(worker, at(0));
        }
    }
    run(&mut one, at(0));
    run(&mut other, at(0));
    run(&mut bench.processor.committer(&bench.at), at(0));
    let batches = watcher.batches.lock();
    let chains: Vec<_> = batches.iter().flat_map(|batch| &batch.chains).collect();
    let told: Vec<_> = chains.iter().map(|chain| (chain.saga.as_str(), chain.reruns, chain.attempts.len())).collect();
    assert_eq!(told, [("o-1", 0, 1), ("o-2", 1, 1)]);
}
