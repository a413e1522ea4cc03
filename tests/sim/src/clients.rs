//! Those who send requests over HTTP: each keeps its key and its body, and sends them again until it is answered. Invariant: what
//! is answered is in the journal of the host that answers; one key is one request, and a saga begins once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use sagahost_journal::{Journal, JournalError, requests};
use sagahost_processor::{
    mailbox::Item,
    reply::{Declined, Reply},
    request::{Admission, Asker, Asks, Request},
    step::Steady,
};
use sagahost_saga::{
    Saga,
    event::{Attributes, Event},
    id::{EventKey, Kind, SagaId},
};
use sagahost_transport::{Assignment, Polled, Transport};
use sagahost_wire::{Partition, Record};
use serde_json::json;

use crate::{
    host::{self, Begun, Running},
    oracle::{Order, Seen},
    plan::{Fault, draw},
    till::{self, Draw, Ends, Told as TillTold},
    world::{self, happens, world},
};

/// Streams of choices, beside all others.
const KEYS: u64 = 400;
const CHOICES: u64 = 402;
const CHANCES: u64 = 403;
/// Clients of one order at most, and of what goes with it.
const OF_ONE: u64 = 16;
const PRINCIPAL: &str = "ann";

/// What somebody wants.
#[derive(Clone, Debug)]
pub enum Wish {
    Order(Order),
    Draw(Draw),
    /// The till's part is over.
    Settle,
    Cancel,
}

/// What a client heard that is for good.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Admitted,
    Refused(Admission),
    /// The journal has it that the saga is cancelled.
    Cancelled,
    TooLate,
}

#[derive(Debug)]
struct Client {
    /// No other has it, whatever is left out of the run.
    number: u64,
    draws: u64,
    key: String,
    saga: SagaId,
    wish: Wish,
    /// These are answered before.
    behind: Vec<usize>,
    /// When it is sent next.
    next: Option<Steady>,
    heard: Option<Heard>,
    /// It was told that the request was taken in then, rather than known.
    taken_in: bool,
}

/// A host answered.
struct Told {
    client: usize,
    /// The one of the host's journal.
    directory: u64,
    said: Result<Admission, Declined>,
    /// What is not in the journal, and must be.
    missing: Option<String>,
}

/// Who competes with a request.
#[derive(Clone, Copy)]
pub struct Others {
    body: bool,
    saga: bool,
    key: bool,
    /// A cancel comes first.
    cancel: bool,
}

impl Others {
    pub fn choose() -> Self {
        let faults = [Fault::KeyForOtherBody, Fault::KeyForOtherSaga, Fault::OtherKey, Fault::CancelledFirst];
        let [body, saga, key, cancel] = faults.map(happens);
        Self { body, saga, key, cancel }
    }
}

/// All of a run.
#[derive(Default)]
pub struct Clients {
    all: Vec<Client>,
    told: Arc<Mutex<Vec<Told>>>,
    /// Of the clients, when the first is to send.
    soonest: Option<Steady>,
    directory: u64,
    /// Orders of which nobody knows before the end whether they begin.
    pub contested: BTreeSet<String>,
    /// What was answered and must not be; each is said once.
    pub faults: Vec<String>,
    /// How often each answer was given.
    pub answers: Answers,
}

pub type Answers = BTreeMap<String, u64>;

impl Wish {
    fn kind(&self) -> Kind {
        Kind::new(match self {
            Self::Order(_) => "OrderCreated",
            Self::Draw(_) => "Withdraw",
            Self::Settle => "Settled",
            Self::Cancel => unreachable!("a cancel is a command"),
        })
    }

    fn body(&self, saga: &SagaId) -> Vec<u8> {
        let value = match self {
            Self::Order(order) => order.value(),
            Self::Draw(Draw { saga, ask, customer, cents, .. }) => {
                json!({ "orderId": saga, "ask": ask, "customerId": customer, "amountCents": cents })
            }
            Self::Settle | Self::Cancel => json!({ "orderId": saga.as_str() }),
        };
        value.to_string().into_bytes()
    }

