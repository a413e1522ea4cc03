//! Tables `[participant.NAME]`: services that take part. Invariant: what a service must be told by the host alone is in no
//! header of the operator's, and a secret is in no message.

use std::{collections::BTreeMap, ops::Range, path::Path, time::Duration};

use http::{HeaderName, HeaderValue, Uri, header};
use sagahost_net::Secret;
use sagahost_remote::{RemoteSettings, SentHeader};
use sagahost_sandbox::manifest::is_participant_name;
use sagahost_transport_kafka::is_secret;
use toml::de::DeValue;

use super::{
    reader::{Table, Value},
    secrets,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const CALLS_AT_ONCE: usize = 64;
/// The connection's and the host's own.
const OWN: [HeaderName; 11] = [
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
];

pub fn read(table: &Table<'_, '_>, base: &Path) -> BTreeMap<String, RemoteSettings> {
    participant("NAME", table.absent("NAME"), base, false);
    let mut found = BTreeMap::new();
    for (name, at, child) in table.tables("NAME") {
        if !is_participant_name(&name) {
            let text = "is not a valid participant name: lower-case letters, digits and hyphens, a letter first";
            table.fault(&name, at, text);
        }
        if let Some(settings) = participant(&name, child, base, true) {
            found.insert(name, settings);
        }
    }
    found
}

fn participant(name: &str, mut table: Table<'_, '_>, base: &Path, there: bool) -> Option<RemoteSettings> {
    let manifest = table.text("manifest").map(|(path, _)| base.join(path));
    let url = url(&mut table, "url");
    if there && (manifest.is_none() || !table.has("url")) {
        let text = format!("needs manifest = \"FILE\" and url = \"https://…\": what {name} handles, and where it is");
        table.fault_of_table(text);
    }
    let undo_url = self::url(&mut table, "undo-url");
    let timeout = table.duration("timeout", Duration::from_millis(10)..=Duration::from_secs(3600), TIMEOUT);
    let calls_at_once_max = table.number("calls-at-once-max", 1..=10_000, CALLS_AT_ONCE);
    let headers = headers(&table.table("headers"), base);
    table.finish();
    Some(RemoteSettings { manifest: manifest?, url: url?, undo_url, timeout, calls_at_once_max, headers })
}

fn url(table: &mut Table<'_, '_>, field: &'static str) -> Option<Uri> {
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
    let url: Uri = text.parse().map_err(|error| format!("`{text}` is not a URL ({error}): {wanted}"))?;
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(format!("`{text}` is not a whole URL: {wanted}"));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("`{scheme}` is not spoken here: {wanted}"));
    }
    if authority.as_str().contains('@') {
        return Err("has a user or a password in it: use `headers`, where secrets can stand elsewhere".to_owned());
    }
    if text.contains('#') {
        return Err("has a fragment (#…), which is never sent: remove it".to_owned());
    }
    Ok(url)
}

fn headers(table: &Table<'_, '_>, base: &Path) -> Vec<SentHeader> {
    table.values().filter_map(|(name, at, value)| said(table, header(table, &name, at)?, value, base)).collect()
}

fn header(table: &Table<'_, '_>, name: &str, at: Range<usize>) -> Option<HeaderName> {
    let Ok(header) = HeaderName::try_from(name) else {
        table.fault(name, at, "is not the name of an HTTP header");
        return None;
    };
    let text = header.as_str();
    if OWN.contains(&header) || text.starts_with("ce-") || text.starts_with("sagahost-") {
        table.fault(name, at, "is the host's own");
        return None;
    }
    Some(header)
}

fn said(table: &Table<'_, '_>, name: HeaderName, value: &Value<'_>, base: &Path) -> Option<SentHeader> {
    let hidden = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE].contains(&name);
    let (text, shown) = match value.get_ref() {
        DeValue::String(text) if hidden || is_secret(name.as_str()) => (text.to_string(), "(hidden)".to_owned()),
        DeValue::String(text) => (text.to_string(), text.to_string()),
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
