//! A topic that is deleted and made again under its name. Invariant: it is held by name, whatever it holds by then, and
//! no position of one topic is ever journaled as one of the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use sagahost_demo::{
    broker::{Broker, Options},
    workload::Order,
};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Settings, Topics},
    shop::THREE,
    topic_admin::TopicAdmin,
};
use sagahost_transport::{Assignment, Polled, Transport, Verified, waiting::Waiting};
use sagahost_wire::{Partition, TopicId};

use crate::shops::load;

const LONG: Duration = Duration::from_secs(90);

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(Options::default()).expect("a broker"))
}

fn admin() -> TopicAdmin {
    TopicAdmin::new(&broker().bootstrap())
}

/// `count` records `text-N` in each of so many partitions.
fn fill(topic: &str, partitions: i32, count: usize, text: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker().bootstrap()).set("linger.ms", "1");
    let producer: BaseProducer = config.create().expect("a producer");
    for n in 0..count {
        for number in 0..partitions {
            let value = format!("{text}-{n}");
            let record = BaseRecord::<str, str>::to(topic).partition(number).key("k").payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
        }
    }
    producer.flush(Duration::from_secs(30)).expect("the broker takes records");
}

/// What a source said.
#[derive(Default)]
struct Heard {
    records: Vec<(Partition, i64, String)>,
    verified: Vec<Verified>,
    held: BTreeMap<Partition, String>,
}

impl Heard {
    fn poll(&mut self, source: &mut Waiting) {
        match source.poll(Duration::from_millis(50)).expect("it polls") {
            Some(Polled::Record(record)) => {
                let value = String::from_utf8(record.value.unwrap_or_default()).expect("text");
                self.records.push((record.partition, record.offset, value));
            }
            Some(Polled::Verified(all)) => self.verified.extend(all),
            Some(Polled::Held { partition, why }) => {
                assert!(!self.held.contains_key(&partition), "{partition} is held twice: {why}");
                self.held.insert(partition, why);
            }
            Some(Polled::Appeared(partitions)) => panic!("partitions of another topic are read: {partitions:?}"),
            _ => {}
        }
    }

    fn until(&mut self, source: &mut Waiting, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LONG;
        while !done(self) {
            assert!(
                Instant::now() < end,
                "waited for {what}: {} records, held {:?}, verified {:?}",
                self.records.len(),
                self.held,
                self.verified.last()
            );
            self.poll(source);
        }
    }

    fn verified_up_to(&self, partition: &Partition, id: &TopicId) -> i64 {
        let of = self.verified.iter().filter(|of| of.partition == *partition && of.topic_id == *id);
        of.map(|of| of.up_to).max().unwrap_or(-1)
    }
}

fn id(transport: &dyn Transport, topic: &Arc<str>) -> TopicId {
    transport.topic_ids(std::slice::from_ref(topic)).expect("the broker answers").remove(topic).expect("it has an id")
}

/// Until the broker has heard of it, what is sent to the name still goes to the topic that is deleted.
fn create_another(transport: &dyn Transport, topic: &Arc<str>, partitions: i32, old: &TopicId) {
    admin().create(topic, partitions);
    let end = Instant::now() + LONG;
    let is_other = |id: &TopicId| id != old;
    while !transport
        .topic_ids(std::slice::from_ref(topic))
        .expect("the broker answers")
        .get(topic)
        .is_some_and(is_other)
    {
        assert!(Instant::now() < end, "the broker still has the old topic");
    }
}

/// So many records in each partition before, and more of them in the new topic, so that offsets tell nothing.
const BEFORE: usize = 100;
const AFTER: usize = 400;

/// A source that has read everything, and what it said.
fn read_all(transport: &dyn Transport, topic: &Arc<str>, partitions: i32) -> (Waiting, Heard) {
    let mut source = Waiting::new(transport.source().expect("a source"));
    let all: Vec<_> = (0..partitions).map(|number| Assignment::new(Partition::new(topic, number), 0)).collect();
    source.assign(&all).expect("partitions can be assigned");
    let mut heard = Heard::default();
    let id = id(transport, topic);
    let count = BEFORE as i64;
    heard.until(&mut source, "all to be verified", |heard| {
        all.iter().all(|at| heard.verified_up_to(&at.partition, &id) == count)
    });
    assert_eq!(heard.records.len(), BEFORE * partitions as usize);
    (source, heard)
}

