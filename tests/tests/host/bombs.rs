//! Plugin files that cost whoever compiles them much: what they are refused for, and who waits for them. The real binary, on
//! embedded topics.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use expect_test::expect;
use sagahost_operator::plugin_view::{PluginLine, PluginsView};
use sagahost_sandbox::admission::digest;
use sagahost_tests::{
    binary::{Process, Site},
    bombs, built,
    shop::THREE,
    wait::until,
};

/// Compilers have the lowest priority, and other tests keep the processors busy.
const PATIENCE: Duration = Duration::from_secs(400);

fn config(limits: &str) -> String {
    format!("app = \"shop\"\n[limits]\n{limits}\n")
}

/// A good plugin with something beside it, put there as one should: under another name first.
fn drop_in(site: &Site, name: &str, beside: &[u8]) -> String {
    let good = fs::read(built::all().join("payment.wasm")).expect("it is built");
    let file = [&good[..], beside].concat();
    let partial = site.file("plugins").join("partial");
    fs::write(&partial, &file).expect("it can be written");
    fs::rename(partial, site.file("plugins").join(format!("{name}.wasm"))).expect("it can be renamed");
    digest(&file).to_string()
}

fn listing(site: &Site) -> PluginsView {
    let ended = site.run(&["--json", "plugins", "list"]);
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn line(site: &Site, digest: &str) -> Option<PluginLine> {
    listing(site).plugins.into_iter().find(|line| line.digest == digest)
}

fn await_state(site: &Site, digest: &str, state: &str) {
    let what = format!("{digest} is {state}");
    until(&what, || line(site, digest).is_some_and(|line| line.state == state).then_some(()));
}

/// Which of a compiler's two bounds is met first is the machine's affair.
const MEMORY: &str = "compiling it takes more than 1073741824 bytes of memory";

/// What is wrong with this file, once that is known.
fn await_refusal(site: &Site, host: &Process, name: &str) -> String {
    let file = format!("{name}.wasm");
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(refused) = listing(site).refused.into_iter().find(|report| report.file.ends_with(&file)) {
            return refused.faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>().join("; ");
        }
        assert!(Instant::now() < end, "{name} is not refused: {}", host.log());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_costs_a_compiler_much_is_refused_with_numbers() {
    let site = Site::new(&THREE, &config("compile-seconds-max = 8\ncompile-memory-bytes-max = 1073741824"));
    let host = site.start();
    let bombs = bombs::all();
    bombs.iter().for_each(|(name, beside)| drop(drop_in(&site, name, beside)));
    let told: Vec<String> =
        bombs.iter().map(|(name, _)| format!("{name}: {}\n", await_refusal(&site, &host, name))).collect();
    expect![[r#"
        loops: it has 99980000 values where control flow joins in one function, 2000000 are allowed; it has 100027280 values where control flow joins, 30000000 are allowed
        many-functions: it has 58535580 values where control flow joins, 30000000 are allowed
        wide-tables-of-branches: compiling it takes more than 8 s of a processor
        calls: compiling it takes more than 8 s of a processor
        constant: it has 1000002 instructions in one constant, 100 are allowed
        deep-types: it cannot be compiled: failed to parse WebAssembly module: type nesting is too deep (at offset 0x349cc)
        doubling-types: it cannot be compiled: failed to parse WebAssembly module: effective type size exceeds the limit of 1000000 (at offset 0x3492b)
        exports: it has 60028 exports, 50000 are allowed
        instances: it has 3009 instances, 1000 are allowed
        tables: it begins with 4000000000 table elements, 20000 are allowed
        manifest: its manifest has 10000000 bytes, 262144 are allowed
    "#]]
    .assert_eq(&told.concat().replace(MEMORY, "compiling it takes more than 8 s of a processor"));
    let serve = |name: &str| listing(&site).plugins.iter().any(|line| line.name == name && line.state == "serving");
    assert!(THREE.into_iter().all(serve), "{}", host.log());
    assert_eq!(host.stop(), 0);
}

#[test]
fn nobody_waits_for_a_compiler() {
    // A compiler has threads, and uses up its time that much faster; a start waits for five seconds.
    let seconds = 5 * std::thread::available_parallelism().map_or(1, usize::from) + 5;
    let site = Site::new(&THREE, &config(&format!("compile-seconds-max = {seconds}")));
    let host = site.start();
    let long = drop_in(&site, "payment", &bombs::long(1));
    await_state(&site, &long, "compiling");
    let paused = site.run(&["plugins", "pause", "inventory", "--by", "anna", "--reason", "stocktaking"]);
    assert_eq!(paused.code, 0, "{paused:?}");
    let compiling = line(&site, &long).expect("it is still listed");
    assert_eq!((&*compiling.state, &*compiling.name), ("compiling", "payment"), "the order did not wait for it");
    let note = compiling.note.unwrap_or_default();
    assert!(note.starts_with("its code is being compiled, since 2"), "{note}");
    // Nor does what comes later.
    fs::remove_file(site.file("plugins").join("order.wasm")).expect("it is there");
    until("order is paused, for its file is gone", || {
        listing(&site).plugins.iter().any(|line| line.name == "order" && line.state == "paused").then_some(())
    });
    assert_eq!(line(&site, &long).map(|line| line.state).as_deref(), Some("compiling"));
    // Nor does the end.
    assert_eq!(host.stop(), 0);

    let serving = site.start();
    assert_eq!(line(&site, &long).map(|line| line.state).as_deref(), Some("compiling"), "{}", serving.log());
    let before = listing(&site).plugins.into_iter().find(|line| line.name == "payment" && line.digest != long);
    assert_eq!(before.map(|line| line.state).as_deref(), Some("serving"), "{}", serving.log());
    let refusal = await_refusal(&site, &serving, "payment");
    let time = format!("compiling it takes more than {seconds} s of a processor");
    assert!([time.as_str(), MEMORY].contains(&refusal.as_str()), "{refusal}");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_compiler_that_needs_too_much_memory_takes_none_of_the_hosts() {
    let site = Site::new(&THREE, &config("compile-memory-bytes-max = 100000000"));
    let host = site.start();
    drop_in(&site, "payment", &bombs::long(2));
    assert_eq!(await_refusal(&site, &host, "payment"), "compiling it takes more than 100000000 bytes of memory");
    assert_eq!(host.stop(), 0);
}

/// A kernel that is short of memory kills whatever is large: that says nothing of the file.
#[test]
fn a_compiler_that_is_killed_from_outside_begins_again() {
    let site = Site::new(&THREE, &config("compile-seconds-max = 3"));
    let host = site.start();
    drop_in(&site, "payment", &bombs::long(3));
    let compiler = until("it is being compiled", || children(host.id()).pop());
    assert!(Command::new("kill").args(["-9", &compiler.to_string()]).status().is_ok_and(|killed| killed.success()));
    let told = "its compiler was killed from outside";
    until("that is told", || host.log().contains(told).then_some(()));
    assert_eq!(await_refusal(&site, &host, "payment"), "compiling it takes more than 3 s of a processor");
    assert_eq!(host.stop(), 0);
}

fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("it can be read").flatten();
    let id = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let parent_of = |id: u32| {
        // proc(5): the name, which is in brackets, may hold anything.
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    all.filter_map(id).filter(|id| parent_of(*id) == Some(parent)).collect()
}
