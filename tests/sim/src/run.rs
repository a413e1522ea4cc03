//! One run: orders come in, everything goes wrong for a while, then nothing does any more, and in the end all must be
//! as it should.

mod plugins;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use sagahost_journal::{Journal, LeftOut, SagaFilter};
use sagahost_processor::{
    Fatal, Processor,
    mailbox::Item,
    outbox::RefusedRow,
    planted::{Planted, plant},
    reply::Reply,
    stage::Move,
    step::Steady,
};
use sagahost_saga::{
    id::{Kind, SagaId, Time},
    input::{Command, Status},
};
use sagahost_transport::Transport;
use sagahost_wire::{BatchNo, Outgoing, Partition};
use tempfile::TempDir;

use crate::{
    clients::{Answers, Clients, InTheWorld, Others},
    code::Natives,
    courier::{AtWork, Service},
    disk,
    files::{Behaves, Content, Files},
    host::{self, Begun, Place, Running},
    oracle::{self, Asked, Order, Reading},
    plan::{Ask, Fault, Plan},
    served::Served,
    world::{self, Ended, HostNo, World, choose, happens, world},
};

/// It joins the others, in some runs.
const LEDGER: &str = "ledger";
/// Faults stop by then.
const STORM: Duration = Duration::from_secs(60);
/// When nothing goes wrong any more, a batch is sealed within so many steps, or all has ended.
const CALM_STEPS_MAX: u64 = 25_000;
/// … and within this time: a host that has nothing to do takes hardly a step.
const CALM_TIME_MAX: Duration = Duration::from_secs(600);
const STEPS_MAX: u64 = 500_000;
/// Processes that begin in one run.
const HOSTS_MAX: usize = 1_000;

/// What a run found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub seed: u64,
    pub faults: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.faults.join("\n  "))
    }
}

/// A run that is over.
pub struct Outcome {
    pub finding: Option<Finding>,
    pub went_wrong: Vec<(Fault, u64)>,
    pub steps: u64,
    pub sagas: usize,
    pub answers: Answers,
    pub digest: u64,
}

pub fn run(ask: Ask, timeline: bool) -> Outcome {
    plant(ask.planted);
    let plan = Plan::new(ask);
    world::begin(plan.clone(), timeline);
    disk::begin(plan.has(Fault::PowerLost), plan.ask.planted == Some(Planted::NoSync));
    let dir = place();
    let mut run = Run::new(plan, dir.path());
    let faults = run.play();
    let sagas = run.asked.orders.len();
    let answers = std::mem::take(&mut run.clients.answers);
    drop(run);
    disk::begin(false, false);
    let World { went_wrong, steps, digest, plan, .. } = world::end();
    let finding = (!faults.is_empty()).then_some(Finding { seed: plan.ask.seed, faults });
    Outcome { finding, went_wrong, steps, sagas, answers, digest }
}

/// In memory, where there is such a place: nothing is left of a run.
fn place() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory can be made")
}

struct Run {
    plan: Plan,
    /// With the topics, undisturbed.
    place: Place,
    reading: Reading,
    /// The ledger is in the plugin directory.
    ledger: bool,
    /// Of the version that was written last.
    number: u64,
    /// The highest that there was.
    newest_number: u64,
    /// Files that belong to those that were written, and come a little later.
    later: Option<(Steady, Vec<Content>)>,
    served: Served,
    hosts: Vec<Running>,
    clients: Clients,
    asked: Asked,
    /// Orders that came as records.
    by_record: BTreeSet<String>,
    next_order: Steady,
    /// Orders that have come, or were left out.
    numbers: usize,
    next_start: Option<Steady>,
    /// Records that were sent: some are sent again.
    sent: Vec<Outgoing>,
    /// Of the journal.
    copy: Option<disk::Copy>,
    calm_since: Option<u64>,
    /// When an operator looked last at what stands still.
    looked: Steady,
    /// The batch that was sealed last, in which step that was seen, and when.
    sealed: (u64, u64, Steady),
    /// Whether all has ended is looked at now and then.
    next_look: Steady,
    unexpected: Vec<String>,
}

