//! Plugin files as people ship them: written aside and renamed, the same code under another version. Invariant: what is
//! changed is the manifest alone, appended to a plugin as it was built.

use std::{fs, path::Path};

use sagahost::host::Host;
use sagahost_operator::plugin_view::{PluginLine, PluginsView};
use sagahost_sandbox::{Manifest, pack};

use crate::{built, wait::until};

/// Written under another name and renamed.
pub fn drop_in(dir: &Path, file: &str, bytes: &[u8]) {
    let partial = dir.join(format!(".{file}.partial"));
    fs::write(&partial, bytes).expect("a file can be written");
    fs::rename(partial, dir.join(file)).expect("a file can be renamed");
}

pub fn as_built(name: &str) -> Vec<u8> {
    fs::read(built::all().join(format!("{name}.wasm"))).expect("it is built")
}

/// The same plugin under another version.
pub fn version(name: &str, version: &str) -> Vec<u8> {
    changed(name, |manifest| manifest.version = version.to_owned())
}

/// The same code under another manifest: of two the outer one counts.
pub fn changed(name: &str, change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let mut bytes = as_built(name);
    let mut manifest = pack::manifest_of(&bytes).expect("it has a manifest");
    change(&mut manifest);
    let manifest = serde_json::to_vec(&manifest).expect("a manifest is JSON");
    const SECTION: &[u8] = b"sagahost:manifest";
    // A custom section: id 0, its length, the length of its name, the name, the content.
    bytes.push(0);
    bytes.extend(leb128(1 + SECTION.len() + manifest.len()));
    bytes.extend(leb128(SECTION.len()));
    bytes.extend_from_slice(SECTION);
    bytes.extend(manifest);
    bytes
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A version of `hostile` that panics on every tenth event.
pub fn panics(number: &str) -> Vec<u8> {
    changed("hostile", |manifest| {
        manifest.version = number.to_owned();
        manifest.config.get_mut("fault").expect("it has this key").default = Some("panic-tenth".into());
    })
}

/// The version that serves, or would.
pub fn line(host: &Host, name: &str) -> Option<PluginLine> {
    let idle = |line: &PluginLine| matches!(&*line.state, "stored" | "quarantined" | "retired" | "waiting");
    host.live().plugins().plugins.into_iter().find(|line| line.name == name && !idle(line))
}

pub fn await_view(host: &Host, what: &str, so: impl Fn(&PluginsView) -> bool) -> PluginsView {
    until(&format!("plugins are listed as: {what}"), || Some(host.live().plugins()).filter(&so))
}

pub fn await_version(host: &Host, name: &str, version: &str) {
    let serves = |line: &PluginLine| {
        line.name == name && line.version == version && matches!(&*line.state, "serving" | "probation")
    };
    await_view(host, &format!("{name} {version}"), |view| view.plugins.iter().any(serves));
}

pub fn await_state(host: &Host, name: &str, state: &str) -> PluginLine {
    let so = |line: &PluginLine| line.name == name && line.state == state;
    let view = await_view(host, &format!("{name} {state}"), |view| view.plugins.iter().any(so));
    view.plugins.into_iter().find(so).expect("it was found")
}
