//! Compiling a component, here or in a process of its own that has bounds on memory and time. Invariant: whatever a file does
//! to the compiler, the host that asked for it gets an answer within the time that is allowed, and keeps its memory.
//!
//! The process is this program again, told what to do through its standard input (`Header`, then the component) and giving
//! back its answer through its standard output: one byte that says which it is, then code or faults.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{self, Resource, Rlimit, Signal};
use sagahost_manifest::{Fault, Limits};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    engine::{Meter, config},
    shape,
};

/// Compiled code has three to five times the bytes of a component that was measured.
const CODE_BYTES_PER_BYTE_MAX: usize = 32;
const CODE_BYTES_MIN: usize = 16 << 20;
/// Of its last words.
const WORDS_BYTES_MAX: u64 = 4 << 10;
/// A machine that is busy gives it less than a core: so much longer than its time on a processor it may take.
const WALL_PER_CPU: u32 = 20;
/// The host's own work goes first.
const NICE: i32 = 10;
const CODE: u8 = b'C';
const FAULTS: u8 = b'F';

/// Where components are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In this process: for commands that a person watches.
    Here,
    /// In a process of its own: this program with these arguments, which calls [`answer`].
    Process { program: PathBuf, arguments: Vec<OsString> },
}

/// What kept a component from being compiled.
#[derive(Clone, Debug, Error)]
#[error("{}", faults.iter().map(|fault| &*fault.what).collect::<Vec<_>>().join("; "))]
pub struct CompileError {
    pub faults: Vec<Fault>,
    /// Not the file's fault but this machine's: another time it may be compiled.
    pub passing: bool,
}

impl CompileError {
    fn of_the_file(faults: Vec<Fault>) -> Self {
        Self { faults, passing: false }
    }

    fn of_the_machine(fault: Fault) -> Self {
        Self { faults: vec![fault], passing: true }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    limits: Limits,
    metered: bool,
}

impl Compiler {
    /// `engine`: of this process.
    pub(crate) fn compile(
        &self,
        bytes: &[u8],
        engine: &wasmtime::Engine,
        limits: &Limits,
        meter: Meter,
    ) -> Result<Vec<u8>, CompileError> {
        match self {
            Self::Here => compile_with(engine, bytes),
            Self::Process { program, arguments } => {
                let mut command = Command::new(program);
                // The allocator would reserve a gibibyte of the address space that the compiler is given.
                command.args(arguments).env_clear().env("MIMALLOC_ARENA_RESERVE", "0").current_dir("/");
                let header = Header { limits: limits.clone(), metered: meter == Meter::Fuel };
                in_process(command, &header, bytes)
            }
        }
    }
}

/// What the compiler's process does: reads what to compile, binds itself, answers.
///
/// # Errors
/// It was not asked what it should be, or its answer cannot be written.
pub fn answer(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let mut header = vec![0; u32::from_le_bytes(length) as usize];
    input.read_exact(&mut header)?;
    let Header { limits, metered } = serde_json::from_slice(&header)?;
    bind(&limits)?;
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    // What is compiled does not hang on how many run at once, and a pool of one needs next to no address space.
    let limits = Limits { instances_max: 1, ..limits };
    let engine = wasmtime::Engine::new(&config(&limits, if metered { Meter::Fuel } else { Meter::Off }));
    let compiled = engine.map_err(CompileError::from).and_then(|engine| compile_with(&engine, &bytes));
    let (kind, answer) = match compiled {
        Ok(code) => (CODE, code),
        Err(CompileError { faults, .. }) => (FAULTS, serde_json::to_vec(&faults)?),
    };
    output.write_all(&[kind])?;
    output.write_all(&answer)?;
    output.flush()
}

/// This process can use no more than this from here on, writes no file, and does not outlive who started it.
fn bind(limits: &Limits) -> io::Result<()> {
    let seconds = u64::from(limits.compile_seconds_max);
    let memory = limits.compile_memory_bytes_max as u64;
    let bounds = [
        (Resource::Data, memory, memory),
        // The first is a signal that says what it is.
        (Resource::Cpu, seconds, seconds + 1),
        (Resource::Fsize, 0, 0),
        (Resource::Core, 0, 0),
    ];
    for (resource, current, maximum) in bounds {
        process::setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })?;
    }
    process::nice(NICE)?;
    #[cfg(target_os = "linux")]
    process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

fn compile_with(engine: &wasmtime::Engine, bytes: &[u8]) -> Result<Vec<u8>, CompileError> {
    let faults = shape::faults(bytes);
    if !faults.is_empty() {
        return Err(CompileError::of_the_file(faults));
    }
    Ok(engine.precompile_component(bytes)?)
}

