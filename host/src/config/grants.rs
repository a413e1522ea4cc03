//! Tables `[plugin.NAME.http."URL"]`: where a plugin may send requests.

use std::{path::Path, time::Duration};

use sagahost_outbound::{GrantSettings, IpNet};
use sagahost_sandbox::http::Grant;

use super::{http, reader::Table};

const TIMEOUT: Duration = Duration::from_secs(10);
const CALLS_AT_ONCE: usize = 64;

pub fn read(table: &Table<'_, '_>, base: &Path) -> Vec<GrantSettings> {
    settings(None, table.absent("URL"), base);
    let mut found: Vec<GrantSettings> = Vec::new();
    for (url, at, child) in table.tables("URL") {
        let grant = match Grant::parse(&url) {
            Ok(grant) => Some(grant),
            Err(why) => {
                table.fault(&url, at.clone(), format_args!("cannot be granted: {why}; write \"https://HOST/PATH\""));
                None
            }
        };
        let Some(settings) = settings(grant, child, base) else { continue };
        if found.iter().any(|other| other.grant == settings.grant) {
            table.fault(&url, at, "is granted twice, in two spellings");
        }
        found.push(settings);
    }
    found
}

fn settings(grant: Option<Grant>, mut table: Table<'_, '_>, base: &Path) -> Option<GrantSettings> {
    let mut allow_networks = Vec::new();
    for (network, at) in table.texts("allow-networks") {
        match network.parse::<IpNet>() {
            Ok(network) => allow_networks.push(network),
            Err(_) => {
                let text =
                    format!("`{network}` is no network: write \"10.1.0.0/16\", or \"127.0.0.1/32\" for one address");
                table.fault("allow-networks", at, text);
            }
        }
    }
    let timeout = table.duration("timeout", Duration::from_millis(10)..=Duration::from_secs(600), TIMEOUT);
    let calls_at_once_max = table.number("calls-at-once-max", 1..=10_000, CALLS_AT_ONCE);
    let headers = http::headers(&table.table("headers"), base);
    table.finish();
    Some(GrantSettings { grant: grant?, headers, allow_networks, timeout, calls_at_once_max })
}
