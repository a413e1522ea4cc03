//! Builds plugin crates: cargo, component encoding, one file per plugin. Invariant: the build does not depend on how
//! the caller was built: flags, wrappers and coverage variables of the surroundings are cleared, and files appear whole.

use std::{
    ffi::OsString,
    fs, io,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use sagahost_manifest::Manifest;
use serde_json::Value;
use thiserror::Error;

use crate::{
    pack::{self, PackError},
    toolchain::{self, TARGET, Toolchain},
};

/// Variables that would make two builds of one crate differ.
const CLEARED: &[&str] = &[
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_INCREMENTAL",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "LLVM_PROFILE_FILE",
    "CARGO_LLVM_COV",
    "CARGO_LLVM_COV_TARGET_DIR",
    "CARGO_MAKEFLAGS",
    "MAKEFLAGS",
    "MFLAGS",
    "RUSTC",
    "RUSTDOC",
];
/// The profile `plugin`, for workspaces that have none. What overflows is a trap, as in a plugin's own tests: released code
/// would continue with another number.
const PROFILE: &[&str] = &[
    "profile.plugin.inherits=\"release\"",
    "profile.plugin.overflow-checks=true",
    "profile.plugin.lto=\"fat\"",
    "profile.plugin.codegen-units=1",
    "profile.plugin.panic=\"abort\"",
    "profile.plugin.strip=\"debuginfo\"",
];
const ERROR_LINES: usize = 60;

/// What to build.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Directories of crates, each with a `Cargo.toml` and crate type `cdylib`.
    pub crates: Vec<PathBuf>,
    /// Where `NAME.wasm` goes; made if it is absent.
    pub out: PathBuf,
    /// Cargo's target directory; none: `target/plugins` of the crate's workspace.
    pub target_dir: Option<PathBuf>,
    /// May what is missing be installed with `apt-get` (as root only)? `rustup target add` is always tried.
    pub install: bool,
}

/// A plugin that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The manifest's name, else the crate's.
    pub name: String,
    pub file: PathBuf,
    pub bytes: usize,
    /// None: it carries none yet (`sagahost plugins pack` appends one).
    pub manifest: Option<Manifest>,
    /// False: the file had these bytes already.
    pub changed: bool,
}

#[derive(Debug, Error)]
pub enum BuildError {
    #[error("failed to find a crate at {}: there is no Cargo.toml", .0.display())]
    NoCrate(PathBuf),
    #[error("failed to {doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error("failed to read what cargo says of {}: {reason}", dir.display())]
    Metadata { dir: PathBuf, reason: String },
    #[error("failed to build {}:\n{output}", dir.display())]
    Cargo { dir: PathBuf, output: String },
    #[error("{} makes no WebAssembly library: add `[lib] crate-type = [\"cdylib\", \"rlib\"]` to its Cargo.toml", .0.display())]
    NoLibrary(PathBuf),
    #[error("failed to make a plugin of {}: {source}", dir.display())]
    Pack { dir: PathBuf, source: PackError },
    #[error("{0}")]
    Toolchain(String),
    #[error("two crates make a plugin named {name}: {} and {}", first.display(), second.display())]
    SameName { name: String, first: PathBuf, second: PathBuf },
}

/// Builds the crates in turn; `progress` gets lines for people.
pub fn build(request: &Request, progress: &mut dyn FnMut(&str)) -> Result<Vec<Built>, BuildError> {
    create_dir(&request.out)?;
    let toolchain = toolchain::find(request.install, progress).map_err(BuildError::Toolchain)?;
    let mut built: Vec<(PathBuf, Built)> = Vec::new();
    for dir in &request.crates {
        let one = build_one(request, dir, &toolchain, progress)?;
        if let Some((first, _)) = built.iter().find(|(_, other)| other.name == one.name) {
            return Err(BuildError::SameName { name: one.name, first: first.clone(), second: dir.clone() });
        }
        built.push((dir.clone(), one));
    }
    Ok(built.into_iter().map(|(_, built)| built).collect())
}

