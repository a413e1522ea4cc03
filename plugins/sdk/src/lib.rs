//! Write sagahost participants as plain Rust business rules. Invariant: a handler touches nothing but its
//! [`Context`] and its answer, so the same code runs in WebAssembly and in a native test.
//!
//! A participant is a struct (its configuration) with a handler for each kind of event that it cares about, and beside
//! each handler the function that undoes it. This is all of one:
//!
//! ```
//! use sagahost_sdk::prelude::*;
//!
//! /// An event that it takes; the example goes into the plugin's manifest.
//! #[event(example = {"orderId": "o-1", "customerId": "c-1", "amountCents": 1200})]
//! pub struct OrderCreated {
//!     order_id: String,
//!     customer_id: String,
//!     amount_cents: u64,
//! }
//!
//! /// Events that it emits.
//! #[event]
//! pub struct PaymentProcessed {
//!     order_id: String,
//!     payment_id: String,
//! }
//! #[event]
//! pub struct PaymentRefunded {
//!     order_id: String,
//!     payment_id: String,
//! }
//!
//! /// What the refund has to know.
//! #[data]
//! pub struct Charge {
//!     payment_id: String,
//!     balance: String,
//!     amount_cents: u64,
//! }
//!
//! /// The fields are configuration keys, here `limit-cents`.
//! #[derive(Config)]
//! pub struct Payment {
//!     /// A larger amount is declined.
//!     #[config(default = 100_000)]
//!     limit_cents: u64,
//! }
//!
//! #[participant(name = "payment", emits = [PaymentProcessed, PaymentRefunded], finish_on = ["OrderCompleted"])]
//! impl Payment {
//!     #[on(OrderCreated)]
//!     fn charge(&self, ctx: &Context, order: OrderCreated) -> Handled<Charge> {
//!         (order.amount_cents > 0).or_invalid("AMOUNT", "there is nothing to pay")?;
//!         (order.amount_cents <= self.limit_cents).or_reject("LIMIT_EXCEEDED", "the amount is above the limit")?;
//!
//!         let balance = format!("balance/{}", order.customer_id);
//!         let paid = ctx.counter(&balance).ensure(5_000).take(order.amount_cents);
//!         paid.or_reject("INSUFFICIENT", "the balance does not cover it")?;
//!
//!         let payment_id = ctx.make_id("payment");
//!         let charge = Charge { payment_id: payment_id.clone(), balance, amount_cents: order.amount_cents };
//!         Ok(Done::undo_with(charge.clone())
//!             .state(&charge)
//!             .emit(PaymentProcessed { order_id: order.order_id, payment_id })
//!             .note("customer", order.customer_id))
//!     }
//!
//!     #[undo(OrderCreated)]
//!     fn refund(&self, ctx: &Context, step: Step<OrderCreated, Charge>) -> Compensated {
//!         let charge = step.done()?;
//!         if ctx.state::<Charge>().is_none() {
//!             return Err(NotUndone::NothingToUndo); // it was refunded before
//!         }
//!         ctx.counter(&charge.balance).give(charge.amount_cents);
//!         Ok(Undone::new().delete_state().emit(PaymentRefunded {
//!             order_id: step.event.order_id.clone(),
//!             payment_id: charge.payment_id.clone(),
//!         }))
//!     }
//! }
//!
//! // Its test, native and in simulated time; `sagahost-testkit` is a dev-dependency:
//! use sagahost_testkit::MockHost;
//!
//! let mut host = MockHost::native::<Payment>();
//! let order = |id: &str, amount_cents| OrderCreated { order_id: id.into(), customer_id: "c-1".into(), amount_cents };
//!
//! host.saga_id_at("/orderId").config("limit-cents", 2_000);
//! host.send(order("o-1", 1_200)).completed().emitted("PaymentProcessed", json!({"orderId": "o-1"}));
//! host.send_again().no_effect();
//! host.compensate("o-1").undone().emitted("PaymentRefunded", json!({"orderId": "o-1"}));
//! assert_eq!(host.counter_value("balance/c-1"), 5_000);
//! host.send(order("o-2", 2_001)).rejected("LIMIT_EXCEEDED");
//! ```
//!
//! # What it becomes
//! `crate-type = ["cdylib", "rlib"]` in `Cargo.toml`, and `sagahost build` makes one `.wasm` file of it: drop that into
//! a host's plugin directory and it serves. The manifest is written by [`participant`] from the code above.
//!
//! # What a handler answers
//! [`Done`]: it happened, together with everything that it emits and how to undo it. Or [`Fail`]: rejected (the saga
//! compensates), retry, not yet, invalid. `?` and [`OrFail`] make a rule one line. Nothing happens until the host
//! commits the answer; what was written to the [`Store`] or to a [`Counter`] before a failure or a panic is gone.
//!
//! # What it must not do
//! There is no clock, randomness or file, and no network but [`Context::http`]: [`Context::now_ms`] and [`Context::make_id`] are the same on every
//! attempt, which is what makes a run repeatable. Statics do not survive a call.
//!
//! # Features
//! `arena` (default): in WebAssembly memory comes from a static arena of 48 KiB first, which halves the cost of a
//! call; it never frees, since the instance is thrown away after it.

#![deny(missing_docs)]

#[cfg(all(target_arch = "wasm32", feature = "arena"))]
mod arena;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[rustfmt::skip]
#[expect(unsafe_code, reason = "generated: the canonical ABI is raw memory")]
#[expect(clippy::allow_attributes, reason = "generated")]
pub mod bindings;
mod config;
mod context;
pub mod contract;
mod event;
#[cfg(target_arch = "wasm32")]
mod guest;
mod host;
pub mod http;
mod log;
mod outcome;
mod participant;

pub use config::{Config, ConfigValue, Json};
pub use context::{Context, Counter, Store};
pub use contract::{Cause, Delay, Emission, Evidence, Problem, Rejection, Undone};
pub use event::Event;
pub use host::{Host, Level};
pub use http::Http;
pub use outcome::{Compensated, Done, Fail, Handled, NoUndo, NotUndone, OrFail, Step};
pub use participant::Participant;
pub use sagahost_sdk_macros::{Config, data, event, participant};
pub use serde_json::json;

/// The contract that this SDK speaks: the package version of `wit/plugin.wit`.
pub const CONTRACT: &str = "0.1.0";

/// All that most participants need.
pub mod prelude {
    pub use crate::{
        Cause, Compensated, Config, Context, Delay, Done, Emission, Evidence, Fail, Handled, NotUndone, OrFail,
        Problem, Rejection, Step, Undone, data, event, json, participant,
    };
}

/// For code that the macros write.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::guest::{Exported, Sending, Silent};
    pub use crate::{
        config::read,
        participant::{
            Answer, Takes, UndoAnswer, Undoes, answers, answers_undo, bytes, compensate, default_fits, example, handle,
            handle_without_undo, is_name, join, length, no_undo, takes, text, undoes, unknown_kind,
        },
    };
    pub use serde;
}
