//! `sagahost mock`: compiled plugins in a simulated app, asked line by line. Invariant: every line in has one line out,
//! also one that cannot be read, and no line is longer than the protocol allows.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use sagahost_manifest::{Fault, Limits, settings::Settings};
use sagahost_sandbox::{Engine as Sandbox, admission::admit, pack};
use sagahost_testkit::{
    Code,
    engine::{Engine, Load},
    protocol::{LINE_BYTES_MAX, Reply, Request},
};

use super::{Site, exit::Failure};
use crate::{component::Component, config::Config};

#[derive(Debug, Args)]
pub struct Mock {
    /// Plugin files, all of them in one app.
    #[arg(required = true, value_name = "PLUGIN.wasm")]
    files: Vec<PathBuf>,
    /// Read one JSON request a line on standard input, write one JSON reply a line on standard output.
    #[arg(long, required = true)]
    stdio: bool,
}

impl Mock {
    /// A plugin that cannot be used is reported in the first reply: the caller sees no standard error.
    pub fn carry_out(self, site: &Site) -> Result<(), Failure> {
        let limits = match &site.config {
            Some(file) => Config::load(file)?.limits,
            None => Limits::default(),
        };
        let mut app = match app(&self.files, limits) {
            Ok(app) => App::Ready(Box::new(app)),
            Err(why) => App::Refused(why),
        };
        let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
        while let Some(line) = line(&mut input)? {
            if line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()) {
                continue;
            }
            let reply = line.and_then(|line| read(&line)).map_or_else(Reply::Error, |request| app.answer(request));
            match write(&mut output, &reply) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                written => written?,
            }
        }
        Ok(())
    }
}

enum App {
    Refused(String),
    Ready(Box<Engine>),
    /// The protocol was agreed upon.
    Speaking(Box<Engine>),
}

impl App {
    fn answer(&mut self, request: Request) -> Reply {
        match self {
            Self::Refused(why) => Reply::Error(why.clone()),
            Self::Speaking(engine) => engine.answer(request),
            Self::Ready(engine) if matches!(request, Request::Hello { .. }) => {
                let reply = engine.answer(request);
                if matches!(reply, Reply::Ok(_)) {
                    *self = Self::Speaking(std::mem::take(engine));
                }
                reply
            }
            Self::Ready(_) => Reply::Error(r#"say hello first: {"do": "hello", "protocol": 1}"#.to_owned()),
        }
    }
}

fn app(files: &[PathBuf], limits: Limits) -> Result<Engine, String> {
    let sandbox = Sandbox::new(limits, None).map_err(|error| error.to_string())?;
    let mut app = Engine::new();
    for file in files {
        let bytes = fs::read(file).map_err(|error| format!("failed to read {}: {error}", file.display()))?;
        let bytes: Arc<[u8]> = bytes.into();
        match pack::manifest_of(&bytes) {
            Some(manifest) => app.add(manifest, loader(bytes, file, sandbox.clone()))?,
            // It is not admitted, and the report says why.
            None => match admit(bytes, file, &sandbox, &BTreeMap::new()) {
                Ok(_) => return Err(format!("{} has no manifest that can be read", file.display())),
                Err(report) => return Err(report.to_string()),
            },
        }
    }
    Ok(app)
}

fn loader(bytes: Arc<[u8]>, file: &Path, sandbox: Arc<Sandbox>) -> Load {
    let file = file.to_owned();
    Box::new(move |settings: &Settings| -> Result<Box<dyn Code>, Vec<Fault>> {
        let name = pack::manifest_of(&bytes).map(|manifest| manifest.name).unwrap_or_default();
        let settings = BTreeMap::from([(name, settings.clone())]);
        let admitted = admit(bytes.clone(), &file, &sandbox, &settings).map_err(|report| report.faults)?;
        Ok(Box::new(Component(admitted.plugin)))
    })
}

/// The next line; `Err` inside: it is too long, and was dropped.
fn line(input: &mut impl BufRead) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let read = input.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if line.last() == Some(&b'\n') || read == 0 {
            break;
        }
        if line.len() >= LINE_BYTES_MAX {
            too_long = true;
            line.clear();
        }
    }
    if too_long {
        return Ok(Some(Err(format!("the request has more than {LINE_BYTES_MAX} bytes"))));
    }
    Ok(if line.is_empty() { None } else { Some(Ok(line)) })
}

fn read(line: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(line).map_err(|error| format!("not a valid request: {error}"))
}

fn write(output: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    if line.len() >= LINE_BYTES_MAX {
        let why = format!("the reply would have {} bytes, {LINE_BYTES_MAX} are allowed", line.len());
        line = serde_json::to_vec(&Reply::Error(why))?;
    }
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_said() {
        let mut text = vec![b'x'; LINE_BYTES_MAX + 10];
        text.extend(b"\nnext\nlast");
        let mut input = io::BufReader::new(&text[..]);
        assert!(matches!(line(&mut input), Ok(Some(Err(_)))));
        assert_eq!(line(&mut input).expect("a slice can be read"), Some(Ok(b"next\n".to_vec())));
        assert_eq!(line(&mut input).expect("a slice can be read"), Some(Ok(b"last".to_vec())));
        assert_eq!(line(&mut input).expect("a slice can be read"), None);
    }
}
