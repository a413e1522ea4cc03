//! The committer: what follows a commit that fails, or only says so, and who is told.

use std::sync::Arc;

use parking_lot::Mutex;
use sagahost_codec::Undecodable;
use sagahost_journal::LetterWrite;
use sagahost_saga::input::Answer;
use sagahost_wire::BatchNo;

use super::{
    bench::{Bench, at, idle, partition, run, settings},
    memory::Commit,
};
use crate::{
    Fatal, letters,
    letters_kept::BITE,
    positions::Receipt,
    reply::{Declined, Reply},
    step::{Next, Part},
};

type Told = Arc<Mutex<Vec<Result<String, Declined>>>>;

/// Somebody who waits for an answer.
fn waits() -> (Reply, Told) {
    let told = Told::default();
    let tell = told.clone();
    (Reply::new(move |answer| tell.lock().push(answer.map(|answer: Answer| answer.text))), told)
}

/// A chain that took record 0 in, and for which somebody waits.
fn stage(bench: &Bench) -> Told {
    let receipt = Receipt { partition: partition(), offset: 0, timestamp_ms: None };
    assert!(bench.processor.stage.delivered(&receipt, 100));
    let (reply, told) = waits();
    let mut overlay = bench.overlay();
    overlay.put(&"till".into(), "k", Some(Arc::from(*b"v")));
    let mut staging = bench.staging(1, overlay);
    staging.receipt = Some(receipt);
    staging.reply = Some(reply.promise(Answer { done: true, text: "done".to_owned() }));
    assert!(matches!(bench.processor.stage.stage(staging, at(0)), crate::stage::Staged::Joined));
    told
}

#[test]
fn a_batch_is_answered_when_it_is_journaled_and_handed_to_the_publisher() {
    let bench = Bench::new(settings(), idle());
    let mut committer = bench.processor.committer(&bench.at);
    let told = stage(&bench);
    assert_eq!(*told.lock(), [], "nothing is said before it is durable");
    run(&mut committer, at(0));
    assert_eq!(*told.lock(), [Ok("done".to_owned())]);
    assert_eq!(bench.journal.held.lock().positions[&partition()].next, 1);
    assert_eq!(bench.processor.outbox.next(at(0)).map(|batch| batch.number), Some(BatchNo(1)));
    assert!(bench.processor.outbox.next(at(0)).is_none());
}

#[test]
fn a_commit_that_fails_makes_everything_begin_anew_and_its_records_come_again() {
    let bench = Bench::new(settings(), idle());
    bench.journal.held.lock().commits.push_back(Commit::Fails);
    let mut committer = bench.processor.committer(&bench.at);
    let told = stage(&bench);
    bench.deliver(1, "o-1");
    let life = bench.processor.stage.life();
    let wait = run(&mut committer, at(10)).unwrap();
    assert_eq!(wait.until, Some(at(210).steady), "it does not try again at once");
    assert!(matches!(&told.lock()[..], [Err(Declined::NotWritten { .. })]), "{told:?}");
    let intake = &bench.processor.intake;
    assert!(intake.waiting().iter().any(|why| why.contains("as told")), "operators see why");
    run(&mut committer, at(210));
    assert_ne!(bench.processor.stage.life(), life);
    assert_eq!(intake.state.lock().rewind, Some(vec![(partition(), 0)]), "the source goes back");
    assert_eq!(bench.processor.inbox.mailboxes.queued(), 0, "what waited is void: it comes again");
    assert!(bench.processor.outbox.next(at(0)).is_none());
    assert!(bench.processor.stage.store(&("till".into(), "k".to_owned())).unwrap().seen.is_none());
    // The pause doubles while the journal takes nothing, and what is said goes when it does.
    bench.processor.stage.source_follows();
    stage(&bench);
    run(&mut committer, at(300));
    assert_eq!(intake.waiting(), Vec::<String>::new());
    assert_eq!(bench.processor.outbox.next(at(0)).map(|batch| batch.number), Some(BatchNo(1)));
}