/// Deleted and made again under a source that reads it.
fn made_anew_while_read(name: &str, pause: Duration, partitions: (i32, i32)) {
    let topic: Arc<str> = name.into();
    let transport = broker().transport(name).expect("a client");
    admin().create(name, partitions.0);
    fill(name, partitions.0, BEFORE, "old");
    let (mut source, mut heard) = read_all(&transport, &topic, partitions.0);
    let old = id(&transport, &topic);
    let refilled = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let admin = admin();
            admin.delete(name);
            std::thread::sleep(pause);
            create_another(&transport, &topic, partitions.1, &old);
            let made = Instant::now();
            fill(name, partitions.1, AFTER, "new");
            made
        });
        heard.until(&mut source, "all partitions to be held", |heard| heard.held.len() == partitions.0 as usize);
        let noticed = Instant::now();
        let made = other.join().expect("the topic is recreated");
        noticed.saturating_duration_since(made)
    });
    let early = heard.records.iter().filter(|(_, _, value)| value.starts_with("new")).count();
    eprintln!("{name}: held {} ms after it was made, {early} records of it were read before", refilled.as_millis());
    for (partition, why) in &heard.held {
        assert!(why.contains(&partition.to_string()), "{why}");
        assert!(why.contains("recreated") || why.contains("was deleted"), "{why}");
        assert!(pause > Duration::from_secs(1) || why.contains(&format!("its id was {old}, now it is ")), "{why}");
        assert_eq!(
            heard.verified_up_to(partition, &old),
            BEFORE as i64,
            "positions of the new topic count for the old"
        );
    }
    assert!(heard.verified.iter().all(|of| of.topic_id == old), "the new topic was read without a word");
    resumed_from_the_beginning(&transport, &topic, partitions.1, source, &old);
}

/// An operator goes on from `earliest`: everything that the new topic holds comes.
fn resumed_from_the_beginning(
    transport: &dyn Transport,
    topic: &Arc<str>,
    partitions: i32,
    mut source: Waiting,
    old: &TopicId,
) {
    let new = id(transport, topic);
    assert_ne!(new, *old);
    // Where it stood there is nothing: the host asks again and is told again.
    let stood = Assignment { topic_id: Some(old.clone()), ..Assignment::new(Partition::new(topic, 0), BEFORE as i64) };
    source.assign(&[stood]).expect("partitions can be assigned");
    let mut heard = Heard::default();
    heard.until(&mut source, "it to be held", |heard| !heard.held.is_empty());
    assert!(heard.held.values().all(|why| why.contains("recreated")), "{:?}", heard.held);
    let mut heard = Heard::default();
    let at = |number| Assignment { topic_id: Some(new.clone()), ..Assignment::new(Partition::new(topic, number), 0) };
    source.assign(&(0..partitions).map(at).collect::<Vec<_>>()).expect("partitions can be assigned");
    heard.until(&mut source, "all of the new topic", |heard| heard.records.len() >= AFTER * partitions as usize);
    assert!(heard.held.is_empty(), "{:?}", heard.held);
    assert!(heard.records.iter().all(|(_, offset, value)| *value == format!("new-{offset}")));
}

#[test]
fn at_once() {
    for (n, partitions) in [(1, 1), (2, 2), (1, 3), (3, 1)].into_iter().enumerate() {
        made_anew_while_read(&format!("at-once-{n}"), Duration::ZERO, partitions);
    }
}

#[test]
fn after_a_moment() {
    for (n, pause) in [50, 200, 500].into_iter().enumerate() {
        made_anew_while_read(&format!("a-moment-{n}"), Duration::from_millis(pause), (2, 2));
    }
}

#[test]
fn after_seconds() {
    std::thread::scope(|scope| {
        for (n, (seconds, partitions)) in [(2, (2, 2)), (5, (1, 3)), (10, (3, 1))].into_iter().enumerate() {
            let name = format!("seconds-{n}");
            scope.spawn(move || made_anew_while_read(&name, Duration::from_secs(seconds), partitions));
        }
    });
}

