//! Who is at the other end of a connection. Invariant: a subject is shown only of a certificate that was verified, and in one
//! spelling, so that it can be compared as text.

use std::{net::SocketAddr, sync::Arc};

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{self, Decode as _},
};

/// Who is at the other end; an extension of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Of its end of the connection: a proxy's, where there is one in between.
    pub address: SocketAddr,
    /// Subject of its certificate as RFC 4514 writes it; none without a certificate, and none if the certificate names nobody.
    pub subject: Option<Arc<str>>,
}

/// Of a certificate that was verified.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> der::Result<Option<Arc<str>>> {
    let certificate = Certificate::from_der(certificate)?;
    let name = certificate.tbs_certificate().subject();
    Ok((!name.is_empty()).then(|| name.to_string().into()))
}
