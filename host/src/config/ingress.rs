//! Table `[http]`: the way in. Invariant: beyond this machine nothing is answered without TLS, and to nobody who did not say who
//! they are.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, ToSocketAddrs as _},
    ops::Range,
    path::Path,
    sync::Arc,
    time::Duration,
};

use sagahost_ingress::{Does, HttpSettings, Principal, Proof, Route, Sees};
use sagahost_net::TlsSettings;
use sagahost_saga::id::{Kind, Participant};
use sagahost_sandbox::manifest::{is_kind, is_participant_name};
use toml::de::DeValue;

use super::reader::Table;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const SECOND: Duration = Duration::from_secs(1);
const BYTES_MAX: usize = 1 << 31;
/// Served beside the routes.
const OWN: [&str; 2] = ["/sagas", "/openapi.json"];

/// `payload_bytes_max`: of an event. None: there is no way in.
pub fn read(mut table: Table<'_, '_>, base: &Path, payload_bytes_max: usize) -> Option<HttpSettings> {
    let there = table.is_present();
    let listen = listen(&mut table);
    let settings = HttpSettings {
        listen,
        tls: tls(table.table("tls"), base),
        hosts: table.texts("hosts").into_iter().map(|(host, _)| host).collect(),
        body_bytes_max: table.number("body-bytes-max", 1..=payload_bytes_max, payload_bytes_max),
        bodies_bytes_max: table.number("bodies-bytes-max", 1024..=BYTES_MAX, 64 << 20),
        connections_max: table.number("connections-max", 1..=1_000_000, 15_000),
        header_timeout: table.duration("header-timeout", SECOND / 10..=600 * SECOND, 10 * SECOND),
        body_timeout: table.duration("body-timeout", SECOND / 10..=600 * SECOND, 30 * SECOND),
        wait: table.duration("wait", Duration::ZERO..=50 * SECOND, 10 * SECOND),
        routes: routes(&table.table("route")),
        principals: Vec::new(),
    };
    let names: BTreeSet<String> = settings.routes.iter().map(Route::name).collect();
    let settings = HttpSettings { principals: principals(&table.table("principal"), &names), ..settings };
    if there {
        fit_together(&table, &settings);
    }
    table.finish();
    there.then_some(settings)
}

fn listen(table: &mut Table<'_, '_>) -> SocketAddr {
    let Some((text, at)) = table.text("listen") else { return LISTEN };
    // A name may mean several addresses, and only one would be listened on.
    let parsed = text.parse().ok().or_else(|| {
        let port = text.strip_prefix("localhost:")?;
        ("127.0.0.1", port.parse().ok()?).to_socket_addrs().ok()?.next()
    });
    parsed.unwrap_or_else(|| {
        table.fault("listen", at, format_args!("`{text}` is not an address with a port: write \"127.0.0.1:8080\""));
        LISTEN
    })
}

fn fit_together(table: &Table<'_, '_>, settings: &HttpSettings) {
    let HttpSettings { listen, tls, principals, bodies_bytes_max, body_bytes_max, .. } = settings;
    if !listen.ip().is_loopback() && (tls.is_none() || principals.is_empty()) {
        table.fault_of_table(format_args!(
            "{listen} can be reached from other machines: that needs [http.tls] and a [http.principal.NAME]; or listen \
             on 127.0.0.1, behind a proxy that does both"
        ));
    }
    let certificates = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let by_certificate =
        |principal: &&Principal| principal.proofs.iter().any(|proof| matches!(proof, Proof::Subject(_)));
    if let Some(principal) = principals.iter().find(by_certificate).filter(|_| !certificates) {
        table.fault_of_table(format_args!(
            "principal.{}: cert-subject needs client-ca in [http.tls]: nobody else's certificate can be believed",
            principal.name
        ));
    }
    if body_bytes_max > bodies_bytes_max {
        table.fault_of_table("bodies-bytes-max must not be less than body-bytes-max");
    }
}

