//! Send by replay: an attempt that stops at a request is run again from its beginning with what came back. Invariant: a run sees
//! what the runs before it saw, up to the last answer; and under one key there is one request, whichever attempt makes it.
//!
//! A row holds a request, what was read before it, and what came back; whoever runs attempts keeps the rows. Those of earlier
//! attempts stay until the step is done: the next one must ask the same, and whoever undoes an uncertain step is shown them.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sagahost_saga::{
    id::{self, Direction, SagaId, Time},
    outcome::{Behaviour, Call, Crash, Delay, End, Evidence, Outcome, UndoOutcome},
};
use serde::{Deserialize, Serialize};

use crate::{
    allowance::Refused,
    host_calls::{Entries, HostCalls, HostFault, Level, PageBounds},
    http::{Answer, Failure, Made, Request, Response},
};

/// A request of one attempt, or of those before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which attempt made it last.
    attempt: u32,
    began: Began,
    /// Since the request before it.
    reads: Vec<Read>,
    request: Request,
    /// Of that attempt.
    answer: Option<Answer>,
    /// The last one of those before it.
    response: Option<Response>,
}

impl Row {
    /// The last response that came, of whatever attempt.
    fn into_response(self) -> Option<Response> {
        self.answer.and_then(Result::ok).or(self.response)
    }

    /// Can it have had an effect, as far as anybody knows?
    fn may_stand(&self) -> bool {
        let stayed = matches!(self.answer, Some(Err(Failure { sent: false, .. })));
        !stayed && !matches!(self.request.method.as_str(), "GET" | "HEAD" | "OPTIONS")
    }
}

/// What all runs of an attempt have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Began {
    pub by: Behaviour,
    pub now: Time,
    /// What the plugin was configured with.
    pub config: Config,
}

/// Keys and values, as a guest reads them.
pub type Config = Arc<BTreeMap<String, String>>;

/// Something that was read, and what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Read {
    Get { key: String, value: Option<Arc<[u8]>> },
    Scan { prefix: String, after: Option<String>, limit: usize, entries: Entries },
    Counter { name: String, value: Option<i64> },
}

impl Read {
    /// Could what is written under the key have been seen by it?
    fn saw(&self, key: &str) -> bool {
        match self {
            Self::Get { key: seen, .. } => seen == key,
            Self::Scan { prefix, .. } => key.starts_with(prefix.as_str()),
            Self::Counter { .. } => false,
        }
    }

    /// Has it shown what is under the key, or that nothing is? A page says nothing of what is behind it.
    fn showed(&self, key: &str) -> bool {
        let Self::Scan { prefix, after, limit, entries } = self else { return self.saw(key) };
        let until = entries.last().map_or(*limit > 0, |(last, _)| key <= last.as_str());
        key.starts_with(prefix.as_str()) && after.as_deref().is_none_or(|after| key > after) && until
    }
}

/// A request that leaves.
#[derive(Clone, Debug)]
pub struct Send {
    pub request: Request,
    /// The same on every attempt, and of no other request.
    pub key: String,
    /// The version that asks.
    pub by: Behaviour,
}

/// One run of an attempt, and the rows of its step in its direction.
#[derive(Clone, Debug)]
pub struct Run {
    /// By their place in the order.
    rows: Vec<Row>,
    attempt: u32,
    idempotency_key: String,
    began: Began,
    /// So many rows are of this attempt; each has an answer, but for the last one while that is out.
    known: usize,
    /// The next request.
    at: usize,
    /// The next read before it, as long as the request is a known one.
    read: usize,
    /// What was read behind the last known request.
    fresh: Vec<Read>,
    written: BTreeSet<String>,
    counted: bool,
    wants: Option<Request>,
}

impl Run {
    /// `by` and `config`: who begins the attempt, where this is its first run.
    pub fn new(rows: Vec<Row>, call: &Call, by: Behaviour, config: Config) -> Self {
        let known = if call.send == 0 { 0 } else { rows.iter().take_while(|row| row.attempt == call.attempt).count() };
        let began =
            rows.first().filter(|_| known > 0).map_or(Began { by, now: call.now, config }, |row| row.began.clone());
        Self {
            rows,
            attempt: call.attempt,
            idempotency_key: call.idempotency_key.clone(),
            began,
            known,
            at: 0,
            read: 0,
            fresh: Vec::new(),
            written: BTreeSet::new(),
            counted: false,
            wants: None,
        }
    }

