//! A producer with a thread that takes its events. Invariant: whoever waits for delivery reports sleeps until the last
//! one is in; nobody asks librdkafka again and again.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::bounded;
use rdkafka::{
    TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::KafkaResult,
    producer::{BaseProducer, Producer as _},
};
use sagahost_transport::TransportError;

use super::{connection::Served, context::Context};

/// How long one poll lasts, and so how long a producer takes to end. rdkafka rounds what is left of a timeout down to
/// milliseconds and asks again and again until the rest is over: with the fraction that rest is over at once.
const POLL: Duration = Duration::from_micros(100_050);

pub(super) struct Producer {
    client: Arc<BaseProducer<Context>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    pub fn serving(client: BaseProducer<Context>) -> Result<Self, TransportError> {
        let client = Arc::new(client);
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (client.clone(), stop.clone());
        let thread = thread::Builder::new()
            .name("producer events".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    served.poll(POLL);
                }
            })
            .map_err(|error| TransportError::Broken(format!("failed to start a thread for a producer: {error}")))?;
        Ok(Self { client, stop, thread: Some(thread) })
    }

    /// `send_offsets_to_transaction`, within `patience`. While the group's coordinator is away librdkafka forgets the
    /// timeout of this call (confluentinc/librdkafka#5456), so it is made in a thread of its own. None: it has not come
    /// back. Whatever comes of it then ends in that thread, and with it the client: this producer is lost.
    pub fn send_offsets(
        &self,
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
        timeout: Duration,
        patience: Duration,
    ) -> Option<KafkaResult<()>> {
        let (answer, answered) = bounded(1);
        let client = self.client.clone();
        let started = thread::Builder::new().name("offsets".to_owned()).spawn(move || {
            let _ = answer.send(client.send_offsets_to_transaction(&offsets, &group, timeout));
        });
        started.is_ok().then(|| answered.recv_timeout(patience).ok()).flatten()
    }
}

impl Deref for Producer {
    type Target = BaseProducer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Served for Producer {
    /// Its thread does.
    fn serve(&self, _timeout: Duration) {}

    fn context(&self) -> &Context {
        rdkafka::producer::Producer::context(&*self.client)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