/// Again and again, so that each moment of a question is met. Nothing of the old topic is journaled as the new one's.
#[test]
fn while_records_flow() {
    let name = "flow";
    let topic: Arc<str> = name.into();
    let transport = broker().transport(name).expect("a client");
    let admin = admin();
    let mut early = Vec::new();
    for round in 0..10 {
        admin.create(name, 1);
        fill(name, 1, BEFORE, "old");
        let (mut source, mut heard) = read_all(&transport, &topic, 1);
        let old = id(&transport, &topic);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Where in the time between two questions it happens is different each time.
                fill(name, 1, round * 3, "old");
                admin.delete(name);
                create_another(&transport, &topic, 1, &old);
                fill(name, 1, AFTER, "new");
            });
            heard.until(&mut source, "it to be held", |heard| !heard.held.is_empty());
        });
        let new = heard.records.iter().filter(|(_, _, value)| value.starts_with("new")).count();
        let last = heard.records.iter().filter(|(_, _, value)| value.starts_with("old")).map(|(_, offset, _)| *offset);
        let end = last.max().unwrap_or(-1) + 1;
        let verified = heard.verified_up_to(&Partition::new(name, 0), &old);
        assert!(verified <= end, "{verified} is verified, the old topic was read up to {end}");
        early.push(new);
        drop(source);
        admin.delete(name);
    }
    eprintln!("records of the new topic that were read before it was held: {early:?}");
}

/// A position without an id takes the one that it sees, but only once its record is seen to be the same.
#[test]
fn a_position_of_an_older_host_takes_the_id_after_the_old_check() {
    let name = "older-host";
    let topic: Arc<str> = name.into();
    let transport = broker().transport(name).expect("a client");
    admin().create(name, 1);
    fill(name, 1, BEFORE, "old");
    let partition = Partition::new(name, 0);
    let mut source = Waiting::new(transport.source().expect("a source"));
    source.assign(&[Assignment::new(partition.clone(), 0)]).expect("partitions can be assigned");
    let mut last = None;
    let end = Instant::now() + LONG;
    while last.is_none_or(|(offset, _)| offset < BEFORE as i64 - 1) {
        assert!(Instant::now() < end, "all records: {last:?}");
        if let Some(Polled::Record(record)) = source.poll(Duration::from_millis(50)).expect("it polls") {
            last = Some((record.offset, record.timestamp_ms.expect("a record has a time")));
        }
    }
    let as_journaled = Assignment { last, ..Assignment::new(partition.clone(), BEFORE as i64) };
    let mut heard = Heard::default();
    source.assign(std::slice::from_ref(&as_journaled)).expect("partitions can be assigned");
    heard.until(&mut source, "the id", |heard| !heard.verified.is_empty());
    assert_eq!(heard.verified_up_to(&partition, &id(&transport, &topic)), BEFORE as i64);
    assert!(heard.held.is_empty() && heard.records.is_empty());

    drop(source);
    admin().delete(name);
    admin().create(name, 1);
    fill(name, 1, AFTER, "new");
    let mut source = Waiting::new(transport.source().expect("a source"));
    let mut heard = Heard::default();
    source.assign(&[as_journaled]).expect("partitions can be assigned");
    heard.until(&mut source, "it to be held", |heard| !heard.held.is_empty());
    assert!(heard.held[&partition].contains("another record"), "{:?}", heard.held);
    assert!(heard.verified.is_empty(), "an id was taken before the old check");
}

/// Not a test: prints what the questions cost. Alone in its process, since it reads the time of the whole one.
#[test]
#[ignore = "a measurement"]
fn what_the_questions_cost() {
    let name = "cost";
    let topic: Arc<str> = name.into();
    let transport = broker().transport(name).expect("a client");
    admin().create(name, 4);
    fill(name, 4, BEFORE, "old");
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let started = Instant::now();
            id(&transport, &topic);
            started.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("an answer: median {:?}, p90 {:?}", times[100], times[180]);
    let (mut source, _) = read_all(&transport, &topic, 4);
    let before = ticks();
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        source.poll(Duration::from_millis(100)).expect("it polls");
    }
    eprintln!("an idle source: {} ms of CPU in 20 s", (ticks() - before) * 10);
}

/// Hundredths of a second that this process has used.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

// ---- the whole host

fn shop(name: &str) -> KafkaShop<'static> {
    KafkaShop::with(broker(), name, &THREE, &Topics(name.to_owned()), &Settings::default())
}

