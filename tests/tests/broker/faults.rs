//! What goes wrong at the broker while it runs, by the real binary: missing topics, permissions, retention, topics made
//! anew, offsets moved by hand, rows that are refused. Invariant: each fault is named where an operator looks, and the
//! way on that is named works.

use std::time::Duration;

use sagahost_demo::{
    broker::{PASSWORD, USER},
    workload::Order,
};
use sagahost_tests::{
    kafka_shop::{KINDS, KafkaShop, Settings, Topics},
    shop::THREE,
};

use crate::brokers::guarded as broker;
use crate::shops::{begun, load};

const LONG: Duration = Duration::from_secs(90);

fn shop(name: &str) -> KafkaShop<'static> {
    shop_with(name, &Settings::default())
}

fn shop_with(name: &str, settings: &Settings) -> KafkaShop<'static> {
    KafkaShop::with(broker(), name, &THREE, &Topics(name.to_owned()), settings)
}

#[test]
fn missing_topics_are_named_with_the_command_that_makes_them() {
    let shop = shop_with("missing", &Settings { kafka: String::new(), ..Settings::default() });
    let mut host = shop.start();
    assert_eq!(host.ended().code(), Some(1), "{}", host.log());
    for kind in KINDS {
        let said = format!("--create --topic {} --partitions", shop.topics.of(kind));
        assert!(host.log().contains(&said), "{said}: {}", host.log());
    }
    assert!(host.log().contains("sagahost topics create"), "{}", host.log());
    let made = shop.command(&["topics", "create"]);
    assert!(made.status.success(), "{made:?}");
    let orders = load(50);
    begun(&shop, &orders);
    shop.assert_right(&orders);
}

fn as_user() -> Settings {
    let properties = format!(
        "[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
         \"sasl.username\" = \"{USER}\"\n\"sasl.password\" = \"{PASSWORD}\"\n"
    );
    Settings { bootstrap: Some(broker().sasl_bootstrap()), more: properties, ..Settings::default() }
}

fn allow(permission: &str) {
    broker().allow(USER, permission).expect("permissions can be given");
}

