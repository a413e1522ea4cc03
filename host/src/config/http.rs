//! URLs and headers of those who are called. Invariant: what the host alone must say is in no header of the operator's, and a
//! secret is in no message.

use std::{ops::Range, path::Path};

use http::{HeaderName, HeaderValue, Uri, header};
use sagahost_net::{Secret, SentHeader};
use toml::de::DeValue;

use super::{
    reader::{Table, Value},
    secrets,
};

/// The connection's and the host's own.
const OWN: [HeaderName; 12] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
/// Nobody's secret.
const OPEN: [HeaderName; 4] = [header::ACCEPT, header::ACCEPT_LANGUAGE, header::FROM, header::USER_AGENT];

pub fn url(table: &mut Table<'_, '_>, field: &'static str) -> Option<Uri> {
    let (text, at) = table.text(field)?;
    match parse_url(&text) {
        Ok(url) => Some(url),
        Err(why) => {
            table.fault(field, at, why);
            None
        }
    }
}

/// A user and a password in it would stand in logs.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn parse_url(text: &str) -> Result<Uri, String> {
    let wanted = "write \"https://HOST/PATH\"";
    if text.contains('@') {
        return Err("has a user or a password in it: use `headers`, where secrets can be elsewhere".to_owned());
    }
    let url: Uri = text.parse().map_err(|error| format!("`{text}` is not a URL ({error}): {wanted}"))?;
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(format!("`{text}` is not a whole URL: {wanted}"));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("`{scheme}` is not spoken here: {wanted}"));
    }
    // A port that cannot be read would be dropped, and the call would go to another service.
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if authority.host().is_empty() || (!port.is_empty() && authority.port_u16().is_none_or(|port| port == 0)) {
        return Err(format!("`{authority}` is no host with a port: {wanted}"));
    }
    if text.contains('#') {
        return Err("has a fragment (#…), which is never sent: remove it".to_owned());
    }
    Ok(url)
}

pub fn headers(table: &Table<'_, '_>, base: &Path) -> Vec<SentHeader> {
    let mut found: Vec<SentHeader> = Vec::new();
    for (name, at, value) in table.values() {
        let Some(header) = header(table, &name, at.clone()) else { continue };
        if found.iter().any(|other| other.name == header) {
            table.fault(&name, at, "is written twice: upper and lower case are the same header");
        }
        found.extend(said(table, header, value, base));
    }
    found
}

fn header(table: &Table<'_, '_>, name: &str, at: Range<usize>) -> Option<HeaderName> {
    let Ok(header) = HeaderName::try_from(name) else {
        table.fault(name, at, "is not the name of an HTTP header");
        return None;
    };
    if is_own(&header) {
        table.fault(name, at, "is the host's own");
        return None;
    }
    Some(header)
}

/// The connection's, or the host's.
pub fn is_own(header: &HeaderName) -> bool {
    OWN.contains(header) || header.as_str().starts_with("ce-") || header.as_str().starts_with("sagahost-")
}

fn said(table: &Table<'_, '_>, name: HeaderName, value: &Value<'_>, base: &Path) -> Option<SentHeader> {
    let (text, shown) = match value.get_ref() {
        DeValue::String(text) if OPEN.contains(&name) => (text.to_string(), text.to_string()),
        DeValue::String(text) => (text.to_string(), "(hidden)".to_owned()),
        DeValue::Table(entries) if secrets::is_source(entries) => {
            let (kind, place) = secrets::source(entries)?;
            match secrets::read(kind, place, base) {
                Ok(text) => (text, format!("({kind} {place})")),
                Err(why) => {
                    table.fault(name.as_str(), value.span(), why);
                    return None;
                }
            }
        }
        other => {
            let wanted = "text, { env = \"NAME\" } or { file = \"PATH\" }";
            return table.wrong_type(name.as_str(), value.span(), wanted, other);
        }
    };
    if HeaderValue::from_str(&text).is_err() {
        let fault = "has characters that no HTTP header can carry, such as a line break";
        table.fault(name.as_str(), value.span(), fault);
        return None;
    }
    Some(SentHeader { name, value: Secret::new(text), shown })
}
