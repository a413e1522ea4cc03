//! What a plugin file contains, read without compiling it. Invariant: nothing of the guest runs here, and time and
//! memory are linear in the file's size.

use sagahost_manifest::{manifest::SECTION, report::Fault};
use wasmparser::{Parser, Payload};

/// Manifests are written by people; the largest that is known has a hundredth of it.
const MANIFEST_BYTES_MAX: usize = 256 * 1024;

/// What the first bytes say that a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Component,
    CoreModule,
    /// Compiled code of wasmtime's (`.cwasm`).
    Precompiled,
    /// The text format, or some other text.
    Text,
    Empty,
    Unknown,
}

pub fn file_kind(bytes: &[u8]) -> FileKind {
    if bytes.is_empty() {
        FileKind::Empty
    } else if Parser::is_component(bytes) {
        FileKind::Component
    } else if Parser::is_core_wasm(bytes) {
        FileKind::CoreModule
    } else if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        FileKind::Precompiled
    } else if std::str::from_utf8(&bytes[..bytes.len().min(512)]).is_ok() {
        FileKind::Text
    } else {
        FileKind::Unknown
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// Manifest sections of the component itself.
    pub manifests_outer: Vec<Vec<u8>>,
    /// Manifest sections of the core modules in it.
    pub manifests_inner: Vec<Vec<u8>>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Bytes that the largest memory has at least.
    pub memory_bytes: u64,
    /// Elements that the largest table has at least.
    pub table_elements: u64,
}

impl Anatomy {
    pub fn read(component: &[u8]) -> wasmparser::Result<Self> {
        let mut found = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(component) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CustomSection(section) if section.name() == SECTION => match depth {
                    0 => found.manifests_outer.push(section.data().to_vec()),
                    1 => found.manifests_inner.push(section.data().to_vec()),
                    _ => {}
                },
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        found.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        found.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(memories) => {
                    for memory in memories {
                        let pages = memory?.initial;
                        found.memory_bytes = found.memory_bytes.max(pages.saturating_mul(64 * 1024));
                    }
                }
                Payload::TableSection(tables) => {
                    for table in tables {
                        found.table_elements = found.table_elements.max(table?.ty.initial);
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The one manifest section of a component: appended ones go before those of its core modules.
pub(crate) fn section(anatomy: &Anatomy) -> Result<&[u8], Fault> {
    let place = format!("custom section `{}`", SECTION);
    let (sections, author) = match (&anatomy.manifests_outer[..], &anatomy.manifests_inner[..]) {
        ([], inner) => (inner, "export one participant per crate"),
        (outer, _) => (outer, "append it once, to the component as its toolchain made it"),
    };
    let documents = |bytes: &[u8]| {
        serde_json::Deserializer::from_slice(bytes).into_iter::<serde::de::IgnoredAny>().filter(Result::is_ok).count()
    };
    match sections {
        [] => Err(Fault::new(
            "it has no manifest",
            place,
            "build it with the SDK, or append one: `sagahost plugins pack COMPONENT --manifest FILE`",
        )),
        [one] if one.len() > MANIFEST_BYTES_MAX => {
            let what = format!("its manifest has {} bytes, {MANIFEST_BYTES_MAX} are allowed", one.len());
            Err(Fault::new(what, place, "leave out what no host reads, such as long descriptions"))
        }
        // The linker joins sections of one name, so that two manifests are one section with two documents.
        [one] if documents(one) > 1 => Err(Fault::new("it has more than one manifest", place, author)),
        [one] => Ok(one),
        _ => Err(Fault::new("it has more than one manifest", place, author)),
    }
}
