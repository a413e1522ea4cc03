//! What must be so when a run has ended: an account of money, stock and orders that knows nothing of batches, offsets and
//! journals. Invariant: it computes what should be from what was ordered, and reads what is from topics and tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sagahost_journal::{Journal, LetterFilter, PageBounds, SagaFilter, requests};
use sagahost_saga::{
    Saga,
    id::{Participant, SagaId},
};
use sagahost_transport::{Assignment, Polled, Source, Transport};
use sagahost_wire::{Outgoing, Partition, Record};
use serde_json::{Value, json};

use crate::{
    agent,
    courier::{Booked, Service},
    till,
};

/// Above it a payment is declined.
pub const LIMIT_CENTS: u64 = 100_000;
pub const OPENING_CENTS: i64 = 1_000_000;
pub const OPENING_STOCK: i64 = 1_000;

#[derive(Clone, Debug)]
pub struct Order {
    pub id: String,
    pub customer: String,
    pub sku: String,
    pub quantity: i64,
    pub cents: u64,
}

impl Order {
    /// As it is sent.
    pub fn value(&self) -> Value {
        let Self { id, customer, sku, quantity, cents } = self;
        json!({
            "orderId": id, "customerId": customer, "sku": sku, "quantity": quantity,
            "amountCents": cents, "currency": "EUR"
        })
    }
}

/// What was asked for in a run.
#[derive(Default)]
pub struct Asked {
    pub orders: Vec<Order>,
    /// Whether they are cancelled is not for the oracle to say: a person asked for it, or a plugin failed too often.
    pub either: BTreeSet<String>,
    pub bad_records: usize,
    /// Batches behind this one were staged when the ledger was there; `u64::MAX`: it never came.
    pub ledger_joined: u64,
    /// The broker refused rows: copies of dead letters give way.
    pub rows_refused: bool,
    /// Kinds and orders of events that an operator wanted left out.
    pub left_out: BTreeSet<(String, String)>,
}

/// Which order an event of this app is about, after its kind.
pub fn about(record: &Outgoing) -> (String, String) {
    let kind = record.headers.iter().find(|(name, _)| name == "ce_type").and_then(|(_, value)| value.as_deref());
    let value: Value = serde_json::from_slice(record.value.as_deref().unwrap_or_default()).unwrap_or_default();
    let kind = String::from_utf8_lossy(kind.unwrap_or_default()).into_owned();
    (kind, value["orderId"].as_str().unwrap_or_default().to_owned())
}

/// Everything that a reader of the topics sees, by kind.
#[derive(Default)]
pub struct Seen {
    by_kind: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
    dead_letters: usize,
    /// The batch with which a payment was taken in when it was emitted; None: it was delivered.
    paid_in: BTreeMap<String, Option<u64>>,
    faults: Vec<String>,
}

/// Reads the topics on and on.
pub struct Reading {
    source: Box<dyn Source>,
    /// Kinds by their topics.
    kinds: BTreeMap<Arc<str>, String>,
    ids: BTreeSet<(Vec<u8>, Vec<u8>)>,
    pub seen: Seen,
}

impl Reading {
    /// All partitions, from their beginning.
    pub fn begin(transport: &dyn Transport, topics: &BTreeMap<String, String>) -> Self {
        let kinds: BTreeMap<Arc<str>, String> =
            topics.iter().map(|(kind, topic)| (topic.as_str().into(), kind.clone())).collect();
        let names: Vec<Arc<str>> = kinds.keys().cloned().collect();
        let there = transport.topics(&names).expect("it can be asked");
        let all = there.iter().flat_map(|(topic, count)| {
            (0..*count).map(|number| Assignment::new(Partition { topic: topic.clone(), number }, 0))
        });
        let mut source = transport.source().expect("it can be read");
        source.assign(&all.collect::<Vec<_>>()).expect("it can be read");
        Self { source, kinds, ids: BTreeSet::new(), seen: Seen::default() }
    }