    /// Of the till.
    fn asks(&self) -> bool {
        matches!(self, Self::Draw(_) | Self::Settle)
    }
}

impl Draw {
    fn of(order: &Order, saga: &str, ask: u64) -> Self {
        Self {
            saga: saga.to_owned(),
            of_order: saga == order.id,
            ask: format!("{saga}/{ask}"),
            customer: order.customer.clone(),
            cents: 100 + order.cents % 97 + ask % OF_ONE,
        }
    }
}

/// Of a request with this number, whenever it comes.
fn chance(number: u64, among: u64) -> u64 {
    draw(world(|world| world.plan.ask.seed), CHANCES, number) % among
}

impl Client {
    fn draw(&mut self, among: u64) -> u64 {
        self.draws += 1;
        let seed = world(|world| world.plan.ask.seed);
        draw(seed, CHOICES, self.number * 1_000 + self.draws) % among
    }

    fn pause(&mut self, at_most_ms: u64) -> Duration {
        Duration::from_millis(1 + self.draw(at_most_ms))
    }

    fn is_of_the_till(&self) -> bool {
        self.saga.as_str().starts_with("t-")
    }

    fn event(&self) -> Event {
        let (asks, path) = if self.wish.asks() { (true, "/till") } else { (false, "/orders") };
        Event {
            key: EventKey::new(Event::source_of_request(host::APP, asks, path), &*self.key),
            saga: self.saga.clone(),
            kind: self.wish.kind(),
            time: world::now().wall,
            content_type: "application/json".into(),
            data: self.wish.body(&self.saga).into(),
            attributes: Attributes::new(),
            hops: 0,
            origin: None,
            record_key: None,
        }
    }
}

impl Clients {
    fn key(number: u64) -> String {
        let seed = world(|world| world.plan.ask.seed);
        format!("{:016x}{:016x}", draw(seed, KEYS, number), draw(seed, KEYS + 1, number))
    }

    /// `within`: of now, in milliseconds.
    fn add(&mut self, number: u64, key: &str, saga: &str, wish: Wish, within: u64, behind: &[usize]) -> usize {
        let mut client = Client {
            number,
            draws: 0,
            key: key.to_owned(),
            saga: SagaId::new(saga),
            wish,
            behind: behind.to_vec(),
            next: None,
            heard: None,
            taken_in: false,
        };
        // Those who compete do so mostly at once.
        let wait = if client.draw(3) == 0 { client.draw(within.max(1)) } else { 0 };
        client.next = Some(world::now().steady.after(Duration::from_millis(wait)));
        self.all.push(client);
        self.wake();
        self.all.len() - 1
    }

    fn wake(&mut self) {
        self.soonest = self.all.iter().filter_map(|client| client.next).min();
    }

    /// When somebody sends next.
    pub fn next(&self) -> Option<Steady> {
        self.soonest
    }

    /// An order is requested, and others compete with it. `competes`: it also comes as a record.
    pub fn order(&mut self, number: usize, order: &Order, others: Others, competes: bool) {
        let first = number as u64 * OF_ONE;
        let (id, key) = (&*order.id, Self::key(first));
        // A saga that nobody begins, after all, would wait for ever.
        let cancelled = others.cancel && (!others.saga || competes);
        let cancel = cancelled.then(|| self.add(first + 1, "", id, Wish::Cancel, 100, &[]));
        let behind: Vec<usize> = cancel.into_iter().collect();
        self.add(first, &key, id, Wish::Order(order.clone()), 300, &behind);
        if others.body {
            let other = Order { cents: order.cents + 1, ..order.clone() };
            self.add(first + 2, &key, id, Wish::Order(other), 3_000, &behind);
        }
        if others.saga {
            let other = Order { id: format!("{id}-other"), ..order.clone() };
            self.contested.insert(id.to_owned());
            self.add(first + 3, &key, &other.id.clone(), Wish::Order(other), 3_000, &behind);
        }
        if others.key {
            self.add(first + 4, &Self::key(first + 4), id, Wish::Order(order.clone()), 3_000, &behind);
        }
    }

