//! Requests of plugins: each leaves behind the commit in which it is kept, once under its key, and what it led to is decided by
//! a run that sees what the runs before it saw.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sagahost_journal::requests;
use sagahost_manifest::{
    host_calls::{HostCalls, HostFault},
    http::{Answer as HttpAnswer, Failure, Request, Response, WAITS},
};
use sagahost_saga::{
    Saga,
    id::{Direction, SagaId},
    input::{CallRef, Status},
    outcome::{Call, Crash, Delay, End, Outcome, Problem, Undo},
    topology::Role,
    view::StepState,
};

use super::{
    bench::{Bench, at, completed, run, serving, settings},
    memory::{Commit, Memory},
    scripted::{Handler, Plugin},
};
use crate::{
    mailbox::Item,
    outside::{Answer, Came, Launch, Outside},
};

/// Whoever is asked answers when the test says so.
#[derive(Default)]
struct Gateway {
    asked: Mutex<Vec<(SagaId, Launch)>>,
}

impl Outside for Gateway {
    fn launch(&self, saga: &SagaId, launch: Launch) {
        self.asked.lock().push((saga.clone(), launch));
    }
}

struct Shop {
    bench: Bench,
    gateway: Arc<Gateway>,
}

fn shop(journal: &Arc<Memory>, run: Arc<Handler>) -> Shop {
    shop_of(journal, run, "d1")
}

fn shop_of(journal: &Arc<Memory>, run: Arc<Handler>, digest: &str) -> Shop {
    shop_with(journal, run, digest, Role::Compensable)
}

fn shop_with(journal: &Arc<Memory>, run: Arc<Handler>, digest: &str, role: Role) -> Shop {
    let mut serving = serving(run.clone(), 1);
    serving.topology.members[0].subscriptions[0].role = role;
    serving.code = Arc::new(Arc::new(Plugin { run, now: at(0), digest: digest.into(), sends: true }));
    let gateway: Arc<Gateway> = Arc::default();
    let bench = Bench::with(journal.clone(), settings(), serving, Some(gateway.clone()));
    Shop { bench, gateway }
}

impl Shop {
    fn work(&self) {
        self.work_at(0);
    }

    fn work_at(&self, ms: u64) {
        run(&mut self.bench.processor.worker(), at(ms));
    }

    fn commit(&self) {
        self.commit_at(0);
    }

    fn commit_at(&self, ms: u64) {
        run(&mut self.bench.processor.committer(&self.bench.at), at(ms));
        self.bench.processor.stage.published(self.bench.processor.stage.last_sealed());
    }

    /// Requests that have left so far.
    fn left(&self) -> usize {
        self.gateway.asked.lock().len()
    }

    /// Key and body of one of them.
    fn request(&self, number: usize) -> (String, String) {
        let asked = self.gateway.asked.lock();
        let send = asked[number].1.send.as_ref().expect("it is a request");
        (send.key.clone(), String::from_utf8_lossy(&send.request.body).into_owned())
    }

    fn answer(&self, number: usize, answer: HttpAnswer) {
        let (saga, Launch { call, by, .. }) = self.gateway.asked.lock()[number].clone();
        let left = !matches!(answer, Err(Failure { sent: false, .. }));
        let came = Came::Answer { answer, what: "asked".to_owned() };
        let answer = Answer { by: by.unwrap(), came, left, took: Duration::from_millis(3) };
        self.bench.processor.answers().answer(&saga, &CallRef::from(&call), answer);
    }

    fn saga(&self) -> Saga {
        let bytes = self.bench.journal.held.lock().sagas[&SagaId::from("o-1")].1.clone();
        Saga::decode(&bytes).unwrap()
    }

    fn state(&self) -> StepState {
        self.saga().steps().next().unwrap().state
    }

    /// How many rows of requests are kept, forward.
    fn rows(&self) -> usize {
        let saga = self.saga();
        let step = saga.steps().next().unwrap().step_id;
        let held = self.bench.journal.held.lock();
        let kept = |place: &usize| {
            held.store.contains_key(&requests::of_send(saga.id(), &step, Direction::Forward, 0, *place))
        };
        (0..9).take_while(kept).count()
    }
}

fn ask(host: &mut dyn HostCalls, body: &str) -> Result<HttpAnswer, HostFault> {
    let url = "https://gateway/x".to_owned();
    host.http_send(Request { method: "POST".into(), url, headers: Vec::new(), body: body.into(), timeout_ms: None })
}

