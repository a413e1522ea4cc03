//! The faults by name, each at the one place where it goes wrong. Invariant: whatever is not the fault's is answered as
//! the law wants it, so that a checker which names another law is wrong.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

use sagahost_sdk::prelude::*;

use crate::{Booking, SeatsRequested, SeatsReserved, seats};

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// What goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            None,
            $($(#[$doc])* $fault,)*
        }

        impl Fault {
            pub fn parse(name: &str) -> Result<Self, Fail> {
                match name {
                    "none" => Ok(Self::None),
                    $($name => Ok(Self::$fault),)*
                    _ => Err(Fail::crash(format!("no fault is called `{name}`"))),
                }
            }
        }
    };
}

faults! {
    /// The ticket comes from a static: it differs in an instance that was used before.
    StaticIds = "static-ids",
    /// Says that the seats are free, and does not free them.
    ForgottenUndo = "forgotten-undo",
    /// Frees one seat more than were taken.
    Overpays = "overpays",
    /// Frees all seats of a large booking but one.
    Underpays = "underpays",
    /// Frees them again when it is asked again.
    DoubleRefund = "double-refund",
    /// Says that there is nothing to undo, and has taken seats.
    NothingToUndo = "nothing-to-undo",
    /// The booking stays in the state.
    KeptState = "kept-state",
    /// The booking stays in the store.
    KeptKey = "kept-key",
    /// Traps in the undo function.
    UndoTraps = "undo-traps",
    /// Changes its mind in the undo function.
    UndoRefuses = "undo-refuses",
    /// Frees seats of a booking that was never made.
    NeverRanPays = "never-ran-pays",
    /// Wants an operator for a booking that was never made.
    NeverRanStuck = "never-ran-stuck",
    /// Frees seats of a booking of which nobody knows.
    UncertainPays = "uncertain-pays",
    /// Tells how many seats are left.
    TellsLeft = "tells-left",
    /// Keeps the booking that came last for the next one.
    LastWins = "last-wins",
    /// One value in the store has them all.
    GrowingValue = "growing-value",
    /// The state of one saga has all its events.
    GrowingState = "growing-state",
    /// Looks at every booking that there is.
    GrowingWork = "growing-work",
    /// Traps on a field that it does not know.
    UnknownField = "unknown-field",
    /// Traps on an optional field of another type.
    WrongType = "wrong-type",
    /// Traps on a number that does not fit.
    HugeNumber = "huge-number",
    /// Makes a counter's name of a text of any length.
    LongName = "long-name",
    /// Works longer than it may, for a large party.
    Slow = "slow",
    /// Wants more memory than there is, for a large party.
    Memory = "memory",
    /// Emits more than it may, for a large party.
    Payload = "payload",
}

impl Fault {
    /// While the event is read.
    pub fn reads(self, wanted: &SeatsRequested) {
        match self {
            Self::UnknownField => assert!(wanted.rest.is_empty(), "lawless: an unknown field"),
            Self::WrongType => {
                if let Some(row) = &wanted.row {
                    assert!(row.is_u64(), "lawless: the row is no number");
                }
            }
            _ => {}
        }
    }

    /// Of a saga that has a booking already.
    pub fn again(self, mut booking: Booking) -> Handled<Booking> {
        if self != Self::GrowingState {
            return Ok(Done::nothing_to_undo());
        }
        booking.kept.push(format!("this is event {}", booking.kept.len()));
        Ok(Done::undo_with(booking.clone()).state(&booking))
    }

    pub fn ticket(self, ctx: &Context) -> String {
        static TICKETS: AtomicU64 = AtomicU64::new(1);
        match self {
            Self::StaticIds => format!("ticket-{}", TICKETS.fetch_add(1, Ordering::Relaxed)),
            _ => ctx.make_id("ticket"),
        }
    }

    pub fn seats(self, wanted: i64) -> Option<u64> {
        if self == Self::HugeNumber {
            let cents = wanted.checked_mul(100).expect("lawless: seats times price fit");
            return u64::try_from(cents / 100).ok().filter(|seats| (1..=100).contains(seats));
        }
        u64::try_from(wanted).ok().filter(|seats| (1..=100).contains(seats))
    }