    /// The till is asked, once or twice, and in the end it is told that all is well, or that nothing is.
    pub fn till(&mut self, number: usize, order: &Order, others: Others) {
        let first = number as u64 * OF_ONE + 8;
        let saga = format!("t-{number}");
        let draw = |ask: u64| Draw::of(order, &saga, ask);
        let key = Self::key(first);
        let cancels = chance(first, 5);
        let cancel =
            |clients: &mut Self, behind: &[usize]| clients.add(first + 1, "", &saga, Wish::Cancel, 1_000, behind);
        let before: Vec<usize> = (cancels == 0).then(|| cancel(self, &[])).into_iter().collect();
        let mut asks = vec![self.add(first, &key, &saga, Wish::Draw(draw(0)), 300, &before)];
        if others.body {
            asks.push(self.add(first + 2, &key, &saga, Wish::Draw(draw(2)), 1_000, &before));
        }
        if chance(first + 1, 3) == 0 {
            asks.push(self.add(first + 3, &Self::key(first + 3), &saga, Wish::Draw(draw(3)), 1_000, &before));
        }
        match cancels {
            1 => drop(cancel(self, &[])),
            2 => {
                // What comes then is too late.
                let cancelled = cancel(self, &asks);
                asks.push(self.add(first + 4, &Self::key(first + 4), &saga, Wish::Draw(draw(4)), 500, &[cancelled]));
            }
            _ => {}
        }
        self.add(first + 5, &Self::key(first + 5), &saga, Wish::Settle, 3_000, &asks);
    }

    /// The till is asked for a step of the order itself, which comes before its beginning, beside it, or when all is over.
    pub fn till_of_order(&mut self, number: usize, order: &Order) {
        let first = number as u64 * OF_ONE + 6;
        let within = [100, 1_000, 8_000][chance(first, 3) as usize];
        for ask in first..first + 1 + chance(first + 1, 2) {
            self.add(ask, &Self::key(ask), &order.id, Wish::Draw(Draw::of(order, &order.id, ask)), within, &[]);
        }
    }

    /// What was answered is heard, and who is to send sends.
    pub fn go_on(&mut self, hosts: &[Running]) {
        self.hear();
        let (now, directory) = world(|world| (world.now().steady, world.directory));
        if std::mem::replace(&mut self.directory, directory) != directory {
            self.begin_anew(now);
        }
        if self.soonest.is_none_or(|soonest| soonest > now) {
            return;
        }
        for at in 0..self.all.len() {
            if self.all[at].next.is_some_and(|next| next <= now) {
                self.send(at, hosts, now);
            }
        }
        self.wake();
    }

    /// Another journal is in use, and may know less: whoever was answered asks again.
    fn begin_anew(&mut self, now: Steady) {
        for client in &mut self.all {
            (client.heard, client.taken_in) = (None, false);
            client.next = Some(now.after(client.pause(500)));
        }
        self.wake();
    }

    fn send(&mut self, at: usize, hosts: &[Running], now: Steady) {
        let waits = self.all[at].behind.iter().any(|before| self.all[*before].heard.is_none());
        let client = &mut self.all[at];
        if waits {
            client.next = Some(now.after(Duration::from_millis(50)));
            return;
        }
        let Some(Begun { processor, journal, .. }) = listens(hosts) else {
            client.next = Some(now.after(client.pause(500)));
            return;
        };
        // Whoever has heard nothing by then sends again.
        client.next = Some(now.after(client.pause(2_500) + Duration::from_millis(500)));
        for _ in 0..=usize::from(happens(Fault::RequestAgain)) {
            let item = self.item(at, journal.clone());
            processor.inbox.post(&self.all[at].saga, item);
        }
    }

