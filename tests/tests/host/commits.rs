//! What a saga costs, and what an idle host costs. Invariant: commits are counted in SQLite's write-ahead log itself, not
//! by the host.

use std::{fs, path::Path, thread, time::Duration};

use sagahost::host::Host;
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_operator::LiveStatus;
use sagahost_tests::{
    faulty::Death,
    shop::{OPENING_STOCK, PATIENCE, Shop, THREE},
    wait::until,
};

const STOP: Duration = Duration::from_secs(10);

fn some_orders(count: usize, prefix: &str) -> Vec<Order> {
    let shape = Shape { declined_one_in: 0, scarce_one_in: 0, prefix: prefix.to_owned(), ..Shape::of(count) };
    orders(&shape).collect()
}

/// Transactions in a write-ahead log: frames that say how large the database is behind them.
/// (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>)
fn commits_in(log: &Path) -> usize {
    let bytes = fs::read(log).unwrap();
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    if bytes.len() < 32 {
        return 0;
    }
    let (frame, salt) = (24 + number(8) as usize, (number(16), number(20)));
    (32..)
        .step_by(frame)
        .take_while(|at| at + frame <= bytes.len() && (number(at + 8), number(at + 12)) == salt)
        .filter(|at| number(at + 4) != 0)
        .count()
}

struct Meter<'s> {
    shop: &'s Shop,
    host: &'s Host,
}

impl Meter<'_> {
    fn journal(&self) -> usize {
        commits_in(&self.shop.data().join("journal.db-wal"))
    }
    fn topics(&self) -> usize {
        commits_in(&self.shop.data().join("topics.db-wal"))
    }
    fn status(&self) -> LiveStatus {
        self.host.live().status()
    }
    fn await_confirmed(&self) {
        until("everything is published and confirmed", || {
            let identity = self.host.journal().identity();
            (identity.confirmed == identity.last_batch).then_some(())
        });
    }
}

/// Progress alone is not journaled within the test, so that one saga is all there is to count.
const PATIENT: &str = "[pipeline]\nposition-wait = \"1m\"\n";

#[test]
fn the_four_steps_of_a_saga_cost_one_commit_and_one_publication() {
    let shop = Shop::new(&THREE, PATIENT);
    let host = shop.start();
    let meter = Meter { shop: &shop, host: &host };
    meter.await_confirmed();
    let (before, journal, topics) = (meter.status(), meter.journal(), meter.topics());
    let orders = some_orders(1, "o");
    shop.produce(&orders);
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    meter.await_confirmed();
    let after = meter.status();
    assert_eq!(after.calls - before.calls, 4, "order, payment, inventory, and order again");
    assert_eq!(after.batch - before.batch, 1, "one batch");
    assert_eq!(after.journal_commits - before.journal_commits, 1);
    assert_eq!(after.publications - before.publications, 1);
    assert_eq!(meter.journal() - journal, 2, "SQLite: the batch, and when nothing else is to do its confirmation");
    assert_eq!(meter.topics() - topics, 2, "SQLite: what the producer wrote, and the publication");
    host.stop(STOP);
}

#[test]
fn under_load_each_batch_is_one_commit_and_one_publication() {
    let shop = Shop::new(&THREE, PATIENT);
    let orders = some_orders(400, "o");
    shop.produce(&orders);
    let host = shop.start();
    let meter = Meter { shop: &shop, host: &host };
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    meter.await_confirmed();
    let LiveStatus { batch, journal_commits, publications, events, .. } = meter.status();
    assert_eq!(events, 400);
    assert_eq!(journal_commits, batch - 1, "the first batch is the claim of the start");
    assert_eq!(publications, batch);
    assert!(batch < 200, "{batch} batches of 400 sagas: chains do not meet in them");
    println!("{batch} batches for 400 sagas");
    host.stop(STOP);
}

/// Its batch is in the journal, so it has to go out before the next one, whose mark would say that it is out.
#[test]
fn a_commit_that_went_through_and_said_that_it_failed_is_published() {
    let shop = Shop::new(&THREE, "[pipeline]\nbatch-chains-max = 5\n");
    let orders = some_orders(60, "o");
    let death = Death::never();
    let host = shop.start_dying(&death);
    death.lie_about_commits(3);
    shop.produce(&orders);
    shop.await_ends(&orders, &death, PATIENCE);
    assert_eq!(death.lies_left(), 0);
    shop.assert_right(&orders, &*host.journal());
    assert_eq!(host.fatal(Duration::ZERO), None);
    host.stop(STOP);
}

#[test]
fn an_idle_host_writes_nothing() {
    let shop = Shop::new(&THREE, "[pipeline]\nposition-wait = \"100ms\"\n");
    let host = shop.start();
    let meter = Meter { shop: &shop, host: &host };
    let orders = some_orders(20, "o");
    shop.produce(&orders);
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    // The host's own records come back, are skipped, and their positions journaled.
    until("all positions are journaled", || {
        let positions = host.journal().positions().unwrap();
        let partitions: Vec<_> = positions.keys().cloned().collect();
        let bounds = sagahost_transport::Transport::bounds(&shop.topics(), &partitions).unwrap();
        positions.iter().all(|(at, position)| bounds[at].1 == position.next).then_some(())
    });
    meter.await_confirmed();
    let watcher = |file: &str| {
        let connection = rusqlite::Connection::open(shop.data().join(file)).unwrap();
        move || connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let (journal, topics) = (watcher("journal.db"), watcher("topics.db"));
    let before = (journal(), topics(), meter.journal(), meter.topics(), meter.status());
    // That nothing happens takes its time to be seen; whatever is done regularly, but for hourly, would be by then.
    thread::sleep(Duration::from_millis(1_500));
    let after = (journal(), topics(), meter.journal(), meter.topics(), meter.status());
    assert_eq!(after, before);
    shop.produce(&some_orders(1, "p"));
    until("a commit is seen by both watchers", || (journal() > after.0 && topics() > after.1).then_some(()));
    host.stop(STOP);
}

/// Two workers and one article: every chain wants the same counter.
#[test]
fn of_one_article_exactly_the_stock_is_sold() {
    const EACH: u32 = 5;
    let count = 2 * OPENING_STOCK as usize / EACH as usize;
    let run = |article: &dyn Fn(usize) -> String| {
        let shop = Shop::new(&THREE, "[pipeline]\nworkers = 2\n");
        let mut orders = some_orders(count, "o");
        for (number, order) in orders.iter_mut().enumerate() {
            (order.sku, order.quantity) = (article(number), EACH);
        }
        let host = shop.start();
        let began = std::time::Instant::now();
        shop.produce(&orders);
        let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
        let took = began.elapsed();
        shop.assert_right(&orders, &*host.journal());
        let stock = host.journal().counter(&"inventory".into(), "stock/apple").unwrap();
        let rerun = host.live().status().chains_rerun;
        host.stop(STOP);
        println!("{:.0} sagas/s, {rerun} chains run again", count as f64 / took.as_secs_f64());
        // A sale conflicts with nobody; near the last piece one may be told otherwise when it is staged.
        assert!(rerun < 20, "{rerun} chains of {count} were run again for one counter that all of them take from");
        (ends.completed.len(), ends.cancelled.len(), stock)
    };
    print!("one article for all {count} orders: ");
    assert_eq!(run(&|_| "apple".to_owned()), (count / 2, count / 2, Some(0)));
    print!("an article for each: ");
    assert_eq!(run(&|number| format!("article-{number}")), (count, 0, None));
}
