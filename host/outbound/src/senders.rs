//! The requests that are out. Invariant: each one that is launched is answered, whatever becomes of the one it asks, and no
//! grant's requests hold up another's.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sagahost_manifest::{
    http::{Answer, Failure, Request, Target},
    sends::Send,
};
use sagahost_net::{Bounds, Client, ClientError, Runtime, SentHeader};
use sagahost_processor::outside::{Answers, Came, Launch, Outside};
use sagahost_saga::{
    id::{Participant, SagaId},
    outcome::Call,
};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use crate::{
    address::allowed,
    exchange::{answered, outgoing, said},
    owed::Owed,
    settings::{GrantSettings, Plugins},
    turns::Turns,
};

/// In a row, before it is said.
const UNREACHABLE_SAID: usize = 5;
/// To find a host and to connect, of the time that a request has.
const CONNECT: Duration = Duration::from_secs(5);

/// All plugins' requests.
pub struct Senders {
    /// Started with the first request, where nobody else needed it.
    runtime: Mutex<Option<Arc<Runtime>>>,
    lines: ArcSwap<BTreeMap<Participant, Vec<Arc<Line>>>>,
    response_bytes_max: usize,
    answers: OnceLock<Answers>,
    stopping: watch::Sender<bool>,
}

/// Where the requests of one grant go out.
pub(crate) struct Line {
    settings: GrantSettings,
    /// All that the operator sends for this plugin, wherever.
    secrets: Vec<SentHeader>,
    response_bytes_max: usize,
    client: Client,
    places: Semaphore,
    waiting: Turns,
    /// So many requests in a row could not be connected.
    unreachable: AtomicUsize,
}

impl Senders {
    /// # Errors
    /// TLS cannot be prepared.
    pub fn new(
        runtime: Option<Arc<Runtime>>,
        plugins: &Plugins,
        response_bytes_max: usize,
    ) -> Result<Self, ClientError> {
        let senders = Self {
            runtime: Mutex::new(runtime),
            lines: ArcSwap::default(),
            response_bytes_max,
            answers: OnceLock::new(),
            stopping: watch::Sender::new(false),
        };
        senders.grant(plugins)?;
        Ok(senders)
    }

    /// From now on; a request that is out continues as it began.
    ///
    /// # Errors
    /// TLS cannot be prepared.
    pub fn grant(&self, plugins: &Plugins) -> Result<(), ClientError> {
        let before = self.lines.load();
        let lines = |(name, grants): (&Participant, &Vec<GrantSettings>)| {
            let secrets: Vec<SentHeader> = grants.iter().flat_map(|grant| grant.headers.clone()).collect();
            let same =
                |line: &&Arc<Line>, settings: &GrantSettings| line.settings == *settings && line.secrets == secrets;
            let line = |settings: &GrantSettings| {
                let known = before.get(name).and_then(|lines| lines.iter().find(|line| same(line, settings)));
                let new = || Line::new(settings, secrets.clone(), self.response_bytes_max).map(Arc::new);
                known.cloned().map_or_else(new, Ok)
            };
            let lines = grants.iter().map(line).collect::<Result<Vec<_>, _>>()?;
            Ok((name.clone(), lines))
        };
        let lines = plugins.iter().map(lines).collect::<Result<BTreeMap<_, _>, ClientError>>()?;
        self.lines.store(Arc::new(lines));
        Ok(())
    }

    /// Before the first request.
    pub fn begin(&self, answers: Answers) {
        // A second time would be for another processor.
        let _ = self.answers.set(answers);
    }

    /// Nothing leaves any more: requests that wait for their turn stay.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    fn line(&self, plugin: &Participant, target: &Target) -> Option<Arc<Line>> {
        let lines = self.lines.load();
        let covering = lines.get(plugin)?.iter().filter(|line| line.settings.grant.covers(target));
        covering.max_by_key(|line| line.settings.grant.path_len()).cloned()
    }

    fn runtime(&self) -> std::io::Result<Arc<Runtime>> {
        let mut runtime = self.runtime.lock();
        match &*runtime {
            Some(runtime) => Ok(runtime.clone()),
            None => Ok(runtime.insert(Arc::new(Runtime::start()?)).clone()),
        }
    }
}

