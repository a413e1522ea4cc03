//! What a running guest can reach: log, configuration, store and counters of one attempt, each call counted against
//! the limits. Invariant: a guest that goes too far is stopped with a `Stop` that says why; it never sees an error.

use std::{collections::BTreeMap, sync::Arc};

use sagahost_manifest::{
    Limits,
    allowance::{Allowance, Refused},
    cut,
    host_calls::{BoxError, HostCalls, HostFault, Level},
    http::{Failure, Grants, Made, Request, Response, answer_bytes, check},
    limits::ENTRY_BYTES,
};
use thiserror::Error;
use wasmtime::{Result, format_err};

use crate::{
    bindings::{config, counters, http, log, store, wit},
    call::Plugin,
};

/// Why a guest was stopped.
#[derive(Debug, Error)]
pub(crate) enum Stop {
    #[error("it asked for {wanted} bytes of memory, {max} are allowed (memory-bytes-max)")]
    Memory { wanted: usize, max: usize },
    #[error("it asked for a table of {wanted} elements, {max} are allowed (table-elements-max)")]
    Table { wanted: usize, max: usize },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0}")]
    Guest(String),
    /// It is run again, with what it asked for.
    #[error("it waits for what it asked for")]
    Waits,
    #[error("failed to serve a host call: {0}")]
    Host(BoxError),
}

impl From<HostFault> for Stop {
    fn from(fault: HostFault) -> Self {
        match fault {
            HostFault::Guest(cause) => Self::Guest(cause),
            HostFault::Refused(refused) => Self::Refused(refused),
            HostFault::Waits => Self::Waits,
            HostFault::Host(error) => Self::Host(error),
        }
    }
}

/// The field by which the SDK's panic hook marks the guest's last words.
const PANIC_FIELD: &str = "sagahost-panic";

/// Everything that belongs to one instance while it runs.
pub(crate) struct Guest {
    pub(crate) host: Box<dyn HostCalls>,
    config: Arc<BTreeMap<String, String>>,
    grants: Arc<Grants>,
    pub(crate) allowance: Allowance,
    memory_bytes: usize,
    pub(crate) memory_bytes_peak: usize,
    /// The guest's own panic text.
    pub(crate) panic: Option<String>,
}

impl Guest {
    pub(crate) fn new(host: Box<dyn HostCalls>, plugin: &Plugin) -> Self {
        let (config, grants) = (plugin.config.clone(), plugin.grants.clone());
        let allowance = Allowance::new(plugin.engine.limits_shared());
        Self { host, config, grants, allowance, memory_bytes: 0, memory_bytes_peak: 0, panic: None }
    }

    /// For the next call in the same instance: its own host calls, and nothing counted yet. Its memory stays.
    pub(crate) fn next(&mut self, host: Box<dyn HostCalls>, limits: Arc<Limits>) -> Box<dyn HostCalls> {
        (self.allowance, self.panic) = (Allowance::new(limits), None);
        std::mem::replace(&mut self.host, host)
    }

    fn operation(&mut self, key: &str) -> Result<()> {
        self.allowance.operation(key).or_else(stop)
    }
}

fn stop<T>(why: impl Into<Stop>) -> Result<T> {
    Err(why.into().into())
}

fn served<T>(answer: Result<T, HostFault>) -> Result<T> {
    answer.or_else(stop)
}

impl wit::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) -> Result<()> {
        let level = match level {
            log::Level::Trace => Level::Trace,
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        // A panic's text is kept even if the log is full: it is the cause that people look for.
        if level == Level::Error && fields.iter().any(|(name, _)| name == PANIC_FIELD) {
            self.panic = Some(cut(&message, self.allowance.limits().problem_bytes_max).to_owned());
        }
        let bytes = message.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.allowance.line(bytes).or_else(stop)?;
        self.host.log(level, &message, &fields);
        Ok(())
    }
}

