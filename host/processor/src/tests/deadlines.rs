//! Deadlines after a stall, and durable times (SEMANTICS.md, rule 9 and race 18).

use std::{sync::Arc, time::Duration};

use sagahost_saga::id::{SagaId, Time};
use sagahost_wire::Position;

use super::{
    bench::{Bench, at, idle, partition, run, settings},
    memory::Memory,
    scripted::Broker,
};
use crate::{
    intake::Intake,
    positions::Receipt,
    processor::Settings,
    read_ahead::ReadAhead,
    step::{Now, Part, Steady},
};

const WAIT_MAX: Duration = Duration::from_secs(60);

/// A host that reads one partition, in which so many records stand.
fn bench(queued: i64) -> (Bench, Arc<Broker>) {
    bench_with(queued, settings())
}

fn bench_with(queued: i64, settings: Settings) -> (Bench, Arc<Broker>) {
    let bench = Bench::new(Settings { stall_wait_max: WAIT_MAX, ..settings }, idle());
    bench.processor.intake.state.lock().assigned = vec![partition()];
    let broker: Arc<Broker> = Arc::default();
    broker.ends.lock().insert(partition(), queued);
    (bench, broker)
}

fn may_fire(bench: &Bench, broker: &Broker, now: Now) -> bool {
    bench.processor.intake.deadlines_may_fire(&bench.processor.stage, broker, WAIT_MAX, now)
}

/// A record is read, and done with.
fn handled(bench: &Bench, offset: i64) {
    let receipt = Receipt { partition: partition(), offset, timestamp_ms: None };
    assert!(bench.processor.stage.delivered(&receipt, 100));
    bench.processor.stage.skipped(&receipt, at(0));
}

/// The gate is open when nothing waits, from the second look on.
fn open(bench: &Bench, broker: &Broker, now: Now) {
    assert!(!may_fire(bench, broker, now), "a stall has just ended");
    assert!(may_fire(bench, broker, now), "nothing was queued");
    assert!(may_fire(bench, broker, now));
}

#[test]
fn after_a_start_deadlines_wait_for_what_was_queued_then_and_for_nothing_that_came_later() {
    let (bench, broker) = bench(2);
    assert!(!may_fire(&bench, &broker, at(0)));
    assert!(!may_fire(&bench, &broker, at(1)), "this is when the ends are looked up");
    broker.ends.lock().insert(partition(), 1_000);
    handled(&bench, 0);
    assert!(!may_fire(&bench, &broker, at(2)));
    handled(&bench, 1);
    assert!(may_fire(&bench, &broker, at(3)));
}

/// Records that are read and not yet handled are queued, too.
#[test]
fn a_record_that_a_worker_is_in_counts_as_queued() {
    let (bench, broker) = bench(1);
    assert!(!may_fire(&bench, &broker, at(0)));
    let receipt = Receipt { partition: partition(), offset: 0, timestamp_ms: None };
    assert!(bench.processor.stage.delivered(&receipt, 100));
    assert!(!may_fire(&bench, &broker, at(1)));
    bench.processor.stage.skipped(&receipt, at(1));
    assert!(may_fire(&bench, &broker, at(2)));
}

#[test]
fn the_wait_is_bounded() {
    let (bench, broker) = bench(2);
    assert!(!may_fire(&bench, &broker, at(0)));
    assert!(!may_fire(&bench, &broker, at(59_999)));
    assert!(may_fire(&bench, &broker, at(60_000)), "stall-wait-max is over");
    // Also where the ends cannot be asked for.
    *broker.away.lock() = true;
    bench.processor.intake.stalled(at(60_000));
    assert!(!may_fire(&bench, &broker, at(119_999)));
    assert!(may_fire(&bench, &broker, at(120_000)));
}

#[test]
fn while_broker_or_journal_is_away_no_deadline_fires_and_behind_that_the_queue_comes_first() {
    type Trouble = fn(&Bench, Option<String>, Now);
    let troubles: [(&str, Trouble); 2] = [
        ("broker", |bench, why, now| bench.processor.intake.broker_trouble(why, now)),
        ("journal", |bench, why, now| bench.processor.intake.journal_trouble(why, now)),
    ];
    for (what, trouble) in troubles {
        let (bench, broker) = bench(0);
        open(&bench, &broker, at(0));
        trouble(&bench, Some("gone".to_owned()), at(1_000));
        broker.ends.lock().insert(partition(), 1);
        for now in [1_000, 61_000, 600_000] {
            assert!(!may_fire(&bench, &broker, at(now)), "{what}: however long it lasts");
        }
        trouble(&bench, None, at(600_000));
        assert!(!may_fire(&bench, &broker, at(600_001)), "{what}: what was queued meanwhile comes first");
        handled(&bench, 0);
        assert!(may_fire(&bench, &broker, at(600_002)), "{what}");
    }
}

/// Also where it was over before anybody looked.
#[test]
fn an_absence_between_two_looks_is_a_stall() {
    for trouble in [Intake::broker_trouble, Intake::journal_trouble] {
        let (bench, broker) = bench(0);
        open(&bench, &broker, at(0));
        trouble(&bench.processor.intake, Some("gone".to_owned()), at(1_000));
        broker.ends.lock().insert(partition(), 1);
        trouble(&bench.processor.intake, None, at(1_010));
        assert!(!may_fire(&bench, &broker, at(1_020)));
        handled(&bench, 0);
        assert!(may_fire(&bench, &broker, at(1_030)));
    }
}

