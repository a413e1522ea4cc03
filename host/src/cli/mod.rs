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
mod sagas;
mod timeline;

mod build;
mod config;
mod plugins;
mod status;
mod topics;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::{exit::Failure, output::Output};

/// Runs sagas over Kafka: participants are WebAssembly plugins in a directory, everything else is the host's work.
#[derive(Debug, Parser)]
#[command(name = "sagahost", version, max_term_width = 100, after_help = exit::HELP)]
pub struct Cli {
    #[command(flatten)]
    site: Site,
    /// Print JSON for machines: the same facts that people see.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Which app a command is about. Without any of these: `./sagahost.toml`.
#[derive(Clone, Debug, Default, Args)]
struct Site {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory of an app that runs without a configuration file.
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "config")]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host until Ctrl-C or SIGTERM.
    Run(run::Run),
    /// Publish one event.
    Emit(emit::Emit),
    /// Look at sagas and decide where they wait for somebody.
    #[command(subcommand)]
    Sagas(sagas::Sagas),
    /// Records that the host gave up on.
    #[command(subcommand, visible_alias = "dlq")]
    DeadLetters(dead_letters::DeadLetters),
    /// Batches that are journaled and not yet published.
    #[command(subcommand)]
    Outbox(outbox::Outbox),
    /// Topics that the app reads and writes.
    #[command(subcommand)]
    Topics(topics::Topics),
    /// The configuration: is it right, what is in force.
    #[command(subcommand)]
    Config(config::Config),
    /// Plugins, and what they keep.
    #[command(subcommand)]
    Plugins(plugins::Plugins),
    /// Build plugins from Rust crates: DIR/NAME.wasm each.
    Build(build::Build),
    /// What the app is doing, and what it waits for.
    Status,
}

/// Parses the process's arguments, carries the command out, and says how the process should end.
pub fn main() -> ExitCode {
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
        let site = &self.site;
        match self.command {
            Command::Run(run) => run.carry_out(site, out),
            Command::Emit(emit) => emit.carry_out(site, out),
            Command::Sagas(sagas) => sagas.carry_out(site, out),
            Command::DeadLetters(letters) => letters.carry_out(site, out),
            Command::Outbox(outbox) => outbox.carry_out(site, out),
            Command::Topics(topics) => topics.carry_out(site, out),
            Command::Config(config) => config.carry_out(site, out),
            Command::Plugins(plugins) => plugins.carry_out(site, out),
            Command::Build(build) => build.carry_out(out),
            Command::Status => status::carry_out(site, out),
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