fn ok() -> HttpAnswer {
    Ok(Response { status: 200, headers: Vec::new(), body: Vec::new() })
}

fn lost() -> HttpAnswer {
    Err(Failure { sent: true, code: "timeout".to_owned(), detail: String::new() })
}

/// As the sandbox has it: whoever is stopped has no outcome of its own.
fn stopped(fault: &HostFault) -> End {
    let code = match fault {
        HostFault::Waits => WAITS,
        HostFault::Refused(refused) => refused.code(),
        HostFault::Guest(_) | HostFault::Host(_) => "trap",
    };
    End::Outcome(Outcome::Unknown {
        crash: Crash { code: code.to_owned(), detail: fault.to_string() },
        uncertain: false,
    })
}

fn done() -> End {
    let End::Outcome(Outcome::Completed(completion)) = completed(Vec::new()) else { unreachable!() };
    let data = sagahost_saga::outcome::Saved { data: Arc::from(*b"undo"), format: 1 };
    End::Outcome(Outcome::Completed(sagahost_saga::outcome::Completion { undo: Undo::Data(data), ..completion }))
}

fn retries() -> End {
    End::Outcome(Outcome::Retry(Delay { problem: Problem::new("LOST", ""), after: None }))
}

/// Reads what it charges, charges, and notes it; two requests.
fn charges() -> Arc<Handler> {
    fn charge(host: &mut dyn HostCalls) -> Result<End, HostFault> {
        let price = host.store_get("price")?.unwrap_or_else(|| Arc::from(*b"10"));
        let Ok(_) = ask(host, &String::from_utf8_lossy(&price))? else { return Ok(retries()) };
        let Ok(_) = ask(host, "told")? else { return Ok(retries()) };
        host.store_put("charged", price.to_vec())?;
        Ok(done())
    }
    Arc::new(|call: &Call, host: &mut dyn HostCalls| {
        assert!(call.undo.is_none(), "nothing is undone here");
        charge(host).unwrap_or_else(|fault| stopped(&fault))
    })
}

#[test]
fn each_request_leaves_behind_its_commit_and_the_last_run_decides() {
    let shop = shop(&Arc::default(), charges());
    shop.bench.deliver(0, "o-1");
    shop.work();
    assert_eq!(shop.left(), 0, "it is not durable that it leaves");
    shop.commit();
    shop.work();
    assert_eq!((shop.left(), shop.rows(), shop.saga().in_doubt().len()), (1, 1, 1));
    // Another saga changes what was read: the runs that follow do not see that.
    let mut overlay = shop.bench.overlay();
    overlay.put(&"till".into(), "price", Some(Arc::from(*b"11")));
    shop.bench.joins(900, overlay);
    shop.answer(0, ok());
    shop.work();
    assert_eq!(shop.left(), 1, "the second one is not durable");
    shop.commit();
    shop.work();
    let (first, second) = (shop.request(0), shop.request(1));
    assert_eq!((first.1.as_str(), second.1.as_str(), shop.rows()), ("10", "told", 2));
    assert_ne!(first.0, second.0);
    shop.answer(1, ok());
    shop.work();
    shop.commit();
    assert_eq!((shop.state(), shop.rows()), (StepState::Done, 0), "nobody asks for what a step that is done has sent");
    let held = shop.bench.journal.held.lock();
    let charged = held.store.get(&("till".into(), "charged".to_owned())).map(|row| row.value.to_vec());
    assert_eq!(charged.as_deref(), Some(&b"10"[..]));
}

/// Its answer was staged with a batch that failed: the run that it led to is run again, and nothing is sent again.
#[test]
fn an_answer_outlives_a_commit_that_fails() {
    let journal: Arc<Memory> = Arc::default();
    let shop = shop(&journal, charges());
    shop.bench.deliver(0, "o-1");
    shop.work();
    shop.commit();
    shop.work();
    shop.answer(0, ok());
    shop.work();
    let mut committer = shop.bench.restarts_behind(Commit::Fails);
    shop.work();
    run(&mut committer, at(10_000));
    shop.work();
    assert_eq!((shop.left(), shop.request(1).1.as_str()), (2, "told"));
}

