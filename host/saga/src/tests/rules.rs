//! The rules of `host/SEMANTICS.md`, each by its number. Invariant: what a race shows already is not shown again.

use expect_test::expect;

use super::{
    script::{check, play, play_on},
    world::{emission, event},
};
use crate::{
    mutation::{self, Mutation},
    outcome::Emission,
    view::StepState,
};

#[test]
fn rule_01_the_main_job() {
    check(
        "OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
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
    check(
        "payment rejects DECLINED; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: rejected
          cause: rejected (DECLINED: as told)
    "#]],
    );
    check(
        "inventory rejects EMPTY; OrderCreated",
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
        undo order.OrderCreated (done): ok
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
fn rule_02_outcomes() {
    check(
        "payment crashes; payment crashes; OrderCreated; wait 1s; wait 1s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: crashes
        > wait 1s
        payment.OrderCreated attempt 2: crashes
        > wait 1s
        payment.OrderCreated attempt 3: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done, 3 attempts
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
    check(
        "payment always crashes; OrderCreated; wait 1s; wait 1s",
        expect![[r#"
        > payment always crashes
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: crashes
        > wait 1s
        payment.OrderCreated attempt 2: crashes
        > wait 1s
        payment.OrderCreated attempt 3: crashes
        letter payment.OrderCreated trap
        publish SagaFailed {"app":"shop","code":"trap","detail":"unreachable","participant":"payment","saga":"o-1"}
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo, 3 attempts
          cause: attempts-spent (trap: unreachable)
          open letter: trap
    "#]],
    );
    check(
        "payment invalid BAD; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        publish SagaFailed {"app":"shop","code":"BAD","detail":"as told","participant":"payment","saga":"o-1"}
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: invalid (BAD: as told)
          open letter: BAD
    "#]],
    );
    check(
        "with payment outside; payment always uncertain; OrderCreated; wait 1s; wait 1s",
        expect![[r#"
            > payment always uncertain
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: crashes, uncertain
            > wait 1s
            payment.OrderCreated attempt 2: journaled first
            payment.OrderCreated attempt 2: crashes, uncertain
            > wait 1s
            payment.OrderCreated attempt 3: journaled first
            payment.OrderCreated attempt 3: crashes, uncertain
            letter payment.OrderCreated trap
            publish SagaFailed {"app":"shop","code":"trap","detail":"unreachable","participant":"payment","saga":"o-1"}
            undo payment.OrderCreated (uncertain): journaled first
            undo payment.OrderCreated (uncertain): ok
            publish PaymentRefunded
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated, 3 attempts
              cause: attempts-spent (trap: unreachable)
              open letter: trap
        "#]],
    );
    check(
        "with payment outside; payment uncertain; payment rejects DECLINED; OrderCreated; wait 1s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: journaled first
        payment.OrderCreated: crashes, uncertain
        > wait 1s
        payment.OrderCreated attempt 2: journaled first
        payment.OrderCreated attempt 2: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: rejected, 2 attempts
          cause: rejected (DECLINED: as told)
    "#]],
    );
    check(
        "with payment outside; payment uncertain; OrderCreated; wait 1s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: journaled first
        payment.OrderCreated: crashes, uncertain
        > wait 1s
        payment.OrderCreated attempt 2: journaled first
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
    check(
        "with payment outside; payment hangs; OrderCreated; crash; wait 1s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: journaled first
        payment.OrderCreated: is out
        > crash
        > wait 1s
        payment.OrderCreated attempt 2: journaled first
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
fn rule_05_how_a_part_ends() {
    // In apps of their own: payment's step stays compensable until the order is completed.
    check(
        "with only payment; OrderCreated; wait 20m; OrderCompleted; SagaFailed",
        expect![[r#"
        > OrderCreated
        payment.OrderCreated: ok
        publish PaymentProcessed
        > wait 20m
        nothing: nothing is due
        > OrderCompleted
        > SagaFailed
        letter SagaFailed failed-after-finish
        = completed
          payment.OrderCreated: done, released
          late: 1
          open letter: failed-after-finish
    "#]],
    );
    check(
        "with only payment; OrderCreated; SagaFailed",
        expect![[r#"
        > OrderCreated
        payment.OrderCreated: ok
        publish PaymentProcessed
        > SagaFailed
        undo payment.OrderCreated (done): ok
        publish PaymentRefunded
        = compensated
          payment.OrderCreated: compensated
          cause: failure-event (SagaFailed: outside/SagaFailed)
    "#]],
    );
    // It subscribes to the kind, too: handled first.
    check(
        "with only payment; with payment.OrderCompleted; OrderCreated; payment retries BUSY 1s; OrderCompleted; wait 1s",
        expect![[r#"
        > OrderCreated
        payment.OrderCreated: ok
        publish PaymentProcessed
        > OrderCompleted
        payment.OrderCompleted: retries BUSY
        > wait 1s
        payment.OrderCompleted attempt 2: ok
        = completed
          payment.OrderCreated: done, released
          payment.OrderCompleted: done, 2 attempts, released
    "#]],
    );
    check(
        "with only payment; with payment.OrderCompleted; OrderCreated; payment invalid BAD; OrderCompleted",
        expect![[r#"
        > OrderCreated
        payment.OrderCreated: ok
        publish PaymentProcessed
        > OrderCompleted
        payment.OrderCompleted: invalid BAD
        letter payment.OrderCompleted BAD
        = completed
          payment.OrderCreated: done, released
          payment.OrderCompleted: given-up, released
          open letter: BAD
    "#]],
    );
    // `finished` waits for what was taken in before or with it.
    check(
        "with member mailer OrderCompleted running; mailer retries BUSY 1s; OrderCreated; PaymentProcessed#2; SagaFailed; cancel; wait 1s",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: ok
            publish InventoryUpdated
            order.InventoryUpdated: ok
            publish OrderCompleted
            mailer.OrderCompleted: retries BUSY
            > PaymentProcessed#2
            > SagaFailed
            letter SagaFailed failed-after-finish
            > cancel
            answer: no, too late: the saga is finishing
            > wait 1s
            mailer.OrderCompleted attempt 2: ok
            = completed
              order.OrderCreated: done
              payment.OrderCreated: done
              inventory.PaymentProcessed: done
              order.InventoryUpdated: done
              mailer.OrderCompleted: done, 2 attempts
              late: 2
              open letter: failed-after-finish
        "#]],
    );
    check(
        "with member mailer OrderCompleted running; mailer rejects NO_ADDRESS; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        mailer.OrderCompleted: rejects NO_ADDRESS
        letter mailer.OrderCompleted NO_ADDRESS
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
          mailer.OrderCompleted: given-up
          open letter: NO_ADDRESS
    "#]],
    );
    // Delayed events go when it ends.
    check(
        "with payment.OrderCreated emits ReminderDue after 5s; inventory retries BUSY 6s; OrderCreated; wait 5s; wait 1s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: retries BUSY
        > wait 5s
        publish ReminderDue
        > wait 1s
        inventory.PaymentProcessed attempt 2: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done, 2 attempts
          order.InventoryUpdated: done
    "#]],
    );
    check(
        "with payment.OrderCreated emits ReminderDue after 5s; inventory retries BUSY 2s; OrderCreated; wait 2s; wait 5s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: retries BUSY
        > wait 2s
        inventory.PaymentProcessed attempt 2: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > wait 5s
        nothing: nothing is due
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done, 2 attempts
          order.InventoryUpdated: done
    "#]],
    );
}

#[test]
fn rule_06_never_ran() {
    // A declined payment must still cancel an order that was never created.
    check(
        "order retries BUSY 5s; OrderCreated; SagaFailed",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: retries BUSY
        > SagaFailed
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (never-ran): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: failure-event (SagaFailed: outside/SagaFailed)
    "#]],
    );
    // A step that has nothing to undo is not asked.
    check(
        "with payment.OrderCreated nothing-to-undo; inventory rejects EMPTY; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: rejects EMPTY
        publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
        publish InventoryRejected
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          inventory.PaymentProcessed: rejected
          cause: rejected (EMPTY: as told)
    "#]],
    );
}

#[test]
fn rule_07_who_announces() {
    check(
        "with only payment; payment rejects DECLINED; OrderCreated",
        expect![[r#"
        > OrderCreated
        payment.OrderCreated: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        = compensated
          payment.OrderCreated: rejected
          cause: rejected (DECLINED: as told)
    "#]],
    );
    check(
        "with only payment; OrderCreated; PaymentVoided; SagaFailed={\"saga\":\"o-1\",\"app\":\"stock\",\"participant\":\"inventory\",\"code\":\"EMPTY\",\"detail\":\"none\"}",
        expect![[r#"
        > OrderCreated
        payment.OrderCreated: ok
        publish PaymentProcessed
        > PaymentVoided
        nothing: no participant acts on this kind
        > SagaFailed={"saga":"o-1","app":"stock","participant":"inventory","code":"EMPTY","detail":"none"}
        undo payment.OrderCreated (done): ok
        publish PaymentRefunded
        = compensated
          payment.OrderCreated: compensated
          cause: failure-event (SagaFailed: stock/inventory: EMPTY: none)
    "#]],
    );
    // Its own announcement, coming back, is not a second failure, and reaches who listens to it.
    let mut world = play(
        "with member pager SagaFailed compensating; payment rejects DECLINED; order undo retries BUSY 5s; OrderCreated",
    );
    let announced = world.published.iter().find(|event| event.kind.as_str() == "SagaFailed").expect("one").clone();
    assert_eq!(&*announced.key.source, "sagahost/shop");
    assert_eq!(announced.attribute("traceparent"), Some("00-1"));
    world.log.clear();
    world.receive(announced);
    expect![[r#"
        pager.SagaFailed: ok
        = compensating
          order.OrderCreated: compensating
          payment.OrderCreated: rejected
          pager.SagaFailed: done
          cause: rejected (DECLINED: as told)
    "#]]
    .assert_eq(&world.report());
}

#[test]
fn rule_08_pivot() {
    let pivot = "with payment.OrderCreated pivot\n";
    check(
        &format!("{pivot} inventory retries BUSY 5s; OrderCreated; cancel; SagaFailed; wait 5s; resolve accept"),
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: retries BUSY
        > cancel
        answer: no, too late: the pivot step of payment is done, or may be
        > SagaFailed
        > wait 5s
        inventory.PaymentProcessed attempt 2: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > resolve accept
        answer: accepted as it is
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done, 2 attempts
          order.InventoryUpdated: done
    "#]],
    );
    check(
        &format!("{pivot} inventory retries BUSY 5s; OrderCreated; SagaFailed; resolve undone"),
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: retries BUSY
        > SagaFailed
        > resolve undone
        answer: taken as undone
        = compensated
          order.OrderCreated: undone-by-hand
          payment.OrderCreated: nothing-to-undo
          inventory.PaymentProcessed: undone-by-hand
          cause: operator (undone by hand by ann: because)
    "#]],
    );
    check(
        &format!("{pivot} inventory rejects EMPTY; OrderCreated; retry"),
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: rejects EMPTY
        letter inventory.PaymentProcessed EMPTY
        > retry
        answer: it is tried again
        letter sagahost/shop/payment/7f5d07fe2b288eaa0e19a079d426e955|inventory closed: retried by ann
        inventory.PaymentProcessed attempt 2: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done, 2 attempts
          order.InventoryUpdated: done
    "#]],
    );
    check(
        &format!("{pivot} inventory always crashes; OrderCreated; wait 1s; wait 1s; wait 20m; inventory never; retry"),
        expect![[r#"
        > inventory always crashes
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: crashes
        > wait 1s
        inventory.PaymentProcessed attempt 2: crashes
        > wait 1s
        inventory.PaymentProcessed attempt 3: crashes
        letter inventory.PaymentProcessed trap
        > wait 20m
        nothing: nothing is due
        > inventory never
        > retry
        answer: it is tried again
        letter sagahost/shop/payment/7f5d07fe2b288eaa0e19a079d426e955|inventory closed: retried by ann
        inventory.PaymentProcessed attempt 4: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done, 4 attempts
          order.InventoryUpdated: done
    "#]],
    );
    // A pivot that fails before it is done compensates; one that may have happened waits for a person.
    check(
        &format!("{pivot} payment rejects DECLINED; OrderCreated"),
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: rejected
          cause: rejected (DECLINED: as told)
    "#]],
    );
    check(
        &format!("{pivot} with payment outside; payment always uncertain; OrderCreated; cancel; wait 1s; wait 1s"),
        expect![[r#"
        > payment always uncertain
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: journaled first
        payment.OrderCreated: crashes, uncertain
        > cancel
        answer: no, too late: the pivot step of payment is done, or may be
        > wait 1s
        payment.OrderCreated attempt 2: journaled first
        payment.OrderCreated attempt 2: crashes, uncertain
        > wait 1s
        payment.OrderCreated attempt 3: journaled first
        payment.OrderCreated attempt 3: crashes, uncertain
        letter payment.OrderCreated trap
        = needs-operator
          order.OrderCreated: done
          payment.OrderCreated: blocked, 3 attempts
          open letter: trap
          sagahost sagas retry o-1  # payment could not handle OrderCreated: trap: unreachable
          sagahost sagas resolve o-1 --accept --participant payment --reason TEXT  # continue without this step
    "#]],
    );
    check(
        &format!("{pivot} with only payment; OrderCreated; wait 20m"),
        expect![[r#"
        > OrderCreated
        payment.OrderCreated: ok
        publish PaymentProcessed
        > wait 20m
        nothing: nothing is due
        = running
          payment.OrderCreated: done
    "#]],
    );
    check(
        &format!("{pivot} inventory hangs; OrderCreated; wait 20m; return inventory ok; resolve accept"),
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: is out
            > wait 20m
            > return inventory ok
            inventory.PaymentProcessed: ok
            publish InventoryUpdated
            order.InventoryUpdated: ok
            publish OrderCompleted
            > resolve accept
            answer: no, nothing here waits to be resolved
            = completed
              order.OrderCreated: done
              payment.OrderCreated: done
              inventory.PaymentProcessed: done
              order.InventoryUpdated: done
        "#]],
    );
}

#[test]
fn rule_10_compensation_fails() {
    let stuck = "inventory retries BUSY 5s; payment undo stuck NO; OrderCreated; cancel\n";
    check(
        stuck,
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: retries BUSY
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            undo inventory.PaymentProcessed (never-ran): ok
            undo payment.OrderCreated (done): stuck NO
            letter payment.OrderCreated compensation-failed
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = needs-operator
              order.OrderCreated: compensated
              payment.OrderCreated: compensation-failed
              inventory.PaymentProcessed: nothing-to-undo
              cause: cancelled (by ann: because)
              open letter: compensation-failed
              sagahost sagas retry o-1  # payment could not undo OrderCreated: NO: as told
              sagahost sagas resolve o-1 --undone --participant payment --reason TEXT  # it was undone by hand
        "#]],
    );
    check(
        &format!("{stuck} retry"),
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: retries BUSY
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            undo inventory.PaymentProcessed (never-ran): ok
            undo payment.OrderCreated (done): stuck NO
            letter payment.OrderCreated compensation-failed
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > retry
            answer: it is tried again
            letter outside/OrderCreated|payment/undo closed: retried by ann
            undo payment.OrderCreated (done) attempt 2: ok
            publish PaymentRefunded
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              inventory.PaymentProcessed: nothing-to-undo
              cause: cancelled (by ann: because)
        "#]],
    );
    check(
        &format!("{stuck} resolve undone payment; resolve undone"),
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: retries BUSY
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            undo inventory.PaymentProcessed (never-ran): ok
            undo payment.OrderCreated (done): stuck NO
            letter payment.OrderCreated compensation-failed
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > resolve undone payment
            answer: taken as undone
            letter outside/OrderCreated|payment/undo closed: resolved by ann: because
            > resolve undone
            answer: no, nothing here waits to be resolved
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: undone-by-hand
              inventory.PaymentProcessed: nothing-to-undo
              cause: cancelled (by ann: because)
        "#]],
    );
    check(
        &format!("{stuck} resolve accept"),
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: retries BUSY
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            undo inventory.PaymentProcessed (never-ran): ok
            undo payment.OrderCreated (done): stuck NO
            letter payment.OrderCreated compensation-failed
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > resolve accept
            answer: accepted as it is
            letter outside/OrderCreated|payment/undo closed: resolved by ann: because
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: accepted
              inventory.PaymentProcessed: nothing-to-undo
              cause: cancelled (by ann: because)
        "#]],
    );
    // Only the steps that caused the stuck one wait.
    check(
        "inventory undo stuck NO; order retries BUSY 5s; OrderCreated; wait 5s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: retries BUSY
        > wait 5s
        order.OrderCreated attempt 2: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done, 2 attempts
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
    check(
        "with order.InventoryUpdated compensable; order ok; order retries BUSY 5s; inventory undo stuck NO; OrderCreated; cancel; retry",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: ok
            publish InventoryUpdated
            order.InventoryUpdated: retries BUSY
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            undo order.InventoryUpdated (never-ran): ok
            undo inventory.PaymentProcessed (done): stuck NO
            letter inventory.PaymentProcessed compensation-failed
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > retry
            answer: it is tried again
            letter sagahost/shop/payment/7f5d07fe2b288eaa0e19a079d426e955|inventory/undo closed: retried by ann
            undo inventory.PaymentProcessed (done) attempt 2: ok
            publish InventoryReleased
            undo payment.OrderCreated (done): ok
            publish PaymentRefunded
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              inventory.PaymentProcessed: compensated
              order.InventoryUpdated: compensated
              cause: cancelled (by ann: because)
        "#]],
    );
    check(
        "inventory rejects EMPTY; payment undo unreadable; OrderCreated; retry",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: rejects EMPTY
            publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
            publish InventoryRejected
            undo payment.OrderCreated (done): unreadable
            letter payment.OrderCreated compensation-failed
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            > retry
            answer: it is tried again
            letter outside/OrderCreated|payment/undo closed: retried by ann
            undo payment.OrderCreated (done) attempt 2: ok
            publish PaymentRefunded
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              inventory.PaymentProcessed: rejected
              cause: rejected (EMPTY: as told)
        "#]],
    );
}

#[test]
fn rule_11_order_is_kept() {
    let kinds = "with only payment; with payment.A; with payment.B\n";
    check(
        &format!("{kinds} payment retries BUSY 5s; A; B; wait 5s"),
        expect![[r#"
        > A
        payment.A: retries BUSY
        > B
        > wait 5s
        payment.A attempt 2: ok
        payment.B: ok
        = running
          payment.A: done, 2 attempts
          payment.B: done
    "#]],
    );
    check(
        &format!("{kinds} with parked-max 2; payment retries BUSY 5s; A; B; A#2; wait 5s; redrive payment"),
        expect![[r#"
        > A
        payment.A: retries BUSY
        > B
        > A#2
        letter payment.A parked-overflow
        > wait 5s
        payment.A attempt 2: ok
        payment.B: ok
        > redrive payment
        answer: payment handles A again
        letter outside/A#2|payment closed: redriven by ann
        payment.A: ok
        = running
          payment.A: done, 2 attempts
          payment.B: done
          payment.A: done
    "#]],
    );
    check(
        &format!("{kinds} with parked-max 1; payment retries BUSY 5s; A; B; wait 5s; discard"),
        expect![[r#"
        > A
        payment.A: retries BUSY
        > B
        letter payment.B parked-overflow
        > wait 5s
        payment.A attempt 2: ok
        > discard
        answer: discarded
        letter outside/B|payment closed: discarded by ann: because
        = running
          payment.A: done, 2 attempts
    "#]],
    );
    check(
        &format!("{kinds} payment not-yet; A; B"),
        expect![[r#"
        > A
        payment.A: not yet
        > B
        payment.B: ok
        payment.A attempt 2: ok
        = running
          payment.A: done, 2 attempts
          payment.B: done
    "#]],
    );
    // One that is away blocks only itself.
    check(
        "with order.Noted; away payment; OrderCreated; Noted; back payment",
        expect![[r#"
        > away payment
        > OrderCreated
        order.OrderCreated: ok
        > Noted
        order.Noted: ok
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
          order.Noted: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
}

#[test]
fn rule_12_dead_letters_and_policies() {
    check(
        "with payment.OrderCreated skip; payment invalid BAD; OrderCreated; redrive payment",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        > redrive payment
        answer: payment handles OrderCreated again
        letter outside/OrderCreated|payment closed: redriven by ann
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
    check(
        "with payment.OrderCreated block; payment invalid BAD; OrderCreated; wait 20m; redrive payment",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        > wait 20m
        nothing: nothing is due
        > redrive payment
        answer: payment handles OrderCreated again
        letter outside/OrderCreated|payment closed: redriven by ann
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
    check(
        "with payment.OrderCreated block; payment invalid BAD; payment invalid BAD; OrderCreated; redrive payment; retry",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        > redrive payment
        answer: payment handles OrderCreated again
        letter outside/OrderCreated|payment closed: redriven by ann
        payment.OrderCreated attempt 2: invalid BAD
        letter payment.OrderCreated BAD
        > retry
        answer: it is tried again
        letter outside/OrderCreated|payment closed: retried by ann
        payment.OrderCreated attempt 3: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done, 3 attempts
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
    check(
        "with payment.OrderCreated block; payment invalid BAD; OrderCreated; resolve accept",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        > resolve accept
        answer: accepted as it is
        = running
          order.OrderCreated: done
          payment.OrderCreated: given-up
          open letter: BAD
    "#]],
    );
    check(
        "with payment.OrderCreated block; payment invalid BAD; OrderCreated; resolve undone",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        > resolve undone
        answer: taken as undone
        publish SagaFailed {"app":"shop","code":"operator","detail":"undone by hand by ann: because","participant":null,"saga":"o-1"}
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: undone-by-hand
          cause: operator (undone by hand by ann: because)
          open letter: BAD
    "#]],
    );
    check(
        "with payment.OrderCreated block; payment invalid BAD; OrderCreated; cancel; discard; discard",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        > discard
        answer: discarded
        letter outside/OrderCreated|payment closed: discarded by ann: because
        > discard
        answer: no, no open dead letter outside/OrderCreated|payment
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: cancelled (by ann: because)
    "#]],
    );
    check(
        "with payment.OrderCreated skip; payment invalid BAD; OrderCreated; redrive cook",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: invalid BAD
        letter payment.OrderCreated BAD
        > redrive cook
        answer: no, no participant cook
        = running
          order.OrderCreated: done
          payment.OrderCreated: given-up
          open letter: BAD
    "#]],
    );
}

#[test]
fn rule_13_known_ids_spill() {
    let world =
        play("with inline-max 4; with only payment; with payment.A; A; A#2; A#3; A#4; A#5; A#6; A; A#5; A=other");
    assert!(world.saga.has_spilled() && world.saga.spilled_history() > 0);
    assert!(world.saga.history().len() <= 4);
    assert_eq!(world.made.len(), 6);
    expect![[r#"
        > A
        nothing: the event is known
        > A#5
        nothing: the event is known
        > A=other
        letter A event-id-reused"#]]
    .assert_eq(&world.log[world.log.len() - 6..].join("\n"));
    let wake = world.saga.wake(&world.topology);
    assert_eq!(wake.remove_at, None, "an open letter keeps its saga");
}

#[test]
fn rule_13_tombstones_go_after_the_retention() {
    let day = 24 * 3600 * 1000;
    for (script, days) in [("OrderCreated", Some(7)), ("cancel", Some(7)), ("OrderCreated; OrderCreated#2", None)] {
        let world = play(script);
        assert_eq!(world.saga.wake(&world.topology).remove_at.map(|at| (at.0 - 1000) / day), days, "{script}");
    }
    let world = play("with only payment; OrderCreated");
    assert_eq!(world.saga.wake(&world.topology).remove_at, None, "a step that can be undone keeps its saga");
}

#[test]
fn rule_14_15_compensation_across_apps() {
    // The default is `running`: what compensation emits starts nothing.
    check(
        "with inventory.PaymentRefunded; inventory rejects EMPTY; OrderCreated",
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
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          inventory.PaymentProcessed: rejected
          cause: rejected (EMPTY: as told)
    "#]],
    );
    check(
        "with member mailer OrderCancelled compensating; with member pager OrderCancelled both; inventory rejects EMPTY; OrderCreated",
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
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        mailer.OrderCancelled: ok
        pager.OrderCancelled: ok
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          inventory.PaymentProcessed: rejected
          mailer.OrderCancelled: done
          pager.OrderCancelled: done
          cause: rejected (EMPTY: as told)
    "#]],
    );
    check(
        "with member mailer OrderCancelled compensating; mailer always crashes; inventory rejects EMPTY; OrderCreated; wait 1s; wait 1s",
        expect![[r#"
        > mailer always crashes
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: rejects EMPTY
        publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
        publish InventoryRejected
        undo payment.OrderCreated (done): ok
        publish PaymentRefunded
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        mailer.OrderCancelled: crashes
        > wait 1s
        mailer.OrderCancelled attempt 2: crashes
        > wait 1s
        mailer.OrderCancelled attempt 3: crashes
        letter mailer.OrderCancelled trap
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          inventory.PaymentProcessed: rejected
          mailer.OrderCancelled: given-up, 3 attempts
          cause: rejected (EMPTY: as told)
          open letter: trap
    "#]],
    );
    check(
        "with member mailer OrderCreated compensating; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
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
    check(
        "with order compensate-on PaymentFailed; payment rejects DECLINED; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: rejected
          cause: rejected (DECLINED: as told)
    "#]],
    );
    check(
        "with only order; with order compensate-on PaymentFailed; OrderCreated; PaymentFailed",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        > PaymentFailed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          cause: failure-event (PaymentFailed: outside/PaymentFailed)
    "#]],
    );
}

#[test]
fn rule_16_explosion() {
    check(
        "with only payment; OrderCreated hops 33; OrderCreated#2; redrive payment",
        expect![[r#"
        > OrderCreated hops 33
        letter payment.OrderCreated hop-limit
        > OrderCreated#2
        payment.OrderCreated: ok
        publish PaymentProcessed
        > redrive payment
        answer: payment handles OrderCreated again
        letter outside/OrderCreated|payment closed: redriven by ann
        payment.OrderCreated: ok
        publish PaymentProcessed
        = running
          payment.OrderCreated: done
          payment.OrderCreated: done
    "#]],
    );
    check(
        "with only payment; with hops-max 2; with payment.OrderCreated emits Echo; with payment.Echo; with payment.Echo emits Echo; OrderCreated; cancel",
        expect![[r#"
            > OrderCreated
            payment.OrderCreated: ok
            publish PaymentProcessed
            publish Echo
            payment.Echo: ok
            publish Echo
            payment.Echo: ok
            publish Echo
            letter payment.Echo hop-limit
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            undo payment.Echo (done): ok
            publish PaymentRefunded
            undo payment.Echo (done): ok
            publish PaymentRefunded
            undo payment.OrderCreated (done): ok
            publish PaymentRefunded
            = compensated
              payment.OrderCreated: compensated
              payment.Echo: compensated
              payment.Echo: compensated
              cause: cancelled (by ann: because)
              open letter: hop-limit
        "#]],
    );
    check(
        "with only payment; with steps-max 1; with payment.A; A; A#2; resolve accept",
        expect![[r#"
        > A
        payment.A: ok
        > A#2
        letter payment.A too-many-steps
        > resolve accept
        answer: accepted as it is
        = running
          payment.A: done
          open letter: too-many-steps
    "#]],
    );
    check(
        "with only payment; with data-max 30; with payment.A; A; A#2; A#3; resolve accept",
        expect![[r#"
            > A
            payment.A: ok
            > A#2
            letter payment.A too-many-bytes
            > A#3
            kept aside A too-many-bytes
            nothing: the saga has no room for it
            > resolve accept
            answer: accepted as it is
            = running
              payment.A: done
              open letter: too-many-bytes
        "#]],
    );
    check(
        "with only payment; with steps-max 1; with payment.A; with payment.B; A; A#2; A#3; A#3; B; A; resolve accept; A#4",
        expect![[r#"
            > A
            payment.A: ok
            > A#2
            letter payment.A too-many-steps
            > A#3
            kept aside A too-many-steps
            nothing: the saga has no room for it
            > A#3
            kept aside A too-many-steps
            nothing: the saga has no room for it
            > B
            kept aside B too-many-steps
            nothing: the saga has no room for it
            > A
            nothing: the event is known
            > resolve accept
            answer: accepted as it is
            > A#4
            letter payment.A too-many-steps
            = needs-operator
              payment.A: done
              open letter: too-many-steps
              sagahost dead-letters redrive 'outside/A#4|payment' --participant payment  # too-many-steps: too-many-steps: more than 1 steps in one saga
        "#]],
    );
    check(
        "with only payment; with events-max 1; with payment.A; A; A#2",
        expect![[r#"
        > A
        payment.A: ok
        > A#2
        letter payment.A too-many-events
        = needs-operator
          payment.A: done
          open letter: too-many-events
          sagahost dead-letters redrive 'outside/A#2|payment' --participant payment  # too-many-events: too-many-events: more than 1 events in one saga
    "#]],
    );
    check(
        "with payment.OrderCreated emits One; with payment.OrderCreated emits Two; with emissions-max 2; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        letter payment.OrderCreated too-many-emissions
        publish SagaFailed {"app":"shop","code":"too-many-emissions","detail":"3 events in one outcome","participant":"payment","saga":"o-1"}
        undo payment.OrderCreated (never-ran): ok
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: nothing-to-undo
          cause: invalid (too-many-emissions: 3 events in one outcome)
          open letter: too-many-emissions
    "#]],
    );
    // An event for another saga is never fused.
    check(
        "with payment.OrderCreated emits OrderCreated for o-2; OrderCreated",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            publish OrderCreated for o-2
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
}

#[test]
fn rule_10_commands_without_anything_to_do() {
    check(
        "OrderCreated; retry; resolve accept",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > retry
        answer: no, nothing is stuck, blocked or waiting for a retry
        > resolve accept
        answer: no, nothing here waits to be resolved
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
    check(
        "retry",
        expect![[r#"
        > retry
        answer: no, nothing is stuck, blocked or waiting for a retry
        = waiting
    "#]],
    );
}

/// Answers go where the saga's records came from, those about another saga do not.
#[test]
fn events_have_the_key_of_their_saga_s_records() {
    for answers in ["", "payment rejects DECLINED; "] {
        let mut world = play(answers);
        let other = Emission { saga: Some("o-2".into()), ..emission("Noted") };
        world.extra.push(("order".into(), "OrderCreated".into(), other));
        let mut first = event("OrderCreated", "e-1", "{}");
        first.record_key = Some([0, 42][..].into());
        world.receive(first);
        assert!(world.published.len() > 1, "{:?}", world.published);
        for event in &world.published {
            let own = event.saga.as_str() == "o-1";
            assert_eq!(event.record_key.as_deref(), own.then_some(&[0, 42][..]), "{event:?}");
        }
    }
}

/// Nothing left the host: that is not an attempt. What the step's deadline bounds is still bounded.
#[test]
fn unsent_costs_no_attempt() {
    check(
        "with payment outside; with payment.OrderCreated attempts 2; payment always unsent AWAY
         OrderCreated; wait 1s; wait 1s; wait 1s; payment never; wait 1s",
        expect![[r#"
            > payment always unsent AWAY
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: unsent AWAY
            > wait 1s
            payment.OrderCreated attempt 2: journaled first
            payment.OrderCreated attempt 2: unsent AWAY
            > wait 1s
            payment.OrderCreated attempt 3: journaled first
            payment.OrderCreated attempt 3: unsent AWAY
            > wait 1s
            payment.OrderCreated attempt 4: journaled first
            payment.OrderCreated attempt 4: unsent AWAY
            > payment never
            > wait 1s
            payment.OrderCreated attempt 5: journaled first
            payment.OrderCreated attempt 5: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: ok
            publish InventoryUpdated
            order.InventoryUpdated: ok
            publish OrderCompleted
            = completed
              order.OrderCreated: done
              payment.OrderCreated: done, 5 attempts
              inventory.PaymentProcessed: done
              order.InventoryUpdated: done
        "#]],
    );
    check(
        "with payment outside; with payment.OrderCreated deadline 3s; payment always unsent AWAY; OrderCreated; wait 4s",
        expect![[r#"
            > payment always unsent AWAY
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: unsent AWAY
            > wait 4s
            letter payment.OrderCreated step-deadline
            publish SagaFailed {"app":"shop","code":"step-deadline","detail":"no attempt succeeded in time","participant":"payment","saga":"o-1"}
            undo payment.OrderCreated (never-ran): journaled first
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
    check(
        "with payment outside; payment always undo unsent AWAY; inventory rejects EMPTY; OrderCreated
         wait 1s; wait 1s; wait 1s; payment never; wait 1s",
        expect![[r#"
            > payment always undo unsent AWAY
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: rejects EMPTY
            publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
            publish InventoryRejected
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): unsent AWAY
            > wait 1s
            undo payment.OrderCreated (done) attempt 2: journaled first
            undo payment.OrderCreated (done) attempt 2: unsent AWAY
            > wait 1s
            undo payment.OrderCreated (done) attempt 3: journaled first
            undo payment.OrderCreated (done) attempt 3: unsent AWAY
            > wait 1s
            undo payment.OrderCreated (done) attempt 4: journaled first
            undo payment.OrderCreated (done) attempt 4: unsent AWAY
            > payment never
            > wait 1s
            undo payment.OrderCreated (done) attempt 5: journaled first
            undo payment.OrderCreated (done) attempt 5: ok
            publish PaymentRefunded
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              inventory.PaymentProcessed: rejected
              cause: rejected (EMPTY: as told)
        "#]],
    );
}

/// Whether an undoing that was out went through is not known: it is begun again at once, as another attempt under the
/// same key. Three times in a row count as one that failed.
#[test]
fn interrupted_undoing() {
    check(
        "with payment outside; payment undo hangs; payment undo hangs; inventory rejects EMPTY; OrderCreated; crash; crash",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: rejects EMPTY
            publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
            publish InventoryRejected
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): is out
            > crash
            undo payment.OrderCreated (done) attempt 2: journaled first
            undo payment.OrderCreated (done) attempt 2: is out
            > crash
            undo payment.OrderCreated (done) attempt 3: journaled first
            undo payment.OrderCreated (done) attempt 3: ok
            publish PaymentRefunded
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              inventory.PaymentProcessed: rejected
              cause: rejected (EMPTY: as told)
        "#]],
    );
    check(
        "with payment outside; payment undo hangs; payment undo hangs; payment undo hangs; inventory rejects EMPTY
         OrderCreated; crash; crash; crash; wait 1s",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: journaled first
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: rejects EMPTY
            publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
            publish InventoryRejected
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): is out
            > crash
            undo payment.OrderCreated (done) attempt 2: journaled first
            undo payment.OrderCreated (done) attempt 2: is out
            > crash
            undo payment.OrderCreated (done) attempt 3: journaled first
            undo payment.OrderCreated (done) attempt 3: is out
            > crash
            > wait 1s
            undo payment.OrderCreated (done) attempt 4: journaled first
            undo payment.OrderCreated (done) attempt 4: ok
            publish PaymentRefunded
            undo order.OrderCreated (done): ok
            publish OrderCancelled
            = compensated
              order.OrderCreated: compensated
              payment.OrderCreated: compensated
              inventory.PaymentProcessed: rejected
              cause: rejected (EMPTY: as told)
        "#]],
    );
}

/// The data of a saga's events is written with each change of it.
#[test]
fn mutation_data_without_bound() {
    let refused = || {
        let world = play("with only payment; with data-max 30; with payment.A; A; A#2; A#3");
        world.log.iter().any(|line| line.contains("too-many-bytes"))
    };
    assert!(refused());
    assert!(!mutation::with(Mutation::DataWithoutBound, refused));
}

#[test]
fn rule_17_a_request_begins_a_saga_once() {
    check(
        "request OrderCreated; request OrderCreated; request OrderCreated=other; request OrderCreated#2",
        expect![[r#"
        > request OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > request OrderCreated
        nothing: the event is known
        > request OrderCreated=other
        nothing: other-data
        > request OrderCreated#2
        nothing: saga-exists
        = completed
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
}

#[test]
fn rule_17_a_request_behind_a_cancel_is_called_off() {
    check(
        "cancel; request OrderCreated",
        expect![[r#"
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > request OrderCreated
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
        "payment rejects NO; request OrderCreated; request OrderCreated#2",
        expect![[r#"
        > request OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: rejects NO
        publish SagaFailed {"app":"shop","code":"NO","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        > request OrderCreated#2
        nothing: saga-exists
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: rejected
          cause: rejected (NO: as told)
    "#]],
    );
}

#[test]
fn rule_17_other_events_do_not_keep_a_request_out() {
    check(
        "with inventory.PaymentProcessed after Noted; PaymentProcessed; request OrderCreated",
        expect![[r#"
        > PaymentProcessed
        > request OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        = running
          inventory.PaymentProcessed: early
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: early
    "#]],
    );
}

#[test]
fn rule_17_a_step_that_is_asked_for_is_one_participants() {
    check(
        "request OrderCreated payment; request OrderCreated#2 order; request StockCounted payment",
        expect![[r#"
        > request OrderCreated payment
        payment.OrderCreated: ok
        answer OrderCreated: PaymentProcessed
        > request OrderCreated#2 order
        order.OrderCreated: ok
        > request StockCounted payment
        nothing: no participant acts on this kind
        = running
          payment.OrderCreated: done
          order.OrderCreated: done
    "#]],
    );
    check(
        "with payment.OrderCreated emits PaymentNoted after 5s; request OrderCreated payment; cancel",
        expect![[r#"
        > request OrderCreated payment
        payment.OrderCreated: ok
        answer OrderCreated: PaymentProcessed
        answer OrderCreated: PaymentNoted
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        undo payment.OrderCreated (done): ok
        answer OrderCreated of its undoing: PaymentRefunded
        = compensated
          payment.OrderCreated: compensated
          cause: cancelled (by ann: because)
    "#]],
    );
    check(
        "payment rejects NO; request OrderCreated payment; request OrderCreated#2 payment",
        expect![[r#"
        > request OrderCreated payment
        payment.OrderCreated: rejects NO
        publish SagaFailed {"app":"shop","code":"NO","detail":"as told","participant":"payment","saga":"o-1"}
        answer OrderCreated: PaymentFailed
        > request OrderCreated#2 payment
        nothing: saga-over
        = compensated
          payment.OrderCreated: rejected
          cause: rejected (NO: as told)
    "#]],
    );
}

#[test]
fn rule_17_a_step_is_asked_for_behind_a_cancel() {
    check(
        "cancel; request OrderCreated payment; request OrderCreated payment; request PaymentProcessed inventory",
        expect![[r#"
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > request OrderCreated payment
        undo payment.OrderCreated (never-ran): ok
        > request OrderCreated payment
        nothing: the event is known
        > request PaymentProcessed inventory
        undo inventory.PaymentProcessed (never-ran): ok
        = compensated
          payment.OrderCreated: nothing-to-undo
          inventory.PaymentProcessed: nothing-to-undo
          cause: cancelled (by ann: because)
          late: 2
    "#]],
    );
}

#[test]
fn rule_17_what_ends_a_participants_part_can_be_asked() {
    check(
        "with only payment; request OrderCreated payment; request OrderCompleted payment; request OrderCreated#2 payment",
        expect![[r#"
        > request OrderCreated payment
        payment.OrderCreated: ok
        answer OrderCreated: PaymentProcessed
        > request OrderCompleted payment
        > request OrderCreated#2 payment
        nothing: saga-over
        = completed
          payment.OrderCreated: done, released
    "#]],
    );
}

#[test]
fn rule_17_a_full_saga_refuses() {
    check(
        "with steps-max 1; request OrderCreated",
        expect![[r#"
        > request OrderCreated
        nothing: no-room
        = waiting
    "#]],
    );
    check(
        "with steps-max 2; request OrderCreated",
        expect![[r#"
        > request OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        letter inventory.PaymentProcessed too-many-steps
        = needs-operator
          order.OrderCreated: done
          payment.OrderCreated: done
          open letter: too-many-steps
          sagahost dead-letters redrive 'sagahost/shop/payment/6186220c3188522e148465fbb737f733|inventory' --participant inventory  # too-many-steps: too-many-steps: more than 2 steps in one saga
    "#]],
    );
}

#[test]
fn rule_10_a_compensation_that_failed_is_a_dead_letter() {
    check(
        "payment undo stuck NO; inventory rejects EMPTY; OrderCreated; redrive payment",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: rejects EMPTY
        publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
        publish InventoryRejected
        undo payment.OrderCreated (done): stuck NO
        letter payment.OrderCreated compensation-failed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        > redrive payment
        answer: payment undoes OrderCreated again
        letter outside/OrderCreated|payment/undo closed: redriven by ann
        undo payment.OrderCreated (done) attempt 2: ok
        publish PaymentRefunded
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          inventory.PaymentProcessed: rejected
          cause: rejected (EMPTY: as told)
    "#]],
    );
    check(
        "payment undo stuck NO; inventory rejects EMPTY; OrderCreated; resolve undone payment",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: rejects EMPTY
        publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
        publish InventoryRejected
        undo payment.OrderCreated (done): stuck NO
        letter payment.OrderCreated compensation-failed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        > resolve undone payment
        answer: taken as undone
        letter outside/OrderCreated|payment/undo closed: resolved by ann: because
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: undone-by-hand
          inventory.PaymentProcessed: rejected
          cause: rejected (EMPTY: as told)
    "#]],
    );
    check(
        "payment undo stuck NO; inventory rejects EMPTY; OrderCreated; discard; retry",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: rejects EMPTY
        publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
        publish InventoryRejected
        undo payment.OrderCreated (done): stuck NO
        letter payment.OrderCreated compensation-failed
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        > discard
        answer: discarded; the saga still waits
        letter outside/OrderCreated|payment/undo closed: discarded by ann: because
        > retry
        answer: it is tried again
        undo payment.OrderCreated (done) attempt 2: ok
        publish PaymentRefunded
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          inventory.PaymentProcessed: rejected
          cause: rejected (EMPTY: as told)
    "#]],
    );
}

/// How long it may take is for whoever asked to say; an event that is this app's own business begins the time.
#[test]
fn rule_17_what_was_asked_for_has_no_deadline_here() {
    check(
        "request OrderCreated payment; wait 3600s",
        expect![[r#"
        > request OrderCreated payment
        payment.OrderCreated: ok
        answer OrderCreated: PaymentProcessed
        > wait 3600s
        nothing: nothing is due
        = running
          payment.OrderCreated: done
    "#]],
    );
    check(
        "request OrderCreated payment; wait 3600s; request OrderCreated#2 order; OrderCreated#3; wait 800s; wait 200s",
        expect![[r#"
        > request OrderCreated payment
        payment.OrderCreated: ok
        answer OrderCreated: PaymentProcessed
        > wait 3600s
        nothing: nothing is due
        > request OrderCreated#2 order
        order.OrderCreated: ok
        > OrderCreated#3
        order.OrderCreated: ok
        payment.OrderCreated: ok
        publish PaymentProcessed
        inventory.PaymentProcessed: ok
        publish InventoryUpdated
        order.InventoryUpdated: ok
        publish OrderCompleted
        > wait 800s
        nothing: nothing is due
        > wait 200s
        nothing: nothing is due
        = completed
          payment.OrderCreated: done
          order.OrderCreated: done
          order.OrderCreated: done
          payment.OrderCreated: done
          inventory.PaymentProcessed: done
          order.InventoryUpdated: done
    "#]],
    );
}

#[test]
fn rule_17_a_request_that_nobody_acts_on_is_refused() {
    check(
        "with inventory.PaymentProcessed nothing-to-undo; cancel; request PaymentProcessed inventory",
        expect![[r#"
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            > request PaymentProcessed inventory
            nothing: saga-over
            = waiting
              cause: cancelled (by ann: because)
        "#]],
    );
    check(
        "with only inventory; with inventory.PaymentProcessed nothing-to-undo; cancel; request PaymentProcessed; PaymentProcessed",
        expect![[r#"
            > cancel
            answer: the saga is cancelled
            publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
            > request PaymentProcessed
            nothing: saga-over
            > PaymentProcessed
            = waiting
              cause: cancelled (by ann: because)
        "#]],
    );
    check(
        "with member mailer Noted compensating; request Noted mailer; request Noted",
        expect![[r#"
        > request Noted mailer
        nothing: not-compensating
        > request Noted
        nothing: not-compensating
        = waiting
    "#]],
    );
    check(
        "with only payment; cancel; request OrderCompleted payment",
        expect![[r#"
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > request OrderCompleted payment
        nothing: saga-over
        = waiting
          cause: cancelled (by ann: because)
    "#]],
    );
}

/// What ends one participant's part, or makes it fail, is said to that one.
#[test]
fn rule_17_what_is_asked_of_one_is_no_others_business() {
    check(
        "with inventory finish-on OrderCompleted; request OrderCreated payment; request PaymentProcessed inventory; \
         request OrderCompleted inventory",
        expect![[r#"
            > request OrderCreated payment
            payment.OrderCreated: ok
            answer OrderCreated: PaymentProcessed
            > request PaymentProcessed inventory
            inventory.PaymentProcessed: ok
            answer PaymentProcessed: InventoryUpdated
            > request OrderCompleted inventory
            = running
              payment.OrderCreated: done
              inventory.PaymentProcessed: done, released
        "#]],
    );
    check(
        "with payment compensate-on StockCounted; with inventory.StockCounted; request OrderCreated payment; request StockCounted inventory; request StockCounted payment",
        expect![[r#"
            > request OrderCreated payment
            payment.OrderCreated: ok
            answer OrderCreated: PaymentProcessed
            > request StockCounted inventory
            inventory.StockCounted: ok
            > request StockCounted payment
            nothing: the event is known
            = running
              payment.OrderCreated: done
              inventory.StockCounted: done
        "#]],
    );
}

#[test]
fn rule_17_a_bound_holds_for_what_is_asked() {
    let mut world = play("with inventory finish-on OrderCompleted; request OrderCreated payment");
    world.topology.bounds.events_per_saga_max = 3;
    play_on(
        &mut world,
        "request OrderCompleted inventory; request OrderCompleted#2 inventory; request OrderCompleted#3 inventory",
    );
    expect![[r#"
        > request OrderCreated payment
        payment.OrderCreated: ok
        answer OrderCreated: PaymentProcessed
        > request OrderCompleted inventory
        > request OrderCompleted#2 inventory
        > request OrderCompleted#3 inventory
        nothing: no-room
        = running
          payment.OrderCreated: done
    "#]]
    .assert_eq(&world.report());
}

/// It stays so when the saga fails for it, and another step of that kind does not count.
#[test]
fn a_step_that_is_invalid_says_so() {
    let invalid = |script: &str| -> Vec<_> {
        let world = play(script);
        world.saga.steps().map(|step| (step.event.id.to_string(), step.invalid, step.state)).collect()
    };
    let of = |id: &str, invalid, state| (id.to_owned(), invalid, state);
    assert_eq!(
        invalid("payment invalid BAD; request OrderCreated payment"),
        [of("OrderCreated", true, StepState::NothingToUndo)]
    );
    assert_eq!(
        invalid(
            "with payment.OrderCreated skip; payment crashes; payment crashes; payment crashes; payment invalid BAD; request OrderCreated payment; wait 3600s; wait 3600s; wait 3600s; wait 3600s; request OrderCreated#2 payment"
        ),
        [of("OrderCreated", false, StepState::GivenUp), of("OrderCreated#2", true, StepState::GivenUp)]
    );
}
