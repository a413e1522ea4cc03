//! Events as Rust types. Invariant: what does not decode is answered with the path of the fault, never with a trap.

use serde::{Serialize, de::DeserializeOwned};

/// A kind of event with its payload. `#[event]` on a struct implements it.
#[diagnostic::on_unimplemented(message = "`{Self}` is not an event", note = "put `#[event]` on the struct")]
pub trait Event: Serialize + DeserializeOwned {
    /// The kind: the type's name, or what `#[event(kind = "…")]` says.
    const KIND: &'static str;
    /// The data of one example event, JSON; it goes into the manifest.
    const EXAMPLE: Option<&'static str>;
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("failed to encode {} as JSON: {error}", std::any::type_name::<T>()),
    }
}

/// Decodes twice where it fails: the path costs time that the good case does not pay.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Ok(_) => Err("trailing characters after the JSON value".to_owned()),
        Err(error) if error.path().iter().len() == 0 => Err(error.inner().to_string()),
        Err(error) => Err(format!("at {}: {}", error.path(), error.inner())),
    }
}

pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.is_empty() || essence.eq_ignore_ascii_case("application/json") || essence.ends_with("+json")
}
