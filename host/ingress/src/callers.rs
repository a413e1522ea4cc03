//! Who asks, and whether they may. Invariant: where principals are configured, nothing is answered to anybody else; where none
//! are, nothing is answered to a page of another site.
//!
//! A browser sends what a page tells it to, with whatever certificate it has, and a name that an attacker owns may lead to this
//! machine (DNS rebinding). So a foreign `Origin` is refused always; and where nobody has to say who they are, `Host` must
//! be this machine or be named, and a body must be JSON, which a form cannot send.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HOST, ORIGIN},
};
use sagahost_net::{Peer, Subject};
use sha2::{Digest as _, Sha256};

use crate::{
    problem::Problem,
    settings::{HttpSettings, Principal, Proof, Sees},
};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Empty: nobody has to say who they are.
    pub name: Arc<str>,
    pub sees: Sees,
    /// Names of routes; None: all.
    routes: Option<Arc<[String]>>,
}

impl Caller {
    /// # Errors
    /// It may not ask for this.
    pub fn may(&self, route: &str) -> Result<(), Problem> {
        match &self.routes {
            Some(routes) if !routes.iter().any(|name| name == route) => {
                let detail = format!("principal {} has no grant for {route}", self.name);
                Err(Problem::new(StatusCode::FORBIDDEN, "not-granted", detail))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Everybody who may ask.
pub struct Callers {
    by_token: HashMap<[u8; 32], Caller>,
    by_subject: HashMap<Subject, Caller>,
    open: bool,
    hosts: Vec<String>,
    tls: bool,
}

impl Callers {
    pub fn new(settings: &HttpSettings) -> Self {
        let (mut by_token, mut by_subject) = (HashMap::new(), HashMap::new());
        for Principal { name, proofs, routes, sees } in &settings.principals {
            let routes = routes.as_ref().map(|routes| Arc::from(routes.as_slice()));
            let caller = Caller { name: name.clone(), sees: *sees, routes };
            for proof in proofs {
                match proof {
                    Proof::Token(hash) => drop(by_token.insert(*hash, caller.clone())),
                    Proof::Subject(subject) => drop(by_subject.insert(subject.clone(), caller.clone())),
                }
            }
        }
        let hosts = settings.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { by_token, by_subject, open: settings.principals.is_empty(), hosts, tls: settings.tls.is_some() }
    }

    /// Must a body be JSON, so that no form of a page can send it?
    pub fn only_json(&self) -> bool {
        self.open
    }

    /// `authority`: of a target that names one (RFC 9112, 3.2.2).
    ///
    /// # Errors
    /// Nobody who may ask.
    pub fn caller(&self, headers: &HeaderMap, authority: Option<&str>, peer: Option<&Peer>) -> Result<Caller, Problem> {
        let host = the_one(headers, &HOST);
        if authority.is_some_and(|authority| Some(authority) != host) {
            let detail = "the target of the request names another host than the header `Host`";
            return Err(Problem::bad_request("two-hosts", detail));
        }
        self.check_origin(headers, host)?;
        if self.open {
            self.check_host(host)?;
            return Ok(Caller { name: "".into(), sees: Sees::All, routes: None });
        }
        let token = the_one(headers, &AUTHORIZATION).and_then(bearer);
        // A token that is wrong is not made right by a certificate.
        let found = match token {
            Some(token) => self.by_token.get(&sha256(token)),
            None => peer.and_then(|peer| peer.subject.as_ref()).and_then(|subject| self.by_subject.get(subject)),
        };
        found.cloned().ok_or_else(|| {
            let detail = "say who asks: `Authorization: Bearer TOKEN`, or a client certificate that is known here";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        })
    }

    fn check_origin(&self, headers: &HeaderMap, host: Option<&str>) -> Result<(), Problem> {
        let foreign = match headers.get(ORIGIN).map(|origin| origin.to_str()) {
            None => headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site"),
            Some(Ok(origin)) => !self.is_own(origin, host),
            Some(Err(_)) => true,
        };
        match foreign {
            true => Err(forbidden("foreign-origin", "a page of another site may not ask for anything here")),
            false => Ok(()),
        }
    }

    /// Behind a proxy `Host` need not be what the browser calls this host.
    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let here = Some(authority) == host && (scheme == "https" || !self.tls);
        here || name_of(authority).is_some_and(|name| self.hosts.contains(&name.to_ascii_lowercase()))
    }

    fn check_host(&self, host: Option<&str>) -> Result<(), Problem> {
        let named = host.and_then(name_of).is_some_and(|name| {
            let name = name.to_ascii_lowercase();
            is_this_machine(&name) || self.hosts.contains(&name)
        });
        let detail = "the header `Host` does not name this machine; further names are in http.hosts";
        if named { Ok(()) } else { Err(forbidden("foreign-host", detail)) }
    }
}

fn forbidden(code: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code, detail)
}

/// None: there is none, or more than one.
fn the_one<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Option<&'h str> {
    let mut all = headers.get_all(name).into_iter();
    let one = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(one)
}

fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Without the port. None: it is not a host (RFC 3986, 3.2.2).
fn name_of(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(address) => address.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(digits)).then_some(name)
}

