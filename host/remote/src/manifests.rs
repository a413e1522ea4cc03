//! What services say of themselves: a manifest as a plugin has one, in a file of its own. Invariant: what is known here by its
//! digest never changes.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use sagahost_manifest::{Fault, Manifest};
use sagahost_saga::topology::Role;

use crate::settings::RemoteSettings;

/// The versions of services that were admitted, by the digest of their bytes.
#[derive(Debug, Default)]
pub struct Manifests(Mutex<BTreeMap<Arc<str>, Arc<Manifest>>>);

impl Manifests {
    pub fn know(&self, digest: &Arc<str>, manifest: Arc<Manifest>) {
        self.0.lock().insert(digest.clone(), manifest);
    }

    pub fn of(&self, digest: &str) -> Option<Arc<Manifest>> {
        self.0.lock().get(digest).cloned()
    }
}

/// What a service cannot be, beside what a manifest cannot say. `name`: of its table in the configuration.
pub fn faults(manifest: &Manifest, name: &str, settings: &RemoteSettings) -> Vec<Fault> {
    let mut faults = manifest.faults();
    let mut fault = |what: String, place: &str, fix: &str| faults.push(Fault::new(what, place, fix));
    if manifest.name != name {
        let fix = "call both the same: the table of the configuration names the participant";
        fault(format!("it is named {}, and its table is [participant.{name}]", manifest.name), "manifest, name", fix);
    }
    if manifest.finishes {
        let fix = "let a plugin end the saga on an event of the service";
        fault("a service cannot end sagas".to_owned(), "manifest, finishes", fix);
    }
    if !manifest.config.is_empty() {
        let fix = "remove it: a service has its configuration where it runs";
        fault("nobody hands it any configuration".to_owned(), "manifest, config", fix);
    }
    if !manifest.grants.is_empty() {
        fault("a service needs no grants".to_owned(), "manifest, grants", "remove them");
    }
    let undone = manifest.subscriptions.iter().filter(|subscription| subscription.role == Role::Compensable);
    let kinds: Vec<&str> = undone.map(|subscription| &*subscription.kind).collect();
    if settings.undo_url.is_none() && !kinds.is_empty() {
        let what = format!("its steps for {} are to be undone, and nobody says where", kinds.join(", "));
        let fix =
            format!("write undo-url in [participant.{name}], or declare the role nothing-to-undo, pivot or retriable");
        fault(what, "manifest, subscriptions", &fix);
    }
    faults
}
