//! The races of `host/SEMANTICS.md`, each by its number. Invariant: a race that only the whole host can show (5, 15,
//! 17, 20, 22, 23) stands here with the part that the core has in it, if it has one.

use expect_test::expect;

use super::script::{check, play, play_on};

#[test]
fn race_01_failure_while_a_step_runs() {
    // Nothing left the host: the running result is thrown away, and `compensate` is told that it never ran.
    check(
        "payment hangs; OrderCreated; cancel; return payment ok",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: is out
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        > return payment ok
        payment.OrderCreated: ok
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: cancelled (by ann: because)
          late: 1
    "#]],
    );
    // It left: the plan waits for its end, and compensates what is known then.
    check(
        "with payment outside; payment hangs; OrderCreated; cancel; return payment ok",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            > return payment ok
            payment.OrderCreated: ok
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): ok
            publish PaymentRefunded
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              cause: cancelled (by ann: because)
              late: 1
        "#]],
    );
    check(
        "with payment outside; payment hangs; OrderCreated; cancel; return payment uncertain",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            > return payment uncertain
            payment.OrderCreated: crashes, uncertain
            undo payment.OrderCreated (uncertain): journaled first
            undo payment.OrderCreated (uncertain): ok
            publish PaymentRefunded
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              cause: cancelled (by ann: because)
              late: 1
        "#]],
    );
    check(
        "with payment outside; payment hangs; OrderCreated; cancel; return payment rejects DECLINED",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: journaled first
        payment.OrderCreated: is out
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > return payment rejects DECLINED
        payment.OrderCreated: rejects DECLINED
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: cancelled (by ann: because)
          late: 1
    "#]],
    );
    check(
        "with payment outside; payment hangs; OrderCreated; cancel; return payment crashes",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            > return payment crashes
            payment.OrderCreated: crashes
            undo payment.OrderCreated (never-ran): journaled first
            undo payment.OrderCreated (never-ran): ok
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: nothing-to-undo
              cause: cancelled (by ann: because)
              late: 1
        "#]],
    );
    check(
        "with payment outside; payment hangs; OrderCreated; cancel; crash",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            > crash
            undo payment.OrderCreated (uncertain): journaled first
            undo payment.OrderCreated (uncertain): ok
            publish PaymentRefunded
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              cause: cancelled (by ann: because)
              late: 1
        "#]],
    );
}

#[test]
fn race_02_forward_success_behind_the_fence() {
    // The first attempt's end turns up when the step is compensated as uncertain: again, with a key of its own.
    check(
        "with payment outside; with payment.OrderCreated attempts 2; payment hangs; payment hangs; OrderCreated
         return payment uncertain; wait 1s; order undo retries BUSY 5s; cancel; return payment uncertain
         return payment attempt 1 ok; wait 6s",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > return payment uncertain
            payment.OrderCreated: crashes, uncertain
            > wait 1s
            payment.OrderCreated attempt 2: journaled first
            payment.OrderCreated attempt 2: is out
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            > return payment uncertain
            payment.OrderCreated attempt 2: crashes, uncertain
            undo payment.OrderCreated (uncertain): journaled first
            undo payment.OrderCreated (uncertain): ok
            publish PaymentRefunded
            undo order.OrderCreated (done): retries BUSY
            > return payment attempt 1 ok
            payment.OrderCreated: ok
            undo payment.OrderCreated (done) ordinal 1: journaled first
            undo payment.OrderCreated (done) ordinal 1: ok
            publish PaymentRefunded
            > wait 6s
            undo order.OrderCreated (done) attempt 2: ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated, 2 attempts
              cause: cancelled (by ann: because)
              late: 2
        "#]],
    );
    let world = play(
        "with payment outside; payment hangs; payment hangs; OrderCreated
         return payment uncertain; wait 1s; order undo retries BUSY 5s; cancel; return payment uncertain
         return payment attempt 1 ok; wait 6s",
    );
    let undos: Vec<_> = world.made.iter().filter(|call| call.undo.is_some()).collect();
    let payment: Vec<_> = undos.iter().filter(|call| call.participant.as_str() == "payment").collect();
    assert_eq!(payment.len(), 2);
    assert_ne!(payment[0].idempotency_key, payment[1].idempotency_key);
    // While that compensation waits for its next attempt: the real data goes first.
    check(
        "with payment outside; payment hangs; payment hangs; payment undo retries BUSY 5s; OrderCreated
         return payment uncertain; wait 1s; cancel; return payment uncertain
         return payment attempt 1 ok; wait 6s",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > return payment uncertain
            payment.OrderCreated: crashes, uncertain
            > wait 1s
            payment.OrderCreated attempt 2: journaled first
            payment.OrderCreated attempt 2: is out
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            > return payment uncertain
            payment.OrderCreated attempt 2: crashes, uncertain
            undo payment.OrderCreated (uncertain): journaled first
            undo payment.OrderCreated (uncertain): retries BUSY
            > return payment attempt 1 ok
            payment.OrderCreated: ok
            undo payment.OrderCreated (done) ordinal 1: journaled first
            undo payment.OrderCreated (done) ordinal 1: ok
            publish PaymentRefunded
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > wait 6s
            nothing: nothing is due
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated, 2 attempts
              cause: cancelled (by ann: because)
              late: 2
        "#]],
    );
}