    fn item(&self, at: usize, journal: Arc<dyn Journal>) -> Item {
        let client = &self.all[at];
        let (told, directory) = (self.told.clone(), self.directory);
        let (saga, key) = (client.saga.clone(), client.key.clone());
        world(|world| world.note(|| format!("{key} requests {saga}: {:?}", client.wish)));
        let asks = match &client.wish {
            Wish::Cancel => Asks::Cancel { saga, reason: "simulated".to_owned() },
            wish if wish.asks() => Asks::Step { event: client.event(), of: till::NAME.into() },
            _ => Asks::Begin(client.event()),
        };
        // An order may come as a record, and is nobody's then.
        let by = Asker { name: PRINCIPAL.into(), sees_all: !client.is_of_the_till() };
        let asked = asks.clone();
        let reply = Reply::new(move |said: Result<Admission, Declined>| {
            let missing = said.as_ref().ok().and_then(|admission| missing(&*journal, &asked, admission));
            told.lock().expect("nobody panics with it").push(Told { client: at, directory, said, missing });
        });
        Item::Requested { request: Request { asks, by }, reply }
    }

    fn hear(&mut self) {
        let told = std::mem::take(&mut *self.told.lock().expect("nobody panics with it"));
        if told.is_empty() {
            return;
        }
        let current = world(|world| world.directory);
        for Told { client: at, directory, said, missing } in told {
            self.faults.extend(missing);
            if directory != current {
                continue;
            }
            match self.all[at].wish {
                Wish::Cancel => self.hear_cancel(at, said),
                Wish::Order(_) | Wish::Draw(_) | Wish::Settle => self.hear_request(at, said),
            }
        }
        self.wake();
    }

    fn hear_request(&mut self, at: usize, said: Result<Admission, Declined>) {
        let client = &mut self.all[at];
        let about = format!("{} for {}", client.key, client.saga);
        world(|world| world.note(|| format!("{about} is answered: {said:?}")));
        let answer = said.as_ref().map_or_else(|_| "Declined".to_owned(), |admission| format!("{admission:?}"));
        let what = if client.wish.asks() { "asked" } else { "requested" };
        *self.answers.entry(format!("{what}: {answer}")).or_default() += 1;
        if said == Ok(Admission::TakenIn) && std::mem::replace(&mut client.taken_in, true) {
            self.faults.push(format!("{about} was taken in twice"));
        }
        let now = world::now().steady;
        let heard = match said {
            _ if happens(Fault::AnswerUnheard) => return,
            Ok(Admission::TakenIn | Admission::Known) => Heard::Admitted,
            Ok(admission) if admission != Admission::Unhandled => Heard::Refused(admission),
            Ok(_) | Err(_) => {
                if client.heard.is_none() {
                    client.next = Some(now.after(client.pause(1_000)));
                }
                return;
            }
        };
        let before = client.heard.replace(heard.clone());
        // A saga that was overtaken compensates once more, and takes in what it calls off.
        let reopened = before == Some(Heard::Refused(Admission::SagaOver)) && client.wish.asks();
        let differs = |before: &Heard| (*before == Heard::Admitted) != (heard == Heard::Admitted);
        if !reopened && before.as_ref().is_some_and(differs) {
            self.faults.push(format!("{about} was answered {before:?}, and then {heard:?}"));
        }
        // Some send it again, long after.
        client.next = happens(Fault::RequestAgain).then(|| now.after(client.pause(5_000)));
    }

    fn hear_cancel(&mut self, at: usize, said: Result<Admission, Declined>) {
        let client = &mut self.all[at];
        world(|world| world.note(|| format!("the cancel of {} is answered: {said:?}", client.saga)));
        let (answer, heard) = match said {
            Ok(Admission::TakenIn | Admission::Known) => ("done", Heard::Cancelled),
            Ok(Admission::TooLate(_)) => ("too late", Heard::TooLate),
            Ok(other) => ("refused", Heard::Refused(other)),
            Err(_) => {
                *self.answers.entry("cancelled: Declined".to_owned()).or_default() += 1;
                return;
            }
        };
        *self.answers.entry(format!("cancelled: {answer}")).or_default() += 1;
        client.heard = Some(heard);
        client.next = None;
    }

