//! Events in a body: CloudEvents 1.0, JSON event format, one or a batch.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sagahost_manifest::answer::is_json;
use sagahost_saga::{
    id::{Kind, SagaId},
    outcome::Emission,
};
use serde::Deserialize;
use serde_json::value::RawValue;

pub(crate) const EVENT: &str = "application/cloudevents+json";
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";

/// What it says of its source and id means nothing here: an event that a step emits gets its id from the step.
#[derive(Deserialize)]
struct Structured {
    specversion: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    datacontenttype: Option<String>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    data_base64: Option<String>,
    /// Another saga.
    #[serde(default)]
    sagaid: Option<String>,
}

/// Is it a body of events? Then these.
///
/// # Errors
/// It says that it is, and is not.
pub(crate) fn read(content_type: &str, body: &[u8]) -> Option<Result<Vec<Emission>, String>> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let events: Result<Vec<Structured>, _> = match &*essence {
        EVENT => serde_json::from_slice(body).map(|event| vec![event]),
        BATCH => serde_json::from_slice(body),
        _ => return None,
    };
    Some(events.map_err(|error| format!("its body is no CloudEvent: {error}")).and_then(emissions))
}

/// Of a list in a problem document.
pub(crate) fn of_list(list: &RawValue) -> Result<Vec<Emission>, String> {
    let events = serde_json::from_str(list.get()).map_err(|error| format!("`events` are no CloudEvents: {error}"));
    events.and_then(emissions)
}

fn emissions(events: Vec<Structured>) -> Result<Vec<Emission>, String> {
    events.into_iter().map(emission).collect()
}

fn emission(event: Structured) -> Result<Emission, String> {
    let Structured { specversion, kind, datacontenttype, data, data_base64, sagaid } = event;
    if !specversion.starts_with("1.") {
        return Err(format!("its event is of CloudEvents {specversion}, and 1.0 is understood"));
    }
    let data: Arc<[u8]> = match (data, data_base64) {
        // CloudEvents 1.0, JSON event format, 3.1.1: of another type than JSON, a string is the data itself.
        (Some(json), None) if !datacontenttype.as_deref().is_none_or(is_json) => {
            let text = serde_json::from_str::<String>(json.get());
            text.map_err(|_| "its data is not JSON by its `datacontenttype`, and no string".to_owned())?
                .into_bytes()
                .into()
        }
        (Some(json), None) => json.get().as_bytes().into(),
        (None, Some(text)) => STANDARD.decode(text).map_err(|error| format!("`data_base64`: {error}"))?.into(),
        (None, None) => Arc::from(*b"null"),
        (Some(_), Some(_)) => return Err("its event has both `data` and `data_base64`".to_owned()),
    };
    Ok(Emission {
        kind: Kind::new(kind),
        data,
        content_type: datacontenttype,
        saga: sagaid.map(SagaId::from),
        after: None,
        attributes: Vec::new(),
    })
}

pub(crate) fn base64(data: &[u8]) -> String {
    STANDARD.encode(data)
}
