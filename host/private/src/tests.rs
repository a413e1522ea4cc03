//! Directories that others prepared, and files that are not what they should be.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        net::UnixListener,
    },
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::{Contents, create_empty, create_once, open, open_or_create, read, secure, write};

const CONTENTS: Contents<'static> =
    Contents { files: &["journal.db", "lock"], sockets: &["admin.sock"], directories: &["cache"] };
/// Nobody here has this number.
const STRANGER: u32 = 54_321;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A directory of an earlier version: others can read all of it.
fn earlier() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir_all(data.join("cache")).unwrap();
    for (path, of) in [("", 0o755), ("cache", 0o755), ("journal.db", 0o644), ("cache/code", 0o644), ("notes", 0o644)] {
        let path = data.join(path);
        if !path.is_dir() {
            fs::write(&path, "text").unwrap();
        }
        set_mode(&path, of);
    }
    dir
}

/// What `secure` says of the directory, without the temporary part.
fn refusal(dir: &TempDir) -> String {
    match secure(&dir.path().join("data"), &CONTENTS) {
        Ok(secured) => panic!("it was accepted: {secured:?}"),
        Err(error) => error.to_string().replace(&dir.path().display().to_string(), "DIR"),
    }
}

#[test]
fn an_absent_directory_is_made_for_its_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    let secured = secure(&data, &CONTENTS).unwrap();
    assert_eq!((secured.narrowed, mode(&data), mode(&dir.path().join("deep"))), (Vec::new(), 0o700, 0o700));
}

#[test]
fn what_others_could_read_is_narrowed_and_named_once() {
    let dir = earlier();
    let data = dir.path().join("data");
    let narrowed = secure(&data, &CONTENTS).unwrap().narrowed;
    assert_eq!(narrowed.len(), 4, "{narrowed:?}");
    assert!(narrowed.contains(&(data.canonicalize().unwrap(), 0o755)), "{narrowed:?}");
    for (name, wanted) in [("", 0o700), ("cache", 0o700), ("journal.db", 0o600), ("cache/code", 0o600)] {
        assert_eq!(mode(&data.join(name)), wanted, "{name}");
    }
    assert_eq!(mode(&data.join("notes")), 0o644, "it is not the host's");
    assert_eq!(secure(&data, &CONTENTS).unwrap().narrowed, Vec::new());
}

#[test]
fn what_others_can_write_is_refused_wherever_it_is() {
    for name in ["", "cache", "journal.db", "cache/code"] {
        let dir = earlier();
        let path = dir.path().join("data").join(name);
        set_mode(&path, 0o777);
        let said = refusal(&dir);
        let wanted = format!("{} can be written by other users (mode 0777", Path::new("DIR/data").join(name).display());
        assert!(said.starts_with(wanted.trim_end_matches('/')) || said.contains("mode 0777"), "{said}");
        assert!(said.contains(if name.is_empty() { "DIR/data" } else { name }), "{said}");
    }
    let dir = earlier();
    set_mode(&dir.path().join("data"), 0o1777);
    assert!(refusal(&dir).contains("mode 1777"), "the sticky bit keeps nobody from adding files");
    // The way on that the refusal names.
    set_mode(&dir.path().join("data"), 0o755);
    secure(&dir.path().join("data"), &CONTENTS).unwrap();
}

#[test]
fn a_directory_above_that_others_can_write_needs_the_sticky_bit() {
    let dir = tempfile::tempdir().unwrap();
    let above = dir.path().join("above");
    fs::create_dir(&above).unwrap();
    set_mode(&above, 0o777);
    let said = secure(&above.join("data"), &CONTENTS).unwrap_err().to_string();
    assert!(said.contains("above, which is above ") && said.contains("mode 0777"), "{said}");
    set_mode(&above, 0o1777);
    secure(&above.join("data"), &CONTENTS).unwrap();
}

#[test]
fn a_link_leads_to_the_directory_and_nowhere_from_within() {
    let dir = earlier();
    fs::rename(dir.path().join("data"), dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("data")).unwrap();
    let secured = secure(&dir.path().join("data"), &CONTENTS).unwrap();
    assert_eq!(secured.path, dir.path().join("real").canonicalize().unwrap());
    set_mode(&dir.path().join("real"), 0o777);
    assert!(refusal(&dir).starts_with("DIR/real can be written"), "{}", refusal(&dir));

    for name in ["journal.db", "cache", "cache/code", "admin.sock"] {
        let dir = earlier();
        let (path, elsewhere) = (dir.path().join("data").join(name), dir.path().join("elsewhere"));
        let _ = fs::rename(&path, &elsewhere);
        symlink(&elsewhere, &path).unwrap();
        let wanted = format!("DIR/data/{name} is a symbolic link, and none is followed here: replace it");
        assert!(refusal(&dir).starts_with(&wanted), "{}", refusal(&dir));
    }
}