    /// Has everybody heard what became of it?
    pub fn are_answered(&self) -> bool {
        self.all.iter().all(|client| client.heard.is_some())
    }

    pub fn waiting(&self) -> Vec<String> {
        self.all.iter().filter(|client| client.heard.is_none()).map(|client| format!("{client:?}")).collect()
    }

    fn admitted(&self) -> impl Iterator<Item = &Client> {
        self.all.iter().filter(|client| client.heard == Some(Heard::Admitted))
    }

    /// Orders as they came to be, of those that were placed: as whoever's request began them said, or as their record does.
    pub fn orders(&self, placed: &[Order], by_record: &BTreeSet<String>) -> Vec<Order> {
        let mut orders: BTreeMap<&str, Order> = BTreeMap::new();
        for order in placed.iter().filter(|order| by_record.contains(&order.id)) {
            orders.insert(&order.id, order.clone());
        }
        for client in self.admitted() {
            if let Wish::Order(order) = &client.wish {
                orders.insert(&order.id, order.clone());
            }
        }
        orders.into_values().collect()
    }

    /// Sagas that somebody wanted cancelled.
    pub fn cancels(&self) -> impl Iterator<Item = String> {
        let cancels = self.all.iter().filter(|client| matches!(client.wish, Wish::Cancel));
        cancels.map(|client| client.saga.to_string())
    }

    /// Who was told that their saga is cancelled.
    fn cancelled(&self) -> BTreeSet<String> {
        let told = self.all.iter().filter(|client| client.heard == Some(Heard::Cancelled));
        told.map(|client| client.saga.to_string()).collect()
    }

    /// Everything that is not as it must be. `either`: of these a plugin failed too often, or somebody else cancelled them.
    pub fn faults(&self, world: &InTheWorld<'_>) -> Vec<String> {
        let mut faults = self.contests(world);
        faults.extend(self.in_the_journal(world.journal));
        faults.extend(self.published(world));
        faults.extend(self.nothing_of_the_others(world));
        // A journal that took the place of another may not know of it.
        let cancelled = if world.one_journal { self.cancelled() } else { BTreeSet::new() };
        let completed = cancelled.iter().filter(|saga| world.seen.is_completed(saga));
        faults.extend(completed.map(|saga| format!("{saga} is completed, and somebody was told that it is cancelled")));
        let asks = self.all.iter().filter_map(|client| match &client.wish {
            Wish::Draw(draw) => {
                Some(TillTold { draw, key: &client.key, taken_in: client.heard == Some(Heard::Admitted) })
            }
            Wish::Order(_) | Wish::Settle | Wish::Cancel => None,
        });
        let ends = Ends { cancelled, either: world.either.clone() };
        faults.extend(till::faults(&asks.collect::<Vec<_>>(), &ends, world.journal));
        faults.extend(world.seen.any(&["Withdrawn", "PutBack"]).map(|kind| format!("{kind} was published")));
        faults
    }

