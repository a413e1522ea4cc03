//! Data directories that are not what they should be. Invariant of all tests: the host says what is wrong and what to do,
//! changes nothing, and goes on as soon as it is told or given the right directory.

use std::{fs, path::Path, time::Duration};

use sagahost::host::Host;
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_processor::{Fatal, start::Decisions};
use sagahost_tests::{
    binary::Site,
    faulty::Death,
    shop::{Shop, THREE},
    wait::until,
};

const STOP: Duration = Duration::from_secs(10);

fn some_orders(prefix: &str) -> Vec<Order> {
    orders(&Shape { prefix: prefix.to_owned(), scarce_one_in: 0, ..Shape::of(20) }).collect()
}

/// Runs a host until these have ended.
fn run_orders(shop: &Shop, orders: &[Order], all: usize) {
    let host = shop.start();
    shop.produce(orders);
    until("the orders have ended", || (shop.ends().len() >= all).then_some(()));
    assert_eq!(host.stop(STOP), Default::default());
}

/// Why the host does not start.
fn refusal(shop: &Shop) -> String {
    match shop.try_start(&Death::never(), Decisions::default()) {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    }
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn remove_journal(data: &Path) {
    for file in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let _ = fs::remove_file(data.join(file));
    }
}

#[test]
fn a_second_host_on_one_data_directory_is_told_who_holds_it() {
    let site = Site::new(&THREE, "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\n");
    let first = site.start();
    let second = site.run(&["run"]);
    assert_eq!(second.code, 10, "{second:?}");
    assert_says(&second.err, &[&format!("is in use by process {}", first.id()), "stop that host first"]);
    assert_eq!(site.run(&["status"]).code, 0, "the first one is undisturbed");
    assert_eq!(first.stop(), 0);
    assert_eq!(site.start().stop(), 0, "the lock is gone with it");
}

#[test]
fn the_journal_of_another_app_is_refused() {
    let site = Site::new(&THREE, "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\n");
    assert_eq!(site.start().stop(), 0);
    let config = fs::read_to_string(site.file("sagahost.toml")).unwrap();
    fs::write(site.file("sagahost.toml"), config.replace("\"shop\"", "\"store\"")).unwrap();
    let other = site.run(&["run"]);
    assert_eq!(other.code, 10, "{other:?}");
    assert_says(&other.err, &["shop", "store", "journal.db"]);
    fs::write(site.file("sagahost.toml"), config).unwrap();
    assert_eq!(site.start().stop(), 0);
}

#[test]
fn a_lost_journal_is_refused_until_a_person_says_go_on() {
    let shop = Shop::new(&THREE, "");
    let before = some_orders("a");
    run_orders(&shop, &before, 20);
    let said = shop.ends();
    remove_journal(&shop.data());
    let why = refusal(&shop);
    assert_says(
        &why,
        &["it is new and empty", "the data directory was lost or replaced", "--new-lineage", "Nothing was changed"],
    );
    assert_says(&refusal(&shop), &["it is new and empty"]);
    assert_eq!(shop.ends().len(), said.len(), "a refused start handles nothing");

    let decisions = Decisions { new_lineage: true, published: None };
    let host = shop.try_start(&Death::never(), decisions).unwrap();
    let after = some_orders("b");
    shop.produce(&after);
    until("new orders have ended", || {
        let ends = shop.ends();
        after.iter().all(|order| ends.ended_ms.contains_key(&order.order_id)).then_some(())
    });
    host.stop(STOP);
    // It needs to be said once.
    shop.start().stop(STOP);
}

#[test]
fn a_journal_restored_from_an_older_copy_is_refused() {
    let shop = Shop::new(&THREE, "");
    run_orders(&shop, &some_orders("a"), 20);
    let journal = shop.data().join("journal.db");
    let (older, newer) = (shop.dir.path().join("older.db"), shop.dir.path().join("newer.db"));
    fs::copy(&journal, &older).unwrap();
    run_orders(&shop, &some_orders("b"), 40);
    fs::copy(&journal, &newer).unwrap();

    remove_journal(&shop.data());
    fs::copy(&older, &journal).unwrap();
    assert_says(
        &refusal(&shop),
        &["it was restored from an older copy", "the journal itself ends at", "--new-lineage"],
    );

    // The way on: the right one is brought back.
    remove_journal(&shop.data());
    fs::copy(&newer, &journal).unwrap();
    let all: Vec<Order> = ["a", "b", "c"].into_iter().flat_map(some_orders).collect();
    let host = shop.start();
    shop.produce(&all[40..]);
    until("the orders have ended", || (shop.ends().len() >= 60).then_some(()));
    shop.assert_right(&all, &*host.journal());
    host.stop(STOP);
}