#[test]
fn a_thing_of_another_kind_is_refused() {
    let dir = earlier();
    let data = dir.path().join("data");
    let listener = UnixListener::bind(data.join("lock")).unwrap();
    assert_eq!(refusal(&dir), "DIR/data/lock is not a regular file: remove it");
    fs::remove_file(data.join("lock")).unwrap();
    drop(listener);
    fs::write(data.join("admin.sock"), "").unwrap();
    assert_eq!(refusal(&dir), "DIR/data/admin.sock is not a socket: remove it");
}

/// True: this process may give files away. Otherwise the test's output says what was not shown.
fn can_give_away(what: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let can = chown(dir.path(), Some(STRANGER), None).is_ok();
    if !can {
        // Not by a macro, whose output a test that passes does not show.
        let _ = writeln!(std::io::stderr(), "NOT SHOWN (needs root): {what}");
    }
    can
}

#[test]
fn what_belongs_to_another_user_is_refused_wherever_it_is() {
    if !can_give_away("files of another owner are refused") {
        return;
    }
    for name in ["", "cache", "journal.db", "cache/code"] {
        let dir = earlier();
        chown(dir.path().join("data").join(name), Some(STRANGER), None).unwrap();
        let said = refusal(&dir);
        assert!(said.contains(&format!("belongs to user {STRANGER}, and this process runs as user 0")), "{said}");
        assert!(said.contains(name), "{said}");
    }
    let dir = earlier();
    chown(dir.path(), Some(STRANGER), None).unwrap();
    assert!(refusal(&dir).starts_with("DIR, which is above DIR/data, belongs to user"), "{}", refusal(&dir));
}

/// What may be written by a group is judged by who is in it.
#[test]
fn a_group_with_others_in_it_is_others() {
    if !can_give_away("directories that a group of others can write are refused") {
        return;
    }
    let dir = earlier();
    let data = dir.path().join("data");
    chown(&data, None, Some(STRANGER)).unwrap();
    set_mode(&data, 0o775);
    assert!(refusal(&dir).contains(&format!("mode 0775, owner 0, group {STRANGER}")), "root is not in that group");
    chown(&data, None, Some(0)).unwrap();
    set_mode(&data, 0o775);
    assert_eq!(secure(&data, &CONTENTS).unwrap().narrowed.len(), 4, "root's group is root's");
}

#[test]
fn files_are_made_private_and_read_only_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    drop(open_or_create(&path("lock")).unwrap());
    create_empty(&path("database")).unwrap();
    create_empty(&path("database")).unwrap();
    write(&path("listing"), &[b"a", b"b"]).unwrap();
    write(&path("listing"), &[b"abc"]).unwrap();
    create_once(&path("key"), b"first").unwrap();
    assert_eq!(create_once(&path("key"), b"second").unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 4, "nothing temporary is left: {names:?}");
    assert!(names.iter().all(|name| mode(name) == 0o600));

    assert_eq!(read(&path("key"), 5).unwrap(), b"first");
    assert_eq!(read(&path("listing"), 2).unwrap_err().to_string(), "it has more than 2 bytes");
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    symlink("listing", path("link")).unwrap();
    set_mode(&path("lock"), 0o666);
    for (name, why) in [
        ("pipe", "it is not a regular file"),
        ("link", "it is a symbolic link, and none is followed here"),
        ("lock", "it can be written by other users"),
    ] {
        for error in [read(&path(name), 9).unwrap_err(), open_or_create(&path(name)).unwrap_err()] {
            assert!(error.to_string().starts_with(why), "{name}: {error}");
        }
        assert!(open(&path(name)).is_err());
    }
    // A link that waits where a file is to be written is replaced, not followed.
    symlink("listing", path("fresh")).unwrap();
    write(&path("fresh"), &[b"new"]).unwrap();
    assert_eq!(
        (read(&path("fresh"), 9).unwrap(), read(&path("listing"), 9).unwrap()),
        (b"new".to_vec(), b"abc".to_vec())
    );
}

/// Several threads and processes may write one file, and none waits for another.
#[test]
fn files_that_killed_processes_left_half_written_go_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    secure(&data, &CONTENTS).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 60 * 60);
    let below = CONTENTS.directories[0];
    fs::create_dir_all(data.join(below)).unwrap();
    let names = ["listing.abc.new", "listing.def.new", "notes.new.txt", &format!("{below}/code.cwasm.abc.new")];
    for name in names {
        fs::write(data.join(name), "half").unwrap();
        if name != names[1] {
            fs::File::options().write(true).open(data.join(name)).unwrap().set_modified(old).unwrap();
        }
    }
    secure(&data, &CONTENTS).unwrap();
    assert_eq!(names.map(|name| data.join(name).exists()), [false, true, true, false], "{names:?}");
}
