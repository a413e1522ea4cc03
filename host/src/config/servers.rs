//! `bootstrap-servers`: brokers to begin with. Invariant: each entry is `host:port`, so that what librdkafka would only
//! log (and then wait for ever) is a fault; no text has what may be a password.

use std::ops::RangeInclusive;

const PORTS: RangeInclusive<u32> = 1..=65_535;
/// Kafka's own, for advice.
const PORT: &str = "9092";
/// How librdkafka knows a listener; it compares them with `security.protocol`.
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

/// `protocol`: `security.protocol` of the same file.
pub fn faults(servers: &str, protocol: &str) -> Vec<String> {
    if servers.trim().is_empty() {
        return vec!["must name a broker: bootstrap-servers = \"127.0.0.1:9092\"".to_owned()];
    }
    servers.split(',').filter_map(|entry| fault(entry.trim(), protocol)).collect()
}

fn fault(entry: &str, protocol: &str) -> Option<String> {
    if entry.is_empty() {
        return Some("there is no address between two commas: write \"host:9092,other:9092\"".to_owned());
    }
    let (scheme, address) = match entry.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_lowercase()), rest),
        None => (None, entry),
    };
    // In `user:password@host/path` only the host is for messages.
    let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
    let address = address.split('/').next().unwrap_or_default();
    let advice = advice(address);
    if let Some(scheme) = scheme.filter(|scheme| scheme != protocol) {
        return Some(match PROTOCOLS.contains(&scheme.as_str()) {
            true => format!(
                "{scheme}:// does not fit security.protocol, which is {protocol}: write {advice}, and \
                 \"security.protocol\" = \"{scheme}\" in [kafka.properties]"
            ),
            false => format!("a broker has no {scheme}:// in front of it: write {advice}"),
        });
    }
    if entry.contains('@') {
        return Some(format!(
            "a broker's address has no user in it: write {advice}, and \"sasl.username\" in [kafka.properties]"
        ));
    }
    if entry.split_once("://").map_or(entry, |(_, rest)| rest).contains('/') {
        return Some(format!("a broker's address has no path: write {advice}"));
    }
    address_fault(address).map(|why| format!("{why}: write {advice}"))
}

fn address_fault(address: &str) -> Option<String> {
    let (host, port) = match split(address) {
        Some(parts) => parts,
        None if address.matches(':').count() > 1 => {
            return Some(format!("`{address}` looks like an IPv6 address, which needs brackets and a port"));
        }
        None => return Some(format!("`{address}` has no port")),
    };
    if !is_host(host) {
        return Some(format!("`{address}` has no host name"));
    }
    let fits = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port| PORTS.contains(&port));
    (!fits).then(|| format!("`{port}` is not a port from {} to {}", PORTS.start(), PORTS.end()))
}

/// Host and port; an IPv6 address is in brackets.
fn split(address: &str) -> Option<(&str, &str)> {
    if address.starts_with('[') {
        let (host, port) = address.split_once("]:")?;
        return Some((host.strip_prefix('[')?, port));
    }
    address.split_once(':').filter(|(_, port)| !port.contains(':'))
}

fn is_host(host: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let address = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '%');
    !host.is_empty() && (host.chars().all(name) || (host.contains(':') && host.chars().all(address)))
}

/// The entry as it should be, with what can be kept of it.
fn advice(address: &str) -> String {
    let bare = address.trim_matches(['[', ']']);
    if bare.contains(':') && split(address).is_none() && is_host(bare) {
        return format!("\"[{bare}]:{PORT}\"");
    }
    let (host, port) = split(address).unwrap_or((address, PORT));
    let host = if is_host(host) { host } else { "host" };
    let port = if port.parse().is_ok_and(|port: u32| PORTS.contains(&port)) { port } else { PORT };
    if host.contains(':') { format!("\"[{host}]:{port}\"") } else { format!("\"{host}:{port}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_host_and_port() {
        let accepted = ["b:9092", "b-1.example.com:9092, b_2:9093", "[::1]:9092", "10.0.0.1:1", "PLAINTEXT://b:9092"];
        for servers in accepted {
            assert_eq!(faults(servers, "plaintext"), Vec::<String>::new(), "{servers}");
        }
        for (servers, said) in [
            (" ", "must name a broker: bootstrap-servers = \"127.0.0.1:9092\""),
            ("b:9092,", "there is no address between two commas: write \"host:9092,other:9092\""),
            ("http://b:8082", "a broker has no http:// in front of it: write \"b:8082\""),
            ("https://user:hunter2@b/kafka", "a broker has no https:// in front of it: write \"b:9092\""),
            (
                "SASL_SSL://b:9093",
                "sasl_ssl:// does not fit security.protocol, which is plaintext: write \"b:9093\", and \
                 \"security.protocol\" = \"sasl_ssl\" in [kafka.properties]",
            ),
            (
                "user:hunter2@b:9092",
                "a broker's address has no user in it: write \"b:9092\", and \"sasl.username\" in [kafka.properties]",
            ),
            ("b:9092/kafka", "a broker's address has no path: write \"b:9092\""),
            ("b", "`b` has no port: write \"b:9092\""),
            ("b:", "`` is not a port from 1 to 65535: write \"b:9092\""),
            ("b:kafka", "`kafka` is not a port from 1 to 65535: write \"b:9092\""),
            ("b:0", "`0` is not a port from 1 to 65535: write \"b:9092\""),
            ("b:70000", "`70000` is not a port from 1 to 65535: write \"b:9092\""),
            (":9092", "`:9092` has no host name: write \"host:9092\""),
            ("b c:9092", "`b c:9092` has no host name: write \"host:9092\""),
            ("::1", "`::1` looks like an IPv6 address, which needs brackets and a port: write \"[::1]:9092\""),
            ("[::1]", "`[::1]` looks like an IPv6 address, which needs brackets and a port: write \"[::1]:9092\""),
        ] {
            let found = faults(servers, "plaintext");
            assert_eq!(found, [said], "{servers}");
            // The way on works.
            if let Some((_, advice)) = said.rsplit_once("write \"") {
                let protocol = if said.contains("sasl_ssl") { "sasl_ssl" } else { "plaintext" };
                let advised = advice.split('"').next().unwrap_or_default();
                assert_eq!(faults(advised, protocol), Vec::<String>::new(), "{servers}: {advised}");
            }
        }
    }
}
