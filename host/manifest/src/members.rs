//! From manifests and the operator's overrides to the core's topology. Invariant: what a manifest leaves open gets the
//! same default everywhere, from here.

use std::{collections::BTreeMap, time::Duration};

use sagahost_saga::{
    id::{Kind, Participant},
    topology::{Member, OnDeadLetter, Retry, Role, Subscription},
};
use serde::{Deserialize, Serialize};

use crate::{
    manifest::{self, Manifest},
    report::{Fault, hint},
};

/// How long an event waits for its predecessor.
const PARK_TTL: Duration = Duration::from_secs(15 * 60);

/// `[plugin.payment.on.OrderCreated]`: what the operator sets differently from the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Override {
    /// Attempts before the step is a dead letter.
    pub attempts_max: Option<u32>,
    /// Longest wait before the second attempt, in milliseconds; it doubles with each further one …
    pub base_ms: Option<u64>,
    /// … up to this.
    pub cap_ms: Option<u64>,
    /// The same for `compensate`.
    pub undo_attempts_max: Option<u32>,
    pub undo_base_ms: Option<u64>,
    pub undo_cap_ms: Option<u64>,
    /// From taking the event in to the end of its last attempt, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// How long an event waits for its predecessor, in milliseconds.
    pub park_ttl_ms: Option<u64>,
    /// What else happens when the step ends in a dead letter.
    pub on_dead_letter: Option<OnDeadLetter>,
}

/// By plugin name, then by kind.
pub type Overrides = BTreeMap<String, BTreeMap<String, Override>>;

/// Members in the order in which they run when several subscribe to one event: first those named in `order`, then by
/// name. The flag says whether a plugin serves (false: it is away, its events park).
pub fn topology_members(plugins: &[(&Manifest, bool)], overrides: &Overrides, order: &[String]) -> Vec<Member> {
    let mut members: Vec<Member> =
        plugins.iter().map(|(manifest, serving)| member(manifest, *serving, overrides.get(&manifest.name))).collect();
    let rank = |name: &Participant| order.iter().position(|other| other == name.as_str()).unwrap_or(usize::MAX);
    members.sort_by(|a, b| rank(&a.name).cmp(&rank(&b.name)).then_with(|| a.name.cmp(&b.name)));
    members
}

/// Overrides of plugins or kinds that do not exist, and values that make no sense.
pub fn override_faults(manifests: &[&Manifest], overrides: &Overrides) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (plugin, kinds) in overrides {
        let Some(manifest) = manifests.iter().find(|manifest| manifest.name == *plugin) else {
            continue;
        };
        for (kind, over) in kinds {
            let place = format!("configuration, [plugin.{plugin}.on.{kind}]");
            if manifest.subscription(kind).is_none() {
                let fix = hint(kind, manifest.subscriptions.iter().map(|s| s.kind.as_str()));
                faults.push(Fault::new(format!("{plugin} does not subscribe to {kind}"), place.clone(), fix));
            }
            if over.attempts_max == Some(0) || over.undo_attempts_max == Some(0) {
                faults.push(Fault::new("no attempt is allowed", place, "use 1 or more"));
            }
        }
    }
    faults
}

fn member(manifest: &Manifest, serving: bool, overrides: Option<&BTreeMap<String, Override>>) -> Member {
    let kinds = |names: &[String]| names.iter().map(Kind::new).collect();
    Member {
        name: Participant::new(&manifest.name),
        serving,
        unreachable: false,
        outside_effects: false,
        subscriptions: manifest
            .subscriptions
            .iter()
            .map(|declared| {
                let over = overrides.and_then(|kinds| kinds.get(&declared.kind)).copied().unwrap_or_default();
                subscription(declared, over)
            })
            .collect(),
        compensate_on: kinds(&manifest.compensate_on),
        finish_on: kinds(&manifest.finish_on),
        finishes: manifest.finishes,
    }
}

fn subscription(declared: &manifest::Subscription, over: Override) -> Subscription {
    let own = &declared.retry;
    let otherwise = match declared.role {
        // Behind the pivot nothing can be compensated.
        Role::Retriable => OnDeadLetter::Block,
        Role::Compensable | Role::Pivot | Role::NothingToUndo => OnDeadLetter::Compensate,
    };
    Subscription {
        kind: Kind::new(&declared.kind),
        role: declared.role,
        when: declared.when,
        after: declared.after.iter().map(Kind::new).collect(),
        retry: retry(over.attempts_max.or(own.attempts_max), over.base_ms.or(own.base_ms), over.cap_ms.or(own.cap_ms)),
        undo_retry: retry(over.undo_attempts_max, over.undo_base_ms, over.undo_cap_ms),
        deadline: over.deadline_ms.or(declared.deadline_ms).map(Duration::from_millis),
        park_ttl: over.park_ttl_ms.or(declared.park_ttl_ms).map_or(PARK_TTL, Duration::from_millis),
        on_dead_letter: over.on_dead_letter.or(declared.on_dead_letter).unwrap_or(otherwise),
    }
}

/// What is left open has the core's default; a cap below the base would be no cap.
fn retry(attempts_max: Option<u32>, base_ms: Option<u64>, cap_ms: Option<u64>) -> Retry {
    let default = Retry::default();
    let base = base_ms.map_or(default.base, Duration::from_millis);
    Retry {
        attempts_max: attempts_max.unwrap_or(default.attempts_max),
        base,
        cap: cap_ms.map_or(default.cap.max(base), |cap| Duration::from_millis(cap).max(base)),
    }
}
