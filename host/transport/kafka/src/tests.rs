//! Errors of transactional calls through the real code: librdkafka's own mock cluster answers with them. It is good for
//! that alone; what is out and what is not is tested on a real broker. Invariant: behind every error the same
//! publication goes through, after a claim where one is asked for.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use rdkafka::{
    mocking::{MockCluster, MockCoordinator},
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error},
};
use sagahost_transport::{SinkError, contract};

use crate::Property;

use super::*;

const TOPIC: &str = "order-completed";

struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    sink: Box<dyn Sink>,
}

/// How a publication failed, without its text.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    Aborted,
    Lost(CommitState),
    Fenced(CommitState),
}

/// Whether the commit was asked for.
#[derive(Debug, PartialEq, Eq)]
enum CommitState {
    Asked,
    NotAsked,
}

impl Mock {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(properties: &[(&str, &str)]) -> Self {
        Self::of(1, properties)
    }

    fn of(brokers: i32, properties: &[(&str, &str)]) -> Self {
        let cluster = MockCluster::new(brokers).unwrap();
        cluster.create_topic(TOPIC, 2, 1).unwrap();
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), Property::plain(name, *value)));
        let settings = KafkaSettings {
            bootstrap_servers: cluster.bootstrap_servers(),
            properties: properties.collect(),
            ..KafkaSettings::default()
        };
        let mut sink = KafkaTransport::new(&settings, "shop").unwrap().sink().unwrap();
        contract::claim(&mut *sink);
        Self { cluster, sink }
    }

    fn publish(&mut self) -> Result<(), Failed> {
        self.try_publish().map_err(|contract::Failed { error, asked }| {
            let commit = if asked { CommitState::Asked } else { CommitState::NotAsked };
            match error {
                SinkError::Spoilt(_) => Failed::Aborted,
                SinkError::Spent(_) => Failed::Lost(commit),
                SinkError::Fenced(_) => Failed::Fenced(commit),
                error @ (SinkError::Refused { .. } | SinkError::Unclear { .. }) => panic!("{error}"),
            }
        })
    }

    fn try_publish(&mut self) -> Result<(), contract::Failed> {
        let record = Outgoing {
            topic: TOPIC.into(),
            key: Some(b"o-1".to_vec()),
            value: Some(b"{}".to_vec()),
            headers: Vec::new(),
        };
        contract::try_publish(&mut *self.sink, &[record], &[(Partition::new(TOPIC, 1), 5)], "j/i/1")
    }

    /// The errors come once each, in this order.
    #[track_caller]
    fn check(&mut self, api: Api, errors: &[Error], expected: Result<(), Failed>) {
        self.cluster.request_errors(api, errors);
        let published = self.publish();
        assert_eq!(published, expected, "{api:?} answered with {errors:?}");
        self.cluster.clear_request_errors(api);
        if matches!(published, Err(Failed::Lost(_) | Failed::Fenced(_))) {
            contract::claim(&mut *self.sink);
        }
        assert_eq!(self.publish(), Ok(()), "after {api:?} answered with {errors:?}");
    }
}

use CommitState::{Asked, NotAsked};
use Error as E;

