//! Example events, as plugins describe them in their manifests. Invariant: an example is that of a version that serves,
//! where one does.

use sagahost_sandbox::{Manifest, report::hint};

use super::{
    protocol::{Refusal, Why},
    topics::{self, Sources},
    view::ExampleView,
};

/// The example event of this kind.
pub fn of_kind(sources: Sources<'_>, kind: &str) -> Result<ExampleView, Refusal> {
    let manifests = topics::manifests(sources)?;
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
