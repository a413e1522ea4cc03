//! Operators' questions about plugins. Invariant: with a host its keeper answers what serves; without one the journal
//! says what would.

use std::collections::BTreeMap;

use sagahost_journal::{AdmittedRow, PluginWrite};
use sagahost_saga::id::Participant;
use sagahost_sandbox::{Report, digests::DigestStore};
use sagahost_wire::clock::{Clock as _, SystemClock};

use super::{
    PluginAction,
    desk::Desk,
    plugin_view::{GONE, HistoryLine, PluginLine, PluginView, PluginsView},
    protocol::{Refusal, Why},
    topics,
    view::Done,
};

/// Without a host: what the journal knows.
pub fn list(desk: &Desk) -> Result<PluginsView, Refusal> {
    if let Some(live) = &desk.live {
        return Ok(live.plugins());
    }
    let rows = desk.journal.admitted().map_err(Refusal::failed)?;
    let paused = desk.journal.paused().map_err(Refusal::failed)?;
    let files = topics::plugin_files(&desk.settings.plugins_dir, &desk.settings.service_manifests);
    let there = |row: &AdmittedRow| {
        files.iter().any(|(_, manifest)| manifest.as_ref().is_some_and(|m| m.name == row.participant.as_str()))
    };
    let line = |row: &AdmittedRow| {
        let retired = !rows.iter().any(|other| other.participant == row.participant && other.serving);
        let why = paused.get(&row.participant).filter(|_| row.serving);
        let (state, note) = match (&row.quarantined, row.serving, why, there(row)) {
            (Some(why), ..) => ("quarantined", Some(why.clone())),
            (None, false, ..) if retired => ("retired", None),
            (None, false, ..) => ("stored", None),
            (None, true, Some(why), _) => ("paused", Some(why.clone())),
            (None, true, None, false) => ("paused", Some(GONE.to_owned())),
            (None, true, None, true) => ("admitted", None),
        };
        PluginLine { note, ..PluginLine::of_row(row, state) }
    };
    let stored = DigestStore::open(&desk.settings.data_dir.join("plugins")).map_err(Refusal::failed)?;
    let lines = rows.iter().map(line).filter(|line| line.is_listed(|digest| stored.has(digest)));
    Ok(PluginsView::sorted(lines.collect(), Vec::new(), desk.settings.configured.clone()))
}

pub fn one(desk: &Desk, name: &Participant) -> Result<PluginView, Refusal> {
    const HISTORY_MAX: usize = 50;
    let PluginsView { plugins, refused, mut configured } = list(desk)?;
    let versions: Vec<PluginLine> = plugins.into_iter().filter(|line| line.name == name.as_str()).collect();
    let files: Vec<&String> = versions.iter().filter_map(|line| line.file.as_ref()).collect();
    let concerns = |report: &Report| {
        let file = report.file.display().to_string();
        report.plugin.as_deref() == Some(name.as_str()) || files.contains(&&file)
    };
    let refused: Vec<Report> = refused.into_iter().filter(concerns).collect();
    if versions.is_empty() && refused.is_empty() {
        return Err(Refusal::not_found(format!("no plugin {name} was ever admitted in app {}", desk.settings.app)));
    }
    let rows = desk.journal.admitted().map_err(Refusal::failed)?;
    let newest = rows.iter().filter(|row| row.participant == *name).max_by_key(|row| (row.serving, row.admitted));
    let referenced = desk.journal.referenced_digests().map_err(Refusal::failed)?;
    let history = desk.journal.plugin_history(name, HISTORY_MAX).map_err(Refusal::failed)?;
    let unfinished: BTreeMap<String, u64> = versions
        .iter()
        .filter_map(|line| Some((line.digest.clone(), *referenced.get(line.digest.as_str())?)))
        .collect();
    Ok(PluginView {
        name: name.to_string(),
        versions,
        refused,
        manifest: newest.and_then(|row| serde_json::from_str(&row.manifest).ok()).unwrap_or_default(),
        configured: configured.remove(name.as_str()).unwrap_or_default(),
        unfinished,
        history: history.iter().map(HistoryLine::from).collect(),
    })
}

fn admit_without_host(desk: &Desk, name: &Participant, by: &str) -> Result<Done, Refusal> {
    let rows = desk.journal.admitted().map_err(Refusal::failed)?;
    let quarantined: Vec<&AdmittedRow> =
        rows.iter().filter(|row| row.participant == *name && row.quarantined.is_some()).collect();
    if quarantined.is_empty() {
        return Err(Refusal::not_found(format!("no version of plugin {name} is in quarantine")));
    }
    let entry = |row: &&AdmittedRow| row.history_entry(SystemClock.now(), format!("let out of quarantine by {by}"));
    let write = PluginWrite {
        history: quarantined.iter().map(entry).collect(),
        quarantined: quarantined.iter().map(|row| (name.clone(), row.digest.clone(), None)).collect(),
        ..PluginWrite::default()
    };
    desk.journal.change_plugins(desk.journal.identity().epoch, &write).map_err(Refusal::failed)?;
    let text = format!("plugin {name} is out of quarantine; the next start serves its file");
    Ok(Done { done: true, queued: true, text })
}

/// Pauses and quarantine are journaled for the next start; everything else needs code to be switched.
pub fn change_without_host(desk: &Desk, name: &Participant, action: PluginAction) -> Result<Done, Refusal> {
    if let PluginAction::Admit { by } = action {
        return admit_without_host(desk, name, &by);
    }
    let (why, what) = match action {
        PluginAction::Pause { by, reason } => {
            let why = format!("paused by {by}: {reason}");
            (Some(why.clone()), why)
        }
        PluginAction::Resume { by } => (None, format!("resumed by {by}")),
        PluginAction::Admit { .. } | PluginAction::Rollback { .. } | PluginAction::Retire { .. } => {
            return Err(Refusal::new(Why::NeedsHost, "no host is running: start it, then it can switch plugins"));
        }
    };
    let rows = desk.journal.admitted().map_err(Refusal::failed)?;
    let row = rows.iter().find(|row| row.participant == *name && row.serving);
    let row = row.ok_or_else(|| Refusal::not_found(format!("no plugin {name} serves in app {}", desk.settings.app)))?;
    let entry = row.history_entry(SystemClock.now(), what.clone());
    let write = PluginWrite { paused: vec![(name.clone(), why)], history: vec![entry], ..PluginWrite::default() };
    desk.journal.change_plugins(desk.journal.identity().epoch, &write).map_err(Refusal::failed)?;
    Ok(Done { done: true, queued: true, text: format!("plugin {name} is {what}; this takes effect at the next start") })
}
