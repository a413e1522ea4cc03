//! Requests of plugins (SEMANTICS.md, rule 18): `sends` stops an attempt at one, the next answer says what became of it, and the
//! one after that what the attempt made of it.

use expect_test::expect;

use super::script::check;

#[test]
fn an_attempt_goes_on_with_what_came_back() {
    check(
        "payment sends; payment ok; payment sends; payment ok; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: request 1 came back
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: request 2 came back
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
}

#[test]
fn a_no_behind_a_request_that_left_is_looked_into() {
    check(
        "payment sends; payment ok; payment rejects DECLINED; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: request 1 came back
        payment.OrderCreated: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo payment.OrderCreated (uncertain): ok
        publish PaymentRefunded
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          cause: rejected (DECLINED: as told)
    "#]],
    );
    // The request of the first attempt may have had its effect, whatever the second one says.
    check(
        "payment sends; payment ok; payment retries BUSY; payment rejects DECLINED; OrderCreated; wait 1s",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: request 1 came back
        payment.OrderCreated: retries BUSY
        > wait 1s
        payment.OrderCreated attempt 2: rejects DECLINED
        publish SagaFailed {"app":"shop","code":"DECLINED","detail":"as told","participant":"payment","saga":"o-1"}
        publish PaymentFailed
        undo payment.OrderCreated (uncertain): ok
        publish PaymentRefunded
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated, 2 attempts
          cause: rejected (DECLINED: as told)
    "#]],
    );
}

#[test]
fn a_no_without_a_request_that_left_is_believed() {
    check(
        "payment sends; payment unsent AWAY; payment rejects DECLINED; OrderCreated",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: request 1 stayed
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
    // Nobody could look: what cannot be taken back has the last word of its plugin.
    check(
        "with payment.OrderCreated pivot; payment sends; payment ok; payment rejects DECLINED; OrderCreated",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: sends
            payment.OrderCreated: journaled first
            payment.OrderCreated: request 1 came back
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
}

#[test]
fn behind_the_fence_nothing_more_leaves() {
    // What was answered is heard, and its success is undone.
    check(
        "payment sends; payment hangs; OrderCreated; cancel; return payment ok",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: is out
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > return payment ok
        payment.OrderCreated: request 1 came back
        payment.OrderCreated: ok
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
    // It would send more: that it began is all that is known.
    check(
        "payment sends; payment hangs; payment sends; OrderCreated; cancel; return payment ok",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: is out
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > return payment ok
        payment.OrderCreated: request 1 came back
        payment.OrderCreated: sends
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
        "payment sends; payment hangs; payment sends; OrderCreated; cancel; return payment unsent AWAY",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: is out
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > return payment unsent AWAY
        payment.OrderCreated: request 1 stayed
        payment.OrderCreated: sends
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
        "payment sends; payment hangs; OrderCreated; cancel; crash",
        expect![[r#"
        > OrderCreated
        order.OrderCreated: ok
        payment.OrderCreated: sends
        payment.OrderCreated: journaled first
        payment.OrderCreated: is out
        > cancel
        answer: the saga is cancelled
        publish SagaFailed {"app":"shop","code":"cancelled","detail":"by ann: because","participant":null,"saga":"o-1"}
        > crash
        undo payment.OrderCreated (uncertain): ok
        publish PaymentRefunded
        undo order.OrderCreated (done): ok
        publish OrderCancelled
        = compensated
          order.OrderCreated: compensated
          payment.OrderCreated: compensated
          cause: cancelled (by ann: because)
    "#]],
    );
}

#[test]
fn a_request_that_was_out_leaves_again_and_in_the_end_the_attempt_hears_of_it() {
    check(
        "payment sends; payment hangs; payment hangs; payment hangs; payment retries LOST; OrderCreated
         crash; crash; crash; wait 1s",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: sends
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > crash
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > crash
            payment.OrderCreated: journaled first
            payment.OrderCreated: is out
            > crash
            payment.OrderCreated: retries LOST
            > wait 1s
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
fn a_compensation_may_ask_too() {
    check(
        "inventory rejects EMPTY; payment undo sends; payment undo hangs; payment undo hangs; OrderCreated; crash; return payment ok",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: rejects EMPTY
            publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
            publish InventoryRejected
            undo payment.OrderCreated (done): sends
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): is out
            > crash
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): is out
            > return payment ok
            undo payment.OrderCreated (done): request 2 came back
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
        "inventory rejects EMPTY; payment undo sends; payment undo hangs; payment undo hangs; payment undo hangs; payment undo retries LOST
         OrderCreated; crash; crash; crash; wait 1s",
        expect![[r#"
            > OrderCreated
            order.OrderCreated: ok
            payment.OrderCreated: ok
            publish PaymentProcessed
            inventory.PaymentProcessed: rejects EMPTY
            publish SagaFailed {"app":"shop","code":"EMPTY","detail":"as told","participant":"inventory","saga":"o-1"}
            publish InventoryRejected
            undo payment.OrderCreated (done): sends
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): is out
            > crash
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): is out
            > crash
            undo payment.OrderCreated (done): journaled first
            undo payment.OrderCreated (done): is out
            > crash
            undo payment.OrderCreated (done): retries LOST
            > wait 1s
            undo payment.OrderCreated (done) attempt 2: ok
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
