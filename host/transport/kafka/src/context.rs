//! What librdkafka tells a client between calls: logs, errors, ends of partitions, delivery reports, requests for
//! tokens. Invariant: no text passes here with a secret in it.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rdkafka::{
    ClientContext, Message,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext},
};
use tracing::{debug, info, warn};

use super::{connection::Redaction, token::TokenSource};

pub(super) struct Context {
    redaction: Arc<Redaction>,
    tokens: Option<Arc<TokenSource>>,
    has_token: AtomicBool,
    health: Mutex<Health>,
    /// Where the last end-of-partition event said that the end is; the event itself does not carry it.
    end: AtomicI64,
    reports: Mutex<Reports>,
    reported: Condvar,
}

#[derive(Default)]
struct Reports {
    arrived: Vec<Report>,
    /// How many reports a thread waits for.
    wanted: usize,
}

#[derive(Default)]
struct Health {
    /// All brokers were lost since the last question.
    lost: bool,
    /// The last thing that went wrong, for messages.
    last: Option<String>,
    /// Credentials or certificates that were turned down, and when.
    refused: Option<(Instant, String)>,
    /// The group's coordinator was asked for without permission, and when. The call itself just finds no coordinator.
    forbidden: Option<(Instant, RDKafkaErrorCode)>,
    /// Since when librdkafka may be blind to the leader of a partition.
    blind: Option<Instant>,
}

/// How the delivery of one record ended: the number given to it, then partition and offset.
pub(super) type Report = (usize, Result<(i32, i64), RDKafkaErrorCode>);

impl Context {
    pub fn new(redaction: Arc<Redaction>, tokens: Option<Arc<TokenSource>>) -> Self {
        Self {
            redaction,
            tokens,
            has_token: AtomicBool::new(false),
            health: Mutex::default(),
            end: AtomicI64::new(-1),
            reports: Mutex::default(),
            reported: Condvar::new(),
        }
    }

    pub fn has_token(&self) -> bool {
        self.has_token.load(Ordering::Relaxed)
    }

    /// Were all brokers lost since the last question?
    pub fn take_lost(&self) -> bool {
        std::mem::take(&mut self.health.lock().lost)
    }

    pub fn last_trouble(&self) -> Option<String> {
        self.health.lock().last.clone()
    }

    pub fn refused_since(&self, since: Instant) -> Option<String> {
        self.health.lock().refused.as_ref().filter(|(at, _)| *at >= since).map(|(_, why)| why.clone())
    }

    /// A broker said that a partition has no leader, together with an answer to something else. librdkafka drops that word,
    /// and may never learn of the leader that follows (confluentinc/librdkafka#5430): nothing is sent there any more, and
    /// only another client helps.
    pub fn blind_for(&self) -> Option<Duration> {
        self.health.lock().blind.map(|since| since.elapsed())
    }

    pub fn forbidden_since(&self, since: Instant) -> Option<RDKafkaErrorCode> {
        self.health.lock().forbidden.filter(|(at, _)| *at >= since).map(|(_, code)| code)
    }

    pub fn well(&self) {
        let mut health = self.health.lock();
        health.last = None;
        health.forbidden = None;
        health.refused = None;
    }

    pub fn take_end(&self) -> Option<i64> {
        let end = self.end.swap(-1, Ordering::Relaxed);
        (end >= 0).then_some(end)
    }

    pub fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut self.reports.lock().arrived)
    }

    /// Sleeps until this many delivery reports are in, or until the time is over; takes those that are.
    pub fn await_reports(&self, wanted: usize, until: Instant) -> Vec<Report> {
        let mut reports = self.reports.lock();
        reports.wanted = wanted;
        while reports.arrived.len() < wanted && !self.reported.wait_until(&mut reports, until).timed_out() {}
        std::mem::take(&mut reports.arrived)
    }

    fn trouble(&self, code: RDKafkaErrorCode, reason: String) {
        let mut health = self.health.lock();
        match code {
            RDKafkaErrorCode::AllBrokersDown => health.lost = true,
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::SSL => health.refused = Some((Instant::now(), reason.clone())),
            RDKafkaErrorCode::GroupAuthorizationFailed => health.forbidden = Some((Instant::now(), code)),
            _ => {}
        }
        if code != RDKafkaErrorCode::AllBrokersDown {
            health.last = Some(reason);
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// librdkafka recovers from most of what it logs as an error; what needs a person is reported by the transport.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let text = self.redaction.clean(text);
        if is_blinding(facility, &text) {
            self.health.lock().blind.get_or_insert_with(Instant::now);
        }
        match level {
            // Properties of producers are given to consumers too, and the other way round.
            _ if facility == "CONFWARN" => debug!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => warn!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                info!(target: "librdkafka", facility, "{text}")
            }
            RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else {
            return;
        };
        if code == RDKafkaErrorCode::PartitionEOF {
            self.end.store(end_offset(reason).unwrap_or(-1), Ordering::Relaxed);
            return;
        }
        let reason = self.redaction.clean(reason);
        debug!(target: "librdkafka", ?code, "{reason}");
        self.trouble(code, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let source = self.tokens.as_ref().ok_or("no source of tokens is configured")?;
        match source.token(config) {
            Ok(token) => {
                self.has_token.store(true, Ordering::Relaxed);
                Ok(token)
            }
            Err(why) => {
                self.trouble(RDKafkaErrorCode::Authentication, why.clone());
                Err(why.into())
            }
        }
    }

    /// `statistics.interval.ms` is for whoever debugs.
    fn stats_raw(&self, statistics: &[u8]) {
        debug!(target: "librdkafka", facility = "STATS", "{}", self.redaction.clean(&String::from_utf8_lossy(statistics)));
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        let mut reports = self.reports.lock();
        reports.arrived.push((number, outcome));
        if reports.arrived.len() >= reports.wanted {
            self.reported.notify_one();
        }
    }
}

/// `Partition orders(…)[2]: new leader-1 not found in cache`
fn is_blinding(facility: &str, text: &str) -> bool {
    facility == "METADATAUPDATE" && text.contains("new leader-1 not found in cache")
}

/// From `Fetch from broker 1 reached end of partition at offset 7 (HighwaterMark 8)`.
fn end_offset(reason: &str) -> Option<i64> {
    let (_, behind) = reason.split_once("end of partition at offset ")?;
    behind.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_from_the_reason() {
        assert_eq!(end_offset("Fetch from broker 1 reached end of partition at offset 7 (HighwaterMark 8)"), Some(7));
        assert_eq!(end_offset("Something else"), None);
    }

    #[test]
    fn a_partition_without_a_leader_is_told_from_other_news() {
        let text = "[thrd:main]: Partition resting.InventoryUpdated(TlQeTFppQUS4f5BVwRVIPg)[1]: new leader-1 not found in cache";
        assert!(is_blinding("METADATAUPDATE", text));
        assert!(!is_blinding("METADATAUPDATE", &text.replace("leader-1", "leader3")));
        assert!(!is_blinding("GETPID", text));
    }
}