impl Run {
    fn new(plan: Plan, dir: &Path) -> Self {
        let transport = host::transport(dir);
        let mut topics: BTreeSet<Arc<str>> = topics(plan.till).into_values().map(Arc::from).collect();
        let read = ["OrderCreated", "Withdraw", "Settled"];
        let read = if plan.till { &read[..] } else { &read[..1] };
        topics.extend(read.iter().map(|kind| host::topics().topic_of(&Kind::new(*kind))));
        transport.create_topics(&topics.into_iter().collect::<Vec<_>>(), host::PARTITIONS).expect("topics can be made");
        let courier: Arc<Service> = Arc::default();
        world(|world| {
            let process = world.process();
            world.add(process, "courier", Box::new(AtWork(courier.clone())));
        });
        let reading = Reading::begin(&*transport, &self::topics(plan.till));
        let files = Arc::<Files>::default();
        let natives = Natives::new(&plan);
        let first = natives.names().filter(|name| !plan.ledger_joins || name.as_str() != LEDGER).cloned();
        files.change(first.map(|name| Content { name, number: 0, behaves: Behaves::Well }).collect(), &[]);
        Self {
            place: Place { dir: dir.to_owned(), topics: transport, files, natives, courier },
            reading,
            ledger: !plan.ledger_joins,
            number: 0,
            newest_number: 0,
            later: None,
            served: Served::default(),
            hosts: Vec::new(),
            clients: Clients::default(),
            by_record: BTreeSet::new(),
            asked: Asked { ledger_joined: if plan.ledger_joins { u64::MAX } else { 0 }, ..Asked::default() },
            next_order: Steady::default(),
            numbers: 0,
            next_start: Some(Steady::default()),
            sent: Vec::new(),
            copy: None,
            calm_since: None,
            looked: Steady::default(),
            sealed: (0, 0, Steady::default()),
            next_look: Steady::default(),
            unexpected: Vec::new(),
            plan,
        }
    }

    /// Until all has ended, or something is wrong.
    fn play(&mut self) -> Vec<String> {
        loop {
            self.outside();
            let stepped = world::step();
            self.bury();
            self.watch();
            if !self.unexpected.is_empty() {
                return std::mem::take(&mut self.unexpected);
            }
            let steps = world(|world| world.steps);
            // Steps inside of others count, too: by their number alone it would be looked at by chance.
            if self.calm_since.is_some() || steps.is_multiple_of(256) || !stepped {
                let sealed = self.newest().map_or(0, |processor| processor.stage.last_sealed().0);
                if self.sealed.0 != sealed || self.calm_since.is_none() {
                    self.sealed = (sealed, steps, world::now().steady);
                }
            }
            if world::now().steady.since(self.sealed.2) > CALM_TIME_MAX {
                return self.stuck();
            }
            let since = self.calm_since.map(|since| since.max(self.sealed.1));
            if since.is_some_and(|since| steps - since > CALM_STEPS_MAX)
                || steps > STEPS_MAX
                || self.hosts.len() > HOSTS_MAX
            {
                return self.stuck();
            }
            if stepped {
                continue;
            }
            if !self.orders_left() && world::now().steady >= self.next_look {
                match (self.calm_since, self.all_ended()) {
                    (None, true) => self.calm(),
                    (Some(_), true) if self.is_done() => return self.verdict(),
                    _ => {}
                }
                self.next_look = world::now().steady.after(Duration::from_secs(1));
            }
            let next = world(|world| world.next_time());
            let files = self.later.as_ref().map(|(at, _)| *at);
            let order = self.orders_left().then_some(self.next_order);
            let times = [next, self.next_start, order, self.storm_ends(), files, self.clients.next()];
            let Some(next) = times.into_iter().flatten().min() else { return self.stuck() };
            world(|world| {
                let wait = next.since(world.now().steady);
                world.pass(wait);
            });
        }
    }

    fn orders_left(&self) -> bool {
        self.numbers < self.plan.orders
    }

    fn storm_ends(&self) -> Option<Steady> {
        (self.calm_since.is_none() && !self.orders_left()).then_some(Steady(STORM))
    }

    /// What comes from outside of the process.
    fn outside(&mut self) {
        let at = world::now().steady;
        if self.calm_since.is_none() && at >= Steady(STORM) && !self.orders_left() {
            self.calm();
        }
        if self.orders_left() && at >= self.next_order {
            self.order();
        }
        if self.next_start.is_some_and(|start| start <= at) {
            self.next_start = None;
            match host::start(&self.place) {
                Ok(host) => self.hosts.push(host),
                Err(wrong) => self.unexpected.push(wrong),
            }
        }
        self.clients.go_on(&self.hosts);
        self.unexpected.append(&mut self.clients.faults);
        if let Some((_, contents)) = self.later.take_if(|(then, _)| *then <= at) {
            self.write(contents, &[]);
        }
        if self.calm_since.is_none() {
            self.disturb();
        }
        self.operate();
    }

