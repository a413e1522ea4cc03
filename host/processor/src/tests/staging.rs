//! Two chains staged by hand: who conflicts with whom, what is reserved, when a batch is full (race 23).

use std::{sync::Arc, time::Duration};

use sagahost_saga::{
    id::{Direction, SagaId},
    input::CallRef,
};
use sagahost_wire::BatchNo;

use super::{
    bench::{Bench, at, idle, said, settings},
    memory::{Memory, kept},
};
use crate::{
    overlay::Overlay,
    processor::Settings,
    stage::{BatchBounds, Conflict, Staged},
};

fn bench() -> Bench {
    Bench::new(settings(), idle())
}

/// One chain that has done this.
fn done(bench: &Bench, what: impl FnOnce(&mut Overlay)) -> Overlay {
    let mut overlay = bench.overlay();
    what(&mut overlay);
    overlay
}

fn sells(bench: &Bench, amount: u64) -> (bool, Overlay) {
    let mut overlay = bench.overlay();
    overlay.ensure(&"till".into(), "stock", 10).unwrap();
    let sold = overlay.take(&"till".into(), "stock", amount).unwrap();
    (sold, overlay)
}

fn gives(bench: &Bench, amount: u64) -> Overlay {
    done(bench, |overlay| overlay.give(&"till".into(), "stock", amount).unwrap())
}

fn puts(bench: &Bench, key: &str, value: Option<&str>) -> Overlay {
    done(bench, |overlay| overlay.put(&"till".into(), key, value.map(|value| value.as_bytes().into())))
}

fn reads(bench: &Bench, key: &str) -> Overlay {
    done(bench, |overlay| drop(overlay.get(&"till".into(), key).unwrap()))
}

fn on(key: &str) -> Conflict {
    Conflict::Key(("till".into(), key.to_owned()))
}

#[track_caller]
fn stale(staged: Staged) -> Vec<Conflict> {
    match staged {
        Staged::Stale(conflicts) => conflicts,
        other => panic!("{}", said(&other)),
    }
}

#[test]
fn sales_and_returns_of_one_stock_do_not_conflict_while_there_is_enough() {
    let bench = bench();
    let chains = [sells(&bench, 3).1, sells(&bench, 4).1];
    for (chain, overlay) in chains.into_iter().enumerate() {
        bench.joins(chain as u64, overlay);
    }
    assert_eq!(bench.counter("stock"), Some(3));
    let (sold, sale) = sells(&bench, 2);
    let back = [gives(&bench, 5), gives(&bench, 1)];
    bench.joins(2, sale);
    for overlay in back {
        bench.joins(3, overlay);
    }
    assert_eq!((sold, bench.counter("stock")), (true, Some(7)), "returns meet sales and each other");
}

#[test]
fn of_two_sales_of_the_last_pieces_the_second_is_stale() {
    let bench = bench();
    let (first, second) = (sells(&bench, 6), sells(&bench, 6));
    assert!(first.0 && second.0, "neither sees the other");
    bench.joins(1, first.1);
    assert_eq!(stale(bench.stage(2, second.1)), [on("stock")]);
    assert_eq!(bench.counter("stock"), Some(4), "a chain that is stale changes nothing");
    let (sold, refusal) = sells(&bench, 6);
    bench.joins(2, refusal);
    assert_eq!((sold, bench.counter("stock")), (false, Some(4)));
}

/// Nobody is refused for want of stock that was there.
#[test]
fn a_refusal_is_stale_once_there_is_enough_again() {
    let bench = bench();
    bench.joins(1, sells(&bench, 8).1);
    let (sold, refusal) = sells(&bench, 3);
    let back = gives(&bench, 1);
    assert!(!sold);
    bench.joins(2, back);
    assert_eq!(stale(bench.stage(3, refusal)), [on("stock")]);
    // As long as it stays too little, a refusal holds.
    let (sold, refusal) = sells(&bench, 5);
    bench.joins(4, gives(&bench, 1));
    bench.joins(5, refusal);
    assert_eq!((sold, bench.counter("stock")), (false, Some(4)));
}

