//! The macros of `sagahost-sdk`; read about them there. Invariant: they only arrange what the author wrote; every
//! decision is made by ordinary functions of the SDK.

#![deny(missing_docs)]

mod arguments;
mod config;
mod event;
mod manifest;
mod participant;
mod shape;
mod words;

use proc_macro::TokenStream;

/// A struct (or enum) that is the payload of an event of its name.
///
/// ```ignore
/// #[event(example = {"orderId": "o-1", "amountCents": 500})]
/// struct OrderCreated { order_id: String, amount_cents: u64 }
/// ```
///
/// It derives `Serialize`, `Deserialize`, `Clone`, `Debug` and `PartialEq`; names are camelCase in JSON (unless a
/// `#[serde(rename_all = "…")]` says otherwise), unknown fields are ignored. `kind = "…"` gives the event another name
/// than the type's; `example = {…}` goes into the manifest.
#[proc_macro_attribute]
pub fn event(arguments: TokenStream, item: TokenStream) -> TokenStream {
    event::event(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Undo data, state, or a part of an event: what [`macro@event`] does, without being an event.
#[proc_macro_attribute]
pub fn data(arguments: TokenStream, item: TokenStream) -> TokenStream {
    event::data(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// The fields are the participant's configuration keys; see the trait of the same name.
#[proc_macro_derive(Config, attributes(config))]
pub fn config(item: TokenStream) -> TokenStream {
    config::derive(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a participant of an `impl` block: functions marked `#[on(Kind)]` handle events, those marked `#[undo(Kind)]`
/// undo what the handler of that kind did.
///
/// | argument | meaning |
/// |---|---|
/// | `emits = [A, B]` | kinds that it may emit: event types, or names in quotes |
/// | `starts = […]` | kinds that it may emit under another saga id |
/// | `http = ["https://…"]` | where it sends requests; `["*"]`: wherever the operator lets it |
/// | `compensate_on = […]` | kinds that make its app compensate the saga |
/// | `finish_on = […]` | kinds that end its part of a saga |
/// | `finishes` | it ends sagas with `Done::finish` |
/// | `name = "…"` | the participant's name; else the package's |
/// | `data_format = 2`, `reads = [1, 2]` | format of the state and undo data that it writes, and those that it reads |
/// | `waive(restores_state = "…")` | laws of `sagahost check` that it breaks on purpose, each with the reason |
///
/// `#[on(Kind, …)]` takes:
///
/// | argument | meaning |
/// |---|---|
/// | `role = …` | `compensable` (with an `#[undo]`, needs no saying), `nothing_to_undo`, `pivot`, `retriable` |
/// | `after = […]` | this participant's steps of these kinds must be done first |
/// | `when = …` | `running` (default), `compensating`, `both` |
/// | `from = …` | `now` (default), `earliest` |
/// | `attempts`, `backoff_ms`, `backoff_max_ms` | the retry policy |
/// | `deadline_ms` | from taking the event in to the end of its last attempt |
/// | `park_ttl_ms` | how long an event waits for its predecessor |
/// | `on_dead_letter = …` | `compensate` (default), `block`, `skip` |
/// | `undo_bytes_max` | an upper bound for the undo data |
#[proc_macro_attribute]
pub fn participant(arguments: TokenStream, item: TokenStream) -> TokenStream {
    participant::participant(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