#[test]
fn race_03_compensate_before_the_forward_call() {
    check(
        "with payment compensate-on PaymentVoided; with only payment; PaymentVoided; OrderCreated",
        expect![[r#"
        > PaymentVoided
        > OrderCreated
        undo payment.OrderCreated (never-ran): ok
        = compensated
          payment.OrderCreated: nothing-to-undo
          cause: failure-event (PaymentVoided: outside/PaymentVoided)
          late: 1
    "#]],
    );
    // An event of a running saga that arrives behind the fence.
    check(
        "payment rejects DECLINED; order undo retries BUSY 5s; OrderCreated; PaymentProcessed; wait 6s",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: rejects DECLINED
            publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
            publish PaymentFailed
            undo order.OrderCreated (done): retries BUSY
            > PaymentProcessed
            > wait 6s
            undo order.OrderCreated (done) attempt 2: ok
            publish OrderCancelled
            undo inventory.PaymentProcessed (never-ran): ok
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: rejected
              inventory.PaymentProcessed: nothing-to-undo
              cause: rejected (DECLINED: as told)
              late: 1
        "#]],
    );
}

/// Rule 6 behind the end: another topic was faster, and what it led to is called off before the first event comes.
#[test]
fn race_03_overtaken_by_a_whole_compensation() {
    check(
        "inventory rejects EMPTY; PaymentProcessed; OrderCreated; OrderCreated#2",
        expect![[r#"
            > PaymentProcessed
            inventory.PaymentProcessed: rejects EMPTY
            publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
            publish InventoryRejected
            > OrderCreated
            undo payment.OrderCreated (never-ran): ok
            undo order.OrderCreated (never-ran): ok
            publish OrderCancelled
            > OrderCreated#2
            = compensated
              inventory.PaymentProcessed: rejected
              order.OrderCreated: compensated
              payment.OrderCreated: nothing-to-undo
              cause: rejected (EMPTY: as told)
              late: 2
        "#]],
    );
}

#[test]
fn race_04_a_re_run_makes_the_same_ids() {
    let committed = play("payment retries BUSY 1s; inventory rejects EMPTY; OrderCreated");
    let ids = |script: &str| {
        let mut world = committed.clone();
        play_on(&mut world, script);
        let keys: Vec<_> = world.made.iter().map(|call| call.idempotency_key.clone()).collect();
        (keys, world.published.iter().map(|event| event.key.clone()).collect::<Vec<_>>())
    };
    let first = ids("wait 1s");
    assert_eq!((first.0.len(), first.1.len()), (6, 5), "three steps, one of them twice, two undone; five events");
    // From the record as it was committed, at another time, by other code.
    assert_eq!(ids("crash; upgrade order; upgrade payment; upgrade inventory; wait 14m"), first);
}

#[test]
fn race_06_crash_in_the_middle_of_compensation() {
    // The plan is resumed, not made again: payment is not undone a second time.
    check(
        "inventory rejects EMPTY; order undo retries BUSY 5s; OrderCreated; crash; wait 6s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: rejects EMPTY
        publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
        publish InventoryRejected
        undo payment.OrderCreated (done): ok
        publish PaymentRefunded
        undo order.OrderCreated (done): retries BUSY
        > crash
        > wait 6s
        undo order.OrderCreated (done) attempt 2: ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          inventory.PaymentProcessed: rejected
          cause: rejected (EMPTY: as told)
    "#]],
    );
}

#[test]
fn race_07_two_failures() {
    check(
        "payment rejects DECLINED; order undo retries BUSY 5s; OrderCreated; SagaFailed; SagaFailed#again; cancel; wait 6s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo order.OrderCreated (done): retries BUSY
        > SagaFailed
        > SagaFailed#again
        > cancel
        answer: the saga is compensating
        > wait 6s
        undo order.OrderCreated (done) attempt 2: ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: rejected
          cause: rejected (DECLINED: as told)
    "#]],
    );
}

#[test]
fn race_08_event_before_its_predecessor() {
    let after = "with order.InventoryUpdated after OrderCreated; with only order\n";
    check(
        &format!("{after} InventoryUpdated; OrderCreated"),
        expect![[r#"
        > InventoryUpdated
        > OrderCreated
        order.OrderCreated: ok
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.InventoryUpdated: done
          order.OrderCreated: done
    "#]],
    );
    check(
        &format!("{after} InventoryUpdated; wait 59s; wait 1s"),
        expect![[r#"
        > InventoryUpdated
        > wait 59s
        nothing: nothing is due
        > wait 1s
        letter order.InventoryUpdated orphan
        publish SagaFailed {"app":"shop","code":"orphan","detail":"what it waits for did not come: OrderCreated","participant":"order","saga":"o-1"}
        = compensated
          order.InventoryUpdated: never-ran
          cause: orphan (what it waits for did not come: OrderCreated)
          open letter: orphan
    "#]],
    );
    // The plugin says so itself.
    check(
        "with only order; order not-yet; InventoryUpdated; OrderCreated",
        expect![[r#"
        > InventoryUpdated
        order.InventoryUpdated: not yet
        > OrderCreated
        order.OrderCreated: ok
        order.InventoryUpdated attempt 2: ok
        publish OrderCompleted
        = completed
          order.InventoryUpdated: done, 2 attempts
          order.OrderCreated: done
    "#]],
    );
    check(
        "with only order; order not-yet; InventoryUpdated; wait 60s",
        expect![[r#"
        > InventoryUpdated
        order.InventoryUpdated: not yet
        > wait 60s
        letter order.InventoryUpdated orphan
        publish SagaFailed {"app":"shop","code":"orphan","detail":"what it waits for did not come: NOT_YET","participant":"order","saga":"o-1"}
        = compensated
          order.InventoryUpdated: never-ran
          cause: orphan (what it waits for did not come: NOT_YET)
          open letter: orphan
    "#]],
    );
    // Where nobody finishes sagas, time makes a dead letter and compensates nothing.
    check(
        "with only inventory; with inventory.StockCounted after PaymentProcessed; StockCounted; wait 60s; PaymentProcessed",
        expect![[r#"
            > StockCounted
            > wait 60s
            letter inventory.StockCounted orphan
            > PaymentProcessed
            inventory.PaymentProcessed: ok
            publish InventoryUpdated
            = running
              inventory.StockCounted: given-up
              inventory.PaymentProcessed: done
              open letter: orphan
        "#]],
    );
}

#[test]
fn race_09_failure_before_the_first_event() {
    check(
        "cancel; OrderCreated",
        expect![[r#"
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > OrderCreated
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (never-ran): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: cancelled (by ann: because)
          late: 1
    "#]],
    );
    check(
        "with only payment; SagaFailed; OrderCreated; OrderCreated#2",
        expect![[r#"
        > SagaFailed
        > OrderCreated
        undo payment.OrderCreated (never-ran): ok
        > OrderCreated#2
        letter OrderCreated saga-finished
        = compensated
          payment.OrderCreated: nothing-to-undo
          cause: failure-event (SagaFailed: outside/SagaFailed)
          late: 2
          open letter: saga-finished
    "#]],
    );
    check(
        "SagaFailed; cancel",
        expect![[r#"
        > SagaFailed
        > cancel
        answer: the saga is waiting
        = waiting
          cause: failure-event (SagaFailed: outside/SagaFailed)
    "#]],
    );
}

#[test]
fn race_10_timer_against_completion() {
    check(
        "with payment.OrderCreated deadline 5s; payment retries BUSY 2s; OrderCreated; wait 2s; wait 3s; wait 15m",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: retries BUSY
        > wait 2s
        payment.OrderCreated attempt 2: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > wait 3s
        nothing: nothing is due
        > wait 15m
        nothing: nothing is due
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done, 2 attempts
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
    check(
        "with payment.OrderCreated deadline 5s; payment retries BUSY 4s; OrderCreated; wait 5s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: retries BUSY
        > wait 5s
        letter payment.OrderCreated step-deadline
        publish SagaFailed {"app":"shop","code":"step-deadline","detail":"no attempt succeeded in time","participant":"payment","saga":"o-1"}
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: step-deadline (no attempt succeeded in time)
          open letter: step-deadline
    "#]],
    );
}

#[test]
fn race_11_cancel_while_compensating_or_finished() {
    check(
        "payment rejects DECLINED; order undo retries BUSY 5s; OrderCreated; cancel; wait 6s; cancel",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo order.OrderCreated (done): retries BUSY
        > cancel
        answer: the saga is compensating
        > wait 6s
        undo order.OrderCreated (done) attempt 2: ok
        publish OrderCancelled
        > cancel
        answer: the saga is compensated
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: rejected
          cause: rejected (DECLINED: as told)
    "#]],
    );
    check(
        "OrderCreated; cancel",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > cancel
        answer: no, too late: the saga is completed
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
}

#[test]
fn race_12_late_event_after_the_end() {
    check(
        "OrderCreated; InventoryUpdated; OrderCreated; OrderCreated#2; OrderCreated#2",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > InventoryUpdated
        > OrderCreated
        nothing: the event is known
        > OrderCreated#2
        letter OrderCreated saga-finished
        > OrderCreated#2
        nothing: the event is known
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
          late: 2
          open letter: saga-finished
    "#]],
    );
    check(
        "payment rejects DECLINED; OrderCreated; PaymentProcessed; OrderCreated#2",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: rejects DECLINED
            publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
            publish PaymentFailed
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > PaymentProcessed
            undo inventory.PaymentProcessed (never-ran): ok
            > OrderCreated#2
            letter OrderCreated saga-finished
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: rejected
              inventory.PaymentProcessed: nothing-to-undo
              cause: rejected (DECLINED: as told)
              late: 2
              open letter: saga-finished
        "#]],
    );
}

#[test]
fn race_13_redrive_behind_the_end() {
    check(
        "OrderCreated; OrderCreated#2; redrive order; discard",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > OrderCreated#2
        letter OrderCreated saga-finished
        > redrive order
        answer: no, too late: the saga is completed; discard the letter when it is settled
        > discard
        answer: discarded
        letter outside/OrderCreated#2| closed: discarded by ann: because
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
          late: 2
    "#]],
    );
    check(
        "payment invalid BAD; order undo retries BUSY 5s; OrderCreated; redrive payment; wait 6s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        publish SagaFailed {"app":"shop","code":"BAD","detail":"as told","participant":"payment","saga":"o-1"}
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (done): retries BUSY
        > redrive payment
        answer: no, too late: the saga is compensating; discard the letter when it is settled
        > wait 6s
        undo order.OrderCreated (done) attempt 2: ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: invalid (BAD: as told)
          late: 1
          open letter: BAD
    "#]],
    );
}

#[test]
fn race_14_same_event_id_twice() {
    check(
        "payment retries BUSY 5s; OrderCreated; OrderCreated; OrderCreated=other; OrderCreated=other; wait 6s; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: retries BUSY
        > OrderCreated
        nothing: the event is known
        > OrderCreated=other
        letter OrderCreated event-id-reused
        > OrderCreated=other
        nothing: the event is in a dead letter
        > wait 6s
        payment.OrderCreated attempt 2: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > OrderCreated
        nothing: the event is known
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done, 2 attempts
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
          open letter: event-id-reused
    "#]],
    );
}

#[test]
fn race_16_plugin_replaced_mid_saga() {
    // New code begins with a full budget; numbers of attempts go on.
    check(
        "payment always retries BUSY 1s; OrderCreated; wait 1s; upgrade payment; wait 1s; wait 1s; wait 1s; wait 1s",
        expect![[r#"
            > payment always retries BUSY 1s
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: retries BUSY
            > wait 1s
            payment.OrderCreated attempt 2: retries BUSY
            > upgrade payment
            > wait 1s
            payment.OrderCreated attempt 3: retries BUSY
            > wait 1s
            payment.OrderCreated attempt 4: retries BUSY
            > wait 1s
            payment.OrderCreated attempt 5: retries BUSY
            letter payment.OrderCreated BUSY
            publish SagaFailed {"app":"shop","code":"BUSY","detail":"as told","participant":"payment","saga":"o-1"}
            undo payment.OrderCreated (never-ran): ok
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > wait 1s
            nothing: nothing is due
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: nothing-to-undo, 5 attempts
              cause: attempts-spent (BUSY: as told)
              open letter: BUSY
        "#]],
    );
    // No stored code reads the saga's bytes: an operator decides, nobody guesses.
    check(
        "payment unreadable; OrderCreated; retry",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: unreadable
        > retry
        answer: it is tried again
        payment.OrderCreated attempt 2: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done, 2 attempts
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
}

#[test]
fn race_17_compensation_that_always_traps() {
    check(
        "inventory rejects EMPTY; payment always undo crashes; OrderCreated; wait 1s; wait 1s; wait 1s",
        expect![[r#"
            > payment always undo crashes
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: rejects EMPTY
            publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
            publish InventoryRejected
            undo payment.OrderCreated (done): crashes
            > wait 1s
            undo payment.OrderCreated (done) attempt 2: crashes
            > wait 1s
            undo payment.OrderCreated (done) attempt 3: crashes
            letter payment.OrderCreated compensation-failed
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > wait 1s
            nothing: nothing is due
            = needs-operator
              order.OrderCreated: compensated
              payment.OrderCreated: compensation-failed
              inventory.PaymentProcessed: rejected
              cause: rejected (EMPTY: as told)
              open letter: compensation-failed
              sagahost sagas retry o-1  # payment could not undo OrderCreated: trap: unreachable
              sagahost sagas resolve o-1 --undone --participant payment --reason TEXT  # it was undone by hand
        "#]],
    );
}

#[test]
fn race_18_clock_jumps() {
    // After a stall queued results come before deadlines.
    check(
        "with only order; OrderCreated; stall 20m; InventoryUpdated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        > stall 20m
        nothing: nothing is due
        > InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          order.InventoryUpdated: done
    "#]],
    );
    check(
        "with only order; OrderCreated; wait 20m; InventoryUpdated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        > wait 20m
        publish SagaFailed {"app":"shop","code":"saga-deadline","detail":"not finished within 900000 ms","participant":null,"saga":"o-1"}
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        > InventoryUpdated
        = compensated
          order.OrderCreated: compensated
          cause: saga-deadline (not finished within 900000 ms)
          late: 1
    "#]],
    );
}

#[test]
fn race_19_operators_retry_against_automatic_retry() {
    check(
        "payment retries BUSY 5s; payment hangs; OrderCreated; retry; wait 5s; return payment attempt 1 ok; return payment ok",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: retries BUSY
        > retry
        answer: it is tried again
        payment.OrderCreated attempt 2: is out
        > wait 5s
        nothing: nothing is due
        > return payment attempt 1 ok
        payment.OrderCreated: ok
        > return payment ok
        payment.OrderCreated attempt 2: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done, 2 attempts
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
}

#[test]
fn race_21_plugin_removed() {
    check(
        "away payment; OrderCreated; wait 1m; crash; back payment",
        expect![[r#"
        > away payment
        > OrderCreated
        order.OrderCreated: ok
        > wait 1m
        nothing: nothing is due
        > crash
        > back payment
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
    // It holds nobody else, and no time of its runs out.
    check(
        "with only payment; with payment.OrderCreated deadline 5s; with payment.OrderCreated ttl 5s; away payment
         OrderCreated; wait 20m; back payment",
        expect![[r#"
            > away payment
            > OrderCreated
            > wait 20m
            nothing: nothing is due
            > back payment
            payment.OrderCreated: ok
            publish PaymentProcessed
            = running
              payment.OrderCreated: done
        "#]],
    );
    // Compensation runs on the stored code.
    check(
        "inventory retries BUSY 5s; OrderCreated; away payment; cancel",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: retries BUSY
        > away payment
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        undo inventory.PaymentProcessed (never-ran): ok
        undo payment.OrderCreated (done): ok
        publish PaymentRefunded
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          inventory.PaymentProcessed: nothing-to-undo
          cause: cancelled (by ann: because)
    "#]],
    );
}

#[test]
fn race_24_failure_while_a_retry_backs_off() {
    check(
        "inventory retries BUSY 5s; OrderCreated; SagaFailed; wait 5s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: retries BUSY
        > SagaFailed
        undo inventory.PaymentProcessed (never-ran): ok
        undo payment.OrderCreated (done): ok
        publish PaymentRefunded
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        > wait 5s
        nothing: nothing is due
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          inventory.PaymentProcessed: nothing-to-undo
          cause: failure-event (SagaFailed: outside/SagaFailed)
    "#]],
    );
}