fn positions(shop: &KafkaShop<'_>, topic: &str) -> BTreeMap<i32, (i64, Option<String>)> {
    let journal = rusqlite::Connection::open(shop.data().join("journal.db")).expect("the journal can be opened");
    let mut rows = journal.prepare("SELECT number, next, topic_id FROM position WHERE topic = ?1").expect("a table");
    let rows = rows.query_map([topic], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).expect("rows");
    rows.collect::<Result<_, _>>().expect("positions")
}

/// Each held partition, from the beginning; without a place nothing goes on.
fn resume_all(shop: &KafkaShop<'_>, topic: &str, partitions: i32) {
    for number in 0..partitions {
        let partition = format!("{topic}[{number}]");
        let refused = shop.command(&["topics", "resume", &partition]);
        assert!(!refused.status.success());
        let text = format!("{refused:?}");
        assert!(text.contains("recreated") && text.contains("--from earliest"), "{text}");
        let resumed = shop.command(&["topics", "resume", &partition, "--from", "earliest"]);
        assert!(resumed.status.success(), "{resumed:?}");
    }
}

/// `down`: the host does not run while the topic is recreated.
fn host_holds_what_was_made_anew(name: &str, down: bool, partitions: i32) {
    let shop = shop(name);
    let orders = load(600);
    let mut host = shop.start();
    host.says("serving socket=", LONG);
    let mut watch = shop.watch();
    shop.produce_cloud_events(&orders[..100]);
    watch.until(100, LONG);
    shop.until_quiet();
    let topic = shop.topics.of("OrderCreated");
    if down {
        assert!(host.stop().success());
        host = {
            let before = positions(&shop, &topic);
            remake(&shop, &topic, partitions, &orders);
            let host = shop.start();
            check_held(&shop, &topic, partitions, &before);
            host
        };
    } else {
        let before = positions(&shop, &topic);
        remake(&shop, &topic, partitions, &orders);
        check_held(&shop, &topic, partitions, &before);
    }
    resume_all(&shop, &topic, partitions.min(4));
    watch.until(orders.len(), LONG);
    shop.until_quiet();
    let ids: Vec<_> = positions(&shop, &topic).into_iter().filter(|(number, _)| *number < partitions).collect();
    assert!(ids.windows(2).all(|pair| pair[0].1.1 == pair[1].1.1), "{ids:?}");
    assert!(host.stop().success());
    // The new id is journaled: nothing is held, nothing runs again.
    let host = shop.start();
    let status = shop.until_quiet();
    assert!(!status.held().contains(&topic), "{status:?}");
    assert_eq!(status.counter("calls"), 0);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

/// Refilled beyond the old positions at once.
fn remake(shop: &KafkaShop<'_>, topic: &str, partitions: i32, orders: &[Order]) {
    let transport = broker().transport("remake").expect("a client");
    let name: Arc<str> = topic.into();
    let old = id(&transport, &name);
    admin().delete(topic);
    create_another(&transport, &name, partitions, &old);
    shop.produce_cloud_events(&orders[100..]);
}

fn check_held(shop: &KafkaShop<'_>, topic: &str, partitions: i32, before: &BTreeMap<i32, (i64, Option<String>)>) {
    let names: Vec<_> = (0..partitions.min(4)).map(|number| format!("{topic}[{number}]")).collect();
    let status =
        shop.until("the partitions to be held", LONG, |status| names.iter().all(|name| status.held().contains(name)));
    assert!(status.held().contains("the topic was recreated (its id was "), "{status:?}");
    let after = positions(shop, topic);
    assert!(before.values().all(|(_, id)| id.is_some()), "{before:?}");
    for (number, position) in before {
        assert_eq!(after.get(number), Some(position), "a position of the new topic was journaled for the old one");
    }
}

#[test]
fn a_running_host_holds_it_and_goes_on_from_where_it_is_told() {
    host_holds_what_was_made_anew("anew-running", false, 4);
}

#[test]
fn a_host_that_was_down_holds_it() {
    host_holds_what_was_made_anew("anew-down", true, 4);
}

#[test]
fn more_partitions_than_before() {
    host_holds_what_was_made_anew("anew-more", false, 6);
}

#[test]
fn fewer_partitions_than_before() {
    host_holds_what_was_made_anew("anew-fewer", false, 2);
}