impl Outside for Senders {
    fn launch(&self, saga: &SagaId, launch: Launch) {
        let (Some(answers), Some(send)) = (self.answers.get(), launch.send) else { return };
        let owed = Owed::new(answers.clone(), saga.clone(), &launch.call, send.by.clone());
        let line = Target::parse(&send.request.url)
            .ok()
            .and_then(|target| Some((self.line(&launch.call.participant, &target)?, target)));
        let runtime = self.runtime();
        let (Some((line, target)), Ok(runtime)) = (line, runtime) else {
            let why = "it is not granted any more: the tables [plugin.NAME.http.\"URL\"] have changed";
            return answer(owed, &send.request, unsent("not-granted", why));
        };
        let stopping = self.stopping.subscribe();
        runtime.spawn(async move {
            let came = line.send(&target, &send, &launch.call, stopping).await;
            answer(owed, &send.request, came);
        });
    }
}

fn answer(owed: Owed, request: &Request, answer: Answer) {
    let left = !matches!(answer, Err(Failure { sent: false, .. }));
    let what = said(request, &answer);
    owed.answer(Came::Answer { answer, what }, left);
}

fn unsent(code: &str, detail: &str) -> Answer {
    Err(Failure { sent: false, code: code.to_owned(), detail: detail.to_owned() })
}

impl Line {
    /// Said once when nobody can be connected to, and once when that has passed.
    fn tell(&self, answer: &Answer, call: &Call) {
        let (participant, grant) = (&call.participant, &self.settings.grant);
        match answer {
            Err(Failure { code, detail, .. }) if code == "unreachable" => {
                if self.unreachable.fetch_add(1, Ordering::Relaxed) + 1 == UNREACHABLE_SAID {
                    warn!(%participant, %grant, why = detail, "cannot be reached: requests of this plugin are tried again and again");
                }
            }
            Err(Failure { sent: false, .. }) => {}
            Ok(_) | Err(_) => {
                if self.unreachable.swap(0, Ordering::Relaxed) >= UNREACHABLE_SAID {
                    info!(%participant, %grant, "can be reached again");
                }
            }
        }
    }

    pub(crate) fn new(
        settings: &GrantSettings,
        secrets: Vec<SentHeader>,
        response_bytes_max: usize,
    ) -> Result<Self, ClientError> {
        let timeout = settings.timeout;
        let body_bytes_max = response_bytes_max;
        let bounds = Bounds { timeout, connect_timeout: CONNECT.min(timeout), body_bytes_max };
        let networks = settings.allow_networks.clone();
        let client = Client::guarded(bounds, move |address| allowed(address, &networks))?;
        let places = Semaphore::new(settings.calls_at_once_max);
        Ok(Self {
            settings: settings.clone(),
            secrets,
            response_bytes_max,
            client,
            places,
            waiting: Turns::default(),
            unreachable: AtomicUsize::new(0),
        })
    }

    pub(crate) async fn send(
        &self,
        target: &Target,
        send: &Send,
        call: &Call,
        mut stopping: watch::Receiver<bool>,
    ) -> Answer {
        let Send { request, key, .. } = send;
        // A name is looked up, and its addresses are checked then; an address is all there is to look at.
        if let Ok(address) = target.host().parse::<IpAddr>()
            && !allowed(address, &self.settings.allow_networks)
        {
            let why = format!("{address} is not an address of the whole internet (allow-networks grants others)");
            return unsent("forbidden-address", &why);
        }
        let own = request.timeout_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        let timeout = own.map_or(self.settings.timeout, |own| own.min(self.settings.timeout));
        let waiting = self.waiting.wait(request.bytes());
        if waiting.too_many() {
            let why = format!("{} requests wait for their turn (calls-at-once-max)", waiting.others);
            return unsent("busy", &why);
        }
        let place = tokio::select! {
            biased;
            _ = stopping.wait_for(|stops| *stops) => return unsent("stopping", "the host stops"),
            place = tokio::time::timeout(timeout, self.places.acquire()) => place,
        };
        let Ok(Ok(_place)) = place else {
            return unsent("busy", &format!("no turn came within {timeout:?} (calls-at-once-max)"));
        };
        drop(waiting);
        let outgoing = outgoing(request, target, key, call, &self.settings.headers);
        let came = self.client.ask_within(outgoing, timeout).await;
        let answer = answered(came, &self.secrets, self.response_bytes_max);
        self.tell(&answer, call);
        if let Err(Failure { code, .. }) = &answer
            && matches!(code.as_str(), "secret-echoed" | "answer-encoded" | "forbidden-address")
        {
            warn!(participant = %call.participant, request = request.shown(), code, "what came back is not handed on");
        }
        answer
    }
}
