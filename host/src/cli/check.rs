//! `sagahost check`. Invariant: the command that it prints below a counterexample repeats that very case, and needs
//! nothing but the file.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use sagahost_check::{Canned, Case, Input, Progress, Report, Request, Status, budget::Budget, report::Finding};
use sagahost_manifest::{
    Law, Limits, Manifest,
    http::{Grant, Response},
    manifest::ConfigType,
    report::hint,
};
use sagahost_saga::notation::{self, word};
use sagahost_sandbox::admission;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Site,
    check_service::Service,
    exit::{Exit, Failure},
    output::{Output, say},
    table::{Cell, Table, Tone},
};

/// How long a check may be silent.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Check {
    /// The plugin.
    #[arg(value_name = "PLUGIN.wasm", required_unless_present = "url")]
    plugin: Option<PathBuf>,
    #[command(flatten)]
    service: Service,
    /// Events to try besides the manifest's examples, in order: JSON objects {"kind": …, "saga": …, "data": …}.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// What is answered to its requests: JSON objects {"method": …, "url": …, "status": …, "body": …}. A URL stands for all
    /// that begin so; what none fits is answered 200, with {}.
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// A configuration key of the plugin; may be repeated. `--config FILE` gives those of an app, and its limits.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Only this law; may be repeated.
    #[arg(long = "law", value_name = "NAME")]
    laws: Vec<String>,
    /// Only this case, as a report prints it; needs one law. @FILE reads it from a file.
    #[arg(long, value_name = "JSON")]
    case: Option<String>,
    /// Begins every random choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cases of one law and one kind of event: changes by chance are added up to this number.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cases: u32,
    /// Fails where the plugin costs more than this file allows.
    #[arg(long, value_name = "FILE", conflicts_with = "case")]
    budget: Option<PathBuf>,
    /// Writes what the plugin costs into this file; other plugins in it stay.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["budget", "case"])]
    write_budget: Option<PathBuf>,
    /// Fails on laws that could not be shown, too.
    #[arg(long)]
    strict: bool,
}

impl Check {
    pub fn carry_out(self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        if self.service.is_named() {
            let file = self.events.clone();
            let events = |manifest: &Manifest| file.map_or(Ok(Vec::new()), |file| events(&file, Some(manifest)));
            return self.service.carry_out(out, events);
        }
        let Some(plugin) = self.plugin.clone() else { return Err(Failure::usage("name a plugin")) };
        let request = self.request(&plugin, site)?;
        let mut report = checked(&request, out.json)?;
        self.add_commands(&mut report, &plugin, site);
        self.compare(&mut report)?;
        out.show(&report, |report, out| text(report, &plugin, out))?;
        self.verdict(&report)
    }

    fn request(&self, plugin: &Path, site: &Site) -> Result<Request, Failure> {
        let bytes = read(plugin)?;
        let laws = self.laws.iter().map(|name| law(name)).collect::<Result<Vec<_>, _>>()?;
        if self.case.is_some() && laws.len() != 1 {
            return Err(Failure::usage("a case is about one law: name it with --law NAME"));
        }
        let case = self.case.as_deref().map(case).transpose()?;
        let manifest = admission::manifest(&bytes);
        let events = self.events.as_deref().map(|file| events(file, manifest.as_ref())).transpose()?;
        let (mut config, limits) = app(site, manifest.as_ref())?;
        for set in &self.sets {
            let (key, value) = setting(set, manifest.as_ref())?;
            config.insert(key, value);
        }
        Ok(Request {
            bytes: bytes.into(),
            file: plugin.to_owned(),
            config,
            events: events.unwrap_or_default(),
            answers: self.answers.as_deref().map_or(Ok(Vec::new()), answers)?,
            laws,
            case,
            seed: self.seed,
            cases_max: self.cases as usize,
            limits,
        })
    }

    fn add_commands(&self, report: &mut Report, plugin: &Path, site: &Site) {
        let mut command = format!("sagahost check {}", word(&plugin.display().to_string()));
        if let Some(config) = &site.config {
            command += &format!(" --config {}", word(&config.display().to_string()));
        }
        if let Some(answers) = &self.answers {
            command += &format!(" --answers {}", word(&answers.display().to_string()));
        }
        for set in &self.sets {
            command += &format!(" --set {}", word(set));
        }
        for finding in &mut report.laws {
            let case = finding.counterexample.as_ref().map(|case| format!(" --case {}", word(&case_text(case))));
            if let Some(case) = case {
                finding.command = Some(format!("{command} --law {}{case}", finding.law));
            }
        }
    }

