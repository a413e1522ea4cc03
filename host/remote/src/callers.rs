//! The calls that are out. Invariant: each call that is launched ends, with an answer or with the reason why there is none,
//! whatever becomes of the service, and no service holds up another.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use sagahost_manifest::{Limits, Manifest};
use sagahost_net::{Bounds, Client, ClientError, Failed, Runtime, without_query};
use sagahost_outbound::{Owed, Turns};
use sagahost_processor::{
    outside::{Answers, Came, Launch, Outside},
    step::Signal,
};
use sagahost_saga::{
    id::{Participant, SagaId},
    outcome::{Call, End, Evidence, Problem, Saved, UndoCall, UndoOutcome},
};
use sagahost_serving::keeper::Services;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::{info, warn};

use crate::{
    answer::{self, Meaning, Reach, Terms},
    breaker::{Breaker, May, Turned},
    manifests::Manifests,
    request::{Unasked, request, unasked},
    settings::RemoteSettings,
};

/// To find a service and to connect, of the time that a call has.
const CONNECT: Duration = Duration::from_secs(5);

/// All services of an app.
pub struct Callers {
    runtime: Arc<Runtime>,
    services: BTreeMap<Participant, Arc<Service>>,
    manifests: Arc<Manifests>,
    begun: OnceLock<Begun>,
    stopping: watch::Sender<bool>,
}

/// Where ends go, and what is raised when a service has gone or come.
#[derive(Clone)]
struct Begun {
    answers: Answers,
    changed: Arc<Signal>,
}

struct Service {
    name: Participant,
    settings: RemoteSettings,
    limits: Arc<Limits>,
    client: Client,
    places: Semaphore,
    /// Calls that wait for one.
    waiting: Turns,
    breaker: Mutex<Breaker>,
    /// Why it is not asked at the moment, and how often that has been so.
    away: Mutex<(Option<String>, u64)>,
    /// Moves when the call that tried has ended.
    tried: watch::Sender<()>,
}

