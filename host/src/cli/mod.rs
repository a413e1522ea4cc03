//! The command line: one noun per file. Invariant: what people see is printed from the same plain data as `--json`, and
//! every way to end has an exit code of its own (see `exit`).

mod exit;
mod output;
mod reach;
mod table;
mod time_text;

mod run;

mod dead_letters;
mod emit;
mod outbox;
mod plugin_text;
mod sagas;
mod timeline;

mod build;
mod check;
mod check_service;
mod config;
mod dev;
mod mock;
mod new;
mod plugins;
mod plugins_await;
mod status;
mod topics;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use sagahost_sandbox::compiler;

use self::{exit::Failure, output::Output};

/// Runs sagas over Kafka: participants are WebAssembly plugins in a directory, everything else is the host's work.
#[derive(Debug, Parser)]
#[command(name = "sagahost", version, max_term_width = 100, after_help = exit::HELP)]
pub struct Cli {
    /// The configuration file; without it, and without a data directory: ./sagahost.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON for machines: the same facts that people see.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Which app a command is about.
#[derive(Clone, Debug, Default)]
struct Site {
    config: Option<PathBuf>,
    data: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Args)]
struct Place {
    /// The data directory of an app that runs without a configuration file.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Commands about one thing.
#[derive(Debug, Args)]
struct Noun<T: Subcommand> {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    what: T,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host until Ctrl-C or SIGTERM.
    Run(run::Run),
    /// Publish one event.
    Emit(emit::Emit),
    /// Look at sagas and decide where they need an operator.
    Sagas(Noun<sagas::Sagas>),
    /// Records that the host gave up on.
    #[command(visible_alias = "dlq")]
    DeadLetters(Noun<dead_letters::DeadLetters>),
    /// Batches that are journaled and not yet published.
    Outbox(Noun<outbox::Outbox>),
    /// Topics that the app reads and writes.
    Topics(Noun<topics::Topics>),
    /// The configuration: is it right, what is in force.
    Config(Noun<config::Config>),
    /// Plugins, and what they keep.
    Plugins(Noun<plugins::Plugins>),
    /// Make a plugin crate that builds and has tests.
    New(new::New),
    /// Run a host for a plugin that is being written: it is built and reloaded with each change.
    Dev(dev::Dev),
    /// Build plugins from Rust crates: DIR/NAME.wasm each.
    Build(build::Build),
    /// Show that a plugin keeps the laws of plugins, or the shortest case in which it does not.
    Check(Box<check::Check>),
    /// Try compiled plugins out in a simulated app, from any language.
    Mock(mock::Mock),
    /// What the app is doing, and what it waits for.
    Status(Place),
}

/// The first argument of a process that compiles a plugin for a host, and does nothing else; no command for people.
const COMPILES: &str = "--compiles-a-plugin";

/// Parses the process's arguments, carries the command out, and says how the process should end.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == COMPILES) {
        return match compiler::answer(std::io::stdin().lock(), std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let mut out = Output::to_stdout(cli.json);
    let ended = cli.carry_out(&mut out);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failed(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

impl Cli {
    fn carry_out(self, out: &mut Output) -> Result<(), Failure> {
        let at = |place: Place| Site { config: self.config, data: place.data };
        match self.command {
            Command::Run(run) => run.carry_out(&at(run.place.clone()), out),
            Command::Emit(emit) => emit.carry_out(&at(Place { data: emit.data_dir.clone() }), out),
            Command::Sagas(sagas) => sagas.what.carry_out(&at(sagas.place), out),
            Command::DeadLetters(letters) => letters.what.carry_out(&at(letters.place), out),
            Command::Outbox(outbox) => outbox.what.carry_out(&at(outbox.place), out),
            Command::Topics(topics) => topics.what.carry_out(&at(topics.place), out),
            Command::Config(config) => config.what.carry_out(&at(config.place), out),
            Command::Plugins(plugins) => plugins.what.carry_out(&at(plugins.place), out),
            Command::New(new) => new.carry_out(out),
            Command::Dev(dev) => dev.carry_out(&at(Place::default()), out),
            Command::Build(build) => build.carry_out(out),
            Command::Check(check) => check.carry_out(&at(Place::default()), out),
            Command::Mock(mock) => mock.carry_out(&at(Place::default())),
            Command::Status(place) => status::carry_out(&at(place), out),
        }
    }
}

/// Who did it, for the timeline.
#[derive(Clone, Debug, Args)]
struct Operator {
    /// Your name, for the saga's timeline.
    #[arg(long, value_name = "NAME", default_value_t = operator())]
    by: String,
}

fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "operator".to_owned())
}