    fn compare(&self, report: &mut Report) -> Result<(), Failure> {
        let (Some(plugin), Some(cost)) = (&report.plugin, &report.cost) else { return Ok(()) };
        if let Some(file) = &self.budget {
            let budget = budget(file)?;
            let excesses = budget.excesses(plugin, cost).ok_or_else(|| {
                let file = file.display();
                Failure::usage(format!("{file} has no figures for {plugin}: write them with --write-budget {file}"))
            })?;
            report.excesses = Some(excesses);
        }
        if let Some(file) = &self.write_budget {
            let mut budget = if file.exists() { budget(file)? } else { Budget::default() };
            budget.plugin.insert(plugin.clone(), cost.clone());
            fs::write(file, budget.to_toml()).map_err(|error| failed("write", file, &error))?;
        }
        Ok(())
    }

    fn verdict(&self, report: &Report) -> Result<(), Failure> {
        let names = |status| report.with(status).map(|finding| finding.law.name()).collect::<Vec<_>>();
        let (broken, unseen) = (names(Status::Broken), names(Status::NotShown));
        let over = report.excesses.as_ref().map_or(0, Vec::len);
        let mut told = Vec::new();
        if !broken.is_empty() {
            told.push(format!("it breaks {}", broken.join(", ")));
        }
        if self.strict && !unseen.is_empty() {
            told.push(format!("not shown: {}", unseen.join(", ")));
        }
        if over > 0 {
            told.push(format!("{over} of its figures are above the budget"));
        }
        if told.is_empty() { Ok(()) } else { Err(Failure::new(Exit::LawBroken, told.join("; "))) }
    }
}

/// Runs the check, and says how far it is where that takes long.
fn checked(request: &Request, quiet: bool) -> Result<Report, Failure> {
    let mut last = Instant::now();
    let loud = !quiet || io::stderr().is_terminal();
    let mut progress = |Progress { law, done, of }: Progress| {
        if loud && last.elapsed() >= SILENCE {
            say(&format!("checking {law}: {done} of {of} cases"));
            last = Instant::now();
        }
    };
    sagahost_check::check(request, &mut progress).map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// The plugin's configuration in an app, and the app's limits, where one is named.
fn app(site: &Site, manifest: Option<&Manifest>) -> Result<(BTreeMap<String, Value>, Limits), Failure> {
    if site.config.is_none() {
        return Ok((BTreeMap::new(), Limits::default()));
    }
    let config = site.config()?;
    let plugin = manifest.map(|manifest| config.plugin(&manifest.name).config).unwrap_or_default();
    Ok((plugin.into_iter().collect(), config.limits))
}

fn law(name: &str) -> Result<Law, Failure> {
    let known = || Law::ALL.iter().map(|law| law.name());
    Law::parse(name)
        .ok_or_else(|| Failure::usage(format!("there is no law `{name}`: {}", hint(name, known().collect::<Vec<_>>()))))
}

fn case(text: &str) -> Result<Case, Failure> {
    let text = match text.strip_prefix('@') {
        Some(file) => String::from_utf8_lossy(&read(Path::new(file))?).into_owned(),
        None => text.to_owned(),
    };
    Case::parse(&text).map_err(|error| Failure::usage(format!("not a valid case: {error}")))
}

/// One array, or one object after the other.
fn objects<T: DeserializeOwned>(file: &Path, what: &str) -> Result<Vec<T>, Failure> {
    let bytes = read(file)?;
    let array = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let objects: Result<Vec<T>, _> = match array {
        true => serde_json::from_slice(&bytes),
        false => serde_json::Deserializer::from_slice(&bytes).into_iter().collect(),
    };
    objects.map_err(|error| Failure::usage(format!("{} has no {what}: {error}", file.display())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerText {
    method: String,
    url: String,
    status: u16,
    /// JSON, or text as it is; null: none.
    #[serde(default)]
    body: Value,
}

fn answers(file: &Path) -> Result<Vec<Canned>, Failure> {
    let answer = |AnswerText { method, url, status, body }: AnswerText| {
        let wrong = |why: String| Failure::usage(format!("{}: {why}", file.display()));
        let grant = Grant::parse(&url).map_err(|why| wrong(format!("`{url}`: {why}")))?;
        if !(200..600).contains(&status) {
            return Err(wrong(format!("{status} is no status of an answer: 200 to 599")));
        }
        let body = match body {
            Value::Null => Vec::new(),
            Value::String(text) => text.into_bytes(),
            json => json.to_string().into_bytes(),
        };
        Ok(Canned { method, url: grant, answer: Response { status, headers: Vec::new(), body } })
    };
    objects(file, "answers")?.into_iter().map(answer).collect()
}

/// An event that the plugin never gets proves nothing.
fn events(file: &Path, manifest: Option<&Manifest>) -> Result<Vec<Input>, Failure> {
    let events: Vec<Input> = objects(file, "events")?;
    let file = file.display();
    let Some(manifest) = manifest else { return Ok(events) };
    match events.iter().position(|event| manifest.subscription(&event.kind).is_none()) {
        None => Ok(events),
        Some(at) => {
            let known: Vec<&str> = manifest.subscriptions.iter().map(|known| known.kind.as_str()).collect();
            let (kind, known) = (&events[at].kind, known.join(", "));
            Err(Failure::usage(format!("event {} of {file} is a {kind}: {} takes {known}", at + 1, manifest.name)))
        }
    }
}

/// `limit-cents=5000`, typed as the manifest says.
fn setting(text: &str, manifest: Option<&Manifest>) -> Result<(String, Value), Failure> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(Failure::usage(format!("`{text}` is not a setting: write --set KEY=VALUE")));
    };
    let of = manifest.and_then(|manifest| manifest.config.get(key)).map(|key| key.of);
    let as_text = || Value::from(value);
    let value = match of {
        Some(ConfigType::String) => as_text(),
        _ => serde_json::from_str(value).unwrap_or_else(|_| as_text()),
    };
    Ok((key.to_owned(), value))
}

fn budget(file: &Path) -> Result<Budget, Failure> {
    let bytes = read(file)?;
    Budget::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|error| Failure::usage(format!("failed to read {}: {error}", file.display())))
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| failed("read", file, &error))
}

