//! Services as participants: what stands for a plugin's file is their manifest. Invariant: the manifest of each version that
//! may take a call is known to whoever calls services.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use sagahost_manifest::{Fault, Manifest, Report, host_calls::HostCalls};
use sagahost_processor::code::{Callable, Ran};
use sagahost_remote::{Manifests, RemoteSettings, faults, not_configured};
use sagahost_saga::{
    id,
    outcome::{Behaviour, Call},
};
use sagahost_sandbox::admission::digest;
use sagahost_serving::admission::{Admitted, Plugin, PluginSettings};

use crate::{config::Config, threads::Clocks};

/// Those of the configuration.
pub struct Services {
    pub settings: BTreeMap<String, RemoteSettings>,
    pub manifests: Arc<Manifests>,
    pub clocks: Clocks,
}

impl Services {
    pub fn of(config: &Config, clocks: &Clocks) -> Self {
        Self { settings: config.participants.clone(), manifests: Arc::default(), clocks: clocks.clone() }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.settings.values().map(|service| &*service.manifest)
    }

    pub(super) fn are_there(&self) -> bool {
        !self.settings.is_empty()
    }

    pub(super) fn has(&self, file: &Path) -> bool {
        self.files().any(|other| other == file)
    }

    pub(super) fn admit(&self, bytes: Arc<[u8]>, file: &Path, values: &PluginSettings) -> Result<Admitted, Report> {
        let manifest = read(&bytes, file)?;
        let mut found: Vec<_> = self.settings.iter().filter(|(_, service)| service.manifest == file).collect();
        // Of two tables that name one file, it is that of its own name.
        found.sort_by_key(|(name, _)| **name != manifest.name);
        let mut faults = found.first().map_or_else(Vec::new, |(name, settings)| faults(&manifest, name, settings));
        if values.get(&manifest.name).is_some_and(|values| !values.config.is_empty()) {
            let place = format!("configuration, [plugin.{}.config]", manifest.name);
            let fix = "remove it: a service has its configuration where it runs";
            faults.push(Fault::new("nobody hands a service its configuration", place, fix));
        }
        if !faults.is_empty() {
            return Err(Report { plugin: Some(manifest.name), faults, ..Report::new(file) });
        }
        Ok(self.admitted(manifest, bytes, file))
    }

    /// A version that served before.
    pub(super) fn admit_stored(&self, bytes: Arc<[u8]>, file: &Path) -> Result<Admitted, Report> {
        Ok(self.admitted(read(&bytes, file)?, bytes, file))
    }

    fn admitted(&self, manifest: Manifest, bytes: Arc<[u8]>, file: &Path) -> Admitted {
        let manifest = Arc::new(manifest);
        let digest = digest(&bytes);
        self.manifests.know(&digest, manifest.clone());
        let place = self.settings.get(&manifest.name);
        let config: Arc<str> = place.map_or_else(String::new, address).into();
        let behaviour = Behaviour { digest, config, version: manifest.version.as_str().into() };
        let code = Arc::new(Version { behaviour, clocks: self.clocks.clone() });
        Admitted { plugin: Arc::new(Plugin { manifest, code }), file: file.to_owned(), bytes }
    }
}

fn read(bytes: &[u8], file: &Path) -> Result<Manifest, Report> {
    Manifest::of_service(bytes).map_err(|faults| Report { faults, ..Report::new(file) })
}

/// Where it is called, as a configuration that may change.
fn address(place: &RemoteSettings) -> String {
    let undo = place.undo_url.as_ref().map_or_else(String::new, ToString::to_string);
    id::hex(&id::sha256(&[place.url.to_string().as_bytes(), undo.as_bytes()])[..16])
}

/// A service as its manifest describes it. Its calls run outside.
struct Version {
    behaviour: Behaviour,
    clocks: Clocks,
}

impl Callable for Version {
    fn digest(&self) -> &Arc<str> {
        &self.behaviour.digest
    }

    fn behaviour(&self) -> Behaviour {
        self.behaviour.clone()
    }

    fn is_outside(&self) -> bool {
        true
    }

    /// Asked only where the configuration does not name the service any more.
    fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        Ran { end: Ok(not_configured(call)), host, took: Duration::ZERO, now: self.clocks.now() }
    }
}
