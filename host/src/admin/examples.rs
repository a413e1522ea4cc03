//! Example events, as plugins describe them in their manifests. Invariant: an example is that of a version that serves,
//! where one does.

use sagahost_sandbox::{Manifest, report::hint};

use super::{
    protocol::{Refusal, Why},
    topics,
    view::ExampleView,
};
use crate::{config::Config, journal::Journal};

/// The example event of this kind.
pub fn of_kind(config: &Config, journal: Option<&dyn Journal>, kind: &str) -> Result<ExampleView, Refusal> {
    let manifests = manifests(config, journal)?;
    let takers: Vec<&Manifest> = manifests.iter().filter(|manifest| manifest.subscription(kind).is_some()).collect();
    let example = |manifest: &&Manifest| {
        let data = manifest.subscription(kind)?.example.clone()?;
        Some(ExampleView { kind: kind.to_owned(), plugin: manifest.name.clone(), data })
    };
    if let Some(example) = takers.iter().find_map(example) {
        return Ok(example);
    }
    let Some(taker) = takers.first() else {
        if manifests.is_empty() {
            return Err(Refusal::not_found(format!("no plugin takes {kind}: there is none yet")));
        }
        let kinds = manifests.iter().flat_map(|manifest| &manifest.subscriptions).map(|s| s.kind.as_str());
        return Err(Refusal::not_found(format!("no plugin here takes {kind}: {}", hint(kind, kinds))));
    };
    let name = &taker.name;
    let text = format!(
        "plugin {name} takes {kind}, and its manifest has no example of it: add one with `#[event(example = {{…}})]`, \
         or name the data"
    );
    Err(Refusal::new(Why::NotFound, text))
}

/// Those that serve; before the first start those of the files.
fn manifests(config: &Config, journal: Option<&dyn Journal>) -> Result<Vec<Manifest>, Refusal> {
    let rows = match journal {
        Some(journal) => journal.admitted().map_err(Refusal::failed)?,
        None => Vec::new(),
    };
    let serving: Vec<Manifest> =
        rows.iter().filter(|row| row.serving).filter_map(|row| serde_json::from_str(&row.manifest).ok()).collect();
    if serving.is_empty() {
        return Ok(topics::manifests(config, None));
    }
    Ok(serving)
}
