//! Requests over HTTP: one key is one request, whoever is faster; answers hang on batches.

use std::sync::Arc;

use parking_lot::Mutex;
use sagahost_journal::{Journal as _, requests};
use sagahost_saga::{
    event::Event,
    id::{EventKey, Participant, SagaId},
    input::Command,
    outcome::Emission,
};

use super::{
    bench::{Bench, KIND, at, completed, idle, run, settings},
    memory::{Commit, topics},
};
use crate::{
    mailbox::Item,
    reply::{Declined, Reply},
    request::{Admission, Asker, Asks, Request, emitted},
    step::{Next, Part},
    worker::State,
};

type Told = Arc<Mutex<Vec<Result<Admission, Declined>>>>;

fn event(key: &str, saga: &str, data: &str, asks: bool) -> Event {
    Event {
        key: EventKey::new(Event::source_of_request("shop", asks, "/sales"), key),
        saga: saga.into(),
        kind: KIND.into(),
        time: at(0).wall,
        content_type: "application/json".into(),
        data: data.as_bytes().into(),
        attributes: Vec::new(),
        hops: 0,
        origin: None,
        record_key: None,
    }
}

/// `to`: whom it asks for a step.
fn post(bench: &Bench, key: &str, saga: &str, data: &str, to: Option<&str>) -> Told {
    let event = event(key, saga, data, to.is_some());
    let asks = match to {
        Some(of) => Asks::Step { event, of: of.into() },
        None => Asks::Begin(event),
    };
    post_by(bench, "ann", asks)
}

fn post_by(bench: &Bench, name: &str, asks: Asks) -> Told {
    let told = Told::default();
    let tell = told.clone();
    let (saga, by) = (asks.saga().clone(), Asker { name: name.into(), sees_all: false });
    let reply = Reply::new(move |answer| tell.lock().push(answer));
    bench.processor.inbox.post(&saga, Item::Requested { request: Request { asks, by }, reply });
    told
}

fn asked(bench: &Bench, key: &str, saga: &str, data: &str, to: Option<&str>) -> Result<Admission, Declined> {
    answer_to(bench, &post(bench, key, saga, data, to))
}

fn answer_to(bench: &Bench, told: &Told) -> Result<Admission, Declined> {
    run(&mut bench.processor.worker(), at(0));
    let early = told.lock().contains(&Ok(Admission::TakenIn));
    assert!(!early, "nothing is said before it is durable");
    bench.commit_and_answer();
    let mut told = told.lock();
    assert_eq!(told.len(), 1, "it is answered once");
    told.remove(0)
}

impl Bench {
    fn commit_and_answer(&self) {
        run(&mut self.processor.committer(&self.at), at(0));
        self.processor.stage.published(self.processor.stage.last_sealed());
    }
}

fn emits(kind: &'static str) -> Arc<super::scripted::Handler> {
    Arc::new(move |_, _| {
        completed(vec![Emission {
            kind: kind.into(),
            data: Arc::from(*b"{}"),
            content_type: None,
            saga: None,
            after: None,
            attributes: Vec::new(),
        }])
    })
}

fn kept(bench: &Bench, (owner, key): (sagahost_saga::id::Participant, String)) -> Option<String> {
    let row = bench.journal.store_get(&owner, &key).unwrap()?;
    Some(String::from_utf8_lossy(&row.value).into_owned())
}

#[test]
fn a_request_is_an_event_that_goes_out_and_is_taken_in_with_one_batch() {
    let bench = Bench::new(settings(), emits("Noted"));
    assert_eq!(asked(&bench, "k1", "o-1", "{}", None), Ok(Admission::TakenIn));
    let out = bench.processor.outbox.next(at(0)).unwrap();
    assert_eq!(topics(&out.records), ["sold", "noted"]);
    let handled = out.records[0].headers.iter().find(|(name, _)| name == "sagahost-handled");
    assert!(handled.is_some(), "this app does not take it in again: {:?}", out.records[0].headers);
    assert_eq!(kept(&bench, requests::key("k1")).as_deref(), Some("o-1"));
    assert_eq!(kept(&bench, requests::of_saga(&"o-1".into(), "k1")).as_deref(), Some("ann"));
}

