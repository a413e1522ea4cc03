//! Events of kinds that no plugin of the app handles: counted by topic and kind since the host's start. Invariant: each such
//! event is counted, and the memory for it is bounded whatever kinds records say.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use sagahost_saga::event::Event;
use sagahost_wire::Partition;

/// Pairs of topic and kind that are told apart, of each sort; more are counted together.
const KINDS_MAX: usize = 100;
/// Of the name of a kind, as it is kept and shown.
const KIND_BYTES_MAX: usize = 256;

/// Is it known that the kind is for others?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Not known: it needs a look.
    Unhandled,
    /// The configuration says so, or this app emitted the event itself.
    Ignored,
}

/// What an event was, among those that nobody handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// The first one of its topic and kind.
    First,
    Again,
    /// The first one that is counted with all further kinds.
    Overflow,
}

/// Events of one kind in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnhandledKind {
    pub topic: String,
    pub kind: String,
    pub events: u64,
    /// Where the last one is: `order-created[2]@17`.
    pub last: Option<String>,
    pub sort: Sort,
    /// The kind that is handled here and was probably meant.
    pub meant: Option<String>,
}

#[derive(Debug, Default)]
pub struct UnhandledKinds {
    unhandled: Mutex<Tally>,
    ignored: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    events: u64,
    kinds: BTreeMap<(Arc<str>, String), Seen>,
    /// There were more kinds than are told apart.
    overflowed: bool,
}

#[derive(Debug)]
struct Seen {
    events: u64,
    last: Option<String>,
    meant: Option<String>,
}

impl UnhandledKinds {
    /// `topic`: where the event was, or would be. `meant`: the known kind that is probably meant.
    pub fn note(
        &self,
        event: &Event,
        topic: &Arc<str>,
        sort: Sort,
        meant: impl FnOnce() -> Option<String>,
    ) -> Sighting {
        let mut tally = self.tally(sort).lock();
        tally.events += 1;
        let last = event.origin.as_ref().map(|at| {
            let partition = Partition { topic: at.topic.clone(), number: at.partition };
            format!("{partition}@{}", at.offset)
        });
        let kind = event.kind.as_str();
        let kind = &kind[..kind.floor_char_boundary(KIND_BYTES_MAX)];
        let pair = (topic.clone(), kind.to_owned());
        if let Some(seen) = tally.kinds.get_mut(&pair) {
            seen.events += 1;
            seen.last = last;
            return Sighting::Again;
        }
        if tally.kinds.len() >= KINDS_MAX {
            return if std::mem::replace(&mut tally.overflowed, true) { Sighting::Again } else { Sighting::Overflow };
        }
        tally.kinds.insert(pair, Seen { events: 1, last, meant: meant() });
        Sighting::First
    }

    /// All of this sort.
    pub fn events(&self, sort: Sort) -> u64 {
        self.tally(sort).lock().events
    }

    /// The unhandled ones first.
    pub fn lines(&self) -> Vec<UnhandledKind> {
        [Sort::Unhandled, Sort::Ignored].into_iter().flat_map(|sort| self.tally(sort).lock().lines(sort)).collect()
    }

    fn tally(&self, sort: Sort) -> &Mutex<Tally> {
        match sort {
            Sort::Unhandled => &self.unhandled,
            Sort::Ignored => &self.ignored,
        }
    }
}

impl Tally {
    fn lines(&self, sort: Sort) -> Vec<UnhandledKind> {
        let line = |((topic, kind), seen): (&(Arc<str>, String), &Seen)| UnhandledKind {
            topic: topic.to_string(),
            kind: kind.clone(),
            events: seen.events,
            last: seen.last.clone(),
            sort,
            meant: seen.meant.clone(),
        };
        self.kinds.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use sagahost_saga::{
        event::{Event, Origin},
        id::{EventKey, Kind, SagaId, Time},
    };

    use super::*;

    fn event(kind: &str, offset: i64) -> Event {
        Event {
            key: EventKey::new("s", "1"),
            saga: SagaId::new("o-1"),
            record_key: None,
            kind: Kind::new(kind),
            time: Time(0),
            content_type: "application/json".into(),
            data: Arc::from(&b"{}"[..]),
            attributes: Vec::new(),
            hops: 0,
            origin: Some(Origin { topic: "t".into(), partition: 2, offset, record: None }),
        }
    }

    #[test]
    fn every_event_is_counted_and_the_kinds_are_bounded() {
        let kinds = UnhandledKinds::default();
        let note = |kind: &str, offset, sort| kinds.note(&event(kind, offset), &"t".into(), sort, || None);
        assert_eq!(note("A", 1, Sort::Unhandled), Sighting::First);
        assert_eq!(note("A", 2, Sort::Unhandled), Sighting::Again);
        assert_eq!(note("A", 3, Sort::Ignored), Sighting::First);
        for number in 1..KINDS_MAX {
            assert_eq!(note(&format!("A{number}"), 4, Sort::Unhandled), Sighting::First);
        }
        assert_eq!(note("B", 5, Sort::Unhandled), Sighting::Overflow);
        assert_eq!(note("C", 6, Sort::Unhandled), Sighting::Again);
        assert_eq!(note("D", 7, Sort::Ignored), Sighting::First, "those that are known leave room for others");
        assert_eq!((kinds.events(Sort::Unhandled), kinds.events(Sort::Ignored)), (KINDS_MAX as u64 + 3, 2));
        let lines = kinds.lines();
        assert_eq!(lines.len(), KINDS_MAX + 2);
        assert_eq!((lines[0].events, lines[0].last.as_deref(), lines[0].sort), (2, Some("t[2]@2"), Sort::Unhandled));
        let long = "ä".repeat(1000);
        note(&long, 8, Sort::Ignored);
        assert!(kinds.lines().iter().all(|line| line.kind.len() <= KIND_BYTES_MAX));
    }
}
