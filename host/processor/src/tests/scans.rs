//! Pages of the store: what one chain scanned and another writes.

use std::sync::Arc;

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

fn scans(bench: &Bench, limit: usize) -> (Vec<String>, Overlay) {
    let mut overlay = bench.overlay();
    let page = overlay.scan(&"till".into(), "k/", None, limit).unwrap();
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
        Staged::Stale(conflicts) => assert_eq!(conflicts, [Conflict::Prefix(("till".into(), "k/".to_owned()))]),
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
        let page = overlay.scan(&"till".into(), "k/", after, limit).unwrap();
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
