//! What the journal says. Invariant: it is asked for ids and codes; no data of an event, no configuration and no secret is in
//! an alert.

use std::collections::BTreeMap;

use sagahost_journal::{Journal, JournalError, LetterFilter, SagaFilter};
use sagahost_saga::{Saga, id::SagaId, input::Status, view::StepState};
use serde::Serialize;

/// Ids that an alert names.
const NAMED_MAX: usize = 10;
/// Sagas that are read at one look; of what is beyond, the count is known and not the code.
const READ_MAX: usize = 1_000;

/// Something that needs a person: one for each participant and code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Alert {
    /// `saga-needs-operator`, `saga-quarantined`, `dead-letters`.
    pub name: &'static str,
    pub participant: Option<String>,
    pub code: String,
    pub count: u64,
    /// Of sagas, or of dead letters: at most ten.
    pub ids: Vec<String>,
    /// What to type first.
    pub command: String,
}

/// What makes two alerts one.
pub(crate) type Key = (&'static str, Option<String>, String);

impl Alert {
    pub(crate) fn key(&self) -> Key {
        (self.name, self.participant.clone(), self.code.clone())
    }

    /// One sentence.
    pub fn summary(&self, app: &str) -> String {
        let of = self.participant.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
        let (count, code) = (self.count, &self.code);
        match self.name {
            "saga-needs-operator" => format!("app {app}: {count} sagas need an operator: {code}{of}"),
            "saga-quarantined" => format!("app {app}: {count} sagas are in quarantine"),
            _ => format!("app {app}: {count} open dead letters: {code}{of}"),
        }
    }
}

/// Of sagas, and of the dead letters that they open.
const COMPENSATION_FAILED: &str = "compensation-failed";

/// `command`: makes of `sagas list` the line that reaches this app.
///
/// # Errors
/// The journal cannot be read.
pub fn firing(journal: &dyn Journal, command: &dyn Fn(&str) -> String) -> Result<Vec<Alert>, JournalError> {
    let mut alerts = needing(journal, command)?;
    alerts.extend(quarantined(journal, command)?);
    // Of a compensation that failed its saga says it.
    let of_sagas = |code: &str| code == COMPENSATION_FAILED;
    for (code, participant, count) in journal.letter_groups()?.into_iter().filter(|(code, ..)| !of_sagas(code)) {
        let filter = LetterFilter {
            code: Some(code.clone()),
            participant: participant.clone(),
            open_only: true,
            limit: NAMED_MAX,
            ..LetterFilter::default()
        };
        let letters = journal.letters(&filter)?;
        alerts.push(Alert {
            name: "dead-letters",
            participant: participant.map(|name| name.to_string()),
            count,
            ids: letters.into_iter().map(|letter| letter.key).collect(),
            command: command(&format!("dead-letters list --code {code}")),
            code,
        });
    }
    Ok(alerts)
}

fn needing(journal: &dyn Journal, command: &dyn Fn(&str) -> String) -> Result<Vec<Alert>, JournalError> {
    let filter = SagaFilter { status: Some(Status::NeedsOperator), limit: READ_MAX, ..SagaFilter::default() };
    let mut found: BTreeMap<(Option<String>, String), (u64, Vec<String>)> = BTreeMap::new();
    let rows = journal.sagas(&filter)?;
    for row in &rows {
        for reason in reasons(journal, &row.id)? {
            let (count, ids) = found.entry(reason).or_default();
            *count += 1;
            if ids.len() < NAMED_MAX {
                ids.push(row.id.to_string());
            }
        }
    }
    let all = count_of(journal, Status::NeedsOperator)?;
    let beyond = all.saturating_sub(rows.len() as u64);
    if beyond > 0 && rows.len() == READ_MAX {
        found.insert((None, "further".to_owned()), (beyond, Vec::new()));
    }
    let list = command("sagas list --status needs-operator");
    let alert = |((participant, code), (count, ids))| Alert {
        name: "saga-needs-operator",
        participant,
        code,
        count,
        ids,
        command: list.clone(),
    };
    Ok(found.into_iter().map(alert).collect())
}

/// By whom and why, each once.
fn reasons(journal: &dyn Journal, id: &SagaId) -> Result<Vec<(Option<String>, String)>, JournalError> {
    let unreadable = || vec![(None, "unreadable".to_owned())];
    let Some(row) = journal.saga(id)? else { return Ok(Vec::new()) };
    let Ok(saga) = Saga::decode(&row.bytes) else { return Ok(unreadable()) };
    let stuck = saga.steps().filter(|step| matches!(step.state, StepState::Blocked | StepState::CompensationFailed));
    let mut reasons: Vec<_> = stuck
        .map(|step| {
            let code = match step.state {
                StepState::CompensationFailed => COMPENSATION_FAILED.to_owned(),
                _ => step.problem.map_or_else(|| "blocked".to_owned(), |problem| problem.code.clone()),
            };
            (Some(step.participant.to_string()), code)
        })
        .collect();
    let needs = saga.needs().iter();
    reasons.extend(needs.map(|need| (need.participant.as_ref().map(ToString::to_string), need.code.to_string())));
    reasons.sort();
    reasons.dedup();
    Ok(reasons)
}

fn quarantined(journal: &dyn Journal, command: &dyn Fn(&str) -> String) -> Result<Option<Alert>, JournalError> {
    let count = count_of(journal, Status::Quarantined)?;
    if count == 0 {
        return Ok(None);
    }
    let filter = SagaFilter { status: Some(Status::Quarantined), limit: NAMED_MAX, ..SagaFilter::default() };
    let ids = journal.sagas(&filter)?.into_iter().map(|row| row.id.to_string()).collect();
    let command = command("sagas list --status quarantined");
    let (name, code) = ("saga-quarantined", "quarantined".to_owned());
    Ok(Some(Alert { name, participant: None, code, count, ids, command }))
}

fn count_of(journal: &dyn Journal, wanted: Status) -> Result<u64, JournalError> {
    let counts = journal.count_by_status()?;
    Ok(counts.into_iter().find(|(status, _)| *status == wanted).map_or(0, |(_, count)| count))
}