fn tls(mut table: Table<'_, '_>, base: &Path) -> Option<TlsSettings> {
    let certificate = table.text("certificate").map(|(path, _)| base.join(path));
    let key = table.text("key").map(|(path, _)| base.join(path));
    let client_ca = table.text("client-ca").map(|(path, _)| base.join(path));
    if table.is_present() && (certificate.is_none() || key.is_none()) {
        table.fault_of_table("needs certificate = \"FILE\" and key = \"FILE\", both PEM");
    }
    table.finish();
    Some(TlsSettings { certificate: certificate?, key: key?, client_ca })
}

fn routes(table: &Table<'_, '_>) -> Vec<Route> {
    does(table.absent("NAME"), "NAME", false);
    let mut found: Vec<Route> = Vec::new();
    for (name, at, child) in table.tables("NAME") {
        let does = does(child, &name, true);
        let path = match path(&name) {
            Ok(path) => path,
            Err(why) => {
                table.fault(&name, at, why);
                continue;
            }
        };
        if found.iter().any(|route| route.path == path) {
            table.fault(&name, at, "duplicate path");
            continue;
        }
        found.extend(does.map(|does| Route { path, does }));
    }
    found
}

/// Of `POST /orders`.
fn path(name: &str) -> Result<String, String> {
    let wanted = "write \"POST /orders\"";
    let Some((method, path)) = name.split_once(' ') else {
        return Err(format!("`{name}` is not a method and a path: {wanted}"));
    };
    if method != "POST" {
        return Err(format!("routes take POST, not {method}: {wanted}"));
    }
    let fits = path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte))
        && !path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | ".."));
    if !fits {
        return Err(format!(
            "`{path}` is not a path of letters, digits, `-`, `.`, `_` and `~` between single slashes: {wanted}"
        ));
    }
    let own = |own: &&&str| path.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match OWN.iter().find(own) {
        Some(own) => Err(format!("{own} is the host's own: choose another path")),
        None => Ok(path.to_owned()),
    }
}

const KEYS: [(&str, bool); 2] = [("optional", false), ("required", true)];
const CONCURRENT: [(&str, bool); 2] = [("attach", false), ("conflict", true)];

/// `there`: None of it is a fault where the reference is made.
fn does(mut table: Table<'_, '_>, name: &str, there: bool) -> Option<Does> {
    let kind = named(&mut table, "kind", is_kind, "kind");
    let saga_id = pointer(&mut table);
    let key_required = table.choice("key", &KEYS);
    let conflict = table.choice("concurrent", &CONCURRENT);
    let participant = named(&mut table, "participant", is_participant_name, "participant name");
    let undo = named(&mut table, "undo", is_participant_name, "participant name");
    let of_begin = key_required.is_some() || conflict.is_some();
    let does = match (kind, participant, undo) {
        (Some(kind), None, None) => saga_id.clone().map(|saga_id| Does::Begin {
            kind: Kind::new(kind),
            saga_id,
            key_required: key_required.unwrap_or(false),
            conflict: conflict.unwrap_or(false),
        }),
        (None, Some(participant), None) if !of_begin => {
            Some(Does::Step { participant: Participant::new(participant), saga_id: saga_id.clone() })
        }
        (None, None, Some(undo)) if !of_begin && saga_id.is_none() => {
            Some(Does::Undo { participant: Participant::new(undo) })
        }
        _ => None,
    };
    if there && does.is_none() {
        table.fault_of_table(format_args!(
            "{name} needs one of: kind = \"KIND\" with saga-id = \"/POINTER\" (it begins a saga; key, concurrent), \
             participant = \"NAME\" (it asks for a step; saga-id), undo = \"NAME\""
        ));
    }
    table.finish();
    does
}

fn named(table: &mut Table<'_, '_>, field: &'static str, fits: fn(&str) -> bool, what: &str) -> Option<String> {
    let (text, at) = table.text(field)?;
    if !fits(&text) {
        table.fault(field, at, format_args!("`{text}` is not a valid {what}"));
    }
    Some(text)
}

