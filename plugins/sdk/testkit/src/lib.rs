//! A host in memory, for tests of participants. Invariant: sagas are decided by the host's own core, and what a plugin
//! may not do is refused in the host's own words.
//!
//! The participant runs natively, in the test's own process: `cargo test` takes seconds, and a debugger works. Topics,
//! store, counters and time are simulated; retries, deadlines and compensations are played out as the host does it.
//!
//! ```
//! use std::time::Duration;
//!
//! use sagahost_sdk::prelude::*;
//! use sagahost_testkit::{MockHost, Status};
//!
//! #[event(example = {"orderId": "o-1", "seats": 2})]
//! struct SeatsAsked { order_id: String, seats: u64 }
//! #[event]
//! struct SeatsTaken { order_id: String, seats: u64 }
//! #[event]
//! struct SeatsFreed { order_id: String }
//!
//! #[derive(Config)]
//! struct Theatre {
//!     #[config(default = 100)]
//!     seats: i64,
//! }
//!
//! #[participant(name = "theatre", emits = [SeatsTaken, SeatsFreed])]
//! impl Theatre {
//!     #[on(SeatsAsked)]
//!     fn take(&self, ctx: &Context, asked: SeatsAsked) -> Handled<u64> {
//!         let SeatsAsked { order_id, seats } = asked;
//!         if ctx.state::<u64>().is_some() {
//!             return Ok(Done::nothing_to_undo()); // the same wish in another event
//!         }
//!         ctx.counter("seats").ensure(self.seats).take(seats).or_reject("SOLD_OUT", "there are not enough left")?;
//!         Ok(Done::undo_with(seats).state(&seats).emit(SeatsTaken { order_id, seats }))
//!     }
//!
//!     #[undo(SeatsAsked)]
//!     fn free(&self, ctx: &Context, step: Step<SeatsAsked, u64>) -> Compensated {
//!         let seats = *step.done()?;
//!         if ctx.state::<u64>().is_none() {
//!             return Err(NotUndone::NothingToUndo); // given back already
//!         }
//!         ctx.counter("seats").give(seats);
//!         Ok(Undone::new().delete_state().emit(SeatsFreed { order_id: step.event.order_id }))
//!     }
//! }
//!
//! // Given a theatre with five seats, and events that name their saga in `orderId`,
//! let mut host = MockHost::native::<Theatre>();
//! host.saga_id_at("/orderId").config("seats", 5);
//! let asked = |order_id: &str, seats| SeatsAsked { order_id: order_id.into(), seats };
//!
//! // when three are asked for, they are taken; once, however often the broker says so;
//! host.send(asked("o-1", 3)).completed().emitted("SeatsTaken", json!({"orderId": "o-1", "seats": 3}));
//! host.send_again().no_effect();
//! assert_eq!(host.counter_value("seats"), 2);
//!
//! // a second party does not fit in, and its saga is compensated;
//! host.send(asked("o-2", 3)).rejected("SOLD_OUT").emitted_nothing().saga_is(Status::Compensated);
//!
//! // when the first saga fails, its seats are free again, even if the plugin dies while it undoes that.
//! host.plugin("theatre").dies_compensating(1..=2);
//! host.compensate("o-1").trapped("it was killed by the test");
//! host.advance(Duration::from_secs(10)).emitted("SeatsFreed", json!({"orderId": "o-1"}));
//! assert_eq!(host.counter_value("seats"), 5);
//! host.saga("o-1").is(Status::Compensated);
//! ```
//!
//! # When something is not as expected
//! The assertion panics at your line, with what happened and the timeline of every saga that took part:
//!
//! ```text
//! expected every handle to end as completed, and one at least
//!
//! what happened:
//!   theatre handle SeatsAsked #1: rejected SOLD_OUT: there are not enough left
//!   the host emitted SagaFailed {"app":"test","code":"SOLD_OUT", …}
//!
//! saga o-2 is compensated
//!   cause  rejected by theatre on SeatsAsked: SOLD_OUT: there are not enough left
//!   +0ms           event SeatsAsked      taken-in
//!   +0ms  theatre  handle SeatsAsked #1  rejected      SOLD_OUT: there are not enough left
//!   +0ms           saga                  compensating  rejected: SOLD_OUT: there are not enough left
//!   …
//! ```
//!
//! # A whole saga
//! `MockHost::native::<Order>().with::<Payment>().with::<Inventory>()`: events that one emits reach the others.
//! [`MockHost::plugin`] names one of several; [`MockHost::hold`] delays events between them;
//! [`SagaOf::redeliver`] brings everything twice; [`SagaOf::golden`] keeps a timeline in a file.
//!
//! # The compiled plugin
//! `MockHost::component("payment.wasm")` has the same assertions, and calls the compiled plugin in the real sandbox,
//! through the installed `sagahost`. Only there are running time and memory limited. Tests in other languages speak to
//! `sagahost mock --stdio` in the same [`protocol`].

mod answer;
mod golden;
mod http;
mod mock_host;
mod plugin;
mod saga;

pub mod code;
mod convert;
pub mod engine;
pub mod native;
mod pipe;
pub mod protocol;
pub mod timeline;
pub mod values;

pub use answer::Answer;
pub use code::{Code, Ran};
pub use http::HttpOf;
pub use mock_host::MockHost;
pub use native::Native;
pub use plugin::PluginOf;
pub use protocol::Sent;
pub use saga::SagaOf;
pub use sagahost_saga::input::Status;
pub use serde_json::json;

/// What is wrong, one below the other, each with its place and what to do about it.
pub(crate) fn faults(faults: &[sagahost_manifest::Fault]) -> String {
    let told = faults.iter().map(|fault| {
        let sagahost_manifest::Fault { what, place, fix } = fault;
        format!("\n  - {what}\n    where: {place}\n    do:    {fix}")
    });
    told.collect()
}
