//! Pages of the store: what one chain scanned and another writes.

use std::{collections::BTreeSet, sync::Arc};

use sagahost_journal::PageBounds;

use super::{
    bench::{Bench, at, idle, said, settings},
    memory::{Memory, kept},
};
use crate::{
    overlay::Overlay,
    processor::Settings,
    stage::{Conflict, Staged},
};

fn journal(keys: &[&str]) -> Arc<Memory> {
    let journal: Arc<Memory> = Arc::default();
    let rows = keys.iter().map(|key| (("till".into(), (*key).to_owned()), kept(b"old")));
    journal.held.lock().store.extend(rows);
    journal
}

const MIB: usize = 1 << 20;

fn entries(entries: usize) -> PageBounds {
    PageBounds { entries, bytes: MIB }
}

fn scans(bench: &Bench, limit: usize) -> (Vec<String>, Overlay) {
    let mut overlay = bench.overlay();
    let page = overlay.scan(&"till".into(), "k/", None, entries(limit), MIB).unwrap();
    (page.into_iter().map(|(key, _)| key).collect(), overlay)
}

fn writes(bench: &Bench, key: &str, value: Option<&str>) {
    let mut overlay = bench.overlay();
    overlay.put(&"till".into(), key, value.map(|value| value.as_bytes().into()));
    bench.joins(1, overlay);
}

#[track_caller]
fn is_stale(bench: &Bench, overlay: Overlay, what: &str) {
    match bench.stage(2, overlay) {
        Staged::Stale(mut conflicts) => {
            conflicts.dedup();
            assert_eq!(conflicts, [Conflict::Prefix(("till".into(), "k/".to_owned()))]);
        }
        other => panic!("{what}: {}", said(&other)),
    }
}

#[test]
fn a_key_that_comes_goes_or_changes_within_the_page_makes_it_stale() {
    let bench = Bench::on(journal(&["k/2", "k/4"]), settings(), idle());
    for (key, value) in [("k/3", Some("new")), ("k/3", None), ("k/2", Some("other")), ("k/1", Some("first"))] {
        let (_, overlay) = scans(&bench, 10);
        writes(&bench, key, value);
        is_stale(&bench, overlay, key);
    }
    assert_eq!(scans(&bench, 10).0, ["k/1", "k/2", "k/4"]);
}

#[test]
fn what_is_not_of_the_page_makes_nobody_run_again() {
    let bench = Bench::on(journal(&["k/2", "k/4", "k/6"]), settings(), idle());
    let (page, overlay) = scans(&bench, 2);
    assert_eq!(page, ["k/2", "k/4"]);
    for key in ["j", "l", "k", "k/5", "k/6"] {
        writes(&bench, key, Some("new"));
    }
    // The same value again is no change.
    writes(&bench, "k/2", Some("old"));
    bench.joins(2, overlay);
    let (_, overlay) = scans(&bench, 2);
    writes(&bench, "k/3", Some("new"));
    is_stale(&bench, overlay, "a key that pushes another off the page");
}

/// What a chain wrote itself is in its page, and the page is as long as it was asked to be.
#[test]
fn a_page_shows_what_the_chain_wrote_and_what_is_open() {
    let bench = Bench::on(journal(&["k/1", "k/2", "k/3", "k/4"]), settings(), idle());
    writes(&bench, "k/2", None);
    let mut overlay = bench.overlay();
    let till = "till".into();
    overlay.put(&till, "k/1", None);
    overlay.put(&till, "k/35", Some(b"own"[..].into()));
    let keys = |overlay: &mut Overlay, after: Option<&str>, limit| {
        let page = overlay.scan(&"till".into(), "k/", after, entries(limit), MIB).unwrap();
        page.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&mut overlay, None, 2), ["k/3", "k/35"]);
    assert_eq!(keys(&mut overlay, Some("k/35"), 2), ["k/4"]);
    bench.joins(2, overlay);
    assert_eq!(scans(&bench, 9).0, ["k/3", "k/35", "k/4"]);
}

/// Another life of memory: what was scanned is scanned again, and compared.
#[test]
fn a_page_is_read_again_where_memory_has_dropped_something() {
    for changed in [false, true] {
        let journal = journal(&["k/1", "k/2"]);
        let bench = Bench::on(journal.clone(), Settings { cache_bytes_max: 0, ..settings() }, idle());
        let (_, overlay) = scans(&bench, 5);
        writes(&bench, "z", Some("1"));
        if changed {
            writes(&bench, "k/3", Some("new"));
        }
        bench.commit(at(0));
        let Staged::Reread(mut staging, forgotten) = bench.stage(2, overlay) else { panic!("memory was swept") };
        assert_eq!(forgotten.scans, [0]);
        bench.processor.stage.read_again(&mut staging.overlay, &forgotten).unwrap();
        let staged = bench.processor.stage.stage(staging, at(0));
        assert_eq!(matches!(staged, Staged::Stale(_)), changed, "{}", said(&staged));
        assert_eq!(matches!(staged, Staged::Joined), !changed, "{}", said(&staged));
    }
}