    /// Of an attempt that continues. None: its rows are gone.
    pub fn began(&self) -> Option<&Began> {
        (self.known > 0).then_some(&self.began)
    }

    /// What became of the last request.
    pub fn hear(&mut self, answer: Answer) {
        if let Some(row) = self.known.checked_sub(1).and_then(|last| self.rows.get_mut(last)) {
            row.answer = Some(answer);
        }
    }

    /// The request that is to leave: the last one of this attempt.
    pub fn leaving(&self) -> Option<Send> {
        let last = self.known.checked_sub(1)?;
        let Row { request, began, .. } = self.rows.get(last)?;
        Some(Send { request: request.clone(), key: key(&self.idempotency_key, last), by: began.by.clone() })
    }

    /// Did it end at a request?
    pub fn waits(&self) -> bool {
        self.wants.is_some()
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// It ended at a request, which is to leave. Returns the places of rows that are to be kept anew.
    pub fn keep_request(&mut self) -> Vec<usize> {
        let Some(request) = self.wants.take() else { return Vec::new() };
        let response = self.rows.get(self.at).cloned().and_then(Row::into_response);
        let (attempt, began, reads) = (self.attempt, self.began.clone(), std::mem::take(&mut self.fresh));
        let row = Row { attempt, began, reads, request, answer: None, response };
        if self.at < self.rows.len() {
            self.rows[self.at] = row;
        } else {
            self.rows.push(row);
        }
        self.known = self.at + 1;
        let mut changed: Vec<usize> = self.at.checked_sub(1).into_iter().chain([self.at]).collect();
        // What an earlier attempt read before the requests behind it is never asked for again.
        for (place, row) in self.rows.iter_mut().enumerate().skip(self.known) {
            if !std::mem::take(&mut row.reads).is_empty() {
                changed.push(place);
            }
        }
        changed
    }

    /// The place of the row that has heard an answer since it was kept.
    pub fn heard(&self) -> Option<usize> {
        self.known.checked_sub(1)
    }

    /// What its end means, with what is known of requests. An attempt that sent something of which nothing left, since whoever it
    /// asks is away, costs nothing to be made again. And none is done without a request that one before it sent: that would
    /// stand, and nobody would take it back.
    pub fn end_of(&self, end: End, call: &Call) -> End {
        let away = |row: &Row| matches!(&row.answer, Some(Err(failure)) if failure.is_away());
        let away = self.known > 0 && self.rows[..self.known].iter().all(away);
        match end {
            End::Outcome(Outcome::Retry(Delay { problem, .. })) if away => End::Outcome(Outcome::Unsent(problem)),
            End::Undo(UndoOutcome::Retry(Delay { problem, .. })) if away => End::Undo(UndoOutcome::Unsent(problem)),
            End::Outcome(Outcome::Completed(_)) => match self.left_out() {
                Some((place, request)) => {
                    let shown = request.shown();
                    lost(call, &format!("it is done without request {place}, {shown}, which an attempt before it sent"))
                }
                None => end,
            },
            other => other,
        }
    }

    /// A request that an earlier attempt sent, and this one did not: its place, from 1.
    fn left_out(&self) -> Option<(usize, &Request)> {
        let earlier = self.rows.iter().enumerate().skip(self.at.max(self.known));
        earlier.filter(|(_, row)| row.may_stand()).map(|(place, row)| (place + 1, &row.request)).next()
    }

    /// Is there a request of the step to which no response is known in this attempt, and which can have had an effect?
    pub fn is_open(&self) -> bool {
        let unanswered = |row: &Row| row.may_stand() && !matches!(row.answer, Some(Ok(_)));
        self.rows[..self.known].iter().any(unanswered) || self.left_out().is_some()
    }

    /// Is it still where a run before it was?
    fn replays(&self) -> bool {
        self.at < self.known
    }

    /// Whose step, in which direction.
    pub fn is_of(&self, idempotency_key: &str) -> bool {
        self.idempotency_key == idempotency_key
    }

    fn known_reads(&self) -> impl Iterator<Item = &Read> + Clone {
        self.rows[..self.known].iter().flat_map(|row| &row.reads)
    }

    /// What was read here before. `is`: was it this?
    fn again(&mut self, what: &str, is: impl Fn(&Read) -> bool) -> Result<Read, HostFault> {
        let read = self.rows.get(self.at).and_then(|row| row.reads.get(self.read)).filter(|read| is(read)).cloned();
        self.read += 1;
        read.ok_or_else(|| diverged(format!("it reads `{what}`, which it did not when it ran up to here before")))
    }

    fn writes(&mut self, key: &str) -> Result<(), HostFault> {
        let stale = self.known_reads().any(|read| read.saw(key)) && !self.fresh.iter().any(|read| read.showed(key));
        if !self.replays() && stale {
            return Err(HostFault::Guest(format!(
                "it writes `{key}`, which it read before a request: read it again behind the last one, it may have changed"
            )));
        }
        self.written.insert(key.to_owned());
        Ok(())
    }

    fn counts(&mut self) -> Result<(), HostFault> {
        if self.replays() {
            return Err(diverged("it changes a counter, which it did not when it ran up to here before".to_owned()));
        }
        self.counted = true;
        Ok(())
    }

    fn send(&mut self, request: Request) -> Result<Answer, HostFault> {
        let known = self.rows.get(self.at);
        if let Some(row) = known.filter(|row| !row.request.is_same(&request)) {
            let (place, other, this) = (self.at + 1, row.request.shown(), request.shown());
            let is = if other == this { "has another body or other headers".to_owned() } else { format!("is {this}") };
            let what = format!("request {place} was {other}, and {is} now: under one key there is one request");
            return Err(diverged(what));
        }
        match known.filter(|_| self.replays()) {
            Some(Row { answer: Some(answer), reads, .. }) if reads.len() == self.read => {
                let answer = answer.clone();
                (self.at, self.read) = (self.at + 1, 0);
                return Ok(answer);
            }
            Some(_) => return Err(diverged("it read less than it did when it ran up to here before".to_owned())),
            None => {}
        }
        if self.counted {
            let why = "it takes from or gives to a counter before a request: do that behind the last one";
            return Err(HostFault::Guest(format!("{}: {why}", request.shown())));
        }
        let stale = |key: &&String| self.known_reads().chain(&self.fresh).any(|read| read.saw(key));
        if let Some(key) = self.written.iter().find(stale) {
            let why = format!("it wrote `{key}`, which it had read, before a request: do both behind the last one");
            return Err(HostFault::Guest(format!("{}: {why}", request.shown())));
        }
        self.wants = Some(request);
        Err(HostFault::Waits)
    }
}

/// What a step asked for when it was to be done, from its rows.
pub fn made(rows: Vec<Row>, saga: &SagaId, step_id: &str) -> Vec<Made> {
    let of = id::idempotency_key(saga, step_id, Direction::Forward, 0);
    let rows = rows.into_iter().enumerate();
    rows.map(|(place, row)| Made { key: key(&of, place), request: row.request.clone(), response: row.into_response() })
        .collect()
}

/// Is a compensation shown what its step asked for?
pub fn is_shown(call: &Call) -> bool {
    call.undo.as_ref().is_some_and(|undo| undo.evidence == Evidence::Uncertain)
}

/// The end of an attempt that cannot go on: who began it is not there any more, or its rows are gone.
pub fn lost(call: &Call, why: &str) -> End {
    let crash = Crash { code: "diverged".into(), detail: why.to_owned() };
    match call.direction {
        Direction::Forward => End::Outcome(Outcome::Unknown { crash, uncertain: false }),
        Direction::Undo => End::Undo(UndoOutcome::Unknown { crash }),
    }
}

/// The answer to a request that was out when the host stopped, again and again.
pub fn interrupted() -> Answer {
    let detail = "the host stopped while the request was out, again and again".to_owned();
    Err(Failure { sent: true, code: "interrupted".to_owned(), detail })
}

fn key(idempotency_key: &str, place: usize) -> String {
    id::hex(&id::sha256(&[idempotency_key.as_bytes(), b"send", &(place as u64).to_be_bytes()]))
}

fn diverged(what: String) -> HostFault {
    HostFault::Refused(Refused::Diverged { what })
}

/// The host calls of one run: those of an attempt, as far as they were not answered before.
pub struct Sending {
    inner: Box<dyn HostCalls>,
    run: Run,
    made: Vec<Made>,
}

impl Sending {
    /// `made`: what the step asked for that is to be undone.
    pub fn new(inner: Box<dyn HostCalls>, run: Run, made: Vec<Made>) -> Self {
        Self { inner, run, made }
    }

