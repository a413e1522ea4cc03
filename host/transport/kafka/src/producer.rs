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

use rdkafka::producer::BaseProducer;
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

    /// For a call that may never come back: whatever comes of it then ends in its thread, and with it the client.
    pub fn client(&self) -> Arc<BaseProducer<Context>> {
        self.client.clone()
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