    fn disturb(&mut self) {
        let Some(newest) = self.hosts.last().map(|host| host.host) else { return };
        if happens(Fault::CrashAnywhere) {
            world::kill(newest);
        }
        if happens(Fault::Zombie) && world(|world| world.is_alive(newest)) {
            let now = world::now().steady;
            world(|world| world.freeze(newest, now.after(Duration::from_secs(4))));
            self.next_start = Some(now.after(Duration::from_millis(500)));
        }
        if happens(Fault::Stopped)
            && let Some(host) = self.hosts.last()
        {
            host.stop();
        }
        let wall = world::now().wall;
        if happens(Fault::ClockForward) {
            world(|world| world.set_wall(wall.after(Duration::from_secs(100))));
        }
        if happens(Fault::ClockBack) {
            world(|world| world.set_wall(Time(wall.0 - 20_000)));
        }
        if happens(Fault::Asleep) {
            world(|world| world.pass(Duration::from_secs(20)));
        }
        if happens(Fault::Retouch) {
            self.read_again();
        }
        self.change_plugins();
        if self.all_are_known() && happens(Fault::JournalCopied) {
            self.copy = Some(disk::copy());
        }
        // What is put aside is the journal itself, and never a copy that took its place.
        if self.copy.is_some() && !disk::is_something_aside() && happens(Fault::JournalRestored) {
            self.restore(newest);
        }
        if happens(Fault::TopicAnew) {
            self.make_topic_anew();
        }
    }

    /// A host that stands still meanwhile still has the journal that was there before.
    fn restore(&mut self, newest: HostNo) {
        let Some(copy) = &self.copy else { return };
        world::kill(newest);
        disk::restore(copy);
        world(world::World::directory_changed);
    }

    /// Its records are gone, with what was committed of them; who sends begins anew.
    fn make_topic_anew(&self) {
        let topic = host::topics().topic_of(&Kind::new("OrderCreated"));
        self.place.topics.delete_topic(&topic).expect("a topic can be deleted");
        self.place.topics.create_topics(&[topic], host::PARTITIONS).expect("a topic can be made");
        self.sent.iter().for_each(|record| self.send(record.clone()));
    }

    fn newest(&self) -> Option<Arc<Processor>> {
        Some(self.begun()?.processor)
    }

    /// The newest host, if it runs.
    fn begun(&self) -> Option<Begun> {
        self.hosts.last().filter(|host| world(|world| world.is_alive(host.host)))?.begun()
    }

    /// A partition is read again from some place below which all is handled.
    fn read_again(&self) {
        let Some(processor) = self.newest() else { return };
        let positions = processor.stage.positions();
        let Some((partition, position)) = positions.iter().nth(choose(positions.len(), 2)) else { return };
        let next = choose(usize::try_from(position.next).unwrap_or(0) + 1, 3) as i64;
        let (partition, topic_id) = (partition.clone(), position.topic_id.clone());
        processor.stage.move_position(Move { partition, next, topic_id, reply: Reply::new(|_| {}) });
    }

    /// Nothing goes wrong any more; and what people put right is put right.
    fn calm(&mut self) {
        world(|world| {
            world.note(|| "nothing goes wrong from here on".to_owned());
            world.calm = true;
            world.thaw();
        });
        self.calm_since = Some(world(|world| world.steps));
        self.place.files.uncover();
        self.mend_plugins();
    }