fn in_process(mut command: Command, header: &Header, bytes: &[u8]) -> Result<Vec<u8>, CompileError> {
    let failed = |error: &dyn std::fmt::Display| {
        let what = format!("failed to start its compiler: {error}");
        let fix = "look for what this program may not do, or has too little of; it is tried again";
        CompileError::of_the_machine(Fault::new(what, "the host", fix))
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let header_bytes = serde_json::to_vec(header).map_err(|error| failed(&error))?;
    let limits = &header.limits;
    let wall = Duration::from_secs(u64::from(limits.compile_seconds_max)) * WALL_PER_CPU;
    let talk = Talk { header: &header_bytes, bytes, wall };
    let said = talk.with(&mut child).map_err(|error| failed(&error))?;
    match said {
        Said { answer: Some(mut answer), .. } if answer.first() == Some(&CODE) => {
            answer.remove(0);
            Ok(answer)
        }
        Said { answer: Some(answer), words, status } => {
            match serde_json::from_slice(answer.get(1..).unwrap_or_default()) {
                Ok(faults) if answer[0] == FAULTS => Err(CompileError::of_the_file(faults)),
                Ok(_) | Err(_) => Err(ended(status, &words, limits)),
            }
        }
        Said { answer: None, .. } => {
            let what =
                format!("its compiler got too little of the processors: it did not end within {} s", wall.as_secs());
            Err(CompileError::of_the_machine(Fault::new(what, "the host", "it is tried again")))
        }
    }
}

struct Talk<'t> {
    header: &'t [u8],
    bytes: &'t [u8],
    wall: Duration,
}

struct Said {
    /// None: it did not end in time.
    answer: Option<Vec<u8>>,
    words: Vec<u8>,
    status: ExitStatus,
}

impl Talk<'_> {
    /// All three pipes at once: whoever fills one while the other end fills another would wait for ever.
    fn with(&self, child: &mut Child) -> io::Result<Said> {
        let max = (self.bytes.len() * CODE_BYTES_PER_BYTE_MAX).max(CODE_BYTES_MIN) as u64;
        let (Some(mut input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("it has no pipes"));
        };
        thread::scope(|scope| {
            scope.spawn(move || {
                let length = u32::try_from(self.header.len()).unwrap_or(u32::MAX).to_le_bytes();
                // One that has ended reads nothing more: its end says why.
                let _ = [&length[..], self.header, self.bytes].iter().try_for_each(|part| input.write_all(part));
            });
            let words = scope.spawn(move || read(errors, WORDS_BYTES_MAX));
            let (sender, receiver) = mpsc::channel();
            scope.spawn(move || sender.send(read(output, max)));
            let answer = receiver.recv_timeout(self.wall).ok();
            if answer.is_none() {
                child.kill()?;
            }
            let status = child.wait()?;
            Ok(Said { answer, words: words.join().unwrap_or_default(), status })
        })
    }
}

/// The rest is thrown away.
fn read(mut from: impl Read, max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.by_ref().take(max).read_to_end(&mut bytes);
    let _ = io::copy(&mut from, &mut io::sink());
    bytes
}

fn ended(status: ExitStatus, words: &[u8], limits: &Limits) -> CompileError {
    use std::os::unix::process::ExitStatusExt as _;
    let words = String::from_utf8_lossy(words);
    let of_the_file = |what, fix| CompileError::of_the_file(vec![Fault::new(what, "the component", fix)]);
    if status.signal() == Some(Signal::XCPU.as_raw()) {
        let what = format!("compiling it takes more than {} s of a processor", limits.compile_seconds_max);
        return of_the_file(what, "raise `compile-seconds-max` in `[limits]`, or make the plugin smaller");
    }
    if status.signal() == Some(Signal::KILL.as_raw()) {
        let what = "its compiler was killed from outside, as a kernel that is short of memory does";
        return CompileError::of_the_machine(Fault::new(what, "the host", "it is tried again"));
    }
    if words.contains("memory allocation") || words.contains("out of memory") {
        let what = format!("compiling it takes more than {} bytes of memory", limits.compile_memory_bytes_max);
        return of_the_file(what, "raise `compile-memory-bytes-max` in `[limits]`, or make the plugin smaller");
    }
    let what = format!("its compiler ended with {status}: {}", words.trim());
    of_the_file(what, "build it with another version of its toolchain")
}

impl From<wasmtime::Error> for CompileError {
    fn from(error: wasmtime::Error) -> Self {
        let reason = format!("{error:#}");
        let fault = |what: String, fix: &str| Self::of_the_file(vec![Fault::new(what, "the component", fix)]);
        let pool = [&["exceeds the configured"][..], &["has a minimum", "exceeds the limit"]];
        if pool.iter().any(|words| words.iter().all(|words| reason.contains(words))) {
            let fix = "raise `core-instances-max`, `memories-max`, `tables-max` or `instance-bytes-max` in `[limits]`";
            return fault(format!("it does not fit into the pool of instances: {reason}"), fix);
        }
        let fix = "build it again; if that does not help, its toolchain uses what this host does not support";
        fault(format!("it cannot be compiled: {reason}"), fix)
    }
}