#[test]
fn permissions_that_lack_are_named_one_after_another() {
    let settings = as_user();
    let shop = shop_with("acl", &settings);
    let refused = |said: &str| {
        let mut host = shop.start();
        assert_eq!(host.ended().code(), Some(9), "{}", host.log());
        assert!(host.log().contains(said), "{said}: {}", host.log());
        assert!(!host.log().contains(PASSWORD));
    };
    // The topics are there; nobody may see them.
    shop.configure(&Settings::default());
    begun(&shop, &[]);
    shop.configure(&settings);
    refused("READ, WRITE and DESCRIBE on its topics");
    let topics =
        |kinds: &[&str]| kinds.iter().map(|kind| format!(" --topic {}", shop.topics.of(kind))).collect::<String>();
    allow(&format!("--operation Describe{} --topic acl.dead-letters", topics(&KINDS)));
    refused("READ on the group acl");
    allow("--operation Read --group acl");
    refused("WRITE and DESCRIBE on the transactional id acl");
    allow("--operation Write --operation Describe --transactional-id acl");
    let without = |left_out: &str| KINDS.into_iter().filter(|kind| *kind != left_out).collect::<Vec<_>>();
    allow(&format!("--operation Read{}", topics(&without("PaymentProcessed"))));
    allow(&format!("--operation Write{}", topics(&without("OrderCompleted"))));

    let host = shop.start();
    let orders = load(50);
    shop.produce(&orders);
    // Of reading: the partitions are held, the others served. Of writing: publication halts.
    let unreadable = shop.topics.of("PaymentProcessed");
    let unwritable = shop.topics.of("OrderCompleted");
    let status = shop.until("a row to be refused", LONG, |status| status.waits().contains("was refused"));
    assert!(status.waits().contains(&format!("for topic {unwritable} was refused")), "{status:?}");
    assert!(status.waits().contains("no permission to WRITE"), "{status:?}");
    let status = shop.until("partitions to be held", LONG, |status| status.held().contains("no permission to READ"));
    assert!(status.held().contains(&unreadable), "{status:?}");
    assert!(!status.held().contains(&shop.topics.of("OrderCreated")), "{status:?}");
    allow(&format!("--operation Write{}", topics(&["OrderCompleted"])));
    assert!(shop.command(&["outbox", "retry"]).status.success());
    shop.watch().until(orders.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

#[test]
fn retention_ahead_of_the_position_holds_that_partition_and_no_other() {
    let shop = shop("retention");
    let orders = load(300);
    begun(&shop, &orders[..100]);
    shop.produce(&orders[100..]);
    let topic = shop.topics.of("OrderCreated");
    let lines = broker().committed(&topic).expect("it reads");
    let end = lines.iter().filter(|line| line.partition == 0).map(|line| line.offset + 1).max().expect("records");
    broker().delete_records(&topic, 0, end).expect("records can be deleted");
    let lost: Vec<&str> = lines.iter().filter(|line| line.partition == 0).map(|line| line.key.as_str()).collect();
    let host = shop.start();
    let name = format!("{topic}[0]");
    let status = shop.until("the partition to be held", LONG, |status| status.held().contains(&name));
    assert!(status.held().contains("were removed before this app read them"), "{status:?}");
    assert!(!status.held().contains(&format!("{topic}[1]")), "{status:?}");
    let there: Vec<Order> = orders
        .iter()
        .enumerate()
        .filter(|(number, order)| *number < 100 || !lost.contains(&order.order_id.as_str()))
        .map(|(_, order)| order.clone())
        .collect();
    assert!(there.len() > 100 && there.len() < 300, "{}", there.len());
    shop.watch().until(there.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&there);
}

#[test]
fn a_topic_made_anew_is_held_and_the_others_are_served() {
    let shop = shop("anew");
    let orders = load(200);
    begun(&shop, &orders[..100]);
    let topic = shop.topics.of("PaymentProcessed");
    broker().delete_topic(&topic).expect("a topic can be deleted");
    // The broker forgets a topic a moment later.
    let end = std::time::Instant::now() + LONG;
    while let Err(error) = broker().create_topic(&topic, 4, &[]) {
        assert!(std::time::Instant::now() < end, "{error:#}");
    }
    let host = shop.start();
    let status = shop.until("the partitions to be held", LONG, |status| status.held().contains(&topic));
    assert!(status.held().contains("the topic was recreated"), "{status:?}");
    assert!(!status.held().contains(&shop.topics.of("OrderCreated")), "{status:?}");
    shop.produce(&orders[100..]);
    shop.watch().until(orders.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

#[test]
fn offsets_reset_while_the_host_runs_change_nothing() {
    let shop = shop("reset-live");
    let orders = load(200);
    let host = shop.start();
    let mut watch = shop.watch();
    shop.produce(&orders[..100]);
    watch.until(100, LONG);
    let before = shop.until_quiet();
    // The host is no member of the group: the tool does what it is told.
    broker().reset_offsets("reset-live", None, "--to-earliest").expect("offsets can be reset");
    let after = shop.until_quiet();
    assert_eq!(after.counter("calls"), before.counter("calls"));
    assert_eq!(after.counter("records"), before.counter("records"));
    shop.produce(&orders[100..]);
    watch.until(orders.len(), LONG);
    shop.until_quiet();
    assert!(host.stop().success());
    // Most partitions have the tool's offsets still, without the host's mark.
    let host = shop.start();
    assert_eq!(shop.until_quiet().counter("calls"), 0);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

#[test]
fn offsets_moved_ahead_while_the_host_is_down_are_a_skip_that_is_logged() {
    let shop = shop("ahead");
    let orders = load(120);
    begun(&shop, &orders[..50]);
    shop.produce(&orders[50..100]);
    broker()
        .reset_offsets("ahead", Some(&shop.topics.of("OrderCreated")), "--to-latest")
        .expect("offsets can be moved");
    let mut host = shop.start();
    host.says("records are skipped: the committed offset is ahead of the journal", LONG);
    shop.produce(&orders[100..]);
    let wanted: Vec<Order> = orders[..50].iter().chain(&orders[100..]).cloned().collect();
    shop.watch().until(wanted.len(), LONG);
    shop.until_quiet();
    assert!(host.stop().success());
    shop.assert_right(&wanted);
}

/// One order whose completion will not fit into its topic; the others' do, though not all in one request.
fn with_a_large_one(orders: &mut [Order]) -> String {
    orders[2].order_id += &format!("-{}", "x".repeat(110));
    orders[2].order_id.clone()
}

fn lower_the_limit(shop: &KafkaShop<'_>) {
    let topic = shop.topics.of("OrderCompleted");
    let line = broker().committed(&topic).expect("it reads").remove(0);
    let headers: usize = line.headers.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let usual = line.key.len() + line.value.len() + headers;
    broker().alter_topic(&topic, &format!("max.message.bytes={}", usual + 250)).expect("a setting can be made");
}

/// The place of the row that is refused.
fn refused_row(shop: &KafkaShop<'_>) -> (String, String) {
    let status = shop.until("a row to be refused", LONG, |status| status.waits().contains("was refused"));
    let waits = status.waits();
    assert!(waits.contains(&format!("for topic {} was refused", shop.topics.of("OrderCompleted"))), "{waits}");
    assert!(waits.contains("max.message.bytes"), "{waits}");
    let words: Vec<&str> = waits.split_once("retry | skip ").expect("the way on").1.split(' ').collect();
    let listed = shop.ask(&["outbox", "list"]);
    assert_eq!(listed[0]["batch"].to_string(), words[0], "{listed}");
    (words[0].to_owned(), words[1].to_owned())
}

#[test]
fn a_row_that_is_refused_halts_publication_until_its_cause_is_gone() {
    let shop = shop("large");
    let mut orders = load(60);
    with_a_large_one(&mut orders);
    begun(&shop, &orders[..1]);
    lower_the_limit(&shop);
    let host = shop.start();
    shop.produce(&orders[1..]);
    let (batch, row) = refused_row(&shop);
    // It is asked for, not guessed: another row is not skipped.
    let other = (row.parse::<u64>().expect("a number") + 1).to_string();
    assert!(!shop.command(&["outbox", "skip", &batch, &other, "--reason", "no"]).status.success());
    broker()
        .alter_topic(&shop.topics.of("OrderCompleted"), "max.message.bytes=1000000")
        .expect("a setting can be made");
    assert!(shop.command(&["outbox", "retry"]).status.success());
    shop.watch().until(orders.len(), LONG);
    shop.until_quiet();
    assert_eq!(shop.command(&["outbox", "retry"]).status.code(), Some(5));
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

#[test]
fn a_row_that_is_skipped_stays_out_and_the_rest_goes_on_also_after_a_kill() {
    let shop = shop("skipped");
    let mut orders = load(60);
    let large = with_a_large_one(&mut orders);
    begun(&shop, &orders[..1]);
    lower_the_limit(&shop);
    let host = shop.start();
    shop.produce(&orders[1..]);
    let first = refused_row(&shop);
    // A host that starts anew meets the same row.
    host.kill();
    let host = shop.start();
    let (batch, row) = refused_row(&shop);
    assert_eq!((&batch, &row), (&first.0, &first.1));
    let skipped = shop.command(&["outbox", "skip", &batch, &row, "--reason", "nobody reads it"]);
    assert!(skipped.status.success(), "{skipped:?}");
    shop.watch().until(orders.len() - 1, LONG);
    shop.until_quiet();
    assert!(host.stop().success());
    let shown = shop.ask(&["sagas", "show", &large]);
    assert_eq!(shown["status"], "completed", "{shown}");
    let ends = shop.ends();
    assert!(!ends.ended_ms.contains_key(&large), "it was published all the same");
    let others: Vec<Order> = orders.iter().filter(|order| order.order_id != large).cloned().collect();
    assert_eq!(ends.faults(&others), Vec::<String>::new());
    shop.assert_no_doubles(&KINDS[1..]);
}
