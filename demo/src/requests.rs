//! Orders over HTTP, as any client would send them. Invariant: a request whose answer says nothing of its order is sent again, with
//! the same key.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use sagahost_net::{
    Bounds, Client, Runtime,
    http::{Method, Request, StatusCode, Uri},
};
use tokio::sync::Semaphore;

use crate::workload::Order;

const AGAIN: Duration = Duration::from_millis(100);

/// Those who order.
pub struct Requests {
    runtime: Runtime,
    client: Client,
    url: Uri,
    room: Arc<Semaphore>,
    answers: Arc<Mutex<Answers>>,
}

/// What was answered, by order.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    pub by_order: BTreeMap<String, StatusCode>,
    new: Vec<(String, StatusCode, Instant)>,
    /// Orders that were answered in two ways.
    pub contradictions: Vec<String>,
    /// Requests that were sent again because nothing was known of them.
    pub repeated: usize,
}

impl Requests {
    /// `callers`: requests that are out at once.
    ///
    /// # Errors
    /// No client can be made.
    pub fn new(url: &str, callers: usize) -> Result<Self> {
        const TIMEOUT: Duration = Duration::from_secs(60);
        let bounds = Bounds { timeout: TIMEOUT, connect_timeout: TIMEOUT / 6, body_bytes_max: 1 << 20 };
        Ok(Self {
            runtime: Runtime::start().context("failed to start the threads of the client")?,
            client: Client::new(bounds)?,
            url: url.parse().context("failed to read the address of the host")?,
            room: Arc::new(Semaphore::new(callers)),
            answers: Arc::default(),
        })
    }

    /// Returns when the request is out, not when it is answered.
    ///
    /// # Errors
    /// The order is not JSON.
    pub fn send(&self, order: &Order) -> Result<()> {
        let body = serde_json::to_vec(order).context("an order is JSON")?;
        let place = self.runtime.block_on(self.room.clone().acquire_owned())?;
        let (client, url, id) = (self.client.clone(), self.url.clone(), order.order_id.clone());
        let answers = self.answers.clone();
        self.runtime.spawn(async move {
            loop {
                match ask(&client, &url, &id, &body).await {
                    Some(status) => break answers.lock().answered(id, status),
                    None => answers.lock().repeated += 1,
                }
                tokio::time::sleep(AGAIN).await;
            }
            drop(place);
        });
        Ok(())
    }

    pub fn answers(&self) -> Answers {
        self.answers.lock().clone()
    }

    pub fn repeated(&self) -> usize {
        self.answers.lock().repeated
    }

    /// Those that were answered since: the order, whether it completed, and when.
    pub fn take_ended(&self, mut ended: impl FnMut(&str, bool, Instant)) {
        for (order, status, at) in std::mem::take(&mut self.answers.lock().new) {
            ended(&order, status == StatusCode::OK, at);
        }
    }
}

/// None: nothing is known of the order.
async fn ask(client: &Client, url: &Uri, key: &str, body: &[u8]) -> Option<StatusCode> {
    let mut request = Request::new(body.to_vec().into());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    let headers = request.headers_mut();
    headers.insert("content-type", "application/json".parse().ok()?);
    headers.insert("idempotency-key", key.parse().ok()?);
    headers.insert("prefer", "wait=50".parse().ok()?);
    let answer = client.ask(request).await.ok()?;
    let decided = answer.headers().get("sagahost-outcome").is_some_and(|outcome| outcome != "running");
    decided.then(|| answer.status())
}

impl Answers {
    fn answered(&mut self, order: String, status: StatusCode) {
        self.new.push((order.clone(), status, Instant::now()));
        if let Some(before) = self.by_order.insert(order.clone(), status).filter(|before| *before != status) {
            self.contradictions.push(format!("{order}: {before}, and later {status}"));
        }
    }

    /// Orders of which the topics say something else; each line is one.
    pub fn faults(&self, completed: impl Fn(&str) -> bool) -> Vec<String> {
        let wrong = self.by_order.iter().filter(|(order, status)| completed(order) != (**status == StatusCode::OK));
        let lines = wrong.map(|(order, status)| format!("{order}: answered {status}, and the topics say otherwise"));
        self.contradictions.iter().cloned().chain(lines).collect()
    }
}