/// What an operator must settle first holds no deadline back.
#[test]
fn a_partition_that_is_held_is_not_waited_for() {
    let (bench, broker) = bench(5);
    bench.processor.intake.state.lock().held.insert(partition(), "made anew".to_owned());
    open(&bench, &broker, at(0));
}

fn sagas(count: u64) -> Vec<(Time, SagaId)> {
    (0..count).map(|number| (at(0).wall, SagaId::new(format!("s-{number}")))).collect()
}

/// Drives it for so long, a millisecond at a time.
fn drive(part: &mut dyn Part, from_ms: u64, for_ms: u64) {
    (from_ms..from_ms + for_ms).for_each(|ms| drop(run(part, at(ms))));
}

#[test]
fn so_many_deadlines_fire_in_a_second_and_no_more() {
    let (bench, broker) = bench_with(
        0,
        Settings {
            due_per_second_max: 200,
            read_ahead: ReadAhead { events_max: 10_000, ..settings().read_ahead },
            ..settings()
        },
    );
    bench.journal.held.lock().deadlines = sagas(5_000);
    open(&bench, &broker, at(0));
    let mut deadlines = bench.processor.deadlines(broker);
    drive(&mut deadlines, 0, 1_000);
    let fired = bench.processor.inbox.mailboxes.queued();
    assert!((150..=200).contains(&fired), "{fired} of 5000 fired in a second");
    bench.journal.held.lock().deadlines.drain(..fired);
    drive(&mut deadlines, 1_000, 1_000);
    let fired = bench.processor.inbox.mailboxes.queued();
    assert!((300..=400).contains(&fired), "{fired} fired in two seconds");
}

/// Rule 9: retries and delayed events do not wait. Race 18: nothing of what is due twice is fired twice.
#[test]
fn retries_wait_for_no_stall_and_each_is_fired_once() {
    let (bench, broker) = bench(9);
    bench.journal.held.lock().due = sagas(50);
    assert!(!may_fire(&bench, &broker, at(0)));
    let mut timers = bench.processor.timers();
    drive(&mut timers, 0, 900);
    assert_eq!(bench.processor.inbox.mailboxes.queued(), 50);
    let mut deadlines = bench.processor.deadlines(broker);
    bench.journal.held.lock().deadlines = sagas(50);
    drive(&mut deadlines, 0, 900);
    assert_eq!(bench.processor.inbox.mailboxes.queued(), 50, "deadlines do wait");
}

/// While more waits for workers than is read, nobody is woken.
#[test]
fn a_full_queue_is_not_filled_further_by_timers() {
    let (bench, _) =
        bench_with(0, Settings { read_ahead: ReadAhead { events_max: 10, ..settings().read_ahead }, ..settings() });
    (0..10).for_each(|offset| bench.deliver(offset, &format!("o-{offset}")));
    bench.journal.held.lock().due = sagas(5);
    let mut timers = bench.processor.timers();
    drive(&mut timers, 0, 100);
    assert_eq!(bench.processor.inbox.mailboxes.queued(), 10);
    assert_eq!(bench.processor.inbox.empty(), 10);
    drive(&mut timers, 100, 100);
    assert_eq!(bench.processor.inbox.mailboxes.queued(), 5);
}

/// Race 18: a clock that is set forward makes all deadlines due; what is queued still comes first, and they come by and
/// by.
#[test]
fn a_clock_that_jumps_closes_the_gate() {
    let (bench, broker) = bench_with(0, Settings { due_per_second_max: 40, ..settings() });
    open(&bench, &broker, at(0));
    let mut timers = bench.processor.timers();
    drive(&mut timers, 0, 50);
    assert!(may_fire(&bench, &broker, at(50)), "time that passes is no jump");
    broker.ends.lock().insert(partition(), 1);
    let hour = 3_600_000;
    let later = |ms: u64| Now { wall: Time(at(ms).wall.0 + hour), steady: Steady(Duration::from_millis(ms)) };
    bench.journal.held.lock().deadlines = sagas(100);
    run(&mut timers, later(60));
    let mut deadlines = bench.processor.deadlines(broker);
    (60..1_000).for_each(|ms| drop(run(&mut deadlines, later(ms))));
    assert_eq!(bench.processor.inbox.mailboxes.queued(), 0, "a result is queued");
    handled(&bench, 0);
    (1_000..2_000).for_each(|ms| drop(run(&mut deadlines, later(ms))));
    let fired = bench.processor.inbox.mailboxes.queued();
    assert!((20..=40).contains(&fired), "{fired} of 100 fired at once");
}

/// Where the journal knows of positions that this host does not read yet, nothing is waited for that cannot come.
#[test]
fn a_topic_that_nobody_handles_is_not_waited_for() {
    let (bench, broker) = bench(5);
    bench.processor.stage.begin(&partition(), Position::new(0, None));
    bench.processor.intake.state.lock().idle.insert(partition().topic);
    open(&bench, &broker, at(0));
    let journal: &Memory = &bench.journal;
    assert!(journal.held.lock().batches.is_empty());
}
