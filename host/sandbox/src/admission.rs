//! Decides whether a file becomes a plugin of this host. Invariant: a file that is not admitted changes nothing, and
//! its report names every fault that can be found without the others being mended first.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use sagahost_manifest::{
    Fault, Limits, Manifest, Report,
    manifest::{self, CONTRACT},
    report::hint,
    settings::{Fit, Isolation, Settings, config_hash, grants, resolve},
};
use sagahost_saga::id;
use sha2::{Digest as _, Sha256};

use crate::{
    anatomy::{self, Anatomy, FileKind, file_kind},
    call::Plugin,
    compiler::CompileError,
    engine::Engine,
    instance::Residents,
    smoke,
};

const PACKAGE: &str = "sagahost:plugin/";
const PARTICIPANT: &str = "participant";
/// What a plugin may import from the contract's package.
const OFFERED: &[&str] = &["types", "log", "config", "store", "counters", HTTP];
/// Only where the manifest asks for a grant.
const HTTP: &str = "http";
const REBUILD: &str = "rebuild it with the SDK or the `wit` directory of this host's version";

/// A plugin that may serve.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub plugin: Arc<Plugin>,
    pub file: PathBuf,
    pub bytes: Arc<[u8]>,
}

/// SHA-256 of a file, as `sha256sum` prints it.
pub fn digest(bytes: &[u8]) -> Arc<str> {
    id::hex(&Sha256::digest(bytes)).into()
}

/// The manifest of a file, where it can be read; whatever else is wrong.
pub fn manifest(bytes: &[u8]) -> Option<Manifest> {
    if file_kind(bytes) != FileKind::Component {
        return None;
    }
    let anatomy = Anatomy::read(bytes).ok()?;
    Manifest::parse(anatomy::section(&anatomy).ok()?).ok()
}

/// Checks and compiles a file, and lets it handle its own example events. `settings`: the operator's, by plugin name. Compiling takes 50 ms for a small plugin and
/// seconds for a scripting language, the first time.
pub fn admit(
    bytes: Arc<[u8]>,
    file: &Path,
    engine: &Arc<Engine>,
    settings: &BTreeMap<String, Settings>,
) -> Result<Admitted, Report> {
    let admitted = admit_as(bytes, file, engine, settings, Fit::Exact)?;
    let faults = smoke::faults(&admitted.plugin);
    if faults.is_empty() {
        return Ok(admitted);
    }
    let plugin = Some(admitted.plugin.name().to_string());
    Err(Report { plugin, faults, ..Report::new(file) })
}

/// Does it have to be compiled before it can be admitted? False as well if it will be refused without that.
pub fn needs_compiling(bytes: &[u8], digest: &str, engine: &Engine) -> bool {
    let fits = |anatomy: &Anatomy| world_faults(anatomy).is_empty() && size_faults(anatomy, engine.limits()).is_empty();
    !engine.is_compiled(digest) && read(bytes, engine.limits()).is_ok_and(|anatomy| fits(&anatomy))
}

/// An older version, which served before: what was configured for its successor is nothing to it.
pub fn admit_stored(
    bytes: Arc<[u8]>,
    file: &Path,
    engine: &Arc<Engine>,
    settings: &BTreeMap<String, Settings>,
) -> Result<Admitted, Report> {
    admit_as(bytes, file, engine, settings, Fit::Lenient)
}