impl config::Host for Guest {
    fn get(&mut self, key: String) -> Result<Option<String>> {
        let value = self.config.get(&key);
        self.allowance.configuration(value.map_or(0, String::len)).or_else(stop)?;
        Ok(value.cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>> {
        let pairs = self.config.iter();
        let bytes = pairs.map(|(key, value)| key.len() + value.len() + ENTRY_BYTES).sum();
        self.allowance.configuration(bytes).or_else(stop)?;
        Ok(self.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl store::Host for Guest {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>> {
        self.operation(&key)?;
        let value = served(self.host.store_get(&key))?;
        self.allowance.found(value.as_deref()).or_else(stop)?;
        Ok(value.map(|bytes| bytes.to_vec()))
    }

    fn put(&mut self, key: String, value: Vec<u8>) -> Result<()> {
        self.operation(&key)?;
        self.allowance.value(value.len()).or_else(stop)?;
        served(self.host.store_put(&key, value))
    }

    fn delete(&mut self, key: String) -> Result<()> {
        self.operation(&key)?;
        served(self.host.store_delete(&key))
    }

    fn scan(&mut self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<store::Entry>> {
        self.operation(&prefix)?;
        let bounds = self.allowance.page(limit);
        let found = served(self.host.store_scan(&prefix, after.as_deref(), bounds))?;
        self.allowance.scanned(&found).or_else(stop)?;
        Ok(found.into_iter().map(|(key, value)| store::Entry { key, value: value.to_vec() }).collect())
    }
}

impl counters::Host for Guest {
    fn ensure(&mut self, name: String, initial: i64) -> Result<()> {
        self.operation(&name)?;
        served(self.host.counter_ensure(&name, initial))
    }

    fn take(&mut self, name: String, amount: u64) -> Result<bool> {
        self.operation(&name)?;
        served(self.host.counter_take(&name, amount))
    }

    fn give(&mut self, name: String, amount: u64) -> Result<()> {
        self.operation(&name)?;
        served(self.host.counter_give(&name, amount))
    }

    fn read(&mut self, name: String) -> Result<Option<i64>> {
        self.operation(&name)?;
        served(self.host.counter_read(&name))
    }
}

impl http::Host for Guest {
    fn send(&mut self, request: http::Request) -> Result<Result<http::Response, http::Failure>> {
        let request = asked(request);
        self.allowance.request(request.bytes()).or_else(stop)?;
        if !self.host.http_replays() {
            check(&request, &self.grants, self.allowance.limits()).or_else(|why| stop(Stop::Guest(why)))?;
        }
        let answer = served(self.host.http_send(request))?;
        self.allowance.response(answer_bytes(&answer)).or_else(stop)?;
        Ok(answer.map(response).map_err(|Failure { sent, code, detail }| http::Failure { sent, code, detail }))
    }

    fn calls(&mut self) -> Result<Vec<http::Call>> {
        let made = served(self.host.http_calls())?;
        let bytes = |made: &Made| made.request.bytes() + made.response.as_ref().map_or(0, Response::bytes);
        self.allowance.response(made.iter().map(bytes).sum()).or_else(stop)?;
        let call = |made: Made| http::Call {
            key: made.key,
            request: http::Request {
                method: made.request.method,
                url: made.request.url,
                headers: made.request.headers,
                body: made.request.body,
                timeout_ms: made.request.timeout_ms,
            },
            response: made.response.map(response),
        };
        Ok(made.into_iter().map(call).collect())
    }
}

fn asked(http::Request { method, url, headers, body, timeout_ms }: http::Request) -> Request {
    Request { method, url, headers, body, timeout_ms }
}

fn response(Response { status, headers, body }: Response) -> http::Response {
    http::Response { status, headers, body }
}

impl wasmtime::ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let wanted = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        let max = self.allowance.limits().memory_bytes_max;
        if wanted > max {
            return stop(Stop::Memory { wanted, max });
        }
        self.memory_bytes = wanted;
        self.memory_bytes_peak = self.memory_bytes_peak.max(wanted);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        Err(format_err!("failed to grow memory: {error}"))
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let max = self.allowance.limits().table_elements_max;
        if desired > max { stop(Stop::Table { wanted: desired, max }) } else { Ok(true) }
    }
}