#[test]
fn who_reads_a_counter_conflicts_with_whoever_changes_it() {
    let bench = bench();
    bench.joins(1, sells(&bench, 1).1);
    let look = || {
        let mut overlay = bench.overlay();
        (overlay.read(&"till".into(), "stock").unwrap(), overlay)
    };
    let (seen, reader) = look();
    let (_, undisturbed) = look();
    assert_eq!(seen, Some(9));
    bench.joins(2, undisturbed);
    bench.joins(3, sells(&bench, 1).1);
    assert_eq!(stale(bench.stage(4, reader)), [on("stock")]);
    let (_, reader) = look();
    bench.joins(5, sells(&bench, 0).1);
    bench.joins(6, reader);
}

#[test]
fn a_key_that_was_read_conflicts_with_whoever_writes_it_also_where_it_was_absent() {
    let bench = bench();
    let (absent, other) = (reads(&bench, "a"), reads(&bench, "b"));
    bench.joins(1, puts(&bench, "a", Some("1")));
    assert_eq!(stale(bench.stage(2, absent)), [on("a")]);
    bench.joins(3, other);
    let (present, deleted) = (reads(&bench, "a"), puts(&bench, "a", None));
    bench.joins(4, deleted);
    assert_eq!(stale(bench.stage(5, present)), [on("a")]);
    // Writing without reading conflicts with nobody: the last one wins.
    let (one, two) = (puts(&bench, "c", Some("1")), puts(&bench, "c", Some("2")));
    bench.joins(6, one);
    bench.joins(7, two);
    let mut overlay = bench.overlay();
    assert_eq!(overlay.get(&"till".into(), "c").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn what_is_reserved_is_its_chains_until_it_joins_or_its_time_is_over() {
    let bench = bench();
    let stage = &bench.processor.stage;
    let until = at(5_000).steady;
    assert!(stage.reserve(1, &[on("stock")], until, at(0)).is_none(), "it is free");
    let (_, sale) = sells(&bench, 1);
    let Staged::Full(staging, wait) = bench.stage(2, sale) else { panic!("another chain holds it") };
    assert_eq!(wait.until, Some(until));
    bench.joins(3, reads(&bench, "elsewhere"));
    let second = stage.reserve(2, &[on("stock")], at(9_000).steady, at(10)).expect("chain 1 holds it");
    assert_eq!(second.until, Some(until), "it may look again then");
    let seen = stage.roomy.seen();
    bench.joins(1, sells(&bench, 1).1);
    assert_ne!(stage.roomy.seen(), seen, "whoever waits is told");
    assert!(matches!(stage.stage(staging, at(20)), Staged::Joined));

    assert!(stage.reserve(4, &[on("stock")], until, at(30)).is_none());
    let (_, sale) = sells(&bench, 1);
    let staging = bench.staging(5, sale);
    let Staged::Full(staging, _) = stage.stage(staging, at(4_999)) else { panic!("it is still held") };
    assert!(
        matches!(stage.stage(staging, at(5_000)), Staged::Joined),
        "a chain that never comes holds nobody for ever"
    );
}

/// A chain that lost over a scan holds all keys that begin like it.
#[test]
fn a_reserved_prefix_covers_its_keys_and_no_others() {
    let bench = bench();
    let prefix = Conflict::Prefix(("till".into(), "order/".to_owned()));
    assert!(bench.processor.stage.reserve(1, &[prefix], at(5_000).steady, at(0)).is_none());
    assert!(matches!(bench.stage(2, puts(&bench, "order/7", Some("1"))), Staged::Full(..)));
    bench.joins(3, puts(&bench, "orders", Some("1")));
    // Who only reads disturbs nobody.
    bench.joins(4, reads(&bench, "order/7"));
}

fn with(batch: BatchBounds) -> Bench {
    Bench::new(Settings { batch, ..settings() }, idle())
}

#[test]
fn a_batch_is_sealed_at_so_many_chains_and_whoever_waits_for_room_is_told() {
    let bench = with(BatchBounds { chains_max: 2, ..settings().batch });
    let stage = &bench.processor.stage;
    stage.busy(1);
    bench.joins(1, puts(&bench, "a", Some("1")));
    assert!(bench.sealed(at(0)).is_none(), "others are under way: it waits for them");
    bench.joins(2, puts(&bench, "b", Some("1")));
    let Staged::Full(staging, wait) = bench.stage(3, puts(&bench, "c", Some("1"))) else { panic!("it is full") };
    assert_eq!((wait.until, wait.seen), (None, stage.roomy.seen()));
    assert_eq!(bench.commit(at(0)).0, 1);
    assert_ne!(stage.roomy.seen(), wait.seen);
    assert!(matches!(stage.stage(staging, at(0)), Staged::Joined));
}

#[test]
fn a_batch_is_sealed_at_so_many_bytes() {
    let bench = with(BatchBounds { bytes_max: 1_000, ..settings().batch });
    bench.processor.stage.busy(1);
    bench.joins(1, puts(&bench, "a", Some(&"x".repeat(500))));
    assert!(bench.sealed(at(0)).is_none());
    bench.joins(2, puts(&bench, "b", Some(&"x".repeat(500))));
    assert!(matches!(bench.stage(3, puts(&bench, "c", Some("1"))), Staged::Full(..)));
    assert_eq!(bench.sealed(at(0)).expect("it is due").chains, 2);
}

#[test]
fn a_batch_waits_for_others_under_way_for_batch_wait_and_for_nobody_on_an_idle_host() {
    let bench = with(BatchBounds { wait: Duration::from_millis(10), ..settings().batch });
    let stage = &bench.processor.stage;
    stage.busy(1);
    bench.joins(1, puts(&bench, "a", Some("1")));
    assert!(bench.sealed(at(9)).is_none());
    assert!(bench.sealed(at(10)).is_some(), "not for ever");
    bench.processor.stage.published(stage.last_sealed());
    bench.joins(2, puts(&bench, "b", Some("1")));
    stage.busy(-1);
    assert!(bench.sealed(at(0)).is_some());
}

#[test]
fn a_batch_stays_open_while_the_one_before_it_is_on_its_way_out() {
    let bench = with(BatchBounds { wait_max: Duration::from_millis(50), ..settings().batch });
    let stage = &bench.processor.stage;
    bench.joins(1, puts(&bench, "a", Some("1")));
    assert!(bench.sealed(at(0)).is_some(), "nothing is on its way");
    bench.joins(2, puts(&bench, "b", Some("1")));
    assert!(bench.sealed(at(49)).is_none(), "it would be a transaction of its own");
    let seen = stage.stirred.seen();
    stage.published(stage.last_sealed());
    assert_ne!(stage.stirred.seen(), seen, "the committer is told");
    assert!(bench.sealed(at(49)).is_some());

    bench.joins(3, puts(&bench, "c", Some("1")));
    assert!(bench.sealed(at(49)).is_none());
    assert!(bench.sealed(at(50)).is_some(), "a broker that is away does not keep it from the journal");
}

#[test]
fn batches_that_are_shared_are_sealed_apart_and_a_lone_chain_does_not_wait() {
    let bench = with(BatchBounds { interval: Duration::from_millis(25), ..settings().batch });
    let stage = &bench.processor.stage;
    let joins = |number, key| bench.joins(number, puts(&bench, key, Some("1")));
    let sealed = |ms| {
        let sealed = bench.sealed(at(ms)).is_some();
        stage.published(stage.last_sealed());
        sealed
    };
    joins(1, "a");
    assert!(sealed(0));
    joins(2, "a");
    assert!(sealed(1), "neither of them was shared");
    joins(3, "a");
    joins(4, "b");
    assert!(sealed(2));
    joins(5, "a");
    assert!(!sealed(26), "others may come, as they did before");
    assert!(sealed(27));
    joins(6, "a");
    assert!(sealed(28), "none came");
}

#[test]
fn a_batch_that_somebody_waits_for_is_sealed_although_another_is_on_its_way_out() {
    let bench = with(BatchBounds { wait_max: Duration::from_secs(9), ..settings().batch });
    bench.joins(1, puts(&bench, "a", Some("1")));
    assert!(bench.sealed(at(0)).is_some());
    bench.joins(2, puts(&bench, "b", Some("1")));
    assert!(bench.sealed(at(0)).is_none());
    let mut asked = bench.staging(3, puts(&bench, "c", Some("1")));
    asked.id = Some(SagaId::new("o-1"));
    asked.launches = vec![CallRef {
        participant: "till".into(),
        step_id: "s-1".into(),
        direction: Direction::Forward,
        attempt: 1,
        ordinal: 0,
        send: 0,
    }];
    assert!(matches!(bench.processor.stage.stage(asked, at(0)), Staged::Joined));
    assert!(bench.sealed(at(0)).is_some(), "a call to a service leaves when it is journaled");
}

#[test]
fn a_batch_stays_open_longer_while_hundreds_of_events_wait() {
    let bench = with(BatchBounds { wait_max: Duration::from_millis(50), ..settings().batch });
    let stage = &bench.processor.stage;
    stage.busy(200);
    bench.joins(1, puts(&bench, "a", Some("1")));
    assert!(bench.sealed(at(49)).is_none());
    stage.busy(-1);
    assert!(bench.sealed(at(10)).is_some(), "others are under way, and not many");
}

#[test]
fn so_many_batches_may_wait_for_the_broker_and_no_more() {
    for max in [1, 2] {
        let bench = with(BatchBounds { unpublished_max: max, ..settings().batch });
        let stage = &bench.processor.stage;
        for number in 1..=max {
            bench.joins(number, puts(&bench, "a", Some("1")));
            assert_eq!(bench.sealed(at(60_000)).expect("it may be made").write.number.0, number);
        }
        bench.joins(9, puts(&bench, "b", Some("1")));
        assert!(bench.sealed(at(60_000)).is_none(), "{max} wait");
        assert_eq!(stage.unpublished(), max);
        stage.published(BatchNo(stage.published_batch().0 + 1));
        assert!(bench.sealed(at(60_000)).is_some());
    }
}

/// Of a life that is over nothing is staged; what it wrote is not seen.
#[test]
fn what_was_built_on_a_batch_that_failed_is_void() {
    let bench = bench();
    let stage = &bench.processor.stage;
    bench.joins(1, puts(&bench, "a", Some("lost")));
    let late = bench.staging(2, puts(&bench, "b", Some("late")));
    stage.restart(bench.at.identity.last_batch, bench.at.published, &Default::default(), None);
    assert!(matches!(stage.stage(late, at(0)), Staged::Void));
    assert!(stage.store(&("till".into(), "a".to_owned())).unwrap().seen.is_none());
    assert!(bench.sealed(at(60_000)).is_none_or(|sealed| sealed.chains == 0));
}

/// With no room in memory, what a chain read is read again, and compared.
#[test]
fn what_memory_has_dropped_is_read_again_and_compared() {
    let journal: std::sync::Arc<Memory> = Default::default();
    let bench = Bench::on(journal.clone(), Settings { cache_bytes_max: 0, ..settings() }, idle());
    let stage = &bench.processor.stage;
    journal.held.lock().counters.insert(("till".into(), "stock".to_owned()), 5);
    let key = || ("till".into(), "a".to_owned());
    for other in [None, Some(kept(b"another"))] {
        let (sold, mut overlay) = sells(&bench, 1);
        overlay.get(&"till".into(), "a").unwrap();
        assert!(sold);
        bench.joins(1, puts(&bench, "z", Some("1")));
        bench.commit(at(0));
        // Somebody else's batch, long journaled and dropped.
        journal.held.lock().store.extend(other.clone().map(|value| (key(), value)));
        let Staged::Reread(mut staging, forgotten) = bench.stage(2, overlay) else { panic!("nothing is in memory") };
        assert_eq!((forgotten.store.len(), forgotten.counters.len()), (1, 1));
        stage.read_again(&mut staging.overlay, &forgotten).unwrap();
        match (other, stage.stage(staging, at(0))) {
            (None, Staged::Joined) => drop(bench.commit(at(0))),
            (Some(_), staged) => assert_eq!(stale(staged), [on("a")]),
            (None, staged) => panic!("{}", said(&staged)),
        }
    }
    assert_eq!(journal.held.lock().counters.values().copied().collect::<Vec<_>>(), [4]);
}

/// What a guest reads does not fill memory beyond the cache; it is still compared at the commit.
#[test]
fn what_has_no_room_in_the_cache_is_compared_without_it() {
    for (deletes, changes) in [(false, false), (false, true), (true, true)] {
        let journal: Arc<Memory> = Arc::default();
        let name = |key: &str| ("till".into(), key.to_owned());
        (0..100).for_each(|key| drop(journal.held.lock().store.insert(name(&key.to_string()), kept(&[0; 1_000]))));
        let bench = Bench::on(journal.clone(), Settings { cache_bytes_max: 10_000, ..settings() }, idle());
        let overlay = done(&bench, |overlay| {
            (0..100).for_each(|key| drop(overlay.get(&"till".into(), &key.to_string()).unwrap()));
            assert_eq!(overlay.get(&"till".into(), "absent").unwrap(), None);
        });
        let cached = (0..100).filter(|key| bench.processor.stage.remembers(&name(&key.to_string()))).count();
        assert!((1..10).contains(&cached), "{cached} of a hundred");
        if changes {
            bench.joins(1, puts(&bench, "77", (!deletes).then_some("new")));
        }
        match bench.stage(2, overlay) {
            Staged::Joined if !changes => {
                let sealed = bench.sealed(at(1_000)).unwrap();
                assert_eq!(sealed.write.store_read.len(), 101);
                let (absent, read) = (name("absent"), name("77"));
                assert_eq!(sealed.write.store_read[&absent], None);
                assert!(sealed.write.store_read[&read].is_some(), "the version that it read");
                bench.finish(&sealed);
            }
            Staged::Stale(conflicts) if changes => assert_eq!(conflicts, [on("77")]),
            other => panic!("{}", said(&other)),
        }
    }
}

/// The value that it read was replaced, and memory has forgotten that: the journal is asked.
#[test]
fn a_read_that_memory_forgot_is_compared_with_the_journal() {
    for changed in [false, true] {
        let journal: Arc<Memory> = Arc::default();
        journal.held.lock().store.insert(("till".into(), "k".to_owned()), kept(b"old"));
        let bench = Bench::on(journal, Settings { cache_bytes_max: 0, ..settings() }, idle());
        let overlay = reads(&bench, "k");
        bench.joins(1, puts(&bench, if changed { "k" } else { "other" }, Some("new")));
        bench.commit(at(0));
        let Staged::Reread(mut staging, forgotten) = bench.stage(2, overlay) else { panic!("memory was swept") };
        bench.processor.stage.read_again(&mut staging.overlay, &forgotten).unwrap();
        match bench.processor.stage.stage(staging, at(0)) {
            Staged::Joined if !changed => {}
            Staged::Stale(conflicts) if changed => assert_eq!(conflicts, [on("k")]),
            other => panic!("{}", said(&other)),
        }
    }
}

/// A batch is full by the names of counters and keys that its chains touched, too.
#[test]
fn names_fill_a_batch() {
    for touches in [true, false] {
        let batch = BatchBounds { bytes_max: 64 << 10, ..settings().batch };
        let bench = Bench::new(Settings { batch, ..settings() }, idle());
        let chain = |number: usize| {
            done(&bench, |overlay| {
                for name in 0..if touches { 100 } else { 0 } {
                    let name = format!("{number}/{name}/{}", "n".repeat(400));
                    match name.len() % 2 {
                        0 => overlay.ensure(&"till".into(), &name, 1).unwrap(),
                        _ => drop(overlay.get(&"till".into(), &name).unwrap()),
                    }
                }
            })
        };
        let joined = (0..10).take_while(|number| matches!(bench.stage(1, chain(*number)), Staged::Joined)).count();
        assert_eq!(joined, if touches { 2 } else { 10 });
    }
}