/// As a guest reads on: until a page is empty. How many entries each page had.
fn pages(overlay: &mut Overlay, bounds: PageBounds) -> (Vec<String>, Vec<usize>) {
    let (mut keys, mut lengths): (Vec<String>, Vec<usize>) = (Vec::new(), Vec::new());
    loop {
        let page = overlay.scan(&"till".into(), "k/", keys.last().map(String::as_str), bounds, usize::MAX).unwrap();
        if page.is_empty() {
            return (keys, lengths);
        }
        lengths.push(page.len());
        keys.extend(page.into_iter().map(|(key, _)| key));
    }
}

fn of_size(journal: &Memory, sizes: &[(&str, usize)]) {
    let rows = sizes.iter().map(|(key, size)| (("till".into(), (*key).to_owned()), kept(&vec![0; *size])));
    journal.held.lock().store.extend(rows);
}

#[test]
fn a_page_is_cut_by_bytes_and_the_next_one_continues() {
    let journal: Arc<Memory> = Arc::default();
    of_size(&journal, &[("k/1", 400), ("k/2", 400), ("k/3", 5_000), ("k/4", 10), ("k/5", 10)]);
    let bench = Bench::on(journal, settings(), idle());
    let bounds = PageBounds { entries: 10, bytes: 1_000 };
    let mut overlay = bench.overlay();
    let (keys, lengths) = pages(&mut overlay, bounds);
    assert_eq!((keys.len(), lengths), (5, vec![2, 1, 2]), "one that does not fit comes alone");
    for (key, stale) in [("k/2", true), ("k/45", true), ("k/6", true), ("l", false)] {
        let mut overlay = bench.overlay();
        pages(&mut overlay, bounds);
        writes(&bench, key, Some(&format!("new {key}")));
        match stale {
            true => is_stale(&bench, overlay, key),
            false => bench.joins(2, overlay),
        }
    }
}

/// An empty page is the end: values that are deleted must not fill one.
#[test]
fn deleted_values_never_make_an_empty_page_before_the_end() {
    let journal: Arc<Memory> = Arc::default();
    let large: Vec<String> = (0..30).map(|number| format!("k/{number:02}")).collect();
    of_size(&journal, &large.iter().map(|key| (key.as_str(), 800)).collect::<Vec<_>>());
    of_size(&journal, &[("k/30", 1)]);
    let bench = Bench::on(journal, settings(), idle());
    let bounds = PageBounds { entries: 1_000, bytes: 1_000 };
    large[..15].iter().for_each(|key| writes(&bench, key, None));
    assert_eq!(pages(&mut bench.overlay(), bounds).0.len(), 16, "another chain has deleted them");
    let mut overlay = bench.overlay();
    large[15..].iter().for_each(|key| overlay.put(&"till".into(), key, None));
    assert_eq!(pages(&mut overlay, bounds), (vec!["k/30".to_owned()], vec![1]), "this chain has");
    bench.joins(2, overlay);

    let mut overlay = bench.overlay();
    large.iter().for_each(|key| writes(&bench, key, Some(&"x".repeat(800))));
    large.iter().for_each(|key| overlay.put(&"till".into(), key, None));
    let refused = overlay.scan(&"till".into(), "k/", None, bounds, 15_000).unwrap_err().to_string();
    assert_eq!(refused, "it read, wrote, logged or returned more than 15000 bytes in one call (call-bytes-max)");
}

/// Pages of any size over what the journal, memory and the chain itself have are together what there is.
#[test]
fn pages_of_any_size_are_together_what_there_is() {
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut cut = 0;
    for _ in 0..300 {
        let (journal, mut there): (Arc<Memory>, BTreeSet<String>) = Default::default();
        let key = |number: usize| format!("k/{number:02}");
        for _ in 0..draw(30) {
            let key = key(draw(40));
            of_size(&journal, &[(&key, draw(500))]);
            there.insert(key);
        }
        let cache_bytes_max = [0, 2_000, 1 << 20][draw(3)];
        let bench = Bench::on(journal, Settings { cache_bytes_max, ..settings() }, idle());
        let mut change = |there: &mut BTreeSet<String>| {
            let (key, gone, value) = (key(draw(40)), draw(2) == 0, "v".repeat(draw(500)));
            if gone {
                there.remove(&key)
            } else {
                there.insert(key.clone())
            };
            (key, (!gone).then_some(value))
        };
        for _ in 0..10 {
            let (key, value) = change(&mut there);
            writes(&bench, &key, value.as_deref());
        }
        let mut overlay = bench.overlay();
        for _ in 0..10 {
            let (key, value) = change(&mut there);
            overlay.put(&"till".into(), &key, value.map(|value| value.as_bytes().into()));
        }
        let bounds = PageBounds { entries: 1 + draw(10), bytes: draw(2_000) };
        let (keys, lengths) = pages(&mut overlay, bounds);
        assert_eq!(keys, there.into_iter().collect::<Vec<_>>(), "{bounds:?}");
        assert!(lengths.iter().all(|length| *length <= bounds.entries));
        cut += lengths.iter().filter(|length| **length < bounds.entries).count();
        bench.joins(2, overlay);
    }
    assert!(cut > 300, "pages are cut by bytes, too: {cut}");
}
