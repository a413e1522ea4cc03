//! Table `[alerts]`: who hears of what needs a person.

use std::{path::Path, time::Duration};

use sagahost_alerts::AlertSettings;

use super::{http, reader::Table};

pub fn read(mut table: Table<'_, '_>, base: &Path) -> AlertSettings {
    let d = AlertSettings::default();
    let alertmanager = http::url(&mut table, "alertmanager");
    let webhook = http::url(&mut table, "webhook");
    let command = command(&mut table);
    let interval = table.duration("interval", Duration::from_secs(1)..=Duration::from_secs(3600), d.interval);
    let headers = http::headers(&table.table("headers"), base);
    table.finish();
    AlertSettings { alertmanager, webhook, command, headers, interval }
}

/// No shell reads it.
fn command(table: &mut Table<'_, '_>) -> Vec<String> {
    let words = table.texts("command");
    if let Some((program, at)) = words.first()
        && !Path::new(program).is_absolute()
    {
        let text =
            format!("`{program}` is looked for nowhere: write the whole path of the program, [\"/usr/bin/…\", …]");
        table.fault("command", at.clone(), text);
    }
    words.into_iter().map(|(word, _)| word).collect()
}