    /// One key is one request, one saga is begun by one; and who is refused is so for a reason.
    fn contests(&self, world: &InTheWorld<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        for (at, client) in self.all.iter().enumerate() {
            let others = || self.all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other);
            let admitted = || others().filter(|other| other.heard == Some(Heard::Admitted));
            let begins = |client: &Client| matches!(client.wish, Wish::Order(_));
            let by_key = || admitted().any(|other| other.key == client.key);
            let by_saga = || admitted().any(|other| begins(other) && other.saga == client.saga);
            let by_record = || world.by_record.contains(client.saga.as_str());
            let right = match &client.heard {
                Some(Heard::Admitted) => !(by_key() || begins(client) && by_saga()),
                Some(Heard::Refused(Admission::OtherBody)) => by_key(),
                Some(Heard::Refused(Admission::SagaExists)) => begins(client) && (by_saga() || by_record()),
                Some(Heard::Refused(Admission::SagaOver)) => client.wish.asks(),
                Some(Heard::Refused(_)) | None => false,
                Some(Heard::Cancelled | Heard::TooLate) => true,
            };
            if !right {
                faults.push(format!("{client:?}: it is alone, or another one was admitted"));
            }
        }
        faults
    }

    /// What was admitted has its rows, and what was refused has none.
    fn in_the_journal(&self, journal: &dyn Journal) -> Vec<String> {
        let row = |(owner, key): sagahost_journal::Name| {
            let row = journal.store_get(&owner, &key).expect("the journal can be read");
            row.map(|row| String::from_utf8_lossy(&row.value).into_owned())
        };
        let admitted: BTreeSet<(&str, &SagaId)> =
            self.admitted().map(|client| (client.key.as_str(), &client.saga)).collect();
        let keys: BTreeSet<&str> = admitted.iter().map(|(key, _)| *key).collect();
        let requests = self.all.iter().filter(|client| !matches!(client.wish, Wish::Cancel));
        let wrong = requests.filter_map(|client| {
            let is_admitted = admitted.contains(&(client.key.as_str(), &client.saga));
            let (of_key, of_saga) =
                (row(requests::key(&client.key)), row(requests::of_saga(&client.saga, &client.key)));
            let right = match is_admitted {
                true => of_key.as_deref() == Some(client.saga.as_str()) && of_saga.as_deref() == Some(PRINCIPAL),
                false => of_saga.is_none() && of_key.is_some() == keys.contains(client.key.as_str()),
            };
            (!right).then(|| format!("{client:?}: its rows are {of_key:?} and {of_saga:?}"))
        });
        wrong.collect()
    }

    /// A request that began a saga went out once, as one that this app took in; no other did.
    fn published(&self, world: &InTheWorld<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        let source = Event::source_of_request(host::APP, false, "/orders");
        let mut there: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for record in records(world.topics) {
            if header(&record, "ce_source") == source {
                there.entry(header(&record, "ce_id")).or_default().push(record);
            }
        }
        for client in self.admitted().filter(|client| matches!(client.wish, Wish::Order(_))) {
            let records = there.remove(&client.key).unwrap_or_default();
            let as_it_is = |record: &Record| {
                record.value.as_deref() == Some(&client.wish.body(&client.saga)[..])
                    && !header(record, "sagahost-handled").is_empty()
            };
            // Those of a topic that is gone are gone.
            let lost = records.is_empty() && world.topics_anew;
            if !(records.len() == 1 || lost) || !records.iter().all(as_it_is) {
                faults.push(format!("{client:?}: it is out as {records:?}"));
            }
        }
        faults.extend(there.iter().map(|(key, records)| format!("{key} was not admitted, and is out: {records:?}")));
        faults
    }

    /// Of a saga that nobody began there is nothing.
    fn nothing_of_the_others(&self, world: &InTheWorld<'_>) -> Vec<String> {
        let there: BTreeSet<&str> = world.orders.iter().map(|order| order.id.as_str()).collect();
        let others = self.all.iter().filter_map(|client| match &client.wish {
            Wish::Order(order) => (!there.contains(&*order.id)).then_some(&*order.id),
            Wish::Draw(_) | Wish::Settle | Wish::Cancel => None,
        });
        let others: BTreeSet<&str> = others.collect();
        let something = others.into_iter().filter(|id| {
            world.seen.knows(id) || world.journal.saga(&SagaId::new(*id)).expect("the journal can be read").is_some()
        });
        something.map(|id| format!("{id} was refused, and there is something of it")).collect()
    }
}

