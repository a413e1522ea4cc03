//! Calls outside: they leave behind the commit, once, and their end is kept until it is journaled.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sagahost_journal::SagaKey;
use sagahost_saga::{
    Saga,
    id::SagaId,
    input::{CallRef, Status},
    outcome::{Behaviour, Call, Crash, End, Outcome, Problem},
};

use super::{
    bench::{Bench, at, completed, idle, run, serving, settings},
    memory::{Commit, Memory},
};
use crate::outside::{Answer, Came, Launch, Outside};

/// A service that answers when the test says so.
#[derive(Default)]
struct Service {
    calls: Mutex<Vec<(SagaId, Call)>>,
}

impl Outside for Service {
    fn launch(&self, saga: &SagaId, Launch { call, .. }: Launch) {
        self.calls.lock().push((saga.clone(), call));
    }
}

struct Shop {
    bench: Bench,
    service: Arc<Service>,
}

/// The till is somewhere else.
fn shop(journal: &Arc<Memory>) -> Shop {
    let mut serving = serving(idle(), 1);
    serving.topology.members[0].outside_effects = true;
    let service: Arc<Service> = Arc::default();
    let bench = Bench::with(journal.clone(), settings(), serving, Some(service.clone()));
    Shop { bench, service }
}

impl Shop {
    /// An event whose call leaves, behind the batch in which it began.
    fn call(&self) {
        self.bench.deliver(0, "o-1");
        self.work();
        self.commit();
        self.work();
    }

    /// What waits for a worker, and calls whose end is not journaled.
    fn waiting_and_known(&self) -> (usize, usize) {
        let inbox = &self.bench.processor.inbox;
        (inbox.mailboxes.queued(), inbox.calls.count())
    }

    fn work(&self) {
        run(&mut self.bench.processor.worker(), at(0));
    }

    /// Returns how many calls have left so far.
    fn commit(&self) -> usize {
        self.commit_at(0)
    }

    fn commit_at(&self, ms: u64) -> usize {
        run(&mut self.bench.processor.committer(&self.bench.at), at(ms));
        self.bench.processor.stage.published(self.bench.processor.stage.last_sealed());
        self.left()
    }

    fn left(&self) -> usize {
        self.service.calls.lock().len()
    }

    fn answer(&self, number: usize, end: End, left: bool) {
        let (saga, call) = self.service.calls.lock()[number].clone();
        let by = Behaviour { digest: "remote".into(), ..Behaviour::default() };
        let answer = Answer { by, came: Came::End(end), left, took: Duration::from_millis(3) };
        self.bench.processor.answers().answer(&saga, &CallRef::from(&call), answer);
    }

    fn saga(&self) -> Saga {
        let bytes = self.bench.journal.held.lock().sagas[&SagaId::from("o-1")].1.clone();
        Saga::decode(&bytes).unwrap()
    }
}

fn unknown() -> End {
    let crash = Crash { code: "reset".to_owned(), detail: "the connection was reset".to_owned() };
    End::Outcome(Outcome::Unknown { crash, uncertain: false })
}

#[test]
fn a_call_leaves_behind_the_commit_and_its_end_is_an_input() {
    let shop = shop(&Arc::default());
    shop.bench.deliver(0, "o-1");
    shop.work();
    assert_eq!((shop.left(), shop.waiting_and_known()), (0, (0, 0)), "it is not durable that it began");
    shop.commit();
    assert_eq!((shop.left(), shop.waiting_and_known()), (0, (1, 1)), "a worker hands it out");
    shop.work();
    assert_eq!((shop.left(), shop.waiting_and_known()), (1, (0, 1)));
    assert_eq!(shop.saga().in_doubt().len(), 1);
    shop.answer(0, completed(Vec::new()), true);
    shop.work();
    assert_eq!(shop.bench.processor.inbox.calls.count(), 1, "its end is not durable");
    shop.commit();
    assert_eq!((shop.bench.processor.inbox.calls.count(), shop.saga().in_doubt().len()), (0, 0));
    assert_eq!(shop.saga().steps().next().unwrap().state, sagahost_saga::view::StepState::Done);
    shop.answer(0, completed(Vec::new()), true);
    shop.work();
    assert_eq!(shop.commit(), 1, "what comes twice changes nothing");
}

/// Its end was staged with a batch that failed: it is kept, and staged again. The call does not leave twice.
#[test]
fn an_end_outlives_a_commit_that_fails() {
    let journal: Arc<Memory> = Arc::default();
    let shop = shop(&journal);
    shop.call();
    shop.answer(0, completed(Vec::new()), true);
    shop.work();
    let mut committer = shop.bench.restarts_behind(Commit::Fails);
    shop.work();
    run(&mut committer, at(10_000));
    assert_eq!((shop.left(), shop.saga().in_doubt().len()), (1, 0));
    assert_eq!(shop.bench.processor.inbox.calls.count(), 0);
}

/// It began with a batch that failed: nothing of it is under way, and the event comes again.
#[test]
fn a_call_whose_beginning_is_not_durable_does_not_leave() {
    let journal: Arc<Memory> = Arc::default();
    let shop = shop(&journal);
    shop.bench.deliver(0, "o-1");
    shop.work();
    let mut committer = shop.bench.restarts_behind(Commit::Fails);
    shop.work();
    assert_eq!((shop.left(), shop.bench.processor.inbox.calls.count()), (0, 0));
    shop.bench.processor.stage.source_follows();
    shop.bench.deliver(0, "o-1");
    shop.work();
    run(&mut committer, at(10_000));
    shop.work();
    assert_eq!(shop.left(), 1);
}