fn failed(what: &str, file: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("failed to {what} {}: {error}", file.display()))
}

pub fn text(report: &Report, file: &Path, out: &Output) -> String {
    let name = report.plugin.as_deref().unwrap_or("no plugin");
    let version = report.version.as_deref().unwrap_or_default();
    let head = format!("{name} {version} ({}), seed {}", file.display(), report.seed);
    let mut text = format!("{}\n\n", notation::line(&head));
    for finding in &report.laws {
        text += &line(finding, out);
    }
    text + &costs(report, out)
}

fn line(finding: &Finding, out: &Output) -> String {
    let tone = match finding.status {
        Status::Pass => Tone::Good,
        Status::Broken => Tone::Bad,
        Status::Waived | Status::NotShown => Tone::Busy,
        Status::NotApplicable => Tone::Faint,
    };
    let word = tone.paint(&format!("{:<9}", finding.status.word()), out.colour);
    let cases = match finding.cases {
        0 | 1 => String::new(),
        cases => format!("{cases} cases"),
    };
    let mut text = format!("  {word}  {:<17}  {cases}", finding.law.name()).trim_end().to_owned() + "\n";
    if finding.status == Status::Broken {
        text += &format!("             law:   {}\n", finding.law.meaning());
    }
    if let Some(why) = &finding.why {
        text += &format!("             {}{}\n", label(finding.status), why_text(why));
    }
    if let Some(case) = finding.counterexample.as_ref().filter(|_| finding.status == Status::Broken) {
        text += &format!("             case:  {}\n", case_text(case));
    }
    if let Some(command) = finding.command.as_ref().filter(|_| finding.status == Status::Broken) {
        text += &format!("             again: {}\n", notation::line(command));
    }
    text
}

/// Several lines, each below the first.
fn why_text(why: &str) -> String {
    why.lines().map(notation::line).collect::<Vec<_>>().join("\n             ")
}

/// JSON of the same meaning, whatever is in its texts.
fn case_text(case: &Case) -> String {
    notation::line(&case.to_string()).into_owned()
}

fn label(status: Status) -> &'static str {
    match status {
        Status::Broken => "but:   ",
        Status::Waived => "waived by its manifest: ",
        Status::Pass | Status::NotShown | Status::NotApplicable => "",
    }
}

fn costs(report: &Report, out: &Output) -> String {
    let Some(cost) = &report.cost else { return String::new() };
    let mut table = Table::new(["cost", "", "allowed"]).indented(2);
    let excess = |what: &str| {
        report.excesses.iter().flatten().find(|excess| excess.what == what).map_or_else(String::new, |excess| {
            excess.allowed.map_or_else(|| "not in the budget".to_owned(), |allowed| format!("at most {allowed}"))
        })
    };
    let mut row = |what: &str, figure: u64| {
        table.row([what.into(), Cell::number(figure), Cell::toned(excess(what), Tone::Bad)]);
    };
    row("component-bytes", cost.component_bytes);
    row("memory-bytes-peak", cost.memory_bytes_peak);
    for (call, fuel) in &cost.fuel {
        row(&format!("fuel of {call}"), *fuel);
    }
    format!("\n{}", table.render(out.colour))
}
