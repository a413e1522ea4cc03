//! The payment plugin written in C, in place of the one in Rust. Invariant: no saga can tell one from the other.

use std::{fs, path::PathBuf};

use sagahost_tests::built;
use wit_bindgen_core::{Files, wit_parser::Resolve};

fn crate_dir() -> PathBuf {
    built::root().join("plugins/payment-c")
}

/// `SAGAHOST_UPDATE=1 cargo test -p sagahost-tests --test other_languages` writes them anew.
#[test]
fn the_bindings_for_c_match_the_contract() {
    let mut resolve = Resolve::default();
    let package = resolve.push_path(built::root().join("wit/plugin.wit")).unwrap().0;
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    let mut files = Files::default();
    let options = wit_bindgen_c::Opts::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let dir = crate_dir().join("bindings");
    for (name, generated) in files.iter() {
        let path = dir.join(name);
        if std::env::var_os("SAGAHOST_UPDATE").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, generated).unwrap();
        }
        let checked_in = fs::read(&path).unwrap_or_default();
        assert!(
            checked_in == generated,
            "plugins/payment-c/bindings/{name} differs from wit/plugin.wit; \
             write it anew with `SAGAHOST_UPDATE=1 cargo test -p sagahost-tests --test other_languages`"
        );
    }
}
