//! Building plugins: also crates of other workspaces, whatever the surroundings say.

use std::fs;

use sagahost_sandbox::crate_build::{Request, build};

use crate::kit::{crate_dir, guest, target_dir};

pub fn request(dir: &std::path::Path, out: &std::path::Path) -> Request {
    Request { crates: vec![dir.to_owned()], out: out.to_owned(), target_dir: Some(target_dir()), install: false }
}

#[test]
fn building_again_changes_nothing_and_says_what_it_did() {
    let first = guest();
    let out = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    let request = request(&crate_dir().join("tests/guest"), out.path());
    let built = build(&request, &mut |line| lines.push(line.to_owned())).unwrap();
    assert_eq!(built[0].name, "misbehaving");
    assert_eq!(built[0].file, out.path().join("misbehaving.wasm"));
    assert_eq!(fs::read(&built[0].file).unwrap(), first.as_ref());
    assert!(built[0].changed);
    assert!(!build(&request, &mut |_| ()).unwrap()[0].changed);
    assert!(lines.iter().any(|line| line.starts_with("building misbehaving-guest (")), "{lines:?}");
    let left: Vec<_> = fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["misbehaving.wasm"], "no temporary file stays");
}

#[test]
fn faults_of_a_crate_are_told() {
    let out = tempfile::tempdir().unwrap();
    let error = build(&request(&out.path().join("absent"), out.path()), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("there is no Cargo.toml"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("src")).unwrap();
    let cargo_toml = "[package]\nname = \"wrong\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(dir.path().join("Cargo.toml"), cargo_toml).unwrap();
    fs::write(dir.path().join("src/lib.rs"), "pub fn nothing() {}").unwrap();
    let error = build(&request(dir.path(), out.path()), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("crate-type"), "{error}");
    fs::write(dir.path().join("src/lib.rs"), "pub fn nothing() -> u32 {}").unwrap();
    let error = build(&request(dir.path(), out.path()), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("mismatched types"), "{error}");
}