    /// The seats are taken; this is the answer.
    pub fn handled(self, ctx: &Context, mut booking: Booking, mut reserved: SeatsReserved) -> Handled<Booking> {
        // The example is not: a host tries it out before it serves.
        let large = booking.seats > 2;
        match self {
            Self::NothingToUndo => return Ok(Done::nothing_to_undo().emit(reserved)),
            Self::TellsLeft => reserved.left = seats(ctx, &booking.show).read(),
            Self::LastWins => {
                let last: Option<String> = ctx.store().get("last");
                reserved.ballast = last.unwrap_or_default();
                ctx.store().put("last", &booking.booking_id);
                booking.kept.push(reserved.ballast.clone());
            }
            Self::GrowingValue => {
                let mut all: Vec<String> = ctx.store().get("all").unwrap_or_default();
                all.push(ctx.saga_id().to_owned());
                ctx.store().put("all", &all);
            }
            Self::GrowingWork => {
                black_box(ctx.store().scan::<u64>("booking/", None, 1_000));
            }
            Self::Slow if large => loop {
                black_box(());
            },
            Self::Memory if large => {
                let mut eaten = Vec::new();
                while black_box(true) {
                    eaten.push(black_box(Vec::<u8>::with_capacity(16 * 1024 * 1024)));
                }
            }
            Self::Payload if large => reserved.ballast = "x".repeat(2 * 1024 * 1024),
            _ => {}
        }
        Ok(Done::undo_with(booking.clone()).state(&booking).emit(reserved))
    }

    /// At the beginning of the undo function; `Some`: that was all.
    pub fn undoes(self, ctx: &Context, step: &Step<SeatsRequested, Booking>) -> Result<Option<Undone>, NotUndone> {
        match (self, &step.evidence) {
            (Self::UndoTraps, Evidence::Done(_)) => panic!("lawless: a panic in the undo function"),
            (Self::UndoRefuses, Evidence::Done(_)) => Err(NotUndone::stuck("TOO_LATE", "the show has begun")),
            (Self::NeverRanStuck, Evidence::NeverRan) => Err(NotUndone::stuck("UNKNOWN", "which booking?")),
            (Self::NeverRanPays, Evidence::NeverRan) | (Self::UncertainPays, Evidence::Uncertain) => {
                let wanted = self.seats(step.event.seats).unwrap_or(1);
                seats(ctx, "hamlet").ensure(1_000).give(wanted);
                Ok(Some(Undone::new()))
            }
            (Self::LastWins, Evidence::Done(booking)) => {
                give_back_last(ctx, booking);
                Ok(None)
            }
            (Self::GrowingValue, Evidence::Done(_)) => {
                strike_from_all(ctx);
                Ok(None)
            }
            (Self::GrowingState, Evidence::Done(booking)) if !booking.kept.is_empty() => {
                Ok(Some(strike_from_state(ctx, booking)))
            }
            _ => Ok(None),
        }
    }

    pub fn gives(self, seats: u64) -> u64 {
        match self {
            Self::ForgottenUndo => 0,
            Self::Overpays => seats + 1,
            Self::Underpays if seats > 1 => seats - 1,
            _ => seats,
        }
    }
}

/// The booking before is the last one again.
fn give_back_last(ctx: &Context, booking: &Booking) {
    match booking.kept.first().filter(|last| !last.is_empty()) {
        Some(last) => ctx.store().put("last", last),
        None => ctx.store().delete("last"),
    }
}

fn strike_from_all(ctx: &Context) {
    let mut all: Vec<String> = ctx.store().get("all").unwrap_or_default();
    all.retain(|saga| saga != ctx.saga_id());
    match all.is_empty() {
        true => ctx.store().delete("all"),
        false => ctx.store().put("all", &all),
    }
}

fn strike_from_state(ctx: &Context, booking: &Booking) -> Undone {
    match ctx.state::<Booking>() {
        Some(mut kept) if kept.kept == booking.kept => {
            kept.kept.pop();
            Undone::new().state(&kept)
        }
        _ => Undone::new(),
    }
}
