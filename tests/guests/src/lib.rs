//! One participant, `hostile`, that does every wrong thing that a guest can do: the configuration keys `fault` and
//! `undo-fault`, or the fields `fault` and `undoFault` of the event (they win), say which. Invariant: with no fault it is
//! an ordinary participant, so that a test can show what the fault left undisturbed.
//!
//! The faults are the arms of [`faults::run`] and [`faults::undo`].

mod faults;

use sagahost_sdk::prelude::*;

/// Asks for a fault, or for none.
#[event(example = {"id": "h-1", "fault": "none"})]
#[derive(Default)]
pub struct HostileTried {
    /// Comes back in the answers.
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub fault: Option<String>,
    #[serde(default)]
    pub undo_fault: Option<String>,
}

/// Waits for the step of a [`HostileTried`] (`after`).
#[event(example = {"id": "h-1"})]
pub struct HostileFollowed {
    #[serde(default)]
    pub id: String,
}

/// It went well.
#[event]
pub struct HostileDone {
    pub id: String,
    pub attempt: u32,
}

/// A rejection says so.
#[event]
pub struct HostileRefused {
    pub id: String,
}

/// Undone.
#[event]
pub struct HostileUndone {
    pub id: String,
    pub attempt: u32,
}

/// What the guest was told, for a test of what it can know.
#[event]
pub struct HostileEcho {
    pub id: String,
    pub attempt: u32,
    pub step_id: String,
    pub idempotency_key: String,
    pub now_ms: u64,
    pub budget_ms: u32,
    pub seed: Vec<u8>,
    pub made_id: String,
    pub event_id: String,
    pub source: String,
    pub time_ms: u64,
    pub attributes: Vec<(String, String)>,
    pub state: Option<String>,
    /// Of the counter `tokens`.
    pub tokens: Option<i64>,
}

/// What an undo needs: the token that was taken, and how to go wrong.
#[data]
pub struct Taken {
    pub undo_fault: String,
    /// Weight, for undo data over the limit.
    #[serde(default)]
    pub ballast: String,
}

#[derive(Config)]
pub struct Hostile {
    /// What `HostileTried` does where the event does not say.
    #[config(default = "none")]
    fault: String,
    /// What its compensation does where the event does not say.
    #[config(default = "none")]
    undo_fault: String,
    /// Tokens that there are; each step takes one, its undo gives it back.
    #[config(default = 1_000_000)]
    opening_tokens: i64,
}

#[participant(
    name = "hostile",
    emits = [HostileDone, HostileRefused, HostileUndone, HostileEcho],
    starts = [HostileTried],
    compensate_on = ["HostileFailed"],
    finish_on = ["HostileFinished"]
)]
impl Hostile {
    #[on(HostileTried)]
    fn attempt(&self, ctx: &Context, tried: HostileTried) -> Handled<Taken> {
        ctx.counter("tokens").ensure(self.opening_tokens).take(1).or_reject("NO_TOKENS", "all tokens are taken")?;
        ctx.store().put("last", &tried.id);
        let fault = tried.fault.as_deref().unwrap_or(&self.fault);
        let undo_fault = tried.undo_fault.as_deref().unwrap_or(&self.undo_fault);
        let taken = Taken { undo_fault: undo_fault.to_owned(), ballast: String::new() };
        faults::run(fault, ctx, &tried, taken)
    }

    #[undo(HostileTried)]
    fn give_back(&self, ctx: &Context, step: Step<HostileTried, Taken>) -> Compensated {
        let undo_fault = match &step.evidence {
            Evidence::Done(taken) => {
                ctx.counter("tokens").give(1);
                taken.undo_fault.clone()
            }
            Evidence::Uncertain | Evidence::NeverRan => {
                step.event.undo_fault.clone().unwrap_or_else(|| self.undo_fault.clone())
            }
        };
        faults::undo(&undo_fault, ctx, &step)
    }