    /// Each is what its number makes it, whether or not those before it are left out.
    fn order(&mut self) {
        let number = self.numbers;
        self.numbers += 1;
        let pause = Duration::from_millis(choose(200, 8) as u64);
        self.next_order = world::now().steady.after(if choose(3, 9) == 0 { Duration::ZERO } else { pause });
        let [order_again, record_again, bad_record, cancel] =
            [Fault::OrderAgain, Fault::RecordAgain, Fault::BadRecord, Fault::Cancel].map(happens);
        let requested = self.plan.requests > 0 && number.is_multiple_of(self.plan.requests);
        let others = requested.then(Others::choose);
        if self.plan.ask.without_orders.contains(&number) {
            return;
        }
        let one_in = |share: usize| number % share == share - 1;
        // Three in a row, of which two can be had: they are under way together.
        let piano = (6..9).contains(&(number % 21));
        let order = Order {
            id: format!("o-{number}"),
            customer: format!("c-{}", choose(self.plan.customers as usize, 5)),
            sku: if piano { "piano".to_owned() } else { format!("article-{}", number % 5) },
            quantity: if piano { 400 } else { 1 + (number % 3) as i64 },
            cents: if one_in(11) { 150_000 } else { 500 + (number as u64 * 7_919) % 1_000 },
        };
        let topic: Arc<str> = host::topics().topic_of(&Kind::new("OrderCreated"));
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let record = Outgoing {
            topic: topic.clone(),
            key: Some(order.id.clone().into_bytes()),
            value: Some(order.value().to_string().into_bytes()),
            headers: vec![
                header("ce_specversion", "1.0"),
                header("ce_type", "OrderCreated"),
                header("ce_source", "/web"),
                header("ce_id", &order.id),
                header("content-type", "application/json"),
            ],
        };
        world(|world| world.note(|| format!("{} is ordered", order.id)));
        self.asked.orders.push(order.clone());
        if let Some(others) = others {
            self.request(number, &order, others, order_again);
        } else {
            self.by_record.insert(order.id);
            self.send(record.clone());
            self.sent.push(record.clone());
        }
        if order_again {
            let mut again = record;
            again.headers.retain(|(name, _)| name != "ce_id");
            again.headers.push(("ce_id".to_owned(), Some(format!("again-{number}").into_bytes())));
            self.send(again.clone());
            if requested {
                // It competes with the request; whoever sends all again sends it again as well.
                self.sent.push(again);
            }
        }
        if record_again && !self.sent.is_empty() {
            let (all, recent) = (self.sent.len(), choose(self.sent.len().min(4), 14));
            let at = if choose(2, 15) == 0 { choose(all, 6) } else { all - 1 - recent };
            let mut again = self.sent[at].clone();
            // Without a key it may come to stand in another partition.
            if choose(2, 7) == 0 {
                again.headers.push(("ce_sagaid".to_owned(), again.key.take()));
            }
            self.send(again);
        }
        if bad_record {
            self.asked.bad_records += 1;
            self.send(Outgoing { topic, key: None, value: Some(b"{".to_vec()), headers: Vec::new() });
        }
        if cancel {
            self.cancel();
        }
    }

    /// `again`: the order comes as a record, too.
    fn request(&mut self, number: usize, order: &Order, others: Others, again: bool) {
        self.clients.order(number, order, others, again);
        if again {
            self.by_record.insert(order.id.clone());
        }
        if self.plan.till && number.is_multiple_of(3) {
            self.clients.till(number, order, others);
        }
        if self.plan.till && number % 5 < 2 && !self.may_never_begin(&order.id) {
            self.clients.till_of_order(number, order);
        }
    }

    /// What is done to a saga that nobody begins, after all, would wait for ever.
    fn may_never_begin(&self, order: &str) -> bool {
        self.clients.contested.contains(order) && !self.by_record.contains(order)
    }

    fn send(&self, record: Outgoing) {
        let (partition, offset) = self.place.topics.offer(&record).expect("a record can be sent");
        world(|world| world.note(|| format!("sent as {partition}@{offset}")));
    }

    fn cancel(&mut self) {
        let Some(processor) = self.newest() else { return };
        // Mostly one that is on its way.
        let orders = &self.asked.orders;
        let at = if choose(3, 12) == 0 {
            choose(orders.len(), 10)
        } else {
            orders.len() - 1 - choose(orders.len().min(5), 13)
        };
        let id = orders[at].id.clone();
        if self.may_never_begin(&id) {
            return;
        }
        world(|world| world.note(|| format!("a person cancels {id}")));
        self.asked.either.insert(id.clone());
        let command = Command::Cancel { by: "ann".to_owned(), reason: "simulated".to_owned() };
        let item = Item::Operator { command, queued: None, reply: Some(Reply::new(|_| {})), receipt: None };
        processor.inbox.post(&SagaId::new(&id), item);
    }

