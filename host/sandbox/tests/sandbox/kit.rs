//! What all tests of this crate share: the guest, built once, and a host that keeps things in memory.

use std::{
    any::Any,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use sagahost_manifest::host_calls::{Entries, HostCalls, HostFault, Level, PageBounds};
use sagahost_saga::{
    event::Event,
    id::{Direction, EventKey, Time, idempotency_key, step_id},
    outcome::{Call, Cause, Evidence, Saved, UndoCall},
};
use sagahost_sandbox::{
    Engine, Limits, Plugin, admission,
    crate_build::{Request, build},
};

pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn target_dir() -> PathBuf {
    crate_dir().join("../../target/plugins")
}

/// The misbehaving guest's component.
pub fn guest() -> Arc<[u8]> {
    static GUEST: OnceLock<Arc<[u8]>> = OnceLock::new();
    let build_guest = || {
        let out = tempfile::tempdir().unwrap();
        let request = Request {
            crates: vec![crate_dir().join("tests/guest")],
            out: out.path().to_owned(),
            target_dir: Some(target_dir()),
            install: false,
        };
        let built = build(&request, &mut |line| eprintln!("{line}")).unwrap_or_else(|error| panic!("{error}"));
        std::fs::read(&built[0].file).unwrap().into()
    };
    GUEST.get_or_init(build_guest).clone()
}

/// One engine for all tests, as in a host. Its budget is so large that no fault but an endless loop comes to its end, on
/// a busy machine either.
pub fn engine() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| engine_with_budget(60_000)).clone()
}

/// For what never ends by itself.
pub fn impatient_engine() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| engine_with_budget(300)).clone()
}

fn engine_with_budget(budget_ms: u32) -> Arc<Engine> {
    Engine::new(Limits { budget_ms, instances_max: 4, ..Limits::default() }, None).unwrap()
}

pub fn plugin() -> Arc<Plugin> {
    static PLUGIN: OnceLock<Arc<Plugin>> = OnceLock::new();
    PLUGIN.get_or_init(|| admitted(&engine())).clone()
}

pub fn impatient_plugin() -> Arc<Plugin> {
    static PLUGIN: OnceLock<Arc<Plugin>> = OnceLock::new();
    PLUGIN.get_or_init(|| admitted(&impatient_engine())).clone()
}

fn admitted(engine: &Arc<Engine>) -> Arc<Plugin> {
    let admitted = admission::admit(guest(), Path::new("misbehaving.wasm"), engine, &BTreeMap::new());
    admitted.unwrap_or_else(|report| panic!("{report}")).plugin
}

pub fn call(data: &str) -> Call {
    let saga = "s-1".into();
    let key = EventKey::new("tries", "e-1");
    let step_id = step_id(&"misbehaving".into(), &key);
    Call {
        participant: "misbehaving".into(),
        direction: Direction::Forward,
        ordinal: 0,
        attempt: 1,
        idempotency_key: idempotency_key(&saga, &step_id, Direction::Forward, 0),
        event: Event {
            key,
            saga,
            kind: "Try".into(),
            time: Time(5),
            content_type: "text/plain".into(),
            data: data.as_bytes().into(),
            attributes: vec![("subject".to_owned(), "test".to_owned())],
            hops: 0,
            origin: None,
            record_key: None,
        },
        step_id,
        state: None,
        undo: None,
        now: Time(1_700_000_000_000),
        runs: sagahost_saga::outcome::Runs::Here,
        send: 0,
    }
}

pub fn undo_call(undo: &str, format: u32) -> Call {
    let evidence = Evidence::Done(Saved { data: undo.as_bytes().into(), format });
    let cause = Cause { code: "cancelled".into(), detail: "by hand".into(), participant: None, event_kind: None };
    Call {
        direction: Direction::Undo,
        undo: Some(UndoCall { evidence, cause, plugin_version: "1.0.0".into() }),
        ..call("fine")
    }
}

/// Every counter exists but `absent`; key `broken` is one that the host cannot read.
#[derive(Default)]
pub struct Memory {
    pub store: BTreeMap<String, Arc<[u8]>>,
    pub log: Vec<String>,
    pub read_bytes: usize,
    pub written_bytes: usize,
}

impl HostCalls for Memory {
    fn log(&mut self, level: Level, message: &str, _: &[(String, String)]) {
        self.log.push(format!("{level:?} {message}"));
    }
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        if key == "broken" {
            return Err(HostFault::Host("the journal is away".into()));
        }
        let value = self.store.get(key).cloned();
        self.read_bytes += value.as_deref().map_or(0, <[u8]>::len);
        Ok(value)
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.written_bytes += value.len();
        self.store.insert(key.to_owned(), value.into());
        Ok(())
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.store.remove(key);
        Ok(())
    }
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, bounds: PageBounds) -> Result<Entries, HostFault> {
        let asked =
            self.store.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|at| key.as_str() > at));
        let page = bounds.fill(asked.map(|(key, value)| (key.as_str(), value))).into_entries();
        self.read_bytes += page.iter().map(|(_, value)| value.len()).sum::<usize>();
        Ok(page)
    }
    fn counter_ensure(&mut self, _: &str, _: i64) -> Result<(), HostFault> {
        Ok(())
    }
    fn counter_take(&mut self, _: &str, _: u64) -> Result<bool, HostFault> {
        Ok(true)
    }
    fn counter_give(&mut self, name: &str, _: u64) -> Result<(), HostFault> {
        if name != "absent" { Ok(()) } else { Err(HostFault::Guest(format!("counter `{name}` does not exist"))) }
    }
    fn counter_read(&mut self, _: &str) -> Result<Option<i64>, HostFault> {
        Ok(None)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A component with one more manifest section, which `pack` would refuse to append.
pub fn with_manifest(component: &[u8], json: &str) -> Vec<u8> {
    let length = json.len() + 18;
    assert!((128..16384).contains(&length), "a length of two bytes");
    let header = [0, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8, 17];
    [component, &header, b"sagahost:manifest", json.as_bytes()].concat()
}
