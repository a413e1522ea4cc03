//! One participant, `lawless`, that books seats and breaks one law of plugins: the configuration key `fault` says which.
//! Invariant: without a fault it keeps them all, and a fault breaks nothing but what it is named for.
//!
//! A hostile guest (`tests/guests`) is stopped by the host. A lawless one is not: each of its calls is answered
//! properly, and still money is lost. `sagahost check` is there to find it.

mod faults;

use std::collections::BTreeMap;

use sagahost_sdk::prelude::*;

use crate::faults::Fault;

/// Somebody wants seats.
#[event(example = {"bookingId": "b-1", "show": "hamlet", "seats": 2, "row": 7})]
pub struct SeatsRequested {
    /// The booking.
    pub booking_id: String,
    /// Which show; each has its own seats.
    pub show: String,
    /// How many.
    pub seats: i64,
    /// A wish that may be left out.
    #[serde(default)]
    pub row: Option<serde_json::Value>,
    /// Fields of later producers.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// They are theirs.
#[event]
pub struct SeatsReserved {
    pub booking_id: String,
    pub ticket: String,
    /// Seats that are left, where a fault looks.
    pub left: Option<i64>,
    /// Weight, where a fault wants some.
    pub ballast: String,
}

/// They are free again.
#[event]
pub struct SeatsReleased {
    pub booking_id: String,
    pub ticket: String,
}

/// A booking that stands: this saga's state, and what a release has to know.
#[data]
pub struct Booking {
    pub booking_id: String,
    pub ticket: String,
    pub show: String,
    pub seats: u64,
    /// What a fault keeps.
    #[serde(default)]
    pub kept: Vec<String>,
}

#[derive(Config)]
pub struct Lawless {
    /// Which law it breaks; `none` keeps them all.
    #[config(default = "none")]
    fault: String,
    /// Seats of each show.
    #[config(default = 1_000)]
    opening_seats: i64,
}

#[participant(name = "lawless", emits = [SeatsReserved, SeatsReleased], finish_on = ["ShowOver"])]
impl Lawless {
    #[on(SeatsRequested)]
    fn reserve(&self, ctx: &Context, wanted: SeatsRequested) -> Handled<Booking> {
        let fault = Fault::parse(&self.fault)?;
        fault.reads(&wanted);
        if let Some(booking) = ctx.state::<Booking>() {
            return fault.again(booking);
        }
        let ticket = fault.ticket(ctx);
        let booking = self.check(fault, ticket, &wanted)?;
        let left = seats(ctx, &booking.show).ensure(self.opening_seats);
        left.take(booking.seats).or_reject("SOLD_OUT", "there are not enough seats left")?;
        ctx.store().put(&key(&booking), &booking.seats);
        let reserved = SeatsReserved {
            booking_id: booking.booking_id.clone(),
            ticket: booking.ticket.clone(),
            left: None,
            ballast: String::new(),
        };
        fault.handled(ctx, booking, reserved)
    }

    #[undo(SeatsRequested)]
    fn release(&self, ctx: &Context, step: Step<SeatsRequested, Booking>) -> Compensated {
        let fault = Fault::parse(&self.fault).map_err(|_| NotUndone::stuck("FAULT", "no such fault"))?;
        if let Some(undone) = fault.undoes(ctx, &step)? {
            return Ok(undone);
        }
        let booking = step.done()?;
        let stands = ctx.state::<Booking>().is_some_and(|kept| kept.seats > 0);
        if !stands && fault != Fault::DoubleRefund {
            return Err(NotUndone::NothingToUndo);
        }
        seats(ctx, &booking.show).give(fault.gives(booking.seats));
        if fault != Fault::KeptKey {
            ctx.store().delete(&key(booking));
        }
        let released = Undone::new()
            .emit(SeatsReleased { booking_id: booking.booking_id.clone(), ticket: booking.ticket.clone() });
        Ok(match fault {
            Fault::KeptState => released.state(&Booking { seats: 0, ..booking.clone() }),
            _ => released.delete_state(),
        })
    }
}

impl Lawless {
    /// What can never be booked is invalid, so that nothing below traps.
    fn check(&self, fault: Fault, ticket: String, wanted: &SeatsRequested) -> Result<Booking, Fail> {
        let name = |text: &str| (1..=64).contains(&text.len()) && !text.contains(char::is_control);
        (name(&wanted.show) || fault == Fault::LongName).or_invalid("SHOW", "there is no such show")?;
        name(&wanted.booking_id).or_invalid("BOOKING", "this is no booking id")?;
        let seats = fault.seats(wanted.seats).or_invalid("SEATS", "so many seats cannot be booked")?;
        Ok(Booking {
            booking_id: wanted.booking_id.clone(),
            ticket,
            show: wanted.show.clone(),
            seats,
            kept: Vec::new(),
        })
    }
}

fn seats<'a>(ctx: &'a Context, show: &str) -> sagahost_sdk::Counter<'a> {
    ctx.counter(format!("seats/{show}"))
}

fn key(booking: &Booking) -> String {
    format!("booking/{}", booking.booking_id)
}