fn admit_as(
    bytes: Arc<[u8]>,
    file: &Path,
    engine: &Arc<Engine>,
    settings: &BTreeMap<String, Settings>,
    fit: Fit,
) -> Result<Admitted, Report> {
    let mut report = Report::new(file);
    let anatomy = read(&bytes, engine.limits()).map_err(|fault| Report::of(file, fault))?;
    let manifest = read_manifest(&anatomy, &mut report);
    let world = world_faults(&anatomy);
    let sizes = size_faults(&anatomy, engine.limits());
    // What is wrong with its outside, wasmtime would only say again.
    let linkable = world.is_empty() && sizes.is_empty();
    report.faults.extend(world);
    report.faults.extend(sizes);
    let defaults = Settings::default();
    let settings = manifest.as_ref().and_then(|manifest| settings.get(&manifest.name)).unwrap_or(&defaults);
    let reuses = settings.isolation == Isolation::Reuse;
    let config = manifest.as_ref().map(|manifest| {
        resolve(manifest, settings, fit).unwrap_or_else(|faults| {
            report.faults.extend(faults);
            BTreeMap::new()
        })
    });
    let digest = digest(&bytes);
    let linked = if linkable { link(&bytes, &digest, engine, &mut report) } else { None };
    let sends = anatomy.imports.iter().any(|name| contract_name(name).is_some_and(|(name, _)| name == HTTP));
    if sends && manifest.as_ref().is_some_and(|manifest| manifest.grants.is_empty()) {
        let fix = "name in the manifest under `grants` where it sends requests (`http:https://HOST/PATH`), or build it for world `plugin`";
        report.faults.push(Fault::new("it imports http, and its manifest asks for no grant", "imports", fix));
    }
    if sends
        && reuses
        && let Some(manifest) = &manifest
    {
        let what = "it sends requests, and its attempts run again from their beginning: each needs a fresh instance";
        let place = format!("configuration, [plugin.{}] isolation", manifest.name);
        report.faults.push(Fault::new(what, place, "take `isolation = \"reuse\"` away"));
    }
    let (Some(manifest), Some(config), Some(pre)) = (manifest, config, linked) else {
        return Err(report);
    };
    let config_hash = config_hash(&config);
    let grants = grants(&manifest, settings);
    let plugin = Plugin {
        engine: engine.clone(),
        pre,
        manifest: Arc::new(manifest),
        digest,
        config: Arc::new(config),
        config_hash,
        grants: Arc::new(grants),
        sends,
        residents: reuses.then(Residents::default),
    };
    if let Err(cause) = plugin.try_out() {
        let fix = "if a limit is named, raise it in `[limits]` or make the plugin smaller; else rebuild the plugin";
        report.faults.push(Fault::new(format!("no instance of it can be made: {cause}"), "instantiation", fix));
    }
    if report.faults.is_empty() {
        Ok(Admitted { plugin: Arc::new(plugin), file: file.to_owned(), bytes })
    } else {
        Err(report)
    }
}

/// Is it a component at all?
fn read(bytes: &[u8], limits: &Limits) -> Result<Anatomy, Fault> {
    let max = limits.component_bytes_max;
    if bytes.len() > max {
        let what = format!("it has {} bytes, {max} are allowed", bytes.len());
        return Err(Fault::new(what, "the file", "raise `component-bytes-max` in `[limits]`"));
    }
    let (what, fix) = match file_kind(bytes) {
        FileKind::Component => {
            return Anatomy::read(bytes).map_err(|error| {
                let fix = "build it again: it is damaged, or made by a newer toolchain than this host reads";
                Fault::new(format!("it is no valid component: {}", error.message()), place(error.offset()), fix)
            });
        }
        FileKind::CoreModule => {
            ("it is a core module, not a component", "build it with `sagahost build`, or `wasm-tools component new`")
        }
        FileKind::Precompiled => (
            "it is compiled code, which no host takes from others",
            "copy the component (.wasm) that it was compiled from",
        ),
        FileKind::Text => ("it is a text file, not a component", "build the component from it and copy that"),
        FileKind::Empty => ("it is empty", "copy it again, under another name first, and rename it then"),
        FileKind::Unknown => ("it is no WebAssembly component", "copy the component that the build made"),
    };
    Err(Fault::new(what, "the file", fix))
}

fn place(offset: usize) -> String {
    format!("byte {offset} of the file")
}

/// The manifest, if it can be read; its faults go to the report.
fn read_manifest(anatomy: &Anatomy, report: &mut Report) -> Option<Manifest> {
    let section = anatomy::section(anatomy).map_err(|fault| report.faults.push(fault)).ok()?;
    let manifest = Manifest::parse(section).map_err(|faults| report.faults.extend(faults)).ok()?;
    report.plugin = Some(manifest.name.clone());
    report.faults.extend(manifest.faults());
    Some(manifest)
}

