//! Somebody who writes a plugin: an empty directory outside of the repository, a shell, and the installed binary.
//! Invariant: no process outlives its test.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{built, shop::PATIENCE};

/// Compiling takes longer than anything that a host does.
const COMPILE_PATIENCE: Duration = Duration::from_secs(300);

pub struct Author {
    dir: TempDir,
}

impl Default for Author {
    fn default() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory can be made") }
    }
}

impl Author {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Types these lines into a shell; all of them must succeed. What they print.
    pub fn types(&self, lines: &str) -> String {
        self.tries(lines).unwrap_or_else(|said| panic!("{lines}\n{said}"))
    }

    /// The same where it may be too early for one of them.
    pub fn tries(&self, lines: &str) -> Result<String, String> {
        let output = self.command("bash", Path::new("")).args(["-euo", "pipefail", "-c", lines]).output();
        let output = output.expect("bash runs");
        let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// What is refused: its exit code, and what it says.
    pub fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.command("sagahost", Path::new("")).args(words).output().expect("the binary starts");
        let code = output.status.code().expect("it ends by itself");
        (code, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A command that goes on, in a directory beneath this one.
    pub fn starts(&self, words: &[&str], within: &str) -> Running {
        let log = self.path(&format!("{}.log", words[0]));
        let file = File::create(&log).expect("a file can be made");
        let twice = file.try_clone().expect("a file can be opened twice");
        let mut command = self.command("sagahost", Path::new(within));
        let child = command.args(words).stdin(Stdio::piped()).stdout(twice).stderr(file).spawn();
        let mut child = child.expect("the binary starts");
        Running { stdin: child.stdin.take(), child, log }
    }

    fn command(&self, program: &str, within: &Path) -> Command {
        let binaries = built::sagahost();
        let binaries = binaries.parent().expect("a binary stands in a directory").to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(binaries.clone()).chain(std::env::split_paths(&path)))
            .expect("a path of paths");
        let program = if program == "sagahost" { binaries.join(program) } else { PathBuf::from(program) };
        let mut command = Command::new(program);
        command.current_dir(self.dir.path().join(within)).env("PATH", path);
        // As in a terminal, not as in a test.
        for name in ["RUST_LOG", "CARGO_TARGET_DIR", "CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"] {
            command.env_remove(name);
        }
        command
    }
}

pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Running {
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said what is looked for, behind the first `known` bytes; returns how much it has said then.
    pub fn says(&mut self, text: &str, known: usize) -> usize {
        let end = Instant::now() + COMPILE_PATIENCE;
        loop {
            // Asked first: what it says last it says before it ends.
            let ended = self.child.try_wait().expect("the process can be asked");
            let said = self.said();
            if said.get(known..).is_some_and(|news| news.contains(text)) {
                return said.len();
            }
            assert!(ended.is_none(), "it ended before it said `{text}`: {ended:?}\n{said}");
            assert!(Instant::now() < end, "it never said `{text}`:\n{said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_typed(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is held until it is dropped");
        writeln!(stdin, "{line}").expect("it reads its input");
    }

    /// Ctrl-C, and its exit code.
    pub fn interrupted(mut self) -> (i32, String) {
        let told = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(told.success(), "it is gone already:\n{}", self.said());
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                return (status.code().unwrap_or(-1), self.said());
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
