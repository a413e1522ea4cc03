//! What a host that waits costs, by the processor time of the real binary. Invariant: nothing in the host spins: to wait
//! costs next to nothing, whatever is waited for.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use sagahost_demo::broker::{Broker, Options};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Running, Settings, Topics},
    shop::THREE,
};

use crate::shops::load;

/// A broker that was stopped for longer than its session has no leaders for a moment, and a client that asks then may not see
/// those that follow (confluentinc/librdkafka#5430): its transaction has to run out twice, at worst.
const LONG: Duration = Duration::from_secs(240);
/// Over how long it is measured.
const WINDOW: Duration = Duration::from_secs(6);
/// Of one processor. A loop that spins takes all of it.
const PERCENT_MAX: f64 = 5.0;

/// User and system time so far, of all threads; and by thread, for a failure.
fn used(host: &Running) -> (Duration, String) {
    let process = format!("/proc/{}", host.child.id());
    let (all, _) = times(&fs::read_to_string(format!("{process}/stat")).expect("the host runs"));
    let tasks = fs::read_dir(format!("{process}/task")).expect("the host runs").flatten();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).ok();
    let threads: Vec<String> = tasks
        .filter_map(of_task)
        .map(|stat| times(&stat))
        .filter(|(time, _)| !time.is_zero())
        .map(|(time, name)| format!("{name} {} ms", time.as_millis()))
        .collect();
    (all, threads.join(", "))
}

/// From a line of `stat`: the name may have blanks, and stands in parentheses. Ticks are 10 ms on every Linux.
fn times(stat: &str) -> (Duration, String) {
    let (before, behind) = stat.rsplit_once(')').expect("a line of stat");
    let name = before.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default();
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    (Duration::from_millis(ticks * 10), name)
}

#[track_caller]
fn assert_rests(host: &Running, what: &str) {
    let ((before, first), started) = (used(host), Instant::now());
    thread::sleep(WINDOW);
    let (after, threads) = used(host);
    let percent = (after - before).as_secs_f64() / started.elapsed().as_secs_f64() * 100.0;
    eprintln!("{what}: {percent:.2} % of a processor");
    assert!(percent < PERCENT_MAX, "{what}: {percent:.1} %\nbefore: {first}\nafter: {threads}");
}

#[test]
fn a_host_that_waits_uses_no_processor_time_to_speak_of() {
    let broker = Broker::start(Options::default()).expect("a broker");
    let settings = Settings {
        more: "[kafka.properties]\n\"transaction.timeout.ms\" = \"60000\"\n[pipeline]\nqueue-events-max = 20\n"
            .to_owned(),
        ..Settings::default()
    };
    let shop = KafkaShop::with(&broker, "resting", &THREE, &Topics("resting".to_owned()), &settings);
    let orders = load(300);
    let host = shop.start();
    let mut watch = shop.watch();
    shop.produce(&orders[..100]);
    watch.until(100, LONG);
    shop.until_quiet();
    assert_rests(&host, "an idle host");
    assert!(host.stop().success());

    // Records are with librdkafka, and the broker's answer is waited for.
    let mut host = shop.start_with(&[], &[("SAGAHOST_STOP_AT", "before-produce:2")]);
    host.says("serving socket=", LONG);
    shop.produce(&orders[100..]);
    host.says("stop point", LONG);
    broker.freeze().expect("the broker can be stopped");
    host.goes_on();
    shop.until("the publication to wait", LONG, |status| status.waits().contains("waits for publication"));
    assert_rests(&host, "a host that drains a transaction while reading is paused");
    broker.thaw().expect("the broker goes on");
    watch.until(orders.len(), LONG);

    broker.kill();
    shop.until("the broker to be missed", LONG, |status| !status.waits().is_empty());
    assert_rests(&host, "a host that waits for its broker");
    broker.restart().expect("the broker starts");
    shop.until_quiet();
    assert!(host.stop().success());
    shop.assert_right(&orders);
}