/// Imports and exports by name; their types are checked when it is linked.
fn world_faults(anatomy: &Anatomy) -> Vec<Fault> {
    let mut faults: Vec<Fault> = participant_fault(&anatomy.exports).into_iter().collect();
    let wasi: BTreeSet<&str> = anatomy.imports.iter().map(String::as_str).filter(|n| n.starts_with("wasi:")).collect();
    if !wasi.is_empty() {
        let names = wasi.into_iter().collect::<Vec<_>>().join(", ");
        let fix = "build it without WASI: Rust for wasm32-unknown-unknown, other toolchains with their `--stub-wasi`";
        faults.push(Fault::new(format!("it imports WASI, which plugins are not given: {names}"), "imports", fix));
    }
    let others = anatomy.imports.iter().filter(|name| !name.starts_with("wasi:"));
    faults.extend(others.filter_map(|name| import_fault(name)));
    faults
}

fn participant_fault(exports: &[String]) -> Option<Fault> {
    let found = exports.iter().filter_map(|name| contract_name(name)).find(|(name, _)| *name == PARTICIPANT);
    let Some((_, version)) = found else {
        let theirs = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        let what = format!("it is a component of another world: it exports {theirs}, not {PACKAGE}{PARTICIPANT}");
        return Some(Fault::new(what, "exports", "build it for world `plugin` of `sagahost:plugin`"));
    };
    version_fault(version, &format!("{PACKAGE}{PARTICIPANT}"), "exports")
}

fn import_fault(name: &str) -> Option<Fault> {
    let Some((interface, version)) = contract_name(name) else {
        let fix = "remove what needs it: a plugin can import only what world `plugin` names";
        return Some(Fault::new(format!("it imports {name}, which this host does not offer"), "imports", fix));
    };
    if !OFFERED.contains(&interface) {
        let what = format!("it imports {name}, which contract {CONTRACT} does not have");
        return Some(Fault::new(what, "imports", hint(interface, OFFERED.iter().copied())));
    }
    version_fault(version, &format!("{PACKAGE}{interface}"), "imports")
}

fn version_fault(version: &str, name: &str, place: &str) -> Option<Fault> {
    if manifest::contract_served(version) {
        return None;
    }
    let theirs = if version.is_empty() { "without a version".to_owned() } else { format!("version {version}") };
    Some(Fault::new(format!("it has {name} {theirs}, this host serves {CONTRACT}"), place, REBUILD))
}

/// `sagahost:plugin/NAME@VERSION` → (NAME, VERSION)
fn contract_name(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix(PACKAGE)?;
    Some(name.split_once('@').unwrap_or((name, "")))
}

/// Does its smallest instance fit into the pool?
fn size_faults(anatomy: &Anatomy, limits: &Limits) -> Vec<Fault> {
    let memory = (anatomy.memory_bytes, limits.memory_bytes_max, "bytes of memory", "memory-bytes-max");
    let table = (anatomy.table_elements, limits.table_elements_max, "table elements", "table-elements-max");
    [memory, table]
        .into_iter()
        .filter(|(needed, max, ..)| *needed > *max as u64)
        .map(|(needed, max, what, field)| {
            let fix = format!("raise `{field}` in `[limits]`, or make the plugin smaller");
            Fault::new(format!("it begins with {needed} {what}, {max} are allowed"), "core modules", fix)
        })
        .collect()
}

fn link(
    bytes: &[u8],
    digest: &str,
    engine: &Arc<Engine>,
    report: &mut Report,
) -> Option<crate::bindings::WorldPre<crate::guest::Guest>> {
    let component = engine.compile(digest, bytes).map_err(|CompileError { faults, .. }| report.faults.extend(faults));
    let linked = engine.link(&component.ok()?).map_err(|error| {
        let what = format!("its functions have other types than contract {CONTRACT}: {error:#}");
        report.faults.push(Fault::new(what, "imports and exports", REBUILD));
    });
    linked.ok()
}
