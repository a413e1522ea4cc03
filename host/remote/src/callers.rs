//! The calls that are out. Invariant: each call that is launched ends, with an answer or with the reason why there is none,
//! whatever becomes of the service, and no service holds up another.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use sagahost_manifest::Manifest;
use sagahost_net::{Bounds, Client, ClientError, Failed, Runtime};
use sagahost_processor::{
    outside::{Answer, Answers, Outside},
    step::Signal,
};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::CallRef,
    outcome::{Behaviour, Call, End, Problem, UndoOutcome},
};
use sagahost_serving::keeper::Services;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::{debug, info, warn};

use crate::{
    answer::{self, Meaning, Reach},
    breaker::{Breaker, May, Turned},
    manifests::Manifests,
    request::request,
    settings::RemoteSettings,
};

/// To find a service and to connect, of the time that a call has.
const CONNECT: Duration = Duration::from_secs(5);

/// All services of an app.
pub struct Callers {
    runtime: Runtime,
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
    client: Client,
    places: Semaphore,
    breaker: Mutex<Breaker>,
    /// Why it is not asked at the moment.
    away: Mutex<Option<String>>,
    /// Moves when the call that tried has ended.
    tried: watch::Sender<()>,
}

impl Callers {
    /// # Errors
    /// TLS cannot be prepared.
    pub fn new(
        runtime: Runtime,
        services: &BTreeMap<String, RemoteSettings>,
        manifests: Arc<Manifests>,
        answer_bytes_max: usize,
    ) -> Result<Self, ClientError> {
        let service = |(name, settings): (&String, &RemoteSettings)| {
            let timeout = settings.timeout;
            let bounds = Bounds { timeout, connect_timeout: CONNECT.min(timeout), body_bytes_max: answer_bytes_max };
            let name = Participant::new(name);
            let service = Service {
                client: Client::new(bounds)?,
                places: Semaphore::new(settings.calls_at_once_max),
                breaker: Mutex::new(Breaker::new()),
                away: Mutex::default(),
                tried: watch::Sender::new(()),
                settings: settings.clone(),
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
            let away = service.away.lock().clone();
            away.map(|why| (name.clone(), why))
        };
        self.services.iter().filter_map(away).collect()
    }
}

impl Outside for Callers {
    fn launch(&self, saga: &SagaId, call: Call, by: Option<Behaviour>) {
        let Some(begun) = self.begun.get().cloned() else { return };
        let service = self.services.get(&call.participant).cloned();
        let manifest = by.as_ref().and_then(|by| self.manifests.of(&by.digest));
        let (saga, stopping) = (saga.clone(), self.stopping.subscribe());
        self.runtime.spawn(async move {
            let at = Instant::now();
            let Meaning { end, left, .. } = match (service, manifest) {
                (Some(service), Some(manifest)) => service.call(&call, &manifest, stopping, &begun.changed).await,
                _ => Meaning { end: not_configured(&call), left: false, reach: Reach::Away },
            };
            debug!(%saga, participant = %call.participant, end = end.name(), left, "a call outside ended");
            let (by, took) = (by.unwrap_or_default(), at.elapsed());
            begun.answers.answer(&saga, &CallRef::from(&call), Answer { by, end, left, took });
        });
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
        let Some(request) = request(call, &self.settings) else {
            return Meaning { end: End::Undo(UndoOutcome::NothingToUndo), left: false, reach: Reach::Answers };
        };
        let turn = tokio::select! {
            biased;
            _ = stopping.wait_for(|stops| *stops) => return unsent(call, "stopping", "the host stops"),
            turn = self.turn() => turn,
        };
        let (_place, may) = match turn {
            Ok(turn) => turn,
            Err(why) => return unsent(call, "away", &why),
        };
        let answer = self.client.ask(request).await;
        let meaning = match &answer {
            Ok(response) => answer::of_response(call, manifest, response, SystemTime::now()),
            Err(failed) => answer::of_failure(call, failed),
        };
        self.ended(may, &meaning, answer.err(), changed);
        meaning
    }

    /// A place among the calls that are out. While one call tries whether the service answers, the others wait for that.
    async fn turn(&self) -> Result<(SemaphorePermit<'_>, May), String> {
        let mut tried = self.tried.subscribe();
        loop {
            let place = self.places.acquire().await.map_err(|_| "the host stops".to_owned())?;
            tried.borrow_and_update();
            let may = self.breaker.lock().may(Instant::now());
            match may {
                May::Leave | May::Try => return Ok((place, may)),
                May::No { until: Some(_) } => {
                    return Err(self.away.lock().clone().unwrap_or_else(|| "it did not answer lately".to_owned()));
                }
                May::No { until: None } => drop(place),
            }
            // Its sender is in this very service.
            let _ = tried.changed().await;
        }
    }

    fn ended(self: &Arc<Self>, may: May, meaning: &Meaning, failed: Option<Failed>, changed: &Arc<Signal>) {
        let Self { name, settings, .. } = &**self;
        let turned = self.breaker.lock().ended(may, meaning.reach == Reach::Answers, Instant::now());
        match turned {
            Turned::Back => info!(participant = %name, "answers again"),
            Turned::Away(wait) => {
                let why = match (failed, meaning.end.why()) {
                    (Some(Failed::Unsent { what } | Failed::Sent { what, .. }), _) => what,
                    (None, Some((_, detail))) => detail.to_owned(),
                    (None, None) => "no answer".to_owned(),
                };
                warn!(participant = %name, url = %settings.url, why, "does not answer: its events park; asked again in {} s", wait.as_secs());
                *self.away.lock() = Some(format!("does not answer, its events park: {why}"));
                self.ask_again_after(wait, changed.clone());
            }
            Turned::Nothing => {}
        }
        if may == May::Try {
            self.tried.send_replace(());
        }
        if turned != Turned::Nothing {
            changed.raise();
        }
    }

    /// Then its events go on, and the first of them finds out.
    fn ask_again_after(self: &Arc<Self>, wait: Duration, changed: Arc<Signal>) {
        let service = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            *service.away.lock() = None;
            changed.raise();
        });
    }
}

/// No table of the configuration names the service any more.
pub fn not_configured(call: &Call) -> End {
    let detail = format!("there is no [participant.{}] in the configuration any more", call.participant);
    End::unsent(call, Problem::new("not-configured", detail))
}

fn unsent(call: &Call, code: &str, detail: &str) -> Meaning {
    Meaning { end: End::unsent(call, Problem::new(code, detail)), left: false, reach: Reach::Away }
}
