//! What a plugin may ask over HTTP: grants, and the checks that a request passes before anything is done about it. Invariant: a
//! request that passed here goes to an origin and below a path that both the manifest and the operator named, and carries
//! nothing that is the host's to say.

use std::{fmt, ops::Range};

use http::{HeaderName, HeaderValue, Method, Uri};

use crate::limits::{ENTRY_BYTES, Limits};

/// Of grants, in manifests: `http:https://gateway.example/v1`, or `http:*` for whatever the operator grants.
pub const SCHEME: &str = "http:";
const ANY: &str = "*";

/// The code of a run that ended at a request.
pub const WAITS: &str = "waits";

/// As `wit/plugin.wit` has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub timeout_ms: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// No whole response came. `sent` false: provably nothing left the host.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    pub sent: bool,
    pub code: String,
    pub detail: String,
}

pub type Answer = Result<Response, Failure>;

/// A request that the step made when it was to be done, under its key; the last response that came, if one did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub key: String,
    pub request: Request,
    pub response: Option<Response>,
}

impl Request {
    /// For people: what is behind the `?` may be a secret.
    pub fn shown(&self) -> String {
        let Self { method, url, .. } = self;
        match url.split_once('?') {
            Some((shown, _)) => format!("{method} {shown}?(hidden)"),
            None => format!("{method} {url}"),
        }
    }

    /// Would the one it is sent to see no difference? (The host's own patience may change.)
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { method, url, headers, body, timeout_ms: _ } = self;
        (method, url, headers, body) == (&other.method, &other.url, &other.headers, &other.body)
    }

    pub fn bytes(&self) -> usize {
        self.method.len() + self.url.len() + self.body.len() + headers_bytes(&self.headers)
    }
}

impl Failure {
    /// Did nothing leave for a reason that passes by itself?
    pub fn is_away(&self) -> bool {
        !self.sent && matches!(self.code.as_str(), "unreachable" | "busy" | "stopping")
    }
}

impl Response {
    pub fn bytes(&self) -> usize {
        self.body.len() + headers_bytes(&self.headers)
    }
}

/// What an answer counts.
pub fn answer_bytes(answer: &Answer) -> usize {
    match answer {
        Ok(response) => response.bytes(),
        Err(failure) => failure.code.len() + failure.detail.len(),
    }
}

fn headers_bytes(headers: &[(String, String)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len() + ENTRY_BYTES).sum()
}

/// An origin, and a path below which requests may go. A path without a `/` at its end covers itself and what follows it behind
/// one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    origin: Origin,
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    https: bool,
    /// Lower case.
    host: String,
    port: u16,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub uri: Uri,
    origin: Origin,
}

/// For tests: whatever the manifest asks for.
pub const ALL: &str = ANY;

/// All that one plugin may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Those of the manifest; None: whatever the operator grants.
    asked: Option<Vec<Grant>>,
    /// None: whatever the manifest asks for, as in a test.
    given: Option<Vec<Grant>>,
}

impl Grant {
    /// # Errors
    /// It is no URL that a request could begin with, for people.
    pub fn parse(url: &str) -> Result<Self, String> {
        let target = Target::parse(url)?;
        if target.uri.query().is_some() || url.contains('?') {
            return Err("a grant has no query".to_owned());
        }
        Ok(Self { path: target.uri.path().to_owned(), origin: target.origin })
    }

    pub fn covers(&self, target: &Target) -> bool {
        self.origin == target.origin && self.covers_path(target.uri.path())
    }

    /// The longer, the narrower.
    pub fn path_len(&self) -> usize {
        self.path.len()
    }

    fn covers_path(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(self.path.as_str()) else { return false };
        rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/')
    }

    fn meets(&self, other: &Self) -> bool {
        self.origin == other.origin && (self.covers_path(&other.path) || other.covers_path(&self.path))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin: Origin { https, host, port }, path } = self;
        let (scheme, usual) = if *https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{host}")?;
        if *port != usual {
            write!(f, ":{port}")?;
        }
        f.write_str(path)
    }
}

