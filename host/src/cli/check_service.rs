//! `sagahost check --url`: does a service that runs keep what it owes whoever calls it? Invariant: it is sent nothing but calls
//! under keys and saga ids that nobody has used before.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use http::{HeaderName, Uri};
use sagahost_check::Input;
use sagahost_manifest::Manifest;
use sagahost_net::{Bounds, Client, Runtime, Secret, SentHeader, without_query};
use sagahost_remote::{
    RemoteSettings, faults,
    laws::{Finding, Trial, Verdict},
};
use sagahost_saga::{id, notation};

use super::{
    exit::{Exit, Failure},
    output::{Output, say},
    table::Tone,
};
use crate::config::{is_own, parse_url};

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Args)]
pub struct Service {
    /// Instead of a plugin: a service that runs, where it is sent steps. It is sent some that nobody ordered.
    #[arg(long, value_name = "URL", value_parser = parse_url, conflicts_with = "plugin", requires = "manifest")]
    url: Option<Uri>,
    /// Where it is sent their undoing.
    #[arg(long, value_name = "URL", value_parser = parse_url, requires = "url")]
    undo_url: Option<Uri>,
    /// The service's manifest. In its examples, "{saga}" stands for the id of a saga that nobody has used before.
    #[arg(long, value_name = "FILE", requires = "url")]
    manifest: Option<PathBuf>,
    /// Sent with each call; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header, requires = "url")]
    headers: Vec<SentHeader>,
}

impl Service {
    pub fn is_named(&self) -> bool {
        self.url.is_some()
    }

    /// `events`: reads a file of them.
    pub fn carry_out(
        self,
        out: &mut Output,
        events: impl FnOnce(&Manifest) -> Result<Vec<Input>, Failure>,
    ) -> Result<(), Failure> {
        let (Some(url), Some(file)) = (self.url, self.manifest) else {
            return Err(Failure::usage("name the service with --url and its manifest with --manifest"));
        };
        let bytes = super::check::read(&file)?;
        let told = |faults: Vec<sagahost_manifest::Fault>| {
            let lines: Vec<String> =
                faults.iter().map(|fault| format!("{}: {} ({})", fault.place, fault.what, fault.fix)).collect();
            Failure::usage(format!("{}: {}", file.display(), lines.join("; ")))
        };
        let manifest = Manifest::of_service(&bytes).map_err(told)?;
        let settings = RemoteSettings {
            manifest: file.clone(),
            url,
            undo_url: self.undo_url,
            timeout: TIMEOUT,
            calls_at_once_max: 2,
            rejected: Vec::new(),
            headers: self.headers,
        };
        let wrong = faults(&manifest, &manifest.name, &settings);
        if !wrong.is_empty() {
            return Err(told(wrong));
        }
        let examples = examples(&manifest, events(&manifest)?)?;
        let bounds = Bounds { timeout: TIMEOUT, connect_timeout: TIMEOUT / 2, body_bytes_max: ANSWER_BYTES_MAX };
        let client = Client::new(bounds).map_err(|error| failed(&error))?;
        let runtime = Runtime::start().map_err(|error| failed(&error))?;
        let mut tag = [0; 6];
        getrandom::fill(&mut tag).map_err(|error| failed(&error))?;
        if !out.json {
            say(&format!("asking {} with {} kinds of events", without_query(&settings.url), examples.len()));
        }
        let trial = Trial { manifest, settings, client, limits: Arc::default(), tag: id::hex(&tag) };
        let findings = runtime.block_on(trial.run(&examples));
        out.show(&findings, |findings, out| findings.iter().map(|finding| line(finding, out)).collect())?;
        verdict(&findings)
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Exit::Failed, notation::with_causes(error))
}

/// Of each kind one event: of the file, else of the manifest.
fn examples(manifest: &Manifest, events: Vec<Input>) -> Result<Vec<(String, String)>, Failure> {
    let example = |subscription: &sagahost_manifest::manifest::Subscription| {
        let given = events.iter().find(|event| event.kind == subscription.kind);
        let data = match given {
            Some(event) => String::from_utf8_lossy(&event.body.bytes()).into_owned(),
            None => subscription.example.as_ref()?.to_string(),
        };
        Some((subscription.kind.clone(), data))
    };
    let examples: Vec<_> = manifest.subscriptions.iter().filter_map(example).collect();
    if examples.is_empty() {
        let text = "there is no event to send: write an `example` into the manifest's subscriptions, or name a file with --events";
        return Err(Failure::usage(text));
    }
    Ok(examples)
}

fn header(text: &str) -> Result<SentHeader, String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    let name = HeaderName::try_from(name.trim()).map_err(|error| error.to_string())?;
    if is_own(&name) {
        return Err(format!("{name} is the host's own"));
    }
    let value = value.trim();
    http::HeaderValue::from_str(value).map_err(|_| "it has characters that no HTTP header can carry".to_owned())?;
    Ok(SentHeader { name, value: Secret::new(value), shown: "(hidden)".into() })
}

fn line(finding: &Finding, out: &Output) -> String {
    let (tone, word) = match finding.verdict {
        Verdict::Kept => (Tone::Good, "pass"),
        Verdict::Broken => (Tone::Bad, "BROKEN"),
        Verdict::NotShown => (Tone::Busy, "not shown"),
    };
    let word = tone.paint(&format!("{word:<9}"), out.colour);
    let mut text = format!("  {word}  {:<17}  {}\n", finding.law.name(), notation::line(&finding.kind));
    if finding.verdict == Verdict::Broken {
        text += &format!("             law:   {}\n", finding.law.meaning());
    }
    if finding.verdict != Verdict::Kept {
        text += &format!("             but:   {}\n", notation::line(&finding.why));
    }
    text
}

fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    let mut broken: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Broken)
        .map(|finding| finding.law.name())
        .collect();
    broken.dedup();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::LawBroken, format!("it breaks {}", broken.join(", "))))
}
