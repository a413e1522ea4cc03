//! What the macros make of a participant. Invariant: the manifest says what the code says.

#![expect(clippy::unwrap_used, reason = "a test")]

use sagahost_sdk::{Json, Participant, prelude::*};
use sagahost_testkit::{MockHost, Sent};
use serde_json::Value;

#[event(kind = "shop.SeatAsked", example = {"showId": "s-1", "seats": [1, 2], "delta": -5, "price": 1_000})]
struct SeatAsked {
    show_id: String,
    seats: Vec<u32>,
    #[serde(default)]
    group: Option<Group>,
}

#[data]
struct Group {
    leader_name: String,
}

#[event]
struct SeatTaken {
    show_id: String,
}

#[event]
struct SeatFreed {
    show_id: String,
}

#[data]
struct Held {
    count: u64,
}

#[derive(Config)]
struct Seats {
    /// How many there are.
    /// Of each show.
    #[config(default = 10)]
    seats: i64,
    #[config(default = -0.5)]
    discount: f64,
    #[config(default = "\"quoted\"")]
    label: String,
    closed_shows: Option<Json<Vec<String>>>,
}

#[participant(
    name = "seats",
    emits = [SeatTaken, SeatFreed],
    starts = ["ShowOpened"],
    compensate_on = ["ShowCancelled"],
    finish_on = [SeatTaken],
    finishes,
    data_format = 2,
    reads = [1, 2],
    waive(growth = "a show has few seats", restores_state = "\"quoted\"")
)]
impl Seats {
    #[on(
        SeatAsked,
        after = [SeatTaken, "DoorsOpened"],
        when = both,
        from = earliest,
        attempts = 3,
        backoff_ms = 10,
        backoff_max_ms = 100,
        deadline_ms = 5000,
        park_ttl_ms = 60000,
        on_dead_letter = block,
        undo_bytes_max = 100
    )]
    fn take(&self, ctx: &Context, asked: SeatAsked) -> Handled<Held> {
        let closed = self.closed_shows.as_ref().is_some_and(|Json(shows)| shows.contains(&asked.show_id));
        (!closed).or_reject("CLOSED", &self.label)?;
        let count = asked.seats.len() as u64;
        ctx.counter(&asked.show_id).ensure(self.seats).take(count).or_retry("FULL", self.discount)?;
        Ok(Done::undo_with(Held { count }).emit(SeatTaken { show_id: asked.show_id }))
    }

    #[undo(SeatAsked)]
    fn free(&self, ctx: &Context, step: Step<SeatAsked, Held>) -> Compensated {
        ctx.counter(&step.event.show_id).give(step.done()?.count);
        Ok(Undone::new().emit(SeatFreed { show_id: step.event.show_id }))
    }

    #[on(SeatTaken, role = pivot)]
    fn tell(&self, _: &Context, _: SeatTaken) -> Handled {
        Ok(Done::nothing_to_undo())
    }
}

#[test]
fn the_manifest_says_what_the_code_says() {
    let manifest: Value = serde_json::from_str(Seats::MANIFEST).unwrap();
    let expected = json!({
        "name": "seats",
        "version": env!("CARGO_PKG_VERSION"),
        "contract": sagahost_sdk::CONTRACT,
        "subscriptions": [
            {
                "kind": "shop.SeatAsked",
                "role": "compensable",
                "after": ["SeatTaken", "DoorsOpened"],
                "when": "both",
                "from": "earliest",
                "retry": {"attempts-max": 3, "base-ms": 10, "cap-ms": 100},
                "deadline-ms": 5000,
                "park-ttl-ms": 60000,
                "on-dead-letter": "block",
                "undo-bytes-max": 100,
                "example": {"showId": "s-1", "seats": [1, 2], "delta": -5, "price": 1000},
            },
            {"kind": "SeatTaken", "role": "pivot", "example": null},
        ],
        "emits": ["SeatTaken", "SeatFreed"],
        "starts": ["ShowOpened"],
        "compensate-on": ["ShowCancelled"],
        "finish-on": ["SeatTaken"],
        "finishes": true,
        "data-format": 2,
        "reads": [1, 2],
        "waivers": {"growth": "a show has few seats", "restores-state": "\"quoted\""},
        "config": {
            "seats": {"type": "integer", "default": 10, "doc": "How many there are. Of each show."},
            "discount": {"type": "float", "default": -0.5, "doc": ""},
            "label": {"type": "string", "default": "\"quoted\"", "doc": ""},
            "closed-shows": {"type": "json", "required": false, "doc": ""},
        },
    });
    assert_eq!(manifest, expected);
}

/// The same rules with a manifest that a host admits.
#[derive(Config)]
struct Stalls {
    #[config(default = 10)]
    seats: i64,
    closed_shows: Option<Json<Vec<String>>>,
}