impl Callers {
    /// # Errors
    /// TLS cannot be prepared.
    pub fn new(
        runtime: Arc<Runtime>,
        services: &BTreeMap<String, RemoteSettings>,
        manifests: Arc<Manifests>,
        limits: Arc<Limits>,
    ) -> Result<Self, ClientError> {
        let body_bytes_max = answer_bytes_max(&limits);
        let service = |(name, settings): (&String, &RemoteSettings)| {
            let timeout = settings.timeout;
            let bounds = Bounds { timeout, connect_timeout: CONNECT.min(timeout), body_bytes_max };
            let name = Participant::new(name);
            let service = Service {
                client: Client::new(bounds)?,
                places: Semaphore::new(settings.calls_at_once_max),
                waiting: Turns::default(),
                breaker: Mutex::new(Breaker::new()),
                away: Mutex::default(),
                tried: watch::Sender::new(()),
                settings: settings.clone(),
                limits: limits.clone(),
                name: name.clone(),
            };
            Ok((name, Arc::new(service)))
        };
        Ok(Self {
            services: services.iter().map(service).collect::<Result<_, ClientError>>()?,
            runtime,
            manifests,
            begun: OnceLock::new(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Before the first call. `changed`: raised when a service does not answer any more, or is to be asked again.
    pub fn begin(&self, answers: Answers, changed: Arc<Signal>) {
        // A second time would be for another processor.
        let _ = self.begun.set(Begun { answers, changed });
    }

    /// No call leaves any more: those that wait for their turn end unsent.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

impl Services for Callers {
    fn unreachable(&self) -> BTreeMap<Participant, String> {
        let away = |(name, service): (&Participant, &Arc<Service>)| {
            let away = service.away.lock().0.clone();
            away.map(|why| (name.clone(), why))
        };
        self.services.iter().filter_map(away).collect()
    }
}

impl Outside for Callers {
    fn launch(&self, saga: &SagaId, Launch { call, by, .. }: Launch) {
        let Some(begun) = self.begun.get().cloned() else { return };
        let service = self.services.get(&call.participant).cloned();
        let manifest = by.as_ref().and_then(|by| self.manifests.of(&by.digest));
        let stopping = self.stopping.subscribe();
        let owed = Owed::new(begun.answers, saga.clone(), &call, by.unwrap_or_default());
        self.runtime.spawn(async move {
            let meaning = match (service, manifest) {
                (Some(service), Some(manifest)) => service.call(&call, &manifest, stopping, &begun.changed).await,
                (None, _) => not_asked(not_configured(&call)),
                // What is to be undone was done by a plugin of this name, whose data no service reads.
                (Some(_), None) => not_asked(End::unreadable(&call)),
            };
            owed.answer(Came::End(meaning.end), meaning.left);
        });
    }
}

/// A place among the calls that are out.
struct Turn<'s> {
    service: &'s Service,
    may: May,
    _place: SemaphorePermit<'s>,
    ended: bool,
}

impl Turn<'_> {
    fn ended(mut self, answered: bool) -> Turned {
        self.ended = true;
        self.end(answered)
    }

    fn end(&self, answered: bool) -> Turned {
        let turned = self.service.breaker.lock().ended(self.may, answered, Instant::now());
        if self.may == May::Try {
            self.service.tried.send_replace(());
        }
        turned
    }
}

impl Drop for Turn<'_> {
    /// One that tried, and will not say what it found, lets another one try.
    fn drop(&mut self) {
        if !self.ended {
            self.end(false);
        }
    }
}

impl Service {
    async fn call(
        self: Arc<Self>,
        call: &Call,
        manifest: &Manifest,
        mut stopping: watch::Receiver<bool>,
        changed: &Arc<Signal>,
    ) -> Meaning {
        if let Some(why) = unasked(call, &self.settings) {
            return not_sent(call, why);
        }
        // What is too many is tried again later, from the journal.
        let waiting = self.waiting.wait(sends_bytes(call));
        if waiting.too_many() {
            let detail = format!("{} calls of {} wait for their turn (calls-at-once-max)", waiting.others, self.name);
            return unsent(call, "busy", &detail);
        }
        let turn = tokio::select! {
            biased;
            _ = stopping.wait_for(|stops| *stops) => return unsent(call, "stopping", "the host stops"),
            turn = self.turn() => turn,
        };
        let turn = match turn {
            Ok(turn) => turn,
            Err(why) => return unsent(call, "away", &why),
        };
        drop(waiting);
        let request = match request(call, &self.settings) {
            Ok(request) => request,
            Err(why) => {
                turn.ended(true);
                return not_sent(call, why);
            }
        };
        let answer = self.client.ask(request).await;
        let terms = Terms { manifest, rejected: &self.settings.rejected, limits: &self.limits };
        let meaning = match &answer {
            Ok(response) => answer::of_response(call, terms, response, SystemTime::now()),
            Err(failed) => answer::of_failure(call, failed),
        };
        let turned = turn.ended(meaning.reach == Reach::Answers);
        self.tell(turned, &meaning, answer.err(), changed);
        meaning
    }

    /// While one call tries whether the service answers, the others wait for that.
    async fn turn(&self) -> Result<Turn<'_>, String> {
        let mut tried = self.tried.subscribe();
        loop {
            let place = self.places.acquire().await.map_err(|_| "the host stops".to_owned())?;
            tried.borrow_and_update();
            let may = self.breaker.lock().may(Instant::now());
            match may {
                May::Leave | May::Try => return Ok(Turn { service: self, may, _place: place, ended: false }),
                May::No { until: Some(_) } => {
                    return Err(self.away.lock().0.clone().unwrap_or_else(|| "it did not answer lately".to_owned()));
                }
                May::No { until: None } => drop(place),
            }
            // Its sender is in this very service.
            let _ = tried.changed().await;
        }
    }

    fn tell(self: &Arc<Self>, turned: Turned, meaning: &Meaning, failed: Option<Failed>, changed: &Arc<Signal>) {
        let Self { name, settings, .. } = &**self;
        match turned {
            Turned::Nothing => return,
            Turned::Back => info!(participant = %name, "answers again"),
            Turned::Away(wait) => {
                let nobody = matches!(failed, Some(Failed::Unsent { .. }));
                let why = match (failed, meaning.end.why()) {
                    (Some(Failed::Unsent { what, .. } | Failed::Sent { what, .. }), _) => what,
                    (None, Some((_, detail))) => detail.to_owned(),
                    (None, None) => "no answer".to_owned(),
                };
                let url = without_query(&settings.url);
                warn!(participant = %name, url, why, "does not answer: its events park; asked again in {} s", wait.as_secs());
                let pause = {
                    let mut away = self.away.lock();
                    *away = (Some(format!("does not answer, its events park: {why}")), away.1 + 1);
                    away.1
                };
                tokio::spawn(self.clone().ask_again(pause, wait, nobody, changed.clone()));
            }
        }
        changed.raise();
    }

    /// After a pause its events go on, and the first of them finds out. Where nobody could be connected to (`nobody`), they
    /// do so only when that is possible again: until then no saga has to try.
    async fn ask_again(self: Arc<Self>, pause: u64, mut wait: Duration, nobody: bool, changed: Arc<Signal>) {
        loop {
            tokio::time::sleep(wait).await;
            if !nobody || self.client.reach(&self.settings.url).await.is_ok() {
                break;
            }
            wait = self.breaker.lock().postpone(Instant::now()).unwrap_or(wait);
        }
        let mut away = self.away.lock();
        // A later pause has its own end.
        if away.1 == pause {
            away.0 = None;
            drop(away);
            changed.raise();
        }
    }
}

/// Of an answer that brings an outcome of that many bytes: in CloudEvents, and where it is not JSON in base64.
const fn answer_bytes_max(limits: &Limits) -> usize {
    const ENVELOPE: usize = 64 << 10;
    limits.outcome_bytes_max + limits.outcome_bytes_max / 3 + ENVELOPE
}

fn sends_bytes(call: &Call) -> usize {
    let saved = |saved: &Saved| saved.data.len();
    let undo = match &call.undo {
        Some(UndoCall { evidence: Evidence::Done(undo), .. }) => saved(undo),
        _ => 0,
    };
    call.event.data.len() + call.state.as_ref().map_or(0, saved) + undo
}

/// Nothing was sent.
fn not_sent(call: &Call, why: Unasked) -> Meaning {
    match why {
        Unasked::NeverRan => not_asked(End::Undo(UndoOutcome::NothingToUndo)),
        Unasked::NoUndoUrl => {
            let detail = format!("[participant.{}] has no undo-url, and there is something to undo", call.participant);
            unsent(call, "no-undo-url", &detail)
        }
    }
}

fn not_asked(end: End) -> Meaning {
    Meaning { end, left: false, reach: Reach::Answers }
}

/// No table of the configuration names the service any more.
pub fn not_configured(call: &Call) -> End {
    let detail = format!("there is no [participant.{}] in the configuration any more", call.participant);
    End::unsent(call, Problem::new("not-configured", detail))
}

fn unsent(call: &Call, code: &str, detail: &str) -> Meaning {
    Meaning { end: End::unsent(call, Problem::new(code, detail)), left: false, reach: Reach::Away }
}
