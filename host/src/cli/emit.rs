//! `sagahost emit`. Invariant: what it publishes is what a good producer would: a CloudEvent keyed by saga id, or with
//! `--plain` a JSON record as the topic's mapping reads it.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
};

use clap::Args;
use sagahost_codec::{Codec, KeyForm, without_byte_order_mark};
use sagahost_operator::{
    desk,
    protocol::Request,
    topics::Sources,
    view::{ExampleView, Placed},
};
use sagahost_saga::{
    event::Event,
    id::{EventKey, Kind, SagaId, hex},
    notation::{self, typed},
};
use sagahost_wire::{
    Outgoing,
    clock::{Clock as _, SystemClock},
    topic_name,
};
use serde::Serialize;

use super::{Site, exit::Failure, output::Output, reach};
use crate::config::Config;

#[derive(Debug, Args)]
pub struct Emit {
    /// The event's kind, as OrderCreated.
    kind: String,
    /// The saga that it belongs to, as commands print it; of an example a new one unless given.
    #[arg(long, value_name = "ID", required_unless_present = "example", value_parser = typed)]
    saga: Option<String>,
    /// The event's data: JSON, or @FILE, or - for standard input.
    #[arg(long, value_name = "JSON|@FILE|-", required_unless_present = "example")]
    data: Option<String>,
    /// The data is the example in the manifest of the plugin that takes this kind.
    #[arg(long, conflicts_with = "data")]
    example: bool,
    /// The data directory of an app that runs without a configuration file.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// The event's id: the same id again is the same event. Random unless given.
    #[arg(long, value_name = "ID", value_parser = typed)]
    id: Option<String>,
    /// Where the event comes from.
    #[arg(long, value_name = "TEXT", default_value = "sagahost-emit")]
    source: String,
    /// The topic, where it is not that of the kind.
    #[arg(long)]
    topic: Option<String>,
    /// An attribute of the event (of a plain record: a header); may be repeated.
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = name_value)]
    attributes: Vec<(String, String)>,
    /// A plain record keyed by the saga id, without the headers of CloudEvents.
    #[arg(long, conflicts_with_all = ["id", "source"])]
    plain: bool,
    /// Send the data even when it is not valid JSON.
    #[arg(long)]
    unchecked: bool,
}

#[derive(Debug, Serialize)]
struct Sent {
    saga: String,
    #[serde(flatten)]
    placed: Placed,
}

