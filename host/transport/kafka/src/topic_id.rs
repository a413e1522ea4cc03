//! Which topic a name stands for (KIP-516): a recreated topic has another id. Invariant: an answer describes the broker
//! at a time after its question.
//!
//! rdkafka shows no ids; librdkafka does, where it describes topics.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::{self, NonNull},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    bindings::{
        rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_request_timeout,
        rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
        rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_name,
        rd_kafka_TopicDescription_partitions, rd_kafka_TopicDescription_t, rd_kafka_TopicDescription_topic_id,
        rd_kafka_Uuid_base64str, rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits,
        rd_kafka_error_code, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
        rd_kafka_event_t, rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_new,
        rd_kafka_queue_poll, rd_kafka_queue_t, rd_kafka_t,
    },
    consumer::Consumer as _,
    error::{KafkaError, KafkaResult},
    types::{RDKafkaAdminOp, RDKafkaErrorCode as Code},
};
use sagahost_transport::TransportError;
use sagahost_wire::TopicId;

use super::{
    SLICE,
    connection::{Connection, Consumer, Served as _},
    retry_until_stopped,
};

/// What a broker says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Described {
    Missing,
    There {
        /// None: a broker that gives no ids.
        id: Option<TopicId>,
        partitions: i32,
    },
    /// The principal may not describe it.
    Hidden,
    /// It cannot say at the moment.
    Unclear(Code),
}

impl Described {
    pub fn id(&self) -> Option<&TopicId> {
        match self {
            Self::There { id, .. } => id.as_ref(),
            Self::Missing | Self::Hidden | Self::Unclear(_) => None,
        }
    }
}

/// Of each topic that was asked for.
pub(super) type Descriptions = BTreeMap<Arc<str>, Described>;

/// Waits for the answer.
pub(super) fn describe(
    connection: &Connection,
    consumer: &Arc<Consumer>,
    topics: &BTreeSet<Arc<str>>,
    patience: Duration,
) -> Result<Descriptions, TransportError> {
    if topics.is_empty() {
        return Ok(Descriptions::new());
    }
    let questions = Questions::new(consumer.clone(), || {})?;
    retry_until_stopped(connection, &**consumer, "ask for topics", patience, |slice| {
        questions.ask(topics, slice);
        // What ends without an answer says so itself.
        let answer =
            questions.answer(slice + SLICE).unwrap_or(Err(KafkaError::MetadataFetch(Code::RequestTimedOut)))?;
        match answer
            .values()
            .find_map(|described| if let Described::Unclear(code) = described { Some(code) } else { None })
        {
            Some(code) => Err(KafkaError::MetadataFetch(*code)),
            None => Ok(answer),
        }
    })
}

type Bell = Box<dyn Fn() + Send + Sync>;

/// Questions about topics, each answered later. They go through a client that fetches nothing: a broker takes the
/// requests of one connection in turn, and a fetch may wait for records.
pub(super) struct Questions {
    consumer: Arc<Consumer>,
    queue: NonNull<rd_kafka_queue_t>,
    /// Doubly boxed: librdkafka holds a thin pointer to it for as long as the queue lives.
    _bell: Box<Bell>,
}

#[expect(unsafe_code, reason = "rdkafka has no safe way to ask for the id of a topic")]
// SAFETY: librdkafka's queues may be used from any thread, and the bell is `Send` and `Sync`.
unsafe impl Send for Questions {}

