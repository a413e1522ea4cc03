//! The real binary on embedded topics, in a directory of its own. Invariant: no process outlives its test.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    built,
    compiled::{Lent, lend},
    shop::PATIENCE,
    wait::until,
};

/// What a user has: a configuration, a plugin directory, and somewhere for data.
pub struct Site {
    pub dir: TempDir,
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Site {
    pub fn new(plugins: &[&str], config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        built::copy(plugins, &dir.path().join("plugins"));
        fs::write(dir.path().join("sagahost.toml"), config).expect("the configuration can be written");
        Self { dir }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// In this directory, as a user who stands there would type it; not run yet.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(built::sagahost());
        command.args(words).current_dir(self.dir.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        command.env("XDG_STATE_HOME", built::state());
        command
    }

    /// Until it ends by itself.
    pub fn run(&self, words: &[&str]) -> Ended {
        let (out, err) = (self.file("out.txt"), self.file("err.txt"));
        let file = |path: &PathBuf| File::create(path).expect("a file can be made");
        let child = self.command(words).stdout(file(&out)).stderr(file(&err)).spawn().expect("the binary starts");
        let mut process = Process { child, log: err.clone(), lent: None };
        let code = process.ended();
        let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).expect("it was written")).into_owned();
        Ended { code, out: text(&out), err: text(&err) }
    }

    /// A host that serves.
    pub fn start(&self) -> Process {
        self.start_as(&["run"])
    }

    pub fn start_as(&self, words: &[&str]) -> Process {
        self.serve(self.command(words))
    }

    pub fn start_with_env(&self, words: &[&str], variables: &[(&str, &str)]) -> Process {
        let mut command = self.command(words);
        command.envs(variables.iter().copied());
        self.serve(command)
    }

    /// After a command of the shell such as `umask 000`; compiled code is this site's own.
    pub fn start_after(&self, command: &str) -> Process {
        self.await_serving(self.after(command, &["run"]))
    }

    pub fn run_after(&self, command: &str, words: &[&str]) {
        let status = self.after(command, words).stdout(Stdio::null()).status().expect("sh runs");
        assert!(status.success(), "{words:?}: {status}");
    }

    fn after(&self, first: &str, words: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{first} && exec \"$@\""), "sh"]).arg(built::sagahost()).args(words);
        command.current_dir(self.dir.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        command.env("XDG_STATE_HOME", self.file("state"));
        command
    }

    /// As another user, who may enter the directory of the binary.
    pub fn start_as_user(&self, user: Option<&str>) -> Process {
        let Some(user) = user else { return self.start() };
        let binary = self.file("sagahost");
        fs::copy(built::sagahost(), &binary).expect("the binary can be copied");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--clear-groups", "--"]).arg(binary).arg("run");
        command.current_dir(self.dir.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        self.await_serving(command)
    }

    /// A host that may never serve.
    pub fn begin(&self, words: &[&str]) -> Process {
        self.spawn(self.command(words))
    }

    fn spawn(&self, mut command: Command) -> Process {
        let log = self.file("host.log");
        let file = File::create(&log).expect("a file can be made");
        let twice = file.try_clone().expect("a file can be opened twice");
        let child = command.stdout(twice).stderr(file).spawn().expect("the binary starts");
        Process { child, log, lent: None }
    }

    fn serve(&self, command: Command) -> Process {
        let lent = lend(&self.file("data"));
        let mut process = self.await_serving(command);
        process.lent = Some(lent);
        process
    }

    fn await_serving(&self, command: Command) -> Process {
        let mut process = self.spawn(command);
        until("the host serves", || {
            let ended = process.child.try_wait().expect("the host can be asked");
            assert!(ended.is_none(), "the host ended: {ended:?}\n{}", process.log());
            process.log().contains("serving socket=").then_some(())
        });
        process
    }
}

pub struct Process {
    child: Child,
    log: PathBuf,
    /// Given back once the host has ended.
    lent: Option<Lent>,
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A signal by its name, as `kill` knows it.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "the host is gone already:\n{}", self.log());
    }

    /// Until it was ended by a signal: did the system write its memory to disk?
    pub fn dumped_core(mut self) -> bool {
        self.ended();
        self.child.wait().expect("it has ended").core_dumped()
    }

    /// Until it ends by itself; what it logged.
    pub fn await_end(mut self) -> String {
        self.ended();
        self.log()
    }

    /// Until it ends by itself; its exit code, and what it logged.
    pub fn ended_with(mut self) -> (i32, String) {
        (self.ended(), self.log())
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.ended();
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> i32 {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(killed.success(), "the host is gone already:\n{}", self.log());
        self.ended()
    }

    fn ended(&mut self) -> i32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