pub fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl Emit {
    pub fn carry_out(&self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        let config = site.config()?;
        let saga = match &self.saga {
            Some(saga) => saga.clone(),
            None => new_saga()?,
        };
        let record = self.record(&config, &saga)?;
        let kind = Some(self.kind.clone());
        let placed: Placed = match reach::host(&config)? {
            Some(mut client) => {
                let value = client.ask(&Request::Emit { record, kind })?;
                serde_json::from_value(value)?
            }
            None => {
                let sources = Sources { settings: &config.operator(), journal: None, host_runs: false };
                desk::emit(sources, &*reach::transport(&config)?, &record, kind.as_deref())?
            }
        };
        let named = self.saga.is_none();
        out.show(&Sent { saga, placed }, |Sent { saga, placed }, _| {
            sent_text(&self.kind, named.then_some(saga.as_str()), placed)
        })
    }

    fn record(&self, config: &Config, saga: &str) -> Result<Outgoing, Failure> {
        let data = if self.unchecked { self.bytes(config)? } else { self.json(config)? };
        let mut record =
            if self.plain { self.plain_record(config, saga, data) } else { self.cloud_event(config, saga, data)? };
        if let Some(topic) = &self.topic {
            topic_name::check(topic).map_err(Failure::usage)?;
            record.topic = topic.as_str().into();
        }
        record.key = match key(config, &record.topic, saga) {
            // A CloudEvent names its saga itself: where keys are text, any bytes will do.
            Err(_) if !self.plain && config.topics.mapping(&record.topic).key == KeyForm::Text => record.key,
            key => Some(key?),
        };
        Ok(record)
    }

    /// Without a byte order mark, which some editors put in front of a text.
    fn json(&self, config: &Config) -> Result<Vec<u8>, Failure> {
        let data = self.bytes(config)?;
        let json = without_byte_order_mark(&data);
        match serde_json::from_slice::<serde::de::IgnoredAny>(json) {
            Ok(_) => Ok(json.to_vec()),
            Err(error) => {
                Err(Failure::usage(format!("--data is not valid JSON: {error} (--unchecked sends it anyway)")))
            }
        }
    }

    fn bytes(&self, config: &Config) -> Result<Vec<u8>, Failure> {
        let Some(data) = &self.data else {
            let example: ExampleView = reach::ask(config, Request::Example { kind: self.kind.clone() })?;
            return Ok(example.data.to_string().into_bytes());
        };
        if data == "-" {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        match data.strip_prefix('@') {
            Some(file) => fs::read(file).map_err(|error| Failure::usage(format!("failed to read {file}: {error}"))),
            None => Ok(data.clone().into_bytes()),
        }
    }

    fn plain_record(&self, config: &Config, saga: &str, data: Vec<u8>) -> Outgoing {
        Outgoing {
            topic: config.topics.topic_of(&Kind::new(&self.kind)),
            key: Some(saga.as_bytes().to_vec()),
            value: Some(data),
            headers: self
                .attributes
                .iter()
                .map(|(name, value)| (name.clone(), Some(value.clone().into_bytes())))
                .collect(),
        }
    }

    fn cloud_event(&self, config: &Config, saga: &str, data: Vec<u8>) -> Result<Outgoing, Failure> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => random_id()?,
        };
        let mut event = event(&self.kind, saga, EventKey::new(&self.source, id), data);
        event.attributes = self.attributes.clone();
        Ok(encoded(config, &event))
    }
}

/// In the form that readers of the topic expect.
fn key(config: &Config, topic: &str, saga: &str) -> Result<Vec<u8>, Failure> {
    codec(config).key_of(topic, &SagaId::new(saga)).ok_or_else(|| {
        let form = config.topics.mapping(topic).key.name();
        let why = format!("keys of topic {topic} are key = \"{form}\" in [topics.records.{topic:?}]");
        Failure::usage(format!("--saga {saga:?} is not such a key: {why}"))
    })
}

/// Where the event is, and a line where no plugin here handles it.
pub fn sent_text(kind: &str, saga: Option<&str>, placed: &Placed) -> String {
    let of = saga.map(|saga| format!(" of saga {}", notation::id(saga))).unwrap_or_default();
    let at = format!("{}[{}] at {}", placed.topic, placed.partition, placed.offset);
    let mut text = format!("{}{of} is in {}", notation::id(kind), notation::line(&at));
    if let Some(note) = &placed.note {
        text += &format!("\n{}", notation::line(note));
    }
    text
}

/// As a good producer makes it.
pub fn event(kind: &str, saga: &str, key: EventKey, data: Vec<u8>) -> Event {
    Event {
        key,
        saga: SagaId::new(saga),
        kind: Kind::new(kind),
        time: SystemClock.now(),
        content_type: "application/json".into(),
        data: data.into(),
        attributes: Vec::new(),
        hops: 0,
        origin: None,
        record_key: None,
    }
}

pub fn encoded(config: &Config, event: &Event) -> Outgoing {
    codec(config).encode(event)
}

fn codec(config: &Config) -> Codec {
    Codec::new(&config.app, &config.topics, config.pipeline.record_bytes_max)
}

pub fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed("make a random id", &error))?;
    Ok(hex(&bytes))
}

/// Short enough to be typed.
fn new_saga() -> Result<String, Failure> {
    Ok(format!("example-{}", &random_id()?[..8]))
}
