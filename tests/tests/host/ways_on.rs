//! Where the host cannot go on by itself, and a person can: each way on, taken. Embedded topics, in this process.

use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use sagahost::host::Host;
use sagahost_demo::workload::{LIMIT_CENTS, Order, Shape, orders};
use sagahost_journal::{Journal, LetterFilter};
use sagahost_operator::ResumeFrom;
use sagahost_saga::input::{Command, Status};
use sagahost_tests::{
    faulty::Death,
    shop::{PATIENCE, Shop, THREE},
};
use sagahost_transport::Transport as _;
use sagahost_wire::Partition;

fn some_orders(count: usize) -> Vec<Order> {
    orders(&Shape { customers: 20, articles: 10, ..Shape::of(count) }).collect()
}

/// Polls until it is so; says what was waited for.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn status(journal: &dyn Journal, saga: &str) -> Option<Status> {
    let row = journal.saga(&saga.into()).expect("the journal can be read")?;
    Some(sagahost_saga::Saga::decode(&row.bytes).expect("the record can be read").status())
}

fn stop(host: Host) {
    assert!(!host.stop(Duration::from_secs(10)).cut_off);
}

fn retry(host: &Host, saga: &str) -> Result<String, String> {
    host.live()
        .command(&saga.into(), Command::Retry { by: "ann".to_owned() })
        .map(|answer| answer.text)
        .map_err(|refusal| refusal.text)
}

/// SEMANTICS.md, race 20.
#[test]
fn a_corrupt_saga_record_is_quarantined_and_goes_on_when_it_is_repaired() {
    let shop = Shop::new(&["order", "payment"], "");
    let orders = some_orders(12);
    let saga = orders[0].order_id.clone();
    let host = shop.start();
    shop.produce(&orders[..1]);
    until("the order's payment", || shop.read(&["payment-processed"]).len() == 1);
    stop(host);

    let connection = Connection::open(shop.data().join("journal.db")).expect("the journal opens");
    let bytes: Vec<u8> =
        connection.query_row("SELECT bytes FROM saga WHERE id = ?1", [&saga], |row| row.get(0)).expect("it is there");
    let set = |bytes: &[u8]| {
        let changed = connection.execute("UPDATE saga SET bytes = ?2 WHERE id = ?1", params![saga, bytes]);
        assert_eq!(changed.expect("the record can be changed"), 1);
    };
    let mut corrupt = bytes.clone();
    corrupt[bytes.len() / 2] ^= 0xff;
    set(&corrupt);

    sagahost_tests::built::copy(&["inventory"], &shop.dir.path().join("plugins"));
    let host = shop.start();
    let journal = host.journal();
    let letters = |saga: &str| {
        let of_saga = LetterFilter { saga: Some(saga.into()), open_only: true, limit: 10, ..LetterFilter::default() };
        journal.letters(&of_saga).expect("letters can be read")
    };
    let refused = host.live().command(&saga.as_str().into(), Command::Retry { by: "ann".to_owned() });
    assert!(refused.is_err_and(|why| why.text.contains("the checksum differs")), "the first to meet it is told");
    let cancelled = sagahost_wire::Outgoing {
        topic: "saga-failed".into(),
        key: Some(saga.clone().into_bytes()),
        value: Some(b"{}".to_vec()),
        headers: [("ce_id", "f-1"), ("ce_source", "test"), ("ce_type", "SagaFailed"), ("ce_specversion", "1.0")]
            .map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec())))
            .to_vec(),
    };
    shop.topics().offer(&cancelled).expect("a record can be appended");
    until("the event to be kept aside", || letters(&saga).len() == 1);
    let letter = letters(&saga).remove(0);
    assert_eq!((letter.code.as_str(), &letter.record), ("saga-quarantined", &cancelled));

    shop.produce(&orders[1..]);
    let ends = shop.await_ends(&orders[1..], &Death::never(), PATIENCE);
    assert_eq!(ends.len(), orders.len() - 1, "the others are served");
    stop(host);

    let host = shop.start();
    let journal = host.journal();
    let again = retry(&host, &saga).expect("it is released");
    assert!(again.contains("1 events that were kept aside"), "{again}");
    until("the quarantine to come back, for the record is corrupt as before", || {
        journal.quarantined(&saga.as_str().into()).expect("it reads").is_some()
    });

    set(&bytes);
    retry(&host, &saga).expect("it is released");
    until("the saga to go on", || status(&*journal, &saga) == Some(Status::Compensated));
    let left = LetterFilter { saga: Some(saga.as_str().into()), open_only: true, limit: 10, ..LetterFilter::default() };
    assert_eq!(journal.letters(&left).expect("letters can be read"), []);
    assert_eq!(shop.ends().len(), orders.len());
    stop(host);
}