fn build_one(
    request: &Request,
    dir: &Path,
    toolchain: &Toolchain,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, BuildError> {
    let manifest_path = dir.join("Cargo.toml");
    let manifest_path = manifest_path.canonicalize().map_err(|_| BuildError::NoCrate(dir.to_owned()))?;
    let place = Workspace::of(dir, &manifest_path, toolchain)?;
    let target_dir = request.target_dir.clone().unwrap_or_else(|| place.root.join("target/plugins"));
    create_dir(&target_dir)?;
    // Held until the artifact is read: two builds of one crate would write one file.
    let _lock = lock(&target_dir, progress)?;
    progress(&format!("building {} ({})", place.package, toolchain.way));
    let module = cargo_build(dir, &manifest_path, &target_dir, &place, toolchain, progress)?;
    let module = read(&module)?;
    let component = pack::encode(&module).map_err(|source| BuildError::Pack { dir: dir.to_owned(), source })?;
    let manifest = pack::manifest_of(&component);
    let name = manifest.as_ref().map_or_else(|| place.package.clone(), |manifest| manifest.name.clone());
    let file = request.out.join(format!("{name}.wasm"));
    let changed = fs::read(&file).ok().as_ref() != Some(&component);
    if changed {
        write_atomically(&file, &component)
            .map_err(|source| BuildError::Io { doing: format!("write {}", file.display()), source })?;
    }
    let note = if manifest.is_none() { ", which has no manifest" } else { "" };
    progress(&format!("built {} ({} kB{note})", file.display(), component.len().div_ceil(1000)));
    Ok(Built { name, file, bytes: component.len(), manifest, changed })
}

/// Where a crate belongs, as cargo sees it.
struct Workspace {
    root: PathBuf,
    package: String,
    has_profile: bool,
}

impl Workspace {
    fn of(dir: &Path, manifest_path: &Path, toolchain: &Toolchain) -> Result<Self, BuildError> {
        let fail = |reason: String| BuildError::Metadata { dir: dir.to_owned(), reason };
        let output = cargo(toolchain)
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(manifest_path)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| fail(format!("cargo does not start: {error}")))?;
        if !output.status.success() {
            return Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| fail(error.to_string()))?;
        let root = PathBuf::from(metadata["workspace_root"].as_str().unwrap_or_default());
        let package = metadata["packages"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|package| package["manifest_path"].as_str().map(Path::new) == Some(manifest_path))
            .and_then(|package| package["name"].as_str())
            .ok_or_else(|| fail("it is a workspace without a package of its own: name the crate".to_owned()))?;
        let has_profile = fs::read_to_string(root.join("Cargo.toml"))
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "[profile.plugin]"));
        Ok(Self { package: package.to_owned(), has_profile, root })
    }
}

/// Runs cargo; returns the path of the WebAssembly module.
fn cargo_build(
    dir: &Path,
    manifest_path: &Path,
    target_dir: &Path,
    place: &Workspace,
    toolchain: &Toolchain,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let start = |source| BuildError::Io { doing: "start cargo".to_owned(), source };
    let mut command = cargo(toolchain);
    command.args(["build", "--lib", "--target", TARGET, "--profile", "plugin"]);
    command.arg("--message-format=json-render-diagnostics").arg("--manifest-path").arg(manifest_path);
    command.arg("--target-dir").arg(target_dir).args(&toolchain.arguments);
    if !place.has_profile {
        command.args(PROFILE.iter().flat_map(|setting| ["--config", setting]));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    let mut stdout = child.stdout.take().expect("stdout was asked for");
    let messages = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let mut said = Vec::new();
    let stderr = child.stderr.take().expect("stderr was asked for");
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if ["Compiling", "Downloading", "Blocking", "Updating"].iter().any(|word| line.trim_start().starts_with(word)) {
            progress(line.trim());
        }
        said.push(line);
    }
    let status = child.wait().map_err(start)?;
    let messages = messages.join().map_err(|_| start(io::Error::other("its output cannot be read")))?.map_err(start)?;
    if !status.success() {
        let output = said[said.len().saturating_sub(ERROR_LINES)..].join("\n");
        return Err(BuildError::Cargo { dir: dir.to_owned(), output });
    }
    artifact(&messages, manifest_path).ok_or_else(|| BuildError::NoLibrary(dir.to_owned()))
}

/// The `.wasm` that cargo reports for this very crate.
fn artifact(messages: &[u8], manifest_path: &Path) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(manifest_path))
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
}

fn cargo(toolchain: &Toolchain) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for name in CLEARED {
        command.env_remove(name);
    }
    command.env("CARGO_TERM_COLOR", "never").envs(toolchain.environment.iter().map(|(name, value)| (name, value)));
    command
}

fn lock(target_dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<fs::File, BuildError> {
    let path = target_dir.join(".sagahost-build.lock");
    let fail = |source| BuildError::Io { doing: format!("lock {}", path.display()), source };
    let file = fs::File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
    if file.try_lock().is_err() {
        progress("waiting for another build of plugins");
        file.lock().map_err(fail)?;
    }
    Ok(file)
}

fn create_dir(dir: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(dir).map_err(|source| BuildError::Io { doing: format!("create {}", dir.display()), source })
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|source| BuildError::Io { doing: format!("read {}", path.display()), source })
}

/// Readers see the old file or the whole new one. Whoever runs the host may be another user: the umask decides.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let temporary = path.with_extension(format!("{extension}.{}.new", std::process::id()));
    let written = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
