//! What a service owes whoever calls it, tried on one that runs. Invariant: each law is tried on sagas of its own, so that a
//! broken one breaks no other.

use std::{sync::Arc, time::SystemTime};

use sagahost_manifest::{Limits, Manifest};
use sagahost_net::Client;
use sagahost_saga::{
    event::Event,
    id::{self, Direction, EventKey, Kind, Participant, SagaId, Time},
    outcome::{Call, Cause, End, Evidence, Outcome, Runs, UndoCall, UndoOutcome},
};
use serde::Serialize;

use crate::{
    answer::{self, Meaning, Reach, Terms},
    request::request,
    settings::RemoteSettings,
};

/// In the data of an example this stands for the saga's id.
pub const SAGA: &str = "{saga}";
const RUBBISH: [&[u8]; 6] = [b"", b"{", b"null", b"[]", b"\"text\"", &[0xff; 4096]];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceLaw {
    Twice,
    AtOnce,
    CancelTwice,
    CancelFirst,
    CallAfterCancel,
    Rubbish,
}

impl ServiceLaw {
    pub const ALL: [Self; 6] =
        [Self::Twice, Self::AtOnce, Self::CancelTwice, Self::CancelFirst, Self::CallAfterCancel, Self::Rubbish];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Twice => "twice",
            Self::AtOnce => "at-once",
            Self::CancelTwice => "cancel-twice",
            Self::CancelFirst => "cancel-first",
            Self::CallAfterCancel => "call-after-cancel",
            Self::Rubbish => "rubbish",
        }
    }

    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Twice => "A call that is repeated under its key is answered as it was.",
            Self::AtOnce => {
                "Of two calls under one key at one time one is done; the other one waits for it, or gets 409."
            }
            Self::CancelTwice => "An undoing that is repeated finds nothing more to undo, and says so.",
            Self::CancelFirst => "An undoing of a step that never came is accepted.",
            Self::CallAfterCancel => "A step that comes behind its own undoing is refused.",
            Self::Rubbish => "A body that is no event of this kind is refused as invalid or rejected.",
        }
    }
}

/// What a law came to with one kind of event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    pub law: ServiceLaw,
    pub kind: String,
    pub verdict: Verdict,
    /// What was seen.
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Kept,
    Broken,
    /// The service did not get as far as that.
    NotShown,
}

/// A service that is tried.
pub struct Trial {
    pub manifest: Manifest,
    pub settings: RemoteSettings,
    pub client: Client,
    pub limits: Arc<Limits>,
    /// No two trials use the same sagas.
    pub tag: String,
}

type Outcomes = (Verdict, String);

impl Trial {
    /// `examples`: kinds with the data of one event each.
    pub async fn run(&self, examples: &[(String, String)]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (kind, data) in examples {
            for law in ServiceLaw::ALL {
                let (verdict, why) = match law {
                    ServiceLaw::Twice => self.twice(kind, data).await,
                    ServiceLaw::AtOnce => self.at_once(kind, data).await,
                    ServiceLaw::CancelTwice => self.cancel_twice(kind, data).await,
                    ServiceLaw::CancelFirst => self.cancel_first(kind, data).await,
                    ServiceLaw::CallAfterCancel => self.call_after_cancel(kind, data).await,
                    ServiceLaw::Rubbish => self.rubbish(kind).await,
                };
                findings.push(Finding { law, kind: kind.clone(), verdict, why });
            }
        }
        findings
    }

    async fn twice(&self, kind: &str, data: &str) -> Outcomes {
        let call = self.step("twice", kind, data);
        let first = self.ask(&call).await;
        if let Some(early) = not_settled(&first) {
            return early;
        }
        let again = self.ask(&Call { attempt: 2, ..call }).await;
        same("the second time", &first, &again)
    }

    async fn at_once(&self, kind: &str, data: &str) -> Outcomes {
        let call = self.step("at-once", kind, data);
        let second = Call { attempt: 2, ..call.clone() };
        let (one, other) = tokio::join!(self.ask(&call), self.ask(&second));
        let settled = self.ask(&Call { attempt: 3, ..call }).await;
        if let Some(early) = not_settled(&settled) {
            return early;
        }
        let waits = |meaning: &Meaning| matches!(&meaning.end, End::Outcome(Outcome::Retry(_)));
        for (which, meaning) in [("one of the two", &one), ("the other one", &other)] {
            if !waits(meaning) && meaning.end != settled.end {
                return same(&format!("a third call, after {which}"), meaning, &settled);
            }
        }
        (Verdict::Kept, told(&settled))
    }

    async fn cancel_twice(&self, kind: &str, data: &str) -> Outcomes {
        let call = self.step("cancel-twice", kind, data);
        let done = self.ask(&call).await;
        let End::Outcome(Outcome::Completed(completion)) = &done.end else {
            return (Verdict::NotShown, format!("the step was not done: {}", told(&done)));
        };
        let evidence = match &completion.undo {
            sagahost_saga::outcome::Undo::Data(saved) => Evidence::Done(saved.clone()),
            sagahost_saga::outcome::Undo::NothingToUndo => return not_undone(),
        };
        let undo = undoing(&call, evidence);
        for time in ["the first time", "the second time"] {
            let undone = self.ask(&undo).await;
            if !is_undone(&undone) {
                return (Verdict::Broken, format!("{time} it answered: {}", told(&undone)));
            }
        }
        (Verdict::Kept, String::new())
    }