impl Target {
    /// # Errors
    /// Whoever reads it might take it for another URL than the host does; or it is none.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.contains('\\') {
            return Err("it has a backslash".to_owned());
        }
        if !url.is_ascii() {
            return Err("it has characters beyond ASCII, which are percent-encoded in URLs".to_owned());
        }
        if url.contains('#') {
            return Err("it has a fragment".to_owned());
        }
        let uri: Uri = url.parse().map_err(|error| format!("it is no URL ({error})"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it begins with neither `https://` nor `http://`".to_owned()),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user or a password".to_owned());
        }
        if authority.host().is_empty() {
            return Err("it names no host".to_owned());
        }
        if uri.path().is_empty() || dot_segment(uri.path()) {
            return Err("its path has a segment of dots".to_owned());
        }
        // A port that cannot be read would be dropped, and the request would go to another service.
        let said = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match authority.port_u16() {
            Some(port) if port > 0 => port,
            None if said.is_empty() => {
                if https {
                    443
                } else {
                    80
                }
            }
            Some(_) | None => return Err(format!("`{said}` is no port")),
        };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        Ok(Self { origin: Origin { https, host, port }, uri })
    }

    /// Without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.origin.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// `.` or `..`, in whatever way a server might read one: encoded, between encoded separators, with a parameter behind it.
fn dot_segment(path: &str) -> bool {
    let mut plain = path.to_ascii_lowercase();
    // However often it is decoded on its way.
    while plain.contains("%25") {
        plain = plain.replace("%25", "%");
    }
    for (encoded, is) in [("%2e", "."), ("%2f", "/"), ("%5c", "/"), ("%3b", ";")] {
        plain = plain.replace(encoded, is);
    }
    let name = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    plain.split('/').any(name)
}

impl Grants {
    /// `asked`: the grants of a manifest, in full. What cannot be read grants nothing: the manifest's own check names it.
    pub fn new(asked: &[String], given: Option<Vec<Grant>>) -> Self {
        let asked = asked.iter().filter_map(|grant| grant.strip_prefix(SCHEME));
        let all = asked.clone().any(|url| url == ANY);
        Self { asked: (!all).then(|| asked.filter_map(|url| Grant::parse(url).ok()).collect()), given }
    }

    /// What is asked for, where nothing of it is given; and what is given and not asked for in any part.
    pub fn differences(&self) -> (Vec<String>, Vec<&Grant>) {
        let Some(given) = &self.given else { return (Vec::new(), Vec::new()) };
        match &self.asked {
            None => (if given.is_empty() { vec![ANY.to_owned()] } else { Vec::new() }, Vec::new()),
            Some(asked) => {
                let meets = |one: &Grant, others: &[Grant]| others.iter().any(|other| one.meets(other));
                let none = !asked.iter().any(|grant| meets(grant, given));
                let missing = asked.iter().filter(|_| none).map(ToString::to_string);
                (missing.collect(), given.iter().filter(|grant| !meets(grant, asked)).collect())
            }
        }
    }

    /// May requests go there?
    pub fn cover(&self, target: &Target) -> bool {
        let covers = |grants: &Vec<Grant>| grants.iter().any(|grant| grant.covers(target));
        self.asked.as_ref().is_none_or(covers) && self.given.as_ref().is_none_or(covers)
    }
}

/// Is the text of a grant in a manifest one?
///
/// # Errors
/// Why not, for people.
pub fn check_grant(grant: &str) -> Result<(), String> {
    let Some(url) = grant.strip_prefix(SCHEME) else {
        return Err(format!("`{grant}` is no grant that this host knows"));
    };
    if url == ANY {
        return Ok(());
    }
    Grant::parse(url).map(|_| ()).map_err(|why| format!("`{url}` cannot be granted: {why}"))
}