fn pointer(table: &mut Table<'_, '_>) -> Option<String> {
    let (text, at) = table.text("saga-id")?;
    if !text.starts_with('/') {
        let wanted = "a JSON pointer into the body: write \"/orderId\"";
        table.fault("saga-id", at, format_args!("`{text}` is not {wanted}"));
    }
    Some(text)
}

const SEES: [(&str, Sees); 2] = [("own", Sees::Own), ("all", Sees::All)];

fn principals(table: &Table<'_, '_>, routes: &BTreeSet<String>) -> Vec<Principal> {
    principal("NAME", table.absent("NAME"), routes, false);
    let mut found: Vec<Principal> = Vec::new();
    for (name, at, child) in table.tables("NAME") {
        if !is_participant_name(&name) {
            let text = "is not a valid name: lower-case letters, digits and hyphens, a letter first";
            table.fault(&name, at.clone(), text);
        }
        let Some(principal) = principal(&name, child, routes, true) else { continue };
        let taken = |other: &&Principal| other.proofs.iter().any(|proof| principal.proofs.contains(proof));
        if let Some(other) = found.iter().find(taken) {
            table.fault(&name, at, format_args!("has a token or a certificate of {}, too", other.name));
        }
        found.push(principal);
    }
    found
}

fn principal(name: &str, mut table: Table<'_, '_>, known: &BTreeSet<String>, there: bool) -> Option<Principal> {
    let mut proofs = tokens(&mut table);
    proofs.extend(subject(&mut table));
    let limited = table.has("routes");
    let routes = table.texts("routes");
    for (route, at) in routes.iter().filter(|(route, _)| !known.contains(route)) {
        table.fault("routes", at.clone(), format_args!("there is no [http.route.\"{route}\"]"));
    }
    let sees = table.choice("sagas", &SEES).unwrap_or(Sees::Own);
    if there && proofs.is_empty() {
        table.fault_of_table("needs token-sha256 = \"HEX\" (printf %s TOKEN | sha256sum) or cert-subject = \"CN=…\"");
    }
    table.finish();
    let routes = limited.then(|| routes.into_iter().map(|(route, _)| route).collect());
    Some(Principal { name: Arc::from(name), proofs, routes, sees })
}

fn subject(table: &mut Table<'_, '_>) -> Option<Proof> {
    let (text, at) = table.text("cert-subject")?;
    match text.parse() {
        Ok(subject) => Some(Proof::Subject(subject)),
        Err(_) => {
            let wanted = "openssl x509 -in FILE -noout -subject -nameopt RFC2253 prints it";
            table.fault("cert-subject", at, format_args!("`{text}` is not a distinguished name (RFC 4514): {wanted}"));
            None
        }
    }
}

/// One, or several while one replaces the other. The text of a wrong one may be the token itself, and is not shown.
fn tokens(table: &mut Table<'_, '_>) -> Vec<Proof> {
    let Some(value) = table.value("token-sha256") else { return Vec::new() };
    let mut texts: Vec<(&str, Range<usize>)> = Vec::new();
    match value.get_ref() {
        DeValue::String(text) => texts.push((text, value.span())),
        DeValue::Array(array) => {
            for item in array.iter() {
                match item.get_ref() {
                    DeValue::String(text) => texts.push((text, item.span())),
                    other => drop(table.wrong_type::<()>("token-sha256", item.span(), "text in quotes", other)),
                }
            }
        }
        other => drop(table.wrong_type::<()>("token-sha256", value.span(), "text in quotes, or a list of such", other)),
    }
    let mut proofs = Vec::new();
    for (text, at) in texts {
        match digest(text) {
            Some(digest) => proofs.push(Proof::Token(digest)),
            None => {
                let wanted = "must be the SHA-256 of a token, 64 hexadecimal digits: printf %s TOKEN | sha256sum";
                table.fault("token-sha256", at, wanted);
            }
        }
    }
    proofs
}

fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}
