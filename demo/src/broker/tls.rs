//! A certificate authority of our own, and the broker's certificate. Invariant: nothing outside of the broker's
//! directory trusts it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::run;

pub(super) const CA: &str = "ca.pem";
/// Key and certificates in one file, as Kafka reads them.
pub(super) const KEYSTORE: &str = "broker.pem";

pub(super) fn make(directory: &Path) -> Result<()> {
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        run(command.args(arguments).current_dir(directory)).context("TLS needs openssl: apt-get install openssl")
    };
    fs::write(directory.join("san.conf"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")?;
    let key = ["req", "-newkey", "rsa:2048", "-nodes"];
    openssl(
        &[&key[..], &["-x509", "-days", "30", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", CA]].concat(),
    )?;
    openssl(&[&key[..], &["-subj", "/CN=127.0.0.1", "-keyout", "broker.key", "-out", "broker.csr"]].concat())?;
    let sign = ["x509", "-req", "-in", "broker.csr", "-CA", CA, "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"];
    openssl(&[&sign[..], &["-extfile", "san.conf", "-out", "broker.crt"]].concat())?;
    let read = |name: &str| fs::read_to_string(directory.join(name));
    fs::write(directory.join(KEYSTORE), [read("broker.key")?, read("broker.crt")?, read(CA)?].concat())?;
    Ok(())
}
