//! The check itself: each law, on its cases, until one breaks it. Invariant: what is tried is settled by plugin,
//! configuration, events, seed and number of cases; nothing else decides a verdict.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use sagahost_manifest::{Law, Limits, http::ALL, settings::Settings};
use sagahost_sandbox::{Engine, EngineError, HostError, Plugin, admission};
use serde_json::Value;
use thiserror::Error;

use crate::{
    bench::{Bench, Canned},
    case::{Case, Input},
    cost,
    laws::{Verdict, judge},
    material::{Material, kinds},
    report::{Finding, Report, Status},
    shrink::shrunk,
};

/// Instances at one time: one that is kept, and one that is fresh.
const INSTANCES: u32 = 2;

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The component's bytes.
    pub bytes: Arc<[u8]>,
    /// For people.
    pub file: std::path::PathBuf,
    /// As under `[plugin.NAME.config]`.
    pub config: BTreeMap<String, Value>,
    /// The author's events, in order.
    pub events: Vec<Input>,
    /// What is answered to its requests.
    pub answers: Vec<Canned>,
    /// These alone; empty: all.
    pub laws: Vec<Law>,
    /// This alone, instead of examples and events.
    pub case: Option<Case>,
    pub seed: u64,
    /// For one law and one kind of event.
    pub cases_max: usize,
    pub limits: Limits,
}

#[derive(Debug, Error)]
pub enum CheckError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Where a check is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub law: Law,
    pub done: usize,
    pub of: usize,
}

/// Checks a plugin. The report has no commands yet: those are the caller's to write.
pub fn check(request: &Request, progress: &mut dyn FnMut(Progress)) -> Result<Report, CheckError> {
    let engine = Engine::metered(Limits { instances_max: INSTANCES, ..request.limits.clone() })?;
    let mut report = empty(request);
    let plugin = match admitted(request, &engine) {
        Ok(plugin) => plugin,
        Err(refusal) => {
            report.plugin.clone_from(&refusal.plugin);
            let text = refusal.to_string();
            report.laws.push(Finding::new(Law::Admission, Status::Broken, 1, Some(text)));
            let others = Law::ALL.iter().filter(|law| **law != Law::Admission && wanted(request, **law));
            let unseen = |law: &Law| Finding::new(*law, Status::NotShown, 0, Some("it is not admitted".to_owned()));
            report.laws.extend(others.map(unseen));
            report.refusal = Some(refusal);
            return Ok(report);
        }
    };
    let bench = Bench::new(&plugin, &request.answers);
    let material = Material::new(plugin.manifest(), &request.events);
    report.plugin = Some(plugin.manifest().name.clone());
    report.version = Some(plugin.manifest().version.clone());
    let mut endless = false;
    for law in Law::ALL.iter().copied().filter(|law| wanted(request, *law)) {
        let finding = match &request.case {
            // Bounds come early: what waits for a call that never ends shows nothing but that.
            _ if endless => Finding::new(law, Status::NotShown, 0, Some("calls do not end: see `bounds`".to_owned())),
            Some(case) => repeated(law, &bench, case)?,
            None => tried(law, &bench, &material, request, progress)?,
        };
        endless |= finding.why.as_deref().is_some_and(|why| law == Law::Bounds && why.ends_with("(deadline)"));
        report.laws.push(waived(&plugin, finding));
    }
    if request.case.is_none() && !endless {
        report.cost = Some(cost::measure(&bench, &material, request.bytes.len())?);
    }
    Ok(report)
}

fn empty(request: &Request) -> Report {
    Report {
        plugin: None,
        version: None,
        digest: admission::digest(&request.bytes).to_string(),
        seed: request.seed,
        laws: Vec::new(),
        refusal: None,
        cost: None,
        excesses: None,
    }
}

fn wanted(request: &Request, law: Law) -> bool {
    request.laws.is_empty() || request.laws.contains(&law)
}

/// The configuration is the plugin's own, whatever its name is.
fn admitted(request: &Request, engine: &Arc<Engine>) -> Result<Arc<Plugin>, sagahost_manifest::Report> {
    let settings = Settings { config: request.config.clone(), http: vec![ALL.to_owned()], ..Settings::default() };
    let manifest = admission::manifest(&request.bytes);
    let settings = manifest.map(|manifest| (manifest.name, settings)).into_iter().collect();
    admission::admit(request.bytes.clone(), Path::new(&request.file), engine, &settings).map(|admitted| admitted.plugin)
}

/// One case, given by name.
fn repeated(law: Law, bench: &Bench<'_>, case: &Case) -> Result<Finding, HostError> {
    Ok(match judge(law, bench, case)? {
        Verdict::Holds => Finding::new(law, Status::Pass, 1, None),
        Verdict::Void(why) => Finding::new(law, Status::NotShown, 0, Some(why)),
        Verdict::Broken(why) => {
            Finding { counterexample: Some(case.clone()), ..Finding::new(law, Status::Broken, 1, Some(why)) }
        }
    })
}

/// Every kind of event that the law is about, until it is broken.
fn tried(
    law: Law,
    bench: &Bench<'_>,
    material: &Material,
    request: &Request,
    progress: &mut dyn FnMut(Progress),
) -> Result<Finding, HostError> {
    if law == Law::Admission {
        return Ok(Finding::new(law, Status::Pass, 1, None));
    }
    let kinds = kinds(law, bench.plugin.manifest());
    if kinds.is_empty() {
        let why = match law {
            Law::Calls => "it sends no requests",
            _ => "no event that it concerns is handled",
        };
        let why = why.to_owned();
        return Ok(Finding::new(law, Status::NotApplicable, 0, Some(why)));
    }
    let (mut judged, mut unseen) = (0, Vec::new());
    for kind in &kinds {
        let cases = material.cases(law, kind, request.seed, request.cases_max);
        let (before, of) = (judged, cases.len());
        let mut why = material.missing.contains(kind).then(|| format!("its manifest has no example of {kind}"));
        for (done, case) in cases.into_iter().enumerate() {
            progress(Progress { law, done, of });
            match judge(law, bench, &case)? {
                Verdict::Holds => judged += 1,
                Verdict::Void(reason) => drop(why.get_or_insert(reason)),
                Verdict::Broken(said) => {
                    let smaller = shrunk(law, bench, case, said)?;
                    let finding = Finding::new(law, Status::Broken, judged + 1, Some(smaller.why));
                    return Ok(Finding { counterexample: Some(smaller.case), ..finding });
                }
            }
        }
        if judged == before {
            unseen.push((kind, why.unwrap_or_default()));
        }
    }
    if unseen.is_empty() {
        return Ok(Finding::new(law, Status::Pass, judged, None));
    }
    let told: Vec<String> = unseen
        .into_iter()
        .map(|(kind, why)| {
            format!("{why}: give it with --events an event {kind} that is done, behind what must come first")
        })
        .collect();
    Ok(Finding::new(law, Status::NotShown, judged, Some(told.join("; "))))
}

/// What the manifest says of it.
fn waived(plugin: &Plugin, finding: Finding) -> Finding {
    let Some(reason) = plugin.manifest().waivers.get(finding.law.name()) else { return finding };
    match finding.status {
        Status::Broken => {
            let what = finding.why.unwrap_or_default();
            Finding { status: Status::Waived, why: Some(format!("{reason} ({what})")), ..finding }
        }
        Status::Pass => {
            let why = "its manifest waives it needlessly: remove the waiver".to_owned();
            Finding { why: Some(why), ..finding }
        }
        Status::Waived | Status::NotShown | Status::NotApplicable => finding,
    }
}