/// The commit went through and said that it failed: the journal says which call is in doubt, and this host knows that it
/// has not left.
#[test]
fn a_call_whose_beginning_is_durable_after_all_leaves() {
    let journal: Arc<Memory> = Arc::default();
    let shop = shop(&journal);
    shop.bench.deliver(0, "o-1");
    shop.work();
    shop.bench.restarts_behind(Commit::Lies);
    shop.work();
    assert_eq!(shop.left(), 1);
    assert_eq!(shop.service.calls.lock()[0].1.attempt, 1, "it is not an interrupted one");
}

/// The commit that had its end went through and said that it failed: nothing of the call is kept.
#[test]
fn an_end_that_is_durable_after_all_is_settled() {
    let journal: Arc<Memory> = Arc::default();
    let shop = shop(&journal);
    shop.call();
    shop.answer(0, completed(Vec::new()), true);
    shop.work();
    let mut committer = shop.bench.restarts_behind(Commit::Lies);
    shop.work();
    run(&mut committer, at(20_000));
    assert_eq!((shop.left(), shop.saga().in_doubt().len()), (1, 0));
    assert_eq!(shop.waiting_and_known(), (0, 0));
}

/// When the host restarts from its journal, a worker may stage a chain before the calls in doubt are read.
#[test]
fn a_call_that_began_in_a_chain_that_is_not_durable_does_not_leave() {
    let journal: Arc<Memory> = Arc::default();
    let shop = shop(&journal);
    shop.call();
    shop.answer(0, unknown(), true);
    shop.work();
    shop.commit();
    shop.bench.processor.inbox.post(&"o-1".into(), crate::mailbox::Item::Due { deadlines: false });
    run(&mut shop.bench.processor.worker(), at(600_000));
    shop.bench.processor.inbox.take_up_calls_of(&"o-1".into(), &*journal, false).unwrap();
    shop.work();
    assert_eq!(shop.left(), 1, "that the second attempt began is staged, and not durable");
    shop.commit_at(600_000);
    shop.work();
    assert_eq!(shop.left(), 2);
}

/// Calls that are out are in memory, too.
#[test]
fn nothing_parked_is_woken_while_many_calls_are_outside() {
    let shop = shop(&Arc::default());
    let mut parked = shop.bench.processor.parked();
    for offset in 0..100 {
        shop.bench.deliver(offset, &format!("o-{offset}"));
    }
    shop.work();
    shop.commit();
    shop.work();
    assert_eq!((shop.left(), shop.waiting_and_known()), (100, (0, 100)));
    shop.bench.journal.held.lock().parked = vec![(SagaKey(1_000), SagaId::new("o-1000"))];
    assert!(run(&mut parked, at(0)).unwrap().until.is_some());
    assert_eq!(shop.waiting_and_known(), (0, 100));
    shop.answer(0, completed(Vec::new()), true);
    shop.work();
    run(&mut parked, at(25));
    assert_eq!(shop.waiting_and_known(), (1, 100), "what is parked, and a call whose end is not durable");
}

/// The host before this one died while the call was out, or before it left: nobody knows.
#[test]
fn a_call_that_is_in_doubt_at_a_start_is_interrupted_and_made_again_under_the_same_key() {
    let journal: Arc<Memory> = Arc::default();
    let before = shop(&journal);
    before.call();
    let first = before.service.calls.lock()[0].1.clone();
    let after = shop(&journal);
    // While that is not journaled, it stays interrupted, also where everything begins anew.
    after.work();
    let mut committer = after.bench.restarts_behind(Commit::Fails);
    after.work();
    assert_eq!(after.left(), 0);
    run(&mut committer, at(10_000));
    // It waits for its next attempt, and is uncertain: the first may have happened.
    let saga = after.saga();
    assert!(saga.wake(&after.bench.processor.serving.load().topology).at.is_some());
    after.bench.processor.inbox.post(&"o-1".into(), crate::mailbox::Item::Due { deadlines: false });
    run(&mut after.bench.processor.worker(), at(600_000));
    after.bench.processor.stage.published(after.bench.processor.stage.last_sealed());
    run(&mut committer, at(600_000));
    after.work();
    let again = after.service.calls.lock()[0].1.clone();
    assert_eq!((again.attempt, &again.idempotency_key), (2, &first.idempotency_key));
    before.answer(0, completed(Vec::new()), true);
    after.answer(0, completed(Vec::new()), true);
    after.work();
    after.bench.processor.stage.published(after.bench.processor.stage.last_sealed());
    run(&mut committer, at(600_000));
    assert!(after.saga().in_doubt().is_empty());
}

#[test]
fn what_left_is_uncertain_and_what_did_not_costs_nothing() {
    let shop = shop(&Arc::default());
    shop.call();
    let away = End::Outcome(Outcome::Unsent(Problem::new("AWAY", "nobody listens")));
    shop.answer(0, away, false);
    shop.work();
    shop.commit();
    shop.bench.processor.inbox.post(&"o-1".into(), crate::mailbox::Item::Due { deadlines: false });
    run(&mut shop.bench.processor.worker(), at(600_000));
    shop.commit_at(600_000);
    shop.work();
    assert_eq!(shop.left(), 2);
    shop.answer(1, unknown(), true);
    shop.work();
    shop.commit_at(600_000);
    assert_eq!(shop.saga().status(), Status::Running);
    assert_eq!(shop.saga().steps().next().unwrap().attempts, 2);
}