#[expect(unsafe_code, reason = "rdkafka has no safe way to ask for the id of a topic")]
impl Questions {
    /// `bell` rings, on a thread of librdkafka, when an answer is there.
    pub fn new(consumer: Arc<Consumer>, bell: impl Fn() + Send + Sync + 'static) -> Result<Self, TransportError> {
        let bell: Box<Bell> = Box::new(Box::new(bell));
        // SAFETY: the client outlives the queue, since `Self` holds it.
        let queue = NonNull::new(unsafe { rd_kafka_queue_new(consumer.client().native_ptr()) })
            .ok_or_else(|| TransportError::Broken("librdkafka made no queue for answers".to_owned()))?;
        // SAFETY: the bell is boxed and lives until `drop` has taken it off the queue.
        unsafe { rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(ring), ptr::from_ref(&*bell) as *mut c_void) };
        Ok(Self { consumer, queue, _bell: bell })
    }

    /// One answer follows, within `patience` or a little more: at the latest, that there is none.
    pub fn ask(&self, topics: &BTreeSet<Arc<str>>, patience: Duration) {
        // The client's own events (tokens, logs) are served by whoever uses it.
        self.consumer.serve(Duration::ZERO);
        let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(&**topic).ok()).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let client = self.consumer.client().native_ptr();
        let mut why = [0; 512];
        // SAFETY: the client and the queue live as long as `self`, the names for this call; librdkafka copies what it is
        // given, and takes neither null collections nor null options from here: both are made without fail.
        unsafe {
            let collection = rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let options = rd_kafka_AdminOptions_new(client, RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            let _ = rd_kafka_AdminOptions_set_request_timeout(options, millis(patience), why.as_mut_ptr(), why.len());
            rd_kafka_DescribeTopics(client, collection, options, self.queue.as_ptr());
            rd_kafka_AdminOptions_destroy(options);
            rd_kafka_TopicCollection_destroy(collection);
        }
    }

    /// None: not within `wait`.
    pub fn answer(&self, wait: Duration) -> Option<KafkaResult<Descriptions>> {
        // SAFETY: the queue lives as long as `self`; the event is ours until it is dropped.
        let event = Event(NonNull::new(unsafe { rd_kafka_queue_poll(self.queue.as_ptr(), millis(wait)) })?);
        Some(event.descriptions())
    }
}

#[expect(unsafe_code, reason = "rdkafka has no safe way to ask for the id of a topic")]
impl Drop for Questions {
    fn drop(&mut self) {
        // SAFETY: the queue is destroyed once, here, before the client; without a callback nobody rings the bell.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

#[expect(unsafe_code, reason = "librdkafka calls it")]
unsafe extern "C" fn ring(_: *mut rd_kafka_t, bell: *mut c_void) {
    // SAFETY: it is the pointer to the bell that `Questions::new` gave.
    let bell = unsafe { &*bell.cast::<Bell>() };
    bell();
}

fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

/// An answer in librdkafka's memory.
struct Event(NonNull<rd_kafka_event_t>);

#[expect(unsafe_code, reason = "rdkafka does not read answers of this kind")]
impl Event {
    fn descriptions(&self) -> KafkaResult<Descriptions> {
        // SAFETY: the event lives as long as `self`, and what is read of it is copied.
        unsafe {
            match Code::from(rd_kafka_event_error(self.0.as_ptr())) {
                Code::NoError => {}
                code => return Err(KafkaError::MetadataFetch(code)),
            }
            let result = rd_kafka_event_DescribeTopics_result(self.0.as_ptr());
            if result.is_null() {
                return Ok(Descriptions::new());
            }
            let mut count = 0;
            let topics = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            let topics = (0..count).map(|index| *topics.add(index)).filter(|topic| !topic.is_null());
            Ok(topics.map(|topic| (name(topic), described(topic))).collect())
        }
    }
}

#[expect(unsafe_code, reason = "rdkafka does not read answers of this kind")]
impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing refers to it any more.
        unsafe { rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

#[expect(unsafe_code, reason = "rdkafka does not read answers of this kind")]
/// # Safety
/// `topic` is part of an event that is alive.
unsafe fn name(topic: *const rd_kafka_TopicDescription_t) -> Arc<str> {
    // SAFETY: a description has a name, which ends with a NUL.
    let name = unsafe { CStr::from_ptr(rd_kafka_TopicDescription_name(topic)) };
    name.to_string_lossy().into()
}

#[expect(unsafe_code, reason = "rdkafka does not read answers of this kind")]
/// # Safety
/// `topic` is part of an event that is alive.
unsafe fn described(topic: *const rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: as promised; an error and an id may be null and are looked at only otherwise.
    unsafe {
        let error = rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() { Code::NoError } else { Code::from(rd_kafka_error_code(error)) };
        match code {
            Code::NoError => {}
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic => return Described::Missing,
            Code::TopicAuthorizationFailed => return Described::Hidden,
            code => return Described::Unclear(code),
        }
        let mut partitions = 0;
        rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let uuid = rd_kafka_TopicDescription_topic_id(topic);
        let none = uuid.is_null()
            || rd_kafka_Uuid_most_significant_bits(uuid) == 0 && rd_kafka_Uuid_least_significant_bits(uuid) == 0;
        let id = (!none).then(|| TopicId(CStr::from_ptr(rd_kafka_Uuid_base64str(uuid)).to_string_lossy().into()));
        Described::There { id, partitions: i32::try_from(partitions).unwrap_or(i32::MAX) }
    }
}