/// The host before this one died while the request was out: it leaves again under its key, and what came before it does not.
#[test]
fn a_request_that_is_in_doubt_at_a_start_leaves_again_and_no_other() {
    let journal: Arc<Memory> = Arc::default();
    let before = shop(&journal, charges());
    before.bench.deliver(0, "o-1");
    before.work();
    before.commit();
    before.work();
    before.answer(0, ok());
    before.work();
    before.commit();
    before.work();
    assert_eq!(before.left(), 2);
    let after = shop(&journal, charges());
    after.work();
    assert_eq!(after.left(), 0, "it is not durable that it leaves again");
    after.commit();
    after.work();
    assert_eq!((after.left(), after.request(0)), (1, before.request(1)));
    before.answer(1, ok());
    after.answer(0, ok());
    after.work();
    after.commit();
    let saga = after.saga();
    assert_eq!((after.state(), saga.steps().next().unwrap().attempts), (StepState::Done, 1), "it cost no attempt");
}

/// Three hosts in a row died while it was out: then the plugin hears of it, as of an answer that was lost.
#[test]
fn a_request_that_hosts_die_of_is_heard_of_by_its_plugin() {
    let journal: Arc<Memory> = Arc::default();
    let first = shop(&journal, charges());
    first.bench.deliver(0, "o-1");
    first.work();
    first.commit();
    first.work();
    for left in [1, 1, 0] {
        let next = shop(&journal, charges());
        next.work();
        next.commit();
        next.work();
        assert_eq!(next.left(), left);
    }
    let saga = shop(&journal, charges()).saga();
    assert_eq!((saga.steps().next().unwrap().state, saga.in_doubt().len()), (StepState::Retrying, 0));
}

/// An attempt that is made again asks the same under the same key; one that would ask something else asks nothing.
#[test]
fn the_next_attempt_asks_the_same_under_the_same_key_or_nothing() {
    let by_attempt: Arc<Handler> = Arc::new(|call: &Call, host: &mut dyn HostCalls| {
        let body = if call.attempt < 3 { "10" } else { "11" };
        match ask(host, body) {
            Ok(Ok(_)) => done(),
            Ok(Err(_)) => retries(),
            Err(fault) => stopped(&fault),
        }
    });
    let shop = shop(&Arc::default(), by_attempt);
    shop.bench.deliver(0, "o-1");
    for attempt in 1..=2 {
        shop.work_at(attempt * 1_000_000);
        shop.commit_at(attempt * 1_000_000);
        shop.work_at(attempt * 1_000_000);
        assert_eq!((shop.left() as u64, shop.request(0)), (attempt, shop.request(shop.left() - 1)));
        shop.answer(shop.left() - 1, lost());
        shop.work_at(attempt * 1_000_000);
        shop.commit_at(attempt * 1_000_000);
        shop.bench.processor.inbox.post(&"o-1".into(), Item::Due { deadlines: false });
    }
    shop.work_at(3_000_000);
    shop.commit_at(3_000_000);
    assert_eq!((shop.left(), shop.saga().steps().next().unwrap().attempts), (2, 3));
    let saga = shop.saga();
    let problem = saga.steps().next().unwrap().problem.cloned().unwrap();
    assert_eq!(problem.code, "diverged");
    assert!(problem.detail.starts_with("request 1 was POST https://gateway/x"), "{}", problem.detail);
}

/// Two attempts of a step: the first one's request gets no answer.
fn after_a_lost_answer(role: Role, second: fn(&mut dyn HostCalls) -> Result<End, HostFault>) -> Shop {
    let handler: Arc<Handler> = Arc::new(move |call: &Call, host: &mut dyn HostCalls| {
        if call.undo.is_some() {
            return End::Undo(sagahost_saga::outcome::UndoOutcome::NothingToUndo);
        }
        let first = |host: &mut dyn HostCalls| ask(host, "10").map(|_| retries());
        let end = if call.attempt == 1 { first(host) } else { second(host) };
        end.unwrap_or_else(|fault| stopped(&fault))
    });
    let shop = shop_with(&Arc::default(), handler, "d1", role);
    shop.bench.deliver(0, "o-1");
    shop.work();
    shop.commit();
    shop.work();
    shop.answer(0, lost());
    shop.work();
    shop.commit();
    shop.bench.processor.inbox.post(&"o-1".into(), Item::Due { deadlines: false });
    shop.work_at(1_000_000);
    shop.commit_at(1_000_000);
    shop
}

fn says_no(_: &mut dyn HostCalls) -> Result<End, HostFault> {
    let problem = Problem::new("NO", "it is paid already");
    let rejection = sagahost_saga::outcome::Rejection { problem, emit: Vec::new(), attributes: Vec::new() };
    Ok(End::Outcome(Outcome::Rejected(rejection)))
}

