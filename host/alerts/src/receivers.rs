//! Who hears of it. Invariant: what a receiver does not acknowledge in time is sent again at the next look, and holds up no
//! other receiver.

use std::{io, process::Stdio, time::Duration};

use http::{HeaderValue, Method, Request, Uri, header};
use hyper::body::Bytes;
use sagahost_codec::timestamp;
use sagahost_net::{Client, Failed, SentHeader};
use sagahost_saga::id::Time;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{look::Alert, settings::AlertSettings, told::News};

/// For a program to take it in.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// An alert that is not told again in so many intervals is over for Alertmanager.
const INTERVALS: u32 = 4;
const ALERTS_PATH: &str = "/api/v2/alerts";

/// What a webhook and a program are sent.
#[derive(Serialize)]
struct Message<'m> {
    version: u32,
    app: &'m str,
    at: String,
    firing: Vec<Told<'m>>,
    resolved: Vec<Told<'m>>,
}

#[derive(Serialize)]
struct Told<'m> {
    summary: String,
    #[serde(flatten)]
    alert: &'m Alert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    Alertmanager,
    Webhook,
    Command,
}

impl Receiver {
    pub const ALL: [Self; 3] = [Self::Alertmanager, Self::Webhook, Self::Command];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Alertmanager => "alertmanager",
            Self::Webhook => "webhook",
            Self::Command => "command",
        }
    }

    /// Has it anything to hear? Alertmanager hears of everything each time, and forgets it otherwise.
    pub fn hears(self, settings: &AlertSettings, news: &News) -> bool {
        match self {
            Self::Alertmanager => {
                settings.alertmanager.is_some() && !(news.firing.is_empty() && news.resolved.is_empty())
            }
            Self::Webhook => settings.webhook.is_some() && news.is_new,
            Self::Command => !settings.command.is_empty() && news.is_new,
        }
    }

    /// # Errors
    /// It did not acknowledge it: why.
    pub async fn tell(
        self,
        settings: &AlertSettings,
        client: &Client,
        app: &str,
        news: &News,
        now: Time,
    ) -> Result<(), String> {
        match self {
            Self::Alertmanager => {
                let Some(url) = &settings.alertmanager else { return Ok(()) };
                let url = format!("{}{ALERTS_PATH}", url.to_string().trim_end_matches('/'));
                let url: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
                post(client, &url, &settings.headers, alertmanager(app, news, now, settings.interval)).await
            }
            Self::Webhook => {
                let Some(url) = &settings.webhook else { return Ok(()) };
                post(client, url, &settings.headers, message(app, news, now)).await
            }
            Self::Command => run(&settings.command, message(app, news, now).to_string()).await,
        }
    }
}

fn message(app: &str, news: &News, now: Time) -> Value {
    let told = |alert| Told { summary: Alert::summary(alert, app), alert };
    let message = Message {
        version: 1,
        app,
        at: timestamp::format(now),
        firing: news.firing.iter().map(told).collect(),
        resolved: news.resolved.iter().map(told).collect(),
    };
    serde_json::to_value(message).expect("it has only text keys, so it can be JSON")
}

/// Alertmanager's API, version 2: what fires until a few intervals from now, what is resolved until now.
pub(crate) fn alertmanager(app: &str, news: &News, now: Time, interval: Duration) -> Value {
    let alert = |alert: &Alert, ends: Time| {
        json!({
            "labels": {
                "alertname": format!("sagahost-{}", alert.name),
                "app": app,
                "participant": alert.participant.as_deref().unwrap_or_default(),
                "code": alert.code,
            },
            "annotations": {
                "summary": alert.summary(app),
                "ids": alert.ids.join(", "),
                "command": alert.command,
            },
            "endsAt": timestamp::format(ends),
        })
    };
    let firing = news.firing.iter().map(|firing| alert(firing, now.after(interval * INTERVALS)));
    firing.chain(news.resolved.iter().map(|resolved| alert(resolved, now))).collect()
}

async fn post(client: &Client, url: &Uri, headers: &[SentHeader], body: Value) -> Result<(), String> {
    let mut request = Request::new(Bytes::from(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for header in headers {
        header.insert_into(request.headers_mut());
    }
    match client.ask(request).await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("it answered {}", response.status())),
        Err(Failed::Unsent { what, .. } | Failed::Sent { what, .. }) => Err(what),
    }
}

/// The program gets JSON on its standard input, no shell, and nothing of this host's environment.
async fn run(command: &[String], input: String) -> Result<(), String> {
    let [program, arguments @ ..] = command else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("failed to start {program}: {error}"))?;
    let done = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that reads nothing says with its end whether that is right.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait().await
    };
    let ended: Result<io::Result<_>, _> = tokio::time::timeout(COMMAND_TIMEOUT, done).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("failed to wait for {program}: {error}")),
        Err(_) => Err(format!("{program} did not end within {} s", COMMAND_TIMEOUT.as_secs())),
    }
}