/// A commit that went through although it said otherwise: its batch goes out before any that follows it.
#[test]
fn a_commit_that_only_says_that_it_failed_is_handed_over_and_answered() {
    let bench = Bench::new(settings(), idle());
    bench.journal.held.lock().commits.push_back(Commit::Lies);
    let mut committer = bench.processor.committer(&bench.at);
    let told = stage(&bench);
    run(&mut committer, at(0));
    assert_eq!(*told.lock(), [Ok("done".to_owned())]);
    run(&mut committer, at(200));
    assert_eq!(bench.processor.outbox.next(at(0)).map(|batch| batch.number), Some(BatchNo(1)));
    assert!(bench.processor.outbox.next(at(0)).is_none(), "once");
    assert_eq!(bench.processor.intake.state.lock().rewind, Some(vec![(partition(), 1)]));
}

/// Others write to this journal, too: there is nothing to wait for.
#[test]
fn a_commit_that_others_were_faster_than_is_built_again_at_once() {
    let bench = Bench::new(settings(), idle());
    bench.journal.held.lock().commits.push_back(Commit::Conflict);
    let mut committer = bench.processor.committer(&bench.at);
    let told = stage(&bench);
    let life = bench.processor.stage.life();
    run(&mut committer, at(0));
    assert!(
        matches!(&told.lock()[..], [Err(Declined::Conflict { why })] if why.contains("key \"k\" of till")),
        "{told:?}"
    );
    assert_ne!(bench.processor.stage.life(), life);
    assert_eq!(bench.processor.intake.state.lock().rewind, Some(vec![(partition(), 0)]));
    assert_eq!(bench.processor.intake.waiting(), Vec::<String>::new(), "nothing is in the way");
}

/// Race 15.
#[test]
fn who_no_longer_owns_the_journal_ends() {
    let bench = Bench::new(settings(), idle());
    bench.journal.held.lock().commits.push_back(Commit::Stale);
    let mut committer = bench.processor.committer(&bench.at);
    stage(&bench);
    let ended = loop {
        match committer.step(at(0)) {
            Next::Again => {}
            Next::Ended(ended) => break ended,
            Next::Wait(_) => panic!("it goes on"),
        }
    };
    assert!(matches!(ended, Err(Fatal::Superseded(_))), "{ended:?}");
    assert!(bench.processor.outbox.next(at(0)).is_none());
}

#[test]
fn what_is_out_is_confirmed_once_nothing_else_is_to_do() {
    let bench = Bench::new(settings(), idle());
    let mut committer = bench.processor.committer(&bench.at);
    stage(&bench);
    run(&mut committer, at(0));
    assert_eq!(bench.journal.held.lock().confirmed, BatchNo(0), "it is not out yet");
    bench.processor.stage.published(BatchNo(1));
    run(&mut committer, at(1_000));
    assert_eq!(bench.journal.held.lock().confirmed, BatchNo(1));
}

/// What a batch brings, the removal behind it can take away: nothing outgrows its bounds by more than one batch.
#[test]
fn a_batch_with_undecodable_records_is_followed_by_a_removal_that_is_as_large() {
    let bench = Bench::new(settings(), idle());
    let mut committer = bench.processor.committer(&bench.at);
    run(&mut committer, at(0));
    let removals = || std::mem::take(&mut bench.journal.held.lock().letter_removals);
    assert_eq!(removals(), [BITE], "a start looks once");
    stage(&bench);
    run(&mut committer, at(10));
    assert_eq!(removals(), [0; 0], "no letter, no look");
    bench.processor.stage.published(BatchNo(1));

    let why = Undecodable { code: "invalid-json", detail: String::new(), saga: None };
    let letter = |n| LetterWrite::Open(letters::undecodable(&bench.record(n, "o-1"), &why, at(20).wall));
    let mut staging = bench.staging(2, bench.overlay());
    staging.letters = (0..3 * BITE as i64).map(letter).collect();
    assert!(matches!(bench.processor.stage.stage(staging, at(20)), crate::stage::Staged::Joined));
    run(&mut committer, at(40));
    assert_eq!(removals(), [3 * BITE]);
}
