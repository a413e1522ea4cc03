//! Compiled code between starts: what is kept, what is used, what is compiled again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sagahost_saga::id::sha256;
use sagahost_sandbox::{
    Engine, Limits,
    admission::{self, admit},
    cache::CodeCache,
    key::{CodeKey, KeyError},
};
use tempfile::TempDir;

use crate::{kit::guest, versions::version};

/// A data directory, and beside it the state directory of its user.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn cache(&self) -> PathBuf {
        self.data().join("cache")
    }

    fn key(&self) -> PathBuf {
        self.0.path().join("state/code.key")
    }

    fn start(&self) -> Arc<Engine> {
        self.start_with(CodeKey::of_file(&self.key(), &self.data()))
    }

    fn start_with(&self, key: Result<CodeKey, KeyError>) -> Arc<Engine> {
        let cache = CodeCache::open(&self.cache(), key).unwrap();
        Engine::new(Limits { instances_max: 2, ..Limits::default() }, Some(cache)).unwrap()
    }

    fn compile(&self) {
        compile(&self.start(), guest());
    }

    /// The one file of the cache.
    fn file(&self) -> (PathBuf, Vec<u8>) {
        let files: Vec<_> = fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        (files[0].clone(), fs::read(&files[0]).unwrap())
    }
}

fn compile(engine: &Arc<Engine>, bytes: Arc<[u8]>) -> Arc<str> {
    let admitted = admit(bytes, Path::new("p.wasm"), engine, &BTreeMap::new());
    admitted.unwrap_or_else(|report| panic!("{report}")).plugin.digest().clone()
}

#[test]
fn compiled_code_is_kept_and_a_damaged_file_is_compiled_again() {
    let place = Place::new();
    place.compile();
    let (path, compiled) = place.file();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before = modified(&path);
    place.compile();
    assert_eq!((place.file().1, modified(&path)), (compiled.clone(), before), "it is used, not written again");
    let mut damaged = compiled.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for bytes in [&damaged[..], &compiled[..100], b""] {
        fs::write(&path, bytes).unwrap();
        place.compile();
        assert_eq!(place.file().1, compiled, "compiled again");
    }
}

/// What somebody else prepared: other code under this plugin's name, with everything that can be known of the file. Were
/// it used, that code would run with all that the host's user may do.
#[test]
fn code_that_was_prepared_elsewhere_is_compiled_again() {
    let (here, there) = (Place::new(), Place::new());
    here.compile();
    there.compile();
    let ((path, ours), (_, of_another_user)) = (here.file(), there.file());
    let header = 8 + 32;
    assert_eq!(ours[header..], of_another_user[header..], "the same code");
    let mut code = ours[header..].to_vec();
    let middle = code.len() / 2;
    code[middle] ^= 1;
    let summed = |magic: &[u8]| [magic, &sha256(&[&code]), &code].concat();
    let our_mark = [&ours[..header], &code].concat();
    for prepared in [summed(b"sagacwa1"), summed(b"sagacwa2"), of_another_user, our_mark] {
        fs::write(&path, prepared).unwrap();
        here.compile();
        assert_eq!(here.file().1, ours, "compiled again");
    }
    // Our own code of another plugin is not this one's either.
    fs::remove_file(&path).unwrap();
    let other = compile(&here.start(), version("0.9.0", 1));
    let (other_path, other_code) = here.file();
    assert!(other_path.to_string_lossy().contains(&*other));
    fs::write(&path, other_code).unwrap();
    fs::remove_file(other_path).unwrap();
    here.compile();
    assert_eq!(here.file().1, ours, "compiled again");
}

#[test]
fn without_a_key_nothing_is_kept_and_nothing_is_used() {
    let place = Place::new();
    place.compile();
    let (path, compiled) = place.file();
    let mut damaged = compiled.clone();
    damaged.truncate(50);
    fs::write(&path, &damaged).unwrap();
    compile(&place.start_with(Err(KeyError::Off)), guest());
    assert_eq!(place.file().1, damaged, "neither read nor written");
    fs::remove_file(&path).unwrap();
    compile(&place.start_with(Err(KeyError::Off)), guest());
    assert_eq!(fs::read_dir(place.cache()).unwrap().count(), 0);
}

#[test]
fn a_key_is_made_once_and_is_refused_where_it_is_no_secret() {
    let place = Place::new();
    let refusal = |file: &Path| {
        let error = CodeKey::of_file(file, &place.data()).unwrap_err().to_string();
        error.replace(&place.0.path().display().to_string(), "DIR")
    };
    fs::create_dir(place.data()).unwrap();
    assert_eq!(
        refusal(&place.data().join("code.key")),
        "the key DIR/data/code.key would be in the data directory, beside the code"
    );
    assert!(!place.data().join("code.key").exists());
    CodeKey::of_file(&place.key(), &place.data()).unwrap();
    let bytes = fs::read(place.key()).unwrap();
    CodeKey::of_file(&place.key(), &place.data()).unwrap();
    assert_eq!((fs::read(place.key()).unwrap(), bytes.len()), (bytes, 32));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.key()), mode(place.key().parent().unwrap())), (0o600, 0o700));

    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    set(&place.key(), 0o644);
    assert!(refusal(&place.key()).contains("other users can read it (mode 0644)"), "{}", refusal(&place.key()));
    set(&place.key(), 0o600);
    set(place.key().parent().unwrap(), 0o777);
    assert!(refusal(&place.key()).contains("can be written by other users (mode 0777"), "{}", refusal(&place.key()));
    set(place.key().parent().unwrap(), 0o700);
    fs::write(place.key(), "short").unwrap();
    assert!(refusal(&place.key()).contains("does not have 32 bytes"), "{}", refusal(&place.key()));
    // A container's file system that cannot be written: no key, and no failure.
    assert!(refusal(Path::new("/proc/state/code.key")).contains("cannot be used"));
    compile(&place.start_with(CodeKey::of_file(Path::new("/proc/state/code.key"), &place.data())), guest());
}

#[test]
fn compiled_code_goes_when_nobody_wants_its_version_any_more() {
    let place = Place::new();
    let engine = place.start();
    let (kept, dropped) = (compile(&engine, version("0.1.0", 1)), compile(&engine, version("0.2.0", 1)));
    // A host that was killed while it wrote, one of another version, and a file of somebody else's.
    for name in [format!("{dropped}-0.cwasm.7.new"), format!("{dropped}-1.cwasm"), "notes-1.cwasm".to_owned()] {
        fs::write(place.cache().join(name), "").unwrap();
    }
    let forget = |since| engine.forget_compiled(|digest| *digest == *kept, since).unwrap();
    assert_eq!(forget(SystemTime::UNIX_EPOCH), 0, "it was compiled just now");
    assert_eq!(forget(SystemTime::now() + Duration::from_secs(1)), 3);
    let names = fs::read_dir(place.cache()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: BTreeSet<bool> = names.map(|name| name.starts_with(&*kept) || name == "notes-1.cwasm").collect();
    assert_eq!(left, BTreeSet::from([true]));
    assert_eq!(kept, admission::digest(&version("0.1.0", 1)));
}
