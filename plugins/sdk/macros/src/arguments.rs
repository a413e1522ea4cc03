//! What stands in the parentheses of `#[participant(…)]`, `#[on(…)]` and `#[undo(…)]`.

use proc_macro2::Span;
use syn::{
    Ident, LitInt, LitStr, Path, parenthesized,
    parse::{Parse, ParseStream},
    spanned::Spanned,
};

use crate::{
    manifest::{Kind, list},
    words::{Words, comma, equals, one_of},
};

/// Of the participant.
#[derive(Default)]
pub struct Arguments {
    pub name: Option<LitStr>,
    pub emits: Vec<Kind>,
    pub starts: Vec<Kind>,
    pub compensate_on: Vec<Kind>,
    pub finish_on: Vec<Kind>,
    pub finishes: bool,
    /// Where it sends requests.
    pub http: Vec<LitStr>,
    pub data_format: Option<LitInt>,
    pub reads: Vec<LitInt>,
    /// Names of laws with the reasons.
    pub waivers: Vec<(Ident, LitStr)>,
}

const ARGUMENTS: &[&str] =
    &["name", "emits", "starts", "compensate_on", "finish_on", "finishes", "http", "data_format", "reads", "waive"];

impl Parse for Arguments {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut arguments = Self::default();
        let mut words = Words::default();
        while !input.is_empty() {
            let name = words.next(input, ARGUMENTS)?;
            if name == "finishes" {
                arguments.finishes = true;
            } else if name == "waive" {
                arguments.waivers.extend(waivers(input)?);
            } else {
                arguments.value(input, &name)?;
            }
            comma(input)?;
        }
        Ok(arguments)
    }
}

impl Arguments {
    fn value(&mut self, input: ParseStream, name: &Ident) -> syn::Result<()> {
        let word = name.to_string();
        equals(
            input,
            name,
            match word.as_str() {
                "name" => "\"payment\"",
                "data_format" => "2",
                "reads" => "[1, 2]",
                "http" => "[\"https://gateway.example/v1\"]",
                _ => "[OrderPaid, \"OrderCancelled\"]",
            },
        )?;
        match word.as_str() {
            "name" => self.name = Some(participant_name(input)?),
            "data_format" => self.data_format = Some(format_number(input)?),
            "reads" => self.reads = list(input)?,
            "http" => self.http = list(input)?,
            "emits" => self.emits = list(input)?,
            "starts" => self.starts = list(input)?,
            "compensate_on" => self.compensate_on = list(input)?,
            _ => self.finish_on = list(input)?,
        }
        Ok(())
    }
}

/// `(restores_state = "the reason", …)`
fn waivers(input: ParseStream) -> syn::Result<Vec<(Ident, LitStr)>> {
    let content;
    parenthesized!(content in input);
    let mut waivers = Vec::new();
    while !content.is_empty() {
        let law: Ident = content.parse()?;
        equals(&content, &law, "\"what remains, and why\"")?;
        waivers.push((law, content.parse()?));
        comma(&content)?;
    }
    Ok(waivers)
}

fn participant_name(input: ParseStream) -> syn::Result<LitStr> {
    let name: LitStr = input.parse()?;
    let text = name.value();
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.chars().all(letters);
    if good {
        return Ok(name);
    }
    let text = format!(
        "`{text}` is not a valid name for a participant: lower-case letters, digits and hyphens, a letter first"
    );
    Err(syn::Error::new(name.span(), text))
}

fn format_number(input: ParseStream) -> syn::Result<LitInt> {
    let number: LitInt = input.parse()?;
    number.base10_parse::<u32>()?;
    Ok(number)
}