/// Two data directories and one database of topics, as two machines have one broker.
struct Copies {
    first: Shop,
    second: Shop,
}

impl Copies {
    fn of_a_used_directory() -> Self {
        let (mut first, mut second) = (Shop::new(&THREE, ""), Shop::new(&THREE, ""));
        fs::create_dir_all(second.data()).unwrap();
        let topics = first.dir.path().join("topics");
        for shop in [&mut first, &mut second] {
            shop.topics_dir = Some(topics.clone());
        }
        run_orders(&first, &some_orders("a"), 20);
        fs::copy(first.data().join("journal.db"), second.data().join("journal.db")).unwrap();
        Self { first, second }
    }
}

#[test]
fn the_copy_of_a_directory_whose_original_went_on_is_refused() {
    let Copies { first, second } = Copies::of_a_used_directory();
    run_orders(&first, &some_orders("b"), 40);
    assert_says(&refusal(&second), &["another host runs on a copy of it"]);
    run_orders(&first, &some_orders("c"), 60);
}

/// The second is refused at its start where the first has published something by then: these are no pair.
fn two_that_run() -> ([Shop; 2], Vec<Host>) {
    for _ in 0..20 {
        let Copies { first, second } = Copies::of_a_used_directory();
        let host = first.start();
        match second.try_start(&Death::never(), Decisions::default()) {
            Ok(other) => return ([first, second], vec![host, other]),
            Err(refused) => assert_says(&format!("{refused:#}"), &["another host runs on a copy of it"]),
        }
        host.stop(STOP);
    }
    panic!("each second one was refused at its start");
}

/// Race 15: one of both goes on, the other ends by itself; nothing is handled twice.
#[test]
fn of_a_directory_and_its_copy_that_both_run_one_is_fenced() {
    let (shops, mut hosts) = two_that_run();
    shops[0].produce(&some_orders("b"));
    // The second has claimed last; but the first may claim again and publish, when the second is slow.
    let (lost, fatal) = until("one of both ends by itself", || {
        hosts.iter().enumerate().find_map(|(index, host)| Some((index, host.fatal(Duration::ZERO)?)))
    });
    assert!(matches!(fatal, Fatal::Superseded(_)), "{fatal}");
    hosts.remove(lost).stop(STOP);
    let winner = hosts.remove(0);
    let all: Vec<Order> = ["a", "b"].into_iter().flat_map(some_orders).collect();
    until("the orders have ended", || (shops[1 - lost].ends().len() >= 40).then_some(()));
    assert_eq!(winner.fatal(Duration::ZERO), None);
    shops[1 - lost].assert_right(&all, &*winner.journal());
    winner.stop(STOP);
    assert_says(&refusal(&shops[lost]), &["--new-lineage", "Stop the other host"]);
}

#[test]
fn a_journal_that_was_overwritten_is_called_corrupt() {
    let site = Site::new(&THREE, "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\n");
    assert_eq!(site.start().stop(), 0);
    let journal = site.file("data/journal.db");
    let good = fs::read(&journal).unwrap();
    let mut bad = good.clone();
    // All but the page that says what the file is.
    bad[4096..].fill(0x5a);
    for bytes in [bad, b"something else entirely ".repeat(1_000), good[..5_000].to_vec()] {
        remove_journal(&site.file("data"));
        fs::write(&journal, bytes).unwrap();
        for words in [&["run"][..], &["sagas", "list"]] {
            let ended = site.run(words);
            assert_eq!(ended.code, 10, "{ended:?}");
            assert_says(&ended.err, &["the journal is corrupt", "journal.db", "restore the newest backup"]);
            assert!(!ended.err.contains("panicked"), "{}", ended.err);
        }
    }
    remove_journal(&site.file("data"));
    fs::write(&journal, good).unwrap();
    assert_eq!(site.start().stop(), 0);
}

#[test]
fn embedded_topics_that_were_overwritten_are_called_corrupt() {
    let site = Site::new(&THREE, "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\n");
    assert_eq!(site.start().stop(), 0);
    let topics = site.file("data/topics.db");
    let good = fs::read(&topics).unwrap();
    let mut bad = good.clone();
    // All but the page that says what the file is.
    bad[4096..].fill(0x5a);
    for bytes in [bad, b"something else entirely ".repeat(1_000)] {
        fs::write(&topics, bytes).unwrap();
        let ended = site.run(&["run"]);
        assert_eq!(ended.code, 9, "{ended:?}");
        assert_says(&ended.err, &["data/topics.db is corrupt", "restore it from a copy"]);
        assert_eq!(ended.err.matches("is corrupt").count(), 1, "said twice: {}", ended.err);
        assert!(!ended.err.contains("panicked"), "{}", ended.err);
    }
    fs::write(&topics, good).unwrap();
    assert_eq!(site.start().stop(), 0);
}
