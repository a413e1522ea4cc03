//! From what a guest returned to the core's outcome. Invariant: what passes here keeps every promise of the manifest
//! and every limit; anything else is a crash `bad-outcome` or `payload-limit` that says what was wrong.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sagahost_saga::{
    event::Attributes,
    id::SagaId,
    outcome::{
        Call, Completion, Crash, Delay, Emission, Outcome, Problem, Progress, Rejection, Saved, StateChange, Undo,
        UndoOutcome, Undone,
    },
};

use crate::{
    bindings::wit,
    guest::cut,
    limits::Limits,
    manifest::{Manifest, is_kind},
};

/// Names that the envelope of an event owns.
const ENVELOPE: &[&str] = &["id", "source", "type", "specversion", "time", "datacontenttype", "data", "sagaid"];

type Checked<T> = Result<T, Crash>;

/// What an answer is measured against.
pub(crate) struct Measure<'a> {
    pub(crate) manifest: &'a Manifest,
    pub(crate) limits: &'a Limits,
    pub(crate) call: &'a Call,
}

impl Measure<'_> {
    pub(crate) fn outcome(&self, answer: wit::Outcome) -> Outcome {
        let checked = match answer {
            wit::Outcome::Completed(completion) => self.completion(completion).map(Outcome::Completed),
            wit::Outcome::Rejected(rejection) => self.rejection(rejection).map(Outcome::Rejected),
            wit::Outcome::Retry(delay) => self.delay(delay).map(Outcome::Retry),
            wit::Outcome::NotYet(problem) => self.problem(problem).map(Outcome::NotYet),
            wit::Outcome::Invalid(problem) => self.problem(problem).map(Outcome::Invalid),
        };
        checked.unwrap_or_else(|crash| Outcome::Unknown { crash, uncertain: false })
    }

    pub(crate) fn undo_outcome(&self, answer: wit::UndoOutcome) -> UndoOutcome {
        let checked = match answer {
            wit::UndoOutcome::Undone(undone) => self.undone(undone).map(UndoOutcome::Undone),
            wit::UndoOutcome::NothingToUndo => Ok(UndoOutcome::NothingToUndo),
            wit::UndoOutcome::Retry(delay) => self.delay(delay).map(UndoOutcome::Retry),
            wit::UndoOutcome::Stuck(problem) => self.problem(problem).map(UndoOutcome::Stuck),
        };
        checked.unwrap_or_else(|crash| UndoOutcome::Unknown { crash })
    }

    fn completion(&self, completion: wit::Completion) -> Checked<Completion> {
        Ok(Completion {
            emit: self.emissions(completion.emit)?,
            state: self.state(completion.state)?,
            undo: self.undo(completion.undo)?,
            progress: self.progress(completion.progress)?,
            attributes: self.attributes(completion.attributes, "the outcome's attributes")?,
        })
    }

    fn rejection(&self, rejection: wit::Rejection) -> Checked<Rejection> {
        Ok(Rejection {
            problem: self.problem(rejection.problem)?,
            emit: self.emissions(rejection.emit)?,
            attributes: self.attributes(rejection.attributes, "the outcome's attributes")?,
        })
    }

    fn undone(&self, undone: wit::Undone) -> Checked<Undone> {
        Ok(Undone {
            emit: self.emissions(undone.emit)?,
            state: self.state(undone.state)?,
            attributes: self.attributes(undone.attributes, "the outcome's attributes")?,
        })
    }

    fn delay(&self, delay: wit::Delay) -> Checked<Delay> {
        let after = delay.after_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        Ok(Delay { problem: self.problem(delay.problem)?, after })
    }

    fn problem(&self, problem: wit::Problem) -> Checked<Problem> {
        let code = if problem.code.trim().is_empty() { "unnamed" } else { problem.code.trim() };
        let max = self.limits.problem_bytes_max;
        Ok(Problem::new(cut(code, max.min(128)), cut(&problem.detail, max)))
    }

    fn emissions(&self, emissions: Vec<wit::Emission>) -> Checked<Vec<Emission>> {
        emissions.into_iter().enumerate().map(|(index, emission)| self.emission(index, emission)).collect()
    }

    fn emission(&self, index: usize, emission: wit::Emission) -> Checked<Emission> {
        let what = format!("emitted event {index} ({})", cut(&emission.kind, 64));
        let saga = emission.saga_id.map(SagaId::from).filter(|saga| *saga != self.call.event.saga);
        self.kind(&emission.kind, saga.as_ref(), &what)?;
        if let Some(saga) = &saga {
            self.text(saga.as_str(), &format!("saga id of {what}"))?;
        }
        if let Some(content_type) = &emission.content_type {
            self.text(content_type, &format!("content type of {what}"))?;
        }
        self.size(&what, emission.data.len(), self.limits.payload_bytes_max, "payload-bytes-max")?;
        if is_json(emission.content_type.as_deref()) {
            serde_json::from_slice::<serde::de::IgnoredAny>(&emission.data)
                .map_err(|error| bad(format!("{what} claims to be JSON and is not: {error}")))?;
        }
        Ok(Emission {
            kind: emission.kind.into(),
            data: emission.data.into(),
            content_type: emission.content_type,
            saga,
            after: emission.after_seconds.map(|seconds| Duration::from_secs(u64::from(seconds))),
            attributes: self.attributes(emission.attributes, &format!("attributes of {what}"))?,
        })
    }

    fn kind(&self, kind: &str, other_saga: Option<&SagaId>, what: &str) -> Checked<()> {
        let (list, field) = match other_saga {
            None => (&self.manifest.emits, "emits"),
            Some(_) => (&self.manifest.starts, "starts"),
        };
        if !is_kind(kind) {
            return Err(bad(format!("{what}: this is no name for a kind of event")));
        }
        if list.iter().any(|known| known == kind) {
            return Ok(());
        }
        Err(bad(format!("{what}: its manifest does not name {kind} in `{field}`")))
    }

    fn state(&self, change: wit::StateChange) -> Checked<StateChange> {
        Ok(match change {
            wit::StateChange::Keep => StateChange::Keep,
            wit::StateChange::Delete => StateChange::Delete,
            wit::StateChange::Put(data) => {
                self.size("the state", data.len(), self.limits.state_bytes_max, "state-bytes-max")?;
                StateChange::Put(self.saved(data))
            }
        })
    }

    fn undo(&self, undo: wit::Undo) -> Checked<Undo> {
        let data = match undo {
            wit::Undo::NothingToUndo => return Ok(Undo::NothingToUndo),
            wit::Undo::Data(data) => data,
        };
        self.size("the undo data", data.len(), self.limits.undo_bytes_max, "undo-bytes-max")?;
        let subscription = self.manifest.subscription(self.call.event.kind.as_str());
        if let Some(max) = subscription.and_then(|subscription| subscription.undo_bytes_max) {
            self.size("the undo data", data.len(), max, "undo-bytes-max of its subscription")?;
        }
        Ok(Undo::Data(self.saved(data)))
    }

    fn progress(&self, progress: wit::Progress) -> Checked<Progress> {
        let result = match progress {
            wit::Progress::GoingOn => return Ok(Progress::GoingOn),
            wit::Progress::Finished(result) => result,
        };
        if !self.manifest.finishes {
            return Err(bad("it finished the saga, but its manifest does not say `finishes`".to_owned()));
        }
        self.size("the saga's result", result.len(), self.limits.payload_bytes_max, "payload-bytes-max")?;
        Ok(Progress::Finished(result.into()))
    }

    fn saved(&self, data: Vec<u8>) -> Saved {
        Saved { data: Arc::from(data), format: self.manifest.data_format }
    }

    fn attributes(&self, attributes: Attributes, what: &str) -> Checked<Attributes> {
        if attributes.len() > self.limits.attributes_max {
            let max = self.limits.attributes_max;
            return Err(over(format!("{what}: {} of them, {max} are allowed (attributes-max)", attributes.len())));
        }
        let bytes = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.size(what, bytes, self.limits.attributes_bytes_max, "attributes-bytes-max")?;
        let mut seen = BTreeSet::new();
        for (name, value) in &attributes {
            let shown = cut(name, 64);
            attribute_name(name).map_err(|reason| bad(format!("{what}: `{shown}` {reason}")))?;
            if value.contains(char::is_control) {
                return Err(bad(format!("{what}: the value of `{shown}` has control characters")));
            }
            if !seen.insert(name.as_str()) {
                return Err(bad(format!("{what}: `{shown}` stands there twice")));
            }
        }
        Ok(attributes)
    }

    fn text(&self, text: &str, what: &str) -> Checked<()> {
        self.size(what, text.len(), self.limits.id_bytes_max, "id-bytes-max")?;
        if text.is_empty() || text.contains(char::is_control) {
            return Err(bad(format!("{what} is empty or has control characters")));
        }
        Ok(())
    }

    fn size(&self, what: &str, bytes: usize, max: usize, limit: &str) -> Checked<()> {
        if bytes > max {
            return Err(over(format!("{what}: {bytes} bytes, {max} are allowed ({limit})")));
        }
        Ok(())
    }
}

fn bad(detail: String) -> Crash {
    Crash { code: "bad-outcome".to_owned(), detail }
}

fn over(detail: String) -> Crash {
    Crash { code: "payload-limit".to_owned(), detail }
}

/// No content type means `application/json`.
fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else {
        return true;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

fn attribute_name(name: &str) -> Result<(), &'static str> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 128 || !name.chars().all(letters) {
        return Err("is no attribute name: use lower-case letters, digits and `-_.`, 128 at most");
    }
    if name.starts_with("sagahost-") {
        return Err("is reserved: names that begin with `sagahost-` belong to the host");
    }
    if name.starts_with("ce_") || name.starts_with("ce-") {
        return Err("is reserved: the host writes the CloudEvents headers itself (name it without the prefix)");
    }
    if ENVELOPE.contains(&name) {
        return Err("is reserved: it belongs to the envelope, which the host writes");
    }
    Ok(())
}