    /// Up to the end.
    pub fn go_on(&mut self) -> &Seen {
        loop {
            let items = self.source.poll(1_000).expect("it can be read").items;
            if items.is_empty() {
                return &self.seen;
            }
            for item in items {
                match item {
                    Polled::Record(record) => {
                        self.seen.record(&self.kinds[&record.partition.topic], &record, &mut self.ids);
                    }
                    Polled::Held { partition, why } => {
                        self.seen.faults.push(format!("{partition} cannot be read: {why}"));
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Seen {
    fn record(&mut self, kind: &str, record: &Record, ids: &mut BTreeSet<(Vec<u8>, Vec<u8>)>) {
        if kind == "dead letters" {
            self.dead_letters += 1;
            return;
        }
        let header = |name: &str| {
            let found = record.headers.iter().find(|(header, _)| header == name);
            found.and_then(|(_, value)| value.clone()).unwrap_or_default()
        };
        let id = (header("ce_source"), header("ce_id"));
        let place = format!("{}@{}", record.partition, record.offset);
        if !ids.insert(id.clone()) {
            let id = String::from_utf8_lossy(&id.1).into_owned();
            self.faults.push(format!("{kind} {id} at {place} was published twice"));
        }
        let mark = String::from_utf8(header("sagahost-handled")).unwrap_or_default();
        let batch = mark.split('/').nth(2).and_then(|place| place.split('.').next()?.parse().ok());
        let value: Value = match serde_json::from_slice(record.value.as_deref().unwrap_or_default()) {
            Ok(value) => value,
            Err(error) => return self.faults.push(format!("{place} is no JSON: {error}")),
        };
        let order = value["orderId"].as_str().unwrap_or_default().to_owned();
        if kind == "PaymentProcessed" {
            self.paid_in.insert(order.clone(), batch);
        }
        self.by_kind.entry(kind.to_owned()).or_default().entry(order).or_default().push(value);
    }

    fn count(&self, kind: &str, order: &str) -> usize {
        self.by_kind.get(kind).and_then(|orders| orders.get(order)).map_or(0, Vec::len)
    }

    pub fn has_ended(&self, order: &str) -> bool {
        self.count("OrderCompleted", order) + self.count("OrderCancelled", order) > 0
    }

    pub fn is_completed(&self, order: &str) -> bool {
        self.count("OrderCompleted", order) > 0
    }

    /// Is there anything of it?
    pub fn knows(&self, order: &str) -> bool {
        self.by_kind.values().any(|orders| orders.contains_key(order))
    }

    /// Those of these kinds that were published.
    pub fn any<'k>(&self, kinds: &'k [&str]) -> impl Iterator<Item = &'k str> {
        kinds.iter().copied().filter(|kind| self.by_kind.contains_key(*kind))
    }

    pub fn ended(&self) -> usize {
        ["OrderCompleted", "OrderCancelled"].iter().filter_map(|kind| self.by_kind.get(*kind)).map(BTreeMap::len).sum()
    }
}

/// Everything that is not as it must be.
pub fn faults(asked: &Asked, seen: &Seen, journal: &dyn Journal) -> Vec<String> {
    let mut faults = seen.faults.clone();
    let mut completed: BTreeSet<&str> = BTreeSet::new();
    for order in &asked.orders {
        let of = |kind: &str| {
            let count = seen.count(kind, &order.id);
            count + usize::from(count == 0 && asked.left_out.contains(&(kind.to_owned(), order.id.clone())))
        };
        let (done, cancelled) = (of("OrderCompleted"), of("OrderCancelled"));
        let line = format!(
            "{}: {done} × completed, {cancelled} × cancelled, paid {}, refunded {}, reserved {}, released {}",
            order.id,
            of("PaymentProcessed"),
            of("PaymentRefunded"),
            of("InventoryUpdated"),
            of("InventoryReleased")
        );
        let standing = usize::from(done == 1);
        let undone = |did: &str, undid: &str| of(did) <= 1 && of(did) == of(undid) + standing;
        if done + cancelled != 1
            || !undone("PaymentProcessed", "PaymentRefunded")
            || !undone("InventoryUpdated", "InventoryReleased")
        {
            faults.push(line);
        }
        if done > 0 {
            completed.insert(&order.id);
        }
    }
    faults.extend(wrong_ends(asked, &completed));
    faults.extend(conserved(asked, &completed, journal));
    faults.extend(kept(asked, seen, journal));
    faults.extend(entered(asked, seen, journal));
    faults
}

/// What is completed has its courier; what is cancelled has none.
pub fn booked(asked: &Asked, seen: &Seen, courier: &Service, journal: &dyn Journal) -> Vec<String> {
    let mut faults = courier.twice();
    let in_letters = in_letters(&"courier".into(), journal);
    for order in &asked.orders {
        let bookings = courier.bookings(&order.id);
        let completed = seen.count("OrderCompleted", &order.id) > 0;
        let standing = bookings.iter().filter(|booked| **booked == Booked::Standing).count();
        // One that could not be booked for long is a dead letter, and the order is completed without.
        let without = completed && standing <= 1 && in_letters.contains(&SagaId::new(&order.id));
        if standing != usize::from(completed) && !without {
            let end = if completed { "completed" } else { "cancelled" };
            faults.push(format!("{} is {end}, and its courier: {bookings:?}", order.id));
        }
    }
    faults
}

/// The same of what the agent asked for. What it counts in its store is what stands, however many sagas counted at one time; and
/// of an order that is completed nobody keeps what was asked.
pub fn asked_for(asked: &Asked, seen: &Seen, service: &Service, journal: &dyn Journal) -> Vec<String> {
    let mut faults = service.desk(|desk| desk.faults.clone());
    let in_letters = in_letters(&agent::NAME.into(), journal);
    let mut uncounted = 0;
    for order in &asked.orders {
        let id = SagaId::new(&order.id);
        let bookings = service.desk(|desk| desk.of(&id));
        let completed = seen.count("OrderCompleted", &order.id) > 0;
        let standing = bookings.iter().filter(|booked| **booked == Booked::Standing).count();
        // The order is completed without; what the last attempt asked for may stand, and is not counted.
        let without = completed && standing <= 1 && in_letters.contains(&id);
        uncounted += if without { standing as i64 } else { 0 };
        if standing != usize::from(completed) && !without {
            let end = if completed { "completed" } else { "cancelled" };
            faults.push(format!("{} is {end}, and the desk has {bookings:?}", order.id));
        }
        let prefix = format!("{}send/{}:", requests::saga_prefix(&id), agent::NAME);
        let kept = journal.store_scan(&requests::owner(), &prefix, None, PageBounds { entries: 9, bytes: usize::MAX });
        if completed && !without && !kept.expect("the store can be read").rows.is_empty() {
            faults.push(format!("{} is completed, and its requests are kept", order.id));
        }
    }
    let counted = journal.store_get(&agent::NAME.into(), agent::COUNT).expect("the store can be read");
    let counted = counted.and_then(|row| serde_json::from_slice::<i64>(&row.value).ok()).unwrap_or_default();
    let standing = service.desk(|desk| desk.standing()) as i64;
    if counted != standing - uncounted {
        faults.push(format!("the agent counts {counted}, and the desk has {standing}, {uncounted} of them in letters"));
    }
    faults
}

/// Sagas of which a person has a letter: a version that is broken, or a line that is, used up all attempts of that participant.
fn in_letters(participant: &Participant, journal: &dyn Journal) -> BTreeSet<SagaId> {
    let filter = LetterFilter { limit: usize::MAX, participant: Some(participant.clone()), ..LetterFilter::default() };
    let letters = journal.letters(&filter).expect("the journal can be read");
    letters.into_iter().filter_map(|letter| letter.saga).collect()
}

/// The ledger: each payment of an article is entered once, by whatever way it is counted.
fn entered(asked: &Asked, seen: &Seen, journal: &dyn Journal) -> Vec<String> {
    let mut payments: BTreeMap<&str, usize> = BTreeMap::new();
    for order in &asked.orders {
        *payments.entry(&order.sku).or_default() += seen.count("PaymentEntered", &order.id);
    }
    let ledger = Participant::new("ledger");
    let in_letters = in_letters(&ledger, journal);
    let mut faults = Vec::new();
    for order in &asked.orders {
        let completed = seen.count("OrderCompleted", &order.id) > 0;
        let there = seen.paid_in.get(&order.id).copied().flatten().is_some_and(|batch| batch > asked.ledger_joined);
        let missing = seen.count("PaymentEntered", &order.id) == 0 && !in_letters.contains(&SagaId::new(&order.id));
        if completed && there && missing {
            faults.push(format!("{} was paid when the ledger was there, and is not entered", order.id));
        }
    }
    for (sku, payments) in payments.into_iter().filter(|(_, payments)| *payments > 0) {
        for count in ["count", "entered", "read"] {
            let kept = journal.store_get(&ledger, &format!("{count}/{sku}")).expect("the journal can be read");
            let kept = kept.and_then(|value| serde_json::from_slice::<usize>(&value.value).ok());
            if kept != Some(payments) {
                faults.push(format!("{payments} payments for {sku} are entered, {count} is {kept:?}"));
            }
        }
    }
    faults
}

/// Above the limit: cancelled. Of an article: completed, as far as there is stock. Everybody can pay.
fn wrong_ends(asked: &Asked, completed: &BTreeSet<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut articles: BTreeMap<&str, Vec<&Order>> = BTreeMap::new();
    for order in &asked.orders {
        if order.cents > LIMIT_CENTS {
            if completed.contains(&*order.id) {
                wrong.push(format!("{} is completed, and its amount is above the limit", order.id));
            }
        } else {
            articles.entry(&order.sku).or_default().push(order);
        }
    }
    for (sku, orders) in articles {
        let sold: i64 = orders.iter().filter(|order| completed.contains(&*order.id)).map(|order| order.quantity).sum();
        if sold > OPENING_STOCK {
            wrong.push(format!("{sold} of {sku} are sold"));
        }
        let denied = orders.iter().filter(|order| !completed.contains(&*order.id) && !asked.either.contains(&order.id));
        // Stock may have been held for a while by one that was cancelled in the end.
        let held: i64 =
            orders.iter().filter(|order| asked.either.contains(&order.id)).map(|order| order.quantity).sum();
        for order in denied {
            if sold + held + order.quantity <= OPENING_STOCK {
                wrong.push(format!("{} is cancelled, and {sku} is not sold out ({sold} sold)", order.id));
            }
        }
    }
    wrong
}

fn conserved(asked: &Asked, completed: &BTreeSet<&str>, journal: &dyn Journal) -> Vec<String> {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    let counters = journal.counters(None).expect("the journal can be read");
    for order in asked.orders.iter().filter(|order| completed.contains(&*order.id)) {
        *expected.entry(format!("balance/{}", order.customer)).or_insert(OPENING_CENTS) -=
            i64::try_from(order.cents).expect("amounts are small");
        *expected.entry(format!("stock/{}", order.sku)).or_insert(OPENING_STOCK) -= order.quantity;
    }
    let mut faults = Vec::new();
    let others = |owner: &Participant, name: &str| owner.as_str() == till::NAME || name.starts_with("entries/");
    for (_, name, value) in counters.iter().filter(|(owner, name, _)| !others(owner, name)) {
        let opening = if name.starts_with("balance/") { OPENING_CENTS } else { OPENING_STOCK };
        let should = expected.remove(name).unwrap_or(opening);
        if *value != should {
            faults.push(format!("{name} is {value}, and should be {should}"));
        }
    }
    faults.extend(expected.keys().map(|name| format!("{name} is gone")));
    faults
}

/// What the journal says of itself: all sagas at their end, each record readable, every bad record a letter.
fn kept(asked: &Asked, seen: &Seen, journal: &dyn Journal) -> Vec<String> {
    let mut faults = Vec::new();
    let all = SagaFilter { limit: usize::MAX, ..SagaFilter::default() };
    let mut rows = BTreeSet::new();
    for row in journal.sagas(&all).expect("the journal can be read") {
        if !rows.insert(row.id.clone()) {
            faults.push(format!("saga {} has two records", row.id));
        }
        if !row.status.terminal() {
            faults.push(format!("saga {} is {:?}", row.id, row.status));
        }
        let record = journal.saga(&row.id).expect("the journal can be read");
        match record.map(|record| Saga::decode(&record.bytes)) {
            Some(Ok(_)) => {}
            other => faults.push(format!("saga {} cannot be read: {other:?}", row.id)),
        }
    }
    let letters = journal.letters(&LetterFilter { limit: usize::MAX, ..LetterFilter::default() });
    let letters = letters.expect("the journal can be read");
    // An operator tries those again until they go through, and that closes their letters.
    let left_open = letters.iter().filter(|letter| letter.code == "compensation-failed" && letter.closed.is_none());
    faults
        .extend(left_open.map(|letter| format!("all is undone, and letter {} is open: {}", letter.key, letter.detail)));
    let of_a_record = |letter: &sagahost_wire::StoredLetter| letter.letter.is_none();
    let letters: Vec<_> = letters.into_iter().filter(of_a_record).collect();
    if letters.len() != asked.bad_records {
        faults.push(format!("{} records were bad, and these letters are kept:", asked.bad_records));
        let line = |letter: &sagahost_wire::StoredLetter| format!("  {} {} {}", letter.key, letter.code, letter.detail);
        faults.extend(letters.iter().map(line));
    }
    if seen.dead_letters < asked.bad_records && !asked.rows_refused {
        faults.push(format!("{} records were bad, {} copies are out", asked.bad_records, seen.dead_letters));
    }
    faults
}
