//! The whole host on a real broker. Invariant: a test that breaks a broker has one of its own.

mod away;
mod bombs;
mod brokers;
mod crashes;
mod deadlines;
mod faults;
mod headers;
mod kinds;
mod mappings;
mod owners;
mod processor_time;
mod quiet;
mod saga;
mod shops;
mod stalls;
mod starts;
mod topic_anew;
mod transport;