    #[on(HostileFollowed, role = nothing_to_undo, after = [HostileTried])]
    fn follow(&self, ctx: &Context, followed: HostileFollowed) -> Handled {
        Ok(Done::nothing_to_undo().emit(HostileDone { id: followed.id, attempt: ctx.attempt() }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sagahost_testkit::MockHost;

    use super::*;

    fn tried(fault: &str, undo_fault: &str) -> HostileTried {
        HostileTried { id: "h-1".into(), fault: Some(fault.into()), undo_fault: Some(undo_fault.into()) }
    }

    #[test]
    fn without_a_fault_it_is_ordinary() {
        let mut host = MockHost::native::<Hostile>();
        host.config("opening-tokens", 1);
        host.saga("h-1").send(HostileTried::default()).completed().emitted_kinds(&["HostileDone"]);
        host.saga("h-2").send(HostileTried::default()).rejected("NO_TOKENS");
        host.compensate("h-1").undone().emitted_kinds(&["HostileUndone"]);
        assert_eq!(host.counter_value("tokens"), 1);
    }

    #[test]
    fn a_fault_of_the_configuration_gives_way_to_that_of_the_event() {
        let mut host = MockHost::native::<Hostile>();
        host.config("fault", "retry");
        host.saga("h-1").send(HostileTried::default()).retried("HOSTILE");
        host.saga("h-2").send(tried("none", "none")).completed();
    }

    #[test]
    fn faults_that_answer() {
        let mut host = MockHost::native::<Hostile>();
        host.saga("h-1").send(tried("retry", "")).retried("HOSTILE");
        host.saga("h-2").send(tried("not-yet", "")).not_yet("HOSTILE");
        host.saga("h-3").send(tried("reject", "")).rejected("HOSTILE").emitted_kinds(&["HostileRefused"]);
        host.saga("h-4").send(tried("no such fault", "")).invalid("UNKNOWN_FAULT");
        host.counter("tokens", 7).saga("h-5").send(tried("retry-until:3", "")).retried("HOSTILE");
        assert_eq!(host.counter_value("tokens"), 7);
        host.advance(Duration::from_secs(60)).retried("HOSTILE");
        assert_eq!(host.counter_value("tokens"), 6);
    }

    #[test]
    fn faults_of_the_compensation() {
        let mut host = MockHost::native::<Hostile>();
        host.saga("h-1").send(tried("none", "stuck")).completed();
        host.compensate("h-1").stuck("HOSTILE");
        host.saga("h-1").needs_operator();
        host.saga("h-2").send(tried("none", "retry-until:2")).completed();
        host.compensate("h-2").retried("HOSTILE");
        host.advance(Duration::from_secs(1)).undone();
        host.compensate("h-3");
        host.saga("h-3").send(tried("none", "nothing-to-undo")).nothing_to_undo();
    }

    /// Each call of the host by itself is within the limits.
    #[test]
    fn what_one_call_makes_the_host_hold_is_bounded_in_all_ways() {
        let mut host = MockHost::native::<Hostile>();
        for turn in 0..3 {
            host.saga(&format!("fill-{turn}")).send(tried(&format!("fill:{turn}"), "none")).completed();
        }
        for fault in ["put-values", "get-values", "scan-values", "scan-again", "config-again"] {
            let words =
                "call-limit: it read, wrote, logged or returned more than 16777216 bytes in one call (call-bytes-max)";
            host.saga(fault).send(tried(fault, "none")).trapped(words).emitted_nothing();
        }
        host.saga("many-counters").send(tried("many-counters", "none")).completed();
    }

    /// A page that is cut by its bytes is no end.
    #[test]
    fn pages_of_large_values_are_short_and_together_what_there_is() {
        let mut host = MockHost::native::<Hostile>();
        host.saga("h-1").send(tried("fill:0", "none")).completed();
        host.saga("h-2").send(tried("count:40", "none")).completed();
    }

    #[test]
    fn promises_that_are_broken_are_refused_in_the_words_of_the_host() {
        let mut host = MockHost::native::<Hostile>();
        let mut refused = |fault: &str, words: &str| {
            host.saga(fault).send(tried(fault, "none")).trapped(words).emitted_nothing();
        };
        refused("unknown-kind", "its manifest does not name HostileUnheardOf in `emits`");
        refused("invalid-json", "emitted event 0 (HostileDone) claims to be JSON and is not");
        refused("panic", "it panicked: hostile: a panic on purpose, in attempt 1 (");
        refused("guest-error", "guest-error: hostile: an error that nobody caught");
        refused("finishes", "it finished the saga, but its manifest does not say `finishes`");
        refused("missing-counter", "counters.take: counter \"no-such-counter\" does not exist; call ensure first");
        refused("counter-overflow", "would overflow by");
        refused("large-payload", "are allowed (payload-bytes-max)");
        refused("large-undo", "the undo data: ");
        refused("large-outcome", "are allowed (outcome-bytes-max)");
        refused("large-store", "the value has ");
        refused("long-key", "the key has ");
        refused("many-keys", "store-limit: it made more than 1000 calls of store and counters (store-ops-max)");
        refused("log-flood", "log-limit: it logged more than 200 lines (log-lines-max)");
        refused("reserved-attribute", "the host writes the CloudEvents headers itself");
    }
}