/// The host says these itself, or keeps others from saying them.
const RESERVED: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const METHODS: &[Method] =
    &[Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
const HEADERS_MAX: usize = 64;
const TIMEOUT_MS: Range<u32> = 1..600_001;

/// Is it one that may be sent?
///
/// # Errors
/// Why not: the guest's fault, for people.
pub fn check(request: &Request, grants: &Grants, limits: &Limits) -> Result<(), String> {
    let shown = request.shown();
    let bytes = request.bytes();
    if bytes > limits.request_bytes_max {
        let max = limits.request_bytes_max;
        return Err(format!("{shown}: the request has {bytes} bytes, {max} are allowed (request-bytes-max)"));
    }
    if !METHODS.iter().any(|method| method.as_str() == request.method) {
        return Err(format!("{shown}: a method is one of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS"));
    }
    let target = Target::parse(&request.url).map_err(|why| format!("{shown}: {why}"))?;
    if !grants.cover(&target) {
        return Err(format!(
            "{shown} is not granted: the manifest asks for it under `grants`, and the operator grants it with a table \
             [plugin.NAME.http.\"URL\"]"
        ));
    }
    if request.headers.len() > HEADERS_MAX {
        return Err(format!("{shown}: {} headers, {HEADERS_MAX} are allowed", request.headers.len()));
    }
    for (name, value) in &request.headers {
        let known =
            HeaderName::try_from(name.as_str()).map_err(|_| format!("{shown}: `{name}` is no name of a header"))?;
        let name = known.as_str();
        if RESERVED.contains(&name) || name.starts_with("proxy-") || name.starts_with("sagahost-") {
            return Err(format!("{shown}: the header `{name}` is the host's to set, or nobody's"));
        }
        if HeaderValue::from_str(value).is_err() {
            return Err(format!("{shown}: the value of `{name}` cannot be one of a header"));
        }
    }
    if request.timeout_ms.is_some_and(|ms| !TIMEOUT_MS.contains(&ms)) {
        return Err(format!("{shown}: a time-out is 1 to {} ms", TIMEOUT_MS.end - 1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn request(url: &str) -> Request {
        Request { method: "POST".into(), url: url.into(), headers: Vec::new(), body: Vec::new(), timeout_ms: None }
    }

    fn grants(asked: &[&str], given: &[&str]) -> Grants {
        let asked: Vec<String> = asked.iter().map(|url| format!("http:{url}")).collect();
        Grants::new(&asked, Some(given.iter().map(|url| Grant::parse(url).unwrap()).collect()))
    }

    fn allowed(grants: &Grants, url: &str) -> bool {
        check(&request(url), grants, &Limits::default()).is_ok()
    }

    #[test]
    fn a_url_is_granted_where_both_name_its_origin_and_a_prefix_that_ends_at_a_segment() {
        let both = grants(&["https://gw.example"], &["https://GW.example:443/v1"]);
        for (url, is) in [
            ("https://gw.example/v1", true),
            ("https://gw.example/v1/charges?x=1", true),
            ("https://GW.EXAMPLE./v1/charges", true),
            ("https://gw.example:443/v1?x", true),
            ("https://gw.example/v10", false),
            ("https://gw.example/", false),
            ("http://gw.example/v1", false),
            ("https://gw.example:8443/v1", false),
            ("https://gw.example.evil/v1", false),
            ("https://evil/v1", false),
        ] {
            assert_eq!(allowed(&both, url), is, "{url}");
        }
        assert!(!allowed(&grants(&["https://gw.example/v2"], &["https://gw.example/"]), "https://gw.example/v1"));
        assert!(allowed(&grants(&["*"], &["https://gw.example/v1/"]), "https://gw.example/v1/a"));
        assert!(!allowed(&grants(&["*"], &["https://gw.example/v1/"]), "https://gw.example/v1"));
        assert!(!allowed(&grants(&[], &["https://gw.example/"]), "https://gw.example/"), "nobody asked");
        assert!(!allowed(&grants(&["*"], &[]), "https://gw.example/"), "nobody granted");
    }

    #[test]
    fn what_two_might_read_differently_is_no_url() {
        let all = grants(&["*"], &["https://gw.example/v1", "http://[::1]:8080/"]);
        for url in [
            "https://gw.example/v1/../admin",
            "https://gw.example/v1/./x",
            "https://gw.example/v1/%2e%2E/admin",
            "https://gw.example/v1/.%2e/admin",
            "https://gw.example/v1/x%2f..%2fadmin",
            "https://gw.example/v1/..%5cadmin",
            "https://gw.example/v1/..;/admin",
            "https://gw.example/v1/%252e%252E/admin",
            "https://gw.example/v1/%25252e./admin",
            "https://gw.example:84430/v1",
            "https://gw.example:0/v1",
            "https://gw.example:/v1",
            "https://gw.example/v1\\..\\admin",
            "https://gw.example@evil/v1",
            "https://user:secret@gw.example/v1",
            "https://gw.example/v1#x",
            "//gw.example/v1",
            "gw.example/v1",
            "ftp://gw.example/v1",
            "https:///v1",
            "https://gw.example/v1/a b",
            "https://gw.example/v1/\u{e9}",
            "",
        ] {
            assert!(!allowed(&all, url), "{url}");
        }
        for url in [
            "https://gw.example/v1/a%2Fb",
            "https://gw.example/v1/...",
            "http://[::1]:8080/x",
            "https://gw.example/v1/..a",
        ] {
            assert!(allowed(&all, url), "{url}");
        }
        assert_eq!(Target::parse("http://[::1]:8080/x").unwrap().host(), "::1");
    }

    #[test]
    fn what_is_asked_in_vain_and_what_is_given_in_vain_are_said() {
        let said = |asked: &[&str], given: &[&str]| {
            let grants = grants(asked, given);
            let (missing, unasked) = grants.differences();
            (missing, unasked.into_iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let none = Vec::<String>::new;
        assert_eq!(said(&["https://a/v1"], &["https://a/"]), (none(), none()));
        assert_eq!(said(&["https://a/"], &["https://a/v1"]), (none(), none()));
        assert_eq!(
            said(&["https://a/v1"], &["https://a/v2"]),
            (vec!["https://a/v1".into()], vec!["https://a/v2".into()])
        );
        assert_eq!(said(&["*"], &[]), (vec!["*".into()], none()));
        assert_eq!(
            said(&["https://a/", "https://b/"], &["https://a/"]),
            (none(), none()),
            "less may be given than is asked"
        );
        assert_eq!(said(&[], &["https://a/"]), (none(), vec!["https://a/".into()]));
    }

    #[test]
    fn a_request_says_nothing_that_is_the_hosts_to_say() {
        let all = grants(&["*"], &["https://a/"]);
        let with = |change: &dyn Fn(&mut Request)| {
            let mut request = request("https://a/x?token=s3cret");
            change(&mut request);
            check(&request, &all, &Limits::default()).err().unwrap_or_default()
        };
        let header = |name: &str, value: &str| with(&|request| request.headers.push((name.into(), value.into())));
        assert_eq!(header("x-request-id", "7"), "");
        assert_eq!(
            header("Authorization", "Bearer x"),
            "POST https://a/x?(hidden): the header `authorization` is the host's to set, or nobody's"
        );
        for name in ["Host", "cookie", "Transfer-Encoding", "Proxy-Authorization", "idempotency-key", "te"] {
            assert!(header(name, "x").ends_with("is the host's to set, or nobody's"), "{name}");
        }
        assert!(header("a b", "x").ends_with("`a b` is no name of a header"));
        assert!(header("a", "x\r\ny").ends_with("the value of `a` cannot be one of a header"));
        assert!(with(&|request| request.method = "CONNECT".into()).contains("a method is one of"));
        assert!(with(&|request| request.body = vec![0; 2 << 20]).contains("request-bytes-max"));
        assert!(with(&|request| request.timeout_ms = Some(0)).contains("a time-out is 1 to 600000 ms"));
        assert!(with(&|request| request.headers = vec![("a".into(), "b".into()); 65]).contains("65 headers, 64 are"));
    }
}