#[participant(name = "stalls", emits = [SeatTaken, SeatFreed])]
impl Stalls {
    #[on(SeatAsked)]
    fn take(&self, ctx: &Context, asked: SeatAsked) -> Handled<Held> {
        let closed = self.closed_shows.as_ref().is_some_and(|Json(shows)| shows.contains(&asked.show_id));
        (!closed).or_reject("CLOSED", "there is no such show today")?;
        let count = asked.seats.len() as u64;
        ctx.counter(&asked.show_id).ensure(self.seats).take(count).or_retry("FULL", "others may give back")?;
        Ok(Done::undo_with(Held { count }).emit(SeatTaken { show_id: asked.show_id }))
    }

    #[undo(SeatAsked)]
    fn free(&self, ctx: &Context, step: Step<SeatAsked, Held>) -> Compensated {
        ctx.counter(&step.event.show_id).give(step.done()?.count);
        Ok(Undone::new().emit(SeatFreed { show_id: step.event.show_id }))
    }
}

fn asked(show_id: &str) -> SeatAsked {
    SeatAsked { show_id: show_id.into(), seats: vec![1, 2], group: None }
}

#[test]
fn the_fields_are_the_configuration() {
    let mut host = MockHost::native::<Stalls>();
    host.config("seats", 3).config("closed-shows", json!(["s-2"]));
    host.saga("1").send(asked("s-2")).rejected("CLOSED");
    host.saga("2").send(asked("s-1")).completed().emitted_event(SeatTaken { show_id: "s-1".into() });
    host.saga("3").send(asked("s-1")).retried("FULL");
    assert_eq!(host.counter_value("s-1"), 1);
    host.compensate("2").undone().emitted_event(SeatFreed { show_id: "s-1".into() });
    assert_eq!(host.counter_value("s-1"), 3);
    host.compensate("4");
    host.saga("4").send(asked("s-1")).nothing_to_undo();
}

#[test]
#[should_panic(expected = "`seats` must be of type integer, not \"many\"")]
fn a_wrong_value_names_its_key() {
    MockHost::native::<Stalls>().config("seats", "many").send(asked("s-1"));
}

#[test]
fn malformed_events_are_invalid_and_say_where() {
    let mut host = MockHost::native::<Stalls>();
    let mut number = 0;
    let mut detail = |data: &str| {
        number += 1;
        let saga = format!("saga-{number}");
        host.saga(&saga).send(Sent::text("shop.SeatAsked", data)).invalid("MALFORMED").detail()
    };
    let start = "failed to read shop.SeatAsked: ";
    assert_eq!(
        detail(r#"{"showId": "s", "seats": [1, "2"]}"#),
        format!("{start}at seats[1]: invalid type: string \"2\", expected u32 at line 1 column 32")
    );
    assert_eq!(
        detail(r#"{"showId": "s", "seats": [], "group": {}}"#),
        format!("{start}at group: missing field `leaderName` at line 1 column 40")
    );
    assert_eq!(detail(""), format!("{start}EOF while parsing a value at line 1 column 0"));
    assert_eq!(detail(r#"{"showId": "s", "seats": []} x"#), format!("{start}trailing characters after the JSON value"));
}

#[test]
fn ids_are_stable_and_differ_by_prefix_and_step() {
    use sagahost_sdk::contract::{Attempt, Event};
    struct NoHost;
    impl sagahost_sdk::Host for NoHost {
        fn log(&self, _: sagahost_sdk::Level, _: &str, _: &[(&str, &str)]) {}
        fn config(&self, _: &str) -> Option<String> {
            None
        }
        fn store_get(&self, _: &str) -> Option<Vec<u8>> {
            None
        }
        fn store_put(&self, _: &str, _: &[u8]) {}
        fn store_delete(&self, _: &str) {}
        fn store_scan(&self, _: &str, _: Option<&str>, _: u32) -> Vec<(String, Vec<u8>)> {
            Vec::new()
        }
        fn counter_ensure(&self, _: &str, _: i64) {}
        fn counter_take(&self, _: &str, _: u64) -> bool {
            false
        }
        fn counter_give(&self, _: &str, _: u64) {}
        fn counter_read(&self, _: &str) -> Option<i64> {
            None
        }
    }
    let id = |seed: u8, attempt, prefix: &str| {
        let attempt = Attempt { seed: vec![seed; 32], attempt, ..Attempt::default() };
        Context::new(Box::new(NoHost), Event::default(), attempt).make_id(prefix)
    };
    assert_eq!(id(1, 1, "payment"), id(1, 2, "payment"));
    assert_ne!(id(1, 1, "payment"), id(2, 1, "payment"));
    assert_ne!(id(1, 1, "payment")["payment-".len()..], id(1, 1, "reserve")["reserve-".len()..]);
    assert_eq!(id(1, 1, "payment").len(), "payment-".len() + 32);
}