    /// From what the sandbox gives back.
    pub fn into_parts(calls: Box<dyn HostCalls>) -> (Box<dyn HostCalls>, Run) {
        let calls = calls.into_any().downcast::<Self>();
        let Self { inner, run, .. } = *calls.expect("what was given is given back");
        (inner, run)
    }
}

impl HostCalls for Sending {
    /// A run before this one has written its lines.
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        if !self.run.replays() {
            self.inner.log(level, message, fields);
        }
    }
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        if self.run.replays() {
            let read = self.run.again(key, |read| matches!(read, Read::Get { key: seen, .. } if seen == key))?;
            return Ok(if let Read::Get { value, .. } = read { value } else { None });
        }
        let value = self.inner.store_get(key)?;
        self.run.fresh.push(Read::Get { key: key.to_owned(), value: value.clone() });
        Ok(value)
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.run.writes(key)?;
        self.inner.store_put(key, value)
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.run.writes(key)?;
        self.inner.store_delete(key)
    }
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, bounds: PageBounds) -> Result<Entries, HostFault> {
        let limit = bounds.entries;
        if self.run.replays() {
            let same = |read: &Read| {
                matches!(read, Read::Scan { prefix: seen, after: from, limit: most, .. }
                    if seen == prefix && from.as_deref() == after && *most == limit)
            };
            let read = self.run.again(prefix, same)?;
            return Ok(if let Read::Scan { entries, .. } = read { entries } else { Vec::new() });
        }
        let entries = self.inner.store_scan(prefix, after, bounds)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run.fresh.push(Read::Scan { prefix, after, limit, entries: entries.clone() });
        Ok(entries)
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        self.inner.counter_ensure(name, initial)
    }
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault> {
        self.run.counts()?;
        self.inner.counter_take(name, amount)
    }
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault> {
        self.run.counts()?;
        self.inner.counter_give(name, amount)
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        if self.run.replays() {
            let read = self.run.again(name, |read| matches!(read, Read::Counter { name: seen, .. } if seen == name))?;
            return Ok(if let Read::Counter { value, .. } = read { value } else { None });
        }
        let value = self.inner.counter_read(name)?;
        self.run.fresh.push(Read::Counter { name: name.to_owned(), value });
        Ok(value)
    }
    fn http_replays(&self) -> bool {
        self.run.replays()
    }
    fn http_send(&mut self, request: Request) -> Result<Answer, HostFault> {
        self.run.send(request)
    }
    fn http_calls(&mut self) -> Result<Vec<Made>, HostFault> {
        Ok(self.made.clone())
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use sagahost_saga::outcome::Problem;

    use super::*;
    use crate::smoke;

    /// A store, counters and a log of nobody's.
    #[derive(Default)]
    struct Kept {
        store: BTreeMap<String, Arc<[u8]>>,
        lines: Vec<String>,
    }

    impl HostCalls for Kept {
        fn log(&mut self, _: Level, message: &str, _: &[(String, String)]) {
            self.lines.push(message.to_owned());
        }
        fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
            Ok(self.store.get(key).cloned())
        }
        fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
            self.store.insert(key.to_owned(), value.into());
            Ok(())
        }
        fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
            self.store.remove(key);
            Ok(())
        }
        fn store_scan(&mut self, prefix: &str, _: Option<&str>, bounds: PageBounds) -> Result<Entries, HostFault> {
            let found = self.store.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
            Ok(bounds.fill(found.map(|(key, value)| (key.as_str(), value))).into_entries())
        }
        fn counter_ensure(&mut self, _: &str, _: i64) -> Result<(), HostFault> {
            Ok(())
        }
        fn counter_take(&mut self, _: &str, _: u64) -> Result<bool, HostFault> {
            Ok(true)
        }
        fn counter_give(&mut self, _: &str, _: u64) -> Result<(), HostFault> {
            Ok(())
        }
        fn counter_read(&mut self, _: &str) -> Result<Option<i64>, HostFault> {
            Ok(Some(self.store.len() as i64))
        }
        fn into_any(self: Box<Self>) -> Box<dyn Any> {
            self
        }
    }

    fn call() -> Call {
        smoke::example()
    }

    fn ask(body: &str) -> Request {
        Request {
            method: "POST".into(),
            url: "https://a/x".into(),
            headers: Vec::new(),
            body: body.into(),
            timeout_ms: None,
        }
    }

    fn ok(body: &str) -> Answer {
        Ok(Response { status: 200, headers: Vec::new(), body: body.into() })
    }

    fn get(host: &mut dyn HostCalls, key: &str) -> Result<String, HostFault> {
        let value = host.store_get(key)?;
        Ok(value.map_or_else(|| "-".to_owned(), |value| String::from_utf8_lossy(&value).into_owned()))
    }

    type Guest<'g> = &'g dyn Fn(&mut dyn HostCalls) -> Result<String, HostFault>;

    /// Runs of one attempt: what is kept between them is what a host keeps.
    struct Attempt {
        call: Call,
        rows: Vec<Row>,
        kept: Kept,
    }

    impl Attempt {
        fn first() -> Self {
            Self { call: call(), rows: Vec::new(), kept: Kept::default() }
        }

        fn next(self) -> Self {
            let call = Call { attempt: self.call.attempt + 1, send: 0, now: Time(self.call.now.0 + 1), ..self.call };
            Self { call, ..self }
        }

        /// What the run came to: an answer, a request (`>`), or why it was stopped.
        fn run(&mut self, answer: Option<Answer>, guest: Guest<'_>) -> String {
            let mut run = Run::new(self.rows.clone(), &self.call, Behaviour::default(), Config::default());
            if let Some(answer) = answer {
                run.hear(answer);
            }
            let inner = Kept { store: self.kept.store.clone(), lines: Vec::new() };
            let mut host = Sending::new(Box::new(inner), run, Vec::new());
            let end = guest(&mut host);
            let (inner, mut run) = Sending::into_parts(Box::new(host));
            let inner = inner.into_any().downcast::<Kept>().unwrap();
            self.kept.lines.extend(inner.lines);
            match end {
                Ok(said) => {
                    assert!(!run.waits());
                    self.kept.store = inner.store;
                    self.rows = run.rows().to_vec();
                    said
                }
                Err(HostFault::Waits) => {
                    assert_eq!(run.keep_request().last().map(|place| place + 1), Some(run.known));
                    self.rows = run.rows().to_vec();
                    self.call.send += 1;
                    let Send { request, key, .. } =
                        Run::new(self.rows.clone(), &self.call, Behaviour::default(), Config::default())
                            .leaving()
                            .unwrap();
                    format!("> {} {}", String::from_utf8(request.body).unwrap(), &key[..4])
                }
                Err(why) => why.to_string(),
            }
        }
    }

    #[test]
    fn a_run_sees_what_the_one_before_it_saw_up_to_the_last_answer() {
        let mut attempt = Attempt::first();
        attempt.kept.store.insert("price".into(), Arc::from(*b"10"));
        let guest: Guest<'_> = &|host| {
            host.log(Level::Info, "begins", &[]);
            let price = get(host, "price")?;
            let sold = host.http_send(ask(&price))?;
            host.log(Level::Info, "sold", &[]);
            let again = get(host, "price")?;
            let known = host.counter_read("n")?;
            let told = host.http_send(ask("tell"))?;
            host.store_put("sold", b"yes".to_vec())?;
            Ok(format!("{price} {again} {known:?} {} {}", sold.is_ok(), told.is_ok()))
        };
        let first = attempt.run(None, guest);
        assert!(first.starts_with("> 10 "));
        // Another saga changes it meanwhile.
        attempt.kept.store.insert("price".into(), Arc::from(*b"11"));
        let second = attempt.run(Some(ok("")), guest);
        assert!(second.starts_with("> tell ") && second[7..] != first[5..], "each request has a key: {first} {second}");
        attempt.kept.store.clear();
        assert_eq!(attempt.run(Some(ok("")), guest), "10 11 Some(1) true true");
        assert_eq!(attempt.kept.lines, ["begins", "sold"], "each line once");
        assert_eq!(attempt.kept.store.keys().collect::<Vec<_>>(), ["sold"]);
    }

    #[test]
    fn under_one_key_there_is_one_request() {
        let asks =
            |body: &'static str| move |host: &mut dyn HostCalls| host.http_send(ask(body)).map(|_| "done".to_owned());
        let mut attempt = Attempt::first();
        let first = attempt.run(None, &asks("10"));
        let lost = Err(Failure { sent: true, code: "timeout".into(), detail: String::new() });
        assert_eq!(attempt.run(Some(lost), &asks("10")), "done");
        let mut second = attempt.next();
        assert_eq!(
            second.run(None, &asks("11")),
            "request 1 was POST https://a/x, and has another body or other headers now: under one key there is one request"
        );
        assert_eq!(second.run(None, &asks("10")), first, "the same one leaves, under the same key");
        let patient = |host: &mut dyn HostCalls| {
            host.http_send(Request { timeout_ms: Some(7), ..ask("10") }).map(|_| "done".to_owned())
        };
        assert_eq!(second.run(Some(ok("")), &patient), "done", "how long it may take is nothing that is asked");
    }

    #[test]
    fn a_run_that_is_not_like_the_one_before_sends_nothing() {
        let begun = || {
            let mut attempt = Attempt::first();
            attempt.run(None, &|host| {
                get(host, "a")?;
                host.http_send(ask("")).map(|_| String::new())
            });
            attempt
        };
        let other = |guest: Guest<'_>| begun().run(Some(ok("")), guest);
        let ended = |host: &mut dyn HostCalls| host.http_send(ask("")).map(|_| String::new());
        assert_eq!(other(&ended), "it read less than it did when it ran up to here before");
        assert_eq!(other(&|host| get(host, "b")), "it reads `b`, which it did not when it ran up to here before");
        assert_eq!(
            other(&|host| host.counter_take("n", 1).map(|_| String::new())),
            "it changes a counter, which it did not when it ran up to here before"
        );
        assert_eq!(other(&|host| get(host, "a").and_then(|_| ended(host))), "");
    }

    #[test]
    fn what_was_read_before_a_request_is_not_written_behind_it_without_another_look() {
        let guest = |again: bool| {
            move |host: &mut dyn HostCalls| {
                get(host, "k/1")?;
                let _ = host.http_send(ask(""))?;
                if again {
                    get(host, "k/1")?;
                }
                host.store_put("k/1", b"1".to_vec())?;
                Ok("written".to_owned())
            }
        };
        let stale =
            "it writes `k/1`, which it read before a request: read it again behind the last one, it may have changed";
        for (again, said) in [(true, "written"), (false, stale)] {
            let mut attempt = Attempt::first();
            attempt.run(None, &guest(again));
            assert_eq!(attempt.run(Some(ok("")), &guest(again)), said);
        }
        let scanned = |host: &mut dyn HostCalls| {
            host.store_scan("k/", None, PageBounds { entries: 9, bytes: 999 })?;
            let _ = host.http_send(ask(""))?;
            host.store_delete("k/7")?;
            Ok(String::new())
        };
        let mut attempt = Attempt::first();
        attempt.run(None, &scanned);
        assert!(attempt.run(Some(ok("")), &scanned).starts_with("it writes `k/7`, which it read before a request"));
    }

    #[test]
    fn what_would_be_held_while_a_request_is_out_is_refused_before_it_leaves() {
        let said = |guest: Guest<'_>| Attempt::first().run(None, guest);
        assert_eq!(
            said(&|host| host.counter_take("n", 1).and_then(|_| host.http_send(ask(""))).map(|_| String::new())),
            "POST https://a/x: it takes from or gives to a counter before a request: do that behind the last one"
        );
        assert_eq!(
            said(&|host| {
                get(host, "a")?;
                host.store_put("a", Vec::new())?;
                host.http_send(ask("")).map(|_| String::new())
            }),
            "POST https://a/x: it wrote `a`, which it had read, before a request: do both behind the last one"
        );
        // What nobody read is written anew with each run.
        let blind = |host: &mut dyn HostCalls| {
            host.store_put("a", b"1".to_vec())?;
            host.counter_ensure("n", 1)?;
            host.http_send(ask("")).map(|_| "written".to_owned())
        };
        let mut attempt = Attempt::first();
        attempt.run(None, &blind);
        assert_eq!(attempt.run(Some(ok("")), &blind), "written");
        assert_eq!(attempt.kept.store.len(), 1);
    }

    #[test]
    fn an_attempt_of_which_nothing_left_costs_nothing() {
        let retry = || End::Outcome(Outcome::Retry(Delay { problem: Problem::new("AWAY", ""), after: None }));
        let ends = |answer: Answer| {
            let mut attempt = Attempt::first();
            attempt.run(None, &|host| host.http_send(ask("")).map(|_| String::new()));
            let mut run = Run::new(attempt.rows, &attempt.call, Behaviour::default(), Config::default());
            run.hear(answer);
            run.end_of(retry(), &attempt.call)
        };
        let failed = |sent, code: &str| Err(Failure { sent, code: code.into(), detail: String::new() });
        assert_eq!(ends(failed(false, "unreachable")), End::Outcome(Outcome::Unsent(Problem::new("AWAY", ""))));
        assert_eq!(ends(failed(false, "forbidden-address")), retry(), "that will not pass by itself");
        assert_eq!(ends(failed(true, "timeout")), retry());
        assert_eq!(ends(ok("busy")), retry());
    }

    #[test]
    fn the_last_response_is_what_whoever_undoes_it_is_shown() {
        let asks = |host: &mut dyn HostCalls| host.http_send(ask("10")).map(|_| "done".to_owned());
        let mut attempt = Attempt::first();
        attempt.run(None, &asks);
        attempt.run(Some(ok("busy")), &asks);
        let mut second = attempt.next();
        second.run(None, &asks);
        let shown = |attempt: &Attempt| {
            let made = made(attempt.rows.clone(), &attempt.call.event.saga, &attempt.call.step_id);
            made.into_iter().map(|made| made.response.map(|response| response.body)).collect::<Vec<_>>()
        };
        assert_eq!(shown(&second), [Some(b"busy".to_vec())], "nothing newer is known");
        second.run(Some(ok("fine")), &asks);
        assert_eq!(shown(&second), [Some(b"fine".to_vec())]);
    }
    /// The charge of the first attempt would stand, and nobody would take it back.
    #[test]
    fn no_attempt_is_done_without_what_one_before_it_sent() {
        let begun = |method: &'static str, answer: Answer| {
            let ask = move |host: &mut dyn HostCalls| {
                host.http_send(Request { method: method.into(), ..ask("10") }).map(|_| String::new())
            };
            let mut attempt = Attempt::first();
            attempt.run(None, &ask);
            attempt.run(Some(answer), &ask);
            let next = attempt.next();
            let run = Run::new(next.rows, &next.call, Behaviour::default(), Config::default());
            let done = smoke::done();
            (run.end_of(done.clone(), &next.call) == done, run.is_open())
        };
        let failed = |sent| Err(Failure { sent, code: String::new(), detail: String::new() });
        assert_eq!(begun("POST", failed(true)), (false, true));
        assert_eq!(begun("POST", ok("busy")), (false, true));
        assert_eq!(begun("POST", failed(false)), (true, false), "it never left");
        assert_eq!(begun("GET", failed(true)), (true, false), "it has no effect");
    }

    #[test]
    fn a_page_shows_what_is_on_it_and_nothing_behind_it() {
        let scan = |after: Option<&str>, limit: usize, found: &[&str]| Read::Scan {
            prefix: "k/".into(),
            after: after.map(str::to_owned),
            limit,
            entries: found.iter().map(|key| ((*key).to_owned(), Arc::from([]))).collect(),
        };
        assert!(scan(None, 9, &["k/1", "k/5"]).showed("k/3") && scan(None, 9, &["k/5"]).showed("k/5"));
        assert!(!scan(None, 9, &["k/1", "k/5"]).showed("k/6"), "it may be cut there");
        assert!(!scan(Some("k/3"), 9, &["k/5"]).showed("k/2") && !scan(None, 9, &[]).showed("l/1"));
        assert!(scan(Some("k/5"), 9, &[]).showed("k/7") && !scan(None, 0, &[]).showed("k/7"));
        assert!(scan(None, 0, &[]).saw("k/7"), "it may have been seen");
    }
}