#[test]
fn a_topic_made_anew_is_held_and_goes_on_from_where_it_is_told() {
    let shop = Shop::new(&THREE, "");
    let orders = some_orders(120);
    let (before, others) = orders.split_at(40);
    let (after, last) = others.split_at(40);
    let host = shop.start();
    shop.produce(before);
    shop.await_ends(before, &Death::never(), PATIENCE);
    stop(host);
    for file in ["topics.db", "topics.db-wal", "topics.db-shm"] {
        let _ = std::fs::remove_file(shop.data().join(file));
    }

    shop.produce(after);
    let host = shop.start();
    let live = host.live();
    let held = |partition: &Partition| live.status().held.iter().any(|text| text.starts_with(&partition.to_string()));
    let partitions: Vec<Partition> = (0..4).map(|number| Partition::new("order-created", number)).collect();
    until("the partitions to be held", || partitions.iter().all(held));
    let text = live.status().held.concat();
    assert!(text.contains("the topic was recreated") && text.contains("sagahost topics resume"), "{text}");

    let refused = live.resume(&Partition::new("order-created", 9), None).expect_err("there is no such partition");
    assert!(refused.text.contains("is not held"), "{refused}");
    let refused = live.resume(&partitions[0], Some(ResumeFrom::Offset(1_000_000))).expect_err("it is beyond the end");
    assert!(refused.text.contains("is outside that range"), "{refused}");
    for partition in &partitions {
        live.resume(partition, Some(ResumeFrom::Earliest)).expect("it goes on");
    }
    // The host's own topics are new as well.
    for number in 0..4 {
        for topic in ["payment-processed", "inventory-updated", "inventory-rejected", "payment-failed", "saga-failed"] {
            let partition = Partition::new(topic, number);
            if held(&partition) {
                live.resume(&partition, Some(ResumeFrom::Earliest)).expect("it goes on");
            }
        }
    }
    let ends = shop.await_ends(after, &Death::never(), PATIENCE);
    assert_eq!(ends.faults(after), Vec::<String>::new());
    stop(host);

    let host = shop.start();
    shop.produce(last);
    let ends = shop.await_ends(others, &Death::never(), PATIENCE);
    let held = host.live().status().held;
    assert!(!held.iter().any(|text| text.starts_with("order-created")), "{held:?}");
    assert_eq!(ends.faults(others), Vec::<String>::new());
    stop(host);
}

/// What a plugin did is undone also when its file is gone: by the code that the host kept.
#[test]
fn a_step_is_undone_by_stored_code_when_its_plugin_is_away() {
    let shop = Shop::new(&["order", "payment"], "");
    let orders = some_orders(1);
    let saga = orders[0].order_id.clone();
    let host = shop.start();
    shop.produce(&orders);
    until("the payment", || shop.read(&["payment-processed"]).len() == 1);
    stop(host);

    std::fs::remove_file(shop.dir.path().join("plugins/payment.wasm")).expect("the plugin is there");
    let host = shop.start();
    let cancel = Command::Cancel { by: "ann".to_owned(), reason: "a test".to_owned() };
    host.live().command(&saga.as_str().into(), cancel).expect("it is taken");
    let journal = host.journal();
    until("the saga to be compensated", || status(&*journal, &saga) == Some(Status::Compensated));
    until("the refund", || shop.read(&["payment-refunded"]).len() == 1);
    assert_eq!(shop.ends().cancelled.len(), 1);
    shop.assert_right(&orders, &*journal);
    stop(host);
}

/// Offsets of a batch cover those before it: what is behind a refused one must not go out when the host is told to end.
#[test]
fn a_refused_batch_and_what_is_behind_it_go_out_at_the_next_start() {
    let shop = Shop::new(&THREE, "[pipeline]\nbatch-chains-max = 1\n");
    // Those behind it are declined: no row of theirs goes to the topic that refuses.
    let mut orders = some_orders(8);
    orders[1..].iter_mut().for_each(|order| order.amount_cents += LIMIT_CENTS);
    let host = shop.start();
    let topics = Connection::open(shop.data().join("topics.db")).expect("the topics open");
    topics.busy_timeout(PATIENCE).expect("a time-out can be set");
    let rename = |from: &str, to: &str| {
        let changed = topics.execute("UPDATE topics SET name = ?2 WHERE name = ?1", [from, to]);
        assert_eq!(changed.expect("the topic can be renamed"), 1);
    };
    rename("order-completed", "elsewhere");
    shop.produce(&orders[..1]);
    until("a row to be refused", || host.live().status().waiting_for.iter().any(|why| why.contains("was refused")));
    shop.produce(&orders[1..]);
    until("batches behind it", || host.journal().outbox(host.journal().identity().confirmed, 9).unwrap().len() > 1);
    let left = host.stop(Duration::from_secs(2)).unpublished_batches;
    assert!(left.len() > 1, "{left:?}");

    rename("elsewhere", "order-completed");
    let host = shop.start();
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    shop.assert_right(&orders, &*host.journal());
    stop(host);
}