/// Of a handler.
pub struct On {
    pub kind: Path,
    pub role: Option<Ident>,
    pub after: Vec<Kind>,
    /// Keys of the manifest with their JSON.
    pub rest: Vec<(&'static str, String)>,
    pub retry: Vec<(&'static str, String)>,
}

const ROLES: &[&str] = &["compensable", "nothing_to_undo", "pivot", "retriable"];
const ON_ARGUMENTS: &[&str] = &[
    "role",
    "after",
    "when",
    "from",
    "attempts",
    "backoff_ms",
    "backoff_max_ms",
    "deadline_ms",
    "park_ttl_ms",
    "on_dead_letter",
    "undo_bytes_max",
];

impl Parse for On {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut on = Self { kind: event_type(input, "on")?, role: None, after: vec![], rest: vec![], retry: vec![] };
        comma(input)?;
        let mut words = Words::default();
        while !input.is_empty() {
            let name = words.next(input, ON_ARGUMENTS)?;
            on.value(input, &name)?;
            comma(input)?;
        }
        Ok(on)
    }
}

impl On {
    fn value(&mut self, input: ParseStream, name: &Ident) -> syn::Result<()> {
        let word = name.to_string();
        equals(
            input,
            name,
            match word.as_str() {
                "role" => "pivot",
                "after" => "[OrderPaid]",
                "when" => "both",
                "from" => "earliest",
                "on_dead_letter" => "block",
                _ => "1_000",
            },
        )?;
        match word.as_str() {
            "role" => self.role = Some(one_of(input, "role", ROLES)?),
            "after" => self.after = list(input)?,
            "when" => self.rest.push(("when", quoted(input, "time for a subscription", &WHEN)?)),
            "from" => self.rest.push(("from", quoted(input, "start position", &FROM)?)),
            "on_dead_letter" => {
                self.rest.push(("on-dead-letter", quoted(input, "choice after a dead letter", &ON_DEAD_LETTER)?));
            }
            "deadline_ms" => self.rest.push(("deadline-ms", number(input)?)),
            "park_ttl_ms" => self.rest.push(("park-ttl-ms", number(input)?)),
            "undo_bytes_max" => self.rest.push(("undo-bytes-max", number(input)?)),
            "attempts" => self.retry.push(("attempts-max", number(input)?)),
            "backoff_ms" => self.retry.push(("base-ms", number(input)?)),
            _ => self.retry.push(("cap-ms", number(input)?)),
        }
        Ok(())
    }

    pub fn role(&self) -> String {
        self.role.as_ref().map_or_else(|| "compensable".to_owned(), ToString::to_string)
    }
}

const WHEN: [&str; 3] = ["running", "compensating", "both"];
const FROM: [&str; 2] = ["now", "earliest"];
const ON_DEAD_LETTER: [&str; 3] = ["compensate", "block", "skip"];

fn quoted(input: ParseStream, what: &str, known: &[&str]) -> syn::Result<String> {
    let word = one_of(input, what, known)?;
    Ok(format!("\"{}\"", word.to_string().replace('_', "-")))
}

fn number(input: ParseStream) -> syn::Result<String> {
    Ok(input.parse::<LitInt>()?.base10_parse::<u64>()?.to_string())
}

/// `#[undo(Kind)]`
pub struct Undo {
    pub kind: Path,
}

impl Parse for Undo {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let kind = event_type(input, "undo")?;
        if input.is_empty() {
            return Ok(Self { kind });
        }
        Err(input.error("`#[undo(…)]` takes the event and nothing else; arguments belong in its `#[on(…)]`"))
    }
}

fn event_type(input: ParseStream, attribute: &str) -> syn::Result<Path> {
    if input.is_empty() || input.peek(LitStr) {
        return Err(input.error(format!("which event? `#[{attribute}(OrderCreated)]` names its type")));
    }
    input.parse()
}

/// Parses the arguments of an attribute, which may be missing altogether.
pub fn of<T: Parse>(attribute: &syn::Attribute) -> syn::Result<T> {
    match &attribute.meta {
        syn::Meta::Path(path) => {
            let name = path.get_ident().map(ToString::to_string).unwrap_or_default();
            Err(missing(path.span(), &name))
        }
        syn::Meta::List(_) | syn::Meta::NameValue(_) => attribute.parse_args(),
    }
}

fn missing(span: Span, attribute: &str) -> syn::Error {
    syn::Error::new(span, format!("which event? `#[{attribute}(OrderCreated)]` names its type"))
}
