//! The checked-in bindings are what `wit/plugin.wit` says. Invariant: a change of the contract cannot pass unnoticed.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};

/// `SAGAHOST_UPDATE=1 cargo test -p sagahost-sdk --test bindings` writes them anew.
#[test]
fn bindings_match_the_contract() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = generate(&sdk.join("../../wit/plugin.wit"));
    let path = sdk.join("src/bindings.rs");
    if std::env::var_os("SAGAHOST_UPDATE").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == generated,
        "plugins/sdk/src/bindings.rs differs from wit/plugin.wit; \
         write it anew with `SAGAHOST_UPDATE=1 cargo test -p sagahost-sdk --test bindings`"
    );
}

#[test]
fn the_manifest_names_the_contract_that_the_bindings_speak() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let package = resolve.push_path(sdk.join("../../wit/plugin.wit")).unwrap().0;
    let name = &resolve.packages[package].name;
    assert_eq!(name.version.as_ref().unwrap().to_string(), sagahost_sdk::CONTRACT);
}

fn generate(wit: &Path) -> String {
    let mut resolve = Resolve::default();
    let package = resolve.push_path(wit).unwrap().0;
    let world = resolve.select_world(&[package], Some("plugin-http")).unwrap();
    let mut files = Files::default();
    let options = wit_bindgen_rust::Opts {
        format: true,
        generate_all: true,
        pub_export_macro: true,
        export_macro_name: Some("export_plugin".into()),
        default_bindings_module: Some("$crate::bindings".into()),
        runtime_path: Some("::wit_bindgen::rt".into()),
        ..Default::default()
    };
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let (_, contents) = files.iter().next().unwrap();
    String::from_utf8(contents.to_vec()).unwrap()
}
