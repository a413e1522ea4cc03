//! Plugins and hostile guests, built from their sources once.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use sagahost_sandbox::crate_build::{Request, build};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests have a parent directory").to_owned()
}

/// Where hosts of tests have the key for compiled code, so that they use what others compiled; nothing is put into the
/// home directory of whoever runs the tests.
pub fn state() -> PathBuf {
    root().join("target/plugins/state")
}

/// Directory with all plugins of the repository, one file each.
pub fn all() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let root = root();
        let out = root.join("target/plugins/built");
        let crates = [
            "plugins/order",
            "plugins/payment",
            "plugins/payment-gateway",
            "plugins/inventory",
            "demo/shipping",
            "demo/loyalty",
            "tests/guests",
            "tests/lawless",
            "tests/asking",
        ];
        let request = Request {
            crates: crates.iter().map(|dir| root.join(dir)).collect(),
            out: out.clone(),
            ..Request::default()
        };
        build(&request, &mut |_| {}).expect("the plugins build");
        out
    })
}

/// Copies the named plugins into a directory of their own.
pub fn copy(names: &[&str], into: &Path) {
    std::fs::create_dir_all(into).expect("a directory can be made");
    for name in names {
        let file = format!("{name}.wasm");
        std::fs::copy(all().join(&file), into.join(&file)).expect("the plugin is built");
    }
}

/// The payment plugin in C, by the command that its page names. Any compiler's warning is a fault.
pub fn payment_c() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let dir = root().join("target/plugins/c");
        let mut build = Command::new(root().join("plugins/payment-c/build"));
        let built = build.arg(&dir).env("SAGAHOST", sagahost()).output().expect("the script starts");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "plugins/payment-c/build failed: {said}");
        assert_eq!(said, "", "plugins/payment-c/build warns");
        dir.join("payment-c.wasm")
    })
}

/// The real binary, built beside the tests.
pub fn sagahost() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has a path");
    let dir = exe.parent().and_then(Path::parent).expect("tests stand in target/PROFILE/deps");
    let binary = dir.join("sagahost");
    assert!(binary.exists(), "{} is missing: cargo build -p sagahost, or run tests/run", binary.display());
    binary
}