/// What there is in the end.
pub struct InTheWorld<'w> {
    pub journal: &'w dyn Journal,
    pub topics: &'w dyn Transport,
    pub seen: &'w Seen,
    pub orders: &'w [Order],
    /// Orders that came as records.
    pub by_record: &'w BTreeSet<String>,
    pub either: &'w BTreeSet<String>,
    /// No copy took the journal's place.
    pub one_journal: bool,
    /// Topics were deleted, and made anew.
    pub topics_anew: bool,
}

/// The host that a request comes to: mostly the newest; or one that another one took over from, and that does not know it yet.
fn listens(hosts: &[Running]) -> Option<Begun> {
    let alive = |running: &&Running| world(|world| world.is_alive(running.host));
    let mut begun = hosts.iter().rev().filter(alive).map(Running::begun);
    let newest = begun.next().flatten();
    match begun.flatten().next() {
        Some(old) if happens(Fault::RequestToOld) => Some(old),
        Some(_) | None => newest,
    }
}

/// What of an answer is not in the journal.
fn missing(journal: &dyn Journal, asks: &Asks, admission: &Admission) -> Option<String> {
    let (Asks::Begin(event) | Asks::Step { event, .. }) = asks else {
        let done = matches!(admission, Admission::TakenIn | Admission::Known);
        return (done && !is_cancelled(journal, asks.saga())).then(|| {
            format!("a cancel of {} is answered {admission:?}, and the journal has nothing of it", asks.saga())
        });
    };
    let look = || {
        let row = journal.saga(&event.saga)?;
        let (owner, key) = requests::key(&event.key.id);
        let of_key = journal.store_get(&owner, &key)?.map(|row| String::from_utf8_lossy(&row.value).into_owned());
        let Some(row) = row else { return Ok((false, false, of_key)) };
        let known = Saga::decode(&row.bytes).is_ok_and(|saga| saga.knows(&event.key));
        let known = known || journal.spilled_event(row.key, event.key.hash128())?.is_some();
        Ok::<_, JournalError>((true, known, of_key))
    };
    let (exists, known, of_key) = match look() {
        Ok(found) => found,
        Err(error) => return Some(format!("the journal of a host that answers cannot be read: {error}")),
    };
    let right = match admission {
        Admission::TakenIn | Admission::Known => known && of_key.as_deref() == Some(event.saga.as_str()),
        Admission::OtherBody => of_key.is_some(),
        Admission::SagaExists | Admission::SagaOver | Admission::NoRoom | Admission::Foreign => exists,
        Admission::Unhandled | Admission::NotCompensating | Admission::TooLate(_) => true,
    };
    let line = || {
        let Event { key, saga, .. } = event;
        format!(
            "{key} was answered {admission:?}; in the journal {saga} exists: {exists}, knows it: {known}, its key is {of_key:?}"
        )
    };
    (!right).then(line)
}

/// As the journal has it.
fn is_cancelled(journal: &dyn Journal, saga: &SagaId) -> bool {
    let row = journal.saga(saga).ok().flatten();
    row.and_then(|row| Saga::decode(&row.bytes).ok()).is_some_and(|saga| saga.cause().is_some())
}

fn header(record: &Record, name: &str) -> String {
    let found = record.headers.iter().find(|(header, _)| header == name);
    found.and_then(|(_, value)| value.as_deref()).map(String::from_utf8_lossy).unwrap_or_default().into_owned()
}

/// All that is in the topic of orders.
fn records(topics: &dyn Transport) -> Vec<Record> {
    let topic = host::topics().topic_of(&Kind::new("OrderCreated"));
    let partition = |number| Assignment::new(Partition { topic: topic.clone(), number }, 0);
    let mut source = topics.source().expect("it can be read");
    source.assign(&(0..host::PARTITIONS).map(partition).collect::<Vec<_>>()).expect("it can be read");
    let mut records = Vec::new();
    loop {
        let items = source.poll(1_000).expect("it can be read").items;
        if items.is_empty() {
            return records;
        }
        records.extend(items.into_iter().filter_map(|item| match item {
            Polled::Record(record) => Some(record),
            _ => None,
        }));
    }
}