/// What the first attempt sent would stand, and nobody would take it back.
#[test]
fn a_step_is_not_done_without_a_request_that_left_before() {
    let shop = after_a_lost_answer(Role::Compensable, |_| Ok(done()));
    let saga = shop.saga();
    let step = saga.steps().next().unwrap();
    assert_eq!((step.state, step.problem.unwrap().code.as_str()), (StepState::Retrying, "diverged"));
    let asked = after_a_lost_answer(Role::Compensable, |host| ask(host, "10").map(|_| done()));
    asked.work_at(1_000_000);
    asked.answer(1, ok());
    asked.work_at(1_000_000);
    asked.commit_at(1_000_000);
    assert_eq!(asked.state(), StepState::Done);
}

/// Nobody knows what became of the first attempt's request: whoever can look does, and of what nobody undoes a person hears.
#[test]
fn a_no_without_an_answer_to_what_left_before_is_not_the_last_word() {
    let compensable = after_a_lost_answer(Role::Compensable, says_no).saga();
    assert!(compensable.history().iter().any(|entry| {
        matches!(&entry.what, sagahost_saga::history::What::Attempt { direction: Direction::Undo, .. })
    }));
    let pivot = after_a_lost_answer(Role::Pivot, says_no);
    assert_eq!((pivot.saga().status(), pivot.state()), (Status::NeedsOperator, StepState::Blocked));
    // Where this attempt heard the answer, its no is one.
    let heard = after_a_lost_answer(Role::Pivot, |host| ask(host, "10").and_then(|_| says_no(host)));
    heard.work_at(1_000_000);
    heard.answer(1, ok());
    heard.work_at(1_000_000);
    heard.commit_at(1_000_000);
    assert_eq!((heard.saga().status(), heard.state()), (Status::Compensated, StepState::Rejected));
}

/// The saga is cancelled while the first request is out: its answer is heard, the second one stays, and whoever undoes the step
/// is shown what is known.
#[test]
fn behind_the_fence_what_came_back_is_kept_and_nothing_more_leaves() {
    type Known = Vec<(String, Option<u16>)>;
    let seen: Arc<Mutex<Known>> = Arc::default();
    let shown = seen.clone();
    let handler: Arc<Handler> = Arc::new(move |call: &Call, host: &mut dyn HostCalls| {
        if call.undo.is_none() {
            let both = ask(host, "authorize").and_then(|_| ask(host, "capture"));
            return both.map_or_else(|fault| stopped(&fault), |_| done());
        }
        let made = host.http_calls().unwrap();
        let known = made
            .into_iter()
            .map(|made| (String::from_utf8(made.request.body).unwrap(), made.response.map(|response| response.status)));
        *shown.lock() = known.collect();
        End::Undo(sagahost_saga::outcome::UndoOutcome::NothingToUndo)
    });
    let shop = shop(&Arc::default(), handler);
    shop.bench.deliver(0, "o-1");
    shop.work();
    shop.commit();
    shop.work();
    let (by, reason) = ("ann".to_owned(), "because".to_owned());
    let command = sagahost_saga::input::Command::Cancel { by, reason };
    shop.bench
        .processor
        .inbox
        .post(&"o-1".into(), Item::Operator { command, queued: None, reply: None, receipt: None });
    shop.work();
    shop.answer(0, ok());
    shop.work();
    shop.commit();
    assert_eq!((shop.left(), shop.saga().status()), (1, Status::Compensated));
    assert_eq!(*seen.lock(), [("authorize".to_owned(), Some(200))]);
}

/// Another version serves by the time the answer comes, and the one that asked is gone.
#[test]
fn an_attempt_whose_code_is_gone_ends_as_one_that_nobody_knows_the_end_of() {
    let journal: Arc<Memory> = Arc::default();
    let before = shop(&journal, charges());
    before.bench.deliver(0, "o-1");
    before.work();
    before.commit();
    before.work();
    let after = shop_of(&journal, charges(), "d2");
    after.work();
    after.commit();
    after.work();
    assert_eq!(after.request(0), before.request(0), "it leaves again first, and is answered");
    after.answer(0, ok());
    after.work();
    after.commit();
    let saga = after.saga();
    let step = saga.steps().next().unwrap();
    assert_eq!((step.state, step.problem.unwrap().code.as_str()), (StepState::Retrying, "diverged"));
    assert_eq!(saga.status(), Status::Running);
}
