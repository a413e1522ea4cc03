//! Tables `[participant.NAME]`: services that take part.

use std::{collections::BTreeMap, path::Path, time::Duration};

use sagahost_remote::RemoteSettings;
use sagahost_sandbox::manifest::is_participant_name;

use super::{http, reader::Table};

const TIMEOUT: Duration = Duration::from_secs(10);
const CALLS_AT_ONCE: usize = 64;
pub fn read(table: &Table<'_, '_>, base: &Path) -> BTreeMap<String, RemoteSettings> {
    participant("NAME", table.absent("NAME"), base, false);
    let mut found = BTreeMap::new();
    for (name, at, child) in table.tables("NAME") {
        if !is_participant_name(&name) {
            let text = "is not a valid participant name: lower-case letters, digits and hyphens, a letter first";
            table.fault(&name, at.clone(), text);
        }
        let Some(settings) = participant(&name, child, base, true) else { continue };
        let same = found.iter().find(|(_, other): &(&String, &RemoteSettings)| other.manifest == settings.manifest);
        if let Some((other, _)) = same {
            let text = format!("has the manifest of {other}, too: each service has a file of its own");
            table.fault(&name, at, text);
        }
        found.insert(name, settings);
    }
    found
}

fn participant(name: &str, mut table: Table<'_, '_>, base: &Path, there: bool) -> Option<RemoteSettings> {
    let manifest = table.text("manifest").map(|(path, _)| base.join(path));
    let url = http::url(&mut table, "url");
    if there && (manifest.is_none() || !table.has("url")) {
        let text = format!("needs manifest = \"FILE\" and url = \"https://…\": what {name} handles, and where it is");
        table.fault_of_table(text);
    }
    let undo_url = http::url(&mut table, "undo-url");
    let timeout = table.duration("timeout", Duration::from_millis(10)..=Duration::from_secs(3600), TIMEOUT);
    let calls_at_once_max = table.number("calls-at-once-max", 1..=10_000, CALLS_AT_ONCE);
    let rejected = rejected(&mut table);
    let headers = http::headers(&table.table("headers"), base);
    table.finish();
    Some(RemoteSettings { manifest: manifest?, url: url?, undo_url, timeout, calls_at_once_max, rejected, headers })
}

fn rejected(table: &mut Table<'_, '_>) -> Vec<u16> {
    let mut found = Vec::new();
    for (status, at) in table.numbers("rejected") {
        match u16::try_from(status) {
            Ok(status @ 400..=499) => found.push(status),
            _ => table.fault("rejected", at, format_args!("{status} is no status that can mean it: 400 to 499")),
        }
    }
    found
}