/// Each row of the table of races that this part decides.
#[test]
fn what_comes_second_hears_why() {
    let bench = Bench::new(settings(), idle());
    assert_eq!(asked(&bench, "k1", "o-1", "{}", None), Ok(Admission::TakenIn));
    for (key, saga, data, to, expected) in [
        ("k1", "o-1", "{}", None, Admission::Known),
        ("k1", "o-1", "{\"n\":1}", None, Admission::OtherBody),
        ("k1", "o-2", "{}", None, Admission::OtherBody),
        ("k2", "o-1", "{}", None, Admission::SagaExists),
        ("k3", "o-3", "{}", Some("nobody"), Admission::Unhandled),
        ("k4", "o-4", "{}", Some("till"), Admission::TakenIn),
        ("k4", "o-4", "{}", Some("till"), Admission::Known),
        ("k5", "o-4", "{}", Some("till"), Admission::TakenIn),
    ] {
        assert_eq!(asked(&bench, key, saga, data, to), Ok(expected), "{key} {saga} {data}");
    }
    assert_eq!(kept(&bench, requests::key("k2")), None, "a key that was refused is free");
    assert!(bench.journal.held.lock().letters.is_empty(), "a conflict is an answer");
}

/// What the journal holds already needs no batch; what it does not hold yet waits for its batch.
#[test]
fn a_request_that_changes_nothing_is_answered_at_once() {
    let bench = Bench::new(settings(), idle());
    let first = post(&bench, "k1", "o-1", "{}", None);
    run(&mut bench.processor.worker(), at(0));
    let again = [post(&bench, "k1", "o-1", "{}", None), post(&bench, "k2", "o-1", "{}", None)];
    run(&mut bench.processor.worker(), at(0));
    assert!(again.iter().chain([&first]).all(|told| told.lock().is_empty()), "it hangs on what is not journaled");
    bench.commit_and_answer();
    let told = again.each_ref().map(|told| told.lock().pop().unwrap().unwrap());
    assert_eq!(told, [Admission::Known, Admission::SagaExists]);
    let sealed = bench.processor.stage.last_sealed();
    let again = [post(&bench, "k1", "o-1", "{}", None), post(&bench, "k2", "o-1", "{}", None)];
    run(&mut bench.processor.worker(), at(0));
    let told = again.each_ref().map(|told| told.lock().pop().unwrap().unwrap());
    assert_eq!(told, [Admission::Known, Admission::SagaExists]);
    bench.commit_and_answer();
    assert_eq!(bench.processor.stage.last_sealed(), sealed, "there is nothing to write");
}

fn cancels(saga: &str) -> Asks {
    Asks::Cancel { saga: saga.into(), reason: "no more".to_owned() }
}

/// Whoever does not see a saga does not ask about it either, whatever is under way at that moment.
#[test]
fn a_saga_of_others_is_foreign() {
    let bench = Bench::new(settings(), idle());
    let by = |name, asks| answer_to(&bench, &post_by(&bench, name, asks)).unwrap();
    let asks = |key, saga, to| match to {
        Some(of) => Asks::Step { event: event(key, saga, "{}", true), of: Participant::new(of) },
        None => Asks::Begin(event(key, saga, "{}", false)),
    };
    assert_eq!(by("ann", asks("k1", "o-1", Some("till"))), Admission::TakenIn);
    for foreign in [asks("k2", "o-1", Some("till")), asks("k3", "o-1", None), cancels("o-1")] {
        assert_eq!(by("bob", foreign), Admission::Foreign);
    }
    assert_eq!(by("ann", asks("k4", "o-1", Some("till"))), Admission::TakenIn);
    assert_eq!(by("ann", cancels("o-1")), Admission::TakenIn);
    assert_eq!(by("ann", cancels("o-1")), Admission::Known);
    // A cancel takes an id, too.
    assert_eq!(by("ann", cancels("o-2")), Admission::TakenIn);
    assert_eq!(by("bob", asks("k5", "o-2", Some("till"))), Admission::Foreign);
    assert_eq!(by("bob", asks("k6", "o-2", None)), Admission::Foreign);
    // One that an operator called off is nobody's.
    let command = Command::Cancel { by: "op".to_owned(), reason: "no more".to_owned() };
    let item = Item::Operator { command, queued: None, reply: None, receipt: None };
    bench.processor.inbox.post(&"o-3".into(), item);
    run(&mut bench.processor.worker(), at(0));
    bench.commit_and_answer();
    assert_eq!(by("bob", asks("k7", "o-3", Some("till"))), Admission::SagaOver);
}

