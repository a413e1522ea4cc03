//! Orders that come, and their ends as any consumer of the topics reads them. Invariant: whoever is measured, each order ends once
//! with the right result; otherwise no figure is reported.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use sagahost_demo::{
    feeder::Feeder,
    workload::{LIMIT_CENTS, Order, Shape, orders},
};

const CALL: Duration = Duration::from_secs(10);
/// Between two ends, at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// Handed to the producer at once.
const CHUNK: usize = 500;

/// One in ten is declined.
pub fn shape(orders: usize, prefix: &str) -> Shape {
    let prefix = prefix.to_owned();
    Shape { orders, customers: 2_000, articles: 1_000, declined_one_in: 10, scarce_one_in: 0, prefix }
}

/// An order's end: its number, whether it completed, and when that was read.
type End = (String, bool, Instant);

/// Who orders, and reads what becomes of that.
pub struct Load {
    feeder: Feeder,
    ends: Receiver<Result<End>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// How long orders took.
pub struct Ran {
    /// From the first order to the last end.
    pub took: Duration,
    /// Of each order, from when it was due to its end; in seconds.
    pub latencies: Vec<f64>,
}

impl Load {
    /// What ends from now on is read.
    pub fn begin(bootstrap: &str) -> Result<Self> {
        let consumer = consumer(bootstrap)?;
        let (sender, ends) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let read = move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(read) = consumer.poll(Duration::from_millis(200)) else { continue };
                let end = read.context("failed to read an end").and_then(|record| {
                    let order = String::from_utf8(record.key().context("its key is the order")?.to_vec())?;
                    Ok((order, record.topic() == "order-completed", Instant::now()))
                });
                if sender.send(end).is_err() {
                    return;
                }
            }
        };
        Ok(Self { feeder: Feeder::kafka(bootstrap)?, ends, stop, reader: Some(thread::spawn(read)) })
    }

    /// All at once, as fast as they are taken.
    pub fn burst(&self, shape: &Shape) -> Result<Ran> {
        let all: Vec<Order> = orders(shape).collect();
        let began = Instant::now();
        for chunk in all.chunks(CHUNK) {
            self.feeder.send(&chunk.iter().collect::<Vec<_>>())?;
        }
        let mut ends = Ends::of(&all);
        while ends.missing > 0 {
            self.take(&mut ends, Instant::now() + PATIENCE)?;
        }
        Ok(ends.ran(began, |_| began))
    }

    /// So many a second, whatever becomes of those before. An order's time begins when it is due, not when it is sent: who is
    /// held up does not look faster (coordinated omission). None: they come faster than they end.
    pub fn paced(&self, shape: &Shape, per_second: f64, behind: Duration) -> Result<Option<Ran>> {
        let all: Vec<Order> = orders(shape).collect();
        let began = Instant::now();
        let due = |number: usize| began + Duration::from_secs_f64(number as f64 / per_second);
        let (mut ends, mut sent) = (Ends::of(&all), 0);
        while sent < all.len() {
            let now = Instant::now();
            let first = sent;
            while sent < all.len() && due(sent) <= now {
                sent += 1;
            }
            self.feeder.send(&all[first..sent].iter().collect::<Vec<_>>())?;
            let next = due(sent).min(now + Duration::from_millis(1)).max(now + Duration::from_micros(200));
            self.take_until(&mut ends, next)?;
        }
        let last = Instant::now() + behind;
        while ends.missing > 0 && Instant::now() < last {
            self.take_until(&mut ends, last.min(Instant::now() + Duration::from_millis(20)))?;
        }
        let carried = ends.missing == 0;
        while ends.missing > 0 {
            self.take(&mut ends, Instant::now() + PATIENCE)?;
        }
        Ok(carried.then(|| ends.ran(began, due)))
    }

    /// One order when the one before it has ended.
    pub fn one_at_a_time(&self, shape: &Shape) -> Result<Ran> {
        let began = Instant::now();
        let mut latencies = Vec::new();
        for order in orders(shape) {
            let sent = Instant::now();
            self.feeder.send(&[&order])?;
            let all = [order];
            let mut ends = Ends::of(&all);
            while ends.missing > 0 {
                self.take(&mut ends, sent + PATIENCE)?;
            }
            latencies.extend(ends.ran(sent, |_| sent).latencies);
        }
        Ok(Ran { took: began.elapsed(), latencies })
    }

    /// Whatever has come by then.
    fn take_until(&self, ends: &mut Ends<'_>, until: Instant) -> Result<()> {
        loop {
            match self.ends.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(end) => ends.add(end?)?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => bail!("whoever reads the ends has ended"),
            }
        }
    }

    /// One, at least.
    fn take(&self, ends: &mut Ends<'_>, until: Instant) -> Result<()> {
        match self.ends.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(end) => ends.add(end?),
            Err(RecvTimeoutError::Timeout) => {
                bail!("of {} orders {} have not ended, and no more do", ends.orders.len(), ends.missing)
            }
            Err(RecvTimeoutError::Disconnected) => bail!("whoever reads the ends has ended"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// What became of each of these orders.
struct Ends<'o> {
    orders: &'o [Order],
    at: Vec<Option<Instant>>,
    missing: usize,
}

impl<'o> Ends<'o> {
    fn of(orders: &'o [Order]) -> Self {
        Self { orders, at: vec![None; orders.len()], missing: orders.len() }
    }

    fn add(&mut self, (order, completed, at): End) -> Result<()> {
        // Their numbers are their ends, from the first one's on.
        let number = |id: &str| id.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
        let first = self.orders.first().and_then(|first| number(&first.order_id)).unwrap_or(0);
        let place = number(&order).and_then(|number| number.checked_sub(first)).unwrap_or(usize::MAX);
        let known = self.orders.get(place).filter(|known| known.order_id == order);
        let known = known.with_context(|| format!("{order} ended, and was not sent"))?;
        ensure!(self.at[place].replace(at).is_none(), "{order} ended twice");
        let wanted = known.amount_cents <= LIMIT_CENTS;
        ensure!(completed == wanted, "{order} {}", if completed { "completed" } else { "was cancelled" });
        self.missing -= 1;
        Ok(())
    }

    fn ran(&self, began: Instant, due: impl Fn(usize) -> Instant) -> Ran {
        let ended = self.at.iter().enumerate().filter_map(|(number, at)| Some((number, (*at)?)));
        let last = self.at.iter().flatten().max().copied().unwrap_or(began);
        let latencies = ended.map(|(number, at)| at.saturating_duration_since(due(number)).as_secs_f64()).collect();
        Ran { took: last.saturating_duration_since(began), latencies }
    }
}

/// From the ends of the topics on.
fn consumer(bootstrap: &str) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "bench").set("enable.auto.commit", "false");
    config.set("isolation.level", "read_committed").set("fetch.wait.max.ms", "100").set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = config.create()?;
    let mut from = TopicPartitionList::new();
    for topic in ["order-completed", "order-cancelled"] {
        let metadata = consumer.fetch_metadata(Some(topic), CALL)?;
        let partitions = metadata.topics().first().context("the topic is there")?.partitions().len();
        for partition in 0..i32::try_from(partitions)? {
            let (_, end) = consumer.fetch_watermarks(topic, partition, CALL)?;
            from.add_partition_offset(topic, partition, Offset::Offset(end))?;
        }
    }
    consumer.assign(&from)?;
    Ok(consumer)
}
