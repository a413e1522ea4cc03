//! Finds a compiler that makes WebAssembly. Invariant: this is the one place that decides between rustup's target and
//! Debian's own compiler, and it says which it took.

use std::{
    path::Path,
    process::{Command, Stdio},
};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
/// Debian's compiler and the source of its standard library.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "lld"];

pub(crate) struct Toolchain {
    /// For people.
    pub(crate) way: &'static str,
    pub(crate) arguments: Vec<&'static str>,
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

impl Toolchain {
    fn installed(way: &'static str) -> Self {
        Self { way, arguments: Vec::new(), environment: Vec::new() }
    }

    fn debian() -> Self {
        Self {
            way: "Debian's rustc, building the standard library from source",
            arguments: vec!["-Z", "build-std=std,panic_abort"],
            environment: vec![
                ("RUSTC", DEBIAN_RUSTC),
                ("RUSTC_BOOTSTRAP", "1"),
                ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld"),
            ],
        }
    }
}

/// `install`: `apt-get` may be used, too.
pub(crate) fn find(install: bool, progress: &mut dyn FnMut(&str)) -> Result<Toolchain, String> {
    if has_target("rustc") {
        return Ok(Toolchain::installed("target wasm32-unknown-unknown is installed"));
    }
    progress("target wasm32-unknown-unknown is not installed: trying `rustup target add wasm32-unknown-unknown`");
    let added = run("rustup", &["target", "add", TARGET]);
    if added.is_ok() && has_target("rustc") {
        return Ok(Toolchain::installed("target wasm32-unknown-unknown was added with rustup"));
    }
    let rustup = added.err().unwrap_or_else(|| "the compiler in the PATH is not rustup's".to_owned());
    progress(&format!("rustup did not help ({rustup}): looking for Debian's compiler"));
    if !has_debian() && install {
        progress(&format!("installing {} with apt-get", DEBIAN_PACKAGES.join(", ")));
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(DEBIAN_PACKAGES);
        if let Err(error) = run("apt-get", &arguments) {
            progress(&format!("apt-get did not help ({error})"));
        }
    }
    if has_debian() {
        return Ok(Toolchain::debian());
    }
    Err(format!(
        "failed to find a compiler for {TARGET}: run `rustup target add {TARGET}` (which says: {rustup}), or on \
         Debian `apt-get install -y --no-install-recommends {}`",
        DEBIAN_PACKAGES.join(" ")
    ))
}

/// Does this compiler have a standard library for the target?
fn has_target(rustc: &str) -> bool {
    let output =
        Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).stdin(Stdio::null()).output();
    let Ok(output) = output else { return false };
    let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let Ok(files) = std::fs::read_dir(Path::new(&dir)) else {
        return false;
    };
    files.filter_map(Result::ok).any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn has_debian() -> bool {
    let output = Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]).stdin(Stdio::null()).output();
    let Ok(output) = output else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").is_dir() && run("wasm-ld", &["--version"]).is_ok()
}

/// Runs a tool to its end; on failure what it said last.
fn run(tool: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{tool} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim().to_owned())
}
