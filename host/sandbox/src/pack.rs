//! From a core module to a plugin file. Invariant: what is packed twice is the same bytes.

use sagahost_manifest::{Fault, Manifest, manifest::SECTION};
use thiserror::Error;

use crate::anatomy::{self, Anatomy, FileKind, file_kind};

#[derive(Debug, Error)]
pub enum PackError {
    #[error("{0}")]
    NotAComponent(&'static str),
    #[error("failed to read the component: {0}")]
    Unreadable(#[from] wasmparser::BinaryReaderError),
    #[error("the component has a manifest already (of plugin {name}, {place}): pack the file as its toolchain made it")]
    HasManifest { name: String, place: &'static str },
    #[error("the manifest is wrong:{}", faults.iter().map(|f| format!("\n  - {} ({}): {}", f.what, f.place, f.fix)).collect::<String>())]
    Manifest { faults: Vec<Fault> },
    #[error("failed to encode the component: {reason}{hint}")]
    Encode { reason: String, hint: &'static str },
}

/// Encodes a core module that wit-bindgen made as a component.
pub fn encode(module: &[u8]) -> Result<Vec<u8>, PackError> {
    if file_kind(module) == FileKind::Component {
        return Ok(module.to_vec());
    }
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| {
            let reason = format!("{error:#}");
            let hint = if reason.contains("env") {
                " (it imports functions of C or JavaScript that no host offers: some dependency does not support \
                 wasm32-unknown-unknown)"
            } else if reason.contains("wasi") {
                " (it imports WASI: build it for wasm32-unknown-unknown)"
            } else {
                ""
            };
            PackError::Encode { reason, hint }
        })
}

/// Appends a manifest (JSON) to a finished component; it goes last because other tools keep the order.
pub fn append_manifest(component: &[u8], json: &[u8]) -> Result<Vec<u8>, PackError> {
    match file_kind(component) {
        FileKind::Component => {}
        FileKind::CoreModule => {
            return Err(PackError::NotAComponent(
                "this is a core module, not a component: encode it first (`wasm-tools component new`)",
            ));
        }
        FileKind::Text | FileKind::Empty | FileKind::Precompiled | FileKind::Unknown => {
            return Err(PackError::NotAComponent("this file is no WebAssembly component"));
        }
    }
    let anatomy = Anatomy::read(component)?;
    let places = [(&anatomy.manifests_outer, "appended"), (&anatomy.manifests_inner, "from its source")];
    if let Some((there, place)) = places.iter().find_map(|(list, place)| list.first().map(|first| (first, *place))) {
        let name = Manifest::parse(there).map_or_else(|_| "unknown".to_owned(), |manifest| manifest.name);
        return Err(PackError::HasManifest { name, place });
    }
    let manifest = Manifest::parse(json).map_err(|faults| PackError::Manifest { faults })?;
    let faults = manifest.faults();
    if !faults.is_empty() {
        return Err(PackError::Manifest { faults });
    }
    Ok(with_section(component, &manifest.to_json()))
}

/// A custom section is: id 0, size, then name and contents, lengths in LEB128.
fn with_section(component: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(contents.len() + SECTION.len() + 1);
    leb128(&mut body, SECTION.len());
    body.extend_from_slice(SECTION.as_bytes());
    body.extend_from_slice(contents);
    let mut packed = component.to_vec();
    packed.push(0);
    leb128(&mut packed, body.len());
    packed.extend_from_slice(&body);
    packed
}

fn leb128(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        out.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

/// The manifest that a component carries, if it carries exactly one that can be read; or that of a service, which is all
/// that there is of it.
pub fn manifest_of(bytes: &[u8]) -> Option<Manifest> {
    if Manifest::is_of_service(bytes) {
        return Manifest::of_service(bytes).ok();
    }
    let anatomy = Anatomy::read(bytes).ok()?;
    Manifest::parse(anatomy::section(&anatomy).ok()?).ok()
}
