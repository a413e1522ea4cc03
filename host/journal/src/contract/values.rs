//! What participants keep, and who they are. Invariant: keys of one participant are invisible to every other.

use sagahost_wire::Generation;

use crate::{
    AdmittedRow, Contended, CounterWrite, Name, PageBounds, PluginHistoryEntry, PluginWrite, Seen, StorePage, Version,
};

use super::*;

fn keep(owner: &Owner, participant: &str, keys: &[&str]) {
    owner.commit(|batch| {
        for key in keys {
            let value: Arc<[u8]> = Arc::from(key.as_bytes());
            batch.store.insert((Participant::from(participant), (*key).to_owned()), Some(value));
        }
    });
}

fn scan(owner: &Owner, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let bounds = PageBounds { entries: limit, bytes: usize::MAX };
    let page = owner.journal.store_scan(&Participant::from("payment"), prefix, after, bounds).unwrap();
    assert!(page.rows.len() <= limit && (page.complete || page.rows.len() == limit), "{page:?}");
    page.rows
        .into_iter()
        .map(|(key, value)| {
            assert_eq!(key.as_bytes(), &*value);
            key
        })
        .collect()
}

pub fn store_scan_by_prefix(place: &dyn Place) {
    let owner = Owner::of(place);
    keep(&owner, "payment", &["a", "a/", "a/1", "a/10", "a/2", "a0", "b", "B"]);
    assert_eq!(scan(&owner, "", None, 99), ["B", "a", "a/", "a/1", "a/10", "a/2", "a0", "b"]);
    assert_eq!(scan(&owner, "a/", None, 99), ["a/", "a/1", "a/10", "a/2"]);
    assert_eq!(scan(&owner, "a/", None, 2), ["a/", "a/1"]);
    assert_eq!(scan(&owner, "a/", Some("a/1"), 99), ["a/10", "a/2"]);
    assert_eq!(scan(&owner, "a/", Some("a/11"), 99), ["a/2"], "`after` need not be a key");
    assert_eq!(scan(&owner, "a/", Some("A"), 99), ["a/", "a/1", "a/10", "a/2"], "`after` below the prefix");
    assert_eq!(scan(&owner, "a/", Some("a/2"), 99), [""; 0]);
    assert_eq!(scan(&owner, "a/", Some("b"), 99), [""; 0], "`after` above the prefix");
    assert_eq!(scan(&owner, "c", None, 99), [""; 0]);
    assert_eq!(scan(&owner, "a", None, 0), [""; 0]);
}