    async fn cancel_first(&self, kind: &str, data: &str) -> Outcomes {
        if self.settings.undo_url.is_none() {
            return not_undone();
        }
        let undone = self.ask(&undoing(&self.step("cancel-first", kind, data), Evidence::Uncertain)).await;
        let verdict = if is_undone(&undone) { Verdict::Kept } else { Verdict::Broken };
        (verdict, told(&undone))
    }

    async fn call_after_cancel(&self, kind: &str, data: &str) -> Outcomes {
        if self.settings.undo_url.is_none() {
            return not_undone();
        }
        let call = self.step("call-after-cancel", kind, data);
        let undone = self.ask(&undoing(&call, Evidence::Uncertain)).await;
        if !is_undone(&undone) {
            return (Verdict::NotShown, format!("the undoing was not accepted: {}", told(&undone)));
        }
        let refused = self.ask(&call).await;
        let verdict = match &refused.end {
            End::Outcome(Outcome::Rejected(_) | Outcome::Invalid(_)) => Verdict::Kept,
            _ => Verdict::Broken,
        };
        (verdict, told(&refused))
    }

    async fn rubbish(&self, kind: &str) -> Outcomes {
        for (number, body) in RUBBISH.iter().enumerate() {
            let mut call = self.step(&format!("rubbish-{number}"), kind, "");
            call.event.data = Arc::from(*body);
            let answer = self.ask(&call).await;
            if !matches!(&answer.end, End::Outcome(Outcome::Rejected(_) | Outcome::Invalid(_))) {
                let shown: String = String::from_utf8_lossy(body).chars().take(20).collect();
                return (Verdict::Broken, format!("to a body of {} bytes ({shown:?}): {}", body.len(), told(&answer)));
            }
        }
        (Verdict::Kept, String::new())
    }

    async fn ask(&self, call: &Call) -> Meaning {
        let nothing = || Meaning { end: End::Undo(UndoOutcome::NothingToUndo), left: false, reach: Reach::Answers };
        let Ok(request) = request(call, &self.settings) else { return nothing() };
        let terms = Terms { manifest: &self.manifest, rejected: &self.settings.rejected, limits: &self.limits };
        match self.client.ask(request).await {
            Ok(response) => answer::of_response(call, terms, &response, SystemTime::now()),
            Err(failed) => answer::of_failure(call, &failed),
        }
    }

    fn step(&self, case: &str, kind: &str, data: &str) -> Call {
        let saga = SagaId::new(format!("check-{}-{case}", self.tag));
        let participant = Participant::new(&self.manifest.name);
        let key = EventKey::new("/sagahost-check", saga.as_str());
        let step_id = id::step_id(&participant, &key);
        let data = data.replace(SAGA, saga.as_str());
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Time(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        Call {
            idempotency_key: id::idempotency_key(&saga, &step_id, Direction::Forward, 0),
            participant,
            step_id,
            direction: Direction::Forward,
            ordinal: 0,
            attempt: 1,
            event: Event {
                key,
                saga,
                kind: Kind::new(kind),
                time: now,
                content_type: "application/json".into(),
                data: Arc::from(data.as_bytes()),
                attributes: Vec::new(),
                hops: 0,
                origin: None,
                record_key: None,
            },
            state: None,
            undo: None,
            now,
            runs: Runs::Outside,
            send: 0,
        }
    }
}

fn undoing(step: &Call, evidence: Evidence) -> Call {
    let cause = Cause { code: "operator".into(), detail: "sagahost check".into(), participant: None, event_kind: None };
    Call {
        direction: Direction::Undo,
        idempotency_key: id::idempotency_key(&step.event.saga, &step.step_id, Direction::Undo, 0),
        undo: Some(UndoCall { evidence, cause, plugin_version: "".into() }),
        ..step.clone()
    }
}

fn is_undone(meaning: &Meaning) -> bool {
    matches!(meaning.end, End::Undo(UndoOutcome::Undone(_) | UndoOutcome::NothingToUndo))
}

fn not_undone() -> Outcomes {
    (Verdict::NotShown, "its steps are not undone".to_owned())
}

/// None: the service decided.
fn not_settled(meaning: &Meaning) -> Option<Outcomes> {
    let settled =
        matches!(&meaning.end, End::Outcome(Outcome::Completed(_) | Outcome::Rejected(_) | Outcome::Invalid(_)));
    (!settled).then(|| (Verdict::NotShown, format!("it did not decide: {}", told(meaning))))
}

fn same(when: &str, first: &Meaning, again: &Meaning) -> Outcomes {
    if first.end == again.end {
        return (Verdict::Kept, told(first));
    }
    let only_bodies = first.end.name() == again.end.name();
    let differs = if only_bodies { "with another body" } else { "otherwise" };
    (Verdict::Broken, format!("{when} it answered {differs}: {}, and {} before", told(again), told(first)))
}

fn told(meaning: &Meaning) -> String {
    match meaning.end.why() {
        Some((code, detail)) => format!("{} ({code}: {detail})", meaning.end.name()),
        None => meaning.end.name().to_owned(),
    }
}