/// Both look while it is nobody's.
#[test]
fn of_two_principals_one_gets_the_saga() {
    let bench = Bench::new(settings(), idle());
    let asks = |key| Asks::Step { event: event(key, "o-1", "{}", true), of: "till".into() };
    let told = [post_by(&bench, "ann", asks("k1")), post_by(&bench, "bob", asks("k2"))];
    run(&mut bench.processor.worker(), at(0));
    bench.commit_and_answer();
    assert_eq!(told.map(|told| told.lock().pop().unwrap().unwrap()), [Admission::TakenIn, Admission::Foreign]);
}

/// The loser reads what the winner wrote, and is run again.
#[test]
fn of_two_sagas_under_one_key_one_begins() {
    let bench = Bench::new(settings(), idle());
    let told = [post(&bench, "k", "o-1", "{}", None), post(&bench, "k", "o-2", "{}", None)];
    let mut workers = [bench.processor.worker(), bench.processor.worker()];
    for worker in &mut workers {
        while !matches!(worker.state, State::Stage(..)) {
            assert!(matches!(worker.step(at(0)), Next::Again));
        }
    }
    workers.iter_mut().for_each(|worker| drop(run(worker, at(0))));
    bench.commit_and_answer();
    let told = told.map(|told| told.lock()[0].clone().unwrap());
    assert_eq!(told, [Admission::TakenIn, Admission::OtherBody]);
    assert!(bench.processor.stage.saga(&"o-2".into()).unwrap().saga.is_none());
}

#[test]
fn a_batch_that_fails_is_said_and_the_key_begins_anew() {
    let bench = Bench::new(settings(), idle());
    bench.journal.held.lock().commits.push_back(Commit::Fails);
    let mut committer = bench.processor.committer(&bench.at);
    let told = [post(&bench, "k", "o-1", "{}", None), post(&bench, "k", "o-1", "{}", None)];
    run(&mut bench.processor.worker(), at(0));
    run(&mut committer, at(10));
    for told in told {
        assert!(matches!(told.lock()[..], [Err(Declined::NotWritten { .. })]), "{told:?}");
    }
    run(&mut committer, at(1_000));
    bench.processor.stage.source_follows();
    assert_eq!(asked(&bench, "k", "o-1", "{}", None), Ok(Admission::TakenIn));
}

/// What a step emits that was asked for is in its answer, and nowhere else.
#[test]
fn a_step_that_was_asked_for_answers_with_what_it_emits() {
    let bench = Bench::new(settings(), emits(KIND));
    assert_eq!(asked(&bench, "k", "o-1", "{}", Some("till")), Ok(Admission::TakenIn));
    let out = bench.processor.outbox.next(at(0)).unwrap();
    assert_eq!(topics(&out.records), [""; 0]);
    let (owner, key) = requests::answer("k");
    let row = bench.journal.store_get(&owner, &key).unwrap().unwrap();
    let events = emitted(&row.value).unwrap();
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), [KIND]);
    assert_eq!(bench.saga("o-1").steps().count(), 1, "no participant here takes it in");
}

/// Everything in memory of a saga that left the journal goes, its keys too.
#[test]
fn a_key_whose_saga_is_gone_begins_a_saga() {
    let bench = Bench::new(settings(), idle());
    assert_eq!(asked(&bench, "k", "o-1", "{}", None), Ok(Admission::TakenIn));
    let (saga, other) = (SagaId::new("o-1"), requests::key("other"));
    {
        let mut held = bench.journal.held.lock();
        held.sagas.remove(&saga);
        held.store.remove(&requests::key("k"));
        held.store.remove(&requests::of_saga(&saga, "k"));
    }
    bench.processor.stage.forget_removed();
    assert!(!bench.processor.stage.remembers(&requests::key("k")) && !bench.processor.stage.remembers(&other));
    assert_eq!(asked(&bench, "k", "o-2", "{}", None), Ok(Admission::TakenIn));
}
