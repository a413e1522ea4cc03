//! What an answer must keep to. Invariant: what passes here keeps every promise of the manifest and every limit;
//! anything else is a crash `bad-outcome` or `payload-limit` that says what was wrong.

use std::collections::BTreeSet;

use sagahost_saga::{
    event::Attributes,
    id::SagaId,
    outcome::{
        Call, Completion, Crash, Delay, Emission, End, Outcome, Problem, Progress, Rejection, Saved, StateChange, Undo,
        UndoOutcome, Undone,
    },
};

use crate::{
    allowance::{Allowance, Refused},
    cut,
    limits::{ENTRY_BYTES, Limits},
    manifest::{Manifest, is_kind},
};

/// Names that the envelope of an event owns.
const ENVELOPE: &[&str] = &["id", "source", "type", "specversion", "time", "datacontenttype", "data", "sagaid"];

type Checked<T> = Result<T, Crash>;

/// What an answer is measured against.
pub struct Measure<'a> {
    pub manifest: &'a Manifest,
    pub limits: &'a Limits,
    pub call: &'a Call,
}

impl Measure<'_> {
    /// The end as the saga may see it. Texts are cut to size; an event for the saga's own id is one of this saga.
    /// `allowance`: of the attempt, since what it returns counts too.
    pub fn end(&self, end: End, allowance: &mut Allowance) -> End {
        match end {
            End::Outcome(outcome) => End::Outcome(self.outcome(outcome, allowance)),
            End::Undo(outcome) => End::Undo(self.undo_outcome(outcome, allowance)),
        }
    }

    fn outcome(&self, outcome: Outcome, allowance: &mut Allowance) -> Outcome {
        let checked = match outcome {
            Outcome::Completed(completion) => self.completion(completion).map(Outcome::Completed),
            Outcome::Rejected(rejection) => self.rejection(rejection).map(Outcome::Rejected),
            Outcome::Retry(delay) => Ok(Outcome::Retry(self.delay(delay))),
            Outcome::NotYet(problem) => Ok(Outcome::NotYet(self.problem(problem))),
            Outcome::Invalid(problem) => Ok(Outcome::Invalid(self.problem(problem))),
            Outcome::Unsent(problem) => Ok(Outcome::Unsent(self.problem(problem))),
            Outcome::Unknown { .. } | Outcome::Unreadable { .. } => Ok(outcome),
        };
        let counted = checked.and_then(|outcome| counted(outcome_bytes(&outcome), allowance).map(|()| outcome));
        counted.unwrap_or_else(|crash| Outcome::Unknown { crash, uncertain: false })
    }

    fn undo_outcome(&self, outcome: UndoOutcome, allowance: &mut Allowance) -> UndoOutcome {
        let checked = match outcome {
            UndoOutcome::Undone(undone) => self.undone(undone).map(UndoOutcome::Undone),
            UndoOutcome::Retry(delay) => Ok(UndoOutcome::Retry(self.delay(delay))),
            UndoOutcome::Stuck(problem) => Ok(UndoOutcome::Stuck(self.problem(problem))),
            UndoOutcome::Unsent(problem) => Ok(UndoOutcome::Unsent(self.problem(problem))),
            UndoOutcome::NothingToUndo | UndoOutcome::Unknown { .. } | UndoOutcome::Unreadable { .. } => Ok(outcome),
        };
        let counted = checked.and_then(|outcome| counted(undo_outcome_bytes(&outcome), allowance).map(|()| outcome));
        counted.unwrap_or_else(|crash| UndoOutcome::Unknown { crash })
    }

    fn completion(&self, completion: Completion) -> Checked<Completion> {
        let Completion { emit, state, undo, progress, attributes } = completion;
        let emit = self.emissions(emit)?;
        self.state(&state)?;
        self.undo(&undo)?;
        self.progress(&progress)?;
        self.attributes(&attributes, "the outcome's attributes")?;
        Ok(Completion { emit, state, undo, progress, attributes })
    }

    fn rejection(&self, rejection: Rejection) -> Checked<Rejection> {
        let Rejection { problem, emit, attributes } = rejection;
        let emit = self.emissions(emit)?;
        self.attributes(&attributes, "the outcome's attributes")?;
        Ok(Rejection { problem: self.problem(problem), emit, attributes })
    }

    fn undone(&self, undone: Undone) -> Checked<Undone> {
        let Undone { emit, state, attributes } = undone;
        let emit = self.emissions(emit)?;
        self.state(&state)?;
        self.attributes(&attributes, "the outcome's attributes")?;
        Ok(Undone { emit, state, attributes })
    }

    fn delay(&self, delay: Delay) -> Delay {
        Delay { problem: self.problem(delay.problem), after: delay.after }
    }

    fn problem(&self, problem: Problem) -> Problem {
        let code = if problem.code.trim().is_empty() { "unnamed" } else { problem.code.trim() };
        let max = self.limits.problem_bytes_max;
        Problem::new(cut(code, max.min(128)), cut(&problem.detail, max))
    }

    fn emissions(&self, emissions: Vec<Emission>) -> Checked<Vec<Emission>> {
        emissions.into_iter().enumerate().map(|(index, emission)| self.emission(index, emission)).collect()
    }

    fn emission(&self, index: usize, emission: Emission) -> Checked<Emission> {
        let what = format!("emitted event {index} ({})", cut(emission.kind.as_str(), 64));
        let saga = emission.saga.filter(|saga| *saga != self.call.event.saga);
        self.kind(emission.kind.as_str(), saga.as_ref(), &what)?;
        if let Some(saga) = &saga {
            self.text(saga.as_str(), &format!("saga id of {what}"))?;
        }
        if let Some(content_type) = &emission.content_type {
            self.text(content_type, &format!("content type of {what}"))?;
        }
        self.size(&what, emission.data.len(), self.limits.payload_bytes_max, "payload-bytes-max")?;
        // No content type means `application/json`.
        if emission.content_type.as_deref().is_none_or(is_json) {
            serde_json::from_slice::<serde::de::IgnoredAny>(&emission.data)
                .map_err(|error| bad(format!("{what} claims to be JSON and is not: {error}")))?;
        }
        self.attributes(&emission.attributes, &format!("attributes of {what}"))?;
        Ok(Emission { saga, ..emission })
    }

    fn kind(&self, kind: &str, other_saga: Option<&SagaId>, what: &str) -> Checked<()> {
        let (list, field) = match other_saga {
            None => (&self.manifest.emits, "emits"),
            Some(_) => (&self.manifest.starts, "starts"),
        };
        if !is_kind(kind) {
            return Err(bad(format!("{what}: not a valid kind of event")));
        }
        if list.iter().any(|known| known == kind) {
            return Ok(());
        }
        Err(bad(format!("{what}: its manifest does not name {kind} in `{field}`")))
    }

    fn state(&self, change: &StateChange) -> Checked<()> {
        match change {
            StateChange::Keep | StateChange::Delete => Ok(()),
            StateChange::Put(Saved { data, .. }) => {
                self.size("the state", data.len(), self.limits.state_bytes_max, "state-bytes-max")
            }
        }
    }

    fn undo(&self, undo: &Undo) -> Checked<()> {
        let data = match undo {
            Undo::NothingToUndo => return Ok(()),
            Undo::Data(saved) => &saved.data,
        };
        self.size("the undo data", data.len(), self.limits.undo_bytes_max, "undo-bytes-max")?;
        let subscription = self.manifest.subscription(self.call.event.kind.as_str());
        match subscription.and_then(|subscription| subscription.undo_bytes_max) {
            Some(max) => self.size("the undo data", data.len(), max, "undo-bytes-max of its subscription"),
            None => Ok(()),
        }
    }

    fn progress(&self, progress: &Progress) -> Checked<()> {
        let result = match progress {
            Progress::GoingOn => return Ok(()),
            Progress::Finished(result) => result,
        };
        if !self.manifest.finishes {
            return Err(bad("it finished the saga, but its manifest does not say `finishes`".to_owned()));
        }
        self.size("the saga's result", result.len(), self.limits.payload_bytes_max, "payload-bytes-max")
    }

    fn attributes(&self, attributes: &Attributes, what: &str) -> Checked<()> {
        if attributes.len() > self.limits.attributes_max {
            let max = self.limits.attributes_max;
            return Err(over(format!("{what}: {} of them, {max} are allowed (attributes-max)", attributes.len())));
        }
        let bytes = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.size(what, bytes, self.limits.attributes_bytes_max, "attributes-bytes-max")?;
        let mut seen = BTreeSet::new();
        for (name, value) in attributes {
            let shown = cut(name, 64);
            attribute_name(name).map_err(|reason| bad(format!("{what}: `{shown}` {reason}")))?;
            if value.contains(char::is_control) {
                return Err(bad(format!("{what}: the value of `{shown}` has control characters")));
            }
            if !seen.insert(name.as_str()) {
                return Err(bad(format!("{what}: duplicate `{shown}`")));
            }
        }
        Ok(())
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

fn counted(bytes: usize, allowance: &mut Allowance) -> Checked<()> {
    let refusal = |refused: Refused| Crash { code: refused.code().to_owned(), detail: refused.to_string() };
    allowance.outcome(bytes).map_err(refusal)
}

/// What an end weighs, as it counts against the limits.
pub fn bytes(end: &End) -> usize {
    match end {
        End::Outcome(outcome) => outcome_bytes(outcome),
        End::Undo(outcome) => undo_outcome_bytes(outcome),
    }
}

/// Of what has a size: problems are cut.
fn outcome_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Completed(Completion { emit, state, undo, progress, attributes }) => {
            let undo = match undo {
                Undo::NothingToUndo => 0,
                Undo::Data(saved) => saved.data.len(),
            };
            let result = match progress {
                Progress::GoingOn => 0,
                Progress::Finished(result) => result.len(),
            };
            emissions_bytes(emit) + state_bytes(state) + undo + result + attributes_bytes(attributes)
        }
        Outcome::Rejected(Rejection { emit, attributes, .. }) => emissions_bytes(emit) + attributes_bytes(attributes),
        Outcome::Retry(_)
        | Outcome::NotYet(_)
        | Outcome::Invalid(_)
        | Outcome::Unsent(_)
        | Outcome::Unknown { .. }
        | Outcome::Unreadable { .. } => 0,
    }
}

