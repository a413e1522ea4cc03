//! Deletes and makes topics within milliseconds, which Kafka's own tools do not.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode as Code,
};

pub struct TopicAdmin(AdminClient<DefaultClientContext>);

impl TopicAdmin {
    pub fn new(bootstrap: &str) -> Self {
        Self(ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client"))
    }

    pub fn delete(&self, topic: &str) {
        let deleted = wait(self.0.delete_topics(&[topic], &options())).expect("the broker answers");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// A broker may not have heard yet that the one before is gone.
    pub fn create(&self, topic: &str, partitions: i32) {
        self.create_with(topic, partitions, &[]);
    }

    pub fn create_with(&self, topic: &str, partitions: i32, properties: &[(&str, &str)]) {
        let end = Instant::now() + Duration::from_secs(60);
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = properties.iter().fold(new, |new, (name, value)| new.set(name, value));
        loop {
            let created = wait(self.0.create_topics([&new], &options())).expect("the broker answers");
            match created.first() {
                Some(Ok(_)) => return,
                Some(Err((_, Code::TopicAlreadyExists))) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(5));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// On this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}