    /// Refused rows are tried again, and sagas that need somebody too.
    fn operate(&mut self) {
        let now = world::now().steady;
        if now.since(self.looked) < Duration::from_secs(2) {
            return;
        }
        self.looked = now;
        let Some(processor) = self.newest() else { return };
        self.look_after_plugins();
        self.resume(&processor);
        let host = self.hosts.last().expect("it is one of them").host;
        if let Some(row) = processor.outbox.refused()
            && outside_of(host, || self.skip(&processor, &row)).is_none_or(|skipped| !skipped)
        {
            processor.outbox.retry();
        }
        let stuck = SagaFilter { status: Some(Status::NeedsOperator), limit: usize::MAX, ..SagaFilter::default() };
        let Some(Ok(rows)) = outside_of(host, || processor.journal.sagas(&stuck)) else { return };
        for row in rows {
            let command = Command::Retry { by: "ann".to_owned() };
            let item = Item::Operator { command, queued: None, reply: Some(Reply::new(|_| {})), receipt: None };
            processor.inbox.post(&row.id, item);
        }
    }

    /// A topic that was made anew is read from its beginning.
    fn resume(&self, processor: &Processor) {
        for (partition, _) in processor.stage.positions() {
            if processor.intake.is_held(&partition) {
                let ids = self.place.topics.topic_ids(std::slice::from_ref(&partition.topic)).expect("it can be asked");
                let topic_id = ids.get(&partition.topic).cloned();
                processor.stage.move_position(Move { partition, next: 0, topic_id, reply: Reply::new(|_| {}) });
            }
        }
    }

    /// Nobody in this app waits for it, or all who do have had it.
    fn is_dispensable(&self, record: &Outgoing) -> bool {
        let has_been_taken_in = record.headers.iter().any(|(name, _)| name == "sagahost-handled");
        match &*oracle::about(record).0 {
            "PaymentRefunded" | "InventoryReleased" => true,
            "PaymentProcessed" | "InventoryUpdated" => has_been_taken_in && !self.plan.ledger_joins,
            _ => false,
        }
    }

    /// A refused row that can be dispensed with is left out.
    fn skip(&mut self, processor: &Processor, row: &RefusedRow) -> bool {
        let journal = &processor.journal;
        let Ok(batches) = journal.outbox(BatchNo(row.batch.0 - 1), 1) else { return false };
        let Some(record) = batches.first().and_then(|batch| batch.records.get(row.index)) else { return false };
        if !self.is_dispensable(record) || !happens(Fault::RowSkipped) {
            return false;
        }
        // Whether or not it gets into the journal: then it comes to be refused again, or not.
        self.asked.left_out.insert(oracle::about(record));
        let epoch = journal.identity().epoch;
        journal.leave_out(epoch, row.batch, row.index, LeftOut::Row, "simulated").is_ok()
            && processor.outbox.skip(row.batch, row.index, "simulated")
    }

    /// Hosts that ended are started again, by whoever does that.
    fn bury(&mut self) {
        for ended in world(|world| std::mem::take(&mut world.ended)) {
            let (host, wrong) = match ended {
                Ended::Stopped(host) => (host, None),
                Ended::Fatal(host, Fatal::Superseded(_)) => (host, None),
                Ended::Fatal(host, fatal) => (host, Some(fatal.to_string())),
                Ended::Panicked(host, text) => (host, Some(format!("panicked: {text}"))),
            };
            self.unexpected.extend(wrong.map(|wrong| format!("host {host}: {wrong}")));
            world::kill(host);
        }
        if world(|world| std::mem::take(&mut world.refused)) {
            disk::bring_back();
            world(world::World::directory_changed);
        }
        let newest = self.hosts.last().map(|host| host.host);
        let alive = newest.is_some_and(|host| world(|world| world.is_alive(host)));
        if !alive && self.next_start.is_none() {
            let pause = Duration::from_millis(10 + choose(500, 11) as u64);
            self.next_start = Some(world::now().steady.after(pause));
        }
    }

    fn all_ended(&mut self) -> bool {
        let orders = self.orders().len();
        self.clients.are_answered() && self.reading.go_on().ended() >= orders
    }

    /// As they came to be.
    fn orders(&self) -> Vec<Order> {
        self.clients.orders(&self.asked.orders, &self.by_record)
    }

    fn is_done(&self) -> bool {
        let Some(processor) = self.newest() else { return false };
        if !processor.stage.drained() || processor.stage.unpublished() > 0 || processor.inbox.mailboxes.queued() > 0 {
            return false;
        }
        if self.later.is_some() || !self.wrong_in_the_end().is_empty() {
            return false;
        }
        let partitions: Vec<Partition> = processor.stage.positions().into_keys().collect();
        let ends = self.place.topics.bounds(&partitions).expect("it can be asked");
        let at = processor.stage.positions();
        ends.iter().all(|(partition, (_, end))| at[partition].next >= *end)
            && self.journal().count_by_status().expect("it can be read").iter().all(|(status, _)| status.terminal())
    }

