//! What is typed into `sagahost dev`. Invariant: a line that is not understood changes nothing and says what is.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    thread,
};

use crossbeam_channel::{Receiver, bounded};
use sagahost_saga::notation::typed;
use sagahost_sandbox::report::hint;

pub const HELP: &str = "\
  example KIND [@SAGA]      send the example of the plugin that takes this kind, of a new saga or of this one
  emit KIND [@SAGA] [JSON]  the same with data of your own
  sagas                     list sagas, newest first
  show SAGA                 one saga, with its whole timeline
  plugins                   what serves
  help                      this
  quit                      end; so does Ctrl-C";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    Nothing,
    /// Without data: the example.
    Emit {
        kind: String,
        saga: Option<String>,
        data: Option<String>,
    },
    Sagas,
    Show {
        saga: String,
    },
    Plugins,
    Help,
    Quit,
}

const WORDS: &[&str] = &["example", "emit", "sagas", "show", "plugins", "help", "quit"];

pub fn parse(line: &str) -> Result<Typed, String> {
    let (word, rest) = split(line);
    let no_more =
        |typed: Typed| if rest.is_empty() { Ok(typed) } else { Err(format!("`{word}` takes no more arguments")) };
    match word {
        "" => Ok(Typed::Nothing),
        "example" => emit(rest, false),
        "emit" => emit(rest, true),
        "sagas" => no_more(Typed::Sagas),
        "show" if rest.is_empty() => Err("which saga? `show SAGA`; `sagas` lists them".to_owned()),
        "show" => show(rest.trim_start_matches('@')),
        "plugins" => no_more(Typed::Plugins),
        "help" | "?" => no_more(Typed::Help),
        "quit" | "exit" => no_more(Typed::Quit),
        other => Err(format!("unknown command `{other}`: {}", hint(other, WORDS.iter().copied()))),
    }
}

fn show(rest: &str) -> Result<Typed, String> {
    match saga(rest)? {
        (saga, "") => Ok(Typed::Show { saga }),
        (_, more) => Err(format!("`show` takes one saga; what is `{more}`?")),
    }
}

fn emit(rest: &str, with_data: bool) -> Result<Typed, String> {
    let (kind, rest) = split(rest);
    if kind.is_empty() {
        return Err("which kind of event? `example OrderCreated`".to_owned());
    }
    let (saga, data) = match rest.strip_prefix('@') {
        Some(rest) => {
            let (saga, data) = saga(rest)?;
            (Some(saga), data)
        }
        None => (None, rest),
    };
    if saga.as_deref() == Some("") {
        return Err("which saga? `@` goes before its id".to_owned());
    }
    if data.is_empty() {
        return Ok(Typed::Emit { kind: kind.to_owned(), saga, data: None });
    }
    if !with_data {
        return Err("`example` takes no data; `emit KIND JSON` does".to_owned());
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(data) {
        return Err(format!("the data is not valid JSON: {error}"));
    }
    Ok(Typed::Emit { kind: kind.to_owned(), saga, data: Some(data.to_owned()) })
}

/// A saga id as it is listed, and what comes behind it. In double quotes it may contain anything.
fn saga(text: &str) -> Result<(String, &str), String> {
    if !text.starts_with('"') {
        let (saga, rest) = split(text);
        return Ok((saga.to_owned(), rest));
    }
    let mut ids = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match ids.next() {
        Some(Ok(id)) => Ok((id, text[ids.byte_offset()..].trim_start())),
        Some(Err(_)) | None => typed(text).map(|id| (id, "")),
    }
}

/// The first word, and what comes behind it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

/// Lines from standard input. Where it is a terminal, its end means quit; elsewhere nobody types, and the host keeps running.
pub fn lines() -> io::Result<Receiver<String>> {
    let (sender, lines) = bounded(16);
    thread::Builder::new().name("prompt".to_owned()).spawn(move || {
        let stdin = io::stdin();
        let typed = stdin.is_terminal();
        for line in stdin.lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        if typed {
            let _ = sender.send("quit".to_owned());
        }
    })?;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Typed, &str>) {
        assert_eq!(parse(line), expected.map_err(str::to_owned));
    }

    #[test]
    fn lines_are_understood() {
        let emit = |kind: &str, saga: Option<&str>, data: Option<&str>| Typed::Emit {
            kind: kind.to_owned(),
            saga: saga.map(str::to_owned),
            data: data.map(str::to_owned),
        };
        check("  ", Ok(Typed::Nothing));
        check("example OrderCreated", Ok(emit("OrderCreated", None, None)));
        check(" example  OrderCreated  @o-1 ", Ok(emit("OrderCreated", Some("o-1"), None)));
        check("emit Paid {\"a\": 1}", Ok(emit("Paid", None, Some("{\"a\": 1}"))));
        check("emit Paid @o-1 {\"a\": 1}", Ok(emit("Paid", Some("o-1"), Some("{\"a\": 1}"))));
        check("show o-1", Ok(Typed::Show { saga: "o-1".to_owned() }));
        check(r#"show "two words\n""#, Ok(Typed::Show { saga: "two words\n".to_owned() }));
        check(r#"emit Paid @"a b" {"a": 1}"#, Ok(emit("Paid", Some("a b"), Some("{\"a\": 1}"))));
        check("quit", Ok(Typed::Quit));
    }

    #[test]
    fn what_is_not_understood_is_answered_with_what_is() {
        check("emti Paid", Err("unknown command `emti`: did you mean `emit`?"));
        check("emit", Err("which kind of event? `example OrderCreated`"));
        check("emit Paid @", Err("which saga? `@` goes before its id"));
        check("emit Paid {a}", Err("the data is not valid JSON: key must be a string at line 1 column 2"));
        check("example Paid {}", Err("`example` takes no data; `emit KIND JSON` does"));
        check("show", Err("which saga? `show SAGA`; `sagas` lists them"));
        check("show o-1 o-2", Err("`show` takes one saga; what is `o-2`?"));
        check("quit now", Err("`quit` takes no more arguments"));
    }
}
