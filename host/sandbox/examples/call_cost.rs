//! What a call costs: builds a plugin crate and calls it again and again, in a fresh instance each time.
//! `cargo run --release -p sagahost-sandbox --example call_cost -- plugins/payment [CALLS] [DATA]`

use std::{
    any::Any,
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use sagahost_manifest::host_calls::{Entries, HostCalls, HostFault, Level, PageBounds};
use sagahost_saga::{
    event::Event,
    id::{Direction, EventKey, Time, idempotency_key, step_id},
    outcome::Call,
};
use sagahost_sandbox::{
    Engine, Limits, Plugin, admission,
    crate_build::{Request, build},
};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let source = PathBuf::from(arguments.next().context("name a plugin crate or a .wasm file")?);
    let calls: u32 = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let data = arguments.next();
    let file = if source.is_dir() { built(source)? } else { source };
    let engine = Engine::new(Limits::default(), None)?;
    let bytes: Arc<[u8]> = std::fs::read(&file)?.into();
    let began = Instant::now();
    let plugin = admission::admit(bytes.clone(), &file, &engine, &BTreeMap::new())?.plugin;
    println!("{plugin:?}: {} bytes, admitted in {:?}", bytes.len(), began.elapsed());
    measure(&plugin, calls, data)
}

fn built(dir: PathBuf) -> Result<PathBuf> {
    let request =
        Request { crates: vec![dir], out: std::env::temp_dir().join("sagahost-call-cost"), ..Request::default() };
    let built = build(&request, &mut |line| println!("{line}"))?;
    Ok(built[0].file.clone())
}

fn measure(plugin: &Plugin, calls: u32, data: Option<String>) -> Result<()> {
    let Some(subscription) = plugin.manifest().subscriptions.first() else { bail!("it subscribes to nothing") };
    let example = subscription.example.as_ref().map(ToString::to_string);
    let data = data.or(example).unwrap_or_else(|| "{}".to_owned());
    let mut host: Box<dyn HostCalls> = Box::new(Kept::default());
    let mut spent = Duration::ZERO;
    let mut slowest = Duration::ZERO;
    let mut peak = 0;
    for number in 0..calls {
        let ran = plugin.run(&call(plugin, &subscription.kind, &data, number), host);
        if number == 0 {
            println!("{:#?}", ran.end);
        }
        ran.end?;
        spent += ran.took;
        slowest = slowest.max(ran.took);
        peak = peak.max(ran.memory_bytes_peak);
        host = ran.host;
    }
    let each = spent.as_secs_f64() * 1e6 / f64::from(calls);
    println!("{calls} calls, {each:.1} µs each, slowest {slowest:?}, {peak} bytes of memory at most");
    Ok(())
}

fn call(plugin: &Plugin, kind: &str, data: &str, number: u32) -> Call {
    let saga = format!("o-{number}").into();
    let key = EventKey::new("orders", number.to_string());
    let step_id = step_id(&plugin.name(), &key);
    Call {
        participant: plugin.name(),
        direction: Direction::Forward,
        ordinal: 0,
        attempt: 1,
        idempotency_key: idempotency_key(&saga, &step_id, Direction::Forward, 0),
        event: Event {
            key,
            saga,
            kind: kind.into(),
            time: Time(0),
            content_type: "application/json".into(),
            data: data.as_bytes().into(),
            attributes: Vec::new(),
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

/// Keeps nothing but what a call needs to get through.
#[derive(Default)]
struct Kept {
    store: BTreeMap<String, Arc<[u8]>>,
    counters: BTreeMap<String, i64>,
}

impl HostCalls for Kept {
    fn log(&mut self, _: Level, _: &str, _: &[(String, String)]) {}
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        Ok(self.store.get(key).cloned())
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.store.insert(key.to_owned(), value.into());
        Ok(())
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.store.remove(key);
        Ok(())
    }
    fn store_scan(&mut self, _: &str, _: Option<&str>, _: PageBounds) -> Result<Entries, HostFault> {
        Ok(Vec::new())
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        self.counters.entry(name.to_owned()).or_insert(initial);
        Ok(())
    }
    fn counter_take(&mut self, _: &str, _: u64) -> Result<bool, HostFault> {
        Ok(true)
    }
    fn counter_give(&mut self, _: &str, _: u64) -> Result<(), HostFault> {
        Ok(())
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        Ok(self.counters.get(name).copied())
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
