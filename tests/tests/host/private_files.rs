//! What a host leaves to other users, and what it takes from them: nothing. Invariant of all tests: a case that needs root
//! is made for real where there is root, and otherwise named in the output as not shown.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use sagahost::data_directory::CONTENTS;
use sagahost_saga::id::sha256;
use sagahost_sandbox::admission::digest;
use sagahost_tests::{
    binary::{Ended, Process, Site},
    shop::THREE,
    wait::until,
};

const CONFIG: &str = "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\n";
/// Nobody here has this number.
const STRANGER: u32 = 54_321;
const NARROWED: &str = "other users could read the data directory";

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Everything below, and the directory itself.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(tree(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// What others may do something with.
fn open_to_others(dir: &Path) -> Vec<String> {
    let found = tree(dir).into_iter().filter(|path| mode(path) & 0o077 != 0);
    found.map(|path| format!("{} {:04o}", path.display(), mode(&path))).collect()
}

/// Its compiled code is no link to what hosts of other tests use, whose owner and mode are changed with it.
fn alone(site: &Site) -> Process {
    site.start_after("true")
}

fn needs_root(what: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let can = chown(dir.path(), Some(STRANGER), None).is_ok();
    if !can {
        // Not by a macro, whose output a test that passes does not show.
        let _ = writeln!(std::io::stderr(), "NOT SHOWN (needs root): {what}");
    }
    can
}

#[track_caller]
fn assert_refused(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, 10, "{ended:?}");
    for part in parts {
        assert!(ended.err.contains(part), "{part:?} is not in: {}", ended.err);
    }
}

#[test]
fn all_that_a_host_makes_is_for_its_user_alone_whatever_the_umask() {
    for umask in ["umask 000", "umask 022", "umask 077"] {
        let site = Site::new(&THREE, CONFIG);
        // A command comes first: it makes the topics.
        site.run_after(umask, &["emit", "OrderCreated", "--saga", "o-1", "--data", "{}"]);
        assert_eq!(open_to_others(&site.file("data")), Vec::<String>::new(), "{umask}, emit");
        let host = site.start_after(umask);
        until("the event is handled", || site.run(&["sagas", "show", "o-1"]).out.contains("o-1").then_some(()));
        let made: Vec<String> = fs::read_dir(site.file("data"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for name in ["journal.db", "journal.db-wal", "topics.db-wal", "admin.sock", "plugins.json", "cache", "plugins"]
        {
            assert!(made.iter().any(|made| made == name), "{name} is not in {made:?}");
        }
        assert!(tree(&site.file("data/cache")).len() > 3, "nothing was compiled");
        for dir in ["data", "state/sagahost"] {
            assert_eq!(open_to_others(&site.file(dir)), Vec::<String>::new(), "{umask}, {dir}");
        }
        let known = |name: &&String| {
            let lists = [CONTENTS.files, CONTENTS.sockets, CONTENTS.directories];
            lists.iter().any(|list| list.contains(&name.as_str()))
        };
        let unknown: Vec<&String> = made.iter().filter(|name| !known(name)).collect();
        assert_eq!(unknown, Vec::<&String>::new(), "a start does not check these");
        assert!(!host.log().contains(NARROWED), "{}", host.log());
        assert_eq!(host.stop(), 0);
        assert_eq!(open_to_others(&site.file("data")), Vec::<String>::new(), "{umask}, after the end");
    }
}

#[test]
fn a_directory_of_an_earlier_version_is_narrowed_once() {
    let site = Site::new(&THREE, CONFIG);
    assert_eq!(alone(&site).stop(), 0);
    for path in tree(&site.file("data")) {
        set_mode(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    let host = alone(&site);
    assert_eq!(host.log().matches(NARROWED).count(), 1, "{}", host.log());
    assert_eq!(open_to_others(&site.file("data")), Vec::<String>::new());
    assert_eq!(host.stop(), 0);
    let host = alone(&site);
    assert!(!host.log().contains(NARROWED), "{}", host.log());
    assert_eq!(host.stop(), 0);
}

#[test]
fn what_others_can_write_is_refused_by_host_and_commands() {
    let site = Site::new(&THREE, CONFIG);
    assert_eq!(site.start().stop(), 0);
    for name in ["data", "data/cache", "data/plugins", "data/journal.db", "data/topics.db", "data/journal.lock"] {
        let before = mode(&site.file(name));
        set_mode(&site.file(name), before | 0o002);
        for words in [&["run"][..], &["sagas", "list"], &["plugins", "list"]] {
            assert_refused(&site.run(words), &[name, "can be written by other users", "go-w"]);
        }
        set_mode(&site.file(name), before);
    }
    let elsewhere = site.file("elsewhere.db");
    fs::rename(site.file("data/topics.db"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, site.file("data/topics.db")).unwrap();
    assert_refused(&site.run(&["run"]), &["data/topics.db is a symbolic link, and none is followed here"]);
    fs::rename(&elsewhere, site.file("data/topics.db")).unwrap();

    fs::rename(site.file("data"), site.file("real")).unwrap();
    std::os::unix::fs::symlink("real", site.file("data")).unwrap();
    set_mode(&site.file("real"), 0o777);
    assert_refused(&site.run(&["run"]), &["real can be written by other users (mode 0777"]);
    // Whoever says so has it unchecked, for a volume that nobody else can reach.
    let unchecked = format!("{CONFIG}data-access = \"unchecked\"\n");
    fs::write(site.file("sagahost.toml"), unchecked).unwrap();
    let host = site.start();
    assert!(host.log().contains("is not checked"), "{}", host.log());
    assert_eq!(host.stop(), 0);
    fs::write(site.file("sagahost.toml"), CONFIG).unwrap();
    set_mode(&site.file("real"), 0o700);
    assert_eq!(site.start().stop(), 0, "the directory itself may be reached through a link");

    fs::write(site.file("sagahost.toml"), format!("{CONFIG}[admin]\nsocket = \"run/admin.sock\"\n")).unwrap();
    fs::create_dir(site.file("run")).unwrap();
    set_mode(&site.file("run"), 0o777);
    assert_refused(
        &site.run(&["run"]),
        &["run, which is above ", "admin.sock, can be written by other users (mode 0777"],
    );
    set_mode(&site.file("run"), 0o1777);
    assert_eq!(site.start().stop(), 0, "as in /tmp: others cannot replace it");
}

/// A data directory that somebody else prepared, with code of theirs and a checksum that is right.
#[test]
fn a_directory_that_another_user_prepared_is_refused() {
    if !needs_root("a host of root refuses the data directory of another user") {
        return;
    }
    let site = Site::new(&THREE, CONFIG);
    assert_eq!(alone(&site).stop(), 0);
    let (file, _) = prepare(&site, b"sagacwa1");
    let said = |owner| format!("belongs to user {owner}, and this process runs as user 0");
    for path in tree(&site.file("data")) {
        chown(&path, Some(STRANGER), None).unwrap();
    }
    for words in [&["run"][..], &["sagas", "list"], &["plugins", "list"]] {
        assert_refused(&site.run(words), &["data ", &said(STRANGER)]);
    }
    // One file of theirs is enough.
    for path in tree(&site.file("data")) {
        chown(&path, Some(0), None).unwrap();
    }
    chown(&file, Some(STRANGER), None).unwrap();
    assert_refused(&site.run(&["run"]), &[".cwasm ", &said(STRANGER)]);
    chown(&file, Some(0), None).unwrap();
    chown(site.dir.path(), Some(STRANGER), None).unwrap();
    assert_refused(&site.run(&["run"]), &["which is above", &said(STRANGER)]);
    chown(site.dir.path(), Some(0), None).unwrap();
    assert_eq!(alone(&site).stop(), 0);
}

/// Compiled code of another plugin in place of payment's, as one who knows the layout writes it; also what was there.
fn prepare(site: &Site, magic: &[u8; 8]) -> (PathBuf, Vec<u8>) {
    let digest_of = |name: &str| digest(&fs::read(site.file(&format!("plugins/{name}.wasm"))).unwrap());
    let compiled = |name: &str| {
        let digest = digest_of(name);
        let of_it = |path: &PathBuf| path.to_string_lossy().contains(&*digest);
        tree(&site.file("data/cache")).into_iter().find(of_it).expect("it was compiled")
    };
    let (payment, order) = (compiled("payment"), compiled("order"));
    let ours = fs::read(&payment).unwrap();
    let code = fs::read(order).unwrap().split_off(8 + 32);
    fs::remove_file(&payment).unwrap();
    fs::write(&payment, [&magic[..], &sha256(&[&code]), &code].concat()).unwrap();
    (payment, ours)
}

/// The same where the files belong to the host's user, as after `chown -R`, or in a copy that root unpacked.
#[test]
fn compiled_code_that_this_user_did_not_compile_is_compiled_again() {
    for magic in [b"sagacwa1", b"sagacwa2"] {
        let site = Site::new(&THREE, CONFIG);
        assert_eq!(site.start().stop(), 0);
        let (file, ours) = prepare(&site, magic);
        let host = site.start();
        assert_eq!(host.log().matches(" admitted plugin=").count(), 3, "{}", host.log());
        assert!(!host.log().contains("is not admitted"), "{}", host.log());
        assert_eq!(host.stop(), 0);
        assert_eq!(fs::read(file).unwrap(), ours, "compiled again");
    }
}

#[test]
fn a_host_without_a_key_compiles_at_each_start_and_says_so_once() {
    let site = Site::new(&THREE, &format!("{CONFIG}compiled-code-key = \"data/key\"\n"));
    let host = site.start();
    let log = host.log();
    assert_eq!(log.matches("compiled code is not kept").count(), 1, "{log}");
    assert!(log.contains("would be in the data directory, beside the code"), "{log}");
    assert_eq!(log.matches(" admitted plugin=").count(), 3, "{log}");
    assert_eq!(host.stop(), 0);
}

struct Holding(Child);

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Holds the lock until it is dropped, in a shell that runs this command.
fn holding(site: &Site, command: &str) -> Holding {
    let child = Command::new("sh")
        .args(["-c", command])
        .current_dir(site.dir.path())
        .stdin(Stdio::null())
        .spawn()
        .expect("sh runs");
    let holding = Holding(child);
    until("the lock is taken", || {
        let mut free = Command::new("flock");
        free.args(["--nonblock", "data/journal.lock", "true"]).current_dir(site.dir.path());
        (!free.status().expect("flock runs").success()).then_some(())
    });
    holding
}

/// The owner that lives is in `data_directory`.
#[test]
fn a_lock_that_no_host_holds_is_told_from_an_owner() {
    let site = Site::new(&THREE, CONFIG);
    let host = site.start();
    let gone = host.id();
    assert_eq!(host.stop(), 0);

    let holder = holding(&site, "exec flock --no-fork data/journal.lock sleep 600");
    let ended = site.run(&["run"]);
    let process = format!("is locked by process {} (sleep) of user ", holder.0.id());
    assert_refused(&ended, &[&process, "which is not a host that owns it", "have it let go of"]);
    assert!(!ended.err.contains(&gone.to_string()), "the owner before is named: {}", ended.err);
    drop(holder);

    // Whoever took the lock has ended; a process that it started has the file open.
    let holder = holding(&site, "exec 9<data/journal.lock && flock 9 && exec sleep 600");
    let ended = site.run(&["run"]);
    assert_refused(&ended, &["which has ended: a process that it started still has", "fuser -v"]);
    drop(holder);
    assert_eq!(site.start().stop(), 0);
}

#[test]
fn memory_is_not_written_to_disk_unless_the_configuration_says_so() {
    let ended = |config: &str| {
        let site = Site::new(&THREE, config);
        let host = site.start_after("ulimit -c unlimited");
        let limits = fs::read_to_string(format!("/proc/{}/limits", host.id())).unwrap();
        let limit = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let limit: Vec<&str> = limit.split_whitespace().skip(4).take(2).collect();
        // Who may look into the process; root's own is root's either way.
        let owner = fs::metadata(format!("/proc/{}/environ", host.id())).unwrap().uid();
        let limit = limit.join(" ");
        host.signal("ABRT");
        (limit, owner, host.dumped_core())
    };
    let may_raise = Command::new("sh").args(["-c", "ulimit -c unlimited"]).status().expect("sh runs").success();
    if !may_raise {
        let _ = writeln!(std::io::stderr(), "NOT SHOWN (the limit of core files is fixed here): core dumps");
        return;
    }
    assert_eq!(ended(CONFIG), ("0 0".to_owned(), 0, false));
    let (limit, _, dumped) = ended(&format!("{CONFIG}core-dumps = true\n"));
    assert_eq!(limit, "unlimited unlimited");
    // Where the system pipes dumps into a program, or has no room for one, there is none to see.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim() == "core" {
        assert!(dumped, "the mend is not what prevented it");
    }
}