    /// The newest host's, undisturbed.
    fn journal(&self) -> Arc<dyn Journal> {
        self.begun().expect("a host runs").journal
    }

    fn verdict(&mut self) -> Vec<String> {
        let refuses = |fault: Fault| matches!(fault, Fault::RowRefused | Fault::RowUnclear);
        let refused = world(|world| world.went_wrong.iter().any(|(fault, _)| refuses(*fault)));
        self.asked.rows_refused = refused;
        self.asked.either.extend(world(|world| std::mem::take(&mut world.given_up)));
        self.asked.orders = self.orders();
        self.asked.either.extend(self.clients.cancels());
        let went_wrong = |fault: Fault| world(|world| world.went_wrong.iter().any(|(other, _)| *other == fault));
        let journal = self.journal();
        let seen = self.reading.go_on();
        let mut faults = oracle::faults(&self.asked, seen, &*journal);
        if self.plan.courier {
            faults.extend(oracle::booked(&self.asked, seen, &self.place.courier, &*journal));
        }
        if self.plan.agent {
            faults.extend(oracle::asked_for(&self.asked, seen, &self.place.courier, &*journal));
        }
        faults.extend(self.clients.faults(&InTheWorld {
            journal: &*journal,
            topics: &*self.place.topics,
            seen,
            orders: &self.asked.orders,
            by_record: &self.by_record,
            either: &self.asked.either,
            one_journal: !went_wrong(Fault::JournalRestored),
            topics_anew: went_wrong(Fault::TopicAnew),
        }));
        faults
    }

    fn stuck(&mut self) -> Vec<String> {
        self.reading.go_on();
        let seen = &self.reading.seen;
        let mut lines = vec![format!("it does not end: {} of {} orders have", seen.ended(), self.asked.orders.len())];
        for order in self.asked.orders.iter().filter(|order| !seen.has_ended(&order.id)) {
            let journal = self.newest().map(|processor| processor.journal.clone());
            let record = journal.and_then(|journal| journal.saga(&SagaId::new(&order.id)).ok().flatten());
            let saga = record.and_then(|record| sagahost_saga::Saga::decode(&record.bytes).ok());
            lines.push(format!("{order:?} has not ended: {saga:#?}"));
        }
        if let Some(processor) = self.newest() {
            let (stage, now) = (&processor.stage, world::now());
            lines.push(format!(
                "drained {}, unpublished {}, queued {}, held {:?}, waiting for {:?} {:?}",
                stage.drained(),
                stage.unpublished(),
                processor.inbox.mailboxes.queued(),
                stage.held(),
                processor.intake.waiting(),
                processor.outbox.waiting(now)
            ));
            let journal = self.journal();
            let all = SagaFilter { limit: usize::MAX, ..SagaFilter::default() };
            let open = journal.sagas(&all).unwrap_or_default().into_iter().filter(|row| !row.status.terminal());
            lines.extend(open.map(|row| format!("saga {} is {:?}", row.id, row.status)));
        }
        lines.extend(self.clients.waiting());
        lines.extend(self.wrong_in_the_end());
        lines.extend(world(|world| world.waiting()));
        lines
    }
}

/// Something that a person does with a host; None: it dies of it.
fn outside_of<T>(host: usize, deed: impl FnOnce() -> T) -> Option<T> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(deed));
    match done {
        Ok(done) => Some(done),
        Err(_) if !world(|world| world.is_alive(host)) => None,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What is read in the end, by kind. `till`: of what only requests reach, too.
fn topics(till: bool) -> BTreeMap<String, String> {
    let kinds = [
        "OrderCreated",
        "PaymentProcessed",
        "PaymentFailed",
        "PaymentRefunded",
        "InventoryUpdated",
        "PaymentEntered",
        "InventoryRejected",
        "InventoryReleased",
        "OrderCompleted",
        "OrderCancelled",
        "SagaFailed",
    ];
    let settings = host::topics();
    let kinds = kinds.into_iter().chain(["Withdrawn", "PutBack"].into_iter().filter(|_| till));
    let named = kinds.map(|kind| (kind.to_owned(), settings.topic_of(&Kind::new(kind)).to_string()));
    let letters = settings.dead_letters.as_ref().map(|topic| ("dead letters".to_owned(), topic.to_string()));
    named.filter(|(kind, _)| kind != "OrderCreated").chain(letters).collect()
}