#[test]
fn a_producer_that_the_coordinator_forgot_is_replaced() {
    let mut mock = Mock::new();
    mock.publish().unwrap();
    let forgotten = [E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING];
    mock.check(Api::AddOffsetsToTxn, &forgotten, Err(Failed::Lost(NotAsked)));
    mock.check(Api::TxnOffsetCommit, &forgotten, Err(Failed::Lost(NotAsked)));
    mock.check(Api::AddPartitionsToTxn, &forgotten, Err(Failed::Lost(NotAsked)));
    mock.check(Api::EndTxn, &forgotten, Err(Failed::Lost(Asked)));
    mock.check(Api::AddPartitionsToTxn, &[E::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID], Err(Failed::Lost(NotAsked)));
    mock.check(Api::EndTxn, &[E::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID], Err(Failed::Lost(Asked)));
    let miscounted = [E::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
    mock.check(Api::Produce, &miscounted, Err(Failed::Lost(NotAsked)));
}

#[test]
fn a_transaction_in_a_state_that_does_not_fit_is_left_to_a_new_producer() {
    let mut mock = Mock::new();
    let state = [E::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE];
    mock.check(Api::AddOffsetsToTxn, &state, Err(Failed::Lost(NotAsked)));
    mock.check(Api::AddPartitionsToTxn, &state, Err(Failed::Lost(NotAsked)));
    mock.check(Api::EndTxn, &state, Err(Failed::Lost(Asked)));
}

#[test]
fn who_is_fenced_looks_first() {
    let mut mock = Mock::new();
    for error in [E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, E::RD_KAFKA_RESP_ERR_PRODUCER_FENCED] {
        mock.check(Api::AddPartitionsToTxn, &[error], Err(Failed::Fenced(NotAsked)));
        mock.check(Api::EndTxn, &[error], Err(Failed::Fenced(Asked)));
    }
    mock.check(Api::AddOffsetsToTxn, &[E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH], Err(Failed::Fenced(NotAsked)));
    mock.check(Api::TxnOffsetCommit, &[E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH], Err(Failed::Fenced(NotAsked)));
}

#[test]
fn what_passes_is_repeated() {
    let mut mock = Mock::new();
    for error in [
        E::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
        E::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    ] {
        for api in [Api::AddOffsetsToTxn, Api::AddPartitionsToTxn, Api::EndTxn] {
            mock.check(api, &[error], Ok(()));
        }
    }
    mock.check(Api::TxnOffsetCommit, &[E::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS], Ok(()));
    mock.check(Api::Produce, &[E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION], Ok(()));
    mock.check(Api::Produce, &[E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS], Ok(()));
}

#[test]
fn what_only_spoils_the_transaction_is_aborted() {
    let mut mock = Mock::new();
    mock.check(Api::TxnOffsetCommit, &[E::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION], Err(Failed::Aborted));
    mock.check(Api::AddOffsetsToTxn, &[E::RD_KAFKA_RESP_ERR_UNKNOWN], Err(Failed::Aborted));
    // Refused at the commit: only a look says whether it was.
    mock.check(Api::EndTxn, &[E::RD_KAFKA_RESP_ERR_UNKNOWN], Err(Failed::Lost(Asked)));
}

#[test]
fn a_permission_that_lacks_is_reported_and_tried_again_with_a_new_producer() {
    let mut mock = Mock::new();
    mock.check(Api::AddOffsetsToTxn, &[E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED], Err(Failed::Lost(NotAsked)));
    mock.check(
        Api::AddPartitionsToTxn,
        &[E::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED],
        Err(Failed::Lost(NotAsked)),
    );
}

#[test]
fn a_claim_is_repeated_with_a_new_producer_where_the_old_one_is_spent() {
    let mut mock = Mock::new();
    mock.cluster.request_errors(Api::InitProducerId, &[E::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS]);
    contract::claim(&mut *mock.sink);
    assert_eq!(mock.publish(), Ok(()));
    let error = E::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    mock.cluster.request_errors(Api::InitProducerId, &[error]);
    let refused = mock.sink.claim().unwrap_err();
    assert!(matches!(&refused, TransportError::Refused(why) if why.contains("transactional id shop")), "{refused:?}");
    let started = Instant::now();
    contract::claim(&mut *mock.sink);
    assert!(started.elapsed() < Duration::from_secs(5), "with a new producer at once");
    assert_eq!(mock.publish(), Ok(()));
}

#[test]
fn records_that_a_leader_does_not_take_are_not_taken_for_a_broker_that_is_away() {
    let mut mock = Mock::with(&[("transaction.timeout.ms", "5000")]);
    mock.cluster.request_errors(Api::Produce, &[E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 5_000]);
    let error = mock.try_publish().unwrap_err().error;
    assert!(matches!(error, SinkError::Spoilt(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("did not confirm records for {TOPIC} within 3 s")), "{text}");
    assert!(!text.contains("bootstrap"), "{text}");
    mock.cluster.clear_request_errors(Api::Produce);
    assert_eq!(mock.publish(), Ok(()));
}

/// librdkafka waits for this coordinator without a bound.
#[test]
fn a_coordinator_of_the_group_that_is_gone_holds_nobody_for_ever() {
    let mut mock = Mock::of(2, &[("transaction.timeout.ms", "5000")]);
    for partition in 0..2 {
        mock.cluster.partition_leader(TOPIC, partition, Some(1)).unwrap();
    }
    mock.cluster.coordinator(MockCoordinator::Transaction("shop".to_owned()), 1).unwrap();
    mock.cluster.coordinator(MockCoordinator::Group("shop".to_owned()), 2).unwrap();
    assert_eq!(mock.publish(), Ok(()));
    mock.cluster.broker_down(2).unwrap();
    let started = Instant::now();
    let published = mock.publish();
    assert!(matches!(published, Err(Failed::Lost(CommitState::NotAsked) | Failed::Aborted)), "{published:?}");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    mock.cluster.broker_up(2).unwrap();
    contract::claim(&mut *mock.sink);
    assert_eq!(mock.publish(), Ok(()));
}