fn undo_outcome_bytes(outcome: &UndoOutcome) -> usize {
    match outcome {
        UndoOutcome::Undone(Undone { emit, state, attributes }) => {
            emissions_bytes(emit) + state_bytes(state) + attributes_bytes(attributes)
        }
        UndoOutcome::NothingToUndo
        | UndoOutcome::Retry(_)
        | UndoOutcome::Stuck(_)
        | UndoOutcome::Unsent(_)
        | UndoOutcome::Unknown { .. }
        | UndoOutcome::Unreadable { .. } => 0,
    }
}

fn state_bytes(change: &StateChange) -> usize {
    match change {
        StateChange::Keep | StateChange::Delete => 0,
        StateChange::Put(saved) => saved.data.len(),
    }
}

fn emissions_bytes(emissions: &[Emission]) -> usize {
    let bytes = |emission: &Emission| {
        let saga = emission.saga.as_ref().map_or(0, |saga| saga.as_str().len());
        let names = emission.kind.as_str().len() + emission.content_type.as_ref().map_or(0, String::len) + saga;
        2 * ENTRY_BYTES + names + emission.data.len() + attributes_bytes(&emission.attributes)
    };
    emissions.iter().map(bytes).sum()
}

fn attributes_bytes(attributes: &Attributes) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.len() + ENTRY_BYTES).sum()
}

/// An uncaught error: the second side of the contract's `result<_, string>`.
pub fn uncaught(text: &str, limits: &Limits) -> Crash {
    let text = if text.is_empty() { "an uncaught error without a text" } else { text };
    Crash { code: "guest-error".to_owned(), detail: cut(text, limits.problem_bytes_max).to_owned() }
}

/// A panic whose text is known.
pub fn panicked(text: &str, limits: &Limits) -> Crash {
    let detail = format!("it panicked: {text}");
    Crash { code: "trap".to_owned(), detail: cut(&detail, limits.problem_bytes_max).to_owned() }
}

fn bad(detail: String) -> Crash {
    Crash { code: "bad-outcome".to_owned(), detail }
}

fn over(detail: String) -> Crash {
    Crash { code: "payload-limit".to_owned(), detail }
}

/// By its name, whatever its parameters: `application/json`, `text/json` or `…+json`.
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

fn attribute_name(name: &str) -> Result<(), &'static str> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 128 || !name.chars().all(letters) {
        return Err("is not a valid attribute name: use lower-case letters, digits and `-_.`, 128 at most");
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
