//! Plugins as people read them. Invariant: nothing that `--json` does not say.

use std::collections::BTreeSet;

use sagahost_saga::notation;
use sagahost_sandbox::{Manifest, graph::Graph};

use super::{
    output::Output,
    table::{Cell, Table, Tone},
    time_text::when,
};
use sagahost_serving::short;

use sagahost_operator::plugin_view::{PluginLine, PluginView, PluginsView};

pub fn list_text(listing: &PluginsView, out: &Output) -> String {
    let mut table = Table::new([
        "plugin", "version", "digest", "state", "since", "calls", "failed", "p50", "p99", "handles", "emits", "file",
        "",
    ]);
    for plugin in &listing.plugins {
        table.row([
            (&plugin.name).into(),
            (&plugin.version).into(),
            short(&plugin.digest).into(),
            Cell::state(&plugin.state),
            since(plugin, out).into(),
            count(plugin.calls),
            count(plugin.failures),
            micros(plugin.p50_us),
            micros(plugin.p99_us),
            plugin.handles.join(" ").into(),
            plugin.emits.join(" ").into(),
            plugin.file.clone().unwrap_or_default().into(),
            Cell::toned(plugin.note.clone().unwrap_or_default(), Tone::Busy),
        ]);
    }
    let mut text = if listing.plugins.is_empty() { "no plugin\n".to_owned() } else { table.render(out.colour) };
    for report in &listing.refused {
        text += &format!("\n{report}\n");
    }
    text
}

/// Empty: it has not served.
fn since(line: &PluginLine, out: &Output) -> String {
    line.admitted.map_or_else(String::new, |admitted| when(admitted, out.now))
}

fn count(number: u64) -> Cell {
    if number == 0 { "".into() } else { Cell::number(number) }
}

fn micros(number: u64) -> Cell {
    if number == 0 { "".into() } else { format!("{number}µs").into() }
}

pub fn show_text(view: &PluginView, out: &Output) -> String {
    let mut text = format!("plugin {}\n\n", notation::line(&view.name));
    let mut versions = Table::new([
        "version",
        "digest",
        "configuration",
        "state",
        "since",
        "calls",
        "failed",
        "p50",
        "p99",
        "unfinished",
        "file",
        "",
    ])
    .indented(2);
    for line in &view.versions {
        versions.row([
            (&line.version).into(),
            short(&line.digest).into(),
            short(&line.config).into(),
            Cell::state(&line.state),
            since(line, out).into(),
            count(line.calls),
            count(line.failures),
            micros(line.p50_us),
            micros(line.p99_us),
            count(view.unfinished.get(&line.digest).copied().unwrap_or(0)),
            line.file.clone().unwrap_or_default().into(),
            Cell::toned(line.note.clone().unwrap_or_default(), Tone::Busy),
        ]);
    }
    text += &versions.render(out.colour);
    if let Ok(manifest) = serde_json::from_value::<Manifest>(view.manifest.clone()) {
        text += &manifest_text(&manifest, &view.configured, out);
    }
    for note in view.versions.iter().flat_map(|line| &line.notes) {
        text += &format!("  note            {}\n", notation::line(note));
    }
    if !view.history.is_empty() {
        let mut history = Table::new(["history", "", "version", "configuration"]).indented(2);
        for entry in &view.history {
            let version = view.versions.iter().find(|line| line.digest == entry.digest);
            let version = version.map_or_else(|| short(&entry.digest), |line| line.version.clone());
            history.row([
                when(entry.at, out.now).into(),
                (&entry.what).into(),
                version.into(),
                short(&entry.config).into(),
            ]);
        }
        text += &format!("\n{}", history.render(out.colour));
    }
    for report in &view.refused {
        text += &format!("\n{report}\n");
    }
    text
}

fn manifest_text(manifest: &Manifest, configured: &[String], out: &Output) -> String {
    let mut table = Table::new(["handles", "role", "when", "after", "from", "deadline"]).indented(2);
    for subscription in &manifest.subscriptions {
        let word = |value: serde_json::Result<serde_json::Value>| {
            value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        table.row([
            (&subscription.kind).into(),
            word(serde_json::to_value(subscription.role)).into(),
            word(serde_json::to_value(subscription.when)).into(),
            subscription.after.join(" ").into(),
            word(serde_json::to_value(subscription.from)).into(),
            subscription.deadline_ms.map(|ms| format!("{ms}ms")).unwrap_or_default().into(),
        ]);
    }
    let mut text = format!("\n{}\n", table.render(out.colour));
    let mut line = |name: &str, words: String| {
        if !words.is_empty() {
            text += &format!("  {name:<15} {}\n", notation::line(&words));
        }
    };
    line("emits", manifest.emits.join(" "));
    line("starts", manifest.starts.join(" "));
    line("compensates on", manifest.compensate_on.join(" "));
    line("finishes on", manifest.finish_on.join(" "));
    line(
        "asks to send to",
        manifest.grants.iter().map(|grant| grant.trim_start_matches("http:")).collect::<Vec<_>>().join(" "),
    );
    let formats: Vec<String> = manifest.reads.iter().map(ToString::to_string).collect();
    line("data format", format!("{}{}", manifest.data_format, reads(&formats)));
    // Values that an operator has set may be nobody else's business.
    let keys = manifest.config.iter().map(|(name, key)| match (&key.default, configured.contains(name)) {
        (_, true) => format!("{name} (set)"),
        (Some(default), false) => format!("{name}={default}"),
        (None, false) => format!("{name} (not set)"),
    });
    line("configuration", keys.collect::<Vec<_>>().join(" "));
    text
}

fn reads(formats: &[String]) -> String {
    if formats.is_empty() { String::new() } else { format!(", reads {}", formats.join(" ")) }
}

pub fn graph_text(graph: &Graph, out: &Output) -> String {
    let mut table = Table::new(["plugin", "handles", "emits", "compensates on", "finishes on"]);
    for node in &graph.participants {
        let emits: Vec<&str> = node.emits.iter().chain(&node.starts).map(String::as_str).collect();
        table.row([
            (&node.name).into(),
            node.handles.join(" ").into(),
            emits.join(" ").into(),
            node.compensate_on.join(" ").into(),
            node.finish_on.join(" ").into(),
        ]);
    }
    let mut text = table.render(out.colour) + "\n";
    let list = |kinds: &BTreeSet<String>| {
        notation::line(&kinds.iter().map(String::as_str).collect::<Vec<_>>().join(" ")).into_owned()
    };
    let mut line = |what: &str, kinds: &BTreeSet<String>| {
        if !kinds.is_empty() {
            text += &format!("{what}: {}\n", list(kinds));
        }
    };
    line("from outside", &graph.from_outside);
    line("read by nobody here", &graph.unread);
    line("nothing undoes", &graph.never_undone);
    line("undo without a word to others", &graph.silent_undo);
    for cycle in &graph.cycles {
        text += &format!("cycle: {}\n", notation::line(&cycle.join(" → ")));
    }
    text
}
