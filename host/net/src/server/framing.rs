//! What the parser lets pass and this server does not. Invariant: no request is served of which a proxy in front can have found
//! another end, or another host.

use http::{
    HeaderMap, Request, Version,
    header::{HOST, TRANSFER_ENCODING},
};

/// Why a request is not valid.
pub(super) fn fault<B>(request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    if !chunked_or_nothing(headers) {
        return Some("a transfer encoding other than `chunked`");
    }
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 {
        return Some("more than one `host`");
    }
    if hosts == 0 && request.version() == Version::HTTP_11 {
        return Some("no `host`");
    }
    None
}

/// The parser takes each encoding that ends with `chunked`, and decodes no other.
fn chunked_or_nothing(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(one), None) => one.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}