/// Parsed as an address, never by how it begins: `127.0.0.1.example.com` is not one.
fn is_this_machine(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn asked(callers: &Callers, headers: &[(&'static str, &str)], subject: Option<&str>) -> String {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(*name, value.parse().expect("a value"));
        }
        let peer =
            Peer { address: ([127, 0, 0, 1], 9).into(), subject: subject.map(|text| text.parse().expect("a name")) };
        match callers.caller(&all, None, Some(&peer)) {
            Ok(caller) => format!("{}, {:?}", caller.name, caller.sees),
            Err(problem) => format!("{problem:?}").split('"').nth(1).unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn without_principals_no_page_of_another_site_gets_in() {
        let callers = Callers::new(&HttpSettings::for_tests(Vec::new()));
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "shop.internal:1"] {
            assert_eq!(asked(&callers, &[("host", host)], None), ", All", "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "[::2]",
            "[::1]evil.example",
            "[::1",
            "localhost:80:80",
            "localhost:evil.example",
        ] {
            assert_eq!(asked(&callers, &[("host", host)], None), "foreign-host", "{host}");
        }
        let check =
            |headers: &[(&'static str, &str)], expect: Expect| expect.assert_eq(&asked(&callers, headers, None));
        check(&[], expect!["foreign-host"]);
        check(&[("host", "localhost"), ("host", "localhost")], expect!["foreign-host"]);
        check(&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], expect![", All"]);
        check(&[("host", "localhost:8080"), ("origin", "http://localhost:9090")], expect!["foreign-origin"]);
        check(&[("host", "localhost:8080"), ("origin", "https://evil.example")], expect!["foreign-origin"]);
        check(&[("host", "localhost"), ("origin", "https://shop.internal")], expect![", All"]);
        check(&[("host", "localhost"), ("origin", "shop.internal")], expect!["foreign-origin"]);
        check(&[("host", "localhost:8080"), ("origin", "null")], expect!["foreign-origin"]);
        check(&[("host", "localhost"), ("sec-fetch-site", "cross-site")], expect!["foreign-origin"]);
        check(&[("host", "localhost"), ("sec-fetch-site", "none")], expect![", All"]);
    }

    #[test]
    fn a_principal_shows_who_it_is() {
        let principal = |name: &str, proof, sees| Principal {
            name: name.into(),
            proofs: vec![proof],
            routes: Some(vec!["POST /orders".to_owned()]),
            sees,
        };
        let shop = principal("shop", Proof::Token(sha256("secret")), Sees::Own);
        let desk = principal("desk", Proof::Subject("CN=desk,O=Shop".parse().expect("a name")), Sees::All);
        let callers = Callers::new(&HttpSettings::for_tests(vec![shop, desk]));
        let host = ("host", "anything");
        let check = |headers: &[(&'static str, &str)], subject, expect: Expect| {
            expect.assert_eq(&asked(&callers, &[headers, &[host]].concat(), subject));
        };
        check(&[("authorization", "Bearer secret")], None, expect!["shop, Own"]);
        check(&[("authorization", "bearer secret")], None, expect!["shop, Own"]);
        check(&[("authorization", "Basic secret")], None, expect!["unauthorized"]);
        check(&[("authorization", "Bearer Secret")], None, expect!["unauthorized"]);
        check(&[("authorization", "Bearer ")], None, expect!["unauthorized"]);
        check(&[("authorization", "Bearer secret"), ("authorization", "Bearer secret")], None, expect!["unauthorized"]);
        check(&[], None, expect!["unauthorized"]);
        check(&[], Some("CN=desk,O=Shop"), expect!["desk, All"]);
        check(&[], Some("CN=desk"), expect!["unauthorized"]);
        check(&[("authorization", "Bearer wrong")], Some("CN=desk,O=Shop"), expect!["unauthorized"]);
        check(&[("origin", "https://evil.example")], Some("CN=desk,O=Shop"), expect!["foreign-origin"]);
        let caller = callers.by_token.values().next().expect("there is one");
        assert!(caller.may("POST /orders").is_ok() && caller.may("POST /refunds").is_err());
    }
}
