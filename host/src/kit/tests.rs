//! Names, and what is carried against what is in the repository.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::{collections::BTreeSet, fs, path::Path};

use expect_test::{Expect, expect};

use super::{
    KitError, Names, Sdk, files, lock, make,
    sources::{MEMBERS, SOURCES},
    vendor,
};

fn check(line: &str, expected: Expect) {
    let words: Vec<&str> = line.split(' ').collect();
    let said = match Names::check(words[0], words.get(1).copied(), words.get(2).copied(), &lock::package_names()) {
        Ok(names) => format!(
            "{}: {}, on {} ({}), emits {} ({})",
            names.name, names.participant, names.on.kind, names.on.of, names.emits.kind, names.emits.of
        ),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&said);
}

#[test]
fn names_become_names_in_rust() {
    check(
        "fraud-check",
        expect!["fraud-check: FraudCheck, on OrderCreated (OrderCreated), emits FraudCheckDone (FraudCheckDone)"],
    );
    check(
        "loyalty shop.order_paid shop.points-given",
        expect!["loyalty: Loyalty, on shop.order_paid (ShopOrderPaid), emits shop.points-given (ShopPointsGiven)"],
    );
    check("done Context Done", expect!["done: DoneParticipant, on Context (ContextEvent), emits Done (DoneEvent)"]);
    check("audit audit Audit", expect!["audit: Audit, on audit (AuditEvent), emits Audit (AuditEventEvent)"]);
    check("a2b 2fa-asked x", expect!["a2b: A2b, on 2fa-asked (Kind2faAsked), emits x (X)"]);
}

#[test]
fn bad_names_are_refused_with_a_good_one() {
    check(
        "FraudCheck",
        expect![
            "`FraudCheck` is not a valid name of a plugin: use lower-case letters, digits and hyphens, a letter first, as `fraud-check`"
        ],
    );
    check(
        "2_fraud__check_",
        expect![
            "`2_fraud__check_` is not a valid name of a plugin: use lower-case letters, digits and hyphens, a letter first, as `fraud-check`"
        ],
    );
    check(
        "../x",
        expect![
            "`../x` is not a valid name of a plugin: use lower-case letters, digits and hyphens, a letter first, as `x`"
        ],
    );
    check(
        "--",
        expect!["`--` is not a valid name of a plugin: use lower-case letters, digits and hyphens, a letter first"],
    );
    check("match", expect!["a crate cannot be named `match`: Rust uses the word itself; choose another name"]);
    check(
        "sagahost-sdk",
        expect![
            "a crate cannot be named `sagahost-sdk`: a crate that it depends on has this name; choose another name"
        ],
    );
    check(
        "audit Order!Paid",
        expect![
            "`Order!Paid` is not a valid name of a kind of event: use letters, digits and `._-/:`, 128 at most, as OrderCreated"
        ],
    );
    check(
        "audit -",
        expect![
            "`-` is not a valid name of a kind of event: use letters, digits and `._-/:`, 128 at most, as OrderCreated"
        ],
    );
    check(
        "audit Paid Paid",
        expect!["--on and --emits are both `Paid`: such a plugin would take what it emits, and never end"],
    );
}

fn names() -> Names {
    Names::check("audit", None, None, &[]).unwrap()
}

#[test]
fn what_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("audit");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("notes"), "mine").unwrap();
    assert!(matches!(make(names(), &place), Err(KitError::Occupied { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was left beside it");
    fs::remove_file(place.join("notes")).unwrap();
    make(names(), &place).unwrap();
    assert!(matches!(make(names(), &place.join("Cargo.toml")), Err(KitError::Occupied { .. })));
    assert!(place.join("vendor/plugins/sdk/src/lib.rs").exists());
}

/// Somebody's shell may be in it.
#[test]
fn an_empty_directory_that_is_there_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let inode = |dir: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir).unwrap());
    let before = inode(dir.path());
    make(names(), dir.path()).unwrap();
    assert_eq!(inode(dir.path()), before);
    let is_hidden = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".partial");
    let entries: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(entries.iter().any(|name| name == "Cargo.toml") && !entries.iter().any(is_hidden), "{entries:?}");
}

#[test]
fn inside_the_repository_its_own_sdk_is_used() {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in vendor::files() {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let made = make(names(), &root.path().join("plugins/deep/audit")).unwrap();
    assert_eq!(made.sdk, Sdk::Repository("../../..".to_owned()));
    let manifest = fs::read_to_string(made.dir.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("path = \"../../../plugins/sdk\""), "{manifest}");
    assert!(!made.dir.join("vendor").exists());
}

#[test]
fn no_template_has_a_hole() {
    for (path, text) in files(&names(), &Sdk::Unpacked) {
        let crate_file = !path.starts_with("vendor/") && !path.ends_with(".yml");
        assert!(!(crate_file && text.contains("{{")), "{path}:\n{text}");
    }
}

/// A file that is not carried would be missed by authors only.
#[test]
fn all_sources_are_carried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut there = BTreeSet::new();
    for dir in MEMBERS {
        collect(root, &root.join(dir), &mut there);
    }
    let carried: BTreeSet<String> = SOURCES.iter().map(|(path, _)| (*path).to_owned()).collect();
    let missing: Vec<_> = there.difference(&carried).collect();
    assert!(missing.is_empty(), "add to host/src/kit/sources.rs: {missing:#?}");
}

/// Not those of tests, and not of crates within.
fn collect(root: &Path, dir: &Path, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() {
            files.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        } else if !["tests", "examples", "target"].contains(&name.as_str()) {
            collect(root, &path, files);
        }
    }
}