pub fn store_scan_edges(place: &dyn Place) {
    let owner = Owner::of(place);
    let max = "\u{10ffff}";
    let (twice, beyond) = (format!("{max}{max}"), format!("{max}z"));
    keep(&owner, "payment", &["", "\0", "\0\0", "x\0y", "x", "é", "e\u{301}", "z", "ÿ", "ÿa", "\u{ff01}", max, &twice]);
    keep(&owner, "payment", &[&beyond]);
    assert_eq!(scan(&owner, max, None, 99), [max, &beyond, &twice]);
    assert_eq!(scan(&owner, "ÿ", None, 99), ["ÿ", "ÿa"]);
    assert_eq!(scan(&owner, "\0", None, 99), ["\0", "\0\0"]);
    assert_eq!(scan(&owner, "x\0", None, 99), ["x\0y"]);
    assert_eq!(scan(&owner, "", None, 2), ["", "\0"]);
    assert_eq!(scan(&owner, "", Some(""), 1), ["\0"]);
    assert_eq!(scan(&owner, "e", None, 99), ["e\u{301}"], "bytes, not letters");
    let mut all = scan(&owner, "", None, 99);
    assert_eq!(all.len(), 14);
    assert!(all.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
    all.truncate(5);
    assert_eq!(scan(&owner, "", Some(&all[4]), 99).len(), 9);
    owner.commit(|batch| {
        batch.store.insert((Participant::from("payment"), "x\0y".to_owned()), None);
    });
    assert_eq!(scan(&owner, "x", None, 99), ["x"]);
    assert_eq!(owner.journal.store_get(&Participant::from("payment"), "x\0y").unwrap(), None);
}

/// A page is cut before what does not fit, never to nothing, and says so; the pages together are all there is.
pub fn store_scan_by_bytes(place: &dyn Place) {
    let owner = Owner::of(place);
    let till = Participant::from("till");
    let sizes = [10, 2_000, 10, 10, 900, 100_000, 10];
    owner.commit(|batch| {
        for (at, size) in sizes.iter().enumerate() {
            batch.store.insert((till.clone(), format!("k/{at}")), Some(vec![7; *size].into()));
        }
    });
    let page = |after: Option<&str>, bytes| {
        owner.journal.store_scan(&till, "k/", after, PageBounds { entries: 99, bytes }).unwrap()
    };
    for (bytes, pages) in [(1, vec![1; 7]), (1_200, vec![1, 1, 3, 1, 1]), (5_000, vec![5, 1, 1]), (1_000_000, vec![7])]
    {
        let (mut after, mut seen, mut lengths) = (None, Vec::new(), Vec::new());
        loop {
            let StorePage { rows, complete } = page(after.as_deref(), bytes);
            lengths.push(rows.len());
            assert_eq!(complete, seen.len() + rows.len() == 7, "{bytes}: {lengths:?}");
            seen.extend(rows.into_iter().map(|(_, value)| value.len()));
            after = Some(format!("k/{}", seen.len() - 1));
            if complete {
                break;
            }
        }
        assert_eq!((lengths, seen.as_slice()), (pages, &sizes[..]), "{bytes}");
    }
    let nothing = StorePage { rows: Vec::new(), complete: true };
    assert_eq!(page(Some("k/6"), 1), nothing, "behind the last one");
}

pub fn store_of_participants_apart(place: &dyn Place) {
    let owner = Owner::of(place);
    keep(&owner, "payment", &["k"]);
    keep(&owner, "payment2", &["k", "l"]);
    assert_eq!(scan(&owner, "", None, 99), ["k"]);
    assert_eq!(owner.journal.store_get(&Participant::from("order"), "k").unwrap(), None);
}

/// Reads a key as a chain does, and writes another one.
fn reading(owner: &Owner, key: &str, version: Option<Version>) -> BatchWrite {
    let name = |key: &str| (Participant::from("payment"), key.to_owned());
    let mut batch = BatchWrite { sagas: vec![saga("order-1")], outbox: vec![record("x")], ..owner.next() };
    batch.store_read.insert(name(key), version);
    batch.store.insert(name("written"), Some(Arc::from(&b"1"[..])));
    batch
}

fn version(owner: &Owner, key: &str) -> Option<Version> {
    owner.journal.store_get(&Participant::from("payment"), key).unwrap().map(|row| row.version)
}

pub fn versions_of_keys(place: &dyn Place) {
    let owner = Owner::of(place);
    keep(&owner, "payment", &["a", "b"]);
    keep(&owner, "payment", &["b"]);
    let stream = owner.identity.stream;
    let of = |batch| Some(Version { stream, batch: BatchNo(batch) });
    assert_eq!([version(&owner, "a"), version(&owner, "b"), version(&owner, "c")], [of(1), of(2), None]);
    owner.commit(|batch| {
        batch.store.insert((Participant::from("payment"), "b".to_owned()), None);
    });
    assert_eq!(version(&owner, "b"), None, "what is deleted has none");
    keep(&owner, "payment", &["b"]);
    assert_eq!(version(&Owner::of(place), "b"), of(4));
}

pub fn stale_read_is_a_conflict(place: &dyn Place) {
    let owner = Owner::of(place);
    let epoch = owner.identity.epoch;
    keep(&owner, "payment", &["a"]);
    let old = version(&owner, "a");
    keep(&owner, "payment", &["a"]);
    let new = version(&owner, "a");
    for (key, seen) in [("a", old), ("a", None), ("absent", old)] {
        let conflict = owner.journal.commit(epoch, &reading(&owner, key, seen)).unwrap();
        let lost = vec![Contended::Key((Participant::from("payment"), key.to_owned()))];
        assert!(matches!(&conflict, CommitAnswer::Conflict(names) if *names == lost), "{key}: {conflict:?}");
        assert_eq!((version(&owner, "written"), owner.outbox().len()), (None, 2), "nothing of it is written");
        assert_eq!(owner.journal.identity().last_batch, BatchNo(2));
        assert_eq!(owner.journal.reread().unwrap().last_batch, BatchNo(2));
    }
    done(owner.journal.commit(epoch, &reading(&owner, "a", new)));
    done(owner.journal.commit(epoch, &reading(&owner, "absent", None)));
    // What it writes itself is compared as it was before.
    let mut both = reading(&owner, "a", new);
    both.store.insert((Participant::from("payment"), "a".to_owned()), None);
    done(owner.journal.commit(epoch, &both));
    assert_eq!(version(&owner, "a"), None);
}

fn counter(participant: &str, name: &str) -> Name {
    (Participant::from(participant), name.to_owned())
}

pub fn counters_come_back(place: &dyn Place) {
    let owner = Owner::of(place);
    owner.commit(|batch| {
        batch.counters = BTreeMap::from([
            (counter("b", "x"), CounterWrite::new(i64::MIN)),
            (counter("a", "y"), CounterWrite::new(i64::MAX)),
            (counter("a", "x"), CounterWrite::new(7)),
        ]);
    });
    let (a, b) = (Participant::from("a"), Participant::from("b"));
    let row = |participant: &Participant, name: &str, value| (participant.clone(), name.to_owned(), value);
    let all = [row(&a, "x", 7), row(&a, "y", i64::MAX), row(&b, "x", i64::MIN)];
    assert_eq!(owner.journal.counters(None).unwrap(), all);
    assert_eq!(owner.journal.counters(Some(&b)).unwrap(), all[2..]);
    assert_eq!(owner.journal.counter(&b, "x").unwrap(), Some(i64::MIN));
    assert_eq!(owner.journal.counter(&b, "y").unwrap(), None);
}

/// Sold from what there is, whatever that is by now, as long as all answers stay the same.
const SOLD: CounterWrite = CounterWrite { lo: 3, hi: i64::MAX, delta: -3, initial: None, seen: Seen::Present };

pub fn counters_change_by_differences(place: &dyn Place) {
    let owner = Owner::of(place);
    let stock = Participant::from("inventory");
    let change = |write| owner.commit(|batch| batch.counters = BTreeMap::from([(counter("inventory", "sku"), write)]));
    let there = || owner.journal.counter(&stock, "sku").unwrap();
    let ensured = CounterWrite { initial: Some(10), seen: Seen::Either, ..SOLD };
    let mut seen = Vec::new();
    for write in [ensured, ensured, SOLD, CounterWrite { lo: i64::MIN, delta: 2, ..SOLD }] {
        change(write);
        seen.push(there());
    }
    assert_eq!(seen, [Some(7), Some(4), Some(1), Some(3)]);
    let read = CounterWrite { delta: 0, ..CounterWrite { lo: 3, hi: 3, ..SOLD } };
    change(read);
    assert_eq!(there(), Some(3), "it was only read");
    let absent = CounterWrite { lo: i64::MIN, delta: 0, seen: Seen::Absent, ..SOLD };
    owner.commit(|batch| batch.counters = BTreeMap::from([(counter("inventory", "none"), absent)]));
    assert_eq!(owner.journal.counter(&stock, "none").unwrap(), None, "to read makes nothing");
}

pub fn counter_out_of_bounds_is_a_conflict(place: &dyn Place) {
    let owner = Owner::of(place);
    owner.commit(|batch| batch.counters = BTreeMap::from([(counter("a", "two"), CounterWrite::new(2))]));
    let refused = CounterWrite { lo: i64::MIN, hi: 1, delta: 0, ..SOLD };
    for (name, write) in [("two", SOLD), ("two", refused), ("none", SOLD), ("two", CounterWrite::new(1))] {
        let mut batch = BatchWrite { sagas: vec![saga("order-1")], ..owner.next() };
        batch.counters = BTreeMap::from([(counter("a", name), write), (counter("a", "other"), CounterWrite::new(1))]);
        let conflict = owner.journal.commit(owner.identity.epoch, &batch).unwrap();
        let lost = vec![Contended::Counter(counter("a", name))];
        assert!(matches!(&conflict, CommitAnswer::Conflict(names) if *names == lost), "{write:?}: {conflict:?}");
        let (there, last) = (owner.journal.counters(None).unwrap(), owner.journal.identity().last_batch);
        assert_eq!((there.len(), there[0].2, last), (1, 2, BatchNo(1)), "nothing of it is written");
    }
}

pub fn admission(place: &dyn Place) {
    let owner = Owner::of(place);
    let row = |digest: &str, since, serving| AdmittedRow {
        participant: Participant::from("payment"),
        digest: Arc::from(digest),
        manifest: r#"{"name":"payment"}"#.to_owned(),
        admitted: Time(4),
        since: Generation(since),
        serving,
        quarantined: None,
        file: format!("plugins/{digest}.wasm"),
        config: Arc::from("c1"),
    };
    let admit = |owner: &Owner, row: &AdmittedRow| {
        owner.change_plugins(PluginWrite { admitted: vec![row.clone()], ..PluginWrite::default() });
    };
    admit(&owner, &row("d1", 0, true));
    assert_eq!(owner.journal.admitted().unwrap(), [row("d1", 0, true)]);
    admit(&owner, &row("d2", 5, true));
    assert_eq!(place.open().admitted().unwrap(), [row("d1", 0, false), row("d2", 5, true)], "one serves at a time");
    let owner = Owner::of(place);
    let retired = AdmittedRow { config: Arc::from("c2"), ..row("d2", 5, false) };
    admit(&owner, &retired);
    assert_eq!(owner.journal.admitted().unwrap(), [row("d1", 0, false), retired.clone()]);
    let quarantine = |owner: &Owner, why: Option<&str>| {
        let quarantined = vec![(Participant::from("payment"), Arc::from("d2"), why.map(str::to_owned))];
        owner.change_plugins(PluginWrite { quarantined, ..PluginWrite::default() });
    };
    quarantine(&owner, Some("it fails"));
    let quarantined = AdmittedRow { quarantined: Some("it fails".to_owned()), ..retired.clone() };
    assert_eq!(place.open().admitted().unwrap(), [row("d1", 0, false), quarantined]);
    let owner = Owner::of(place);
    let forget = |owner: &Owner, digest: &str| {
        let forgotten = vec![(Participant::from("payment"), Arc::from(digest))];
        owner.change_plugins(PluginWrite { forgotten, ..PluginWrite::default() });
    };
    forget(&owner, "d2");
    assert_eq!(owner.journal.admitted().unwrap().len(), 2, "what is in quarantine is not forgotten");
    quarantine(&owner, None);
    assert_eq!(owner.journal.admitted().unwrap(), [row("d1", 0, false), retired]);
    admit(&owner, &row("d2", 5, true));
    forget(&owner, "d1");
    forget(&owner, "d2");
    assert_eq!(place.open().admitted().unwrap(), [row("d2", 5, true)], "what serves is not forgotten");
}

pub fn pauses_and_history(place: &dyn Place) {
    let owner = Owner::of(place);
    let (a, b) = (Participant::from("a"), Participant::from("b"));
    let entry = |participant: &Participant, number: u64| PluginHistoryEntry {
        participant: participant.clone(),
        at: Time(number),
        digest: Arc::from("d1"),
        config: Arc::from("c1"),
        what: format!("entry {number}"),
    };
    let why = |why: &str| Some(why.to_owned());
    owner.change_plugins(PluginWrite {
        paused: vec![(a.clone(), why("first")), (b.clone(), why("for a while"))],
        history: (1..=300).map(|number| entry(&a, number)).chain([entry(&b, 1)]).collect(),
        ..PluginWrite::default()
    });
    let paused = vec![(a.clone(), why("second")), (b.clone(), None)];
    owner.change_plugins(PluginWrite { paused, ..PluginWrite::default() });
    let journal = place.open();
    assert_eq!(journal.paused().unwrap(), BTreeMap::from([(a.clone(), "second".to_owned())]));
    assert_eq!(journal.plugin_history(&a, 2).unwrap(), [entry(&a, 300), entry(&a, 299)]);
    let all = journal.plugin_history(&a, usize::MAX).unwrap();
    assert!((200..300).contains(&all.len()), "they are bounded: {}", all.len());
    assert_eq!(journal.plugin_history(&b, 9).unwrap(), [entry(&b, 1)]);
}
