//! Who is at the other end of a connection. Invariant: a subject is shown only of a certificate that was verified; and two
//! subjects are the same where their attributes are, however each was spelled.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    str::FromStr,
    sync::Arc,
};

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{self, Decode as _, Tag, Tagged as _, asn1::Any},
    name::Name,
};

/// Who is at the other end; an extension of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Of its end of the connection: a proxy's, where there is one in between.
    pub address: SocketAddr,
    /// Of its certificate; none without one, and none if the certificate names nobody.
    pub subject: Option<Subject>,
}

/// A distinguished name (RFC 4514).
#[derive(Clone, Debug)]
pub struct Subject {
    text: Arc<str>,
    /// The same for every spelling: types as numbers, values without the sort of string that a certificate has them in.
    same: Arc<str>,
}

impl Subject {
    fn of(name: &Name, text: &str) -> Self {
        let mut same = String::new();
        for part in name.iter_rdn() {
            let of = |one: &x509_cert::attr::AttributeTypeAndValue| format!("{}={:?}", one.oid, value(&one.value));
            let mut all: Vec<String> = part.iter().map(of).collect();
            all.sort();
            same += &all.join("+");
            same.push(',');
        }
        Self { text: text.into(), same: same.into() }
    }
}

/// Text, or else its bytes.
fn value(value: &Any) -> Result<String, Vec<u8>> {
    let bytes = value.value();
    let text = match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units = bytes.chunks(2).map(|unit| unit.iter().fold(0, |all, byte| (all << 8) | u16::from(*byte)));
            char::decode_utf16(units).collect::<Result<String, _>>().ok()
        }
        _ => None,
    };
    text.ok_or_else(|| bytes.to_vec())
}

impl FromStr for Subject {
    type Err = der::Error;

    fn from_str(text: &str) -> Result<Self, der::Error> {
        Ok(Self::of(&text.parse()?, text))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.same == other.same
    }
}

impl Eq for Subject {}

impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.same.hash(state);
    }
}

/// Of a certificate that was verified.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> der::Result<Option<Subject>> {
    let certificate = Certificate::from_der(certificate)?;
    let name = certificate.tbs_certificate().subject();
    Ok((!name.is_empty()).then(|| Subject::of(name, &name.to_string())))
}
